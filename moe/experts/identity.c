/* identity.c: an expert without numbers: its input as it is, or nothing at all (a null expert, as
 * in AdaMoE 2024: a row that needs no more work is sent there). */
#include <string.h>
#include "moe/expert.h"
#include "moe/math/vec.h"

struct conf {
    bool zero;
    int64_t out;
};
static const struct conf_item items[] = {
    CONF_BOOL(struct conf, zero, "zero", "false", "the output is zero, of width `out`"),
    CONF_INT(struct conf, out, "out", "0", 0, 65536, "floats",
             "width of the output; 0: as wide as the input, which an identity has to be"),
    CONF_END};

static enum status shape(struct moe_expert *e, struct conf_place place, struct arena *a) {
    const struct conf *c = e->conf;
    (void)a;
    if (!c->zero && c->out && c->out != e->in)
        return fail(STATUS_INVALID_ARGUMENT,
                    "%s: %s: an identity expert is as wide as its input, %d, not %lld", place.file,
                    place.section, e->in, (long long)c->out);
    e->out = c->out ? (int)c->out : e->in;
    return STATUS_OK;
}

static void *bind(const struct moe_expert *e, const struct moe_plan *plan, struct moe_work *work) {
    (void)e;
    (void)plan;
    (void)work;
    return NULL;
}

static void forward(const struct moe_expert *e, const float *w, const struct moe_rows *x,
                    void *saved, struct moe_pass *pass, float *y) {
    const struct conf *c = e->conf;
    size_t dq = (size_t)x->dq, dc = (size_t)x->dc, d = dq + dc;
    (void)w;
    (void)saved;
    (void)pass;
    if (c->zero) {
        memset(y, 0, (size_t)x->n_rows * (size_t)e->out * sizeof *y);
        return;
    }
    for (size_t r = 0; r < (size_t)x->n_rows; r++) {
        if (dq)
            memcpy(y + r * d, x->q + (size_t)x->group[r] * dq, dq * sizeof *y);
        if (dc)
            memcpy(y + r * d + dq, x->c + r * dc, dc * sizeof *y);
    }
}

static void backward(const struct moe_expert *e, const float *w, const struct moe_rows *x,
                     void *saved, const struct moe_pass *pass, const float *y, float *dy, float *dw,
                     const struct moe_rows_grad *dx) {
    const struct conf *c = e->conf;
    size_t dq = (size_t)x->dq, dc = (size_t)x->dc, d = dq + dc;
    (void)w;
    (void)saved;
    (void)pass;
    (void)y;
    (void)dw;
    for (size_t r = 0; dx && !c->zero && r < (size_t)x->n_rows; r++) {
        if (dx->q && dq)
            moe_vec_add(dq, dy + r * d, dx->q + (size_t)x->group[r] * dq);
        if (dx->c && dc)
            moe_vec_add(dc, dy + r * d + dq, dx->c + r * dc);
    }
}

static double flop(const struct moe_expert *e) {
    (void)e;
    return 0;
}

const struct moe_expert_ops moe_expert_identity = {
    .name = "identity",
    .doc = "its input, or zero: an expert without work",
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .shape = shape,
    .bind = bind,
    .forward = forward,
    .backward = backward,
    .flop = flop,
};
