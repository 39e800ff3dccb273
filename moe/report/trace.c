/* trace.c: the forward pass with its routes, kept. Weights of a gate that blends are those of the
 * row's request. */
#include "moe/report/trace.h"
#include <math.h>
#include <string.h>
#include "base/heap.h"
#include "moe/blocks.h"
#include "moe/mute.h"

/* --- what there is ------------------------------------------------------------------------------
 */

int moe_trace_levels(const struct moe_model *m) { return m->n_levels; }
int moe_trace_experts(const struct moe_model *m, int level) { return m->levels[level].n_experts; }
int moe_trace_width(const struct moe_model *m, int level) { return m->levels[level].out; }
const char *moe_trace_expert_name(const struct moe_model *m, int level, int expert) {
    return m->levels[level].expert_names[expert];
}
const float *moe_trace_expert_floats(const struct moe_model *m, int level, int expert, int64_t *n,
                                     const void **kind) {
    const struct moe_expert_group *g = moe_level_group(&m->levels[level], expert);
    *n = (int64_t)g->expert.layout.floats;
    *kind = g->expert.ops;
    return g->tensor < 0 ? NULL
                         : moe_params_at(&m->params, m->params.v, g->tensor,
                                         m->levels[level].experts[expert].index);
}

bool moe_trace_state(const struct moe_model *m, int gate, const char **name,
                     const struct moe_layout **layout, const float **state) {
    for (int l = 0; l < m->n_levels; gate -= m->levels[l++].n_gates)
        if (gate < m->levels[l].n_gates) {
            const struct moe_gate_use *u = &m->levels[l].gates[gate];
            *name = u->name;
            *layout = u->buffer < 0 ? NULL : &u->gate.buffers;
            *state = u->buffer < 0 ? NULL : moe_params_at(&m->params, m->params.v, u->buffer, 0);
            return true;
        }
    return false;
}

enum status moe_trace_check(const struct moe_model *m, const struct moe_inputs *in, int n_tasks) {
    const struct moe_inputs *mine = &m->inputs;
    if (in->query_columns != mine->query_columns || in->cand_columns != mine->cand_columns ||
        in->query_slots != mine->query_slots || in->cand_slots != mine->cand_slots ||
        in->n_ids != mine->n_ids || in->n_tables != mine->n_tables || n_tasks != m->n_tasks)
        return fail(STATUS_FAILED_PRECONDITION,
                    "the model reads %d + %d columns and %d + %d ids for %d tasks, the data has %d "
                    "+ %d and %d + %d for %d: they are of other settings",
                    mine->query_columns, mine->cand_columns, mine->query_slots, mine->cand_slots,
                    m->n_tasks, in->query_columns, in->cand_columns, in->query_slots,
                    in->cand_slots, n_tasks);
    for (int i = 0; i < in->query_columns; i++)
        if (strcmp(in->query_names[i], mine->query_names[i]) != 0)
            return fail(STATUS_FAILED_PRECONDITION,
                        "the model reads column '%s' where the data "
                        "has '%s'",
                        mine->query_names[i], in->query_names[i]);
    for (int i = 0; i < in->cand_columns; i++)
        if (strcmp(in->cand_names[i], mine->cand_names[i]) != 0)
            return fail(STATUS_FAILED_PRECONDITION,
                        "the model reads column '%s' where the data "
                        "has '%s'",
                        mine->cand_names[i], in->cand_names[i]);
    for (int i = 0; i < in->n_tables; i++)
        if (in->tables[i].rows != mine->tables[i].rows)
            return fail(STATUS_FAILED_PRECONDITION,
                        "ids '%s': the model knows %u, the data %u; of a table, give the file it "
                        "was trained on as --table",
                        mine->tables[i].name, mine->tables[i].rows, in->tables[i].rows);
    return STATUS_OK;
}

/* --- gates --------------------------------------------------------------------------------------
 */

static void list_gates(struct moe_trace *t) {
    const struct moe_model *m = t->m;
    for (int l = 0; l < m->n_levels; l++)
        t->n_gates += m->levels[l].n_gates;
    t->gates = HEAP_ARRAY(struct moe_trace_gate, t->n_gates);
    for (int l = 0, k = 0; l < m->n_levels; l++)
        for (int i = 0; i < m->levels[l].n_gates; i++, k++) {
            const struct moe_gate_use *u = &m->levels[l].gates[i];
            const struct moe_gate *g = &u->gate;
            t->gates[k] = (struct moe_trace_gate){
                .name = u->name,
                .kind = g->ops->name,
                .level = l,
                .task = g->task,
                .n = g->n_experts,
                .n_own = g->n_own,
                .experts = u->experts,
                .sparse = (g->flags & MOE_GATE_SPARSE) != 0,
                .fixed = g->n_experts == 1,
                .w = HEAP_ARRAY(float, (size_t)t->n_rows *(size_t)g->n_experts + 1)};
        }
}

/* w [rows x n] of a route. */
static void keep(const struct moe_route *r, const int *group, float *w) {
    size_t n = (size_t)r->n_experts, slots = (size_t)r->n_slots;
    for (size_t i = 0; i < (size_t)r->n_rows; i++)
        switch (r->kind) {
        case MOE_ROUTE_WEIGHTS:
            memcpy(w + i * n, r->w + i * n, n * sizeof *w);
            break;
        case MOE_ROUTE_MERGE:
            memcpy(w + i * n, r->w + (size_t)group[i] * n, n * sizeof *w);
            break;
        case MOE_ROUTE_SLOTS:
            memset(w + i * n, 0, n * sizeof *w);
            for (size_t s = 0; s < slots; s++)
                w[i * n + s / (slots / n)] += r->combine[i * slots + s];
        }
}

void moe_trace_new(const struct moe_model *m, const struct moe_examples *x,
                   struct moe_trace **out) {
    struct moe_trace *t = HEAP_NEW(struct moe_trace);
    struct moe_blocks b;
    t->m = m;
    t->n_rows = x->n_rows;
    t->p = HEAP_ARRAY(float, (size_t)x->n_rows *(size_t)m->n_tasks + 1);
    list_gates(t);
    moe_blocks_open(&b, m, x);
    while (moe_blocks_next(&b)) {
        moe_outputs(m, b.batch.n_rows, b.run->logits, t->p + (size_t)b.row * (size_t)m->n_tasks);
        for (int l = 0, k = 0; l < m->n_levels; l++)
            for (int i = 0; i < m->levels[l].n_gates; i++, k++)
                keep(&b.run->levels[l]->route[i], b.run->group,
                     t->gates[k].w + (size_t)b.row * (size_t)t->gates[k].n);
    }
    moe_blocks_close(&b);
    *out = t;
}

void moe_trace_free(struct moe_trace *t) {
    if (!t)
        return;
    for (int k = 0; k < t->n_gates; k++)
        heap_free(t->gates[k].w);
    heap_free(t->gates);
    heap_free(t->p);
    heap_free(t);
}

/* --- experts ------------------------------------------------------------------------------------
 */

/* Scratch of one expert, by counting and then by memory. */
static void *expert_scratch(const struct moe_expert *e, const struct moe_plan *plan,
                            float **memory) {
    struct moe_work work = {0};
    e->ops->bind(e, plan, &work);
    *memory = heap_alloc_aligned((work.used + 1) * sizeof **memory);
    work = (struct moe_work){.base = *memory};
    return e->ops->bind(e, plan, &work);
}

static void run_expert(const struct moe_blocks *b, int level, int expert, float *y) {
    const struct moe_level *l = &b->m->levels[level];
    const struct moe_expert_group *g = moe_level_group(l, expert);
    struct moe_numbers n = {.p = &b->m->params, .v = b->m->params.v};
    struct moe_pass pass = b->pass;
    pass.running = moe_numbers_value(&n, g->buffer, l->experts[expert].index);
    float *memory;
    void *saved = expert_scratch(&g->expert, &b->run->plan, &memory);
    g->expert.ops->forward(&g->expert, moe_numbers_value(&n, g->tensor, l->experts[expert].index),
                           &b->run->levels[level]->x[g->source], saved, &pass, y);
    heap_free(memory);
}

void moe_trace_outputs(const struct moe_model *m, const struct moe_examples *x, int level,
                       float *y) {
    const struct moe_level *l = &m->levels[level];
    struct moe_blocks b;
    for (moe_blocks_open(&b, m, x); moe_blocks_next(&b);)
        for (int e = 0; e < l->n_experts; e++)
            run_expert(&b, level, e,
                       y + ((size_t)e * (size_t)x->n_rows + (size_t)b.row) * (size_t)l->out);
    moe_blocks_close(&b);
}

void moe_trace_without(const struct moe_model *m, const struct moe_examples *x, int level,
                       int expert, float *p) {
    struct moe_mute mute = {&m->levels[level], expert};
    struct moe_blocks b;
    moe_blocks_open(&b, m, x);
    b.pass.mute = &mute;
    while (moe_blocks_next(&b))
        moe_outputs(m, b.batch.n_rows, b.run->logits, p + (size_t)b.row * (size_t)m->n_tasks);
    moe_blocks_close(&b);
}

/* --- one prediction ------------------------------------------------------------------------------
 */

/* A copy of the row's whole group: some gates look at rivals. *at: the row in it. */
static struct moe_examples *group_of(const struct moe_examples *x, int row, int *at) {
    struct moe_examples *one = moe_examples_new(&x->inputs, x->n_tasks);
    struct moe_batch b;
    int g = x->group[row], first = moe_examples_view(x, g, 1, &b);
    moe_examples_add(one, &b, x->labels + (size_t)first * (size_t)x->n_tasks, x->weight + first,
                     x->time_us[g], x->group_key[g]);
    *at = row - first;
    return one;
}

/* d [out]: the gradient of the tower's output by its module, at one row. */
static void tower_slope(const struct moe_model *m, int task, const float *module, float *d) {
    const struct moe_tower *t = &m->towers[task];
    struct moe_plan plan = {1, 1, true};
    struct moe_work work = {0};
    struct moe_pass pass = {0};
    const float *w = moe_params_at(&m->params, m->params.v, t->tensor, 0);
    size_t out = (size_t)m->levels[m->n_levels - 1].out, floats = m->params.t[t->tensor].stride;
    int zero = 0;
    moe_mlp_bind(&t->mlp, 0, &plan, &work);
    float *memory = heap_alloc_aligned((work.used + 1) * sizeof *memory);
    float *dw = heap_alloc_aligned((floats + 1) * sizeof *dw), y, dy = 1;
    work = (struct moe_work){.base = memory};
    struct moe_mlp_saved *s = moe_mlp_bind(&t->mlp, 0, &plan, &work);
    struct moe_rows x = {.n_rows = 1, .n_groups = 1, .dc = (int)out, .c = module, .group = &zero};
    struct moe_rows_grad dx = {.c = d};
    memset(d, 0, out * sizeof *d);
    memset(dw, 0, floats * sizeof *dw);
    moe_mlp_forward(&t->mlp, w, &x, s, &pass, &y);
    moe_mlp_backward(&t->mlp, w, &x, s, &pass, &y, &dy, dw, &dx);
    heap_free(dw);
    heap_free(memory);
}

/* The parts of gate u, numbered `gate`, in the output of its module. */
static void add_parts(const struct moe_blocks *b, const struct moe_gate_use *u,
                      const struct moe_route *r, int gate, int row, const float *slope,
                      struct moe_explained *out) {
    const struct moe_model *m = b->m;
    int last = m->n_levels - 1, n = r->n_experts;
    size_t width = (size_t)m->levels[last].out, rows = (size_t)b->batch.n_rows;
    float *y = heap_alloc_aligned((rows * width + 1) * sizeof *y);
    float *w = HEAP_ARRAY(float, rows *(size_t)n + 1);
    keep(r, b->run->group, w);
    for (int e = 0; e < n; e++) {
        struct moe_part part = {gate, e, (double)w[(size_t)row * (size_t)n + (size_t)e],
                                (double)NAN};
        if (r->kind == MOE_ROUTE_WEIGHTS) {
            run_expert(b, last, u->experts[e], y);
            part.adds = 0;
            for (size_t i = 0; i < width; i++)
                part.adds += part.weight * (double)slope[i] * (double)y[(size_t)row * width + i];
            out->rest -= part.adds;
        }
        out->parts[out->n++] = part;
    }
    heap_free(w);
    heap_free(y);
}

void moe_trace_explain(const struct moe_model *m, const struct moe_examples *x, int row, int task,
                       struct moe_explained *out) {
    int at, gate = 0, last = m->n_levels - 1;
    const struct moe_level *l = &m->levels[last];
    struct moe_examples *one = group_of(x, row, &at);
    struct moe_blocks b;
    float *slope = HEAP_ARRAY(float, l->out);
    int parts = 0;
    for (int i = 0; i < l->n_gates; i++)
        parts += l->gates[i].gate.n_experts;
    for (int i = 0; i < last; i++)
        gate += m->levels[i].n_gates;
    moe_blocks_open(&b, m, one);
    moe_blocks_next(&b);
    *out = (struct moe_explained){
        .logit = (double)b.run->logits[(size_t)at * (size_t)m->n_tasks + (size_t)task],
        .parts = HEAP_ARRAY(struct moe_part, parts)};
    out->rest = out->logit;
    int module = m->towers[task].module;
    tower_slope(m, task, b.run->levels[last]->out[module] + (size_t)at * (size_t)l->out, slope);
    for (int i = 0; i < l->n_gates; i++)
        if (l->gates[i].module == module)
            add_parts(&b, &l->gates[i], &b.run->levels[last]->route[i], gate + i, at, slope, out);
    moe_blocks_close(&b);
    heap_free(slope);
    moe_examples_free(one);
}

double moe_trace_logit(const struct moe_model *m, const struct moe_examples *x, int row, int task,
                       int level, int expert) {
    int at;
    struct moe_examples *one = group_of(x, row, &at);
    struct moe_mute mute = {&m->levels[level], expert};
    struct moe_blocks b;
    moe_blocks_open(&b, m, one);
    b.pass.mute = &mute;
    moe_blocks_next(&b);
    double logit = (double)b.run->logits[(size_t)at * (size_t)m->n_tasks + (size_t)task];
    moe_blocks_close(&b);
    moe_examples_free(one);
    return logit;
}
