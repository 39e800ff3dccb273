/* expert_choice.c: experts choose rows (Zhou et al., NeurIPS 2022): over the rows of a request,
 * each expert takes the ceil(capacity * rows / N) with the greatest p = softmax(h), at weight p.
 * Loads are equal by construction; a row may get several experts or none. A row's score depends on
 * its rivals, so a request is the unit, here and in serving. */
#include <math.h>
#include <string.h>
#include "moe/choice.h"
#include "moe/router.h"
#include "moe/math/vec.h"

struct conf {
    struct moe_router_conf router;
    double capacity;
};
static const struct conf_item items[] = {CONF_FLOAT(struct conf, capacity, "capacity", "2", 0.01,
                                                    1000, "experts",
                                                    "mean number of experts of a row"),
                                         MOE_ROUTER_ITEMS(struct conf, router), CONF_END};

struct saved {
    struct moe_router router;
    float *p;      /* [rows x n] */
    uint64_t *key; /* [rows] */
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
    s.p = moe_work_take(work, (size_t)plan->rows_max * (size_t)g->n_experts);
    s.key = moe_work_take_bytes(work, (size_t)plan->rows_max * sizeof *s.key);
    if (out)
        *out = s;
    return out;
}

/* Rows [from, to) are one request: each expert takes its best. */
static void choose_rows(double capacity, int n, int from, int to, const struct saved *s, float *w) {
    int rows = to - from, most = (int)fmin(rows, ceil(capacity * rows / n));
    for (int e = 0; e < n; e++) {
        for (int i = 0; i < rows; i++) {
            uint32_t bits;
            memcpy(&bits, &s->p[(size_t)(from + i) * (size_t)n + (size_t)e], sizeof bits);
            s->key[i] = (uint64_t)~bits << 32 | (uint32_t)(from + i);
        }
        moe_sort_keys(s->key, rows);
        for (int i = 0; i < most; i++) {
            size_t at = (size_t)(uint32_t)s->key[i] * (size_t)n + (size_t)e;
            w[at] = s->p[at];
        }
    }
}

static void forward(const struct moe_gate *g, const struct moe_gate_io *io,
                    const struct moe_rows *x, struct moe_pass *pass, struct moe_route *route) {
    const struct conf *c = g->conf;
    struct saved *s = io->saved;
    int n = g->n_experts;
    moe_router_forward(&c->router, n, io->w, x, pass, &s->router);
    moe_router_softmax(x->n_rows, n, s->router.h, s->p);
    memset(route->w, 0, (size_t)x->n_rows * (size_t)n * sizeof *route->w);
    for (int from = 0, to; from < x->n_rows; from = to) {
        to = moe_rows_group_end(x, from);
        choose_rows(c->capacity, n, from, to, s, route->w);
    }
}

static void backward(const struct moe_gate *g, const struct moe_gate_io *io,
                     const struct moe_rows *x, struct moe_pass *pass, const struct moe_route *route,
                     struct moe_route *d, float *dw, float *stats, const struct moe_rows_grad *dx) {
    const struct conf *c = g->conf;
    struct saved *s = io->saved;
    int n = g->n_experts;
    (void)stats;
    for (size_t i = 0; i < (size_t)x->n_rows * (size_t)n; i++)
        d->w[i] = route->w[i] != 0 ? d->w[i] : 0;
    moe_vec_softmax_grad(x->n_rows, n, s->p, d->w, d->w);
    moe_router_backward(&c->router, n, io->w, x, pass, &s->router, d->w, dw, dx);
}

const struct moe_gate_ops moe_gate_expert_choice = {
    .name = "expert_choice",
    .doc = "each expert takes its best rows of a request (Expert Choice, NeurIPS 2022)",
    .kind = MOE_ROUTE_WEIGHTS,
    .flags = MOE_GATE_SPARSE | MOE_GATE_MIXES_ROWS | MOE_GATE_LINEAR,
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .shape = shape,
    .bind = bind,
    .forward = forward,
    .backward = backward,
};
