/* calibrate.c: int8 units from observed activations, and losses against fp32.
 *
 * A column's clip is chosen by the histogram of |x|: the one whose rounding error (unit^2 / 12 for
 * each value inside) and clipping error (for each outside) together are least. Exact zeros, common
 * after ReLU, are always exact and left out. Units are then pulled half way, in logarithm, to the
 * largest of their layer: a unit is folded into the weights that read the column, and wide columns
 * would otherwise take the resolution of all weights of narrow ones (the same trade as
 * SmoothQuant's alpha, Xiao et al., 2023). Weights are not changed to make up for rounding. */
#include "moe/score/calibrate_impl.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"
#include "base/heap.h"

#define META_UNITS "int8.units"
#define BINS       128

const struct moe_calibrate_conf moe_calibrate_defaults = {
    .requests = 48, .rows = 500, .top = 50, .overlap_min = 0.98, .auc_loss_max = 0.002};

/* --- units -------------------------------------------------------------------------------------
 */

struct observed {
    size_t n;
    float *most;         /* [n] */
    unsigned *counts;    /* [n x BINS] of |x| / most; second pass only */
    unsigned char *zero; /* [n] */
};

static void see_most(void *to, size_t unit, const void *rows, size_t stride, int n, int columns,
                     const int *which) {
    (void)which;
    struct observed *o = to;
    for (int r = 0; r < n; r++) {
        const float *x = (const float *)(const void *)((const char *)rows + (size_t)r * stride);
        for (int c = 0; c < columns; c++)
            o->most[unit + (size_t)c] = fmaxf(o->most[unit + (size_t)c], fabsf(x[c]));
    }
}

static void see_counts(void *to, size_t unit, const void *rows, size_t stride, int n, int columns,
                       const int *which) {
    (void)which;
    struct observed *o = to;
    for (int r = 0; r < n; r++) {
        const float *x = (const float *)(const void *)((const char *)rows + (size_t)r * stride);
        for (int c = 0; c < columns; c++) {
            size_t at = unit + (size_t)c;
            int bin = x[c] != 0 ? (int)(fabsf(x[c]) / o->most[at] * BINS) : -1;
            if (bin >= 0)
                o->counts[at * BINS + (size_t)(bin < BINS ? bin : BINS - 1)]++;
        }
    }
}

/* The clip, as a share of the greatest value, that loses least with `steps` steps. */
static float best_clip(const unsigned *counts, int steps) {
    double best = INFINITY;
    int best_at = BINS;
    for (int at = BINS / 8; at <= BINS; at++) {
        double clip = (double)at / BINS, unit = clip / steps, loss = 0;
        for (int b = 0; b < BINS; b++) {
            double x = (b + 0.5) / BINS;
            loss += counts[b] * (b < at ? unit * unit / 12 : (x - clip) * (x - clip));
        }
        if (loss < best) {
            best = loss;
            best_at = at;
        }
    }
    return (float)best_at / BINS;
}

/* Units of the columns [from, from + n) of one buffer. */
static void choose_units(const struct observed *o, size_t from, int n, float *units) {
    float widest = 0;
    for (size_t i = from; i < from + (size_t)n; i++) {
        const int steps = o->zero[i] ? 127 : 255;
        units[i] = o->most[i] * best_clip(o->counts + i * BINS, steps) / (float)steps;
        widest = fmaxf(widest, units[i]);
    }
    if (!(widest > 0)) /* never active in any sample */
        widest = 1;
    for (size_t i = from; i < from + (size_t)n; i++)
        units[i] = sqrtf(widest * fmaxf(units[i], widest / 64));
}

/* Calls f for every buffer that has units. */
static void each_buffer(const struct moe_packed *p, void *to,
                        void (*f)(void *to, const char *name, size_t unit, int n, int zero)) {
    char name[64];
    if (p->m->part[MOE_QUERY])
        f(to, "query", 0, p->m->part[MOE_QUERY], 128);
    for (int l = 0; l < p->n_levels; l++) {
        const struct packed_level *level = &p->levels[l];
        for (int i = 0; i < level->n_sources; i++) {
            snprintf(name, sizeof name, "level%d.source%d", l, i);
            f(to, name, level->sources[i].unit_at, level->sources[i].columns,
              level->sources[i].zero);
        }
        for (int e = 0; e < level->n_experts; e++)
            for (int i = 1; i < level->experts[e].n_layers; i++) {
                const struct packed_layer *y = &level->experts[e].layers[i];
                snprintf(name, sizeof name, "level%d.expert%d.hidden%d", l, e, i - 1);
                f(to, name, y->unit_at, y->in, y->zero);
            }
    }
    for (int e = 0; e < p->levels[0].n_experts && p->halves.expert; e++) {
        snprintf(name, sizeof name, "level0.expert%d.half", e);
        f(to, name, p->halves.expert[e].unit_at, p->levels[0].experts[e].layers[0].out, 128);
    }
}

struct choosing {
    struct observed *o;
    float *units;
};
static void put_zero(void *to, const char *name, size_t unit, int n, int zero) {
    struct choosing *c = to;
    (void)name;
    memset(c->o->zero + unit, zero, (size_t)n);
}
static void put_units(void *to, const char *name, size_t unit, int n, int zero) {
    struct choosing *c = to;
    (void)name;
    (void)zero;
    choose_units(c->o, unit, n, c->units);
}

/* The query part: of as many groups as there are, since a request shows only one. */
static void observe_queries(struct calibrate_side *s, const struct moe_examples *x,
                            const struct packed_watch *watch) {
    enum { QUERIES = 4096 };
    const size_t columns = (size_t)s->p->m->part[MOE_QUERY];
    float *q = HEAP_ARRAY(float, columns + MOE_LANES);
    const int n = x->n_groups < QUERIES ? x->n_groups : QUERIES;
    for (int i = 0; i < n && columns; i++) {
        const size_t g = (size_t)i * (size_t)x->n_groups / (size_t)n;
        moe_packed_gather(s->p, MOE_QUERY, x->query + g * (size_t)x->inputs.query_columns,
                          x->query_ids + g * (size_t)x->inputs.query_slots, 1, q);
        watch->see(watch->to, 0, q, 0, 1, (int)columns, NULL);
    }
    heap_free(q);
}

static void observe(struct calibrate_side *s, struct calibrate_slates *slates, float *units) {
    struct observed o = {.n = moe_packed_units(s->p->m)};
    o.most = HEAP_ARRAY(float, o.n + 1);
    o.counts = HEAP_ARRAY(unsigned, BINS *o.n + 1);
    o.zero = HEAP_ARRAY(unsigned char, o.n + 1);
    float *out = HEAP_ARRAY(float, s->p->m->n_tasks * slates->rows);
    struct packed_watch watch = {.to = &o};
    for (int pass = 0; pass < 2; pass++) {
        watch.see = pass ? see_counts : see_most;
        observe_queries(s, slates->x, &watch);
        for (int i = 0; i < slates->conf->requests; i++) {
            struct moe_batch b = moe_calibrate_slate(slates, i, slates->rows);
            moe_packed_score(s->p, &b, s->scratch, out, &watch);
        }
    }
    struct choosing c = {&o, units};
    for (size_t i = 0; i < o.n; i++) /* halves of a model that keeps none */
        units[i] = 1;
    each_buffer(s->p, &c, put_zero);
    each_buffer(s->p, &c, put_units);
    heap_free(o.most);
    heap_free(o.counts);
    heap_free(o.zero);
    heap_free(out);
}

static void store_units(struct moe_model *m, const float *units, size_t n) {
    struct buf text = {0};
    char word[32];
    for (size_t i = 0; i < n; i++) {
        snprintf(word, sizeof word, i ? " %.6g" : "%.6g", (double)units[i]);
        buf_add_str(&text, word);
    }
    buf_add_byte(&text, 0);
    moe_model_meta_set(m, META_UNITS, text.p);
    buf_deinit(&text);
}

enum status moe_calibrate_units(const struct moe_model *m, struct arena *a, const float **out) {
    const char *text = moe_model_meta(m, META_UNITS);
    if (!text || !*text)
        return fail(STATUS_FAILED_PRECONDITION, "the model has no int8 units; calibrate it first");
    size_t n = moe_packed_units(m);
    float *units = ARENA_ARRAY(a, float, n + 1);
    for (size_t i = 0; i < n; i++) {
        char *end;
        units[i] = strtof(text, &end);
        if (end == text || !isfinite(units[i]) || !(units[i] > 0))
            return fail(STATUS_DATA_LOSS, "int8.units: number %zu of %zu is damaged", i, n);
        text = end;
    }
    if (text[strspn(text, " ")])
        return fail(STATUS_DATA_LOSS, "int8.units: more than the model's %zu numbers", n);
    *out = units;
    return STATUS_OK;
}

/* --- error by layer ----------------------------------------------------------------------------
 */

struct compared {
    size_t rows;
    const float *units;
    float *values;        /* [n x rows] the fp32 run's, buffer by buffer */
    double *error, *size; /* [n] squares, at a buffer's first unit */
    const unsigned char *zero;
};

static void keep_values(void *to, size_t unit, const void *rows, size_t stride, int n, int columns,
                        const int *which) {
    struct compared *c = to;
    float *out = c->values + unit * c->rows;
    for (int r = 0; r < n; r++)
        memcpy(out + (size_t)(which ? which[r] : r) * (size_t)columns,
               (const char *)rows + (size_t)r * stride, (size_t)columns * sizeof *out);
}

static void compare_values(void *to, size_t unit, const void *rows, size_t stride, int n,
                           int columns, const int *which) {
    struct compared *c = to;
    for (int r = 0; r < n; r++) {
        const size_t row = (size_t)(which ? which[r] : r);
        const float *want = c->values + unit * c->rows + row * (size_t)columns;
        if (isnan(*want)) /* fp32 sent the row elsewhere */
            continue;
        const unsigned char *got = (const unsigned char *)rows + (size_t)r * stride;
        for (int k = 0; k < columns; k++, want++) {
            size_t at = unit + (size_t)k;
            double d = (double)c->units[at] * (got[k] - c->zero[at]) - *want;
            c->error[unit] += d * d;
            c->size[unit] += (double)*want * *want;
        }
    }
}

struct listing {
    struct compared *c;
    struct arena *a;
    struct moe_calibration *out;
    unsigned char *zero;
};
static void count_layer(void *to, const char *name, size_t unit, int n, int zero) {
    struct listing *l = to;
    (void)name;
    l->out->n_layers++;
    memset(l->zero + unit, zero, (size_t)n);
}
static void put_layer(void *to, const char *name, size_t unit, int n, int zero) {
    struct listing *l = to;
    (void)n;
    (void)zero;
    double size = l->c->size[unit];
    if (!(size > 0)) /* not seen in int8 */
        return;
    l->out->layers[l->out->n_layers++] = (struct moe_layer_error){
        arena_strdup(l->a, slice_of(name)), sqrt(l->c->error[unit] / size)};
}

static void layer_errors(struct calibrate_side *fp32, struct calibrate_side *int8,
                         struct calibrate_slates *slates, const float *units, struct arena *a,
                         struct moe_calibration *out) {
    const size_t n = moe_packed_units(fp32->p->m);
    const int rows = slates->rows < fp32->p->block ? slates->rows : fp32->p->block;
    unsigned char *zero = ARENA_ARRAY(a, unsigned char, n + 1);
    struct compared c = {.rows = (size_t)rows,
                         .units = units,
                         .values = HEAP_ARRAY(float, (size_t)rows *n + 1),
                         .error = HEAP_ARRAY(double, n + 1),
                         .size = HEAP_ARRAY(double, n + 1),
                         .zero = zero};
    float *scores = HEAP_ARRAY(float, rows * fp32->p->m->n_tasks);
    struct listing l = {&c, a, out, zero};
    out->n_layers = 0;
    each_buffer(fp32->p, &l, count_layer);
    for (int i = 0; i < slates->conf->requests; i++) {
        struct moe_batch b = moe_calibrate_slate(slates, i, rows);
        for (size_t k = 0; k < (size_t)rows * n; k++)
            c.values[k] = NAN;
        moe_packed_score(fp32->p, &b, fp32->scratch, scores,
                         &(struct packed_watch){&c, keep_values, NULL});
        moe_packed_score(int8->p, &b, int8->scratch, scores,
                         &(struct packed_watch){&c, compare_values, NULL});
    }
    out->layers = ARENA_ARRAY(a, struct moe_layer_error, out->n_layers + 1);
    out->n_layers = 0;
    each_buffer(fp32->p, &l, put_layer);
    heap_free(c.values);
    heap_free(c.error);
    heap_free(c.size);
    heap_free(scores);
}

/* --- the whole ---------------------------------------------------------------------------------
 */

static enum status calibrate(struct calibrate_side *fp32, struct calibrate_slates *slates,
                             struct moe_model *m, float *units, struct arena *a,
                             struct moe_calibration *out) {
    const struct moe_calibrate_conf *conf = slates->conf;
    const struct moe_loss_form form = {MOE_INT8, 0};
    struct calibrate_side int8;
    observe(fp32, slates, units);
    TRY(moe_calibrate_side_init(&int8, m, MOE_INT8, slates->rows, units));
    layer_errors(fp32, &int8, slates, units, a, out);
    moe_calibrate_side_deinit(&int8);
    store_units(m, units, moe_packed_units(m));
    TRY(moe_measure_loss(m, &form, conf->judged ? conf->judged : slates->x, conf, a, &out->loss));
    return moe_check_loss(m, "int8", conf, &out->loss);
}

enum status moe_calibrate(struct moe_model *m, const struct moe_examples *x,
                          const struct moe_calibrate_conf *conf, struct arena *a,
                          struct moe_calibration *out) {
    struct calibrate_side fp32;
    struct calibrate_slates slates;
    const char *before = moe_model_meta(m, META_UNITS);
    before = before ? arena_strdup(a, slice_of(before)) : "";
    if (x->n_rows == 0 || x->n_groups == 0)
        return fail(STATUS_FAILED_PRECONDITION, "there are no examples to calibrate with");
    if (!moe_cpu_has(moe_cpu(), MOE_INT8))
        return fail(STATUS_UNIMPLEMENTED, "this CPU has no instructions for int8");
    moe_calibrate_slates_init(&slates, x, conf);
    enum status status = moe_calibrate_side_init(&fp32, m, MOE_FP32, slates.rows, NULL);
    if (status == STATUS_OK) {
        float *units = ARENA_ARRAY(a, float, moe_packed_units(m) + 1);
        status = calibrate(&fp32, &slates, m, units, a, out);
        moe_calibrate_side_deinit(&fp32);
        if (status != STATUS_OK)
            moe_model_meta_set(m, META_UNITS, before);
    }
    moe_calibrate_slates_deinit(&slates);
    return status;
}
