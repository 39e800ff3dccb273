/* home.c: HoME's expert (Wang et al., arXiv 2408.05430, 2024): a perceptron whose output is
 * normalised before its activation, so that no expert is louder than the others (the cure of
 * "expert collapse"), and optionally a feature gate, by which experts see the input differently:
 *
 *     x' = x * 2 sigmoid(x A B)         A [in x rank], B [rank x in]; rank 0: x' = x
 *     y  = act(norm(mlp(x')))
 *
 * Layer norm in place of the paper's batch norm: a row's result must not depend on its batch. */
#include <string.h>
#include "moe/math/blas.h"
#include "moe/expert.h"
#include "moe/mlp.h"
#include "moe/norm.h"

struct conf {
    struct conf_numbers hidden;
    int64_t out, rank;
    int act;
};
static const struct conf_item items[] = {
    CONF_NUMBERS(struct conf, hidden, "hidden", "[64]", 1, 65536, "widths of the hidden layers"),
    CONF_INT(struct conf, out, "out", "32", 1, 65536, "floats", "width of the output"),
    CONF_ENUM(struct conf, act, "act", "silu", MOE_ACT_CHOICES, "activation"),
    CONF_INT(struct conf, rank, "feature_rank", "0", 0, 4096, "columns",
             "of the feature gate; 0: none"),
    CONF_END};

struct own { /* e->shape */
    struct moe_mlp mlp;
    size_t gain, bias, a, b; /* floats from the run's start */
};
struct saved {
    struct moe_mlp_saved *mlp;
    float *xhat, *rstd, *z; /* [rows x out], [rows], [rows x out] input of the last activation */
    /* feature gate */
    float *x, *s, *low; /* [rows x in] joined input, sigmoid; [rows x rank] */
    float *gated, *dgated, *dlow, *dx;
};

static enum status shape(struct moe_expert *e, struct conf_place place, struct arena *a) {
    const struct conf *c = e->conf;
    int hidden[MOE_MLP_LAYERS_MAX];
    struct own *o = ARENA_NEW(a, struct own);
    if (c->hidden.n >= MOE_MLP_LAYERS_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "%s: %s.hidden: at most %d layers", place.file,
                    place.section, MOE_MLP_LAYERS_MAX - 1);
    for (int i = 0; i < c->hidden.n; i++)
        hidden[i] = (int)c->hidden.v[i];
    moe_mlp_declare(&o->mlp, &e->layout, e->in, hidden, c->hidden.n, (int)c->out,
                    (enum moe_act)c->act, false);
    o->gain = e->layout.f[moe_layout_add(&e->layout, "gain", 1, (int)c->out, MOE_INIT_ONE, 0)].at;
    o->bias = e->layout.f[moe_layout_add(&e->layout, "bias", 1, (int)c->out, MOE_INIT_ZERO, 0)].at;
    if (c->rank) {
        int rank = (int)c->rank;
        o->a =
            e->layout.f[moe_layout_add(&e->layout, "gate_a", e->in, rank, MOE_INIT_GLOROT, 0)].at;
        o->b =
            e->layout.f[moe_layout_add(&e->layout, "gate_b", rank, e->in, MOE_INIT_GLOROT, 0)].at;
    }
    e->out = (int)c->out;
    e->shape = o;
    return STATUS_OK;
}

static void *bind(const struct moe_expert *e, const struct moe_plan *plan, struct moe_work *work) {
    const struct conf *c = e->conf;
    const struct own *o = e->shape;
    struct saved s = {0}, *out = moe_work_take_bytes(work, sizeof s);
    size_t rows = (size_t)plan->rows_max, wide = c->rank ? rows * (size_t)e->in : 0;
    size_t thin = rows * (size_t)c->rank;
    s.mlp = moe_mlp_bind(&o->mlp, c->rank ? 0 : e->dq, plan, work);
    s.xhat = moe_work_take(work, rows * (size_t)e->out);
    s.rstd = moe_work_take(work, rows);
    s.z = moe_work_take(work, rows * (size_t)e->out);
    s.x = moe_work_take(work, wide);
    s.s = moe_work_take(work, wide);
    s.low = moe_work_take(work, thin);
    s.gated = moe_work_take(work, wide);
    if (plan->training) {
        s.dgated = moe_work_take(work, wide);
        s.dx = moe_work_take(work, wide);
        s.dlow = moe_work_take(work, thin);
    }
    if (out)
        *out = s;
    return out;
}

/* --- the feature gate ----------------------------------------------------------------------------
 */

static void join(const struct moe_rows *x, float *out) {
    size_t dq = (size_t)x->dq, dc = (size_t)x->dc, d = dq + dc;
    for (size_t r = 0; r < (size_t)x->n_rows; r++) {
        if (dq)
            memcpy(out + r * d, x->q + (size_t)x->group[r] * dq, dq * sizeof *out);
        if (dc)
            memcpy(out + r * d + dq, x->c + r * dc, dc * sizeof *out);
    }
}

MOE_CLONES static void gate_values(size_t n, const float *restrict x, const float *restrict s,
                                   float *restrict y) {
    for (size_t i = 0; i < n; i++)
        y[i] = 2 * x[i] * s[i];
}
/* dx = 2 s dy; ds = 2 x dy s (1 - s), into dy */
MOE_CLONES static void gate_grads(size_t n, const float *restrict x, const float *restrict s,
                                  float *restrict dy, float *restrict dx) {
    for (size_t i = 0; i < n; i++) {
        dx[i] = 2 * s[i] * dy[i];
        dy[i] = 2 * x[i] * dy[i] * s[i] * (1 - s[i]);
    }
}

static struct moe_rows gated_rows(const struct moe_rows *x, const float *c) {
    return (struct moe_rows){.n_rows = x->n_rows,
                             .n_groups = x->n_groups,
                             .dc = x->dq + x->dc,
                             .c = c,
                             .group = x->group};
}

static struct moe_rows gate_forward(const struct moe_expert *e, const float *w,
                                    const struct moe_rows *x, struct saved *s) {
    const struct own *o = e->shape;
    int R = x->n_rows, d = e->in, k = (int)((const struct conf *)e->conf)->rank;
    size_t n = (size_t)R * (size_t)d;
    join(x, s->x);
    moe_gemm(0, 0, R, k, d, s->x, d, w + o->a, k, 0, s->low, k);
    moe_gemm(0, 0, R, d, k, s->low, k, w + o->b, d, 0, s->s, d);
    moe_vec_sigmoid(n, s->s, s->s);
    gate_values(n, s->x, s->s, s->gated);
    return gated_rows(x, s->gated);
}

/* From s->dgated to dw and dx. */
static void gate_backward(const struct moe_expert *e, const float *w, const struct moe_rows *x,
                          struct saved *s, float *dw, const struct moe_rows_grad *dx) {
    const struct own *o = e->shape;
    int R = x->n_rows, d = e->in, k = (int)((const struct conf *)e->conf)->rank;
    size_t dq = (size_t)x->dq, dc = (size_t)x->dc;
    gate_grads((size_t)R * (size_t)d, s->x, s->s, s->dgated, s->dx);
    moe_gemm(1, 0, k, d, R, s->low, k, s->dgated, d, 1, dw + o->b, d);
    moe_gemm(0, 1, R, k, d, s->dgated, d, w + o->b, d, 0, s->dlow, k);
    moe_gemm(1, 0, d, k, R, s->x, d, s->dlow, k, 1, dw + o->a, k);
    moe_gemm(0, 1, R, d, k, s->dlow, k, w + o->a, k, 1, s->dx, d);
    for (size_t r = 0; dx && r < (size_t)R; r++) {
        if (dx->q && dq)
            moe_vec_add(dq, s->dx + r * (size_t)d, dx->q + (size_t)x->group[r] * dq);
        if (dx->c && dc)
            moe_vec_add(dc, s->dx + r * (size_t)d + dq, dx->c + r * dc);
    }
}

/* --- the expert
 * ------------------------------------------------------------------------------------ */

static void forward(const struct moe_expert *e, const float *w, const struct moe_rows *x,
                    void *saved, struct moe_pass *pass, float *y) {
    const struct conf *c = e->conf;
    const struct own *o = e->shape;
    struct saved *s = saved;
    struct moe_rows in = c->rank ? gate_forward(e, w, x, s) : *x;
    moe_mlp_forward(&o->mlp, w, &in, s->mlp, pass, s->z);
    moe_norm_forward(x->n_rows, e->out, s->z, w + o->gain, w + o->bias, s->xhat, s->rstd, s->z);
    moe_vec_act((enum moe_act)c->act, (size_t)x->n_rows * (size_t)e->out, s->z, y);
}

static void backward(const struct moe_expert *e, const float *w, const struct moe_rows *x,
                     void *saved, const struct moe_pass *pass, const float *y, float *dy, float *dw,
                     const struct moe_rows_grad *dx) {
    const struct conf *c = e->conf;
    const struct own *o = e->shape;
    struct saved *s = saved;
    size_t n = (size_t)x->n_rows * (size_t)e->out;
    moe_vec_act_grad((enum moe_act)c->act, n, moe_act_keeps_input((enum moe_act)c->act) ? s->z : y,
                     dy);
    moe_norm_backward(x->n_rows, e->out, s->xhat, s->rstd, w + o->gain, dy, dw + o->gain,
                      dw + o->bias);
    if (!c->rank) {
        moe_mlp_backward(&o->mlp, w, x, s->mlp, pass, s->z, dy, dw, dx);
        return;
    }
    struct moe_rows in = gated_rows(x, s->gated);
    memset(s->dgated, 0, (size_t)x->n_rows * (size_t)e->in * sizeof *s->dgated);
    moe_mlp_backward(&o->mlp, w, &in, s->mlp, pass, s->z, dy, dw,
                     &(struct moe_rows_grad){.c = s->dgated});
    gate_backward(e, w, x, s, dw, dx);
}

static double flop(const struct moe_expert *e) {
    const struct conf *c = e->conf;
    const struct own *o = e->shape;
    return moe_mlp_flop(&o->mlp, c->rank ? 0 : e->dq) + 4.0 * (double)c->rank * e->in;
}

const struct moe_expert_ops moe_expert_home = {
    .name = "home",
    .doc = "perceptron with a normalised output and a feature gate (HoME, 2024)",
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .shape = shape,
    .bind = bind,
    .forward = forward,
    .backward = backward,
    .flop = flop,
};
