/* calibrate_loss.c: what a precision costs: differences of scores, overlap of the top, AUC. Slates
 * are made of the examples' queries and candidates at random, since examples may be single rows. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/heap.h"
#include "base/rng.h"
#include "moe/calibrate_impl.h"
#include "moe/eval.h"

void moe_calibrate_slates_init(struct calibrate_slates *s, const struct moe_examples *x,
                               const struct moe_calibrate_conf *conf) {
    *s = (struct calibrate_slates){.x = x, .conf = conf, .rows = conf->rows};
    s->cand = HEAP_ARRAY(float, s->rows * x->inputs.cand_columns + 1);
    s->cand_ids = HEAP_ARRAY(uint32_t, s->rows * x->inputs.cand_slots + 1);
}

void moe_calibrate_slates_deinit(struct calibrate_slates *s) {
    heap_free(s->cand);
    heap_free(s->cand_ids);
}

struct moe_batch moe_calibrate_slate(struct calibrate_slates *s, int i, int rows) {
    const struct moe_inputs *in = &s->x->inputs;
    struct rng r;
    rng_init(&r, (uint64_t)i);
    const size_t g = (size_t)i * (size_t)s->x->n_groups / (size_t)s->conf->requests;
    const size_t columns = (size_t)in->cand_columns, slots = (size_t)in->cand_slots;
    for (int k = 0; k < rows; k++) {
        size_t row = rng_below(&r, (uint32_t)s->x->n_rows), to = (size_t)k;
        if (columns)
            memcpy(s->cand + to * columns, s->x->cand + row * columns, columns * sizeof(float));
        if (slots)
            memcpy(s->cand_ids + to * slots, s->x->cand_ids + row * slots,
                   slots * sizeof(uint32_t));
    }
    return (struct moe_batch){.n_groups = 1,
                              .n_rows = rows,
                              .query = s->x->query + g * (size_t)in->query_columns,
                              .query_ids = s->x->query_ids + g * (size_t)in->query_slots,
                              .cand = s->cand,
                              .cand_ids = s->cand_ids};
}

enum status moe_calibrate_side_init(struct calibrate_side *s, const struct moe_model *m,
                                    enum moe_precision precision, int rows_max,
                                    const float *units) {
    TRY(moe_packed_new(m, moe_cpu(), precision, rows_max, units, &s->p));
    s->scratch = heap_alloc_aligned(s->p->scratch_bytes);
    return STATUS_OK;
}

void moe_calibrate_side_deinit(struct calibrate_side *s) {
    moe_packed_free(s->p);
    heap_free(s->scratch);
}

struct ranked {
    float score;
    int row;
};
static int by_score(const void *a, const void *b) {
    const struct ranked *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score) - (x->score > y->score)
                                : (x->row > y->row) - (x->row < y->row);
}

/* Share of the best `top` by `a` that are among the best `top` by `b`. */
static double overlap(const float *a, const float *b, int n, int top) {
    struct ranked *p = HEAP_ARRAY(struct ranked, n), *q = HEAP_ARRAY(struct ranked, n);
    char *in = HEAP_ARRAY(char, n);
    int both = 0;
    top = top < n ? top : n;
    for (int i = 0; i < n; i++) {
        p[i] = (struct ranked){a[i], i};
        q[i] = (struct ranked){b[i], i};
    }
    qsort(p, (size_t)n, sizeof *p, by_score);
    qsort(q, (size_t)n, sizeof *q, by_score);
    for (int i = 0; i < top; i++)
        in[p[i].row] = 1;
    for (int i = 0; i < top; i++)
        both += in[q[i].row];
    heap_free(p);
    heap_free(q);
    heap_free(in);
    return (double)both / top;
}

static void compare_slates(struct calibrate_side *fp32, struct calibrate_side *other,
                           struct calibrate_slates *slates, struct moe_loss_report *out) {
    const int tasks = fp32->p->m->n_tasks, rows = slates->rows;
    float *a = HEAP_ARRAY(float, rows *tasks), *b = HEAP_ARRAY(float, tasks *rows);
    for (int i = 0; i < slates->conf->requests; i++) {
        struct moe_batch batch = moe_calibrate_slate(slates, i, rows);
        moe_packed_score(fp32->p, &batch, fp32->scratch, a, NULL);
        moe_packed_score(other->p, &batch, other->scratch, b, NULL);
        for (int k = 0; k < tasks * rows; k++) {
            double d = fabs((double)a[k] - (double)b[k]);
            out->score_max = d > out->score_max || isnan(d) ? d : out->score_max;
            out->score_mean += d;
        }
        for (int t = 0; t < tasks; t++)
            out->top_overlap += overlap(a + t * rows, b + t * rows, rows, slates->conf->top);
        out->requests++;
        out->rows += rows;
    }
    out->score_mean /= (double)out->rows * tasks;
    out->top_overlap /= (double)out->requests * tasks;
    heap_free(a);
    heap_free(b);
}

/* Scores of all examples, each group as its own request: [tasks][n_rows] */
static float *score_examples(struct calibrate_side *s, const struct moe_examples *x) {
    const size_t n = (size_t)x->n_rows;
    const int tasks = s->p->m->n_tasks, most = s->p->rows_max;
    float *out = HEAP_ARRAY(float, n *(size_t)tasks), *scores = HEAP_ARRAY(float, tasks *most);
    for (int g = 0; g < x->n_groups; g++) {
        struct moe_batch all, b;
        const int first = moe_examples_view(x, g, 1, &all);
        for (int from = 0; from < all.n_rows; from += b.n_rows) {
            b = all;
            b.n_rows = all.n_rows - from < most ? all.n_rows - from : most;
            b.cand += (size_t)from * (size_t)x->inputs.cand_columns;
            b.cand_ids += (size_t)from * (size_t)x->inputs.cand_slots;
            moe_packed_score(s->p, &b, s->scratch, scores, NULL);
            for (int t = 0; t < tasks; t++)
                memcpy(out + (size_t)t * n + (size_t)(first + from), scores + t * b.n_rows,
                       (size_t)b.n_rows * sizeof *out);
        }
    }
    heap_free(scores);
    return out;
}

static void compare_aucs(struct calibrate_side *fp32, struct calibrate_side *other,
                         const struct moe_examples *x, struct moe_loss_report *out) {
    float *labels = HEAP_ARRAY(float, x->n_rows);
    float *a = score_examples(fp32, x), *b = score_examples(other, x);
    const size_t n = (size_t)x->n_rows;
    for (int t = 0; t < fp32->p->m->n_tasks; t++) {
        for (size_t i = 0; i < n; i++)
            labels[i] = t < x->n_tasks ? x->labels[i * (size_t)x->n_tasks + (size_t)t] : NAN;
        out->auc_fp32[t] = moe_auc(a + (size_t)t * n, labels, x->n_rows);
        out->auc[t] = moe_auc(b + (size_t)t * n, labels, x->n_rows);
    }
    heap_free(labels);
    heap_free(a);
    heap_free(b);
}

void moe_calibrate_losses(struct calibrate_side *fp32, struct calibrate_side *other,
                          struct calibrate_slates *slates, struct arena *a,
                          struct moe_loss_report *out) {
    *out = (struct moe_loss_report){0};
    out->auc_fp32 = ARENA_ARRAY(a, double, fp32->p->m->n_tasks);
    out->auc = ARENA_ARRAY(a, double, fp32->p->m->n_tasks);
    compare_slates(fp32, other, slates, out);
    compare_aucs(fp32, other, slates->x, out);
}

static enum status measure(const struct moe_model *m, enum moe_precision precision,
                           struct calibrate_slates *slates, struct calibrate_side *fp32,
                           struct arena *a, struct moe_loss_report *out) {
    struct calibrate_side other;
    const float *units = NULL;
    if (precision == MOE_INT8)
        TRY(moe_calibrate_units(m, a, &units));
    TRY(moe_calibrate_side_init(&other, m, precision, slates->rows, units));
    moe_calibrate_losses(fp32, &other, slates, a, out);
    moe_calibrate_side_deinit(&other);
    return STATUS_OK;
}

enum status moe_measure_loss(const struct moe_model *m, enum moe_precision precision,
                             const struct moe_examples *x, const struct moe_calibrate_conf *conf,
                             struct arena *a, struct moe_loss_report *out) {
    struct calibrate_slates slates;
    struct calibrate_side fp32;
    if (x->n_rows == 0 || x->n_groups == 0)
        return fail(STATUS_FAILED_PRECONDITION, "there are no examples to measure with");
    TRY(moe_calibrate_side_init(&fp32, m, MOE_FP32, conf->rows, NULL));
    moe_calibrate_slates_init(&slates, x, conf);
    enum status status = measure(m, precision, &slates, &fp32, a, out);
    moe_calibrate_slates_deinit(&slates);
    moe_calibrate_side_deinit(&fp32);
    return status;
}
