/* eval.c: metrics, exact: ties get mid-ranks, nothing is binned but the calibration error. NaN
 * labels are left out; NaN scores make a metric NaN. */
#include "moe/report/eval.h"
#include <math.h>
#include <stdlib.h>
#include "base/heap.h"

struct scored {
    float score, label;
};
static int by_score(const void *a, const void *b) {
    float x = ((const struct scored *)a)->score, y = ((const struct scored *)b)->score;
    return (x > y) - (x < y);
}

/* Copies rows with a label; -1 when a score is NaN. */
static int collect(const float *scores, const float *labels, int n, struct scored *out) {
    int k = 0;
    for (int i = 0; i < n; i++) {
        if (isnan(labels[i]))
            continue;
        if (isnan(scores[i]))
            return -1;
        out[k++] = (struct scored){scores[i], labels[i]};
    }
    return k;
}

/* Mann-Whitney: (sum of the positives' mid-ranks - their least possible sum) / pairs. */
static double auc_of(struct scored *s, int n) {
    double ranks = 0, positives = 0;
    if (n < 2)
        return NAN;
    qsort(s, (size_t)n, sizeof *s, by_score);
    for (int i = 0, j; i < n; i = j) {
        double here = 0;
        for (j = i; j < n && s[j].score == s[i].score; j++)
            here += s[j].label > 0.5f;
        ranks += here * (i + 1 + j) / 2.0;
        positives += here;
    }
    double negatives = n - positives;
    return positives > 0 && negatives > 0
               ? (ranks - positives * (positives + 1) / 2) / (positives * negatives)
               : NAN;
}

double moe_auc(const float *scores, const float *labels, int n) {
    struct scored *s = HEAP_ARRAY(struct scored, n + 1);
    double auc = auc_of(s, collect(scores, labels, n, s));
    heap_free(s);
    return auc;
}

struct keyed {
    uint64_t key;
    int at;
};
static int by_key(const void *a, const void *b) {
    const struct keyed *x = a, *y = b;
    return x->key != y->key ? (x->key > y->key) - (x->key < y->key) : x->at - y->at;
}

double moe_auc_grouped(const float *scores, const float *labels, const uint64_t *group, int n,
                       int *groups_used) {
    struct keyed *k = HEAP_ARRAY(struct keyed, n + 1);
    struct scored *s = HEAP_ARRAY(struct scored, n + 1);
    double sum = 0;
    int used = 0;
    for (int i = 0; i < n; i++)
        k[i] = (struct keyed){group[i], i};
    qsort(k, (size_t)n, sizeof *k, by_key);
    for (int i = 0, j; i < n; i = j) {
        int rows = 0, bad = 0;
        for (j = i; j < n && k[j].key == k[i].key; j++) {
            if (isnan(labels[k[j].at]))
                continue;
            bad |= isnan(scores[k[j].at]);
            s[rows++] = (struct scored){scores[k[j].at], labels[k[j].at]};
        }
        double auc = bad ? NAN : auc_of(s, rows);
        if (bad)
            sum = NAN;
        else if (!isnan(auc)) {
            sum += auc;
            used++;
        }
    }
    heap_free(k);
    heap_free(s);
    if (groups_used)
        *groups_used = used;
    return used ? sum / used : NAN;
}

double moe_logloss(const float *probabilities, const float *labels, int n) {
    double sum = 0;
    int k = 0;
    for (int i = 0; i < n; i++) {
        if (isnan(labels[i]))
            continue;
        double p = probabilities[i], y = labels[i];
        p = p < 1e-7 ? 1e-7 : p > 1 - 1e-7 ? 1 - 1e-7 : p; /* NaN stays */
        sum -= y * log(p) + (1 - y) * log1p(-p);
        k++;
    }
    return k ? sum / k : NAN;
}

double moe_ece(const float *probabilities, const float *labels, int n, int bins) {
    struct scored *s = HEAP_ARRAY(struct scored, n + 1);
    int k = collect(probabilities, labels, n, s);
    double error = 0;
    if (k > 0)
        qsort(s, (size_t)k, sizeof *s, by_score);
    for (int b = 0; k > 0 && b < bins; b++) {
        int from = (int)((int64_t)k * b / bins), to = (int)((int64_t)k * (b + 1) / bins);
        double p = 0, y = 0;
        for (int i = from; i < to; i++) {
            p += (double)s[i].score;
            y += (double)s[i].label;
        }
        error += fabs(p - y);
    }
    heap_free(s);
    return k > 0 && bins > 0 ? error / k : NAN;
}

double moe_calibration_ratio(const float *probabilities, const float *labels, int n) {
    double p = 0, y = 0;
    for (int i = 0; i < n; i++) {
        if (isnan(labels[i]))
            continue;
        p += (double)probabilities[i];
        y += (double)labels[i];
    }
    return y > 0 ? p / y : NAN;
}

static int descending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

double moe_ndcg(const float *gains_in_order, int n, int k) {
    float *best = HEAP_ARRAY(float, n + 1);
    double got = 0, ideal = 0;
    for (int i = 0; i < n; i++)
        best[i] = gains_in_order[i];
    qsort(best, (size_t)n, sizeof *best, descending);
    for (int i = 0; i < n && i < k; i++) {
        got += (double)gains_in_order[i] / log2(i + 2);
        ideal += (double)best[i] / log2(i + 2);
    }
    heap_free(best);
    return ideal > 0 ? got / ideal : NAN;
}
