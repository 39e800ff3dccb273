/* moe_gate_lab.h: one gate on a bench: settings, random rows in groups, a linear loss over its
 * route and its auxiliary losses, and a gradient check. Header only, so that a test program stays
 * one file. */
#pragma once
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/heap.h"
#include "moe/gate.h"
#include "tests/support/suite.h"

struct lab_size {
    int dq, dc, n_experts, n_groups, n_rows;
};
struct lab {
    struct arena arena;
    struct moe_params p;
    struct moe_gate g;
    int tensor, buffer;
    struct lab_size size;
    void *saved;
    float *memory, *grad, *stats;
    struct moe_route route, d;
    float *q, *c, *gq, *gc; /* [groups x dq], [rows x dc] and their gradients */
    int *group, *start;
    float *pull[2]; /* the loss is <pull, route> (+ aux); second: combine */
    struct moe_batch batch;
    float *query;                   /* [groups x 2] raw numbers */
    uint32_t *query_ids, *cand_ids; /* [groups x 1], [rows x 2] */
    uint64_t noise;                 /* seed of a pass */
    float share, pull_scale;
    double aux; /* of the last pass */
};

static const char *const lab_query_names[] = {"age", "segment"};
static const struct moe_id_input lab_ids[] = {
    {"city", 1, 0, 1, 0}, {"tags", 0, 0, 1, 1}, {"item", 0, 1, 1, 1}};
static const struct moe_inputs lab_inputs = {.query_columns = 2,
                                             .query_names = lab_query_names,
                                             .query_slots = 1,
                                             .cand_slots = 2,
                                             .ids = lab_ids,
                                             .n_ids = 3};

static inline size_t lab_route_floats(const struct lab *l) {
    int per_row = l->g.ops->kind == MOE_ROUTE_SLOTS ? l->g.n_slots : l->g.n_experts;
    return (size_t)(l->g.ops->kind == MOE_ROUTE_MERGE ? l->size.n_groups : l->size.n_rows) *
           (size_t)per_row;
}
/* The floats of a route: w, or dispatch (0) and combine (1); NULL: there is none. */
static inline float *lab_part(const struct lab *l, const struct moe_route *r, int i) {
    if (l->g.ops->kind == MOE_ROUTE_SLOTS)
        return i ? r->combine : r->dispatch;
    return i ? NULL : r->w;
}

static inline void lab_data(struct lab *l, struct rng *r) {
    struct lab_size z = l->size;
    l->q = HEAP_ARRAY(float, z.n_groups *z.dq + 1);
    l->gq = HEAP_ARRAY(float, z.n_groups *z.dq + 1);
    l->c = HEAP_ARRAY(float, z.n_rows *z.dc + 1);
    l->gc = HEAP_ARRAY(float, z.n_rows *z.dc + 1);
    l->group = HEAP_ARRAY(int, z.n_rows + 1);
    l->start = HEAP_ARRAY(int, z.n_groups + 1);
    l->query = HEAP_ARRAY(float, z.n_groups * 2 + 1);
    l->query_ids = HEAP_ARRAY(uint32_t, z.n_groups + 1);
    l->cand_ids = HEAP_ARRAY(uint32_t, z.n_rows * 2 + 1);
    for (int i = 0; i < z.n_groups * z.dq; i++)
        l->q[i] = (float)rng_normal(r);
    for (int i = 0; i < z.n_rows * z.dc; i++)
        l->c[i] = (float)rng_normal(r);
    for (int g = 0; g < z.n_groups; g++) { /* uneven groups; the last takes the rest */
        l->start[g + 1] = g + 1 == z.n_groups
                              ? z.n_rows
                              : (g + 1) * (g + 2) * z.n_rows / (z.n_groups * (z.n_groups + 1));
        for (int i = l->start[g]; i < l->start[g + 1]; i++)
            l->group[i] = g;
        l->query[2 * g] = (float)rng_below(r, 100);
        l->query[2 * g + 1] = (float)(10 * (1 + (int)rng_below(r, 4)));
        l->query_ids[g] = rng_below(r, 1000);
    }
    for (int i = 0; i < z.n_rows * 2; i++)
        l->cand_ids[i] = rng_below(r, 1000);
    l->batch = (struct moe_batch){.n_groups = z.n_groups,
                                  .n_rows = z.n_rows,
                                  .query = l->query,
                                  .query_ids = l->query_ids,
                                  .cand_ids = l->cand_ids,
                                  .group = l->group};
}

static inline struct moe_route lab_route(const struct lab *l) {
    struct moe_route r = {.kind = l->g.ops->kind,
                          .n_experts = l->g.n_experts,
                          .n_slots = l->g.n_slots,
                          .n_rows = l->size.n_rows,
                          .n_groups = l->size.n_groups};
    if (r.kind == MOE_ROUTE_SLOTS) {
        r.dispatch = heap_alloc_aligned((lab_route_floats(l) + 1) * sizeof(float));
        r.combine = heap_alloc_aligned((lab_route_floats(l) + 1) * sizeof(float));
    } else {
        r.w = heap_alloc_aligned((lab_route_floats(l) + 1) * sizeof(float));
    }
    return r;
}

static inline enum status lab_shape(struct lab *l, const char *kind, const char *settings) {
    struct node *map;
    const struct moe_gate_ops *ops = moe_gate_find(kind);
    if (!ops)
        return fail(STATUS_NOT_FOUND, "no gate '%s'", kind);
    void *conf = arena_zalloc(&l->arena, ops->conf_bytes);
    struct conf_place place = {"lab", "gate"};
    TRY(node_parse_json(&l->arena, slice_of(settings), "lab", &map));
    TRY(conf_read(ops->items, map, place, NULL, conf, &l->arena));
    l->g = (struct moe_gate){.ops = ops,
                             .conf = conf,
                             .flags = ops->flags,
                             .dq = l->size.dq,
                             .in = l->size.dq + l->size.dc,
                             .n_experts = l->size.n_experts,
                             .inputs = &lab_inputs};
    return ops->shape(&l->g, place, &l->arena);
}

/* On failure, nothing is left but lab_close. */
static inline enum status lab_open(struct lab *l, const char *kind, const char *settings,
                                   struct lab_size size, uint64_t seed) {
    struct rng r;
    memset(l, 0, sizeof *l);
    l->size = size;
    l->tensor = l->buffer = -1;
    l->noise = 1;
    l->share = 0.5f;
    l->pull_scale = 1;
    arena_init(&l->arena, 0);
    TRY(lab_shape(l, kind, settings));
    rng_init(&r, seed);
    lab_data(l, &r);
    if (l->g.params.floats)
        l->tensor = moe_params_add(&l->p, MOE_DENSE, 1, &l->g.params, "gate");
    if (l->g.buffers.floats)
        l->buffer = moe_params_add(&l->p, MOE_BUFFER, 1, &l->g.buffers, "state");
    moe_params_place(&l->p);
    moe_params_init(&l->p, seed);
    struct moe_plan plan = {size.n_rows, size.n_groups, true};
    struct moe_work work = {0};
    if (l->g.ops->bind)
        l->g.ops->bind(&l->g, &plan, &work);
    l->memory = heap_alloc_aligned((work.used + 1) * sizeof(float));
    work = (struct moe_work){.base = l->memory};
    l->saved = l->g.ops->bind ? l->g.ops->bind(&l->g, &plan, &work) : NULL;
    l->route = lab_route(l);
    l->d = lab_route(l);
    l->grad = HEAP_ARRAY(float, l->g.params.floats + 1);
    l->stats = HEAP_ARRAY(float, l->g.n_stats + 1);
    for (int i = 0; i < 2; i++) {
        l->pull[i] = HEAP_ARRAY(float, lab_route_floats(l) + 1);
        for (size_t k = 0; k < lab_route_floats(l); k++)
            l->pull[i][k] = (float)rng_normal(&r);
    }
    return STATUS_OK;
}

static inline void lab_close(struct lab *l) {
    void *all[] = {l->memory,
                   l->grad,
                   l->stats,
                   l->route.w,
                   l->route.dispatch,
                   l->route.combine,
                   l->d.w,
                   l->d.dispatch,
                   l->d.combine,
                   l->q,
                   l->c,
                   l->gq,
                   l->gc,
                   l->group,
                   l->start,
                   l->pull[0],
                   l->pull[1],
                   l->query,
                   l->query_ids,
                   l->cand_ids};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        heap_free(all[i]);
    moe_params_deinit(&l->p);
    arena_deinit(&l->arena);
    memset(l, 0, sizeof *l);
}

static inline float *lab_w(struct lab *l) {
    return l->tensor < 0 ? NULL : moe_params_at(&l->p, l->p.v, l->tensor, 0);
}
static inline float *lab_buffers(struct lab *l) {
    return l->buffer < 0 ? NULL : moe_params_at(&l->p, l->p.v, l->buffer, 0);
}
/* Adds noise to all parameters: off zero, into kinks and saturation. */
static inline void lab_shake(struct lab *l, double by, uint64_t seed) {
    struct rng r;
    rng_init(&r, seed);
    for (size_t i = 0; i < l->g.params.floats; i++)
        lab_w(l)[i] += (float)(by * rng_normal(&r));
}
/* Other rows, of the same shape. */
static inline void lab_redraw(struct lab *l, uint64_t seed) {
    struct rng r;
    rng_init(&r, seed);
    for (int i = 0; i < l->size.n_groups * l->size.dq; i++)
        l->q[i] = (float)rng_normal(&r);
    for (int i = 0; i < l->size.n_rows * l->size.dc; i++)
        l->c[i] = (float)rng_normal(&r);
}
/* count [n_experts]: rows with a weight */
static inline void lab_loads(const struct lab *l, float *count) {
    memset(count, 0, (size_t)l->g.n_experts * sizeof *count);
    for (int r = 0; r < l->size.n_rows; r++)
        for (int e = 0; e < l->g.n_experts; e++)
            count[e] += l->route.w[r * l->g.n_experts + e] != 0;
}
/* A field of the parameters or buffers by name; NULL: there is none. */
static inline float *lab_field(struct lab *l, const char *name) {
    for (int i = 0; i < l->g.params.n; i++)
        if (strcmp(l->g.params.f[i].name, name) == 0)
            return lab_w(l) + l->g.params.f[i].at;
    for (int i = 0; i < l->g.buffers.n; i++)
        if (strcmp(l->g.buffers.f[i].name, name) == 0)
            return lab_buffers(l) + l->g.buffers.f[i].at;
    return NULL;
}
static inline struct moe_rows lab_rows(const struct lab *l) {
    return (struct moe_rows){.n_rows = l->size.n_rows,
                             .n_groups = l->size.n_groups,
                             .dq = l->size.dq,
                             .dc = l->size.dc,
                             .q = l->q,
                             .c = l->c,
                             .group = l->group,
                             .start = l->start};
}
static inline struct moe_pass lab_pass(const struct lab *l, bool training, struct rng *rng) {
    rng_init(rng, l->noise);
    return (struct moe_pass){.training = training,
                             .share = l->share,
                             .progress = 0.5f,
                             .rng = training ? rng : NULL,
                             .batch = &l->batch};
}

/* <pull, route> + aux. In inference there is no rng: a gate that drew would crash. */
static inline double lab_loss(struct lab *l, bool training) {
    struct rng rng;
    struct moe_rows x = lab_rows(l);
    struct moe_pass pass = lab_pass(l, training, &rng);
    struct moe_gate_io io = {lab_w(l), lab_buffers(l), l->saved};
    double sum = 0;
    l->g.ops->forward(&l->g, &io, &x, &pass, &l->route);
    for (int i = 0; i < 2; i++)
        for (size_t k = 0; lab_part(l, &l->route, i) && k < lab_route_floats(l); k++)
            sum += (double)l->pull_scale * (double)l->pull[i][k] *
                   (double)lab_part(l, &l->route, i)[k];
    l->aux = pass.aux;
    return sum + pass.aux;
}
/* The same, and l->grad, l->gq, l->gc; adds to l->stats. */
static inline double lab_backward(struct lab *l, bool training) {
    struct rng rng;
    double loss = lab_loss(l, training);
    struct moe_rows x = lab_rows(l);
    struct moe_pass pass = lab_pass(l, training, &rng);
    struct moe_gate_io io = {lab_w(l), lab_buffers(l), l->saved};
    struct moe_rows_grad dx = {l->gq, l->gc};
    memset(l->grad, 0, l->g.params.floats * sizeof(float));
    memset(l->gq, 0, (size_t)(l->size.n_groups * l->size.dq) * sizeof(float));
    memset(l->gc, 0, (size_t)(l->size.n_rows * l->size.dc) * sizeof(float));
    for (int i = 0; i < 2; i++)
        for (size_t k = 0; lab_part(l, &l->route, i) && k < lab_route_floats(l); k++) {
            bool off = (l->g.flags & MOE_GATE_SPARSE) && l->route.w[k] == 0;
            lab_part(l, &l->d, i)[k] = off ? 0 : l->pull_scale * l->pull[i][k];
        }
    l->g.ops->backward(&l->g, &io, &x, &pass, &l->route, &l->d, l->grad, l->stats, &dx);
    return loss;
}
/* One training step on the same rows: descends all parameters, moves the buffers. */
static inline void lab_step(struct lab *l, float rate) {
    memset(l->stats, 0, (size_t)l->g.n_stats * sizeof(float));
    lab_backward(l, true);
    for (size_t i = 0; i < l->g.params.floats; i++)
        lab_w(l)[i] -= rate * l->grad[i];
    if (l->g.ops->after_step)
        l->g.ops->after_step(&l->g, l->stats, lab_buffers(l));
    l->noise++;
}

/* Experts of all rows with a weight: which entries are not zero, as one hash. */
static inline uint64_t lab_support(const struct lab *l) {
    uint64_t h = 1469598103934665603ull;
    for (size_t k = 0; l->route.w && k < lab_route_floats(l); k++)
        h = (h ^ (uint64_t)(l->route.w[k] != 0)) * 1099511628211ull;
    return h;
}

struct lab_check {
    double worst;         /* |analytic - difference| / (0.1 + norm) */
    int checked, skipped; /* skipped: the choice changed within +-step, a kink */
};
/* The central difference by v; false: the choice changes within the step. */
static inline bool lab_difference(struct lab *l, bool training, float *v, double step,
                                  double *out) {
    float keep = *v, up = (float)((double)keep + step), down = (float)((double)keep - step);
    lab_loss(l, training);
    uint64_t here = lab_support(l);
    *v = up;
    double a = lab_loss(l, training);
    bool same = lab_support(l) == here;
    *v = down;
    double b = lab_loss(l, training);
    same &= lab_support(l) == here;
    *v = keep;
    *out = (a - b) / ((double)up - (double)down);
    return same;
}
/* A kink that does not show in the choice (which rival sets a threshold) spoils one step and not a
 * smaller one, so the better of two counts. */
static inline void lab_check_run(struct lab *l, bool training, float *v, const float *grad,
                                 size_t n, double step, struct lab_check *out) {
    double norm = 0, got, finer;
    for (size_t i = 0; i < n; i++)
        norm = fmax(norm, fabs((double)grad[i]));
    for (size_t i = 0; i < n; i++) {
        if (!lab_difference(l, training, &v[i], step, &got)) {
            out->skipped++;
            continue;
        }
        double error = fabs(got - (double)grad[i]) / (0.1 + norm);
        if (error > 2e-4 && lab_difference(l, training, &v[i], step / 8, &finer))
            error = fmin(error, fabs(finer - (double)grad[i]) / (0.1 + norm));
        if (!(error <= out->worst))
            out->worst = isnan(error) ? INFINITY : error;
        out->checked++;
    }
}
/* All parameters and all inputs. */
static inline struct lab_check lab_check(struct lab *l, bool training, double step) {
    struct lab_check out = {0};
    lab_backward(l, training);
    size_t nq = (size_t)(l->size.n_groups * l->size.dq);
    size_t nc = (size_t)(l->size.n_rows * l->size.dc);
    if (l->tensor >= 0)
        lab_check_run(l, training, lab_w(l), l->grad, l->g.params.floats, step, &out);
    lab_check_run(l, training, l->q, l->gq, nq, step, &out);
    lab_check_run(l, training, l->c, l->gc, nc, step, &out);
    return out;
}
