/* scorer_packed_build.c: what a packed model looks like: which products there are, how wide, and
 * where in the scratch everything stands. The weights are filled in by scorer_packed_fill.c. */
#include <string.h>
#include "base/heap.h"
#include "moe/mix.h"
#include "moe/score/scorer_packed.h"

static const char *lacks_gate(const struct moe_gate_use *u, enum moe_precision precision) {
    const enum moe_route_kind kind = u->gate.ops->kind;
    bool covered = kind == MOE_ROUTE_WEIGHTS || (kind == MOE_ROUTE_MERGE && precision != MOE_INT8);
    return covered ? NULL : u->gate.ops->name;
}

static const char *lacks_expert(const struct moe_expert *e) {
    return e->ops == &moe_expert_mlp ? NULL : e->ops->name;
}

const char *moe_packed_lacks(const struct moe_model *m, enum moe_precision precision) {
    if (m->cross.n)
        return "cross layers";
    if (m->attend.n)
        return "attention over lists";
    for (int l = 0; l < m->n_levels; l++) {
        const struct moe_level *level = &m->levels[l];
        const char *no = NULL;
        for (int i = 0; i < level->n_gates && !no; i++)
            no = lacks_gate(&level->gates[i], precision);
        for (int i = 0; i < level->n_groups && !no; i++)
            no = lacks_expert(&level->groups[i].expert);
        if (no)
            return no;
    }
    for (int t = 0; t < m->n_tasks; t++)
        if (m->towers[t].mlp.width[m->towers[t].mlp.n_layers] != 1)
            return "towers wider than 1";
    return NULL;
}

static int padded(int n, int to) { return (n + to - 1) / to * to; }

size_t moe_packed_take(struct moe_packed *p, size_t bytes) {
    size_t at = p->scratch_bytes;
    p->scratch_bytes += (bytes + 63) & ~(size_t)63;
    return at;
}

/* Rows of a source: where their copies in the experts' and the gates' type are. */
static void place_source(struct moe_packed *p, struct packed_source *s, size_t at_direct,
                         size_t direct_stride) {
    s->direct = p->low == MOE_FP32 && s->n <= 1;
    s->low_stride = moe_pack_row_bytes(p->low, s->columns);
    s->side_stride = moe_pack_row_bytes(p->side, s->columns);
    if (s->direct) {
        s->low_stride = s->side_stride = direct_stride;
        s->at_low = s->at_side = at_direct;
        return;
    }
    s->at_low = moe_packed_take(p, (size_t)p->block * s->low_stride);
    s->at_side =
        p->low == p->side ? s->at_low : moe_packed_take(p, (size_t)p->block * s->side_stride);
}

static void shape_sources(struct moe_packed *p, const struct moe_level *l, struct packed_level *to,
                          const struct packed_level *below) {
    to->n_sources = l->n_sources;
    to->sources = ARENA_ARRAY(&p->arena, struct packed_source, l->n_sources);
    for (int i = 0; i < l->n_sources; i++) {
        const struct moe_source *from = &l->sources[i];
        struct packed_source *s = &to->sources[i];
        *s = (struct packed_source){.n = from->n, .modules = from->modules};
        s->columns = from->columns - from->dq;
        size_t at = p->at_x, stride = (size_t)p->m->part[MOE_CAND] * sizeof(float);
        if (from->n == 1) {
            stride = below->sums_stride;
            at = below->at_sums + (size_t)(from->modules[0] * p->block) * stride;
        }
        place_source(p, s, at, stride);
    }
}

/* topk, switch and gshard over the model's input: logits, then a choice among them. */
static bool chooses(const struct moe_gate *g, const struct packed_source *s) {
    if (g->ops->forward != moe_mix_gate_forward || s->n || g->n_experts == 1)
        return false;
    return ((const struct moe_mix_gate *)g->shape)->router.temperature == 1;
}

/* A choice without group or capacity limits, of no more experts than a vector holds. */
static bool takes_best(const struct moe_gate *g, struct moe_top *top) {
    const struct moe_mix_conf *c = &((const struct moe_mix_gate *)g->shape)->mix;
    *top = (struct moe_top){.n = g->n_experts,
                            .k = moe_choice_k(c->k, g->n_experts),
                            .over_chosen = c->order == MOE_TOPK_SOFTMAX || c->renormalise,
                            .scale = (float)c->scale};
    bool limited = c->capacity.factor > 0 && c->capacity.in == MOE_CAPACITY_ALWAYS;
    return g->n_experts <= MOE_LANES && c->groups.n == 0 && !limited;
}

static enum packed_gate_kind kind_of(const struct moe_gate *g, const struct packed_source *s,
                                     struct moe_top *top) {
    if (g->ops->kind == MOE_ROUTE_MERGE)
        return PACKED_MERGE;
    if (chooses(g, s))
        return takes_best(g, top) ? PACKED_TOP : PACKED_CHOICE;
    if (g->ops != &moe_gate_softmax)
        return PACKED_OWN;
    return g->n_experts == 1 ? PACKED_ONE : PACKED_SOFTMAX;
}

/* Room for a gate's own code: what it binds, its route, and rows without gaps. */
static void place_own(struct moe_packed *p, struct packed_level *l, struct packed_gate *g) {
    struct packed_source *s = &l->sources[g->source];
    struct moe_plan plan = {p->block, 1, false};
    struct moe_work work = {0};
    const struct moe_gate *gate = &g->use->gate;
    struct moe_mix mix;
    if (g->kind == PACKED_CHOICE)
        moe_mix_bind(&((const struct moe_mix_gate *)gate->shape)->mix, g->n_experts, &plan, &work,
                     &mix);
    else if (gate->ops->bind)
        gate->ops->bind(gate, &plan, &work);
    g->at_dense = moe_packed_take(p, (size_t)(p->block * g->n_experts) * sizeof(float));
    g->at_work = moe_packed_take(p, work.used * sizeof(float));
    g->at_route = moe_packed_take(p, (size_t)(p->block * g->n_experts) * sizeof(float));
    if (s->n && !s->has_own)
        s->at_own = moe_packed_take(p, (size_t)(p->block * s->columns) * sizeof(float));
    s->has_own = true;
}

/* Gates in the order of the level, their logits side by side per source; weights in groups of 16.
 */
static void shape_gates(struct moe_packed *p, const struct moe_level *l, struct packed_level *to) {
    int *lanes = ARENA_ARRAY(&p->arena, int, l->n_sources), weights = 0;
    int *choices = ARENA_ARRAY(&p->arena, int, l->n_sources);
    to->n_gates = l->n_gates;
    to->gates = ARENA_ARRAY(&p->arena, struct packed_gate, l->n_gates);
    for (int i = 0; i < l->n_gates; i++) {
        const struct moe_gate_use *u = &l->gates[i];
        struct packed_gate *g = &to->gates[i];
        *g = (struct packed_gate){.source = u->source,
                                  .n_experts = u->gate.n_experts,
                                  .logits_at = lanes[u->source],
                                  .at = weights,
                                  .use = u};
        g->kind = kind_of(&u->gate, &to->sources[u->source], &g->top);
        weights += g->kind == PACKED_MERGE ? MOE_LANES : padded(u->gate.n_experts, MOE_LANES);
        if (g->kind == PACKED_SOFTMAX)
            lanes[u->source] += u->gate.n_experts;
        to->sparse |= (u->gate.flags & MOE_GATE_SPARSE) != 0;
        if (g->kind == PACKED_TOP || g->kind == PACKED_CHOICE) {
            g->logits_at = choices[u->source];
            choices[u->source] += u->gate.n_experts;
        }
        if (g->kind == PACKED_OWN || g->kind == PACKED_CHOICE)
            place_own(p, to, g);
    }
    to->weights_stride = (size_t)weights;
    to->at_weights = moe_packed_take(p, (size_t)p->block * (size_t)weights * sizeof(float));
    bool wide = p->m->wide_tensor >= 0 && to == &p->levels[0];
    for (int i = 0; i < to->n_sources; i++) {
        struct packed_source *s = &to->sources[i];
        if (wide && s->n == 0) {
            p->wide_at = lanes[i];
            p->wide_source = i;
            lanes[i] += p->m->n_tasks;
            wide = false;
        }
        s->has_side = lanes[i] > 0;
        s->side.in = s->columns;
        s->side.out = lanes[i];
        s->side.act = MOE_ACT_NONE;
        s->choice = (struct packed_layer){.in = s->columns, .out = choices[i], .act = MOE_ACT_NONE};
        s->choice_stride = (size_t)padded(choices[i], p->k->nr) + MOE_LANES;
        s->at_choice = moe_packed_take(p, (size_t)p->block * s->choice_stride * sizeof(float));
        /* a group of 16 is read from any logit on */
        s->logits_stride = (size_t)padded(lanes[i], p->k->nr) + MOE_LANES;
        s->at_logits = moe_packed_take(p, (size_t)p->block * s->logits_stride * sizeof(float));
    }
}

static void shape_mlp(struct moe_packed *p, const struct moe_mlp *m, int in, int n_layers,
                      struct packed_layer **out) {
    *out = ARENA_ARRAY(&p->arena, struct packed_layer, n_layers + 1);
    for (int i = 0; i < n_layers; i++) {
        struct packed_layer *y = &(*out)[i];
        y->in = i ? m->width[i] : in;
        y->out = m->width[i + 1];
        y->act = i + 1 < m->n_layers || m->act_last ? m->act : MOE_ACT_NONE;
    }
}

/* Which weights send rows to an expert. It runs on all rows when a dense gate uses it. */
static void shape_uses(struct moe_packed *p, const struct moe_level *l,
                       const struct packed_level *to, int expert, struct packed_expert *e) {
    e->weights_at = ARENA_ARRAY(&p->arena, int, l->n_gates);
    e->sparse = to->sparse;
    for (int g = 0; g < l->n_gates; g++)
        for (int c = 0; c < l->gates[g].gate.n_experts; c++) {
            if (l->gates[g].experts[c] != expert)
                continue;
            if (to->gates[g].kind == PACKED_MERGE) {
                e->idle = true;
                continue;
            }
            if (!(l->gates[g].gate.flags & MOE_GATE_SPARSE))
                e->sparse = false;
            if (e->n_uses < l->n_gates)
                e->weights_at[e->n_uses++] = to->gates[g].at + c;
        }
    e->idle &= e->n_uses == 0;
}

static void shape_experts(struct moe_packed *p, const struct moe_level *l,
                          struct packed_level *to) {
    to->n_experts = to->n_own = l->n_experts;
    to->experts = ARENA_ARRAY(&p->arena, struct packed_expert, l->n_experts + l->n_gates);
    for (int i = 0; i < l->n_experts; i++) {
        const struct moe_expert_group *g = moe_level_group(l, i);
        const struct moe_mlp *mlp = g->expert.shape;
        struct packed_expert *e = &to->experts[i];
        e->source = g->source;
        e->n_layers = mlp->n_layers;
        shape_mlp(p, mlp, to->sources[g->source].columns, mlp->n_layers, &e->layers);
        shape_uses(p, l, to, i, e);
    }
    for (int g = 0; g < l->n_gates; g++) {
        if (to->gates[g].kind != PACKED_MERGE)
            continue;
        const struct packed_expert *like = &to->experts[l->gates[g].experts[0]];
        struct packed_expert *e = &to->experts[to->n_experts++];
        *e = (struct packed_expert){
            .source = like->source, .n_layers = like->n_layers, .layers = like->layers};
        moe_packed_shape_merge(p, &l->gates[g], e);
    }
}

static void shape_modules(struct moe_packed *p, const struct moe_level *l,
                          struct packed_level *to) {
    to->modules = ARENA_ARRAY(&p->arena, struct moe_module_terms, l->n_modules);
    for (int i = 0; i < l->n_modules; i++) {
        int n = 0;
        for (int g = 0; g < l->n_gates; g++)
            n += l->gates[g].module == i ? l->gates[g].gate.n_experts : 0;
        to->modules[i].terms = ARENA_ARRAY(&p->arena, struct moe_term, n);
    }
    for (int g = 0, blend = to->n_own; g < l->n_gates; g++) {
        const struct moe_gate_use *u = &l->gates[g];
        struct moe_module_terms *m = &to->modules[u->module];
        if (to->gates[g].kind == PACKED_MERGE) {
            m->terms[m->n_terms++] =
                (struct moe_term){(size_t)blend++ * to->expert_bytes, (size_t)to->gates[g].at};
            continue;
        }
        for (int c = 0; c < u->gate.n_experts; c++)
            m->terms[m->n_terms++] = (struct moe_term){(size_t)u->experts[c] * to->expert_bytes,
                                                       (size_t)(to->gates[g].at + c)};
    }
}

static bool has_linear_tower(const struct moe_model *m) {
    for (int t = 0; t < m->n_tasks; t++)
        if (m->towers[t].mlp.n_layers == 1)
            return true;
    return false;
}

static void shape_level(struct moe_packed *p, int at) {
    const struct moe_level *l = &p->m->levels[at];
    struct packed_level *to = &p->levels[at];
    to->n_modules = l->n_modules;
    to->out = l->out;
    bool last = at + 1 == p->m->n_levels;
    to->sum_type = last && !has_linear_tower(p->m) ? p->side : MOE_FP32;
    to->sums_stride = moe_pack_row_bytes(to->sum_type, padded(l->out, p->k->nr));
    to->output_bytes = moe_pack_row_bytes(p->side, padded(l->out, p->k->nr));
    to->expert_bytes = (size_t)(p->block + 1) * to->output_bytes;
    shape_sources(p, l, to, at ? to - 1 : NULL);
    shape_gates(p, l, to);
    shape_experts(p, l, to);
    shape_modules(p, l, to);
    to->at_outputs = moe_packed_take(p, (size_t)to->n_experts * to->expert_bytes);
    to->at_sums = moe_packed_take(p, (size_t)(l->n_modules * p->block) * to->sums_stride);
}

static void shape_towers(struct moe_packed *p) {
    const struct moe_level *last = &p->m->levels[p->m->n_levels - 1];
    p->towers = ARENA_ARRAY(&p->arena, struct packed_tower, p->m->n_tasks);
    for (int t = 0; t < p->m->n_tasks; t++) {
        const struct moe_tower *from = &p->m->towers[t];
        struct packed_tower *to = &p->towers[t];
        to->module = from->module;
        to->n_layers = from->mlp.n_layers;
        shape_mlp(p, &from->mlp, last->out, to->n_layers - 1, &to->layers);
    }
}

static size_t widest(const struct packed_layer *l, int n, int nr, size_t most) {
    for (int i = 0; i < n; i++)
        most = (size_t)padded(l[i].out, nr) > most ? (size_t)padded(l[i].out, nr) : most;
    return most;
}

/* Lists and copies of rows for sparse experts. */
static void plan_sparse(struct moe_packed *p) {
    size_t widest_source = 0;
    bool own = false;
    for (int l = 0; l < p->n_levels; l++)
        for (int i = 0; i < p->levels[l].n_sources; i++) {
            const struct packed_source *s = &p->levels[l].sources[i];
            own |= s->has_own;
            if (p->levels[l].sparse && s->low_stride > widest_source)
                widest_source = s->low_stride;
        }
    if (own)
        p->at_group = moe_packed_take(p, (size_t)p->block * sizeof(int));
    if (!widest_source)
        return;
    p->at_list = moe_packed_take(p, (size_t)p->block * sizeof(int));
    p->at_gathered = moe_packed_take(p, (size_t)p->block * widest_source);
}

/* What does not belong to one level. */
static void plan_buffers(struct moe_packed *p) {
    size_t expert = 0, tower = 0;
    for (int l = 0; l < p->n_levels; l++)
        for (int e = 0; e < p->levels[l].n_experts; e++)
            expert = widest(p->levels[l].experts[e].layers, p->levels[l].experts[e].n_layers,
                            p->k->nr, expert);
    for (int t = 0; t < p->m->n_tasks; t++)
        tower = widest(p->towers[t].layers, p->towers[t].n_layers - 1, p->k->nr, tower);
    p->hidden_stride = moe_pack_row_bytes(p->low, (int)expert);
    p->tower_stride = moe_pack_row_bytes(p->side, (int)tower);
    for (int i = 0; i < 2; i++) {
        p->at_hidden[i] = moe_packed_take(p, (size_t)p->block * p->hidden_stride);
        p->at_tower[i] = moe_packed_take(p, (size_t)p->block * p->tower_stride);
    }
    p->at_float =
        moe_packed_take(p, (size_t)p->block * (expert > tower ? expert : tower) * sizeof(float));
    const struct packed_level *last = &p->levels[p->n_levels - 1];
    p->at_tower_in = moe_packed_take(p, (size_t)p->block * moe_pack_row_bytes(p->side, last->out));
    plan_sparse(p);
    p->at_logits =
        moe_packed_take(p, (size_t)p->m->n_tasks * padded(p->block, MOE_LANES) * sizeof(float));
}

/* Columns of the query products: one range per first layer over the input. */
static void plan_query(struct moe_packed *p) {
    int low = 0, side = 0, choice = 0, dq = p->m->part[MOE_QUERY];
    for (int l = 0; l < p->n_levels; l++) {
        struct packed_level *level = &p->levels[l];
        for (int i = 0; i < level->n_sources; i++)
            if (level->sources[i].n == 0 && level->sources[i].choice.out) {
                level->sources[i].choice.start_at = (size_t)choice;
                choice += padded(level->sources[i].choice.out, p->k->nr);
            }
        for (int i = 0; i < level->n_sources; i++)
            if (level->sources[i].n == 0 && level->sources[i].has_side) {
                level->sources[i].side.start_at = (size_t)side;
                side += padded(level->sources[i].side.out, p->k->nr);
            }
        for (int e = 0; e < level->n_own; e++)
            if (level->sources[level->experts[e].source].n == 0) {
                level->experts[e].layers[0].start_at = (size_t)low;
                low += padded(level->experts[e].layers[0].out, p->k->nr);
            }
    }
    p->query_low.columns = dq ? low : 0;
    p->query_side.columns = dq ? side : 0;
    p->query_choice.columns = dq ? choice : 0;
    p->query_choice.at = moe_packed_take(p, (size_t)choice * sizeof(float));
    p->at_query = moe_packed_take(p, (size_t)(dq + MOE_LANES) * sizeof(float));
    p->at_query_low = moe_packed_take(p, moe_pack_row_bytes(p->low, padded(dq, MOE_LANES)));
    p->at_query_side = moe_packed_take(p, moe_pack_row_bytes(p->side, padded(dq, MOE_LANES)));
    p->query_low.at = moe_packed_take(p, (size_t)low * sizeof(float));
    p->query_side.at = moe_packed_take(p, (size_t)side * sizeof(float));
}

static void shape_numbers(struct moe_packed *p, int side) {
    const struct moe_encode *e = &p->m->encode[side];
    float *mean = ARENA_ARRAY(&p->arena, float, e->columns), *scale;
    scale = ARENA_ARRAY(&p->arena, float, e->columns);
    for (int c = 0; c < e->columns; c++) {
        mean[c] = e->column[c].mean;
        scale[c] = e->column[c].scale;
    }
    bool simple = e->kinds == MOE_ENC_VALUE && e->width == e->columns;
    p->numbers[side] = (struct packed_numbers){simple ? e->columns : 0, mean, scale};
}

/* Numbers the activations that int8 has units for. */
static void number_units(struct moe_packed *p) {
    size_t at = (size_t)p->m->part[MOE_QUERY];
    for (int l = 0; l < p->n_levels; l++) {
        struct packed_level *level = &p->levels[l];
        for (int i = 0; i < level->n_sources; i++) {
            level->sources[i].unit_at = at;
            at += (size_t)level->sources[i].columns;
        }
        for (int e = 0; e < level->n_own; e++)
            for (int i = 1; i < level->experts[e].n_layers; i++) {
                level->experts[e].layers[i].unit_at = at;
                at += (size_t)level->experts[e].layers[i].in;
            }
    }
}

static int block_of(const struct moe_model *m, int rows_max) {
    int most = 0, block = MOE_BLOCK; /* experts that a sparse gate chooses among */
    for (int l = 0; l < m->n_levels; l++)
        for (int g = 0; g < m->levels[l].n_gates; g++) {
            const struct moe_gate *gate = &m->levels[l].gates[g].gate;
            if ((gate->flags & MOE_GATE_SPARSE) && gate->n_experts > most)
                most = gate->n_experts;
        }
    if (most)
        block = MOE_BLOCK_SPARSE;
    for (; most > 16 && block < MOE_BLOCK_MOST; most /= 2)
        block *= 2;
    return m->mixes_rows || rows_max < block ? rows_max : block;
}

static void shape(struct moe_packed *p) {
    const struct moe_model *m = p->m;
    p->n_levels = m->n_levels;
    p->wide_at = -1;
    for (int side = 0; side < MOE_SIDES; side++)
        shape_numbers(p, side);
    p->block = block_of(m, p->rows_max);
    p->mixes_rows = m->mixes_rows;
    /* whole vectors are read from each row, the last one's reach behind it */
    p->at_x =
        moe_packed_take(p, ((size_t)(p->block * m->part[MOE_CAND]) + MOE_LANES) * sizeof(float));
    p->levels = ARENA_ARRAY(&p->arena, struct packed_level, m->n_levels);
    for (int l = 0; l < m->n_levels; l++)
        shape_level(p, l);
    shape_towers(p);
    plan_buffers(p);
    plan_query(p);
    number_units(p);
    moe_packed_shape_halves(p);
}

enum status moe_packed_new(const struct moe_model *m, const struct moe_cpu *cpu,
                           enum moe_precision precision, int rows_max, const float *units,
                           struct moe_packed **out) {
    const char *lacks = moe_packed_lacks(m, precision);
    if (lacks)
        return fail(STATUS_UNIMPLEMENTED, "packed scoring in %s does not cover %s",
                    moe_precision_word(precision), lacks);
    if (!moe_cpu_has(cpu, precision))
        return fail(STATUS_UNIMPLEMENTED, "this CPU has no instructions for %s",
                    moe_precision_word(precision));
    if (precision == MOE_INT8 && !units)
        return fail(STATUS_FAILED_PRECONDITION, "int8 needs a calibrated model");
    struct moe_packed *p = HEAP_NEW(struct moe_packed);
    arena_init(&p->arena, 0);
    p->m = m;
    p->k = moe_kernels_for(cpu);
    p->low = precision;
    p->side = precision == MOE_FP32 ? MOE_FP32 : MOE_BF16;
    p->rows_max = rows_max;
    if (precision == MOE_INT8 && !cpu->bf16)
        p->side = MOE_FP32;
    shape(p);
    moe_packed_fill(p, units);
    *out = p;
    return STATUS_OK;
}

void moe_packed_free(struct moe_packed *p) {
    if (!p)
        return;
    heap_free(p->weights);
    moe_item_cache_free(p->halves.cache);
    arena_deinit(&p->arena);
    heap_free(p);
}
