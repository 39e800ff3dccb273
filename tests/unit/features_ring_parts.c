/* features_ring_parts: counts in any order of arrival, sums in parts and taken away again, old
 * buckets dropped: what a reader sees is what an array of buckets says, and equal counts are equal
 * bytes. */
#include <string.h>
#include "base/rng.h"
#include "features/ring.h"
#include "tests/support/suite.h"

enum { BUCKETS = 60, FIRST = 20000, EVENTS = 400 };
#define BUCKET_US 86400000000ll

struct want {
    uint64_t counts[BUCKETS][2];
    int newest; /* -1: none */
};

static void note(const struct feat_ring *g, struct want *w, int bucket, const uint64_t *add) {
    if (w->newest >= 0 && bucket <= w->newest - (int)g->keep)
        return;
    for (int k = 0; k < 2; k++)
        w->counts[bucket][k] += add[k];
    w->newest = bucket > w->newest ? bucket : w->newest;
}

static bool seen(const struct feat_ring *g, const struct want *w, int bucket) {
    return bucket > w->newest - (int)g->keep &&
           (w->counts[bucket][0] > 0 || w->counts[bucket][1] > 0);
}

static int wrong(const struct feat_ring *g, struct slice cell, const struct want *w) {
    struct feat_ring_reader r;
    int n = 0;
    feat_ring_open(g, cell, &r);
    for (int b = w->newest; b >= 0; b--) {
        if (!seen(g, w, b))
            continue;
        n += !feat_ring_next(&r) || r.bucket != FIRST + b;
        for (int k = 0; k < g->n_counters; k++)
            n += r.counts[k] != w->counts[b][k];
    }
    return n + feat_ring_next(&r) + (r.c.bad != 0);
}

static void add(const struct feat_ring *g, struct buf *cell, int bucket, const uint64_t *by) {
    struct buf out = {0};
    if (feat_ring_add(g, buf_slice(cell), (FIRST + bucket) * BUCKET_US + 5, by, &out)) {
        buf_deinit(cell);
        *cell = out;
    } else {
        buf_deinit(&out);
    }
}

static void test_against_an_array(void) {
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct feat_ring g = {BUCKET_US, 20, 25, 1 + (int)(seed % 2)};
        struct want w = {.newest = -1};
        struct buf cell = {0};
        struct rng r;
        rng_init(&r, seed);
        for (int i = 0; i < EVENTS; i++) {
            int at = i * BUCKETS / EVENTS - (int)rng_below(&r, 30);
            uint64_t by[2] = {rng_below(&r, 2) * (rng_below(&r, 9) ? 1 : 1000), rng_below(&r, 3)};
            if (at < 0 || by[0] + (g.n_counters > 1 ? by[1] : 0) == 0)
                continue;
            if (g.n_counters == 1)
                by[1] = 0;
            note(&g, &w, at, by);
            add(&g, &cell, at, by);
            CU_ASSERT_EQUAL(wrong(&g, buf_slice(&cell), &w), 0);
        }
        buf_deinit(&cell);
    }
}

/* Parts, each of some of the counts, make the whole; the whole less a part is the other. */
static void test_parts_make_the_whole(void) {
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct feat_ring g = {BUCKET_US, BUCKETS, BUCKETS, 1 + (int)(seed % 2)};
        struct want w[3] = {{.newest = -1}, {.newest = -1}, {.newest = -1}};
        struct buf cell[3] = {0}, whole = {0}, rest = {0};
        struct rng r;
        rng_init(&r, seed);
        const int n = 1 + (int)rng_below(&r, 60);
        for (int i = 0; i < n; i++) {
            int at = (int)rng_below(&r, BUCKETS), part = (int)rng_below(&r, 2);
            uint64_t by[2] = {1 + rng_below(&r, 3), g.n_counters == 1 ? 0 : rng_below(&r, 200)};
            note(&g, &w[part], at, by), note(&g, &w[2], at, by);
            add(&g, &cell[part], at, by), add(&g, &cell[2], at, by);
        }
        feat_ring_merge(&g, buf_slice(&cell[0]), buf_slice(&cell[1]), 1, &whole);
        CU_ASSERT(slice_equal(buf_slice(&whole), buf_slice(&cell[2])));
        CU_ASSERT_EQUAL(wrong(&g, buf_slice(&whole), &w[2]), 0);
        feat_ring_merge(&g, buf_slice(&whole), buf_slice(&cell[1]), -1, &rest);
        CU_ASSERT(slice_equal(buf_slice(&rest), buf_slice(&cell[0])));
        buf_deinit(&whole);
        buf_deinit(&rest);
        for (int i = 0; i < 3; i++)
            buf_deinit(&cell[i]);
    }
}

/* A day next to the one before takes no distance. */
static void test_bytes(void) {
    struct feat_ring g = {BUCKET_US, 30, 31, 2};
    struct buf cell = {0};
    for (int b = 0; b < 30; b++)
        add(&g, &cell, b, (const uint64_t[]){b % 3, 17});
    CU_ASSERT_EQUAL(cell.n, 3 + 30 * 2);
    buf_deinit(&cell);
}

SUITE("features_ring_parts", TEST(test_against_an_array), TEST(test_parts_make_the_whole),
      TEST(test_bytes))
