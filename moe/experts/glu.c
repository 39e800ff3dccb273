/* glu.c: gated linear unit (Dauphin et al. 2017; Shazeer, "GLU Variants Improve Transformer",
 * 2020):
 *
 *     h = act(x W_g + b_g) * (x W_u + b_u)        y = act_out(h W_d + b_d)
 *
 * SwiGLU with act silu, GeGLU with gelu, ReGLU with relu, the bilinear form with none. Gate and
 * value are the halves of one product. */
#include <string.h>
#include "moe/expert.h"
#include "moe/linear.h"
#include "moe/math/vec.h"

struct conf {
    int64_t hidden, out;
    int act;
    bool out_act;
};
static const struct conf_item items[] = {
    CONF_INT(struct conf, hidden, "hidden", "64", 1, 65536, "floats", "width of gate and of value"),
    CONF_INT(struct conf, out, "out", "32", 1, 65536, "floats", "width of the output"),
    CONF_ENUM(struct conf, act, "act", "silu", MOE_ACT_CHOICES, "activation of the gate"),
    CONF_BOOL(struct conf, out_act, "out_act", "true", "the output has the activation too"),
    CONF_END};

enum { F_W, F_B, F_WD, F_BD }; /* fields of the run */

struct saved {
    float *qy, *qdy; /* [groups x 2 hidden] */
    float *z, *dz;   /* [rows x 2 hidden] gate's input | value, and their gradient */
    float *a;        /* [rows x hidden] act of the gate's input */
    float *h, *dh;   /* [rows x hidden] */
    float *zy;       /* [rows x out] input of act_out, if that needs it */
    uint64_t key;    /* dropout */
};

static enum status shape(struct moe_expert *e, struct conf_place place, struct arena *a) {
    const struct conf *c = e->conf;
    int h = (int)c->hidden, out = (int)c->out;
    (void)place;
    (void)a;
    moe_layout_add(&e->layout, "w", e->in, 2 * h, MOE_INIT_GLOROT, 0);
    moe_layout_add(&e->layout, "b", 1, 2 * h, MOE_INIT_ZERO, 0);
    moe_layout_add(&e->layout, "w_down", h, out, c->out_act ? MOE_INIT_HE : MOE_INIT_GLOROT, 0);
    moe_layout_add(&e->layout, "b_down", 1, out, MOE_INIT_ZERO, 0);
    e->out = out;
    return STATUS_OK;
}

static void *bind(const struct moe_expert *e, const struct moe_plan *plan, struct moe_work *work) {
    const struct conf *c = e->conf;
    struct saved s = {0}, *out = moe_work_take_bytes(work, sizeof s);
    size_t rows = (size_t)plan->rows_max, h = (size_t)c->hidden;
    int wide = 2 * (int)c->hidden;
    s.qy = moe_work_take(work, moe_linear_scratch(plan->groups_max, e->dq, wide));
    s.z = moe_work_take(work, rows * 2 * h);
    s.a = moe_work_take(work, rows * h);
    s.h = moe_work_take(work, rows * h);
    if (plan->training) {
        s.qdy = moe_work_take(work, moe_linear_scratch(plan->groups_max, e->dq, wide));
        s.dz = moe_work_take(work, rows * 2 * h);
        s.dh = moe_work_take(work, rows * h);
        if (c->out_act && moe_act_keeps_input((enum moe_act)c->act))
            s.zy = moe_work_take(work, rows * (size_t)c->out);
    }
    if (out)
        *out = s;
    return out;
}

MOE_CLONES static void multiply(size_t n, const float *restrict a, const float *restrict b,
                                float *restrict y) {
    for (size_t i = 0; i < n; i++)
        y[i] = a[i] * b[i];
}

static struct moe_rows hidden_rows(const struct moe_rows *x, int n, const float *h) {
    return (struct moe_rows){
        .n_rows = x->n_rows, .n_groups = x->n_groups, .dc = n, .c = h, .group = x->group};
}

static void forward(const struct moe_expert *e, const float *w, const struct moe_rows *x,
                    void *saved, struct moe_pass *pass, float *y) {
    const struct conf *c = e->conf;
    const struct moe_field *f = e->layout.f;
    struct saved *s = saved;
    size_t rows = (size_t)x->n_rows, h = (size_t)c->hidden;
    moe_linear_forward(x, w + f[F_W].at, w + f[F_B].at, 2 * (int)h, s->qy, s->z);
    for (size_t r = 0; r < rows; r++) {
        moe_vec_act((enum moe_act)c->act, h, s->z + r * 2 * h, s->a + r * h);
        multiply(h, s->a + r * h, s->z + r * 2 * h + h, s->h + r * h);
    }
    if (pass->training && pass->dropout > 0) {
        s->key = rng_u64(pass->rng);
        moe_vec_dropout(rows * h, pass->dropout, s->key, s->h);
    }
    struct moe_rows hidden = hidden_rows(x, (int)h, s->h);
    float *z = s->zy ? s->zy : y;
    moe_linear_forward(&hidden, w + f[F_WD].at, w + f[F_BD].at, e->out, NULL, z);
    if (c->out_act)
        moe_vec_act((enum moe_act)c->act, rows * (size_t)e->out, z, y);
}

static void backward(const struct moe_expert *e, const float *w, const struct moe_rows *x,
                     void *saved, const struct moe_pass *pass, const float *y, float *dy, float *dw,
                     const struct moe_rows_grad *dx) {
    const struct conf *c = e->conf;
    const struct moe_field *f = e->layout.f;
    struct saved *s = saved;
    size_t rows = (size_t)x->n_rows, h = (size_t)c->hidden;
    if (c->out_act)
        moe_vec_act_grad((enum moe_act)c->act, rows * (size_t)e->out, s->zy ? s->zy : y, dy);
    memset(s->dh, 0, rows * h * sizeof *s->dh);
    struct moe_rows hidden = hidden_rows(x, (int)h, s->h);
    moe_linear_backward(&hidden, w + f[F_WD].at, e->out, dy, NULL, dw + f[F_WD].at, dw + f[F_BD].at,
                        &(struct moe_rows_grad){.c = s->dh});
    if (pass->training && pass->dropout > 0)
        moe_vec_dropout(rows * h, pass->dropout, s->key, s->dh);
    for (size_t r = 0; r < rows; r++) {
        const float *z = s->z + r * 2 * h, *a = s->a + r * h, *dh = s->dh + r * h;
        float *dz = s->dz + r * 2 * h;
        multiply(h, dh, z + h, dz);
        moe_vec_act_grad((enum moe_act)c->act, h, moe_act_keeps_input((enum moe_act)c->act) ? z : a,
                         dz);
        multiply(h, dh, a, dz + h);
    }
    moe_linear_backward(x, w + f[F_W].at, 2 * (int)h, s->dz, s->qdy, dw + f[F_W].at, dw + f[F_B].at,
                        dx);
}

static double flop(const struct moe_expert *e) {
    const struct conf *c = e->conf;
    return 2.0 * (e->in - e->dq) * 2.0 * (double)c->hidden + 2.0 * (double)c->hidden * e->out;
}

const struct moe_expert_ops moe_expert_glu = {
    .name = "glu",
    .doc = "gated linear unit: SwiGLU, GeGLU, ReGLU, bilinear (2017, 2020)",
    .items = items,
    .linear_only = true,
    .conf_bytes = sizeof(struct conf),
    .shape = shape,
    .bind = bind,
    .forward = forward,
    .backward = backward,
    .flop = flop,
};
