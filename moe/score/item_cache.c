/* item_cache.c: a set-associative table with pins.
 *
 * A way's state is one atomic number: above 0 so many readers hold its row, BUSY while a writer
 * fills it. A reader pins first and looks at the tag again; a writer takes a way only from 0. Tag 0
 * is an empty way. A way gets its row with its first key: rows are given out one after another, so
 * memory is taken as items come, although it is mapped in huge pages. Keys are spread by a
 * multiplication, so they need not be random. It does not age by time and it never shrinks: it dies
 * with its model. */
#include "moe/score/item_cache.h"
#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include "base/heap.h"

#define WAYS 8
#define BUSY INT32_MIN

#define RECENT   (1u << 31)
#define ROWS_MAX ((1u << 31) - WAYS)

struct state {
    _Atomic int32_t users;
    _Atomic uint32_t row; /* its row's number + 1, 0: none yet; and RECENT, for a second chance */
};
struct moe_item_cache {
    uint64_t sets;
    size_t row_bytes;
    _Atomic uint64_t *tags; /* [sets x WAYS] */
    struct state *state;    /* [sets x WAYS] */
    char *rows;             /* [sets x WAYS x row_bytes] */
    size_t mapped;
    _Atomic uint64_t hits, misses, evictions, kept;
};

_Static_assert(sizeof(struct state) == sizeof(uint64_t), "one word a way");

struct moe_item_cache *moe_item_cache_new(size_t bytes, size_t row_bytes) {
    assert(row_bytes % 64 == 0);
    struct moe_item_cache *c = HEAP_NEW(struct moe_item_cache);
    size_t set_bytes = WAYS * (row_bytes + sizeof *c->tags + sizeof *c->state);
    c->row_bytes = row_bytes;
    c->sets = bytes / set_bytes ? bytes / set_bytes : 1;
    if (c->sets > ROWS_MAX / WAYS)
        c->sets = ROWS_MAX / WAYS;
    /* untouched pages cost nothing, so a generous budget is not spent before it is needed */
    const size_t rows = c->sets * WAYS * row_bytes, words = c->sets * WAYS * sizeof *c->tags;
    c->mapped = rows + 2 * words;
    char *base = mmap(NULL, c->mapped, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) { /* as if the heap were exhausted: with nothing cached */
        c->sets = 0;
        return c;
    }
    madvise(base, c->mapped, MADV_HUGEPAGE);
    c->rows = base;
    c->tags = (_Atomic uint64_t *)(void *)(base + rows);
    c->state = (struct state *)(void *)(base + rows + words);
    return c;
}

void moe_item_cache_free(struct moe_item_cache *c) {
    if (!c)
        return;
    if (c->rows)
        munmap(c->rows, c->mapped);
    heap_free(c);
}

/* 0 says empty; key 0 is given a number that is as unlikely as any. */
static uint64_t tag_of(uint64_t key) { return key ? key : 0x6C62272E07BB0142ull; }

static size_t first_way(const struct moe_item_cache *c, uint64_t key) {
    uint64_t spread = key * 0x9E3779B97F4A7C15ull;
    return (size_t)(((unsigned __int128)spread * c->sets) >> 64) * WAYS;
}

void moe_item_cache_ask(const struct moe_item_cache *c, uint64_t key) {
    if (!c->sets)
        return;
    const size_t set = first_way(c, tag_of(key));
    __builtin_prefetch(c->tags + set);
    __builtin_prefetch(c->state + set);
}

static int find(const struct moe_item_cache *c, size_t set, uint64_t tag) {
    for (int w = 0; w < WAYS; w++)
        if (atomic_load_explicit(&c->tags[set + (size_t)w], memory_order_relaxed) == tag)
            return w;
    return -1;
}

static char *row_at(const struct moe_item_cache *c, uint32_t row) {
    return c->rows + (size_t)((row & ~RECENT) - 1) * c->row_bytes;
}

const char *moe_item_cache_get(struct moe_item_cache *c, uint64_t key, uint32_t *pin) {
    const uint64_t tag = tag_of(key);
    if (!c->sets)
        return NULL;
    const size_t set = first_way(c, tag);
    const int w = find(c, set, tag);
    if (w < 0)
        return NULL;
    const size_t at = set + (size_t)w;
    struct state *s = &c->state[at];
    if (atomic_fetch_add_explicit(&s->users, 1, memory_order_acquire) < 0 ||
        atomic_load_explicit(&c->tags[at], memory_order_acquire) != tag) {
        atomic_fetch_sub_explicit(&s->users, 1, memory_order_release);
        return NULL;
    }
    const uint32_t row = atomic_load_explicit(&s->row, memory_order_relaxed);
    if (!(row & RECENT))
        atomic_fetch_or_explicit(&s->row, RECENT, memory_order_relaxed);
    *pin = (uint32_t)at;
    return row_at(c, row);
}

void moe_item_cache_release(struct moe_item_cache *c, uint32_t pin) {
    atomic_fetch_sub_explicit(&c->state[pin].users, 1, memory_order_release);
}

/* Makes a way of the set the caller's: an empty one, else the first free one that was not used
 * since it was last passed over. -1: all are held. */
static int take_way(struct moe_item_cache *c, size_t set) {
    for (int round = 0; round < 3; round++)
        for (int w = 0; w < WAYS; w++) {
            struct state *s = &c->state[set + (size_t)w];
            bool empty = atomic_load_explicit(&c->tags[set + (size_t)w], memory_order_relaxed) == 0;
            int32_t nobody = 0;
            if (round == 0 && !empty)
                continue;
            if (round == 1 && !empty &&
                atomic_fetch_and_explicit(&s->row, ~RECENT, memory_order_relaxed) & RECENT)
                continue;
            if (atomic_compare_exchange_strong_explicit(&s->users, &nobody, BUSY,
                                                        memory_order_acq_rel, memory_order_relaxed))
                return w;
        }
    return -1;
}

void moe_item_cache_put(struct moe_item_cache *c, uint64_t key, const char *row) {
    const uint64_t tag = tag_of(key);
    if (!c->sets)
        return;
    const size_t set = first_way(c, tag);
    if (find(c, set, tag) >= 0)
        return;
    const int w = take_way(c, set);
    if (w < 0)
        return;
    const size_t at = set + (size_t)w;
    uint32_t place = atomic_load_explicit(&c->state[at].row, memory_order_relaxed);
    if (place)
        atomic_fetch_add_explicit(&c->evictions, 1, memory_order_relaxed);
    else
        place = 1 + (uint32_t)atomic_fetch_add_explicit(&c->kept, 1, memory_order_relaxed);
    atomic_store_explicit(&c->tags[at], 0, memory_order_release);
    memcpy(row_at(c, place), row, c->row_bytes);
    atomic_fetch_or_explicit(&c->state[at].row, place | RECENT, memory_order_relaxed);
    atomic_store_explicit(&c->tags[at], tag, memory_order_release);
    atomic_fetch_sub_explicit(&c->state[at].users, BUSY, memory_order_release);
}

void moe_item_cache_count(struct moe_item_cache *c, uint64_t hits, uint64_t misses) {
    atomic_fetch_add_explicit(&c->hits, hits, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->misses, misses, memory_order_relaxed);
}

struct moe_item_cache_stats moe_item_cache_read(const struct moe_item_cache *c) {
    return (struct moe_item_cache_stats){
        .hits = atomic_load_explicit(&c->hits, memory_order_relaxed),
        .misses = atomic_load_explicit(&c->misses, memory_order_relaxed),
        .evictions = atomic_load_explicit(&c->evictions, memory_order_relaxed),
        .kept = atomic_load_explicit(&c->kept, memory_order_relaxed),
        .rows = c->sets * WAYS,
        .row_bytes = c->row_bytes,
        .bytes = c->sets * WAYS * (c->row_bytes + sizeof *c->tags + sizeof *c->state)};
}
