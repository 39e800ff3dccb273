/* router.c: logits of a gate and their gradient. Everything random happens in training only, and
 * the backward pass sees the same masks: they stand in h and in the factors. */
#include "moe/router.h"
#include <string.h>
#include "moe/balance.h"
#include "moe/linear.h"
#include "moe/math/vec.h"

void moe_router_shape(struct moe_gate *g, const struct moe_router_conf *c, int n) {
    moe_layout_add(&g->params, "w", g->in, n, MOE_INIT_GLOROT, 0);
    if (c->bias)
        moe_layout_add(&g->params, "b", 1, n, MOE_INIT_ZERO, 0);
    if (c->jitter > 0 || c->dropout > 0)
        g->flags |= MOE_GATE_STOCHASTIC;
    if (c->jitter > 0) /* multiplies each column of a row */
        g->flags &= ~(unsigned)MOE_GATE_LINEAR;
}

void moe_router_bind(const struct moe_router_conf *c, int dq, int in, int n,
                     const struct moe_plan *plan, struct moe_work *work, struct moe_router *s) {
    size_t rows = (size_t)plan->rows_max, query = (size_t)plan->groups_max * (size_t)dq;
    size_t cand = rows * (size_t)(in - dq);
    *s = (struct moe_router){.h = moe_work_take(work, rows * (size_t)n)};
    s->qy = moe_work_take(work, moe_linear_scratch(plan->groups_max, dq, n));
    if (!plan->training)
        return;
    s->qdy = moe_work_take(work, moe_linear_scratch(plan->groups_max, dq, n));
    if (c->jitter > 0) {
        s->factor_q = moe_work_take(work, query);
        s->factor_c = moe_work_take(work, cand);
        s->q = moe_work_take(work, query);
        s->c = moe_work_take(work, cand);
        s->dq = moe_work_take(work, query);
        s->dc = moe_work_take(work, cand);
    }
}

static void jitter(size_t n, float by, struct rng *rng, const float *x, float *factor, float *y) {
    for (size_t i = 0; i < n; i++) {
        factor[i] = 1 + by * (2 * rng_float(rng) - 1);
        y[i] = factor[i] * x[i];
    }
}

/* The rows as the product sees them. */
static struct moe_rows seen(const struct moe_router_conf *c, const struct moe_rows *x,
                            const struct moe_pass *pass, const struct moe_router *s) {
    struct moe_rows y = *x;
    if (pass->training && c->jitter > 0) {
        y.q = s->q;
        y.c = s->c;
        y.fold = NULL;
        y.key = 0;
        y.fold_q = y.fold_c = NULL;
    }
    return y;
}

static void withhold(int rows, int n, double rate, struct rng *rng, float *h) {
    for (int r = 0; r < rows; r++) {
        float *hr = h + (size_t)r * (size_t)n;
        struct rng again = *rng; /* the row's draws, read twice */
        int kept = 0;
        for (int e = 0; e < n; e++)
            kept += rng_double(rng) >= rate;
        for (int e = 0; e < n && kept; e++)
            if (rng_double(&again) < rate)
                hr[e] = MOE_WITHHELD;
    }
}

void moe_router_forward(const struct moe_router_conf *c, int n, const float *w,
                        const struct moe_rows *x, struct moe_pass *pass, struct moe_router *s) {
    size_t in = (size_t)moe_rows_columns(x), all = (size_t)x->n_rows * (size_t)n;
    if (pass->training && c->jitter > 0) {
        jitter((size_t)x->n_groups * (size_t)x->dq, (float)c->jitter, pass->rng, x->q, s->factor_q,
               s->q);
        jitter((size_t)x->n_rows * (size_t)x->dc, (float)c->jitter, pass->rng, x->c, s->factor_c,
               s->c);
    }
    struct moe_rows y = seen(c, x, pass, s);
    moe_linear_forward(&y, w, c->bias ? w + in * (size_t)n : NULL, n, s->qy, s->h);
    if (c->temperature != 1)
        for (size_t i = 0; i < all; i++)
            s->h[i] *= (float)(1 / c->temperature);
    if (!pass->training)
        return;
    if (c->dropout > 0)
        withhold(x->n_rows, n, c->dropout, pass->rng, s->h);
    if (c->z_loss > 0)
        pass->aux += (double)pass->share * c->z_loss * moe_z_loss(x->n_rows, n, s->h);
}

static void add_scaled(int rows, int n, int from, const float *factor, const float *d, float *to) {
    for (int r = 0; r < rows; r++)
        for (int i = from; i < n; i++) {
            size_t at = (size_t)r * (size_t)n + (size_t)i;
            to[at] += factor[at] * d[at];
        }
}

void moe_router_backward(const struct moe_router_conf *c, int n, const float *w,
                         const struct moe_rows *x, const struct moe_pass *pass,
                         struct moe_router *s, float *dh, float *dw,
                         const struct moe_rows_grad *dx) {
    size_t in = (size_t)moe_rows_columns(x), all = (size_t)x->n_rows * (size_t)n;
    float *db = c->bias ? dw + in * (size_t)n : NULL;
    if (pass->training && c->z_loss > 0)
        moe_z_loss_grad(x->n_rows, n, s->h, (double)pass->share * c->z_loss, dh);
    for (size_t i = 0; i < all; i++)
        dh[i] = moe_withheld(s->h[i]) ? 0 : dh[i] * (float)(1 / c->temperature);
    struct moe_rows y = seen(c, x, pass, s);
    if (y.c == x->c || !dx) {
        moe_linear_backward(&y, w, n, dh, s->qdy, dw, db, dx);
        return;
    }
    struct moe_rows_grad d = {.q = dx->q ? s->dq : NULL, .c = dx->c ? s->dc : NULL};
    memset(s->dq, 0, (size_t)x->n_groups * (size_t)x->dq * sizeof(float));
    memset(s->dc, 0, (size_t)x->n_rows * (size_t)x->dc * sizeof(float));
    moe_linear_backward(&y, w, n, dh, s->qdy, dw, db, &d);
    if (d.q)
        add_scaled(x->n_groups, x->dq, x->q_from, s->factor_q, s->dq, dx->q);
    if (d.c)
        add_scaled(x->n_rows, x->dc, x->c_from, s->factor_c, s->dc, dx->c);
}

void moe_router_softmax(int rows, int n, const float *h, float *p) {
    moe_vec_softmax(rows, n, h, p);
    for (size_t i = 0; i < (size_t)rows * (size_t)n; i++)
        p[i] = moe_withheld(h[i]) ? 0 : p[i];
}
void moe_router_sigmoid(int rows, int n, const float *h, float *s) {
    moe_vec_sigmoid((size_t)rows * (size_t)n, h, s);
    for (size_t i = 0; i < (size_t)rows * (size_t)n; i++)
        s[i] = moe_withheld(h[i]) ? 0 : s[i];
}
