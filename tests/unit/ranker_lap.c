/* ranker_lap: of short calls one in so many is measured, and counts for all; long ones each. */
#include "ranker/lap.h"
#include "tests/support/suite.h"

enum { ROUNDS = 3, BUSY_NS = 300 * 1000 };

/* Calls with a lap that takes a known time of this thread's, at least. How many counted anything.
 */
static int calls(struct rk_worker *w, int n, size_t bytes) {
    int counted = 0;
    for (int i = 0; i < n; i++) {
        const uint64_t before = metric_value(METRIC_CPU_DECODE);
        rk_lap_call(w, bytes);
        rk_lap_begin(w);
        const int64_t from_ns = clock_thread_ns();
        while (clock_thread_ns() - from_ns < BUSY_NS)
            ;
        rk_lap(w, METRIC_CPU_DECODE);
        counted += metric_value(METRIC_CPU_DECODE) > before;
    }
    return counted;
}

static void test_short_calls_are_sampled(void) {
    struct rk_worker w;
    rk_worker_init(&w);
    metric_reset(METRIC_CPU_DECODE);
    CU_ASSERT_EQUAL(calls(&w, ROUNDS * RK_LAP_EVERY, 100), ROUNDS);
    CU_ASSERT(metric_value(METRIC_CPU_DECODE) >= (uint64_t)ROUNDS * RK_LAP_EVERY * BUSY_NS);
    metric_reset(METRIC_CPU_DECODE);
    CU_ASSERT_EQUAL(calls(&w, 5, RK_LAP_SHORT_BYTES + 1), 5);
    CU_ASSERT(metric_value(METRIC_CPU_DECODE) >= 5 * BUSY_NS);
    rk_worker_deinit(&w);
}

static void test_who_does_not_say_is_measured(void) {
    struct rk_worker w;
    rk_worker_init(&w);
    metric_reset(METRIC_CPU_LOG);
    rk_lap_begin(&w);
    rk_lap(&w, METRIC_CPU_LOG);
    CU_ASSERT(metric_value(METRIC_CPU_LOG) > 0);
    rk_worker_deinit(&w);
}

SUITE("ranker_lap", TEST(test_short_calls_are_sampled), TEST(test_who_does_not_say_is_measured))
