/* The table of item halves: what is put is found, the budget holds, pinned rows stay, and threads
 * that read and overwrite at once never see another key's row. */
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include "base/heap.h"
#include "base/rng.h"
#include "moe/score/item_cache.h"
#include "tests/support/suite.h"

enum { ROW = 192 };

static void fill(char *row, uint64_t key) {
    for (int i = 0; i < ROW; i += 8)
        memcpy(row + i, &key, 8);
}
static bool is_of(const char *row, uint64_t key) {
    char want[ROW];
    fill(want, key);
    return memcmp(row, want, ROW) == 0;
}

static void test_put_and_get(void) {
    struct moe_item_cache *c = moe_item_cache_new(1 << 20, ROW);
    char row[ROW];
    uint32_t pin;
    int found = 0;
    for (uint64_t key = 0; key < 500; key++) { /* 0 is a key like any other */
        CU_ASSERT_PTR_NULL(moe_item_cache_get(c, key, &pin));
        fill(row, key);
        moe_item_cache_put(c, key, row);
        moe_item_cache_put(c, key, row); /* a second time changes nothing */
    }
    for (uint64_t key = 0; key < 500; key++) {
        const char *got = moe_item_cache_get(c, key, &pin);
        if (!got)
            continue;
        CU_ASSERT(is_of(got, key));
        moe_item_cache_release(c, pin);
        found++;
    }
    CU_ASSERT_EQUAL(found, 500);
    CU_ASSERT_EQUAL(moe_item_cache_read(c).evictions, 0);
    moe_item_cache_free(c);
    moe_item_cache_free(NULL);
}

static void test_budget(void) {
    const size_t bytes = 40 * ROW;
    struct moe_item_cache *c = moe_item_cache_new(bytes, ROW);
    struct moe_item_cache_stats s = moe_item_cache_read(c);
    char row[ROW];
    uint32_t pin;
    CU_ASSERT(s.bytes <= bytes && s.rows >= 32);
    for (uint64_t key = 1; key <= 1000; key++) {
        fill(row, key);
        moe_item_cache_put(c, key, row);
        const char *got = moe_item_cache_get(c, key, &pin); /* the newest always stays */
        CU_ASSERT_FATAL(got != NULL);
        moe_item_cache_release(c, pin);
    }
    CU_ASSERT(moe_item_cache_read(c).evictions >= 1000 - s.rows);
    moe_item_cache_free(c);
}

/* A large budget and few items: memory is taken from the beginning on, without gaps. */
static void test_memory_is_taken_as_items_come(void) {
    struct moe_item_cache *c = moe_item_cache_new((size_t)1 << 30, ROW);
    const char *first = NULL, *last = NULL;
    char row[ROW];
    uint32_t pin;
    for (uint64_t key = 0; key < 1000; key++) {
        fill(row, key);
        moe_item_cache_put(c, key, row);
        const char *at = moe_item_cache_get(c, key, &pin);
        CU_ASSERT_FATAL(at != NULL);
        moe_item_cache_release(c, pin);
        first = !first || at < first ? at : first;
        last = !last || at > last ? at : last;
    }
    CU_ASSERT_EQUAL(last - first, 999 * ROW);
    CU_ASSERT_EQUAL(moe_item_cache_read(c).kept, 1000);
    moe_item_cache_free(c);
}

static void test_pins(void) {
    struct moe_item_cache *c = moe_item_cache_new(1, ROW); /* one set */
    const char *held[8];
    char row[ROW];
    uint32_t pin[8], other;
    for (uint64_t key = 1; key <= 8; key++) {
        fill(row, key);
        moe_item_cache_put(c, key, row);
        held[key - 1] = moe_item_cache_get(c, key, &pin[key - 1]);
        CU_ASSERT_FATAL(held[key - 1] != NULL);
    }
    fill(row, 9);
    moe_item_cache_put(c, 9, row); /* no way is free */
    CU_ASSERT_PTR_NULL(moe_item_cache_get(c, 9, &other));
    for (uint64_t key = 1; key <= 8; key++) {
        CU_ASSERT(is_of(held[key - 1], key));
        moe_item_cache_release(c, pin[key - 1]);
    }
    moe_item_cache_put(c, 9, row);
    CU_ASSERT_FATAL(moe_item_cache_get(c, 9, &other) != NULL);
    moe_item_cache_release(c, other);
    moe_item_cache_free(c);
}

struct reader {
    struct moe_item_cache *c;
    uint64_t seed, wrong, hits;
};

static void *read_and_write(void *arg) {
    struct reader *t = arg;
    struct rng r;
    rng_init(&r, t->seed);
    for (int i = 0; i < 40000; i++) {
        uint64_t key = rng_below(&r, 200);
        uint32_t pin;
        char row[ROW];
        const char *got = moe_item_cache_get(t->c, key, &pin);
        if (got) {
            t->wrong += !is_of(got, key);
            t->hits++;
            moe_item_cache_release(t->c, pin);
            continue;
        }
        fill(row, key);
        moe_item_cache_put(t->c, key, row);
    }
    return NULL;
}

static void test_threads(void) {
    enum { THREADS = 4 };
    struct moe_item_cache *c = moe_item_cache_new(100 * ROW, ROW);
    struct reader readers[THREADS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        readers[i] = (struct reader){c, (uint64_t)i, 0, 0};
        CU_ASSERT_FATAL(pthread_create(&threads[i], NULL, read_and_write, &readers[i]) == 0);
    }
    uint64_t hits = 0;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        CU_ASSERT_EQUAL(readers[i].wrong, 0);
        hits += readers[i].hits;
    }
    CU_ASSERT(hits > 1000);
    moe_item_cache_free(c);
}

SUITE("moe_pack_cache", TEST(test_put_and_get), TEST(test_budget),
      TEST(test_memory_is_taken_as_items_come), TEST(test_pins), TEST(test_threads))
