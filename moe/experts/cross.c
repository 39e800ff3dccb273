/* cross.c: a cross network as an expert (DCN-v2, Wang et al., WWW 2021): a few low-rank cross
 * layers over the whole input, then a linear layer to the output's width. Beside perceptrons in one
 * mixture it brings products of inputs that they find hard to learn. */
#include "moe/cross.h"
#include "moe/expert.h"
#include "moe/linear.h"
#include "moe/math/vec.h"

struct conf {
    int64_t layers, rank, out;
    int act;
};
static const struct conf_item items[] = {
    CONF_INT(struct conf, layers, "layers", "2", 1, 4, "layers", "cross layers"),
    CONF_INT(struct conf, rank, "rank", "16", 1, 4096, "columns", "of each cross layer"),
    CONF_INT(struct conf, out, "out", "32", 1, 65536, "floats", "width of the output"),
    CONF_ENUM(struct conf, act, "act", "relu", MOE_ACT_CHOICES, "activation of the output"),
    CONF_END};

struct own { /* e->shape */
    struct moe_cross cross;
    size_t w, b;
};
struct saved {
    struct moe_cross_state *cross;
    struct moe_rows crossed;
    float *z; /* [rows x out] input of the activation, if that needs it */
};

static enum status shape(struct moe_expert *e, struct conf_place place, struct arena *a) {
    const struct conf *c = e->conf;
    struct own *o = ARENA_NEW(a, struct own);
    (void)place;
    moe_cross_declare(&o->cross, &e->layout, (int)c->layers, (int)c->rank, e->in);
    o->w = e->layout
               .f[moe_layout_add(&e->layout, "w", e->in, (int)c->out,
                                 c->act == MOE_ACT_NONE ? MOE_INIT_GLOROT : MOE_INIT_HE, 0)]
               .at;
    o->b = e->layout.f[moe_layout_add(&e->layout, "b", 1, (int)c->out, MOE_INIT_ZERO, 0)].at;
    e->out = (int)c->out;
    e->shape = o;
    return STATUS_OK;
}

static void *bind(const struct moe_expert *e, const struct moe_plan *plan, struct moe_work *work) {
    const struct conf *c = e->conf;
    const struct own *o = e->shape;
    struct saved s = {0}, *out = moe_work_take_bytes(work, sizeof s);
    s.cross = moe_cross_bind(&o->cross, plan, work);
    if (plan->training && moe_act_keeps_input((enum moe_act)c->act))
        s.z = moe_work_take(work, (size_t)plan->rows_max * (size_t)c->out);
    if (out)
        *out = s;
    return out;
}

static void forward(const struct moe_expert *e, const float *w, const struct moe_rows *x,
                    void *saved, struct moe_pass *pass, float *y) {
    const struct conf *c = e->conf;
    const struct own *o = e->shape;
    struct saved *s = saved;
    float *z = s->z ? s->z : y;
    (void)pass;
    moe_cross_forward(&o->cross, w, x, s->cross, &s->crossed);
    moe_linear_forward(&s->crossed, w + o->w, w + o->b, e->out, NULL, z);
    moe_vec_act((enum moe_act)c->act, (size_t)x->n_rows * (size_t)e->out, z, y);
}

static void backward(const struct moe_expert *e, const float *w, const struct moe_rows *x,
                     void *saved, const struct moe_pass *pass, const float *y, float *dy, float *dw,
                     const struct moe_rows_grad *dx) {
    static const struct moe_rows_grad nobody = {0};
    const struct conf *c = e->conf;
    const struct own *o = e->shape;
    struct saved *s = saved;
    (void)pass;
    moe_vec_act_grad((enum moe_act)c->act, (size_t)x->n_rows * (size_t)e->out, s->z ? s->z : y, dy);
    struct moe_rows_grad crossed = moe_cross_grad(&o->cross, s->cross, x->n_rows);
    moe_linear_backward(&s->crossed, w + o->w, e->out, dy, NULL, dw + o->w, dw + o->b, &crossed);
    moe_cross_backward(&o->cross, w, x, s->cross, dw, dx ? dx : &nobody);
}

static double flop(const struct moe_expert *e) {
    const struct conf *c = e->conf;
    return (double)c->layers * 4.0 * (double)c->rank * e->in + 2.0 * e->in * e->out;
}

const struct moe_expert_ops moe_expert_cross = {
    .name = "cross",
    .doc = "low-rank cross network (DCN-v2, WWW 2021)",
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .shape = shape,
    .bind = bind,
    .forward = forward,
    .backward = backward,
    .flop = flop,
};
