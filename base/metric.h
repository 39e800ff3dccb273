/* metric.h: counters, gauges and log-linear histograms, all listed in base/metrics.def, which is
 * also where docs/metrics.md is generated from. A metric is a name in that list; there is no
 * registration at run time, so cardinality is bounded. Thread-safe, lock-free.
 *
 *     METRIC_COUNTER(EVENTS_APPLIED, "moerank_events_applied_total", "events", "...")
 */
#pragma once
#include <stdint.h>
#include "base/buf.h"

enum metric {
#define METRIC_COUNTER(id, name, unit, help)   METRIC_##id,
#define METRIC_GAUGE(id, name, unit, help)     METRIC_##id,
#define METRIC_HISTOGRAM(id, name, unit, help) METRIC_##id,
#include "base/metrics.def"
#undef METRIC_COUNTER
#undef METRIC_GAUGE
#undef METRIC_HISTOGRAM
    METRIC_COUNT
};

void metric_add(enum metric m, uint64_t n);        /* counters */
void metric_set(enum metric m, int64_t value);     /* gauges */
void metric_observe_us(enum metric m, int64_t us); /* histograms: 1 us .. 100 s, 4 % resolution */

uint64_t metric_value(enum metric m);               /* counter or gauge */
double metric_quantile_us(enum metric m, double q); /* histogram; 0 when empty */
uint64_t metric_observations(enum metric m);
void metric_reset(enum metric m); /* tests and benches */

void metric_write_text(struct buf *out);     /* Prometheus text format 0.0.4 */
void metric_write_markdown(struct buf *out); /* docs/metrics.md */
