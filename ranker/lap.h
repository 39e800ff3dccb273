/* lap.h: where a worker's CPU time goes: each lap adds what this thread used since the one before
 * to a counter. CPU time, since on a busy machine the wall's would be the scheduler's. To ask for
 * it is a system call of half a microsecond, and a call has seven laps: so of short calls one in
 * RK_LAP_EVERY is measured, and counts for all of them. */
#pragma once
#include "base/clock.h"
#include "base/metric.h"
#include "ranker/rank.h"

enum { RK_LAP_EVERY = 16, RK_LAP_SHORT_BYTES = 2048 };

/* A call begins, whose request has so many bytes. A worker that never says so is always measured.
 */
static inline void rk_lap_call(struct rk_worker *w, size_t request_bytes) {
    const bool each = request_bytes > RK_LAP_SHORT_BYTES;
    w->lap_weight = each ? 1 : w->lap_calls++ % RK_LAP_EVERY == 0 ? RK_LAP_EVERY : 0;
}
static inline void rk_lap_begin(struct rk_worker *w) {
    if (w->lap_weight > 0)
        w->lap_ns = clock_thread_ns();
}
static inline void rk_lap(struct rk_worker *w, enum metric m) {
    if (w->lap_weight == 0)
        return;
    const int64_t now_ns = clock_thread_ns();
    metric_add(m, w->lap_weight * (uint64_t)(now_ns - w->lap_ns));
    w->lap_ns = now_ns;
}
