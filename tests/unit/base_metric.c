/* base_metric.c: counts, quantiles within the stated resolution, and Prometheus' text. */
#include <pthread.h>
#include <math.h>
#include <stdlib.h>
#include "base/metric.h"
#include "base/rng.h"
#include "tests/support/suite.h"

static void counters_add_and_gauges_hold(void) {
    metric_reset(METRIC_RANK_CALLS);
    metric_add(METRIC_RANK_CALLS, 2);
    metric_add(METRIC_RANK_CALLS, 3);
    CU_ASSERT_EQUAL(metric_value(METRIC_RANK_CALLS), 5);
    metric_set(METRIC_QUEUE_DEPTH, 9);
    metric_set(METRIC_QUEUE_DEPTH, 4);
    CU_ASSERT_EQUAL(metric_value(METRIC_QUEUE_DEPTH), 4);
}

static void an_empty_histogram_has_quantile_nought(void) {
    metric_reset(METRIC_RANK_US);
    CU_ASSERT_EQUAL(metric_quantile_us(METRIC_RANK_US, 0.5), 0);
    CU_ASSERT_EQUAL(metric_observations(METRIC_RANK_US), 0);
}

static void small_values_are_exact(void) {
    for (int us = 1; us < 32; us++) {
        metric_reset(METRIC_RANK_US);
        metric_observe_us(METRIC_RANK_US, us);
        CU_ASSERT_EQUAL(metric_quantile_us(METRIC_RANK_US, 0.5), us);
    }
}

static int compare(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void quantiles_are_within_four_per_cent(void) {
    enum { N = 20000 };
    static int64_t v[N];
    static const double qs[] = {0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 1};
    struct rng r;
    rng_init(&r, 2);
    metric_reset(METRIC_RANK_US);
    for (int i = 0; i < N; i++) {
        v[i] = (int64_t)exp(rng_double(&r) * log(1e8));
        metric_observe_us(METRIC_RANK_US, v[i]);
    }
    qsort(v, N, sizeof v[0], compare);
    for (size_t i = 0; i < sizeof qs / sizeof *qs; i++) {
        double want = (double)v[(int)(qs[i] * N) - 1];
        CU_ASSERT_DOUBLE_EQUAL(metric_quantile_us(METRIC_RANK_US, qs[i]) / want, 1, 0.04);
    }
    CU_ASSERT_EQUAL(metric_observations(METRIC_RANK_US), N);
}

static void values_out_of_range_count_at_the_ends(void) {
    metric_reset(METRIC_RANK_US);
    metric_observe_us(METRIC_RANK_US, -5);
    metric_observe_us(METRIC_RANK_US, 0);
    CU_ASSERT_EQUAL(metric_quantile_us(METRIC_RANK_US, 1), 1);
    metric_observe_us(METRIC_RANK_US, INT64_MAX);
    CU_ASSERT_DOUBLE_EQUAL(metric_quantile_us(METRIC_RANK_US, 1) / 1e8, 1, 0.04);
    CU_ASSERT_EQUAL(metric_observations(METRIC_RANK_US), 3);
}

static void *observe(void *unused) {
    (void)unused;
    for (int i = 0; i < 20000; i++) {
        metric_add(METRIC_RANK_CALLS, 1);
        metric_observe_us(METRIC_RANK_US, i);
    }
    return NULL;
}

static void nothing_is_lost_between_threads(void) {
    pthread_t t[3];
    metric_reset(METRIC_RANK_CALLS);
    metric_reset(METRIC_RANK_US);
    for (int i = 0; i < 3; i++)
        pthread_create(&t[i], NULL, observe, NULL);
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    CU_ASSERT_EQUAL(metric_value(METRIC_RANK_CALLS), 60000);
    CU_ASSERT_EQUAL(metric_observations(METRIC_RANK_US), 60000);
}

/* The number after `what` and a space, or -1. */
static double shown(const struct buf *b, const char *what) {
    const char *at = strstr(b->p, what);
    return at ? strtod(at + strlen(what), NULL) : -1;
}

static void the_text_is_prometheus_and_buckets_are_exact(void) {
    struct buf b = {0};
    metric_reset(METRIC_RANK_US);
    metric_set(METRIC_INGEST_LAG, -3);
    static const int values[] = {1, 2, 3, 4, 1023, 1024, 5000000};
    for (int i = 0; i < 7; i++)
        metric_observe_us(METRIC_RANK_US, values[i]);
    metric_write_text(&b);
    buf_add_byte(&b, 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(b.p, "# TYPE moerank_rank_us histogram\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(b.p, "# HELP moerank_rank_us "));
    CU_ASSERT_EQUAL(shown(&b, "\nmoerank_ingest_lag_events "), -3);
    CU_ASSERT_EQUAL(shown(&b, "\nmoerank_rank_us_bucket{le=\"1\"} "), 1);
    CU_ASSERT_EQUAL(shown(&b, "\nmoerank_rank_us_bucket{le=\"2\"} "), 2);
    CU_ASSERT_EQUAL(shown(&b, "\nmoerank_rank_us_bucket{le=\"3\"} "), 3);
    CU_ASSERT_EQUAL(shown(&b, "\nmoerank_rank_us_bucket{le=\"1023\"} "), 5);
    CU_ASSERT_EQUAL(shown(&b, "\nmoerank_rank_us_bucket{le=\"1535\"} "), 6);
    CU_ASSERT_EQUAL(shown(&b, "\nmoerank_rank_us_bucket{le=\"+Inf\"} "), 7);
    CU_ASSERT_EQUAL(shown(&b, "\nmoerank_rank_us_count "), 7);
    CU_ASSERT_EQUAL(shown(&b, "\nmoerank_rank_us_sum "), 5002057);
    buf_deinit(&b);
}

static void the_reference_has_a_row_for_every_metric(void) {
    struct buf b = {0};
    metric_write_markdown(&b);
    int rows = 0;
    for (size_t i = 0; i < b.n; i++)
        rows += b.p[i] == '\n';
    CU_ASSERT_EQUAL(rows, METRIC_COUNT + 2);
    buf_deinit(&b);
}

SUITE("base_metric", TEST(counters_add_and_gauges_hold),
      TEST(an_empty_histogram_has_quantile_nought), TEST(small_values_are_exact),
      TEST(quantiles_are_within_four_per_cent), TEST(values_out_of_range_count_at_the_ends),
      TEST(nothing_is_lost_between_threads), TEST(the_text_is_prometheus_and_buckets_are_exact),
      TEST(the_reference_has_a_row_for_every_metric))
