/* encode.c: fits and applies the encoders of plain numbers. Piecewise-linear encoding: Gorishniy et
 * al., "On Embeddings for Numerical Features" (2022). Everything is a function of one column; no
 * target-aware bins. */
#include "moe/encode.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/heap.h"
#include "moe/math/vec.h"

static float signed_log(float x) { return x < 0 ? -log1pf(-x) : log1pf(x); }

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* mean and 1 / sd; scale 0 for a constant column */
static void moments(const float *v, int n, int use_log, float *mean, float *scale) {
    double sum = 0, squares = 0;
    for (int i = 0; i < n; i++)
        sum += use_log ? signed_log(v[i]) : v[i];
    double m = n ? sum / n : 0;
    for (int i = 0; i < n; i++) {
        double d = (use_log ? signed_log(v[i]) : v[i]) - m;
        squares += d * d;
    }
    double sd = n ? sqrt(squares / n) : 0;
    *mean = (float)m;
    *scale = sd > 1e-12 * (1 + fabs(m)) ? (float)(1 / sd) : 0;
}

/* Adds to edges[*n] the quantiles of sorted v, at most `want` of them. */
static void add_quantiles(const float *v, int count, int want, float *edges, int *n) {
    for (int i = 1; i <= want && count; i++)
        edges[(*n)++] = v[(size_t)((double)count * i / (want + 1))];
}

/* Drops the commonest value from sorted v; returns what is left. */
static int without_mode(const float *v, int n, float *out) {
    int best = 0, best_n = 0, kept = 0;
    for (int i = 0, j; i < n; i = j) {
        for (j = i; j < n && v[j] == v[i]; j++)
            ;
        if (j - i > best_n) {
            best_n = j - i;
            best = i;
        }
    }
    for (int i = 0; i < n; i++)
        if (v[i] != v[best])
            out[kept++] = v[i];
    return kept;
}

/* Edges of at most `bins` bins: half from all values, half from those other than the commonest
 * when that one has more than a bin's share. Ascending, distinct, above the least value. */
static void fit_edges(struct moe_encode_column *c, float *v, int n, int bins, float *scratch) {
    float edges[2 * MOE_ENC_BINS_MAX];
    int k = 0, kept = without_mode(v, n, scratch);
    bool lumpy = n - kept > n / bins;
    add_quantiles(v, n, lumpy ? (bins - 1) / 2 : bins - 1, edges, &k);
    if (lumpy)
        add_quantiles(scratch, kept, bins - 1 - (bins - 1) / 2, edges, &k);
    qsort(edges, (size_t)k, sizeof *edges, ascending);
    int m = 0;
    for (int i = 0; i < k; i++)
        if (edges[i] > v[0] && (m == 0 || edges[i] > c->edges[m - 1]))
            c->edges[m++] = edges[i];
    c->n_edges = (float)m;
    c->low = v[0];
    c->high = v[n - 1];
}

void moe_encode_fit(struct moe_encode *e, unsigned kinds, float clip, int bins, const float *rows,
                    int n, int columns) {
    *e = (struct moe_encode){.kinds = kinds, .clip = clip, .columns = columns};
    e->column = HEAP_ARRAY(struct moe_encode_column, columns + 1);
    float *v = HEAP_ARRAY(float, n + 1), *scratch = HEAP_ARRAY(float, n + 1);
    for (int c = 0; c < columns; c++) {
        struct moe_encode_column *col = &e->column[c];
        int k = 0;
        for (int i = 0; i < n; i++) {
            float x = rows[(size_t)i * (size_t)columns + (size_t)c];
            if (isfinite(x))
                v[k++] = x;
        }
        col->missing = k < n;
        moments(v, k, 0, &col->mean, &col->scale);
        moments(v, k, 1, &col->log_mean, &col->log_scale);
        if ((kinds & (MOE_ENC_QUANTILE | MOE_ENC_PLE)) && k) {
            qsort(v, (size_t)k, sizeof *v, ascending);
            fit_edges(col, v, k, bins, scratch);
        }
    }
    heap_free(v);
    heap_free(scratch);
    moe_encode_place(e);
}

/* One ple output: 0 up to `from`, 1 from `to` on. One without width is a step. */
static void set_step(struct moe_encode *e, int i, int column, float from, float to) {
    if (!(to > from)) {
        to = from;
        from = nextafterf(from, -INFINITY);
    }
    const float span = to - from;
    e->step_column[i] = column;
    e->step_from[i] = from;
    e->step_span[i] = span < FLT_MAX ? span : FLT_MAX;
}

/* A missing bit: as an output of ple it begins where no number is. */
static void set_missing(struct moe_encode *e, int i, int column) {
    e->step_column[i] = column;
    e->step_from[i] = FLT_MAX;
    e->step_span[i] = 1;
    e->step_absent[i] = 1;
}

static void lay_flat(struct moe_encode *e) {
    const int n = e->columns, steps_from = moe_encode_ple_from(e);
    e->n_steps = e->hot_from - steps_from;
    const size_t steps = (size_t)e->n_steps, columns = (size_t)n;
    heap_free(e->mean);
    e->mean = HEAP_ARRAY(float, 4 * columns + 3 * steps + 1);
    e->scale = e->mean + columns;
    e->log_mean = e->scale + columns;
    e->log_scale = e->log_mean + columns;
    e->step_from = e->log_scale + columns;
    e->step_span = e->step_from + steps;
    e->step_absent = e->step_span + steps;
    heap_free(e->step_column);
    e->step_column = HEAP_ARRAY(int, steps + 1);
    for (int c = 0; c < n; c++) {
        const struct moe_encode_column *col = &e->column[c];
        const int edges = (int)col->n_edges;
        e->mean[c] = col->mean;
        e->scale[c] = col->scale;
        e->log_mean[c] = col->log_mean;
        e->log_scale[c] = col->log_scale;
        for (int i = 0; e->at_ple[c] >= 0 && i <= edges; i++)
            set_step(e, e->at_ple[c] - steps_from + i, c, i > 0 ? col->edges[i - 1] : col->low,
                     i < edges ? col->edges[i] : col->high);
        if (e->at_missing[c] >= 0)
            set_missing(e, e->at_missing[c] - steps_from, c);
    }
}

void moe_encode_place(struct moe_encode *e) {
    int at = 0, n = e->columns;
    int **places[] = {&e->at_quantile, &e->at_ple, &e->at_missing};
    for (int k = 0; k < 3; k++) {
        heap_free(*places[k]);
        *places[k] = HEAP_ARRAY(int, n + 1);
    }
    at += e->kinds & MOE_ENC_VALUE ? n : 0;
    at += e->kinds & MOE_ENC_LOG ? n : 0;
    for (int c = 0; c < n; c++) {
        int bins = e->column[c].n_edges > 0 ? (int)e->column[c].n_edges + 1 : 0;
        e->at_ple[c] = e->kinds & MOE_ENC_PLE && bins ? at : -1;
        at += e->at_ple[c] >= 0 ? bins : 0;
        e->at_missing[c] = e->column[c].missing != 0 ? at++ : -1;
    }
    e->hot_from = at;
    e->n_hot = 0;
    for (int c = 0; c < n; c++) {
        int bins = e->column[c].n_edges > 0 ? (int)e->column[c].n_edges + 1 : 0;
        e->at_quantile[c] = e->kinds & MOE_ENC_QUANTILE && bins ? at : -1;
        at += e->at_quantile[c] >= 0 ? bins : 0;
        e->n_hot += e->at_quantile[c] >= 0;
    }
    e->width = at;
    lay_flat(e);
}

void moe_encode_deinit(struct moe_encode *e) {
    heap_free(e->column);
    heap_free(e->at_quantile);
    heap_free(e->at_ple);
    heap_free(e->at_missing);
    heap_free(e->mean);
    heap_free(e->step_column);
    *e = (struct moe_encode){0};
}

static float clipped(float x, float clip) { return x > clip ? clip : x < -clip ? -clip : x; }

static int bin_of(const struct moe_encode_column *c, float x) {
    int n = (int)c->n_edges, bin = 0;
    for (int i = 0; i < n; i++)
        bin += x >= c->edges[i];
    return bin;
}

/* How much of its bin lies below x. */
static float share_of(const struct moe_encode_column *c, float x, int bin) {
    int edges = (int)c->n_edges;
    float from = bin ? c->edges[bin - 1] : c->low, to = bin < edges ? c->edges[bin] : c->high;
    float share = to > from ? clipped((x - from) / (to - from), 1) : 1;
    return share < 0 ? 0 : share;
}

/* Standard scores: out[i] of x[i]. */
MOE_CLONES static void put_scores(int n, const float *restrict x, const float *restrict mean,
                                  const float *restrict scale, float clip, float *restrict out) {
    for (int i = 0; i < n; i++) {
        float y = (x[i] - mean[i]) * scale[i];
        y = y > clip ? clip : y < -clip ? -clip : y;
        out[i] = x[i] - x[i] == 0 ? y : 0; /* not of what is missing or infinite */
    }
}

/* ple and missing bits */
MOE_CLONES static void put_steps(int n, const float *restrict x, const int *restrict column,
                                 const float *restrict from, const float *restrict span,
                                 const float *restrict absent, float *restrict out) {
    for (int i = 0; i < n; i++) {
        const float v = x[column[i]];
        float share = (v - from[i]) / span[i];
        share = share < 1 ? share : 1;
        share = share > 0 ? share : 0;
        out[i] = v - v == 0 ? share : absent[i];
    }
}

/* value and log */
static void put_plain(const struct moe_encode *e, const float *x, float *out) {
    int n = e->columns, at = 0;
    if (e->kinds & MOE_ENC_VALUE) {
        put_scores(n, x, e->mean, e->scale, e->clip, out);
        at = n;
    }
    if (e->kinds & MOE_ENC_LOG)
        for (int c = 0; c < n; c++)
            out[at + c] =
                isfinite(x[c])
                    ? clipped((signed_log(x[c]) - e->log_mean[c]) * e->log_scale[c], e->clip)
                    : 0;
}

static void put_hot(const struct moe_encode *e, const float *x, float *out) {
    memset(out + e->hot_from, 0, (size_t)(e->width - e->hot_from) * sizeof *out);
    for (int c = 0; c < e->columns; c++)
        if (e->at_quantile[c] >= 0 && isfinite(x[c]))
            out[e->at_quantile[c] + bin_of(&e->column[c], x[c])] = 1;
}

static void put_row(const struct moe_encode *e, const float *x, float *out, bool hot) {
    put_plain(e, x, out);
    put_steps(e->n_steps, x, e->step_column, e->step_from, e->step_span, e->step_absent,
              out + moe_encode_ple_from(e));
    if (hot && e->n_hot > 0)
        put_hot(e, x, out);
}

void moe_encode_bins(const struct moe_encode *e, const float *row, int *bins) {
    for (int c = 0, k = 0; c < e->columns; c++)
        if (e->at_quantile[c] >= 0)
            bins[k++] = isfinite(row[c]) ? bin_of(&e->column[c], row[c]) : -1;
}

void moe_encode_rows(const struct moe_encode *e, const float *rows, int n, float *out, int ld) {
    for (int r = 0; r < n; r++)
        put_row(e, rows + (size_t)r * (size_t)e->columns, out + (size_t)r * (size_t)ld, true);
}

void moe_encode_rows_cold(const struct moe_encode *e, const float *rows, int n, float *out,
                          int ld) {
    for (int r = 0; r < n; r++)
        put_row(e, rows + (size_t)r * (size_t)e->columns, out + (size_t)r * (size_t)ld, false);
}

void moe_encode_rows_plain(const struct moe_encode *e, const float *rows, int n, float *out,
                           int ld) {
    for (int r = 0; r < n; r++)
        put_plain(e, rows + (size_t)r * (size_t)e->columns, out + (size_t)r * (size_t)ld);
}

int moe_encode_ple_from(const struct moe_encode *e) {
    return (e->kinds & MOE_ENC_VALUE ? e->columns : 0) + (e->kinds & MOE_ENC_LOG ? e->columns : 0);
}

int moe_encode_ple_columns(const struct moe_encode *e) {
    int k = 0;
    for (int c = 0; c < e->columns && e->kinds & MOE_ENC_PLE; c++)
        k += e->at_ple[c] >= 0 || e->at_missing[c] >= 0;
    return k;
}

bool moe_encode_ple(const struct moe_encode *e, const float *row, int c,
                    struct moe_encode_short *out) {
    const bool known = isfinite(row[c]), ple = e->at_ple[c] >= 0, bit = e->at_missing[c] >= 0;
    if (!(e->kinds & MOE_ENC_PLE) || (!ple && !bit))
        return false;
    *out = (struct moe_encode_short){.below = -1, .output = ple ? e->at_ple[c] : e->at_missing[c]};
    if (known && ple) {
        out->below = bin_of(&e->column[c], row[c]);
        out->output += out->below;
        out->share = share_of(&e->column[c], row[c], out->below);
    } else if (!known && bit) {
        out->output = e->at_missing[c];
        out->share = 1;
    }
    return true;
}
