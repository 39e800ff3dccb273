/* mlp.c: the common expert: a perceptron (moe/mlp.h) with an active output, as in MMoE. norm: batch
 * normalises its layers by columns; for normalisation by rows see the home expert. */
#include "moe/experts/mlp.h"

enum { NORM_NONE, NORM_BATCH };

struct conf {
    struct conf_numbers hidden;
    int64_t out;
    int act;
    bool out_act;
    int norm;
};
static const struct conf_item items[] = {
    CONF_NUMBERS(struct conf, hidden, "hidden", "[64]", 1, 65536, "widths of the hidden layers"),
    CONF_INT(struct conf, out, "out", "32", 1, 65536, "floats", "width of the output"),
    CONF_ENUM(struct conf, act, "act", "relu", MOE_ACT_CHOICES, "activation"),
    CONF_BOOL(struct conf, out_act, "out_act", "true", "the output has the activation too"),
    CONF_ENUM(struct conf, norm, "norm", "none", "none|batch",
              "normalises what has the activation, before it: by the batch in training, by running "
              "statistics in serving, where it is folded into the weights"),
    CONF_END};

static enum status shape(struct moe_expert *e, struct conf_place place, struct arena *a) {
    const struct conf *c = e->conf;
    int hidden[MOE_MLP_LAYERS_MAX];
    if (c->hidden.n >= MOE_MLP_LAYERS_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "%s: %s.hidden: at most %d layers", place.file,
                    place.section, MOE_MLP_LAYERS_MAX - 1);
    for (int i = 0; i < c->hidden.n; i++)
        hidden[i] = (int)c->hidden.v[i];
    struct moe_mlp *m = ARENA_NEW(a, struct moe_mlp);
    moe_mlp_declare(m, &e->layout, e->in, hidden, c->hidden.n, (int)c->out, (enum moe_act)c->act,
                    c->out_act);
    if (c->norm == NORM_BATCH)
        moe_mlp_add_norm(m, &e->layout, &e->buffers, &e->n_stats);
    e->out = (int)c->out;
    e->shape = m;
    return STATUS_OK;
}

static void *bind(const struct moe_expert *e, const struct moe_plan *plan, struct moe_work *work) {
    return moe_mlp_bind(e->shape, e->dq, plan, work);
}
static void forward(const struct moe_expert *e, const float *w, const struct moe_rows *x,
                    void *saved, struct moe_pass *pass, float *y) {
    moe_mlp_forward(e->shape, w, x, saved, pass, y);
}
static void backward(const struct moe_expert *e, const float *w, const struct moe_rows *x,
                     void *saved, const struct moe_pass *pass, const float *y, float *dy, float *dw,
                     const struct moe_rows_grad *dx) {
    moe_mlp_backward(e->shape, w, x, saved, pass, y, dy, dw, dx);
}
static void after_step(const struct moe_expert *e, const float *stats, float *buffers) {
    moe_mlp_after_step(e->shape, stats, buffers);
}
static double flop(const struct moe_expert *e) { return moe_mlp_flop(e->shape, e->dq); }

const struct moe_expert_ops moe_expert_mlp = {
    .name = "mlp",
    .doc = "multi-layer perceptron",
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .linear_only = true,
    .shape = shape,
    .bind = bind,
    .forward = forward,
    .backward = backward,
    .after_step = after_step,
    .flop = flop,
};
