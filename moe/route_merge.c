/* route_merge.c: routes of kind MERGE (SMEAR, Lory): the experts' weights are blended once per
 * group and one expert runs on the group's rows. Experts of one gate have the same shape (checked
 * when the model is built). Groups go one after the other through one blend, so memory does not
 * grow with the batch; the backward pass runs the forward one again. */
#include <string.h>
#include "moe/math/blas.h"
#include "moe/route_parts.h"
#include "moe/math/vec.h"

static const struct moe_expert_group *group_of(const struct moe_level *l,
                                               const struct moe_gate_use *u) {
    return moe_level_group(l, u->experts[0]);
}

void moe_route_merge_bind(const struct moe_level *l, const struct moe_gate_use *u,
                          const struct moe_plan *plan, struct moe_route_merge *s,
                          struct moe_work *work) {
    const struct moe_expert *e = &group_of(l, u)->expert;
    struct moe_plan own = {plan->rows_max, 1, plan->training};
    struct moe_route_merge t = {0};
    t.saved = e->ops->bind(e, &own, work);
    t.w = moe_work_take(work, e->layout.floats);
    t.y = moe_work_take(work, (size_t)plan->rows_max * (size_t)l->out);
    if (plan->training) {
        t.dw = moe_work_take(work, e->layout.floats);
        t.dy = moe_work_take(work, (size_t)plan->rows_max * (size_t)l->out);
        t.rng = moe_work_take_bytes(work, (size_t)plan->groups_max * sizeof *t.rng);
    }
    if (s)
        *s = t;
}

/* How many experts from j on stand next to each other in one tensor. */
static int run_length(const struct moe_level *l, const struct moe_gate_use *u, int j) {
    int n = 1;
    while (j + n < u->gate.n_experts && u->experts[j + n] == u->experts[j] + n &&
           l->experts[u->experts[j + n]].group == l->experts[u->experts[j]].group)
        n++;
    return n;
}

/* W = w[g] [E x P] */
static void blend(const struct moe_route_pass *p, int gate, int g) {
    const struct moe_gate_use *u = &p->l->gates[gate];
    struct moe_route_merge *s = &p->s->merge[gate];
    int P = (int)group_of(p->l, u)->expert.layout.floats;
    const float *w = p->route[gate].w + (size_t)g * (size_t)u->gate.n_experts;
    for (int j = 0, n; j < u->gate.n_experts; j += n) {
        n = run_length(p->l, u, j);
        moe_gemm(0, 0, 1, P, n, w + j, n, moe_route_value(p, u->experts[j]), P, j > 0, s->w, P);
    }
}

static struct moe_rows rows_of_group(const struct moe_rows *x, int g, const int *zero) {
    struct moe_rows rows = *x;
    rows.n_rows = x->start[g + 1] - x->start[g];
    rows.n_groups = 1;
    rows.q = x->dq ? x->q + (size_t)g * (size_t)x->dq : NULL;
    rows.c = x->c + (size_t)x->start[g] * (size_t)x->dc;
    rows.group = zero;
    rows.start = NULL;
    rows.fold_q = rows.fold_c = NULL;
    rows.fold = NULL; /* a product per group would make P per group */
    return rows;
}

void moe_route_merge_forward(const struct moe_route_pass *p, int gate) {
    const struct moe_gate_use *u = &p->l->gates[gate];
    const struct moe_expert_group *eg = group_of(p->l, u);
    const struct moe_rows *x = &p->x[eg->source];
    struct moe_route_merge *s = &p->s->merge[gate];
    size_t d = (size_t)p->l->out;
    for (int g = 0; g < x->n_groups; g++) {
        struct moe_rows rows = rows_of_group(x, g, p->s->zero);
        if (rows.n_rows == 0)
            continue;
        if (!x->q_ready)
            blend(p, gate, g);
        if (p->pass->training && p->pass->rng)
            s->rng[g] = *p->pass->rng;
        eg->expert.ops->forward(&eg->expert, s->w, &rows, s->saved, p->pass, s->y);
        moe_vec_add((size_t)rows.n_rows * d, s->y, p->out[u->module] + (size_t)x->start[g] * d);
    }
}

/* dw[g] = <dW, W_e>; dW_e += w[g] dW */
static void blend_backward(const struct moe_route_pass *p, int gate, int g) {
    const struct moe_gate_use *u = &p->l->gates[gate];
    struct moe_route_merge *s = &p->s->merge[gate];
    size_t P = group_of(p->l, u)->expert.layout.floats, at = (size_t)g * (size_t)u->gate.n_experts;
    for (int j = 0; j < u->gate.n_experts; j++) {
        p->droute[gate].w[at + (size_t)j] =
            moe_vec_dot(P, s->dw, moe_route_value(p, u->experts[j]));
        moe_vec_axpy(P, p->route[gate].w[at + (size_t)j], s->dw, moe_route_grad(p, u->experts[j]));
    }
}

void moe_route_merge_backward(const struct moe_route_pass *p, int gate) {
    const struct moe_gate_use *u = &p->l->gates[gate];
    const struct moe_expert_group *eg = group_of(p->l, u);
    const struct moe_rows *x = &p->x[eg->source];
    struct moe_route_merge *s = &p->s->merge[gate];
    struct moe_rows_grad *all = &p->dx[eg->source];
    size_t d = (size_t)p->l->out;
    for (int g = 0; g < x->n_groups; g++) {
        struct moe_rows rows = rows_of_group(x, g, p->s->zero);
        if (rows.n_rows == 0) {
            memset(p->droute[gate].w + (size_t)g * (size_t)u->gate.n_experts, 0,
                   (size_t)u->gate.n_experts * sizeof(float));
            continue;
        }
        struct moe_rows_grad dx = {
            .q = all->q ? all->q + (size_t)g * (size_t)x->dq : NULL,
            .c = all->c ? all->c + (size_t)x->start[g] * (size_t)x->dc : NULL,
        };
        struct moe_pass again = *p->pass;
        again.rng = p->pass->training && p->pass->rng ? &s->rng[g] : NULL;
        blend(p, gate, g);
        eg->expert.ops->forward(&eg->expert, s->w, &rows, s->saved, &again, s->y);
        memcpy(s->dy, p->dout[u->module] + (size_t)x->start[g] * d,
               (size_t)rows.n_rows * d * sizeof(float));
        memset(s->dw, 0, eg->expert.layout.floats * sizeof(float));
        eg->expert.ops->backward(&eg->expert, s->w, &rows, s->saved, p->pass, s->y, s->dy, s->dw,
                                 &dx);
        blend_backward(p, gate, g);
    }
}
