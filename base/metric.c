/* metric.c: counters, gauges and log-linear histograms in static arrays of atomics.
 *
 * A histogram has 16 linear buckets in each octave from 1 us to 2^27 us (134 s), as HdrHistogram
 * has (Gil Tene): a quantile read from it is off by 1/32 at most. Prometheus is shown two buckets
 * an octave, exact at their edges. Deliberately no labels: a metric is a line of metrics.def. */
#include "base/metric.h"
#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>

enum kind { KIND_COUNTER, KIND_GAUGE, KIND_HISTOGRAM };
static const struct {
    enum kind kind;
    const char *name, *unit, *help;
} metrics[METRIC_COUNT] = {
#define METRIC_COUNTER(id, name, unit, help)   {KIND_COUNTER, name, unit, help},
#define METRIC_GAUGE(id, name, unit, help)     {KIND_GAUGE, name, unit, help},
#define METRIC_HISTOGRAM(id, name, unit, help) {KIND_HISTOGRAM, name, unit, help},
#include "base/metrics.def"
#undef METRIC_COUNTER
#undef METRIC_GAUGE
#undef METRIC_HISTOGRAM
};
static const char *const kind_words[] = {"counter", "gauge", "histogram"};

enum { SUB_BITS = 4, SUBS = 1 << SUB_BITS, OCTAVES = 27, BUCKETS = OCTAVES * SUBS };
#define US_MAX 100000000

/* Histograms only use `buckets`; the table is small enough not to care. */
static atomic_ullong values[METRIC_COUNT]; /* counter; gauge as two's complement; histogram: sum */
static atomic_ullong buckets[METRIC_COUNT][BUCKETS];

static bool is(enum metric m, enum kind kind) {
    return (unsigned)m < METRIC_COUNT && metrics[m].kind == kind;
}

void metric_add(enum metric m, uint64_t n) {
    assert(is(m, KIND_COUNTER));
    atomic_fetch_add_explicit(&values[m], n, memory_order_relaxed);
}

void metric_set(enum metric m, int64_t value) {
    assert(is(m, KIND_GAUGE));
    atomic_store_explicit(&values[m], (uint64_t)value, memory_order_relaxed);
}

static int bucket_of(uint64_t us) {
    int octave = 63 - __builtin_clzll(us);
    uint64_t sub = ((us << SUB_BITS) >> octave) & (SUBS - 1);
    return octave * SUBS + (int)sub;
}

/* the smallest value of a bucket */
static double bucket_edge(int bucket) {
    return (double)(SUBS + bucket % SUBS) * (double)(1ull << (bucket / SUBS)) / SUBS;
}

void metric_observe_us(enum metric m, int64_t us) {
    assert(is(m, KIND_HISTOGRAM));
    uint64_t v = us < 1 ? 1 : us > US_MAX ? US_MAX : (uint64_t)us;
    atomic_fetch_add_explicit(&buckets[m][bucket_of(v)], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&values[m], v, memory_order_relaxed);
}

uint64_t metric_value(enum metric m) {
    assert(is(m, KIND_COUNTER) || is(m, KIND_GAUGE));
    return atomic_load_explicit(&values[m], memory_order_relaxed);
}

uint64_t metric_observations(enum metric m) {
    assert(is(m, KIND_HISTOGRAM));
    uint64_t n = 0;
    for (int i = 0; i < BUCKETS; i++)
        n += atomic_load_explicit(&buckets[m][i], memory_order_relaxed);
    return n;
}

double metric_quantile_us(enum metric m, double q) {
    double rank = q * (double)metric_observations(m), seen = 0, at = 0;
    for (int i = 0; i < BUCKETS; i++) {
        uint64_t n = atomic_load_explicit(&buckets[m][i], memory_order_relaxed);
        if (n == 0)
            continue;
        at = (bucket_edge(i) + bucket_edge(i + 1)) / 2;
        if (i < (SUB_BITS + 1) * SUBS)
            at = bucket_edge(i); /* below 32 us a bucket holds one whole number */
        seen += (double)n;
        if (seen >= rank)
            break;
    }
    return at;
}

void metric_reset(enum metric m) {
    atomic_store_explicit(&values[m], 0, memory_order_relaxed);
    for (int i = 0; i < BUCKETS; i++)
        atomic_store_explicit(&buckets[m][i], 0, memory_order_relaxed);
}

/* Values are whole microseconds, so "below the edge" is "at most the edge less one". */
static void write_histogram(struct buf *out, enum metric m) {
    const char *name = metrics[m].name;
    unsigned long long n = 0;
    for (int i = 0; i < BUCKETS; i++) {
        n += atomic_load_explicit(&buckets[m][i], memory_order_relaxed);
        if ((i + 1) % (SUBS / 2) == 0 && i + 1 != SUBS / 2)
            buf_printf(out, "%s_bucket{le=\"%.0f\"} %llu\n", name, bucket_edge(i + 1) - 1, n);
    }
    buf_printf(out, "%s_bucket{le=\"+Inf\"} %llu\n", name, n);
    buf_printf(out, "%s_sum %llu\n%s_count %llu\n", name,
               atomic_load_explicit(&values[m], memory_order_relaxed), name, n);
}

void metric_write_text(struct buf *out) {
    for (int m = 0; m < METRIC_COUNT; m++) {
        buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", metrics[m].name, metrics[m].help,
                   metrics[m].name, kind_words[metrics[m].kind]);
        unsigned long long v = atomic_load_explicit(&values[m], memory_order_relaxed);
        if (metrics[m].kind == KIND_HISTOGRAM)
            write_histogram(out, (enum metric)m);
        else if (metrics[m].kind == KIND_GAUGE)
            buf_printf(out, "%s %lld\n", metrics[m].name, (long long)v);
        else
            buf_printf(out, "%s %llu\n", metrics[m].name, v);
    }
}

void metric_write_markdown(struct buf *out) {
    buf_add_str(out, "| metric | kind | unit | meaning |\n|---|---|---|---|\n");
    for (int m = 0; m < METRIC_COUNT; m++)
        buf_printf(out, "| `%s` | %s | %s | %s |\n", metrics[m].name, kind_words[metrics[m].kind],
                   metrics[m].unit, metrics[m].help);
}
