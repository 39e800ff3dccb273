/* store_memory.c: records in this process's memory: per scope 64 open-addressing tables (so that
 * growing one of them is a short pause) of 8-byte slots, each a tag and a reference into a slab.
 *
 *     slot = used 1 bit | age 3 | tag 20 (of the key) | reference 40, 0: empty
 *     record = n u32 | bytes
 *
 * Linear probing, load 3/8 to 3/4: some 14 bytes of table per entity.
 *
 * Under a byte budget what was not used for longest goes first, by a second chance (Corbato 1968):
 * a hand goes round the slots, takes the mark of use from those that have it, and the record from
 * those that have not. Under a ttl every slot ages by one each quarter of it, and putting a record
 * makes it young: it is forgotten after ttl and before 5/4 of it. Neither costs a byte a record.
 * What is forgotten begins anew with its next event: what was counted before is gone, everything
 * else is as it would be. Global records stay. So do sums over items (places.c): they keep what
 * forgotten items gave them. */
#include "features/store.h"
#include "base/heap.h"
#include "features/record.h"
#include "features/slab.h"

#define TABLES        64
#define REF_BITS      40
#define REF_MASK      ((1ull << REF_BITS) - 1)
#define TAG_MASK      (0xFFFFFull << REF_BITS)
#define AGE_SHIFT     60
#define AGE_MASK      (7ull << AGE_SHIFT)
#define AGE_MAX       4 /* quarters of the ttl; older is forgotten */
#define USED          (1ull << 63)
#define CAP_FIRST     16
#define FETCH_AT_ONCE 32

struct table {
    uint64_t *slots;
    uint32_t cap, n; /* cap: a power of two */
    int64_t quarter; /* of the ttl, up to which its slots have aged */
};

struct feat_store {
    struct table tables[FEAT_SCOPES][TABLES];
    struct feat_slab slab;
    uint64_t table_bytes;
    uint64_t also;   /* bytes of others that count against the budget */
    uint64_t budget; /* bytes; 0: none */
    int64_t ttl_us;  /* 0: none */
    int64_t now_us, quarter;
    uint64_t evicted;
    struct { /* the hand */
        int scope, table;
        uint32_t slot;
    } hand;
    int aging; /* table whose turn it is */
    struct {   /* where the writer looked last, until slots move */
        const struct table *table;
        uint64_t key;
        uint64_t *slot; /* NULL: nowhere */
    } looked;
};

static enum status memory_open(const struct feat_plan *plan, const struct feat_store_conf *c,
                               struct feat_store **out) {
    (void)plan;
    struct feat_store *s = HEAP_NEW(struct feat_store);
    feat_store_memory_limit(s, c->budget_bytes, c->ttl_us);
    *out = s;
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

/* Keys are as good as hashes (keys.h): top bits choose the table, middle ones are the tag, low ones
 * the slot.
 */
static struct table *table_of(struct feat_store *s, enum feat_scope scope, uint64_t key) {
    return &s->tables[scope][key >> 58];
}
static uint64_t tag_of(uint64_t key) { return (key >> 38 & 0xFFFFF) << REF_BITS; }

/* Readers mark slots as used at once, so all of them look with care. */
static uint64_t load_slot(const uint64_t *slot) { return __atomic_load_n(slot, __ATOMIC_RELAXED); }

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
        uint64_t *slot = &t->slots[i & (t->cap - 1)], is = load_slot(slot);
        if (is == 0)
            return slot;
        if ((is & TAG_MASK) == tag && feat_record_key(bytes_at(s, is & REF_MASK)) == key)
            return slot;
    }
}

static void resize(struct feat_store *s, struct table *t, uint32_t cap) {
    struct table old = *t;
    s->looked.slot = NULL;
    t->cap = cap;
    t->slots = HEAP_ARRAY(uint64_t, t->cap);
    s->table_bytes += (uint64_t)t->cap * sizeof *t->slots;
    s->table_bytes -= (uint64_t)old.cap * sizeof *t->slots;
    for (uint32_t i = 0; i < old.cap; i++)
        if (old.slots[i] != 0)
            *find(s, t, feat_record_key(bytes_at(s, old.slots[i] & REF_MASK))) = old.slots[i];
    heap_free(old.slots);
}

/* The record a probe will most likely end at, by tag alone: to be brought near, not to be believed.
 */
static void prefetch_record(const struct feat_store *s, const struct table *t, uint64_t key) {
    uint64_t tag = tag_of(key);
    for (uint64_t i = key;; i++) {
        uint64_t slot = load_slot(&t->slots[i & (t->cap - 1)]);
        if (slot == 0)
            return;
        if ((slot & TAG_MASK) != tag)
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
            uint64_t *slot = t->cap > 0 ? find(s, t, keys[i]) : NULL;
            uint64_t is = slot != NULL ? load_slot(slot) : 0;
            if (is != 0 && s->budget > 0 && (is & USED) == 0)
                __atomic_fetch_or(slot, USED, __ATOMIC_RELAXED);
            out[i] = is != 0 ? bytes_at(s, is & REF_MASK) : (struct slice){NULL, 0};
        }
    }
}

static struct slice memory_edit(struct feat_store *s, enum feat_scope scope, uint64_t key) {
    const struct table *t = table_of(s, scope, key);
    uint64_t *slot = t->cap > 0 ? find(s, t, key) : NULL;
    s->looked.table = t;
    s->looked.key = key;
    s->looked.slot = slot;
    return slot != NULL && *slot != 0 ? bytes_at(s, *slot & REF_MASK) : (struct slice){NULL, 0};
}

static void memory_bring(struct feat_store *s, enum feat_scope scope, const uint64_t *keys, int n) {
    for (int i = 0; i < n; i++) {
        const struct table *t = table_of(s, scope, keys[i]);
        if (t->cap > 0)
            __builtin_prefetch(&t->slots[keys[i] & (t->cap - 1)]);
    }
    for (int i = 0; i < n; i++) {
        const struct table *t = table_of(s, scope, keys[i]);
        if (t->cap > 0)
            prefetch_record(s, t, keys[i]);
    }
}

/* Frees a run; the record that moves into its place keeps its slot. */
static void release(struct feat_store *s, uint64_t ref, size_t run_bytes) {
    uint64_t last = feat_slab_last(&s->slab, run_bytes);
    if (last != 0 && last != ref) {
        struct slice moved = bytes_at(s, last);
        uint64_t key = feat_record_key(moved);
        const struct table *t = table_of(s, (enum feat_scope)(uint8_t)moved.p[0], key);
        uint64_t *slot = find(s, t, key);
        *slot = (*slot & ~REF_MASK) | ref;
    }
    feat_slab_free(&s->slab, ref, run_bytes);
}

/* ---- forgetting ---- */

/* Empties a slot; later ones of the same run of slots move up, so that probes still find them. */
static void close_gap(const struct feat_store *s, struct table *t, uint32_t gap) {
    uint32_t mask = t->cap - 1;
    for (uint32_t i = (gap + 1) & mask; t->slots[i] != 0; i = (i + 1) & mask) {
        uint32_t home = (uint32_t)feat_record_key(bytes_at(s, t->slots[i] & REF_MASK)) & mask;
        if (((i - home) & mask) < ((i - gap) & mask))
            continue; /* it would stand before its home */
        t->slots[gap] = t->slots[i];
        gap = i;
    }
    t->slots[gap] = 0;
}

static void forget(struct feat_store *s, struct table *t, uint32_t at) {
    uint64_t ref = t->slots[at] & REF_MASK;
    size_t run_bytes = sizeof(uint32_t) + bytes_at(s, ref).n;
    s->looked.slot = NULL;
    close_gap(s, t, at);
    t->n--;
    s->evicted++;
    release(s, ref, run_bytes);
}

static void shrink(struct feat_store *s, struct table *t) {
    while (t->cap > CAP_FIRST && (uint64_t)t->n * 16 < (uint64_t)t->cap * 3)
        resize(s, t, t->cap / 2);
}

static uint64_t memory_bytes(struct feat_store *s) {
    return sizeof *s + s->table_bytes + s->slab.bytes + s->also;
}

static bool step_hand(struct feat_store *s) {
    s->hand.slot = 0;
    if (++s->hand.table < TABLES)
        return true;
    s->hand.table = 0;
    if (++s->hand.scope < FEAT_SCOPES)
        return true;
    s->hand.scope = FEAT_SCOPE_GLOBAL + 1;
    return false; /* round again */
}

/* The hand goes on to the next record without a mark, and takes it. False: there is none. */
static bool evict(struct feat_store *s) {
    for (int rounds = 0; rounds < 3;) {
        struct table *t = &s->tables[s->hand.scope][s->hand.table];
        while (s->hand.slot < t->cap) {
            uint64_t *slot = &t->slots[s->hand.slot];
            if (*slot != 0 && (*slot & USED) == 0) {
                forget(s, t, s->hand.slot);
                return true;
            }
            *slot &= ~USED;
            s->hand.slot++;
        }
        shrink(s, t);
        rounds += !step_hand(s);
    }
    return false;
}

static void keep_budget(struct feat_store *s) {
    while (s->budget > 0 && memory_bytes(s) > s->budget && evict(s))
        ;
}

/* One table's slots grow older by the quarters that passed since it was looked at. */
static void age_table(struct feat_store *s, struct table *t, int64_t quarter) {
    int64_t passed = quarter - t->quarter;
    t->quarter = quarter;
    if (passed <= 0)
        return;
    for (uint32_t i = 0; i < t->cap; i++) {
        if (t->slots[i] == 0)
            continue;
        uint64_t age = (t->slots[i] & AGE_MASK) >> AGE_SHIFT;
        age = passed > AGE_MAX || age + (uint64_t)passed > AGE_MAX ? AGE_MAX + 1
                                                                   : age + (uint64_t)passed;
        t->slots[i] = (t->slots[i] & ~AGE_MASK) | age << AGE_SHIFT;
    }
    for (uint32_t i = 0; i < t->cap; i++)
        while (t->slots[i] != 0 && (t->slots[i] & AGE_MASK) >> AGE_SHIFT > AGE_MAX)
            forget(s, t, i);
    shrink(s, t);
}

static void set_quarter(struct feat_store *s) {
    int64_t quarter_us = s->ttl_us / AGE_MAX;
    s->quarter = quarter_us > 0 ? s->now_us / quarter_us : 0;
}

/* Ages count from here on. */
static void make_young(struct feat_store *s) {
    set_quarter(s);
    for (int scope = 0; scope < FEAT_SCOPES; scope++)
        for (int i = 0; i < TABLES; i++) {
            struct table *t = &s->tables[scope][i];
            t->quarter = s->quarter;
            for (uint32_t k = 0; k < t->cap; k++)
                t->slots[k] &= ~AGE_MASK;
        }
}

/* One table of each scope a micro-batch, so that no batch waits for all. What was put before any
 * time was known is as young as the first time. */
void feat_store_memory_advance(struct feat_store *s, int64_t now_us) {
    bool first = s->now_us == 0;
    if (now_us > s->now_us)
        s->now_us = now_us;
    if (first)
        make_young(s);
    set_quarter(s);
    if (s->ttl_us > 0)
        for (int scope = FEAT_SCOPE_GLOBAL + 1; scope < FEAT_SCOPES; scope++)
            age_table(s, &s->tables[scope][s->aging], s->quarter);
    s->aging = (s->aging + 1) % TABLES;
    keep_budget(s);
}

void feat_store_memory_limit(struct feat_store *s, int64_t budget_bytes, int64_t ttl_us) {
    s->budget = budget_bytes > 0 ? (uint64_t)budget_bytes : 0;
    s->hand.scope = s->hand.scope > FEAT_SCOPE_GLOBAL ? s->hand.scope : FEAT_SCOPE_GLOBAL + 1;
    if (s->ttl_us != ttl_us) { /* quarters are other ones now: everything is young */
        s->ttl_us = ttl_us;
        make_young(s);
    }
    keep_budget(s);
}

void feat_store_memory_also(struct feat_store *s, uint64_t bytes) { s->also = bytes; }

uint64_t feat_store_memory_evicted(const struct feat_store *s) { return s->evicted; }

/* Tables are between 3/8 and 3/4 full: about 14 bytes of slots each. */
uint64_t feat_store_memory_entity(uint64_t record_bytes) {
    return feat_slab_rounded(sizeof(uint32_t) + record_bytes) + 14;
}

/* ---- writing ---- */

static void memory_put(struct feat_store *s, enum feat_scope scope, uint64_t key,
                       struct slice bytes) {
    struct table *t = table_of(s, scope, key);
    if (scope != FEAT_SCOPE_GLOBAL)
        age_table(s, t, s->quarter); /* what is new must not age for what passed before */
    if ((uint64_t)t->n * 4 >= (uint64_t)t->cap * 3)
        resize(s, t, t->cap == 0 ? CAP_FIRST : t->cap * 2);
    bool looked = s->looked.slot != NULL && s->looked.table == t && s->looked.key == key;
    uint64_t *slot = looked ? s->looked.slot : find(s, t, key);
    s->looked.slot = NULL;
    uint32_t n = (uint32_t)bytes.n;
    uint64_t ref = *slot & REF_MASK, old_ref = ref;
    size_t old_bytes = ref == 0 ? 0 : sizeof n + bytes_at(s, ref).n;
    t->n += ref == 0;
    if (ref == 0 || !feat_slab_fits(old_bytes, sizeof n + n))
        ref = feat_slab_alloc(&s->slab, sizeof n + n);
    *slot = (old_ref != 0 ? USED : 0) | tag_of(key) | ref; /* once is not yet used again */
    char *p = feat_slab_at(&s->slab, ref);
    memcpy(p, &n, sizeof n);
    memcpy(p + sizeof n, bytes.p, n);
    if (old_ref != 0 && old_ref != ref)
        release(s, old_ref, old_bytes);
    keep_budget(s);
}

static void memory_drop(struct feat_store *s, enum feat_scope scope, uint64_t key) {
    struct table *t = table_of(s, scope, key);
    uint64_t *slot = t->cap > 0 ? find(s, t, key) : NULL;
    if (slot == NULL || *slot == 0)
        return;
    forget(s, t, (uint32_t)(slot - t->slots));
    s->evicted--; /* nothing is lost */
    shrink(s, t);
}

static bool memory_next(struct feat_store *s, enum feat_scope scope, uint64_t *at,
                        struct slice *bytes) {
    for (uint64_t i = *at >> 32; i < TABLES; i++, *at = i << 32) {
        const struct table *t = &s->tables[scope][i];
        for (uint32_t k = (uint32_t)*at; k < t->cap; k++) {
            uint64_t slot = load_slot(&t->slots[k]);
            if (slot == 0)
                continue;
            *bytes = bytes_at(s, slot & REF_MASK);
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

const struct feat_store_ops feat_store_memory = {
    .name = "memory",
    .open = memory_open,
    .close = memory_close,
    .fetch = memory_fetch,
    .edit = memory_edit,
    .bring = memory_bring,
    .put = memory_put,
    .drop = memory_drop,
    .next = memory_next,
    .count = memory_count,
    .bytes = memory_bytes,
};
