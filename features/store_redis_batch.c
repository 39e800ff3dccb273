/* store_redis_batch.c: the writer's micro-batch: which entities it names, what they were, what they
 * have become. The records live in an arena from `begin` to the last `commit`. */
#include "features/store_redis_parts.h"
#include <assert.h>
#include "base/hash.h"
#include "base/heap.h"
#include "features/record.h"
#include "features/shares.h"

enum { LOAD_ROUNDS_MAX = 8, ROOM_BYTES = 64 };

/* ---- positions ---- */

static void forget_markers(struct feat_store *s) {
    for (int i = 0; i < s->n_parts; i++)
        for (int b = 0; b < s->n_buckets; b++)
            s->parts[i].at[b] = (struct feat_applied){s->parts[i].partition, -1, 0};
}

int feat_redis_add_markers(const struct feat_store *s, struct feat_redis *r) {
    char name[FEAT_REDIS_KEY_BYTES];
    int first = 0;
    for (int b = 0; b < s->n_buckets; b++) {
        int number = feat_redis_command(r, s->tags[b].slot, FEAT_REDIS_READ, 2);
        first = b == 0 ? number : first;
        feat_redis_word(r, SLICE_LIT("HGETALL"));
        feat_redis_word(r, feat_redis_named_key(s, s->tags[b].text, "m", name));
    }
    return first;
}

static enum status read_markers(struct feat_store *s, struct arena *a) {
    feat_redis_begin(s->redis, a);
    feat_redis_add_markers(s, s->redis);
    TRY(feat_redis_run(s->redis));
    forget_markers(s);
    for (int b = 0; b < s->n_buckets; b++) {
        struct feat_applied *list;
        int n;
        TRY(feat_redis_read_positions(a, feat_redis_reply(s->redis, b), &list, &n));
        for (int i = 0; i < n; i++)
            feat_redis_part(s, list[i].partition)->at[b] = list[i];
    }
    return STATUS_OK;
}

/* What readers take to be applied everywhere. */
static enum status read_applied(struct feat_store *s, struct arena *a, struct feat_applied **out,
                                int *n) {
    char name[FEAT_REDIS_KEY_BYTES];
    struct slice key = feat_redis_named_key(s, "", "applied", name);
    feat_redis_begin(s->redis, a);
    feat_redis_command(s->redis, feat_redis_slot(key), FEAT_REDIS_READ, 2);
    feat_redis_word(s->redis, SLICE_LIT("HGETALL"));
    feat_redis_word(s->redis, key);
    TRY(feat_redis_run(s->redis));
    return feat_redis_read_positions(a, feat_redis_reply(s->redis, 0), out, n);
}

/* Tells readers where partitions are, unless somebody else has told them meanwhile: a writer may
 * have died before it could, and a server that lost writes knows less than was told. */
static enum status correct_applied(struct feat_store *s, struct arena *a,
                                   const struct feat_applied *told, int n_told,
                                   const struct feat_applied *list, int n) {
    static const char script[] = "if (redis.call('HGET',KEYS[1],ARGV[1]) or '')==ARGV[2] then\n"
                                 "  if ARGV[3]=='' then redis.call('HDEL',KEYS[1],ARGV[1])\n"
                                 "  else redis.call('HSET',KEYS[1],ARGV[1],ARGV[3]) end\n"
                                 "end\n";
    char name[FEAT_REDIS_KEY_BYTES], text[48];
    struct slice key = feat_redis_named_key(s, "", "applied", name);
    feat_redis_begin(s->redis, a);
    for (int i = 0; i < n; i++) {
        const struct feat_applied nothing = {list[i].partition, -1, 0}, *was = &nothing;
        for (int k = 0; k < n_told; k++)
            if (told[k].partition == list[i].partition)
                was = &told[k];
        if (was->offset == list[i].offset)
            continue;
        feat_redis_command(s->redis, feat_redis_slot(key), FEAT_REDIS_WRITE, 7);
        feat_redis_word(s->redis, SLICE_LIT("EVAL"));
        feat_redis_word(s->redis, slice_of(script));
        feat_redis_number(s->redis, 1);
        feat_redis_word(s->redis, key);
        feat_redis_number(s->redis, list[i].partition);
        feat_redis_word(s->redis, (struct slice){text, (size_t)feat_redis_put_position(was, text)});
        feat_redis_word(s->redis,
                        (struct slice){text, (size_t)feat_redis_put_position(&list[i], text)});
    }
    return feat_redis_run(s->redis);
}

enum status feat_redis_positions(struct feat_store *s, struct arena *a,
                                 const struct feat_applied **out, int *n) {
    struct feat_applied *told;
    int n_told;
    TRY(feat_redis_sign(s, a)); /* an emptied Redis has forgotten that too */
    TRY(read_applied(s, a, &told, &n_told));
    TRY(read_markers(s, a));
    struct feat_applied *list = ARENA_ARRAY(a, struct feat_applied, s->n_parts);
    for (int i = 0; i < s->n_parts; i++) {
        s->parts[i].swept = false;
        list[i] = s->parts[i].at[0];
        for (int b = 1; b < s->n_buckets; b++)
            if (s->parts[i].at[b].offset < list[i].offset)
                list[i] = s->parts[i].at[b];
    }
    TRY(correct_applied(s, a, told, n_told, list, s->n_parts));
    *out = list;
    *n = s->n_parts;
    return STATUS_OK;
}

/* Replies are in the order of the questions: by bucket, then by partition. */
static enum status look_at_markers(struct feat_store *s, int n) {
    char name[FEAT_REDIS_KEY_BYTES];
    feat_redis_begin(s->redis, &s->arena);
    for (int b = 0; b < s->n_buckets; b++) {
        feat_redis_command(s->redis, s->tags[b].slot, FEAT_REDIS_READ, 2 + n);
        feat_redis_word(s->redis, SLICE_LIT("HMGET"));
        feat_redis_word(s->redis, feat_redis_named_key(s, s->tags[b].text, "m", name));
        for (int i = 0; i < s->n_parts; i++)
            if (s->parts[i].written)
                feat_redis_number(s->redis, s->parts[i].partition);
    }
    TRY(feat_redis_run(s->redis));
    enum status status = STATUS_OK;
    for (int b = 0; b < s->n_buckets; b++) {
        const struct feat_redis_reply *reply = feat_redis_reply(s->redis, b);
        if (reply->type != FEAT_REDIS_LIST || reply->n != n)
            return feat_redis_fail(s->redis, reply);
        for (int i = 0, k = 0; i < s->n_parts; i++) {
            if (!s->parts[i].written)
                continue;
            enum status took = feat_redis_take_marker(&s->parts[i], b, reply->items[k++].text);
            status = took != STATUS_OK ? took : status;
        }
    }
    return status;
}

static int count_written(const struct feat_store *s) {
    int n = 0;
    for (int i = 0; i < s->n_parts; i++)
        n += s->parts[i].written;
    return n;
}

enum status feat_redis_verify(struct feat_store *s) {
    int n = count_written(s);
    if (n == 0)
        return STATUS_OK;
    arena_reset(&s->arena);
    return look_at_markers(s, n);
}

/* ---- which entities ---- */

void feat_redis_batch_begin(struct feat_store *s, const struct feat_applied *to, int n) {
    arena_reset(&s->arena);
    s->to = to;
    s->n_to = n;
    s->n_items = 0;
    s->latest = -1;
    s->collecting = true;
    s->naming = false;
    if (s->index_cap > 0)
        memset(s->index, 0, s->index_cap * sizeof *s->index);
    for (int b = 0; b < s->n_buckets; b++)
        s->buckets[b] = (struct feat_redis_bucket){.first = -1};
    for (int i = 0; i < n; i++) {
        struct feat_redis_part *part = feat_redis_part(s, to[i].partition);
        part->written = true;
        if (s->plan->joins && !part->swept)
            feat_redis_start_sweep(s);
        part->swept = true;
    }
}

/* The slot of the index that holds the entity, or the empty one where it belongs. */
static uint32_t *index_at(const struct feat_store *s, enum feat_scope scope, uint64_t key) {
    for (uint64_t i = hash_mix(key, scope);; i++) {
        uint32_t *slot = &s->index[i & (s->index_cap - 1)];
        if (*slot == 0)
            return slot;
        const struct feat_redis_item *item = &s->items[*slot - 1];
        if (item->key == key && item->scope == scope)
            return slot;
    }
}

static void grow_index(struct feat_store *s) {
    s->index_cap = s->index_cap == 0 ? 4096 : 2 * s->index_cap;
    heap_free(s->index);
    s->index = HEAP_ARRAY(uint32_t, s->index_cap);
    for (int i = 0; i < s->n_items; i++)
        *index_at(s, s->items[i].scope, s->items[i].key) = (uint32_t)i + 1;
}

/* The entity of the batch; NULL when it was not collected. */
static struct feat_redis_item *find(struct feat_store *s, enum feat_scope scope, uint64_t key) {
    if (s->latest >= 0 && s->items[s->latest].key == key && s->items[s->latest].scope == scope)
        return &s->items[s->latest];
    if (s->index_cap == 0)
        return NULL;
    uint32_t at = *index_at(s, scope, key);
    if (at == 0)
        return NULL;
    s->latest = (int)at - 1;
    return &s->items[s->latest];
}

static void collect(struct feat_store *s, enum feat_scope scope, uint64_t key) {
    if ((uint32_t)s->n_items * 2 >= s->index_cap)
        grow_index(s);
    uint32_t *slot = index_at(s, scope, key);
    if (*slot != 0)
        return;
    if (s->n_items == s->cap_items) {
        s->cap_items = s->cap_items == 0 ? 1024 : 2 * s->cap_items;
        s->items = heap_grow(s->items, (size_t)s->cap_items * sizeof *s->items);
    }
    int bucket = feat_bucket_of(scope, key, s->n_buckets);
    s->items[s->n_items] = (struct feat_redis_item){.key = key,
                                                    .scope = scope,
                                                    .bucket = bucket,
                                                    .open = true,
                                                    .next = s->buckets[bucket].first};
    s->buckets[bucket].first = s->n_items++;
    *slot = (uint32_t)s->n_items;
}

/* Place of a partition among those the batch reaches, for the bits of `touched`. */
static int place_of(const struct feat_store *s, int32_t partition) {
    int i = 0;
    while (i < s->n_to && s->to[i].partition != partition)
        i++;
    assert(i < s->n_to);
    return i < 63 ? i : 63;
}

bool feat_redis_want(struct feat_store *s, enum feat_scope scope, uint64_t key) {
    const struct feat_redis_item *item = s->collecting ? NULL : find(s, scope, key);
    if (item != NULL)
        return item->known;
    if (s->collecting || !s->buckets[feat_bucket_of(scope, key, s->n_buckets)].done) {
        collect(s, scope, key);
        s->more = true;
    }
    return false;
}

bool feat_redis_admit(struct feat_store *s, enum feat_scope scope, uint64_t key,
                      struct ev_source source) {
    if (!feat_redis_want(s, scope, key) || (s->naming && scope != FEAT_SCOPE_RANKING))
        return false;
    struct feat_redis_item *item = find(s, scope, key);
    if (!item->open ||
        source.offset <= feat_redis_find_part(s, source.partition)->at[item->bucket].offset)
        return false;
    for (int i = 0; i < item->n_seen; i++)
        if (item->seen[i].partition == source.partition && source.offset <= item->seen[i].offset)
            return false;
    item->touched |= 1ull << place_of(s, source.partition);
    return true;
}

/* ---- what they are ---- */

void feat_redis_fetch(struct feat_store *s, enum feat_scope scope, const uint64_t *keys, int n,
                      struct slice *out) {
    for (int i = 0; i < n; i++) {
        const struct feat_redis_item *item = find(s, scope, keys[i]);
        out[i] = item != NULL ? (struct slice){item->p, item->n} : (struct slice){NULL, 0};
    }
}

void feat_redis_put(struct feat_store *s, enum feat_scope scope, uint64_t key, struct slice bytes) {
    struct feat_redis_item *item = find(s, scope, key);
    assert(item != NULL && item->open);
    if (bytes.n > item->cap) {
        item->cap = (uint32_t)((bytes.n + ROOM_BYTES + 15) & ~(size_t)15);
        item->p = arena_alloc(&s->arena, item->cap);
    }
    memcpy(item->p, bytes.p, bytes.n);
    item->n = (uint32_t)bytes.n;
    item->dirty = true;
}

void feat_redis_drop(struct feat_store *s, enum feat_scope scope, uint64_t key) {
    struct feat_redis_item *item = find(s, scope, key);
    if (item == NULL || !item->open)
        return;
    item->n = 0;
    item->dirty = true;
}

/* The value as Redis has it: the record stays where the reply is, until it is first changed. */
static enum status take_value(struct feat_store *s, struct feat_redis_item *item,
                              struct slice value) {
    item->known = true;
    item->n_seen = 0;
    item->header = item->record = (struct slice){NULL, 0};
    if (value.n == 0)
        return STATUS_OK;
    struct slice record;
    if (!feat_redis_read_header(&s->arena, value, &item->seen, &item->n_seen, &record) ||
        record.p[0] != (char)item->scope || feat_record_key(record) != item->key)
        return fail(STATUS_DATA_LOSS,
                    "Redis: the value of an entity under '%s' is not of this program; delete the "
                    "keys of this prefix and replay the log",
                    s->conf.prefix);
    item->header = (struct slice){value.p, (size_t)(record.p - value.p)};
    item->record = record;
    return STATUS_OK;
}

/* As it was read: changes begin anew. */
static void undo(struct feat_redis_item *item) {
    item->dirty = false;
    item->touched = 0;
    item->p = (char *)item->record.p; /* cap 0: never written */
    item->n = (uint32_t)item->record.n;
    item->cap = 0;
}

static enum status load_open(struct feat_store *s, int n) {
    struct feat_entity *wanted = ARENA_ARRAY(&s->arena, struct feat_entity, n);
    int *which = ARENA_ARRAY(&s->arena, int, n), *command = ARENA_ARRAY(&s->arena, int, n);
    int *at = ARENA_ARRAY(&s->arena, int, n), k = 0;
    for (int i = 0; i < s->n_items; i++) {
        if (!s->items[i].open || s->items[i].known)
            continue;
        wanted[k] = (struct feat_entity){s->items[i].scope, s->items[i].key};
        which[k++] = i;
    }
    feat_redis_begin(s->redis, &s->arena);
    feat_redis_add_loads(s, s->redis, wanted, n, command, at);
    TRY(feat_redis_run(s->redis));
    for (k = 0; k < n; k++) {
        struct slice value;
        TRY(feat_redis_loaded(s->redis, command[k], at[k], &value));
        TRY(take_value(s, &s->items[which[k]], value));
    }
    return STATUS_OK;
}

/* A server that is not the one that took them may not have them: they are looked at again. */
static int open_again(struct feat_store *s, bool all) {
    int n = 0;
    for (int i = 0; i < s->n_items; i++) {
        struct feat_redis_item *item = &s->items[i];
        if (all && !s->buckets[item->bucket].done) {
            item->open = true;
            item->known = false;
        }
        n += item->open && !item->known;
    }
    return n;
}

/* After naming the changes are yet to be made. */
bool feat_redis_more(struct feat_store *s) { return s->more || s->naming; }

/* What follows from a ranking goes into records of other buckets: had its server lost writes, that
 * would be noticed too late. So over new connections its markers are looked at first. */
static enum status trust(struct feat_store *s, uint64_t epoch) {
    if (!s->plan->joins || s->trusted == epoch)
        return STATUS_OK;
    TRY(look_at_markers(s, count_written(s)));
    s->trusted = epoch;
    return STATUS_OK;
}

enum status feat_redis_load(struct feat_store *s) {
    if (s->collecting)
        s->epoch = feat_redis_epoch(s->redis);
    s->naming = s->collecting && s->plan->joins;
    s->collecting = s->more = false;
    for (int round = 0; round < LOAD_ROUNDS_MAX; round++) {
        uint64_t epoch = feat_redis_epoch(s->redis);
        int n = open_again(s, epoch != s->epoch);
        s->epoch = epoch;
        if (n > 0)
            TRY(load_open(s, n));
        TRY(trust(s, epoch));
        if (feat_redis_epoch(s->redis) != epoch)
            continue;
        for (int i = 0; i < s->n_items; i++)
            if (s->items[i].open)
                undo(&s->items[i]);
        return STATUS_OK;
    }
    return fail(STATUS_UNAVAILABLE, "Redis: connections come and go");
}
