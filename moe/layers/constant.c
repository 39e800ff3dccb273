/* constant.c: learned weights that do not depend on the row: AdaTT's residual of a task's own
 * experts (plain), M3oE's fusion (softmax). */
#include "moe/layers/constant.h"
#include <string.h>
#include "moe/math/vec.h"

struct conf {
    bool softmax;
};
static const struct conf_item items[] = {
    CONF_BOOL(struct conf, softmax, "softmax", "false", "the weights sum to 1"), CONF_END};

struct saved {
    float *p, *dp; /* [n] the weights, their gradient */
};

static enum status shape(struct moe_gate *g, struct conf_place place, struct arena *a) {
    const struct conf *c = g->conf;
    (void)place;
    (void)a;
    if (g->n_experts > 1)
        moe_layout_add(&g->params, "w", 1, g->n_experts, MOE_INIT_CONST,
                       c->softmax ? 1.0f : 1.0f / (float)g->n_experts);
    return STATUS_OK;
}

static void *bind(const struct moe_gate *g, const struct moe_plan *plan, struct moe_work *work) {
    struct saved s = {0}, *out = moe_work_take_bytes(work, sizeof s);
    (void)plan;
    s.p = moe_work_take(work, (size_t)g->n_experts);
    s.dp = moe_work_take(work, (size_t)g->n_experts);
    if (out)
        *out = s;
    return out;
}

static void forward(const struct moe_gate *g, const struct moe_gate_io *io,
                    const struct moe_rows *x, struct moe_pass *pass, struct moe_route *route) {
    const struct conf *c = g->conf;
    struct saved *s = io->saved;
    int n = g->n_experts;
    (void)pass;
    if (n == 1)
        s->p[0] = 1;
    else if (c->softmax)
        moe_vec_softmax(1, n, io->w, s->p);
    else
        memcpy(s->p, io->w, (size_t)n * sizeof *s->p);
    moe_vec_fill_rows(x->n_rows, n, s->p, route->w);
}

static void backward(const struct moe_gate *g, const struct moe_gate_io *io,
                     const struct moe_rows *x, struct moe_pass *pass, const struct moe_route *route,
                     struct moe_route *d, float *dw, float *stats, const struct moe_rows_grad *dx) {
    const struct conf *c = g->conf;
    struct saved *s = io->saved;
    int n = g->n_experts;
    (void)pass;
    (void)route;
    (void)stats;
    (void)dx;
    if (n == 1)
        return;
    memset(s->dp, 0, (size_t)n * sizeof *s->dp);
    moe_vec_sum_rows(x->n_rows, n, d->w, s->dp);
    if (c->softmax)
        moe_vec_softmax_grad(1, n, s->p, s->dp, s->dp);
    moe_vec_add((size_t)n, s->dp, dw);
}

const struct moe_gate_ops moe_layer_constant_gate = {
    .name = "constant",
    .doc = "learned weights that do not depend on the row",
    .kind = MOE_ROUTE_WEIGHTS,
    .flags = MOE_GATE_LINEAR,
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .shape = shape,
    .bind = bind,
    .forward = forward,
    .backward = backward,
};

struct moe_gate_choice moe_layer_constant(struct moe_build *b, bool softmax) {
    struct conf *c = ARENA_NEW(b->a, struct conf);
    c->softmax = softmax;
    return (struct moe_gate_choice){&moe_layer_constant_gate, c};
}
