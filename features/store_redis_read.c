/* store_redis_read.c: readers. Each thread between read_begin and read_end has a connection of its
 * own, from a pool that grows to as many as there are readers at once.
 *
 * What a reader sees: first it asks for `applied`, then it reads records, each once. `applied` is
 * written after all of a micro-batch is, so every record holds at least the events up to it; where
 * one holds more, since a batch is just being written, its header says up to which offsets. In a
 * cluster the question and the records go to different servers and so take a round trip each.
 *
 * A server that takes over, or comes back, may know less than `applied`, which another one keeps.
 * It is reached over a new connection. So after every new one the buckets' markers are asked for,
 * too, and what is applied everywhere is the least of them, until all have caught up; and a
 * section whose connections changed while it was read begins anew, or fails.
 *
 * What was read is kept (store_redis_near.c) as long as the server, which tells over the same
 * connection which keys change, has not told so: client-side caching, RESP3. All that a connection
 * brings is in the order of what happened there, so whatever is kept when everything that came has
 * been taken is as it was at one moment, that of the last answer or later. A section that finds all
 * it reads may go by `applied` as it was asked for up to near_us ago: events are only ever added,
 * so each record holds them, and those it has seen beyond are in its header, which is true as long
 * as `applied` is younger than the entries that writers drop from headers (10 s). So what a section
 * says it has seen stays exact; it may only be near_us old. Where `applied` is asked for anew, what
 * is kept counts as of after the answer: a record that changed before it is read again. And when
 * somebody was told that an event is applied, all sections from then on ask. */
#include "features/store_redis_parts.h"
#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include "base/clock.h"
#include "base/hash.h"
#include "base/heap.h"
#include "base/metric.h"
#include "features/shares.h"
#include "features/state_parts.h"

enum { INDEX_FIRST = 64, ROUNDS_MAX = 8 };

static _Thread_local struct feat_redis_reader *mine; /* of this thread's section */

static _Thread_local struct {
    void (*told)(void *context);
    void *context;
} waits; /* who wants to know that this thread waits */

void feat_state_tell_waits(void (*told)(void *context), void *context) {
    waits.told = told;
    waits.context = context;
}

static enum status run(struct feat_redis_reader *r) {
    if (waits.told != NULL)
        waits.told(waits.context);
    return feat_redis_run(r->redis);
}

/* ---- the pool ---- */

static struct feat_redis_reader *reader_new(const struct feat_store *s) {
    struct feat_redis_reader *r = HEAP_NEW(struct feat_redis_reader);
    r->redis = feat_redis_new(&s->conf.redis, NULL);
    r->trusted = UINT64_MAX;
    if (s->conf.near_bytes > 0 && s->conf.redis.mode != FEAT_REDIS_CLUSTER) {
        r->near = feat_redis_near_new((size_t)s->conf.near_bytes);
        feat_redis_track(r->redis);
    }
    r->index_cap = INDEX_FIRST;
    r->index = HEAP_ARRAY(uint32_t, r->index_cap);
    arena_init(&r->arena, 0);
    return r;
}

static void reader_free(struct feat_redis_reader *r) {
    feat_redis_free(r->redis);
    arena_deinit(&r->arena);
    feat_redis_near_free(r->near);
    heap_free(r->applied);
    heap_free(r->sums);
    heap_free(r->names);
    heap_free(r->found);
    heap_free(r->index);
    heap_free(r);
}

struct feat_redis_reader *feat_redis_reader_take(struct feat_store *s) {
    pthread_mutex_lock(&s->lock);
    struct feat_redis_reader *r = s->pool;
    if (r != NULL)
        s->pool = r->next;
    pthread_mutex_unlock(&s->lock);
    if (r == NULL)
        r = reader_new(s);
    r->has_applied = r->told = false;
    r->failed = STATUS_OK;
    r->n = r->n_sums = 0;
    r->n_near = r->n_asked = 0;
    memset(r->index, 0, r->index_cap * sizeof *r->index);
    arena_reset(&r->arena);
    return r;
}

void feat_redis_reader_give(struct feat_store *s, struct feat_redis_reader *r) {
    pthread_mutex_lock(&s->lock);
    r->next = s->pool;
    s->pool = r;
    pthread_mutex_unlock(&s->lock);
}

void feat_redis_readers_close(struct feat_store *s) {
    for (struct feat_redis_reader *r = s->pool, *next; r != NULL; r = next) {
        next = r->next;
        reader_free(r);
    }
    s->pool = NULL;
}

/* ---- what is near ---- */

/* Is what the connection has told all there is to know? */
static bool keeps(const struct feat_redis_reader *r) {
    return r->near != NULL && feat_redis_tells(r->redis) &&
           r->trusted == feat_redis_epoch(r->redis) && r->near_epoch == r->trusted;
}

struct listener {
    const struct feat_store *store;
    struct feat_redis_reader *reader;
};

static void note_change(void *context, struct slice key) {
    struct listener *l = context;
    struct feat_redis_reader *r = l->reader;
    struct feat_entity e;
    if (feat_redis_near_changed(r->near, l->store, key, &e) &&
        r->n_changed < FEAT_REDIS_CHANGED_MAX)
        r->changed[r->n_changed++] = e;
    else if (key.n == 0 || r->n_changed == FEAT_REDIS_CHANGED_MAX)
        r->n_changed = FEAT_REDIS_CHANGED_MAX + 1;
}

/* Drops what has changed by now. */
static void hear(const struct feat_store *s, struct feat_redis_reader *r) {
    struct listener l = {s, r};
    r->n_changed = 0;
    if (r->near == NULL)
        return;
    feat_redis_hear(r->redis, &r->arena, &l, note_change);
    uint64_t epoch = feat_redis_epoch(r->redis);
    if (r->near_epoch != epoch) {
        feat_redis_near_clear(r->near);
        r->near_epoch = epoch;
    }
}

/* Did it change while it was on its way? Then what came may be of before or after. */
static bool in_doubt(const struct feat_redis_reader *r, struct feat_entity e) {
    bool found = r->n_changed > FEAT_REDIS_CHANGED_MAX;
    for (int i = 0; i < r->n_changed && !found; i++)
        found = r->changed[i].key == e.key && r->changed[i].scope == e.scope;
    return found;
}

void feat_redis_read_begin(struct feat_store *s) {
    assert(mine == NULL);
    struct feat_redis_reader *r = mine = feat_redis_reader_take(s);
    if (r->near == NULL)
        return;
    feat_redis_near_sweep(r->near);
    hear(s, r);
    r->has_applied = keeps(r) && r->asked_us > atomic_load(&s->fresh_us) &&
                     clock_mono_us() - r->asked_us < s->conf.near_us;
}

enum status feat_redis_read_end(struct feat_store *s) {
    struct feat_redis_reader *r = mine;
    assert(r != NULL);
    mine = NULL;
    if (r->n_near > 0)
        metric_add(METRIC_STATE_NEAR, r->n_near);
    if (r->n_asked > 0)
        metric_add(METRIC_STATE_ASKED, r->n_asked);
    enum status status =
        r->failed == STATUS_OK ? STATUS_OK : fail(r->failed, "state: %s", r->failure);
    feat_redis_reader_give(s, r);
    return status;
}

static enum status keep_failure(struct feat_redis_reader *r, enum status status) {
    if (status != STATUS_OK && r->failed == STATUS_OK) {
        r->failed = status;
        snprintf(r->failure, sizeof r->failure, "%s", status_message());
    }
    return status;
}

/* ---- what is applied everywhere ---- */

static int add_applied(struct feat_store *s, struct feat_redis_reader *r) {
    char name[FEAT_REDIS_KEY_BYTES];
    struct slice key = feat_redis_named_key(s, "", "applied", name);
    int command = feat_redis_command(r->redis, feat_redis_slot(key), FEAT_REDIS_READ, 2);
    feat_redis_word(r->redis, SLICE_LIT("HGETALL"));
    feat_redis_word(r->redis, key);
    return command;
}

/* It never goes back, unless somebody puts his hand in: then nothing that is kept counts. */
static void forget_if_back(struct feat_redis_reader *r, struct feat_applied *now, int n) {
    bool back = false;
    for (int i = 0; i < r->n_applied; i++) {
        const struct feat_applied *at = feat_applied_find(now, n, r->applied[i].partition);
        back |= at == NULL || at->offset < r->applied[i].offset;
    }
    if (back)
        feat_redis_near_clear(r->near);
}

static enum status take_applied(struct feat_redis_reader *r, int command, int64_t asked_us) {
    const struct feat_redis_reply *reply = feat_redis_reply(r->redis, command);
    struct feat_applied *list;
    int n;
    if (reply->type != FEAT_REDIS_LIST)
        return feat_redis_fail(r->redis, reply);
    TRY(feat_redis_read_positions(&r->arena, reply, &list, &n));
    if (r->near != NULL)
        forget_if_back(r, list, n);
    if (n > r->cap_applied) {
        r->cap_applied = n;
        r->applied = heap_grow(r->applied, (size_t)n * sizeof *r->applied);
    }
    if (n > 0)
        memcpy(r->applied, list, (size_t)n * sizeof *list);
    r->n_applied = n;
    r->asked_us = asked_us;
    r->has_applied = true;
    return STATUS_OK;
}

/* What is applied in every bucket. *all: `applied` itself. */
static enum status lower_to_markers(const struct feat_store *s, struct feat_redis_reader *r,
                                    int first, bool *all) {
    *all = true;
    for (int b = 0; b < s->n_buckets; b++) {
        struct feat_applied *list;
        int n;
        TRY(feat_redis_read_positions(&r->arena, feat_redis_reply(r->redis, first + b), &list, &n));
        for (int i = 0; i < r->n_applied; i++) {
            struct feat_applied *at = &r->applied[i],
                                *is = feat_applied_find(list, n, at->partition);
            if (is != NULL && is->offset >= at->offset)
                continue;
            *at = is != NULL ? *is : (struct feat_applied){at->partition, -1, 0};
            *all = false;
        }
    }
    return STATUS_OK;
}

/* By itself; the markers with it, over connections that are not yet known to be as far. */
static enum status ask_applied(struct feat_store *s, struct feat_redis_reader *r) {
    for (int round = 0; round < ROUNDS_MAX; round++) {
        r->epoch = feat_redis_epoch(r->redis);
        bool all = true, look = r->trusted != r->epoch;
        int64_t asked_us = clock_mono_us();
        feat_redis_begin(r->redis, &r->arena);
        int command = add_applied(s, r);
        int markers = look ? feat_redis_add_markers(s, r->redis) : 0;
        TRY(run(r));
        if (feat_redis_epoch(r->redis) != r->epoch)
            continue;
        hear(s, r);
        TRY(take_applied(r, command, asked_us));
        if (look)
            TRY(lower_to_markers(s, r, markers, &all));
        r->trusted = all ? r->epoch : UINT64_MAX;
        return STATUS_OK;
    }
    return fail(STATUS_UNAVAILABLE, "Redis: connections come and go");
}

enum status feat_redis_applied(struct feat_store *s, struct arena *a,
                               const struct feat_applied **out, int *n) {
    struct feat_redis_reader *r = mine;
    assert(r != NULL);
    if (r->failed != STATUS_OK)
        return r->failed;
    bool first = r->n == 0; /* that is what is wanted to be known */
    if (!r->has_applied || first)
        TRY(keep_failure(r, ask_applied(s, r)));
    if (first)
        atomic_store(&s->fresh_us, clock_mono_us());
    r->told = true;
    struct feat_applied *copy = ARENA_ARRAY(a, struct feat_applied, r->n_applied);
    if (r->n_applied > 0)
        memcpy(copy, r->applied, (size_t)r->n_applied * sizeof *copy);
    *out = copy;
    *n = r->n_applied;
    return STATUS_OK;
}

/* ---- records ---- */

static uint32_t *index_at(const struct feat_redis_reader *r, struct feat_entity e) {
    for (uint64_t i = hash_mix(e.key, e.scope);; i++) {
        uint32_t *slot = &r->index[i & (r->index_cap - 1)];
        if (*slot == 0 ||
            (r->names[*slot - 1].key == e.key && r->names[*slot - 1].scope == e.scope))
            return slot;
    }
}

/* Adds the entities that were not read yet; they are names [from, r->n). */
static void add_names(struct feat_redis_reader *r, const struct feat_entity *entities, int n) {
    while ((uint32_t)(r->n + n) * 2 > r->index_cap) {
        r->index_cap *= 2;
        heap_free(r->index);
        r->index = HEAP_ARRAY(uint32_t, r->index_cap);
        for (int i = 0; i < r->n; i++)
            *index_at(r, r->names[i]) = (uint32_t)i + 1;
    }
    if (r->n + n > r->cap) {
        r->cap = r->n + n + INDEX_FIRST;
        r->names = heap_grow(r->names, (size_t)r->cap * sizeof *r->names);
        r->found = heap_grow(r->found, (size_t)r->cap * sizeof *r->found);
    }
    for (int i = 0; i < n; i++) {
        uint32_t *slot = index_at(r, entities[i]);
        if (*slot != 0)
            continue;
        r->names[r->n] = entities[i];
        r->found[r->n] = (struct feat_found){0};
        *slot = (uint32_t)++r->n;
    }
}

static bool is_beyond(const struct feat_redis_reader *r, int32_t partition, int64_t offset) {
    const struct feat_applied *at = feat_applied_find(r->applied, r->n_applied, partition);
    return at == NULL || offset > at->offset;
}

/* The header's entries that lie beyond what is applied everywhere, moved to the front. */
static int keep_beyond(const struct feat_redis_reader *r, struct feat_applied *seen, int n) {
    int kept = 0;
    for (int i = 0; i < n; i++)
        if (is_beyond(r, seen[i].partition, seen[i].offset))
            seen[kept++] = seen[i];
    return kept;
}

static enum status take_value(const struct feat_store *s, struct feat_redis_reader *r,
                              struct slice value, struct feat_found *out) {
    if (value.n == 0)
        return STATUS_OK;
    struct feat_found found = {0};
    if (!feat_redis_read_header(&r->arena, value, &found.seen, &found.n_seen, &found.bytes))
        return fail(STATUS_DATA_LOSS, "Redis: a value under '%s' is not of this program",
                    s->conf.prefix);
    found.n_seen = keep_beyond(r, (struct feat_applied *)found.seen, found.n_seen);
    *out = found;
    return STATUS_OK;
}

/* What is kept of the names at places lack [*n]; what is not remains there. */
static void take_near(struct feat_redis_reader *r, int *lack, int *n) {
    int left = 0;
    for (int i = 0; i < *n; i++) {
        const struct feat_redis_kept *k = feat_redis_near_find(r->near, r->names[lack[i]]);
        if (k == NULL) {
            lack[left++] = lack[i];
            continue;
        }
        struct feat_found found = {k->bytes, NULL, 0};
        if (k->n_seen > 0) {
            size_t bytes = (size_t)k->n_seen * sizeof *k->seen;
            struct feat_applied *seen = memcpy(arena_alloc(&r->arena, bytes), k->seen, bytes);
            found.n_seen = keep_beyond(r, seen, k->n_seen);
            found.seen = seen;
        }
        r->found[lack[i]] = found;
        r->n_near++;
    }
    *n = left;
}

/* Names at lack [n] that are not near, from the server, and `applied` with them if it is not known.
 * They remain in lack but for those that came. */
static enum status fetch(struct feat_store *s, struct feat_redis_reader *r, int *lack, int *n) {
    int asked = -1, n_far = 0, left = 0;
    int *command = ARENA_ARRAY(&r->arena, int, *n), *at = ARENA_ARRAY(&r->arena, int, *n);
    int *far = ARENA_ARRAY(&r->arena, int, *n);
    struct feat_entity *names = ARENA_ARRAY(&r->arena, struct feat_entity, *n);
    for (int i = 0; i < *n; i++) {
        bool is_near = keeps(r) && feat_redis_near_find(r->near, r->names[lack[i]]) != NULL;
        if (is_near) {
            lack[left++] = lack[i];
            continue;
        }
        names[n_far] = r->names[lack[i]];
        far[n_far++] = lack[i];
    }
    int64_t asked_us = clock_mono_us();
    feat_redis_begin(r->redis, &r->arena);
    if (!r->has_applied) {
        r->epoch = feat_redis_epoch(r->redis);
        asked = add_applied(s, r); /* one server does one thing after another */
    }
    feat_redis_add_loads(s, r->redis, names, n_far, command, at);
    r->n_asked += (uint64_t)n_far;
    TRY(run(r));
    hear(s, r);
    if (asked >= 0)
        TRY(take_applied(r, asked, asked_us));
    for (int i = 0; i < n_far; i++) {
        struct slice value;
        struct feat_found *found = &r->found[far[i]];
        TRY(feat_redis_loaded(r->redis, command[i], at[i], &value));
        TRY(take_value(s, r, value, found));
        if (keeps(r) && r->epoch == r->trusted && !in_doubt(r, names[i]))
            feat_redis_near_keep(r->near, &(struct feat_redis_kept){.name = names[i],
                                                                    .bytes = found->bytes,
                                                                    .seen = found->seen,
                                                                    .n_seen = found->n_seen});
    }
    *n = left;
    return STATUS_OK;
}

/* Names [from, r->n): those that are near, the others in one round trip. A second one only if some
 * of them changed just before `applied` was asked for. */
static enum status load_once(struct feat_store *s, struct feat_redis_reader *r, int from) {
    int n = r->n - from;
    bool apart = feat_redis_is_cluster(r->redis) || r->trusted != feat_redis_epoch(r->redis);
    if (!r->has_applied && apart)
        TRY(ask_applied(s, r));
    int *lack = ARENA_ARRAY(&r->arena, int, n);
    for (int i = 0; i < n; i++)
        lack[i] = from + i;
    for (;;) {
        if (r->has_applied && keeps(r))
            take_near(r, lack, &n);
        if (r->has_applied && n == 0)
            return STATUS_OK;
        TRY(fetch(s, r, lack, &n));
        if (feat_redis_epoch(r->redis) != r->epoch)
            return STATUS_OK;
    }
}

/* All over connections that were there when `applied` was asked for. */
static enum status load(struct feat_store *s, struct feat_redis_reader *r, int from) {
    for (int round = 0; round < ROUNDS_MAX; round++) {
        TRY(load_once(s, r, from));
        if (feat_redis_epoch(r->redis) == r->epoch)
            return STATUS_OK;
        if (from > 0 || r->told) /* what was read before may be of another server */
            return fail(STATUS_UNAVAILABLE, "Redis came back while a request was read");
        r->has_applied = false;
        for (int i = 0; i < r->n; i++)
            r->found[i] = (struct feat_found){0};
    }
    return fail(STATUS_UNAVAILABLE, "Redis: connections come and go");
}

void feat_redis_read(struct feat_store *s, const struct feat_entity *entities, int n,
                     struct feat_found *out) {
    struct feat_redis_reader *r = mine;
    assert(r != NULL);
    int from = r->n;
    if (r->failed == STATUS_OK) {
        add_names(r, entities, n);
        if (r->n > from)
            keep_failure(r, load(s, r, from));
    }
    for (int i = 0; i < n; i++)
        out[i] = r->failed == STATUS_OK ? r->found[*index_at(r, entities[i]) - 1]
                                        : (struct feat_found){0};
}

int feat_redis_ahead(struct feat_store *s, struct arena *a, const struct feat_ahead **out) {
    const struct feat_redis_reader *r = mine;
    int n = 0, at = 0;
    (void)s;
    assert(r != NULL);
    for (int i = 0; i < r->n; i++)
        n += r->found[i].n_seen;
    for (int i = 0; i < r->n_sums; i++)
        n += r->sums[i]->n_ahead;
    struct feat_ahead *list = ARENA_ARRAY(a, struct feat_ahead, n);
    for (int i = 0; i < r->n; i++)
        for (int k = 0; k < r->found[i].n_seen; k++)
            list[at++] =
                (struct feat_ahead){r->names[i].scope, r->names[i].key,
                                    r->found[i].seen[k].partition, r->found[i].seen[k].offset};
    for (int i = 0; i < r->n_sums; i++)
        for (int k = 0; k < r->sums[i]->n_ahead; k++)
            if (is_beyond(r, r->sums[i]->ahead[k].partition, r->sums[i]->ahead[k].offset))
                list[at++] = r->sums[i]->ahead[k];
    *out = list;
    return at;
}

bool feat_redis_failed(struct feat_store *s) {
    (void)s;
    return mine != NULL && mine->failed != STATUS_OK;
}

/* ---- sums ---- */

bool feat_redis_sum_find(struct feat_store *s, uint64_t whole, struct slice *out) {
    struct feat_redis_reader *r = mine;
    const struct feat_entity name = {FEAT_REDIS_SUM, whole};
    (void)s;
    assert(r != NULL);
    if (r->failed != STATUS_OK || !r->has_applied || !keeps(r))
        return false;
    uint32_t at = *index_at(r, name);
    const struct feat_redis_kept *k = at == 0 ? feat_redis_near_find(r->near, name) : NULL;
    if (at == 0 && k == NULL)
        return false;
    if (at == 0) {
        add_names(r, &name, 1);
        at = (uint32_t)r->n;
        r->found[at - 1].bytes = k->bytes;
        if (r->n_sums == r->cap_sums) {
            r->cap_sums = r->cap_sums == 0 ? 16 : 2 * r->cap_sums;
            r->sums =
                heap_grow(r->sums, (size_t)r->cap_sums * sizeof(const struct feat_redis_kept *));
        }
        r->sums[r->n_sums++] = k;
        r->n_near++;
    }
    *out = r->found[at - 1].bytes;
    return true;
}

/* Only of shares that are kept themselves: of no other is it told that they change. */
void feat_redis_sum_keep(struct feat_store *s, uint64_t whole, struct slice bytes) {
    struct feat_redis_reader *r = mine;
    assert(r != NULL);
    if (r->failed != STATUS_OK || !r->has_applied || !keeps(r))
        return;
    struct buf ahead = {0};
    bool all = true;
    for (int b = 0; b < s->n_buckets && all; b++) {
        struct feat_entity e = {FEAT_SCOPE_VALUE, feat_share_key(whole, b, s->n_buckets)};
        uint32_t at = *index_at(r, e);
        all = at != 0 && feat_redis_near_find(r->near, e) != NULL;
        for (int k = 0; all && k < r->found[at - 1].n_seen; k++) {
            struct feat_applied seen = r->found[at - 1].seen[k];
            struct feat_ahead one = {e.scope, e.key, seen.partition, seen.offset};
            buf_add(&ahead, &one, sizeof one);
        }
    }
    if (all)
        feat_redis_near_keep(r->near, &(struct feat_redis_kept){
                                          .name = {FEAT_REDIS_SUM, whole},
                                          .bytes = bytes,
                                          .ahead = (const struct feat_ahead *)ahead.p,
                                          .n_ahead = (int)(ahead.n / sizeof(struct feat_ahead))});
    buf_deinit(&ahead);
}
