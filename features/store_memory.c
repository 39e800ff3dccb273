/* store_memory.c: records in this process's memory: per scope 64 open-addressing tables (so that
 * growing one of them is a short pause) of 8-byte slots, each a tag and a reference into a slab.
 *
 *     slot = tag (24 bits of the key) | reference (40 bits), 0: empty        record = n u32 | bytes
 *
 * Linear probing, load 3/8 to 3/4: some 14 bytes of table per entity. Nothing is ever removed. */
#include "features/store.h"
#include "base/heap.h"
#include "features/record.h"
#include "features/slab.h"

#define TABLES        64
#define REF_BITS      40
#define REF_MASK      ((1ull << REF_BITS) - 1)
#define CAP_FIRST     16
#define FETCH_AT_ONCE 32

struct table {
    uint64_t *slots;
    uint32_t cap, n; /* cap: a power of two */
};

struct feat_store {
    struct table tables[FEAT_SCOPES][TABLES];
    struct feat_slab slab;
    uint64_t table_bytes;
};

static enum status memory_open(const struct feat_plan *plan, const struct feat_store_conf *c,
                               struct feat_store **out) {
    (void)plan;
    (void)c;
    *out = HEAP_NEW(struct feat_store);
    return STATUS_OK;
}

static void memory_close(struct feat_store *s) {
    if (s == NULL)
        return;
    for (int scope = 0; scope < FEAT_SCOPES; scope++)
        for (int i = 0; i < TABLES; i++)
            heap_free(s->tables[scope][i].slots);
    feat_slab_deinit(&s->slab);
    heap_free(s);
}

/* Keys are hashes already: top bits choose the table, middle ones are the tag, low ones the slot.
 */
static struct table *table_of(struct feat_store *s, enum feat_scope scope, uint64_t key) {
    return &s->tables[scope][key >> 58];
}
static uint64_t tag_of(uint64_t key) { return (key >> 34 & 0xFFFFFF) << REF_BITS; }

static struct slice bytes_at(const struct feat_store *s, uint64_t ref) {
    const char *p = feat_slab_at(&s->slab, ref);
    uint32_t n;
    memcpy(&n, p, sizeof n);
    return (struct slice){p + sizeof n, n};
}

/* The slot that holds the key, or the empty one where it belongs. The table is not full. */
static uint64_t *find(const struct feat_store *s, const struct table *t, uint64_t key) {
    uint64_t tag = tag_of(key);
    for (uint64_t i = key;; i++) {
        uint64_t *slot = &t->slots[i & (t->cap - 1)];
        if (*slot == 0)
            return slot;
        if ((*slot & ~REF_MASK) == tag && feat_record_key(bytes_at(s, *slot & REF_MASK)) == key)
            return slot;
    }
}

static void grow(struct feat_store *s, struct table *t) {
    struct table old = *t;
    t->cap = old.cap == 0 ? CAP_FIRST : old.cap * 2;
    t->slots = HEAP_ARRAY(uint64_t, t->cap);
    s->table_bytes += (uint64_t)(t->cap - old.cap) * sizeof *t->slots;
    for (uint32_t i = 0; i < old.cap; i++)
        if (old.slots[i] != 0)
            *find(s, t, feat_record_key(bytes_at(s, old.slots[i] & REF_MASK))) = old.slots[i];
    heap_free(old.slots);
}

/* The record a probe will most likely end at, by tag alone: to be brought near, not to be believed.
 */
static void prefetch_record(const struct feat_store *s, const struct table *t, uint64_t key) {
    uint64_t tag = tag_of(key);
    for (uint64_t i = key; t->slots[i & (t->cap - 1)] != 0; i++) {
        uint64_t slot = t->slots[i & (t->cap - 1)];
        if ((slot & ~REF_MASK) != tag)
            continue;
        const char *p = feat_slab_at(&s->slab, slot & REF_MASK);
        __builtin_prefetch(p);
        __builtin_prefetch(p + 64);
        return;
    }
}

/* Groups of keys, each step for the whole group: the misses of a group overlap. */
static void memory_fetch(struct feat_store *s, enum feat_scope scope, const uint64_t *keys, int n,
                         struct slice *out) {
    for (int from = 0; from < n; from += FETCH_AT_ONCE) {
        int to = n - from < FETCH_AT_ONCE ? n : from + FETCH_AT_ONCE;
        for (int i = from; i < to; i++) {
            const struct table *t = table_of(s, scope, keys[i]);
            if (t->cap > 0)
                __builtin_prefetch(&t->slots[keys[i] & (t->cap - 1)]);
        }
        for (int i = from; n > 1 && i < to; i++) {
            const struct table *t = table_of(s, scope, keys[i]);
            if (t->cap > 0)
                prefetch_record(s, t, keys[i]);
        }
        for (int i = from; i < to; i++) {
            const struct table *t = table_of(s, scope, keys[i]);
            uint64_t slot = t->cap > 0 ? *find(s, t, keys[i]) : 0;
            out[i] = slot != 0 ? bytes_at(s, slot & REF_MASK) : (struct slice){NULL, 0};
        }
    }
}

/* Frees a run; the record that moves into its place keeps its slot. */
static void release(struct feat_store *s, uint64_t ref, size_t run_bytes) {
    uint64_t last = feat_slab_last(&s->slab, run_bytes);
    if (last != 0 && last != ref) {
        struct slice moved = bytes_at(s, last);
        uint64_t key = feat_record_key(moved);
        const struct table *t = table_of(s, (enum feat_scope)(uint8_t)moved.p[0], key);
        *find(s, t, key) = tag_of(key) | ref;
    }
    feat_slab_free(&s->slab, ref, run_bytes);
}

static void memory_put(struct feat_store *s, enum feat_scope scope, uint64_t key,
                       struct slice bytes) {
    struct table *t = table_of(s, scope, key);
    if ((uint64_t)t->n * 4 >= (uint64_t)t->cap * 3)
        grow(s, t);
    uint64_t *slot = find(s, t, key);
    uint32_t n = (uint32_t)bytes.n;
    uint64_t ref = *slot & REF_MASK, old_ref = ref;
    size_t old_bytes = ref == 0 ? 0 : sizeof n + bytes_at(s, ref).n;
    t->n += ref == 0;
    if (ref == 0 || !feat_slab_fits(old_bytes, sizeof n + n)) {
        ref = feat_slab_alloc(&s->slab, sizeof n + n);
        *slot = tag_of(key) | ref;
    }
    char *p = feat_slab_at(&s->slab, ref);
    memcpy(p, &n, sizeof n);
    memcpy(p + sizeof n, bytes.p, n);
    if (old_ref != 0 && old_ref != ref)
        release(s, old_ref, old_bytes);
}

static bool memory_next(struct feat_store *s, enum feat_scope scope, uint64_t *at,
                        struct slice *bytes) {
    for (uint64_t i = *at >> 32; i < TABLES; i++, *at = i << 32) {
        const struct table *t = &s->tables[scope][i];
        for (uint32_t k = (uint32_t)*at; k < t->cap; k++) {
            if (t->slots[k] == 0)
                continue;
            *bytes = bytes_at(s, t->slots[k] & REF_MASK);
            *at = i << 32 | (k + 1);
            return true;
        }
    }
    return false;
}

static uint64_t memory_count(struct feat_store *s, enum feat_scope scope) {
    uint64_t n = 0;
    for (int i = 0; i < TABLES; i++)
        n += s->tables[scope][i].n;
    return n;
}

static uint64_t memory_bytes(struct feat_store *s) {
    return sizeof *s + s->table_bytes + s->slab.bytes;
}

const struct feat_store_ops feat_store_memory = {
    .name = "memory",
    .open = memory_open,
    .close = memory_close,
    .fetch = memory_fetch,
    .put = memory_put,
    .next = memory_next,
    .count = memory_count,
    .bytes = memory_bytes,
};

void feat_store_memory_limit(struct feat_store *s, int64_t budget_bytes, int64_t ttl_us) {
    (void)s, (void)budget_bytes, (void)ttl_us;
}
void feat_store_memory_advance(struct feat_store *s, int64_t now_us) { (void)s, (void)now_us; }
uint64_t feat_store_memory_evicted(const struct feat_store *s) {
    (void)s;
    return 0;
}
