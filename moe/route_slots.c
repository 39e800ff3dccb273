/* route_slots.c: routes of kind SLOTS (Soft MoE): an expert sees mixtures of a group's rows, never
 * a row itself. A slot's input has no query part of its own, so the halves are laid together. */
#include <string.h>
#include "moe/math/blas.h"
#include "moe/route_parts.h"

void moe_route_slots_bind(const struct moe_level *l, const struct moe_gate_use *u,
                          const struct moe_plan *plan, struct moe_route_slots *s,
                          struct moe_work *work) {
    int n = u->gate.n_experts;
    struct moe_route_slots t = {.per = u->gate.n_slots / n};
    size_t rows = (size_t)plan->groups_max * (size_t)t.per;
    struct moe_plan own = {(int)rows, (int)rows, plan->training};
    float ***lists[] = {&t.x, &t.dx, &t.y, &t.dy};
    t.saved = moe_work_take_bytes(work, (size_t)n * sizeof *t.saved);
    for (int k = 0; k < 4; k++)
        *lists[k] = moe_work_take_bytes(work, (size_t)n * sizeof(float *));
    for (int j = 0; j < n; j++) {
        const struct moe_expert *e = &moe_level_group(l, u->experts[j])->expert;
        void *saved = e->ops->bind(e, &own, work);
        for (int k = 0; k < 4; k++) {
            size_t floats = rows * (size_t)(k < 2 ? e->in : l->out);
            float *block = (k & 1) && !plan->training ? NULL : moe_work_take(work, floats);
            if (*lists[k])
                (*lists[k])[j] = block;
        }
        if (t.saved)
            t.saved[j] = saved;
    }
    if (s)
        *s = t;
}

/* Slots of expert j as rows: slot k of group g is row g * per + k, of group 0. */
static struct moe_rows slot_rows(const struct moe_route_slots *s, const struct moe_rows *x, int j,
                                 const int *zero) {
    return (struct moe_rows){.n_rows = x->n_groups * s->per,
                             .n_groups = 1,
                             .dc = moe_rows_columns(x),
                             .c = s->x[j],
                             .group = zero};
}

/* slot inputs of expert j from the rows of group g */
static void gather(const struct moe_route *r, const struct moe_route_slots *s,
                   const struct moe_rows *x, int g, int j) {
    int from = x->start[g], n = x->start[g + 1] - from, d = moe_rows_columns(x);
    const float *dispatch = r->dispatch + (size_t)from * (size_t)r->n_slots + (size_t)(j * s->per);
    float *to = s->x[j] + (size_t)(g * s->per) * (size_t)d;
    moe_gemm(1, 0, s->per, x->dc, n, dispatch, r->n_slots, x->c + (size_t)from * (size_t)x->dc,
             x->dc, 0, to + x->dq, d);
    for (int k = 0; k < s->per && x->dq; k++) {
        float sum = 0;
        for (int i = 0; i < n; i++)
            sum += dispatch[(size_t)i * (size_t)r->n_slots + (size_t)k];
        for (int c = 0; c < x->dq; c++)
            to[(size_t)k * (size_t)d + (size_t)c] =
                sum * x->q[(size_t)g * (size_t)x->dq + (size_t)c];
    }
}

void moe_route_slots_forward(const struct moe_route_pass *p, int gate) {
    const struct moe_gate_use *u = &p->l->gates[gate];
    const struct moe_route *r = &p->route[gate];
    const struct moe_route_slots *s = &p->s->slots[gate];
    int d = p->l->out;
    for (int j = 0; j < u->gate.n_experts; j++) {
        const struct moe_expert_group *eg = moe_level_group(p->l, u->experts[j]);
        const struct moe_rows *x = &p->x[eg->source];
        for (int g = 0; g < x->n_groups; g++)
            gather(r, s, x, g, j);
        struct moe_rows rows = slot_rows(s, x, j, p->s->zero);
        moe_route_open_expert(p, u->experts[j]);
        eg->expert.ops->forward(&eg->expert, moe_route_value(p, u->experts[j]), &rows, s->saved[j],
                                p->pass, s->y[j]);
        for (int g = 0; g < x->n_groups; g++) {
            int from = x->start[g], n = x->start[g + 1] - from;
            moe_gemm(0, 0, n, d, s->per,
                     r->combine + (size_t)from * (size_t)r->n_slots + (size_t)(j * s->per),
                     r->n_slots, s->y[j] + (size_t)(g * s->per) * (size_t)d, d, 1,
                     p->out[u->module] + (size_t)from * (size_t)d, d);
        }
    }
}

/* dispatch and rows from the gradient of the slot inputs */
static void gather_backward(const struct moe_route *r, struct moe_route *dr,
                            const struct moe_route_slots *s, const struct moe_rows *x, int g, int j,
                            struct moe_rows_grad *dx) {
    int from = x->start[g], n = x->start[g + 1] - from, d = moe_rows_columns(x), slots = r->n_slots;
    size_t at = (size_t)from * (size_t)slots + (size_t)(j * s->per);
    const float *dslot = s->dx[j] + (size_t)(g * s->per) * (size_t)d;
    moe_gemm(0, 1, n, s->per, x->dc, x->c + (size_t)from * (size_t)x->dc, x->dc, dslot + x->dq, d,
             0, dr->dispatch + at, slots);
    if (dx->c)
        moe_gemm(0, 0, n, x->dc, s->per, r->dispatch + at, slots, dslot + x->dq, d, 1,
                 dx->c + (size_t)from * (size_t)x->dc, x->dc);
    for (int k = 0; k < s->per && x->dq; k++) {
        const float *dq = dslot + (size_t)k * (size_t)d, *q = x->q + (size_t)g * (size_t)x->dq;
        float dot = 0, sum = 0;
        for (int c = 0; c < x->dq; c++)
            dot += dq[c] * q[c];
        for (int i = 0; i < n; i++) {
            dr->dispatch[at + (size_t)i * (size_t)slots + (size_t)k] += dot;
            sum += r->dispatch[at + (size_t)i * (size_t)slots + (size_t)k];
        }
        for (int c = 0; dx->q && c < x->dq; c++)
            dx->q[(size_t)g * (size_t)x->dq + (size_t)c] += sum * dq[c];
    }
}

void moe_route_slots_backward(const struct moe_route_pass *p, int gate) {
    const struct moe_gate_use *u = &p->l->gates[gate];
    const struct moe_route *r = &p->route[gate];
    struct moe_route *dr = &p->droute[gate];
    const struct moe_route_slots *s = &p->s->slots[gate];
    int d = p->l->out;
    for (int j = u->gate.n_experts - 1; j >= 0; j--) {
        const struct moe_expert_group *eg = moe_level_group(p->l, u->experts[j]);
        const struct moe_rows *x = &p->x[eg->source];
        const float *dout = p->dout[u->module];
        for (int g = 0; g < x->n_groups; g++) {
            int from = x->start[g], n = x->start[g + 1] - from;
            size_t at = (size_t)from * (size_t)r->n_slots + (size_t)(j * s->per);
            size_t slot = (size_t)(g * s->per) * (size_t)d;
            moe_gemm(1, 0, s->per, d, n, r->combine + at, r->n_slots,
                     dout + (size_t)from * (size_t)d, d, 0, s->dy[j] + slot, d);
            moe_gemm(0, 1, n, s->per, d, dout + (size_t)from * (size_t)d, d, s->y[j] + slot, d, 0,
                     dr->combine + at, r->n_slots);
        }
        struct moe_rows rows = slot_rows(s, x, j, p->s->zero);
        struct moe_rows_grad dslot = {.c = s->dx[j]};
        memset(s->dx[j], 0, (size_t)rows.n_rows * (size_t)rows.dc * sizeof(float));
        moe_route_open_expert(p, u->experts[j]);
        eg->expert.ops->backward(&eg->expert, moe_route_value(p, u->experts[j]), &rows, s->saved[j],
                                 p->pass, s->y[j], s->dy[j], moe_route_grad(p, u->experts[j]),
                                 &dslot);
        for (int g = 0; g < x->n_groups; g++)
            gather_backward(r, dr, s, x, g, j, &p->dx[eg->source]);
    }
}
