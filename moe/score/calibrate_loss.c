/* calibrate_loss.c: what a precision costs: differences of scores, overlap of the top, AUC. Slates
 * are made of the examples' queries and candidates at random, since examples may be single rows. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/heap.h"
#include "base/rng.h"
#include "moe/score/calibrate_impl.h"
#include "moe/report/eval.h"
#include "moe/score/scorer_path.h"

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

/* One way to score, whatever MOERANK_SCORER says. */
struct loss_side {
    const struct moe_scorer_path_ops *ops;
    void *state, *scratch;
};

static enum status side_init(struct loss_side *s, const struct moe_scorer_path_ops *ops,
                             const struct moe_model *m, const struct moe_scorer_conf *conf) {
    TRY(ops->open(m, conf, &s->state));
    s->ops = ops;
    s->scratch = heap_alloc_aligned(ops->scratch_bytes(s->state));
    return STATUS_OK;
}

static void side_deinit(struct loss_side *s) {
    s->ops->close(s->state);
    heap_free(s->scratch);
}

static void side_score(const struct loss_side *s, const struct moe_batch *b, float *out) {
    s->ops->score(s->state, b, s->scratch, out);
}

struct compared {
    struct loss_side fp32, other;
    const struct moe_model *m;
    struct calibrate_slates *slates;
};

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

static void compare_slates(const struct compared *c, struct moe_loss_report *out) {
    struct calibrate_slates *slates = c->slates;
    const int tasks = c->m->n_tasks, rows = slates->rows;
    float *a = HEAP_ARRAY(float, rows *tasks), *b = HEAP_ARRAY(float, tasks *rows);
    for (int i = 0; i < slates->conf->requests; i++) {
        struct moe_batch batch = moe_calibrate_slate(slates, i, rows);
        side_score(&c->fp32, &batch, a);
        side_score(&c->other, &batch, b);
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
static float *score_examples(const struct compared *c, const struct loss_side *s) {
    const struct moe_examples *x = c->slates->x;
    const size_t n = (size_t)x->n_rows;
    const int tasks = c->m->n_tasks, most = c->slates->rows;
    float *out = HEAP_ARRAY(float, n *(size_t)tasks), *scores = HEAP_ARRAY(float, tasks *most);
    for (int g = 0; g < x->n_groups; g++) {
        struct moe_batch all, b;
        const int first = moe_examples_view(x, g, 1, &all);
        for (int from = 0; from < all.n_rows; from += b.n_rows) {
            b = all;
            b.n_rows = all.n_rows - from < most ? all.n_rows - from : most;
            b.cand += (size_t)from * (size_t)x->inputs.cand_columns;
            b.cand_ids += (size_t)from * (size_t)x->inputs.cand_slots;
            side_score(s, &b, scores);
            for (int t = 0; t < tasks; t++)
                memcpy(out + (size_t)t * n + (size_t)(first + from), scores + t * b.n_rows,
                       (size_t)b.n_rows * sizeof *out);
        }
    }
    heap_free(scores);
    return out;
}

static void compare_aucs(const struct compared *c, struct moe_loss_report *out) {
    const struct moe_examples *x = c->slates->x;
    float *labels = HEAP_ARRAY(float, x->n_rows);
    float *a = score_examples(c, &c->fp32), *b = score_examples(c, &c->other);
    const size_t n = (size_t)x->n_rows;
    for (int t = 0; t < c->m->n_tasks; t++) {
        for (size_t i = 0; i < n; i++)
            labels[i] = t < x->n_tasks ? x->labels[i * (size_t)x->n_tasks + (size_t)t] : NAN;
        out->auc_fp32[t] = moe_auc(a + (size_t)t * n, labels, x->n_rows);
        out->auc[t] = moe_auc(b + (size_t)t * n, labels, x->n_rows);
    }
    heap_free(labels);
    heap_free(a);
    heap_free(b);
}

static enum status measure(struct compared *c, const struct moe_loss_form *form, struct arena *a,
                           struct moe_loss_report *out) {
    const struct moe_scorer_conf conf = {form->precision, c->slates->rows, form->cache_bytes};
    TRY(side_init(&c->other, &moe_scorer_path_packed, c->m, &conf));
    enum status status = STATUS_OK;
    if (form->cache_bytes && !c->other.ops->cache(c->other.state))
        status = fail(STATUS_UNIMPLEMENTED, "the model's shape has no item cache");
    *out = (struct moe_loss_report){.auc_fp32 = ARENA_ARRAY(a, double, c->m->n_tasks),
                                    .auc = ARENA_ARRAY(a, double, c->m->n_tasks)};
    if (status == STATUS_OK) {
        compare_slates(c, out);
        compare_aucs(c, out);
    }
    side_deinit(&c->other);
    return status;
}

enum status moe_measure_loss(const struct moe_model *m, const struct moe_loss_form *form,
                             const struct moe_examples *x, const struct moe_calibrate_conf *conf,
                             struct arena *a, struct moe_loss_report *out) {
    struct calibrate_slates slates;
    struct compared c = {.m = m, .slates = &slates};
    const struct moe_scorer_conf exact = {MOE_FP32, conf->rows, 0};
    if (x->n_rows == 0 || x->n_groups == 0)
        return fail(STATUS_FAILED_PRECONDITION, "there are no examples to measure with");
    TRY(side_init(&c.fp32, &moe_scorer_path_reference, m, &exact));
    moe_calibrate_slates_init(&slates, x, conf);
    enum status status = measure(&c, form, a, out);
    moe_calibrate_slates_deinit(&slates);
    side_deinit(&c.fp32);
    return status;
}

enum status moe_check_loss(const struct moe_model *m, const char *form,
                           const struct moe_calibrate_conf *conf, const struct moe_loss_report *l) {
    if (conf->score_max > 0 && !(l->score_max <= conf->score_max))
        return fail(STATUS_FAILED_PRECONDITION,
                    "%s: some score is %.2g off, more than the %.2g allowed", form, l->score_max,
                    conf->score_max);
    if (!(l->top_overlap >= conf->overlap_min))
        return fail(STATUS_FAILED_PRECONDITION,
                    "%s keeps %.2f %% of the top %d, less than the %.2f %% asked for", form,
                    100 * l->top_overlap, conf->top, 100 * conf->overlap_min);
    for (int t = 0; t < m->n_tasks; t++)
        if (l->auc_fp32[t] - l->auc[t] > conf->auc_loss_max) /* NaN: no labels, no verdict */
            return fail(STATUS_FAILED_PRECONDITION,
                        "%s loses %.5f of task '%s''s AUC, more than the %.5f allowed", form,
                        l->auc_fp32[t] - l->auc[t], m->tasks[t], conf->auc_loss_max);
    return STATUS_OK;
}
