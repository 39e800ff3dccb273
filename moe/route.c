/* route.c: coordinates the three kinds of route of a level. Experts used through WEIGHTS run once
 * for all their gates; SLOTS and MERGE make inputs or weights of their own and run by gate. */
#include "moe/route.h"
#include <string.h>
#include "moe/route_parts.h"

struct moe_route_state *moe_route_bind(const struct moe_level *l, const struct moe_plan *plan,
                                       struct moe_work *work) {
    struct moe_route_state s = {.plan = *plan}, *out = moe_work_take_bytes(work, sizeof s);
    s.slots = moe_work_take_bytes(work, (size_t)l->n_gates * sizeof *s.slots);
    s.merge = moe_work_take_bytes(work, (size_t)l->n_gates * sizeof *s.merge);
    s.zero = moe_work_take_int(work, (size_t)plan->rows_max);
    if (s.zero)
        memset(s.zero, 0, (size_t)plan->rows_max * sizeof *s.zero);
    moe_route_weights_bind(l, plan, &s, work);
    for (int i = 0; i < l->n_gates; i++) {
        const struct moe_gate_use *u = &l->gates[i];
        switch (u->gate.ops->kind) {
        case MOE_ROUTE_WEIGHTS:
            break;
        case MOE_ROUTE_SLOTS:
            moe_route_slots_bind(l, u, plan, s.slots ? &s.slots[i] : NULL, work);
            break;
        case MOE_ROUTE_MERGE:
            moe_route_merge_bind(l, u, plan, s.merge ? &s.merge[i] : NULL, work);
            break;
        }
    }
    if (out)
        *out = s;
    return out;
}

void moe_route_forward(const struct moe_level *l, const struct moe_numbers *n,
                       const struct moe_rows *x, const struct moe_route *route,
                       struct moe_route_state *s, struct moe_pass *pass, float *const *out) {
    struct moe_route_pass p = {
        .l = l, .n = n, .x = x, .route = route, .s = s, .pass = pass, .out = out};
    size_t bytes = (size_t)x[0].n_rows * (size_t)l->out * sizeof(float);
    for (int m = 0; m < l->n_modules; m++)
        memset(out[m], 0, bytes);
    moe_route_weights_forward(&p);
    for (int i = 0; i < l->n_gates; i++) {
        if (l->gates[i].gate.ops->kind == MOE_ROUTE_SLOTS)
            moe_route_slots_forward(&p, i);
        else if (l->gates[i].gate.ops->kind == MOE_ROUTE_MERGE)
            moe_route_merge_forward(&p, i);
    }
}

void moe_route_backward(const struct moe_level *l, const struct moe_numbers *n,
                        const struct moe_rows *x, const struct moe_route *route,
                        struct moe_route_state *s, struct moe_pass *pass, float *const *dout,
                        struct moe_route *droute, struct moe_rows_grad *dx) {
    struct moe_route_pass p = {.l = l,
                               .n = n,
                               .x = x,
                               .route = route,
                               .s = s,
                               .pass = pass,
                               .dout = dout,
                               .droute = droute,
                               .dx = dx};
    for (int i = l->n_gates - 1; i >= 0; i--) {
        if (l->gates[i].gate.ops->kind == MOE_ROUTE_SLOTS)
            moe_route_slots_backward(&p, i);
        else if (l->gates[i].gate.ops->kind == MOE_ROUTE_MERGE)
            moe_route_merge_backward(&p, i);
    }
    moe_route_weights_backward(&p);
}
