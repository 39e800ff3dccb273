/* usage.c: figures of gates and experts, see usage.h. Plain loops in double: these are looked at by
 * people, not served. */
#include "moe/report/usage.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/heap.h"

static double row_sum(int n, const float *w) {
    double sum = 0;
    for (int e = 0; e < n; e++)
        sum += (double)w[e];
    return sum;
}
static int greatest(int n, const float *w) {
    int best = 0;
    for (int e = 1; e < n; e++)
        best = w[e] > w[best] ? e : best;
    return w[best] > 0 ? best : -1;
}

void moe_usage_active(int rows, int n, const float *w, bool sparse, uint8_t *active) {
    for (int r = 0; r < rows; r++, w += n, active += n) {
        /* a hair above 1 / n, so that a uniform gate has nobody active by rounding */
        double fair = n == 1 ? 0 : row_sum(n, w) * (1 + 1e-6) / n;
        for (int e = 0; e < n; e++)
            active[e] = sparse ? w[e] != 0 : (double)w[e] > fair;
    }
}

/* --- loads -------------------------------------------------------------------------------------
 */

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
/* Linear between the order statistics. */
static double quantile(int n, const double *sorted, double q) {
    double at = q * (n - 1);
    int i = (int)at;
    return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

struct moe_load moe_load_describe(int n, const double *c) {
    struct moe_load l = {0};
    double sum = 0, squares = 0, apart = 0;
    double *sorted = HEAP_ARRAY(double, n);
    for (int i = 0; i < n; i++) {
        sum += c[i];
        squares += c[i] * c[i];
        l.dead += c[i] == 0;
    }
    for (int i = 0; i < n; i++) {
        double p = c[i] / sum;
        l.entropy -= p > 0 ? p * log(p) : 0;
        sorted[i] = c[i] * n / sum;
        for (int k = 0; k < n; k++)
            apart += fabs(c[i] - c[k]);
    }
    qsort(sorted, (size_t)n, sizeof *sorted, ascending);
    l.cv = sqrt(fmax(0, n * squares / (sum * sum) - 1));
    l.maxvio = sorted[n - 1] - 1;
    l.minvio = 1 - sorted[0];
    l.jain = sum * sum / (n * squares);
    l.gini = apart / (2 * n * sum);
    l.p25 = quantile(n, sorted, 0.25);
    l.median = quantile(n, sorted, 0.5);
    l.p75 = quantile(n, sorted, 0.75);
    heap_free(sorted);
    if (!(sum > 0))
        l.cv = l.maxvio = l.minvio = l.entropy = l.jain = l.gini = l.p25 = l.median = l.p75 =
            (double)NAN;
    l.effective = exp(l.entropy);
    return l;
}

void moe_usage_shares(int rows, int n, const float *w, const uint8_t *active, double *mass,
                      double *chosen, double *first) {
    double sum = 0;
    for (int e = 0; e < n; e++)
        mass[e] = chosen[e] = first[e] = 0;
    for (int r = 0; r < rows; r++, w += n, active += n) {
        int best = greatest(n, w);
        if (best >= 0)
            first[best] += 1;
        for (int e = 0; e < n; e++) {
            mass[e] += (double)w[e];
            chosen[e] += active[e];
            sum += (double)w[e];
        }
    }
    for (int e = 0; e < n; e++) {
        mass[e] /= sum;
        chosen[e] /= rows;
        first[e] /= rows;
    }
}

/* --- rows --------------------------------------------------------------------------------------
 */

static void decide(int n, const float *w, double sum, struct moe_decision *d) {
    double most = 0, second = 0;
    for (int e = 0; e < n; e++) {
        double p = (double)w[e] / sum;
        d->entropy -= p > 0 ? p * log(p) : 0;
        if (p > most) {
            second = most;
            most = p;
        } else if (p > second)
            second = p;
    }
    d->top += most;
    d->margin += most - second;
}

/* The least number of experts that at least `share` of the rows do not exceed. */
static int count_at(int n, const int *rows_with, int rows, double share) {
    int seen = 0;
    for (int k = 0; k <= n; k++) {
        seen += rows_with[k];
        if (seen >= share * rows)
            return k;
    }
    return n;
}

struct moe_decision moe_usage_decision(int rows, int n, const float *w, const uint8_t *active) {
    struct moe_decision d = {0};
    int *rows_with = HEAP_ARRAY(int, n + 1);
    int used = 0;
    memset(rows_with, 0, ((size_t)n + 1) * sizeof *rows_with);
    for (int r = 0; r < rows; r++, w += n, active += n) {
        double sum = row_sum(n, w);
        int k = 0;
        for (int e = 0; e < n; e++)
            k += active[e];
        rows_with[k]++;
        d.active += k;
        if (!(sum > 0))
            continue;
        decide(n, w, sum, &d);
        used++;
    }
    d.entropy /= used;
    d.top /= used;
    d.margin /= used;
    d.effective = exp(d.entropy);
    d.active /= rows;
    d.zero_rows = 1 - (double)used / rows;
    d.active_p50 = count_at(n, rows_with, rows, 0.5);
    d.active_p95 = count_at(n, rows_with, rows, 0.95);
    d.active_p99 = count_at(n, rows_with, rows, 0.99);
    heap_free(rows_with);
    return d;
}

void moe_usage_coactive(int rows, int n, const uint8_t *active, double *out) {
    for (int i = 0; i < n * n; i++)
        out[i] = 0;
    for (int r = 0; r < rows; r++, active += n)
        for (int i = 0; i < n; i++)
            for (int k = 0; active[i] && k < n; k++)
                out[i * n + k] += active[k];
    for (int i = 0; i < n; i++) {
        double rows_of = out[i * n + i];
        for (int k = 0; k < n; k++)
            out[i * n + k] = rows_of > 0 ? out[i * n + k] / rows_of : (double)NAN;
    }
}

struct moe_moves moe_usage_moves(int rows, int n, const float *wa, const uint8_t *a,
                                 const float *wb, const uint8_t *b) {
    struct moe_moves m = {0};
    int64_t flips = 0, changed = 0;
    int used = 0;
    for (int r = 0; r < rows; r++, a += n, b += n, wa += n, wb += n) {
        int both = 0, last = 0;
        for (int e = 0; e < n; e++) {
            flips += a[e] != b[e];
            both += a[e] && b[e];
            last += b[e];
        }
        changed += greatest(n, wa) != greatest(n, wb);
        if (last) {
            m.saturation += (double)both / last;
            used++;
        }
    }
    m.saturation /= used;
    m.flip_rate = (double)flips / ((double)rows * n);
    m.flips_a_row = (double)flips / rows;
    m.first_change = (double)changed / rows;
    return m;
}

/* --- segments -----------------------------------------------------------------------------------
 */

void moe_usage_joint(int rows, int n, const float *w, const int *segment, int segments,
                     double *joint) {
    for (int r = 0; r < rows; r++)
        for (int e = 0; segment[r] >= 0 && segment[r] < segments && e < n; e++)
            joint[(size_t)segment[r] * (size_t)n + (size_t)e] +=
                (double)w[(size_t)r * (size_t)n + (size_t)e];
}

double moe_usage_information(int segments, int n, const double *joint, double *share) {
    double sum = 0, bits = 0, entropy = 0;
    double *by_expert = HEAP_ARRAY(double, n), *by_segment = HEAP_ARRAY(double, segments);
    for (int e = 0; e < n; e++)
        by_expert[e] = 0;
    for (int s = 0; s < segments; s++) {
        by_segment[s] = 0;
        for (int e = 0; e < n; e++) {
            by_segment[s] += joint[s * n + e];
            by_expert[e] += joint[s * n + e];
        }
        sum += by_segment[s];
    }
    for (int s = 0; s < segments; s++) {
        double p = by_segment[s] / sum;
        entropy -= p > 0 ? p * log2(p) : 0;
        for (int e = 0; e < n; e++) {
            double both = joint[s * n + e];
            bits += both > 0 ? both / sum * log2(both * sum / (by_segment[s] * by_expert[e])) : 0;
        }
    }
    heap_free(by_segment);
    heap_free(by_expert);
    *share = entropy > 0 ? bits / entropy : (double)NAN;
    return sum > 0 ? fmax(bits, 0) : (double)NAN;
}

/* --- outputs ------------------------------------------------------------------------------------
 */

static double *centred(int rows, int d, const float *x) {
    double *y = HEAP_ARRAY(double, (size_t)rows *(size_t)d);
    for (int i = 0; i < d; i++) {
        double mean = 0;
        for (int r = 0; r < rows; r++)
            mean += (double)x[(size_t)r * (size_t)d + (size_t)i];
        mean /= rows;
        for (int r = 0; r < rows; r++)
            y[(size_t)r * (size_t)d + (size_t)i] =
                (double)x[(size_t)r * (size_t)d + (size_t)i] - mean;
    }
    return y;
}
/* |x' y|_F^2 */
static double cross_norm(int rows, int d, const double *x, const double *y) {
    double *c = HEAP_ARRAY(double, (size_t)d *(size_t)d), sum = 0;
    memset(c, 0, (size_t)d * (size_t)d * sizeof *c);
    for (int r = 0; r < rows; r++, x += d, y += d)
        for (int i = 0; i < d; i++)
            for (int k = 0; x[i] != 0 && k < d; k++)
                c[i * d + k] += x[i] * y[k];
    for (int i = 0; i < d * d; i++)
        sum += c[i] * c[i];
    heap_free(c);
    return sum;
}

double moe_cka(int rows, int d, const float *x, const float *y) {
    double *a = centred(rows, d, x), *b = centred(rows, d, y);
    double aa = cross_norm(rows, d, a, a), bb = cross_norm(rows, d, b, b);
    double ab = cross_norm(rows, d, a, b);
    heap_free(a);
    heap_free(b);
    return aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : (double)NAN;
}

double moe_cosine(int64_t n, const float *x, const float *y) {
    double xx = 0, yy = 0, xy = 0;
    for (int64_t i = 0; i < n; i++) {
        xx += (double)x[i] * (double)x[i];
        yy += (double)y[i] * (double)y[i];
        xy += (double)x[i] * (double)y[i];
    }
    return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : (double)NAN;
}

double moe_mean_cosine(int rows, int d, const float *x, const float *y) {
    double sum = 0;
    int used = 0;
    for (int r = 0; r < rows; r++) {
        double c = moe_cosine(d, x + (size_t)r * (size_t)d, y + (size_t)r * (size_t)d);
        sum += isnan(c) ? 0 : c;
        used += !isnan(c);
    }
    return used ? sum / used : (double)NAN;
}

/* --- one expert less -----------------------------------------------------------------------------
 */

struct scored {
    float score;
    int row;
};
static int by_score(const void *a, const void *b) {
    float x = ((const struct scored *)a)->score, y = ((const struct scored *)b)->score;
    return (x > y) - (x < y);
}

/* place [n]: of a positive the share of negatives below it, of a negative the share of positives
 * above it, ties half. Returns the AUC. */
static double placements(const float *score, const float *label, const int *row, int n,
                         int positives, double *place) {
    struct scored *s = HEAP_ARRAY(struct scored, n);
    int negatives = n - positives, above = positives, below = 0;
    double sum = 0;
    for (int i = 0; i < n; i++)
        s[i] = (struct scored){score[row[i]], i};
    qsort(s, (size_t)n, sizeof *s, by_score);
    for (int from = 0, to; from < n; from = to) {
        int good = 0;
        for (to = from; to < n && s[to].score == s[from].score; to++)
            good += label[row[s[to].row]] > 0.5f;
        int bad = to - from - good;
        above -= good;
        for (int i = from; i < to; i++) {
            bool is = label[row[s[i].row]] > 0.5f;
            place[s[i].row] =
                is ? (below + 0.5 * bad) / negatives : (above + 0.5 * good) / positives;
            sum += is ? place[s[i].row] : 0;
        }
        below += bad;
    }
    heap_free(s);
    return sum / positives;
}

struct moe_auc_change moe_auc_compare(const float *a, const float *b, const float *labels, int n) {
    struct moe_auc_change c = {(double)NAN, (double)NAN, (double)NAN};
    int *row = HEAP_ARRAY(int, n + 1), known = 0, positives = 0;
    double *pa = HEAP_ARRAY(double, n + 1), *pb = HEAP_ARRAY(double, n + 1);
    for (int i = 0; i < n; i++)
        if (!isnan(labels[i])) {
            positives += labels[i] > 0.5f;
            row[known++] = i;
        }
    if (positives > 1 && known - positives > 1) {
        double sum[2] = {0}, squares[2] = {0}, variance = 0;
        c.auc = placements(a, labels, row, known, positives, pa);
        c.change = placements(b, labels, row, known, positives, pb) - c.auc;
        for (int i = 0; i < known; i++) {
            double d = pb[i] - pa[i];
            int k = labels[row[i]] > 0.5f;
            sum[k] += d;
            squares[k] += d * d;
        }
        for (int k = 0; k < 2; k++) {
            double m = k ? positives : known - positives;
            variance += (squares[k] - sum[k] * sum[k] / m) / (m - 1) / m;
        }
        c.error = sqrt(fmax(variance, 0));
    }
    heap_free(row);
    heap_free(pa);
    heap_free(pb);
    return c;
}

/* --- HoME's failures -----------------------------------------------------------------------------
 */

double moe_zero_share(int64_t n, const float *y) {
    int64_t zeros = 0;
    for (int64_t i = 0; i < n; i++)
        zeros += y[i] == 0;
    return n ? (double)zeros / (double)n : (double)NAN;
}

double moe_largest_share(int n, const double *mass, int *largest) {
    double sum = 0;
    *largest = 0;
    for (int t = 0; t < n; t++) {
        sum += mass[t];
        *largest = mass[t] > mass[*largest] ? t : *largest;
    }
    return sum > 0 ? mass[*largest] / sum : (double)NAN;
}
