/* sigmoid.c: dense weights without competition: w_e = sigmoid(h_e), each expert on its own
 * (Csordas et al., EMNLP 2023; Nguyen et al., ICLR 2024 on its lower variance). Weights do not sum
 * to 1 unless `normalise` says so; all experts run. */
#include "moe/choice.h"
#include "moe/router.h"
#include "moe/math/vec.h"

struct conf {
    struct moe_router_conf router;
    bool normalise;
    double scale;
};
static const struct conf_item items[] = {
    CONF_BOOL(struct conf, normalise, "normalise", "false", "the weights sum to 1"),
    MOE_SCALE_ITEM(struct conf, scale), MOE_ROUTER_ITEMS(struct conf, router), CONF_END};

struct saved {
    struct moe_router router;
    float *s; /* [rows x n] */
};

static enum status shape(struct moe_gate *g, struct conf_place place, struct arena *a) {
    const struct conf *c = g->conf;
    (void)place;
    (void)a;
    moe_router_shape(g, &c->router, g->n_experts);
    return STATUS_OK;
}

static void *bind(const struct moe_gate *g, const struct moe_plan *plan, struct moe_work *work) {
    const struct conf *c = g->conf;
    struct saved s, *out = moe_work_take_bytes(work, sizeof s);
    moe_router_bind(&c->router, g->dq, g->in, g->n_experts, plan, work, &s.router);
    s.s = moe_work_take(work, (size_t)plan->rows_max * (size_t)g->n_experts);
    if (out)
        *out = s;
    return out;
}

static float row_scale(const struct conf *c, int n, const float *s) {
    float sum = 0;
    if (!c->normalise)
        return (float)c->scale;
    for (int e = 0; e < n; e++)
        sum += s[e];
    return (float)c->scale / (sum + 1e-20f);
}

static void forward(const struct moe_gate *g, const struct moe_gate_io *io,
                    const struct moe_rows *x, struct moe_pass *pass, struct moe_route *route) {
    const struct conf *c = g->conf;
    struct saved *s = io->saved;
    int n = g->n_experts;
    moe_router_forward(&c->router, n, io->w, x, pass, &s->router);
    moe_router_sigmoid(x->n_rows, n, s->router.h, s->s);
    for (int r = 0; r < x->n_rows; r++) {
        const float *sr = s->s + (size_t)r * (size_t)n;
        float scale = row_scale(c, n, sr);
        for (int e = 0; e < n; e++)
            route->w[(size_t)r * (size_t)n + (size_t)e] = scale * sr[e];
    }
}

/* Normalised: w = scale s / S, so ds = (scale d - <d, w>) / S. */
static void backward(const struct moe_gate *g, const struct moe_gate_io *io,
                     const struct moe_rows *x, struct moe_pass *pass, const struct moe_route *route,
                     struct moe_route *d, float *dw, float *stats, const struct moe_rows_grad *dx) {
    const struct conf *c = g->conf;
    struct saved *s = io->saved;
    int n = g->n_experts;
    (void)stats;
    for (int r = 0; r < x->n_rows; r++) {
        size_t at = (size_t)r * (size_t)n;
        float scale = row_scale(c, n, s->s + at);
        float dot = c->normalise ? moe_vec_dot((size_t)n, d->w + at, route->w + at) : 0;
        for (size_t i = at; i < at + (size_t)n; i++)
            d->w[i] = (d->w[i] - dot / (float)c->scale) * scale * s->s[i] * (1 - s->s[i]);
    }
    moe_router_backward(&c->router, n, io->w, x, pass, &s->router, d->w, dw, dx);
}

const struct moe_gate_ops moe_gate_sigmoid = {
    .name = "sigmoid",
    .doc = "dense, a sigmoid for each expert (EMNLP 2023)",
    .kind = MOE_ROUTE_WEIGHTS,
    .flags = MOE_GATE_LINEAR,
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .shape = shape,
    .bind = bind,
    .forward = forward,
    .backward = backward,
};
