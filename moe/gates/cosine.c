/* cosine.c: X-MoE (Chi et al., NeurIPS 2022): rows are compared with one vector for each expert by
 * angle, in few dimensions, so that experts do not pull all rows into one corner.
 *
 *     u = x P / |x P|,  h_e = exp(a) / tau <u, c_e / |c_e|>
 *
 * with P [in x dim], c [N x dim] and a learned; the factor is kept at or below 100. The rest is a
 * softmax that keeps k (mix.h). */
#include <math.h>
#include <string.h>
#include "moe/math/blas.h"
#include "moe/linear.h"
#include "moe/mix.h"
#include "moe/math/vec.h"

#define FACTOR_MAX 100.0f
#define TINY       1e-12f

struct conf {
    struct moe_mix_conf mix;
    int64_t dim;
    double temperature;
};
static const struct conf_item items[] = {
    MOE_K_ITEM(struct conf, mix.k, "2", 1),
    CONF_INT(struct conf, dim, "dim", "8", 1, 1024, "floats",
             "dimensions that rows and experts meet in"),
    CONF_FLOAT(struct conf, temperature, "temperature", "0.3", 0.01, 100, NULL,
               "tau: the learned factor starts at 1 / tau"),
    MOE_ORDER_ITEM(struct conf, mix.order),
    MOE_RENORMALISE_ITEM(struct conf, mix.renormalise, "false"),
    MOE_SCALE_ITEM(struct conf, mix.scale),
    MOE_CAPACITY_ITEMS(struct conf, mix.capacity),
    MOE_LOAD_ITEMS(struct conf, mix.load, "0.01"),
    CONF_END};

enum { P, CENTRES, LOG_FACTOR }; /* fields */

struct saved {
    struct moe_mix mix;
    float *qy, *qdy;       /* [groups x dim] */
    float *u, *du, *norm;  /* [rows x dim] twice, [rows] */
    float *c, *dc, *cnorm; /* [n x dim] twice, [n] */
    float *h;              /* [rows x n] */
};

static enum status shape(struct moe_gate *g, struct conf_place place, struct arena *a) {
    const struct conf *c = g->conf;
    (void)a;
    moe_layout_add(&g->params, "w", g->in, (int)c->dim, MOE_INIT_GLOROT, 0);
    moe_layout_add(&g->params, "centres", g->n_experts, (int)c->dim, MOE_INIT_NORMAL, 1);
    moe_layout_add(&g->params, "log_factor", 1, 1, MOE_INIT_ZERO, 0);
    return moe_mix_shape(g, &c->mix, place);
}

static void *bind(const struct moe_gate *g, const struct moe_plan *plan, struct moe_work *work) {
    const struct conf *c = g->conf;
    struct saved s = {0}, *out = moe_work_take_bytes(work, sizeof s);
    size_t rows = (size_t)plan->rows_max, n = (size_t)g->n_experts, dim = (size_t)c->dim;
    moe_mix_bind(&c->mix, g->n_experts, plan, work, &s.mix);
    s.qy = moe_work_take(work, moe_linear_scratch(plan->groups_max, g->dq, (int)dim));
    s.u = moe_work_take(work, rows * dim);
    s.norm = moe_work_take(work, rows);
    s.c = moe_work_take(work, n * dim);
    s.cnorm = moe_work_take(work, n);
    s.h = moe_work_take(work, rows * n);
    if (plan->training) {
        s.qdy = moe_work_take(work, moe_linear_scratch(plan->groups_max, g->dq, (int)dim));
        s.du = moe_work_take(work, rows * dim);
        s.dc = moe_work_take(work, n * dim);
    }
    if (out)
        *out = s;
    return out;
}

static void normalise(int rows, int dim, const float *v, float *u, float *norm) {
    for (int r = 0; r < rows; r++) {
        size_t at = (size_t)r * (size_t)dim;
        norm[r] = sqrtf(moe_vec_dot((size_t)dim, v + at, v + at) + TINY);
        for (size_t i = at; i < at + (size_t)dim; i++)
            u[i] = v[i] / norm[r];
    }
}
/* du becomes dv = (du - u <u, du>) / |v| */
static void normalise_backward(int rows, int dim, const float *u, const float *norm, float *du) {
    for (int r = 0; r < rows; r++) {
        size_t at = (size_t)r * (size_t)dim;
        float dot = moe_vec_dot((size_t)dim, u + at, du + at);
        for (size_t i = at; i < at + (size_t)dim; i++)
            du[i] = (du[i] - u[i] * dot) / norm[r];
    }
}

static float factor(const struct moe_gate *g, const float *w, bool *moves) {
    const struct conf *c = g->conf;
    float f = expf(w[g->params.f[LOG_FACTOR].at]) / (float)c->temperature;
    *moves = f < FACTOR_MAX;
    return *moves ? f : FACTOR_MAX;
}

static void forward(const struct moe_gate *g, const struct moe_gate_io *io,
                    const struct moe_rows *x, struct moe_pass *pass, struct moe_route *route) {
    const struct conf *c = g->conf;
    struct saved *s = io->saved;
    int n = g->n_experts, dim = (int)c->dim;
    bool moves;
    float f = factor(g, io->w, &moves);
    moe_linear_forward(x, io->w, NULL, dim, s->qy, s->u);
    normalise(x->n_rows, dim, s->u, s->u, s->norm);
    normalise(n, dim, io->w + g->params.f[CENTRES].at, s->c, s->cnorm);
    for (size_t r = 0; r < (size_t)x->n_rows; r++) /* dots: a row's bits are its own */
        for (size_t e = 0; e < (size_t)n; e++)
            s->h[r * (size_t)n + e] =
                f * moe_vec_dot((size_t)dim, s->u + r * (size_t)dim, s->c + e * (size_t)dim);
    moe_mix_forward(&c->mix, n, s->h, io->buffers, x, pass, &s->mix, route);
}

static void backward(const struct moe_gate *g, const struct moe_gate_io *io,
                     const struct moe_rows *x, struct moe_pass *pass, const struct moe_route *route,
                     struct moe_route *d, float *dw, float *stats, const struct moe_rows_grad *dx) {
    const struct conf *c = g->conf;
    struct saved *s = io->saved;
    int n = g->n_experts, dim = (int)c->dim, rows = x->n_rows;
    bool moves;
    float f = factor(g, io->w, &moves);
    double dlog = 0;
    moe_mix_backward(&c->mix, n, x, pass, &s->mix, route, d, stats, d->w);
    for (size_t i = 0; i < (size_t)rows * (size_t)n; i++) {
        dlog += (double)d->w[i] * (double)s->h[i];
        d->w[i] *= f;
    }
    if (moves)
        dw[g->params.f[LOG_FACTOR].at] += (float)dlog;
    moe_gemm(0, 0, rows, dim, n, d->w, n, s->c, dim, 0, s->du, dim);
    moe_gemm(1, 0, n, dim, rows, d->w, n, s->u, dim, 0, s->dc, dim);
    normalise_backward(n, dim, s->c, s->cnorm, s->dc);
    moe_vec_add((size_t)n * (size_t)dim, s->dc, dw + g->params.f[CENTRES].at);
    normalise_backward(rows, dim, s->u, s->norm, s->du);
    moe_linear_backward(x, io->w, dim, s->du, s->qdy, dw, NULL, dx);
}

static void after_step(const struct moe_gate *g, const float *stats, float *buffers) {
    moe_mix_after_step(&((const struct conf *)g->conf)->mix, g->n_experts, stats, buffers);
}

const struct moe_gate_ops moe_gate_cosine = {
    .name = "cosine",
    .doc = "angles in few dimensions, learned temperature, the best k (X-MoE, NeurIPS 2022)",
    .kind = MOE_ROUTE_WEIGHTS,
    .flags = MOE_GATE_SPARSE | MOE_GATE_LINEAR,
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .shape = shape,
    .bind = bind,
    .forward = forward,
    .backward = backward,
    .after_step = after_step,
};
