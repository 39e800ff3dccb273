/* softmax.c: the dense gate of MMoE (Ma et al., KDD 2018): w = softmax(x W + b). Optionally drops
 * experts in training and renormalises, against polarised gates (Zhao et al., RecSys 2019). All
 * experts run for every row; sparse gates are other files. */
#include <string.h>
#include "moe/linear.h"
#include "moe/router.h"
#include "moe/math/vec.h"

struct conf {
    bool bias;
    double dropout;
};
static const struct conf_item items[] = {
    MOE_BIAS_ITEM(struct conf, bias),
    CONF_FLOAT(struct conf, dropout, "dropout", "0", 0, 0.9, NULL,
               "share of the gate's weights dropped in training, the rest renormalised"),
    CONF_END};

struct saved {
    float *qy, *qdy; /* [groups x n_experts] */
};

static enum status shape(struct moe_gate *g, struct conf_place place, struct arena *a) {
    const struct conf *c = g->conf;
    (void)place;
    (void)a;
    if (g->n_experts == 1) /* nothing to choose: weight 1, no parameters */
        return STATUS_OK;
    if (c->dropout > 0)
        g->flags |= MOE_GATE_STOCHASTIC;
    moe_layout_add(&g->params, "w", g->in, g->n_experts, MOE_INIT_GLOROT, 0);
    if (c->bias)
        moe_layout_add(&g->params, "b", 1, g->n_experts, MOE_INIT_ZERO, 0);
    return STATUS_OK;
}

static void *bind(const struct moe_gate *g, const struct moe_plan *plan, struct moe_work *work) {
    struct saved s = {0}, *out = moe_work_take_bytes(work, sizeof s);
    s.qy = moe_work_take(work, moe_linear_scratch(plan->groups_max, g->dq, g->n_experts));
    if (plan->training)
        s.qdy = moe_work_take(work, moe_linear_scratch(plan->groups_max, g->dq, g->n_experts));
    if (out)
        *out = s;
    return out;
}

/* Zeroes weights at random and renormalises; a row that would lose all keeps all. One draw from the
 * pass a row, and of it a stream read twice: to sum, then to scale. */
static bool kept(uint64_t *bits, double rate) {
    *bits = *bits * 6364136223846793005ull + 1442695040888963407ull;
    return (double)(*bits >> 33) * 0x1p-31 >= rate;
}
static void drop(struct moe_route *r, double rate, struct rng *rng) {
    int n = r->n_experts;
    for (int row = 0; row < r->n_rows; row++) {
        float *w = r->w + (size_t)row * (size_t)n, sum = 0;
        uint64_t bits = rng_u64(rng), again = bits;
        for (int e = 0; e < n; e++)
            sum += kept(&bits, rate) ? w[e] : 0;
        if (sum < 1e-6f)
            continue;
        for (int e = 0; e < n; e++)
            w[e] = kept(&again, rate) ? w[e] / sum : 0;
    }
}

static void forward(const struct moe_gate *g, const struct moe_gate_io *io,
                    const struct moe_rows *x, struct moe_pass *pass, struct moe_route *route) {
    const struct conf *c = g->conf;
    const struct saved *s = io->saved;
    int n = g->n_experts;
    if (n == 1) {
        for (int i = 0; i < x->n_rows; i++)
            route->w[i] = 1;
        return;
    }
    const float *b = c->bias ? io->w + g->params.f[1].at : NULL;
    moe_linear_forward(x, io->w, b, n, s->qy, route->w);
    moe_vec_softmax(x->n_rows, n, route->w, route->w);
    if (pass->training && c->dropout > 0)
        drop(route, c->dropout, pass->rng);
}

/* Dropping and renormalising is a softmax over the kept ones, so its gradient is the same. */
static void backward(const struct moe_gate *g, const struct moe_gate_io *io,
                     const struct moe_rows *x, struct moe_pass *pass, const struct moe_route *route,
                     struct moe_route *d, float *dw, float *stats, const struct moe_rows_grad *dx) {
    const struct conf *c = g->conf;
    const struct saved *s = io->saved;
    int n = g->n_experts;
    (void)pass;
    (void)stats;
    if (n == 1)
        return;
    moe_vec_softmax_grad(x->n_rows, n, route->w, d->w, d->w);
    moe_linear_backward(x, io->w, n, d->w, s->qdy, dw, c->bias ? dw + g->params.f[1].at : NULL, dx);
}

const struct moe_gate_ops moe_gate_softmax = {
    .name = "softmax",
    .doc = "dense softmax over the experts (MMoE, KDD 2018)",
    .kind = MOE_ROUTE_WEIGHTS,
    .flags = MOE_GATE_LINEAR,
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .shape = shape,
    .bind = bind,
    .forward = forward,
    .backward = backward,
};
