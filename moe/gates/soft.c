/* soft.c: Soft MoE (Puigcerver et al., ICLR 2024): experts see slots, which are mixtures of a
 * request's rows, and rows get mixtures of slots. Nothing is dropped and nothing is discrete.
 *
 *     L = s <x / |x|, phi_j / |phi_j|>   dispatch: softmax of L over the request's rows
 *                                        combine: softmax of L over the slots
 *
 * Unit lengths keep the logits in [-s, s] however wide the input is. A row's score depends on its
 * rivals: a request is the unit, here and in serving. */
#include <math.h>
#include "moe/choice.h"
#include "moe/linear.h"
#include "moe/math/vec.h"

#define TINY 1e-12f

struct conf {
    int64_t slots;
    double scale;
};
static const struct conf_item items[] = {
    CONF_INT(struct conf, slots, "slots", "1", 1, 256, "slots",
             "slots of each expert in a request"),
    CONF_FLOAT(struct conf, scale, "scale", "1", 0.001, 1000, NULL, "s at the start; learned"),
    CONF_END};

enum { PHI, SCALE }; /* fields */

struct saved {
    float *l, *dl;    /* [rows x slots] cosines, i.e. L / s */
    float *qy, *qdy;  /* [groups x slots] */
    float *xlen;      /* [rows] 1 / |x| */
    float *qsum;      /* [groups] |q|^2 */
    float *plen, *pd; /* [slots] 1 / |phi|, <dL, L> of the slot */
};

static enum status shape(struct moe_gate *g, struct conf_place place, struct arena *a) {
    const struct conf *c = g->conf;
    (void)place;
    (void)a;
    g->n_slots = g->n_experts * (int)c->slots;
    moe_layout_add(&g->params, "phi", g->in, g->n_slots, MOE_INIT_NORMAL, 1);
    moe_layout_add(&g->params, "scale", 1, 1, MOE_INIT_CONST, (float)c->scale);
    return STATUS_OK;
}

static void *bind(const struct moe_gate *g, const struct moe_plan *plan, struct moe_work *work) {
    struct saved s = {0}, *out = moe_work_take_bytes(work, sizeof s);
    size_t rows = (size_t)plan->rows_max, slots = (size_t)g->n_slots;
    s.l = moe_work_take(work, rows * slots);
    s.qy = moe_work_take(work, moe_linear_scratch(plan->groups_max, g->dq, g->n_slots));
    s.xlen = moe_work_take(work, rows);
    s.qsum = moe_work_take(work, (size_t)plan->groups_max);
    s.plen = moe_work_take(work, slots);
    if (plan->training) {
        s.dl = moe_work_take(work, rows * slots);
        s.qdy = moe_work_take(work, moe_linear_scratch(plan->groups_max, g->dq, g->n_slots));
        s.pd = moe_work_take(work, slots);
    }
    if (out)
        *out = s;
    return out;
}

static void lengths(const struct moe_rows *x, int slots, const float *phi, struct saved *s) {
    size_t dq = (size_t)x->dq, dc = (size_t)x->dc;
    for (int g = 0; g < x->n_groups; g++)
        s->qsum[g] = dq ? moe_vec_dot(dq, x->q + (size_t)g * dq, x->q + (size_t)g * dq) : 0;
    for (int r = 0; r < x->n_rows; r++) {
        const float *c = x->c + (size_t)r * dc;
        s->xlen[r] = 1 / sqrtf(s->qsum[x->group[r]] + (dc ? moe_vec_dot(dc, c, c) : 0) + TINY);
    }
    for (int j = 0; j < slots; j++)
        s->plen[j] = TINY;
    for (size_t i = 0; i < dq + dc; i++)
        for (int j = 0; j < slots; j++)
            s->plen[j] += phi[i * (size_t)slots + (size_t)j] * phi[i * (size_t)slots + (size_t)j];
    for (int j = 0; j < slots; j++)
        s->plen[j] = 1 / sqrtf(s->plen[j]);
}

/* Softmax of column j over rows [from, to). l: L */
static void dispatch_column(int from, int to, int slots, int j, const float *l, float *out) {
    float most = -INFINITY, sum = 0;
    for (int r = from; r < to; r++)
        most = fmaxf(most, l[(size_t)r * (size_t)slots + (size_t)j]);
    for (int r = from; r < to; r++) {
        size_t at = (size_t)r * (size_t)slots + (size_t)j;
        out[at] = expf(l[at] - most);
        sum += out[at];
    }
    for (int r = from; r < to; r++)
        out[(size_t)r * (size_t)slots + (size_t)j] /= sum;
}

static void forward(const struct moe_gate *g, const struct moe_gate_io *io,
                    const struct moe_rows *x, struct moe_pass *pass, struct moe_route *route) {
    struct saved *s = io->saved;
    int slots = g->n_slots;
    float scale = io->w[g->params.f[SCALE].at];
    (void)pass;
    moe_linear_forward(x, io->w, NULL, slots, s->qy, s->l);
    lengths(x, slots, io->w, s);
    for (int r = 0; r < x->n_rows; r++)
        for (int j = 0; j < slots; j++) {
            size_t i = (size_t)r * (size_t)slots + (size_t)j;
            s->l[i] *= s->xlen[r] * s->plen[j];
            route->combine[i] = scale * s->l[i];
        }
    for (int from = 0, to; from < x->n_rows; from = to) {
        to = moe_rows_group_end(x, from);
        for (int j = 0; j < slots; j++)
            dispatch_column(from, to, slots, j, route->combine, route->dispatch);
    }
    moe_vec_softmax(x->n_rows, slots, route->combine, route->combine);
}

/* dL of rows [from, to): both softmaxes. */
static void logits_backward(int from, int to, int slots, const struct moe_route *route,
                            struct moe_route *d, float *dl) {
    size_t at = (size_t)from * (size_t)slots;
    moe_vec_softmax_grad(to - from, slots, route->combine + at, d->combine + at, dl + at);
    for (int j = 0; j < slots; j++) {
        float dot = 0;
        for (int r = from; r < to; r++) {
            size_t i = (size_t)r * (size_t)slots + (size_t)j;
            dot += route->dispatch[i] * d->dispatch[i];
        }
        for (int r = from; r < to; r++) {
            size_t i = (size_t)r * (size_t)slots + (size_t)j;
            dl[i] += route->dispatch[i] * (d->dispatch[i] - dot);
        }
    }
}

/* Through the lengths: L falls as |x| and |phi| grow. dx = -x <dL, L> / |x|^2, phi alike. dl turns
 * into the gradient of the plain product x phi. */
static void lengths_backward(const struct moe_gate *g, const struct moe_gate_io *io,
                             const struct moe_rows *x, float *dw, const struct moe_rows_grad *dx) {
    struct saved *s = io->saved;
    int slots = g->n_slots;
    float scale = io->w[g->params.f[SCALE].at];
    double dscale = 0;
    for (int j = 0; j < slots; j++)
        s->pd[j] = 0;
    for (int r = 0; r < x->n_rows; r++) {
        float sum = 0;
        for (int j = 0; j < slots; j++) {
            size_t i = (size_t)r * (size_t)slots + (size_t)j;
            float both = s->dl[i] * scale * s->l[i];
            dscale += (double)s->dl[i] * (double)s->l[i];
            sum += both;
            s->pd[j] += both;
            s->dl[i] *= scale * s->xlen[r] * s->plen[j];
        }
        float by = -sum * s->xlen[r] * s->xlen[r];
        size_t dq = (size_t)x->dq, dc = (size_t)x->dc, group = (size_t)x->group[r];
        if (dx && dx->q)
            moe_vec_axpy(dq, by, x->q + group * dq, dx->q + group * dq);
        if (dx && dx->c)
            moe_vec_axpy(dc, by, x->c + (size_t)r * dc, dx->c + (size_t)r * dc);
    }
    dw[g->params.f[SCALE].at] += (float)dscale;
    for (size_t i = 0; i < (size_t)g->in * (size_t)slots; i++) {
        size_t j = i % (size_t)slots;
        dw[i] -= io->w[i] * s->pd[j] * s->plen[j] * s->plen[j];
    }
}

static void backward(const struct moe_gate *g, const struct moe_gate_io *io,
                     const struct moe_rows *x, struct moe_pass *pass, const struct moe_route *route,
                     struct moe_route *d, float *dw, float *stats, const struct moe_rows_grad *dx) {
    struct saved *s = io->saved;
    (void)pass;
    (void)stats;
    for (int from = 0, to; from < x->n_rows; from = to) {
        to = moe_rows_group_end(x, from);
        logits_backward(from, to, g->n_slots, route, d, s->dl);
    }
    lengths_backward(g, io, x, dw, dx);
    moe_linear_backward(x, io->w, g->n_slots, s->dl, s->qdy, dw, NULL, dx);
}

const struct moe_gate_ops moe_gate_soft = {
    .name = "soft",
    .doc = "experts see mixtures of a request's rows (Soft MoE, ICLR 2024)",
    .kind = MOE_ROUTE_SLOTS,
    .flags = MOE_GATE_MIXES_ROWS,
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .shape = shape,
    .bind = bind,
    .forward = forward,
    .backward = backward,
};
