/* lap.h: where a worker's CPU time goes: each lap adds what this thread used since the one before
 * to a counter. CPU time, since on a busy machine the wall's would be the scheduler's. */
#pragma once
#include "base/clock.h"
#include "base/metric.h"
#include "ranker/rank.h"

static inline void rk_lap_begin(struct rk_worker *w) { w->lap_ns = clock_thread_ns(); }
static inline void rk_lap(struct rk_worker *w, enum metric m) {
    const int64_t now_ns = clock_thread_ns();
    metric_add(m, (uint64_t)(now_ns - w->lap_ns));
    w->lap_ns = now_ns;
}
