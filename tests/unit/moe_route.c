/* moe_route.c: the three kinds of route, through gates made here: sparse weights (rows gathered by
 * expert), slots, and merged experts; gradients against central differences, and against the same
 * sum computed the slow way. */
#include <math.h>
#include <string.h>
#include "base/heap.h"
#include "base/rng.h"
#include "moe/layer.h"
#include "moe/linear.h"
#include "moe/math/vec.h"
#include "tests/support/suite.h"

#define ROWS   23
#define GROUPS 4
#define DQ     3
#define DC     4
#define OUT    5

/* --- gates: logits x W, then something simple ------------------------------------------------ */

static enum status shape(struct moe_gate *g, struct conf_place place, struct arena *a) {
    (void)place;
    (void)a;
    if (g->ops->kind == MOE_ROUTE_SLOTS)
        g->n_slots = 2 * g->n_experts;
    moe_layout_add(&g->params, "w", g->in, g->n_slots ? g->n_slots : g->n_experts, MOE_INIT_NORMAL,
                   0.7f);
    return STATUS_OK;
}
struct saved {
    float *qy, *qdy, *logits;
};
static int width(const struct moe_gate *g) { return g->n_slots ? g->n_slots : g->n_experts; }
static void *bind(const struct moe_gate *g, const struct moe_plan *plan, struct moe_work *work) {
    struct saved s = {0}, *out = moe_work_take_bytes(work, sizeof s);
    s.qy = moe_work_take(work, (size_t)(plan->groups_max * width(g)));
    s.qdy = moe_work_take(work, (size_t)(plan->groups_max * width(g)));
    s.logits = moe_work_take(work, (size_t)(plan->rows_max * width(g)));
    if (out)
        *out = s;
    return out;
}

/* relu: zeros are exact */
static void relu_forward(const struct moe_gate *g, const struct moe_gate_io *io,
                         const struct moe_rows *x, struct moe_pass *pass, struct moe_route *r) {
    struct saved *s = io->saved;
    (void)pass;
    moe_linear_forward(x, io->w, NULL, g->n_experts, s->qy, r->w);
    moe_vec_act(MOE_ACT_RELU, (size_t)(x->n_rows * g->n_experts), r->w, r->w);
}
static void relu_backward(const struct moe_gate *g, const struct moe_gate_io *io,
                          const struct moe_rows *x, struct moe_pass *pass,
                          const struct moe_route *r, struct moe_route *d, float *dw, float *stats,
                          const struct moe_rows_grad *dx) {
    struct saved *s = io->saved;
    (void)pass;
    (void)stats;
    moe_vec_act_grad(MOE_ACT_RELU, (size_t)(x->n_rows * g->n_experts), r->w, d->w);
    moe_linear_backward(x, io->w, g->n_experts, d->w, s->qdy, dw, NULL, dx);
}
/* slots: dispatch = combine = tanh of the logits; nothing need sum to one for the route */
static void slots_forward(const struct moe_gate *g, const struct moe_gate_io *io,
                          const struct moe_rows *x, struct moe_pass *pass, struct moe_route *r) {
    struct saved *s = io->saved;
    (void)pass;
    moe_linear_forward(x, io->w, NULL, g->n_slots, s->qy, s->logits);
    for (int i = 0; i < x->n_rows * g->n_slots; i++)
        r->dispatch[i] = r->combine[i] = tanhf(s->logits[i]);
}
static void slots_backward(const struct moe_gate *g, const struct moe_gate_io *io,
                           const struct moe_rows *x, struct moe_pass *pass,
                           const struct moe_route *r, struct moe_route *d, float *dw, float *stats,
                           const struct moe_rows_grad *dx) {
    struct saved *s = io->saved;
    (void)pass;
    (void)stats;
    for (int i = 0; i < x->n_rows * g->n_slots; i++)
        s->logits[i] = (d->dispatch[i] + d->combine[i]) * (1 - r->combine[i] * r->combine[i]);
    moe_linear_backward(x, io->w, g->n_slots, s->logits, s->qdy, dw, NULL, dx);
}
/* merge: the sum of the rows' logits of a group */
static void merge_forward(const struct moe_gate *g, const struct moe_gate_io *io,
                          const struct moe_rows *x, struct moe_pass *pass, struct moe_route *r) {
    struct saved *s = io->saved;
    (void)pass;
    moe_linear_forward(x, io->w, NULL, g->n_experts, s->qy, s->logits);
    memset(r->w, 0, (size_t)(x->n_groups * g->n_experts) * sizeof(float));
    moe_vec_collect(x->n_rows, g->n_experts, s->logits, x->group, r->w);
}
static void merge_backward(const struct moe_gate *g, const struct moe_gate_io *io,
                           const struct moe_rows *x, struct moe_pass *pass,
                           const struct moe_route *r, struct moe_route *d, float *dw, float *stats,
                           const struct moe_rows_grad *dx) {
    struct saved *s = io->saved;
    (void)pass;
    (void)stats;
    (void)r;
    moe_vec_spread(x->n_rows, g->n_experts, d->w, x->group, s->logits);
    moe_linear_backward(x, io->w, g->n_experts, s->logits, s->qdy, dw, NULL, dx);
}
static const struct moe_gate_ops sparse_gate = {.name = "sparse",
                                                .kind = MOE_ROUTE_WEIGHTS,
                                                .flags = MOE_GATE_SPARSE,
                                                .shape = shape,
                                                .bind = bind,
                                                .forward = relu_forward,
                                                .backward = relu_backward};
static const struct moe_gate_ops slots_gate = {.name = "slots",
                                               .kind = MOE_ROUTE_SLOTS,
                                               .flags = MOE_GATE_MIXES_ROWS,
                                               .shape = shape,
                                               .bind = bind,
                                               .forward = slots_forward,
                                               .backward = slots_backward};
static const struct moe_gate_ops merge_gate = {.name = "merge",
                                               .kind = MOE_ROUTE_MERGE,
                                               .flags = MOE_GATE_MIXES_ROWS,
                                               .shape = shape,
                                               .bind = bind,
                                               .forward = merge_forward,
                                               .backward = merge_backward};

/* --- one level with a linear loss ------------------------------------------------------------ */

struct world {
    struct arena arena;
    struct moe_params params;
    struct moe_build build;
    struct buf json;
    struct json writer;
    struct moe_level *l;
    struct moe_level_state *s;
    float *memory, *g;
    float q[GROUPS * DQ], c[ROWS * DC], gq[GROUPS * DQ], gc[ROWS * DC], r[ROWS * OUT];
    int group[ROWS], start[GROUPS + 1];
};
static const char *const tasks[] = {"a", "b"};

static void bind_level(struct world *w) {
    struct moe_plan plan = {ROWS, GROUPS, true};
    struct moe_work work = {0};
    heap_free(w->memory);
    moe_level_bind(w->l, &plan, &work);
    w->memory = heap_alloc_aligned(work.used * sizeof(float));
    work = (struct moe_work){.base = w->memory};
    w->s = moe_level_bind(w->l, &plan, &work);
}

static void open(struct world *w, const struct moe_gate_ops *ops, int shared, int own) {
    struct rng rng;
    struct node *map;
    memset(w, 0, sizeof *w);
    rng_init(&rng, 7);
    arena_init(&w->arena, 0);
    json_begin(&w->writer, &w->json);
    json_object(&w->writer);
    CHECK_OK(node_parse_json(&w->arena,
                             SLICE_LIT("{\"expert\":{\"kind\":\"mlp\",\"hidden\":[6],"
                                       "\"out\":5,\"act\":\"silu\"}}"),
                             "t", &map));
    w->build = (struct moe_build){.a = &w->arena,
                                  .params = &w->params,
                                  .place = {"t", "layer"},
                                  .map = map,
                                  .json = &w->writer,
                                  .n_tasks = 2,
                                  .tasks = tasks,
                                  .in_dq = DQ,
                                  .in_columns = DQ + DC,
                                  .shared_module = -1,
                                  .last = true};
    w->build.task_module[0] = w->build.task_module[1] = -1;
    CHECK_OK(moe_build_read_expert(&w->build, "expert", "mlp", &w->build.expert));
    w->build.gate = (struct moe_gate_choice){ops, NULL};
    CHECK_OK(moe_build_cgc(&w->build, shared, own, false));
    w->l = &w->build.levels[0];
    moe_params_place(&w->params);
    moe_params_init(&w->params, 3);
    bind_level(w);
    w->g = heap_alloc_aligned(moe_params_floats(&w->params) * sizeof(float));
    for (int i = 0; i < GROUPS * DQ; i++)
        w->q[i] = (float)rng_normal(&rng);
    for (int i = 0; i < ROWS * DC; i++)
        w->c[i] = (float)rng_normal(&rng);
    for (int i = 0; i < ROWS * OUT; i++)
        w->r[i] = (float)rng_normal(&rng);
    static const int sizes[GROUPS] = {9, 0, 1, 13}; /* an empty group too */
    for (int k = 0, row = 0; k < GROUPS; k++) {
        w->start[k] = row;
        for (int i = 0; i < sizes[k]; i++)
            w->group[row++] = k;
        w->start[k + 1] = row;
    }
}
static void close(struct world *w) {
    heap_free(w->memory);
    heap_free(w->g);
    buf_deinit(&w->json);
    moe_params_deinit(&w->params);
    arena_deinit(&w->arena);
}

static struct moe_rows rows_of(const struct world *w) {
    return (struct moe_rows){.n_rows = ROWS,
                             .n_groups = GROUPS,
                             .dq = DQ,
                             .dc = DC,
                             .q = w->q,
                             .c = w->c,
                             .group = w->group,
                             .start = w->start};
}

/* sum over modules of <out, r> (module b counts twice), and all gradients */
static double loss(struct world *w, float dropout, int backward) {
    struct rng rng;
    rng_init(&rng, 1);
    struct moe_rows x = rows_of(w);
    struct moe_numbers n = {&w->params, w->params.v, w->g, NULL};
    struct moe_pass pass = {.training = true, .share = 1, .dropout = dropout, .rng = &rng};
    double sum = 0;
    moe_level_forward(w->l, &n, &x, NULL, w->s, &pass);
    for (int m = 0; m < w->l->n_modules; m++)
        for (int i = 0; i < ROWS * OUT; i++) {
            sum += (double)(m + 1) * (double)w->s->out[m][i] * (double)w->r[i];
            if (backward)
                w->s->dout[m][i] = (float)(m + 1) * w->r[i];
        }
    if (backward) {
        struct moe_rows_grad dx = {w->gq, w->gc};
        memset(w->g, 0, moe_params_floats(&w->params) * sizeof(float));
        memset(w->gq, 0, sizeof w->gq);
        memset(w->gc, 0, sizeof w->gc);
        moe_level_backward(w->l, &n, &x, NULL, w->s, &pass, &dx);
    }
    return sum;
}

/* Median error of directional derivatives of n numbers at v with gradient g. */
static double check(struct world *w, float *v, const float *grad, size_t n, float dropout) {
    struct rng rng;
    double errors[7], norm = 0, h = 2e-3;
    float *keep = HEAP_ARRAY(float, n), *u = HEAP_ARRAY(float, n), *g = HEAP_ARRAY(float, n);
    rng_init(&rng, 5);
    memcpy(keep, v, n * sizeof *v);
    memcpy(g, grad, n * sizeof *g);
    for (size_t i = 0; i < n; i++)
        norm += (double)g[i] * (double)g[i];
    norm = sqrt(norm);
    for (int k = 0; k < 7; k++) {
        double want = 0;
        for (size_t i = 0; i < n; i++) {
            u[i] = (float)(rng_normal(&rng) / sqrt((double)n));
            want += (double)u[i] * (double)g[i];
        }
        for (size_t i = 0; i < n; i++)
            v[i] = keep[i] + (float)h * u[i];
        double up = loss(w, dropout, 0);
        for (size_t i = 0; i < n; i++)
            v[i] = keep[i] - (float)h * u[i];
        errors[k] = fabs((up - loss(w, dropout, 0)) / (2 * h) - want) / (norm + 1e-6);
    }
    memcpy(v, keep, n * sizeof *v);
    for (int a = 0; a < 7; a++)
        for (int b = a + 1; b < 7; b++)
            if (errors[b] < errors[a]) {
                double e = errors[a];
                errors[a] = errors[b];
                errors[b] = e;
            }
    heap_free(keep);
    heap_free(u);
    heap_free(g);
    return norm > 1e-3 ? errors[3] : INFINITY; /* no gradient at all is an error too */
}

static void gradients(const struct moe_gate_ops *ops, int shared, int own, float dropout) {
    struct world w;
    open(&w, ops, shared, own);
    loss(&w, dropout, 1);
    for (int t = 0; t < w.params.n; t++) {
        size_t at = w.params.t[t].at, n = (size_t)w.params.t[t].copies * w.params.t[t].stride;
        double e = check(&w, w.params.v + at, w.g + at, n, dropout);
        if (!(e < 3e-3))
            printf("\n    %s %d+%d %s: %g\n", ops->name, shared, own, w.params.t[t].name, e);
        CU_ASSERT(e < 3e-3);
    }
    double eq = check(&w, w.q, w.gq, GROUPS * DQ, dropout),
           ec = check(&w, w.c, w.gc, ROWS * DC, dropout);
    if (!(eq < 3e-3 && ec < 3e-3))
        printf("\n    %s inputs: query %g, candidates %g\n", ops->name, eq, ec);
    CU_ASSERT(eq < 3e-3 && ec < 3e-3);
    close(&w);
}
static void test_weights_sparse(void) {
    gradients(&sparse_gate, 4, 0, 0);
    gradients(&sparse_gate, 2, 2, 0);
    gradients(&sparse_gate, 2, 2, 0.3f);
}
static void test_slots(void) {
    gradients(&slots_gate, 3, 0, 0);
    gradients(&slots_gate, 2, 1, 0.3f);
}
static void test_merge(void) {
    gradients(&merge_gate, 3, 0, 0);
    gradients(&merge_gate, 2, 1, 0);
    gradients(&merge_gate, 2, 1, 0.3f);
}

/* A sparse route gives what all experts on all rows would give. */
static void test_sparse_equals_dense(void) {
    struct world w;
    struct moe_gate_ops dense = sparse_gate;
    float out[2][ROWS * OUT];
    open(&w, &sparse_gate, 3, 1);
    double a = loss(&w, 0, 0);
    int zeros = 0;
    for (int i = 0; i < ROWS * 4; i++)
        zeros += w.s->route[0].w[i] == 0;
    CU_ASSERT(zeros > ROWS / 2);
    for (int m = 0; m < 2; m++)
        memcpy(out[m], w.s->out[m], sizeof out[m]);
    close(&w);
    dense.flags = 0;
    open(&w, &dense, 3, 1);
    CU_ASSERT_DOUBLE_EQUAL(a, loss(&w, 0, 0), 1e-4);
    for (int m = 0; m < 2; m++)
        for (int i = 0; i < ROWS * OUT; i++)
            CU_ASSERT(fabsf(out[m][i] - w.s->out[m][i]) < 1e-5f);
    close(&w);
}

/* A sparse and a dense gate on the same experts, which then run on all rows: the sparse one is told
 * of no gradient where it gave no weight. */
static int told, untold;
static void spy_backward(const struct moe_gate *g, const struct moe_gate_io *io,
                         const struct moe_rows *x, struct moe_pass *pass, const struct moe_route *r,
                         struct moe_route *d, float *dw, float *stats,
                         const struct moe_rows_grad *dx) {
    for (int i = 0; (g->flags & MOE_GATE_SPARSE) && i < x->n_rows * g->n_experts; i++) {
        told += r->w[i] == 0 && d->w[i] != 0;
        untold += r->w[i] == 0;
    }
    relu_backward(g, io, x, pass, r, d, dw, stats, dx);
}
static void test_sparse_beside_dense(void) {
    struct moe_gate_ops spied = sparse_gate;
    struct world w;
    spied.backward = spy_backward;
    open(&w, &spied, 4, 0);
    w.l->gates[1].gate.flags &= ~(unsigned)MOE_GATE_SPARSE;
    bind_level(&w);
    told = untold = 0;
    loss(&w, 0, 1);
    CU_ASSERT(untold > ROWS / 2 && told == 0);
    for (int t = 0; t < w.params.n; t++)
        CU_ASSERT(check(&w, w.params.v + w.params.t[t].at, w.g + w.params.t[t].at,
                        (size_t)w.params.t[t].copies * w.params.t[t].stride, 0) < 3e-3);
    close(&w);
}

/* A blend with weight 1 on one expert is that expert, row for row. */
static void unit_forward(const struct moe_gate *g, const struct moe_gate_io *io,
                         const struct moe_rows *x, struct moe_pass *pass, struct moe_route *r) {
    (void)io;
    (void)pass;
    size_t n =
        (size_t)(r->kind == MOE_ROUTE_MERGE ? x->n_groups : x->n_rows) * (size_t)g->n_experts;
    for (size_t i = 0; i < n; i++)
        r->w[i] = (int)(i % (size_t)g->n_experts) == 1;
}
static void test_merge_of_one(void) {
    struct moe_gate_ops merge = merge_gate, weights = sparse_gate;
    struct world a, b;
    merge.forward = weights.forward = unit_forward;
    open(&a, &merge, 3, 0);
    open(&b, &weights, 3, 0);
    CU_ASSERT_DOUBLE_EQUAL(loss(&a, 0, 0), loss(&b, 0, 0), 1e-4);
    for (int i = 0; i < ROWS * OUT; i++)
        CU_ASSERT(fabsf(a.s->out[1][i] - b.s->out[1][i]) < 1e-5f);
    close(&a);
    close(&b);
}

SUITE("moe_route", TEST(test_weights_sparse), TEST(test_slots), TEST(test_merge),
      TEST(test_sparse_equals_dense), TEST(test_sparse_beside_dense), TEST(test_merge_of_one))
