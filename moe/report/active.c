/* active.c: counts the rows each expert runs on, the union over the gates that use it, as
 * route_weights.c runs them. Experts of blending and slot gates count for every row. */
#include "moe/report/active.h"
#include "base/heap.h"
#include "moe/model_impl.h"

#define ROWS_MAX 4096

/* Whether a gate other than of kind WEIGHTS uses expert e of the level. */
static bool always_runs(const struct moe_level *l, int e) {
    for (int i = 0; i < l->n_gates; i++)
        for (int j = 0; j < l->gates[i].gate.n_experts; j++)
            if (l->gates[i].experts[j] == e && l->gates[i].gate.ops->kind != MOE_ROUTE_WEIGHTS)
                return true;
    return false;
}

static bool runs_on(const struct moe_level *l, const struct moe_level_state *s, int e, int row) {
    for (int i = 0; i < l->n_gates; i++) {
        const struct moe_route *r = &s->route[i];
        for (int j = 0; r->kind == MOE_ROUTE_WEIGHTS && j < r->n_experts; j++)
            if (l->gates[i].experts[j] == e &&
                r->w[(size_t)row * (size_t)r->n_experts + (size_t)j] != 0)
                return true;
    }
    return false;
}

/* Flop of the level's experts that did not run, a row. */
static double idle(const struct moe_level *l, const struct moe_level_state *s, int rows) {
    double flop = 0;
    for (int e = 0; e < l->n_experts; e++) {
        const struct moe_expert *expert = &moe_level_group(l, e)->expert;
        int ran = 0;
        for (int r = 0; r < rows; r++)
            ran += always_runs(l, e) || runs_on(l, s, e, r);
        flop += expert->ops->flop(expert) * (1 - (double)ran / rows);
    }
    return flop;
}

void moe_active_measure(const struct moe_model *m, const struct moe_examples *x,
                        struct moe_active *out) {
    int groups = 0, rows = 0;
    while (rows < x->n_rows && (rows < ROWS_MAX || x->group[rows] == x->group[rows - 1]))
        groups = x->group[rows++] + 1;
    struct moe_plan plan = {rows, groups, false};
    float *memory = heap_alloc_aligned(moe_run_floats(m, &plan) * sizeof *memory);
    struct moe_run *run = moe_run_bind(m, &plan, memory);
    struct moe_batch b;
    struct moe_pass pass = {.batch = &b};
    moe_examples_view(x, 0, groups, &b);
    moe_forward(m, m->params.v, &b, run, &pass, false);
    double flop = 0, towers = 0;
    for (int i = 0; i < m->n_levels; i++)
        flop += idle(&m->levels[i], run->levels[i], b.n_rows);
    for (int t = 0; t < m->n_tasks; t++)
        towers += moe_mlp_flop(&m->towers[t].mlp, 0);
    int dq = m->cross.n ? 0 : m->part[MOE_QUERY], d = m->part[MOE_QUERY] + m->part[MOE_CAND];
    double wide = m->wide_tensor >= 0 ? 2.0 * (d - dq) * m->n_tasks : 0;
    double cross = m->cross.n * 4.0 * m->cross.rank * d;
    out->dense = moe_model_mflop_per_row(m);
    out->mflop = out->dense - flop * 1e-6;
    out->body = out->mflop - (towers + wide + cross) * 1e-6;
    out->in = d - dq;
    out->out = m->levels[m->n_levels - 1].out;
    heap_free(memory);
}
