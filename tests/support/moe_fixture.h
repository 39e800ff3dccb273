/* moe_fixture.h: small models and batches for tests of moe, and a gradient check by central
 * differences. Header only, so that a test program stays one file. */
#pragma once
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/hash.h"
#include "base/heap.h"
#include "moe/train/loss.h"
#include "moe/data/examples.h"
#include "moe/model_impl.h"

#define FIX_GROUPS 6
#ifndef FIX_QUERY_SLOTS /* more than 1: "recent", a list of items, stands in the others */
#define FIX_QUERY_SLOTS 1
#endif
#define FIX_ROWS_MAX  64
#define FIX_TASKS_MAX 4

struct fixture {
    struct arena arena;
    struct moe_inputs inputs;
    struct moe_model *m;
    struct moe_batch batch;
    float query[FIX_GROUPS * 3], cand[FIX_ROWS_MAX * 4];
    uint32_t query_ids[FIX_GROUPS * FIX_QUERY_SLOTS], cand_ids[FIX_ROWS_MAX * 4];
    int group[FIX_ROWS_MAX];
    float labels[FIX_ROWS_MAX * FIX_TASKS_MAX], weight[FIX_ROWS_MAX];
    struct moe_run *run;
    float *memory, *g, *stats;
    struct moe_embed_grad embed[2];
    int fold; /* of the plan; set before fix_open */
};

static const char *const fix_query_names[] = {"age", "hour", "visits"};
static const char *const fix_cand_names[] = {"price", "clicks", "shown", "match"};
static const struct moe_id_input fix_ids[] = {{"city", 1, 0, 1, 0},
                                              {"item", 0, 0, 1, 1},
                                              {"tags", 0, 1, 3, 1},
                                              {"recent", 1, 1, FIX_QUERY_SLOTS - 1, 1}};
static const struct moe_table_spec fix_tables[] = {{"city", 9, 3}, {"item", 17, 4}};
static const char *const fix_tasks[] = {"click", "like", "buy", "share"};

static inline struct moe_inputs fix_inputs(void) {
    return (struct moe_inputs){.query_columns = 3,
                               .cand_columns = 4,
                               .query_names = fix_query_names,
                               .cand_names = fix_cand_names,
                               .query_slots = FIX_QUERY_SLOTS,
                               .cand_slots = 4,
                               .ids = fix_ids,
                               .n_ids = FIX_QUERY_SLOTS > 1 ? 4 : 3,
                               .tables = fix_tables,
                               .n_tables = 2};
}

/* n_rows rows in n_groups groups of uneven size; NaNs, missing ids and masked labels included. */
static inline void fix_batch(struct fixture *f, int n_groups, int n_rows, int n_tasks,
                             uint64_t seed) {
    struct rng r;
    rng_init(&r, seed);
    for (int i = 0; i < n_groups * 3; i++)
        f->query[i] = rng_below(&r, 12) ? (float)rng_normal(&r) : NAN;
    for (int i = 0; i < n_groups * FIX_QUERY_SLOTS; i++)
        f->query_ids[i] = rng_below(&r, 9);
    for (int i = 0; i < n_rows * 4; i++) {
        f->cand[i] = rng_below(&r, 12) ? (float)(10 + 3 * rng_normal(&r)) : NAN;
        f->cand_ids[i] = rng_below(&r, 20); /* beyond the table too */
    }
    for (int i = 0; i < n_rows; i++) {
        f->group[i] = i < n_groups ? i : (int)rng_below(&r, (uint32_t)n_groups);
        f->weight[i] = 0.5f + rng_float(&r);
    }
    for (int i = 1; i < n_rows; i++) /* ascending */
        for (int j = i; j > 0 && f->group[j] < f->group[j - 1]; j--) {
            int t = f->group[j];
            f->group[j] = f->group[j - 1];
            f->group[j - 1] = t;
        }
    for (int i = 0; i < n_rows * n_tasks; i++)
        f->labels[i] = rng_below(&r, 6) ? (float)rng_below(&r, 2) : NAN;
    f->batch = (struct moe_batch){.n_groups = n_groups,
                                  .n_rows = n_rows,
                                  .query = f->query,
                                  .query_ids = f->query_ids,
                                  .cand = f->cand,
                                  .cand_ids = f->cand_ids,
                                  .group = f->group};
}

/* Encoders fitted to the batch, a model from a JSON spec, drawn numbers, a run for training. */
static inline enum status fix_open(struct fixture *f, const char *spec_json, int n_tasks,
                                   uint64_t seed) {
    struct node *spec;
    struct moe_numbers_conf numbers;
    struct moe_encode encode[MOE_SIDES] = {0};
    unsigned kinds;
    arena_init(&f->arena, 0);
    TRY(node_parse_json(&f->arena, slice_of(spec_json), "spec", &spec));
    TRY(moe_spec_numbers(spec, "spec", &numbers, &f->arena));
    TRY(moe_spec_encodings(&numbers, "spec", &kinds));
    moe_encode_fit(&encode[0], kinds, (float)numbers.clip, (int)numbers.bins, f->query,
                   f->batch.n_groups, 3);
    moe_encode_fit(&encode[1], kinds, (float)numbers.clip, (int)numbers.bins, f->cand,
                   f->batch.n_rows, 4);
    f->inputs = fix_inputs();
    TRY(moe_model_build(spec, "spec", &f->inputs, fix_tasks, n_tasks, encode, 0, &f->m));
    moe_params_init(&f->m->params, seed);
    /* biases off zero, so that their gradients and kinks are seen */
    struct rng r;
    rng_init(&r, seed + 1);
    for (int t = 0; t < f->m->params.n; t++) {
        float *v = moe_params_at(&f->m->params, f->m->params.v, t, 0);
        size_t n = (size_t)f->m->params.t[t].copies * f->m->params.t[t].stride;
        for (size_t i = 0; i < n && f->m->params.t[t].region == MOE_DENSE; i++)
            if (v[i] == 0)
                v[i] = (float)(0.05 * rng_normal(&r));
    }
    for (int l = 0; l < f->m->n_levels; l++) /* running statistics off zero and one */
        for (int i = 0; i < f->m->levels[l].n_groups; i++) {
            int t = f->m->levels[l].groups[i].buffer;
            float *v = t < 0 ? NULL : moe_params_at(&f->m->params, f->m->params.v, t, 0);
            size_t n = t < 0 ? 0 : (size_t)f->m->params.t[t].copies * f->m->params.t[t].stride;
            for (size_t k = 0; k < n; k++)
                v[k] = v[k] == 0 ? (float)(0.3 * rng_normal(&r)) : 0.3f + 2 * rng_float(&r);
        }
    moe_model_stamp(f->m);
    struct moe_plan plan = {FIX_ROWS_MAX, FIX_GROUPS, true, .fold = f->fold};
    f->memory = heap_alloc_aligned(moe_run_floats(f->m, &plan) * sizeof(float));
    f->run = moe_run_bind(f->m, &plan, f->memory);
    f->g = heap_alloc_aligned((moe_params_floats(&f->m->params) + 1) * sizeof(float));
    f->stats = HEAP_ARRAY(float, f->m->n_stats + 1);
    for (int i = 0; i < 2; i++)
        moe_embed_grad_init(&f->embed[i], fix_tables[i].rows, fix_tables[i].dim);
    return STATUS_OK;
}

/* The fixture's rows as training has them, a slate after the other. weight [n_rows] or NULL. */
static inline struct moe_examples *fix_examples(const struct fixture *f, int n_rows, int n_tasks,
                                                const float *weight) {
    struct moe_examples *x = moe_examples_new(&f->inputs, n_tasks);
    for (int g = 0, from = 0, to; from < n_rows; g++, from = to) {
        for (to = from; to < n_rows && f->group[to] == f->group[from];)
            to++;
        struct moe_batch b = {.n_groups = 1,
                              .n_rows = to - from,
                              .query = f->query + g * 3,
                              .query_ids = f->query_ids + g,
                              .cand = f->cand + from * 4,
                              .cand_ids = f->cand_ids + from * 4};
        moe_examples_add(x, &b, f->labels + from * n_tasks, weight ? weight + from : NULL, g,
                         (uint64_t)g);
    }
    return x;
}

static inline void fix_close(struct fixture *f) {
    if (f->run) {
        for (int i = 0; i < 2; i++)
            moe_embed_grad_deinit(&f->embed[i]);
        heap_free(f->memory);
        heap_free(f->g);
        heap_free(f->stats);
    }
    moe_model_free(f->m);
    arena_deinit(&f->arena);
    memset(f, 0, sizeof *f);
}

/* Loss with auxiliary losses at values v; the rng starts anew each time, so noise repeats. */
static inline double fix_loss(struct fixture *f, const float *v, float dropout, bool backward) {
    struct rng rng;
    float scale[FIX_TASKS_MAX] = {0.05f, 0.03f, 0.04f, 0.02f};
    rng_init(&rng, 99);
    struct moe_pass pass = {.training = true,
                            .dropout = dropout,
                            .share = 1,
                            .progress = 0.5f,
                            .rng = &rng,
                            .batch = &f->batch};
    moe_forward(f->m, v, &f->batch, f->run, &pass, false);
    double loss = moe_loss_bce(f->batch.n_rows, f->m->n_tasks, f->run->logits, f->labels, f->weight,
                               scale, f->run->dlogits);
    if (backward) {
        struct moe_numbers n = {&f->m->params, v, f->g, f->stats};
        memset(f->g, 0, moe_params_floats(&f->m->params) * sizeof(float));
        memset(f->stats, 0, f->m->n_stats * sizeof(float));
        for (int i = 0; i < 2; i++)
            moe_embed_grad_clear(&f->embed[i]);
        moe_backward(f->m, &n, &f->batch, f->run, &pass, f->embed);
        for (int i = 0; i < 2; i++) /* sparse rows into the table's place */
            for (int k = 0; k < f->embed[i].n; k++)
                memcpy(moe_params_at(&f->m->params, f->g, f->m->table_tensor[i], 0) +
                           f->embed[i].row[k] * (size_t)f->embed[i].dim,
                       f->embed[i].g + (size_t)k * (size_t)f->embed[i].dim,
                       (size_t)f->embed[i].dim * sizeof(float));
    }
    return loss + pass.aux;
}

/* Which experts every row got and which it likes best, as a hash: between two points with the same
 * choices, top-k and the like are smooth; across a change they jump and differences mean nothing.
 */
static inline uint64_t fix_choices(const struct fixture *f) {
    uint64_t h = 1;
    for (int l = 0; l < f->m->n_levels; l++)
        for (int g = 0; g < f->m->levels[l].n_gates; g++) {
            const struct moe_route *r = &f->run->levels[l]->route[g];
            for (int i = 0; r->kind == MOE_ROUTE_WEIGHTS && i < r->n_rows; i++) {
                const float *w = r->w + i * r->n_experts;
                int best = 0;
                for (int e = 0; e < r->n_experts; e++) {
                    h = hash_mix(h, w[e] != 0);
                    best = w[e] > w[best] ? e : best;
                }
                h = hash_mix(h, (uint64_t)best);
            }
        }
    return h;
}

/* |analytic - central difference| along u at tensor `t`, or -1 when nothing can be said. A loss has
 * kinks that no route shows: a ReLU's, or the best of the experts that were not taken (GShard drops
 * the second at random, but the first's weight is renormalised by it). A kink within the step makes
 * the slopes ahead and behind differ by twice what it does to their mean; a wrong gradient does
 * not. So an error counts where the two agree better than that, else the step is halved, as it is
 * where choices change. The loss is near 1 and of single precision, so a difference of two is good
 * to about 1.5e-7. here: the loss at the point; near: what is no error. */
static inline double fix_direction_error(struct fixture *f, float dropout, double h, int t,
                                         const float *u, double want, double here, double near,
                                         uint64_t choices, float *v) {
    struct moe_params *p = &f->m->params;
    size_t at = p->t[t].at, size = (size_t)p->t[t].copies * p->t[t].stride;
    for (int tries = 0; tries < 6; tries++, h /= 2) {
        double loss[2];
        bool same = true;
        for (int side = 0; side < 2; side++) {
            memcpy(v, p->v, moe_params_floats(p) * sizeof(float));
            for (size_t i = 0; i < size; i++)
                v[at + i] = p->v[at + i] + (float)(side ? -h : h) * u[i];
            loss[side] = fix_loss(f, v, dropout, false);
            same &= fix_choices(f) == choices;
        }
        double off = fabs((loss[0] - loss[1]) / (2 * h) - want) - 1.5e-7 / h;
        double apart = fabs(loss[0] + loss[1] - 2 * here) / h;
        if (isnan(off))
            return INFINITY;
        if (same && (off < near || apart < off / 3))
            return off > 0 ? off : 0;
    }
    return -1;
}

/* Worst error over all tensors of the median of a few directional derivatives, as a share of the
 * tensor's gradient. Directions mix the gradient (signal) and noise (coverage); the median, since a
 * ReLU's kink may spoil one. */
#define FIX_DIRECTIONS 15
#define FIX_UNDECIDED  (-1.0) /* no direction without a change of choices, for some tensor */
static inline double fix_gradient_error(struct fixture *f, float dropout, double h,
                                        char *worst_name) {
    struct moe_params *p = &f->m->params;
    size_t n = moe_params_floats(p);
    float *v = heap_alloc_aligned((n + 1) * sizeof(float)),
          *g = heap_alloc_aligned((n + 1) * sizeof(float));
    float *u = heap_alloc_aligned((n + 1) * sizeof(float));
    double worst = 0;
    bool undecided = false;
    struct rng r;
    rng_init(&r, 5);
    double here = fix_loss(f, p->v, dropout, true);
    uint64_t choices = fix_choices(f);
    memcpy(g, f->g, n * sizeof(float));
    for (int t = 0; t < p->n; t++) {
        if (p->t[t].region == MOE_BUFFER)
            continue;
        size_t at = p->t[t].at, size = (size_t)p->t[t].copies * p->t[t].stride;
        double errors[FIX_DIRECTIONS], norm = 0;
        int got = 0;
        for (size_t i = 0; i < size; i++)
            norm += (double)g[at + i] * (double)g[at + i];
        norm = sqrt(norm);
        for (int k = 0; k < FIX_DIRECTIONS && got < 5; k++) {
            double length = 0, want = 0;
            for (size_t i = 0; i < size; i++) {
                u[i] = (float)(rng_normal(&r) / sqrt((double)size) +
                               (norm > 0 ? g[at + i] / norm : 0));
                length += (double)u[i] * (double)u[i];
            }
            for (size_t i = 0; i < size; i++) {
                u[i] /= (float)sqrt(length);
                want += (double)u[i] * (double)g[at + i];
            }
            double e = fix_direction_error(f, dropout, h, t, u, want, here, 1e-3 * (norm + 1e-3),
                                           choices, v);
            if (e >= 0)
                errors[got++] = e / (norm + 1e-3);
        }
        for (int a = 0; a < got; a++)
            for (int b = a + 1; b < got; b++)
                if (errors[b] < errors[a]) {
                    double e = errors[a];
                    errors[a] = errors[b];
                    errors[b] = e;
                }
        undecided |= got == 0;
        double middle = got ? errors[got / 2] : 0;
        if (middle > worst) {
            worst = middle;
            if (worst_name)
                snprintf(worst_name, 128, "%s (gradient %.3g)", p->t[t].name, norm);
        }
    }
    heap_free(v);
    heap_free(g);
    heap_free(u);
    return undecided && worst < 3e-3 ? FIX_UNDECIDED : worst;
}
