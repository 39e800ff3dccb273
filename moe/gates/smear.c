/* smear.c: soft merging of experts (Muqeeth et al., TMLR 2024; Lory, COLM 2024): g = softmax of a
 * router that sees the query part only (user and context); the experts' weights are blended once
 * a request, sum_e g_e W_e, and one network scores all its candidates: the cost of one expert, no
 * choice to be balanced, and a candidate's score does not depend on its rivals. Without a query
 * part (deeper levels, crossed inputs) the blend is a learned constant of the gate. */
#include <string.h>
#include "moe/router.h"
#include "moe/math/vec.h"

struct conf {
    struct moe_router_conf router;
};
static const struct conf_item items[] = {MOE_ROUTER_ITEMS(struct conf, router), CONF_END};

struct saved {
    struct moe_router router;
};

static enum status shape(struct moe_gate *g, struct conf_place place, struct arena *a) {
    const struct conf *c = g->conf;
    struct moe_gate query = *g;
    (void)a;
    if (g->dq == 0 && !c->router.bias)
        return fail(STATUS_INVALID_ARGUMENT,
                    "%s: %s.bias: without a query part the blend is the bias alone", place.file,
                    place.section);
    if (g->dq == 0) {
        moe_layout_add(&g->params, "b", 1, g->n_experts, MOE_INIT_ZERO, 0);
        g->flags |= c->router.dropout > 0 ? MOE_GATE_STOCHASTIC : 0;
        return STATUS_OK;
    }
    query.in = g->dq;
    moe_router_shape(&query, &c->router, g->n_experts);
    g->params = query.params;
    g->flags = query.flags;
    return STATUS_OK;
}

/* The groups as rows of a candidate part. */
static struct moe_rows queries(const struct moe_rows *x) {
    return (struct moe_rows){.n_rows = x->n_groups,
                             .n_groups = x->n_groups,
                             .dc = x->dq,
                             .c = x->q,
                             .c_from = x->q_from,
                             .group = x->group};
}

static void *bind(const struct moe_gate *g, const struct moe_plan *plan, struct moe_work *work) {
    const struct conf *c = g->conf;
    struct saved s, *out = moe_work_take_bytes(work, sizeof s);
    struct moe_plan groups = {plan->groups_max, plan->groups_max, plan->training};
    moe_router_bind(&c->router, 0, g->dq, g->n_experts, &groups, work, &s.router);
    if (out)
        *out = s;
    return out;
}

static void forward(const struct moe_gate *g, const struct moe_gate_io *io,
                    const struct moe_rows *x, struct moe_pass *pass, struct moe_route *route) {
    const struct conf *c = g->conf;
    struct saved *s = io->saved;
    struct moe_rows q = queries(x);
    if (x->q_ready) /* the same request: route->w stands as it was */
        return;
    moe_router_forward(&c->router, g->n_experts, io->w, &q, pass, &s->router);
    moe_router_softmax(q.n_rows, g->n_experts, s->router.h, route->w);
}

static void backward(const struct moe_gate *g, const struct moe_gate_io *io,
                     const struct moe_rows *x, struct moe_pass *pass, const struct moe_route *route,
                     struct moe_route *d, float *dw, float *stats, const struct moe_rows_grad *dx) {
    const struct conf *c = g->conf;
    struct saved *s = io->saved;
    struct moe_rows q = queries(x);
    struct moe_rows_grad dq = {.c = dx ? dx->q : NULL};
    (void)stats;
    moe_vec_softmax_grad(q.n_rows, g->n_experts, route->w, d->w, d->w);
    moe_router_backward(&c->router, g->n_experts, io->w, &q, pass, &s->router, d->w, dw, &dq);
}

const struct moe_gate_ops moe_gate_smear = {
    .name = "smear",
    .doc = "experts' weights blended once a request by the query part (SMEAR, Lory)",
    .kind = MOE_ROUTE_MERGE,
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .shape = shape,
    .bind = bind,
    .forward = forward,
    .backward = backward,
};
