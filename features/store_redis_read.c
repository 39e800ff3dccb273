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
 * section whose connections changed while it was read begins anew, or fails. */
#include "features/store_redis_parts.h"
#include <assert.h>
#include <stdio.h>
#include "base/hash.h"
#include "base/heap.h"
#include "features/state_parts.h"

enum { INDEX_FIRST = 1024, ROUNDS_MAX = 8 };

static _Thread_local struct feat_redis_reader *mine; /* of this thread's section */

/* ---- the pool ---- */

static struct feat_redis_reader *reader_new(const struct feat_store *s) {
    struct feat_redis_reader *r = HEAP_NEW(struct feat_redis_reader);
    r->redis = feat_redis_new(&s->conf.redis, NULL);
    r->trusted = UINT64_MAX;
    r->index_cap = INDEX_FIRST;
    r->index = HEAP_ARRAY(uint32_t, r->index_cap);
    arena_init(&r->arena, 0);
    return r;
}

static void reader_free(struct feat_redis_reader *r) {
    feat_redis_free(r->redis);
    arena_deinit(&r->arena);
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
    r->n = 0;
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

void feat_redis_read_begin(struct feat_store *s) {
    assert(mine == NULL);
    mine = feat_redis_reader_take(s);
}

enum status feat_redis_read_end(struct feat_store *s) {
    struct feat_redis_reader *r = mine;
    assert(r != NULL);
    mine = NULL;
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

static enum status take_applied(struct feat_redis_reader *r, int command) {
    const struct feat_redis_reply *reply = feat_redis_reply(r->redis, command);
    if (reply->type != FEAT_REDIS_LIST)
        return feat_redis_fail(r->redis, reply);
    TRY(feat_redis_read_positions(&r->arena, reply, &r->applied, &r->n_applied));
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
        feat_redis_begin(r->redis, &r->arena);
        int command = add_applied(s, r);
        int markers = look ? feat_redis_add_markers(s, r->redis) : 0;
        TRY(feat_redis_run(r->redis));
        if (feat_redis_epoch(r->redis) != r->epoch)
            continue;
        TRY(take_applied(r, command));
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
    if (!r->has_applied)
        TRY(keep_failure(r, ask_applied(s, r)));
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

/* The header's entries that lie beyond what is applied everywhere, moved to the front. */
static int keep_beyond(const struct feat_redis_reader *r, struct feat_applied *seen, int n) {
    int kept = 0;
    for (int i = 0; i < n; i++) {
        const struct feat_applied *at =
            feat_applied_find(r->applied, r->n_applied, seen[i].partition);
        if (at == NULL || seen[i].offset > at->offset)
            seen[kept++] = seen[i];
    }
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

/* Names [from, r->n) in one round trip. */
static enum status load_once(struct feat_store *s, struct feat_redis_reader *r, int from) {
    int n = r->n - from, asked = -1;
    bool apart = feat_redis_is_cluster(r->redis) || r->trusted != feat_redis_epoch(r->redis);
    if (!r->has_applied && apart)
        TRY(ask_applied(s, r));
    int *command = ARENA_ARRAY(&r->arena, int, n), *at = ARENA_ARRAY(&r->arena, int, n);
    feat_redis_begin(r->redis, &r->arena);
    if (!r->has_applied) {
        r->epoch = feat_redis_epoch(r->redis);
        asked = add_applied(s, r); /* one server does one thing after another */
    }
    feat_redis_add_loads(s, r->redis, r->names + from, n, command, at);
    TRY(feat_redis_run(r->redis));
    if (asked >= 0)
        TRY(take_applied(r, asked));
    for (int i = 0; i < n; i++) {
        struct slice value;
        TRY(feat_redis_loaded(r->redis, command[i], at[i], &value));
        TRY(take_value(s, r, value, &r->found[from + i]));
    }
    return STATUS_OK;
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
    struct feat_ahead *list = ARENA_ARRAY(a, struct feat_ahead, n);
    for (int i = 0; i < r->n; i++)
        for (int k = 0; k < r->found[i].n_seen; k++)
            list[at++] =
                (struct feat_ahead){r->names[i].scope, r->names[i].key,
                                    r->found[i].seen[k].partition, r->found[i].seen[k].offset};
    *out = list;
    return n;
}

bool feat_redis_failed(struct feat_store *s) {
    (void)s;
    return mine != NULL && mine->failed != STATUS_OK;
}
