/* level.c: one level forward and backward: sources, gates, routes; the backward pass is the forward
 * list read from the bottom. All layer kinds are descriptions run by this file. */
#include "moe/level.h"
#include <string.h>
#include "moe/mute.h"
#include "moe/route.h"
#include "moe/math/vec.h"

static struct moe_route bind_route(const struct moe_gate *g, const struct moe_plan *plan,
                                   struct moe_work *work) {
    struct moe_route r = {.kind = g->ops->kind, .n_experts = g->n_experts, .n_slots = g->n_slots};
    size_t rows = (size_t)plan->rows_max, groups = (size_t)plan->groups_max;
    switch (r.kind) {
    case MOE_ROUTE_WEIGHTS:
        r.w = moe_work_take(work, rows * (size_t)g->n_experts);
        break;
    case MOE_ROUTE_MERGE:
        r.w = moe_work_take(work, groups * (size_t)g->n_experts);
        break;
    case MOE_ROUTE_SLOTS:
        r.dispatch = moe_work_take(work, rows * (size_t)g->n_slots);
        r.combine = moe_work_take(work, rows * (size_t)g->n_slots);
        break;
    }
    return r;
}

static void bind_gates(const struct moe_level *l, const struct moe_plan *plan,
                       struct moe_level_state *s, struct moe_work *work) {
    s->gate_saved = moe_work_take_bytes(work, (size_t)l->n_gates * sizeof *s->gate_saved);
    s->route = moe_work_take_bytes(work, (size_t)l->n_gates * sizeof *s->route);
    s->droute = moe_work_take_bytes(work, (size_t)l->n_gates * sizeof *s->droute);
    for (int i = 0; i < l->n_gates; i++) {
        const struct moe_gate *g = &l->gates[i].gate;
        void *saved = g->ops->bind ? g->ops->bind(g, plan, work) : NULL;
        struct moe_route r = bind_route(g, plan, work);
        struct moe_route d = plan->training ? bind_route(g, plan, work) : (struct moe_route){0};
        if (s->route) {
            s->gate_saved[i] = saved;
            s->route[i] = r;
            s->droute[i] = d;
        }
    }
}

static void bind_sources(const struct moe_level *l, const struct moe_plan *plan,
                         struct moe_level_state *s, struct moe_work *work) {
    size_t n = (size_t)l->n_sources;
    s->x = moe_work_take_bytes(work, n * sizeof *s->x);
    s->dx = moe_work_take_bytes(work, n * sizeof *s->dx);
    s->concat = moe_work_take_bytes(work, n * sizeof *s->concat);
    s->dconcat = moe_work_take_bytes(work, n * sizeof *s->dconcat);
    for (size_t i = 0; i < n; i++) {
        size_t floats = (size_t)plan->rows_max * (size_t)l->sources[i].columns;
        bool joined = l->sources[i].n > 1;
        float *c = joined ? moe_work_take(work, floats) : NULL;
        float *dc = joined && plan->training ? moe_work_take(work, floats) : NULL;
        if (s->concat) {
            s->concat[i] = c;
            s->dconcat[i] = dc;
        }
    }
}

struct moe_level_state *moe_level_bind(const struct moe_level *l, const struct moe_plan *plan,
                                       struct moe_work *work) {
    struct moe_level_state s = {0}, *out = moe_work_take_bytes(work, sizeof s);
    size_t floats = (size_t)plan->rows_max * (size_t)l->out;
    bind_sources(l, plan, &s, work);
    bind_gates(l, plan, &s, work);
    s.out = moe_work_take_bytes(work, (size_t)l->n_modules * sizeof *s.out);
    s.dout = moe_work_take_bytes(work, (size_t)l->n_modules * sizeof *s.dout);
    for (int i = 0; i < l->n_modules; i++) {
        float *y = moe_work_take(work, floats),
              *dy = plan->training ? moe_work_take(work, floats) : NULL;
        if (s.out) {
            s.out[i] = y;
            s.dout[i] = dy;
        }
    }
    s.routes = moe_route_bind(l, plan, work);
    if (out)
        *out = s;
    return out;
}

/* The rows of source i, and the place of their gradient. */
static void open_source(const struct moe_level *l, int i, const struct moe_rows *x,
                        const struct moe_level_state *below, struct moe_level_state *s) {
    const struct moe_source *src = &l->sources[i];
    s->x[i] = *x;
    if (src->n == 0)
        return;
    s->x[i].dq = s->x[i].q_from = s->x[i].c_from = 0;
    s->x[i].q = NULL;
    s->x[i].fold = NULL;
    s->x[i].key = 0;
    s->x[i].fold_q = s->x[i].fold_c = NULL;
    s->x[i].dc = src->columns;
    s->x[i].c = src->n == 1 ? below->out[src->modules[0]] : s->concat[i];
    if (src->n == 1)
        return;
    size_t part = (size_t)(src->columns / src->n), all = (size_t)src->columns;
    for (int k = 0; k < src->n; k++)
        for (int r = 0; r < x->n_rows; r++)
            memcpy(s->concat[i] + (size_t)r * all + (size_t)k * part,
                   below->out[src->modules[k]] + (size_t)r * part, part * sizeof(float));
}

void moe_level_forward(const struct moe_level *l, const struct moe_numbers *n,
                       const struct moe_rows *x, const struct moe_level_state *below,
                       struct moe_level_state *s, struct moe_pass *pass) {
    for (int i = 0; i < l->n_sources; i++)
        open_source(l, i, x, below, s);
    for (int i = 0; i < l->n_gates; i++) {
        const struct moe_gate_use *u = &l->gates[i];
        struct moe_gate_io io = {moe_numbers_value(n, u->tensor, 0),
                                 moe_numbers_value(n, u->buffer, 0), s->gate_saved[i]};
        s->route[i].n_rows = x->n_rows;
        s->route[i].n_groups = x->n_groups;
        u->gate.ops->forward(&u->gate, &io, &s->x[u->source], pass, &s->route[i]);
        if (pass->mute && pass->mute->level == l)
            moe_mute_route(pass->mute, u, &s->route[i]);
    }
    moe_route_forward(l, n, s->x, s->route, s->routes, pass, s->out);
}

static void open_source_grad(const struct moe_level *l, int i, const struct moe_rows_grad *dx,
                             struct moe_level_state *below, struct moe_level_state *s) {
    const struct moe_source *src = &l->sources[i];
    if (src->n == 0) {
        s->dx[i] = *dx;
        return;
    }
    s->dx[i] =
        (struct moe_rows_grad){.c = src->n == 1 ? below->dout[src->modules[0]] : s->dconcat[i]};
    if (src->n > 1)
        memset(s->dconcat[i], 0, (size_t)s->x[i].n_rows * (size_t)src->columns * sizeof(float));
}

static void close_source_grad(const struct moe_level *l, int i, struct moe_level_state *below,
                              struct moe_level_state *s) {
    const struct moe_source *src = &l->sources[i];
    if (src->n < 2)
        return;
    size_t part = (size_t)(src->columns / src->n), all = (size_t)src->columns;
    for (int k = 0; k < src->n; k++)
        for (int r = 0; r < s->x[i].n_rows; r++)
            moe_vec_add(part, s->dconcat[i] + (size_t)r * all + (size_t)k * part,
                        below->dout[src->modules[k]] + (size_t)r * part);
}

void moe_level_backward(const struct moe_level *l, const struct moe_numbers *n,
                        const struct moe_rows *x, struct moe_level_state *below,
                        struct moe_level_state *s, struct moe_pass *pass,
                        const struct moe_rows_grad *dx) {
    for (int i = 0; i < l->n_sources; i++)
        open_source_grad(l, i, dx, below, s);
    for (int i = 0; i < l->n_gates; i++) {
        s->droute[i].n_rows = x->n_rows;
        s->droute[i].n_groups = x->n_groups;
    }
    moe_route_backward(l, n, s->x, s->route, s->routes, pass, s->dout, s->droute, s->dx);
    for (int i = l->n_gates - 1; i >= 0; i--) {
        const struct moe_gate_use *u = &l->gates[i];
        struct moe_gate_io io = {moe_numbers_value(n, u->tensor, 0),
                                 moe_numbers_value(n, u->buffer, 0), s->gate_saved[i]};
        u->gate.ops->backward(&u->gate, &io, &s->x[u->source], pass, &s->route[i], &s->droute[i],
                              moe_numbers_grad(n, u->tensor, 0),
                              n->stats ? n->stats + u->stats_at : NULL, &s->dx[u->source]);
    }
    for (int i = 0; i < l->n_sources; i++)
        close_source_grad(l, i, below, s);
}
