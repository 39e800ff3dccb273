/* sinkhorn.c: balanced choice by optimal transport (Clark et al., ICML 2022, S-BASE; Megatron's
 * code). In training, logits are shifted by one number g_e for each expert so that exp(h + f + g)
 * has equal sums over rows and over experts, and the k greatest of h + g are chosen:
 *
 *     f_t = -log sum_e exp(h_te + g_e),  g_e = -log sum_t exp(h_te + f_t) + log(T / N)
 *
 * all in logarithms (in plain numbers exp overflows beyond 88). Choices have no gradient; weights
 * are the sigmoid of h for k = 1, else the softmax of h. In serving there is no shift: rows are
 * independent, and loads are only as balanced as training made them. */
#include <math.h>
#include <string.h>
#include "moe/balance.h"
#include "moe/choice.h"
#include "moe/router.h"
#include "moe/math/vec.h"

struct conf {
    struct moe_router_conf router;
    int64_t k, iterations;
    double tolerance;
};
static const struct conf_item items[] = {
    MOE_K_ITEM(struct conf, k, "1", 1),
    CONF_INT(struct conf, iterations, "iterations", "20", 1, 10000, NULL,
             "most rounds of balancing, in training"),
    CONF_FLOAT(struct conf, tolerance, "tolerance", "1e-4", 0, 1, NULL,
               "balancing ends when no shift moves by more"),
    MOE_ROUTER_ITEMS(struct conf, router), CONF_END};

struct saved {
    struct moe_router router;
    struct moe_choice choice;
    float *v;               /* [rows x n] sigmoid or softmax of h */
    float *shifted;         /* [rows x n] */
    double *g, *most, *sum; /* [n] */
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
    struct saved s = {0}, *out = moe_work_take_bytes(work, sizeof s);
    int n = g->n_experts;
    moe_router_bind(&c->router, g->dq, g->in, n, plan, work, &s.router);
    moe_choice_bind(moe_choice_k(c->k, n), n, plan, work, &s.choice);
    s.v = moe_work_take(work, (size_t)plan->rows_max * (size_t)n);
    if (plan->training) {
        s.shifted = moe_work_take(work, (size_t)plan->rows_max * (size_t)n);
        s.g = moe_work_take_bytes(work, (size_t)n * sizeof *s.g);
        s.most = moe_work_take_bytes(work, (size_t)n * sizeof *s.most);
        s.sum = moe_work_take_bytes(work, (size_t)n * sizeof *s.sum);
    }
    if (out)
        *out = s;
    return out;
}

/* f of one row; the withheld take no part, here and below */
static double row_shift(int n, const float *h, const double *g) {
    double most = -INFINITY, sum = 0;
    for (int e = 0; e < n; e++)
        most = moe_withheld(h[e]) ? most : fmax(most, (double)h[e] + g[e]);
    for (int e = 0; e < n; e++)
        sum += moe_withheld(h[e]) ? 0 : exp((double)h[e] + g[e] - most);
    return -(most + log(sum));
}

/* One round; the largest move of a shift. most, sum: a running log-sum-exp of each column. */
static double round_of(int rows, int n, const float *h, struct saved *s) {
    double moved = 0;
    for (int e = 0; e < n; e++) {
        s->most[e] = -INFINITY;
        s->sum[e] = 0;
    }
    for (int r = 0; r < rows; r++) {
        const float *hr = h + (size_t)r * (size_t)n;
        double f = row_shift(n, hr, s->g);
        for (int e = 0; e < n; e++) {
            double x = (double)hr[e] + f;
            if (moe_withheld(hr[e]))
                continue;
            if (x > s->most[e]) {
                s->sum[e] = s->sum[e] * exp(s->most[e] - x) + 1;
                s->most[e] = x;
            } else {
                s->sum[e] += exp(x - s->most[e]);
            }
        }
    }
    for (int e = 0; e < n; e++) {
        double g = s->sum[e] > 0 ? log((double)rows / n) - s->most[e] - log(s->sum[e]) : 0;
        moved = fmax(moved, fabs(g - s->g[e]));
        s->g[e] = g;
    }
    return moved;
}

static const float *balance(const struct conf *c, int rows, int n, struct saved *s) {
    memset(s->g, 0, (size_t)n * sizeof *s->g);
    for (int64_t i = 0; i < c->iterations; i++)
        if (round_of(rows, n, s->router.h, s) <= c->tolerance)
            break;
    for (int r = 0; r < rows; r++)
        for (int e = 0; e < n; e++) {
            size_t at = (size_t)r * (size_t)n + (size_t)e;
            float h = s->router.h[at];
            s->shifted[at] = moe_withheld(h) ? MOE_WITHHELD : (float)((double)h + s->g[e]);
        }
    return s->shifted;
}

static void forward(const struct moe_gate *g, const struct moe_gate_io *io,
                    const struct moe_rows *x, struct moe_pass *pass, struct moe_route *route) {
    const struct conf *c = g->conf;
    struct saved *s = io->saved;
    int n = g->n_experts, k = moe_choice_k(c->k, n), rows = x->n_rows;
    moe_router_forward(&c->router, n, io->w, x, pass, &s->router);
    if (c->k == 1)
        moe_router_sigmoid(rows, n, s->router.h, s->v);
    else
        moe_router_softmax(rows, n, s->router.h, s->v);
    const float *score = pass->training && rows ? balance(c, rows, n, s) : s->router.h;
    moe_choice_pick(NULL, rows, k, n, score, &s->choice);
    memset(route->w, 0, (size_t)rows * (size_t)n * sizeof *route->w);
    for (size_t i = 0; i < (size_t)rows * (size_t)k; i++) {
        size_t at = i / (size_t)k * (size_t)n + (size_t)s->choice.pick[i];
        route->w[at] = s->v[at];
    }
}

static void backward(const struct moe_gate *g, const struct moe_gate_io *io,
                     const struct moe_rows *x, struct moe_pass *pass, const struct moe_route *route,
                     struct moe_route *d, float *dw, float *stats, const struct moe_rows_grad *dx) {
    const struct conf *c = g->conf;
    struct saved *s = io->saved;
    int n = g->n_experts;
    (void)stats;
    for (size_t i = 0; i < (size_t)x->n_rows * (size_t)n; i++) {
        float v = s->v[i], by = c->k == 1 ? v * (1 - v) : 1;
        d->w[i] = route->w[i] != 0 ? d->w[i] * by : 0;
    }
    if (c->k > 1)
        moe_vec_softmax_grad(x->n_rows, n, s->v, d->w, d->w);
    moe_router_backward(&c->router, n, io->w, x, pass, &s->router, d->w, dw, dx);
}

const struct moe_gate_ops moe_gate_sinkhorn = {
    .name = "sinkhorn",
    .doc = "choices balanced by optimal transport in training (S-BASE, ICML 2022)",
    .kind = MOE_ROUTE_WEIGHTS,
    .flags = MOE_GATE_SPARSE | MOE_GATE_LINEAR,
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .shape = shape,
    .bind = bind,
    .forward = forward,
    .backward = backward,
};
