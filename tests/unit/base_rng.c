/* base_rng.c: known values, ranges, moments; and the clocks, which only have to move forward. */
#include <math.h>
#include <stdlib.h>
#include "base/clock.h"
#include "base/rng.h"
#include "tests/support/suite.h"

/* From the authors' C code: splitmix64 from 0, then xoshiro256++ on those four words. */
static void the_stream_is_that_of_the_authors_code(void) {
    struct rng r;
    rng_init(&r, 0);
    CU_ASSERT_EQUAL(r.s[0], 0xE220A8397B1DCDAFull);
    CU_ASSERT_EQUAL(r.s[1], 0x6E789E6AA1B965F4ull);
    struct rng known = {{1, 2, 3, 4}};
    CU_ASSERT_EQUAL(rng_u64(&known), 41943041ull);
    CU_ASSERT_EQUAL(rng_u64(&known), 58720359ull);
    CU_ASSERT_EQUAL(rng_u64(&known), 3588806011781223ull);
    CU_ASSERT_EQUAL(rng_u64(&known), 3591011842654386ull);
}

static void equal_seeds_give_equal_streams(void) {
    struct rng a, b, c;
    rng_init(&a, 7);
    rng_init(&b, 7);
    rng_init(&c, 8);
    int differ = 0, same = 0;
    for (int i = 0; i < 100; i++) {
        uint64_t x = rng_u64(&a);
        differ += x != rng_u64(&b);
        same += x == rng_u64(&c);
    }
    CU_ASSERT_EQUAL(differ, 0);
    CU_ASSERT_EQUAL(same, 0);
}

static void below_stays_in_range_and_is_even(void) {
    struct rng r;
    rng_init(&r, 9);
    int seen[7] = {0};
    for (int i = 0; i < 70000; i++) {
        uint32_t v = rng_below(&r, 7);
        CU_ASSERT_FATAL(v < 7);
        seen[v]++;
    }
    for (int i = 0; i < 7; i++)
        CU_ASSERT(abs(seen[i] - 10000) < 500); /* five standard deviations */
    CU_ASSERT_EQUAL(rng_below(&r, 1), 0);
    for (int i = 0; i < 1000; i++)
        CU_ASSERT_FATAL(rng_below(&r, UINT32_MAX) < UINT32_MAX);
}

static void normals_have_mean_nought_and_variance_one(void) {
    struct rng r;
    rng_init(&r, 11);
    double sum = 0, squares = 0;
    int n = 200000, beyond2 = 0;
    for (int i = 0; i < n; i++) {
        double x = rng_normal(&r);
        CU_ASSERT_FATAL(isfinite(x));
        sum += x;
        squares += x * x;
        beyond2 += fabs(x) > 1.959964;
    }
    CU_ASSERT_DOUBLE_EQUAL(sum / n, 0, 0.012);
    CU_ASSERT_DOUBLE_EQUAL(squares / n, 1, 0.02);
    CU_ASSERT_DOUBLE_EQUAL((double)beyond2 / n, 0.05, 0.003);
}

static void uniforms_stay_below_one(void) {
    struct rng r;
    rng_init(&r, 12);
    double least = 1, most = 0;
    for (int i = 0; i < 100000; i++) {
        double d = rng_double(&r);
        float f = rng_float(&r);
        CU_ASSERT_FATAL(d >= 0 && d < 1 && f >= 0 && f < 1);
        least = d < least ? d : least;
        most = d > most ? d : most;
    }
    CU_ASSERT(least < 0.001 && most > 0.999);
}

static void a_shuffle_keeps_every_element(void) {
    struct rng r;
    rng_init(&r, 13);
    uint32_t v[100];
    uint64_t seen[2] = {0, 0};
    int moved = 0;
    for (uint32_t i = 0; i < 100; i++)
        v[i] = i;
    rng_shuffle_u32(&r, v, 100);
    for (uint32_t i = 0; i < 100; i++) {
        seen[v[i] / 64] |= 1ull << (v[i] % 64);
        moved += v[i] != i;
    }
    CU_ASSERT(seen[0] == UINT64_MAX && seen[1] == (1ull << 36) - 1);
    CU_ASSERT(moved > 80);
    rng_shuffle_u32(&r, v, 0);
}

static void clocks_move_forward(void) {
    int64_t mono = clock_mono_us(), ns = clock_mono_ns();
    double cpu = clock_cpu_s();
    clock_sleep_ms(2);
    CU_ASSERT(clock_mono_us() - mono >= 2000);
    CU_ASSERT(clock_mono_ns() - ns >= 2000000);
    CU_ASSERT(clock_cpu_s() >= cpu);
    CU_ASSERT(clock_wall_us() > 1600000000000000); /* 2020 */
    clock_sleep_ms(0);
    clock_sleep_ms(-5);
}

SUITE("base_rng", TEST(the_stream_is_that_of_the_authors_code),
      TEST(equal_seeds_give_equal_streams), TEST(below_stays_in_range_and_is_even),
      TEST(normals_have_mean_nought_and_variance_one), TEST(uniforms_stay_below_one),
      TEST(a_shuffle_keeps_every_element), TEST(clocks_move_forward))
