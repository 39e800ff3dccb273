/* explain.c: what the gates of a model say about one row. Computed anew on the forward path. */
#include <string.h>
#include "base/heap.h"
#include "moe/model_impl.h"
#include "moe/score/scorer.h"

/* Gates are numbered through the levels. */
static const struct moe_gate_use *find(const struct moe_model *m, int gate, int *level,
                                       int *index) {
    for (int l = 0; l < m->n_levels; gate -= m->levels[l++].n_gates)
        if (gate >= 0 && gate < m->levels[l].n_gates) {
            *level = l;
            *index = gate;
            return &m->levels[l].gates[gate];
        }
    return NULL;
}

int moe_explain_gates(const struct moe_model *m) {
    int n = 0;
    for (int l = 0; l < m->n_levels; l++)
        n += m->levels[l].n_gates;
    return n;
}
const char *moe_explain_gate_name(const struct moe_model *m, int gate) {
    int l, i;
    const struct moe_gate_use *u = find(m, gate, &l, &i);
    return u ? u->name : NULL;
}
int moe_explain_experts(const struct moe_model *m, int gate) {
    int l, i;
    const struct moe_gate_use *u = find(m, gate, &l, &i);
    return u ? u->gate.n_experts : 0;
}
const char *moe_explain_expert_name(const struct moe_model *m, int gate, int expert) {
    int l, i;
    const struct moe_gate_use *u = find(m, gate, &l, &i);
    return u && expert >= 0 && expert < u->gate.n_experts
               ? m->levels[l].expert_names[u->experts[expert]]
               : NULL;
}

/* The row's weights of the experts; of slots, the sum of their shares in the row's output. */
static void weights_of(const struct moe_route *r, int row, float *out) {
    size_t n = (size_t)r->n_experts, slots = (size_t)r->n_slots;
    switch (r->kind) {
    case MOE_ROUTE_WEIGHTS:
        memcpy(out, r->w + (size_t)row * n, n * sizeof *out);
        return;
    case MOE_ROUTE_MERGE:
        memcpy(out, r->w, n * sizeof *out);
        return;
    case MOE_ROUTE_SLOTS:
        memset(out, 0, n * sizeof *out);
        for (size_t s = 0; s < slots; s++)
            out[s / (slots / n)] += r->combine[(size_t)row * slots + s];
    }
}

enum status moe_explain(const struct moe_model *m, const struct moe_batch *b, int row, int gate,
                        float *weights) {
    int level, index;
    if (!find(m, gate, &level, &index))
        return fail(STATUS_INVALID_ARGUMENT, "gate %d: the model has %d", gate,
                    moe_explain_gates(m));
    if (b->n_groups != 1 || row < 0 || row >= b->n_rows)
        return fail(STATUS_INVALID_ARGUMENT, "row %d of %d rows in %d requests", row, b->n_rows,
                    b->n_groups);
    struct moe_plan plan = {b->n_rows, 1, false};
    float *memory = heap_alloc_aligned(moe_run_floats(m, &plan) * sizeof *memory);
    struct moe_run *run = moe_run_bind(m, &plan, memory);
    struct moe_pass pass = {.batch = b};
    moe_forward(m, m->params.v, b, run, &pass, false);
    weights_of(&run->levels[level]->route[index], row, weights);
    heap_free(memory);
    return STATUS_OK;
}
