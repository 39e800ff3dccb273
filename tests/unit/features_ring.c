/* features_ring: one walk over a ring gives each window what counting it alone gives, whatever the
 * order of the windows, for readers of any time; and of damaged cells what stands before the
 * damage. */
#include "features/ring.h"
#include "base/rng.h"
#include "tests/support/suite.h"

enum { ROUNDS = 3000, DAY_US = 1000000 };

/* Each window by itself, bucket by bucket. */
static void count_alone(const struct feat_ring *g, struct slice cell, int64_t now_us,
                        const int64_t *buckets, int n, double *sums) {
    const int64_t now = now_us / g->bucket_us;
    for (int i = 0; i < n; i++) {
        struct feat_ring_reader r;
        feat_ring_open(g, cell, &r);
        while (feat_ring_next(&r))
            for (int k = 0; k < g->n_counters; k++)
                if (r.bucket <= now && r.bucket > now - buckets[i])
                    sums[i * g->n_counters + k] += (double)r.counts[k];
    }
}

/* Dense: nearly every bucket, and most counts of one byte. */
static void fill(struct rng *rng, const struct feat_ring *g, bool dense, struct buf *cell) {
    struct buf next = {0};
    for (int i = (int)rng_below(rng, dense ? 400 : 40); i > 0; i--) {
        const uint32_t most = dense ? rng_below(rng, 40) ? 5 : 300 : rng_below(rng, 4) ? 5 : 100000;
        const uint64_t add[2] = {rng_below(rng, most), rng_below(rng, dense ? most : 300)};
        buf_clear(&next);
        if (!feat_ring_add(g, buf_slice(cell), (100 + (int64_t)rng_below(rng, 50)) * DAY_US, add,
                           &next))
            continue;
        buf_clear(cell);
        buf_add(cell, next.p, next.n);
    }
    buf_deinit(&next);
}

static void test_windows_are_summed_in_one_walk(void) {
    struct rng rng;
    int bad = 0, some = 0;
    rng_init(&rng, 7);
    for (int round = 0; round < ROUNDS; round++) {
        struct feat_ring g = {.bucket_us = DAY_US,
                              .window_buckets = 40,
                              .keep = 45,
                              .n_counters = 1 + (int)rng_below(&rng, 2)};
        int64_t buckets[FEAT_WINDOWS_MAX], now_us = (90 + (int64_t)rng_below(&rng, 100)) * DAY_US;
        const int n = 1 + (int)rng_below(&rng, FEAT_WINDOWS_MAX);
        double is[2 * FEAT_WINDOWS_MAX] = {0}, should[2 * FEAT_WINDOWS_MAX] = {0};
        struct buf cell = {0};
        for (int i = 0; i < n; i++)
            buckets[i] = 1 + (int64_t)rng_below(&rng, 40);
        fill(&rng, &g, round % 2 == 0, &cell);
        if (cell.n > 0 && round % 3 == 0)
            cell.n -= rng_below(&rng, (uint32_t)cell.n); /* cut off anywhere */
        if (cell.n > 0 && round % 7 == 0)
            cell.p[rng_below(&rng, (uint32_t)cell.n)] = (char)rng_below(&rng, 256);
        feat_ring_sum(&g, buf_slice(&cell), now_us, buckets, n, is);
        count_alone(&g, buf_slice(&cell), now_us, buckets, n, should);
        bad += memcmp(is, should, sizeof is) != 0;
        some += should[0] > 0;
        buf_deinit(&cell);
    }
    CU_ASSERT_EQUAL(bad, 0);
    CU_ASSERT(some > ROUNDS / 10);
}

SUITE("features_ring", TEST(test_windows_are_summed_in_one_walk))
