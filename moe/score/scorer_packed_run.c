/* scorer_packed_run.c: scores one request with a packed model, block by block. Nothing here
 * allocates or fails; all buffers are pieces of the caller's scratch.
 *
 * Rows never meet: every product adds in the order of k, softmax and sigmoid work on one row's
 * numbers, and columns stand at fixed places of the vectors. So a row's bits do not depend on the
 * block it falls into. */
#include <assert.h>
#include <string.h>
#include "moe/math/blas.h"
#include "moe/mix.h"
#include "moe/score/scorer_packed_run.h"

const char *moe_packed_stage(enum packed_stage s) {
    static const char *const words[] = {"query", "gather", "convert", "gates",
                                        "first", "last",   "mix",     "towers"};
    return words[s];
}

/* A source's rows as gates' own code reads them. */
static struct moe_rows own_rows(const struct packed_run *r, const struct packed_level *below,
                                const struct packed_source *s, const int start[2]) {
    const struct moe_packed *p = r->p;
    struct moe_rows x = {.n_rows = r->n, .n_groups = 1, .dc = s->columns, .start = start};
    x.group = (const int *)(const void *)(r->scratch + p->at_group);
    if (s->n == 0) {
        x.dq = p->m->part[MOE_QUERY];
        x.q = packed_floats(r, p->at_query);
        x.c = packed_floats(r, p->at_x);
        return x;
    }
    float *c = packed_floats(r, s->at_own);
    const size_t width = (size_t)(s->columns / s->n), columns = (size_t)s->columns;
    for (int i = 0; i < s->n; i++) {
        const char *sums =
            r->scratch + below->at_sums + (size_t)(s->modules[i] * p->block) * below->sums_stride;
        for (size_t row = 0; row < (size_t)r->n; row++)
            memcpy(c + row * columns + (size_t)i * width, sums + row * below->sums_stride,
                   width * sizeof *c);
    }
    x.c = c;
    return x;
}

/* A choice among logits that the packed product made; h: the gate's, with gaps. */
static void choose(const struct packed_run *r, const struct packed_gate *g, const float *h,
                   size_t stride, const struct moe_rows *x, struct moe_pass *pass,
                   struct moe_route *route) {
    const struct moe_plan plan = {r->p->block, 1, false};
    const struct moe_mix_conf *conf = &((const struct moe_mix_gate *)g->use->gate.shape)->mix;
    struct moe_work work = {.base = packed_floats(r, g->at_work)};
    struct moe_numbers numbers = {.p = &r->p->m->params, .v = r->p->m->params.v};
    struct moe_mix mix;
    float *dense = packed_floats(r, g->at_dense);
    const size_t n = (size_t)g->n_experts;
    for (size_t i = 0; i < (size_t)r->n; i++)
        memcpy(dense + i * n, h + i * stride, n * sizeof *dense);
    moe_mix_bind(conf, g->n_experts, &plan, &work, &mix);
    moe_mix_forward(conf, g->n_experts, dense, moe_numbers_value(&numbers, g->use->buffer, 0), x,
                    pass, &mix, route);
}

/* The whole of a gate in its own code. */
static void run_own(const struct packed_run *r, const struct packed_gate *g,
                    const struct moe_rows *x, struct moe_pass *pass, struct moe_route *route) {
    const struct moe_model *m = r->p->m;
    const struct moe_gate *gate = &g->use->gate;
    const struct moe_plan plan = {r->p->block, 1, false};
    struct moe_work work = {.base = packed_floats(r, g->at_work)};
    struct moe_numbers numbers = {.p = &m->params, .v = m->params.v};
    struct moe_gate_io io = {moe_numbers_value(&numbers, g->use->tensor, 0),
                             moe_numbers_value(&numbers, g->use->buffer, 0),
                             gate->ops->bind ? gate->ops->bind(gate, &plan, &work) : NULL};
    const int was = moe_gemm_set_exact(pass->exact);
    gate->ops->forward(gate, &io, x, pass, route);
    moe_gemm_set_exact(was);
}

static void run_own_gate(const struct packed_run *r, const struct packed_level *below,
                         const struct packed_source *s, const struct packed_gate *g, float *weights,
                         size_t stride) {
    const int start[2] = {0, r->n}, n = g->n_experts;
    struct moe_rows x = own_rows(r, below, s, start);
    struct moe_pass pass = {.exact = !r->p->mixes_rows, .batch = r->batch};
    struct moe_route route = {.kind = MOE_ROUTE_WEIGHTS,
                              .n_experts = n,
                              .n_rows = r->n,
                              .n_groups = 1,
                              .w = packed_floats(r, g->at_route)};
    if (g->kind == PACKED_CHOICE)
        choose(r, g, packed_floats(r, s->at_choice) + g->logits_at, s->choice_stride, &x, &pass,
               &route);
    else
        run_own(r, g, &x, &pass, &route);
    for (int i = 0; i < r->n; i++)
        memcpy(weights + (size_t)i * stride, route.w + (size_t)(i * n),
               (size_t)n * sizeof *weights);
}

/* fp32 logits of the gates that choose, from the model's input. */
static void run_choice_logits(const struct packed_run *r, const struct packed_source *s) {
    struct moe_tile t = moe_packed_tile(r, &s->choice, packed_floats(r, r->p->at_x),
                                        (size_t)s->columns * sizeof(float), r->p->query_choice.at);
    t.end = MOE_END_F32;
    t.out = r->scratch + s->at_choice;
    t.out_stride = s->choice_stride * sizeof(float);
    moe_packed_layer(r, &s->choice, &t);
}

static void run_gates(const struct packed_run *r, const struct packed_level *below,
                      const struct packed_level *l) {
    const bool kept = r->kept && l == r->p->levels;
    if (kept)
        moe_packed_halves_logits(r);
    for (int i = 0; i < l->n_sources && !kept; i++) {
        const struct packed_source *s = &l->sources[i];
        if (s->choice.out)
            run_choice_logits(r, s);
        if (!s->has_side)
            continue;
        struct moe_tile t = moe_packed_tile(r, &s->side, r->scratch + s->at_side, s->side_stride,
                                            r->p->query_side.at);
        t.end = MOE_END_F32;
        t.out = r->scratch + s->at_logits;
        t.out_stride = s->logits_stride * sizeof(float);
        moe_packed_layer(r, &s->side, &t);
    }
    for (int g = 0; g < l->n_gates; g++) {
        const struct packed_gate *gate = &l->gates[g];
        const struct packed_source *s = &l->sources[gate->source];
        float *weights = packed_floats(r, l->at_weights) + gate->at;
        switch (gate->kind) {
        case PACKED_ONE:
        case PACKED_MERGE:
            for (int i = 0; i < r->n; i++)
                weights[(size_t)i * l->weights_stride] = 1;
            break;
        case PACKED_SOFTMAX:
            r->p->k->softmax(packed_floats(r, s->at_logits) + gate->logits_at, s->logits_stride,
                             weights, l->weights_stride, r->n, gate->n_experts);
            break;
        case PACKED_TOP:
            r->p->k->choose(&gate->top, packed_floats(r, s->at_choice) + gate->logits_at,
                            s->choice_stride, weights, l->weights_stride, r->n);
            break;
        case PACKED_CHOICE:
        case PACKED_OWN:
            run_own_gate(r, below, s, gate, weights, l->weights_stride);
            break;
        }
    }
}

static void run_levels(const struct packed_run *r) {
    const struct packed_level *below = NULL;
    int64_t clock = 0;
    for (int l = 0; l < r->p->n_levels; l++) {
        const struct packed_level *level = &r->p->levels[l];
        clock = 0;
        packed_lap(r, PACKED_CONVERT, &clock);
        const bool kept = r->kept && l == 0;
        for (int i = 0; i < level->n_sources && !kept; i++) {
            const struct packed_source *s = &level->sources[i];
            moe_packed_open(r, below, s);
            packed_show(r, s->unit_at, r->scratch + s->at_low, s->low_stride, s->columns);
        }
        if (l == 0 && r->watch && r->watch->see && r->p->low == MOE_FP32)
            moe_packed_halves_show(r);
        packed_lap(r, PACKED_CONVERT, &clock);
        run_gates(r, below, level);
        packed_lap(r, PACKED_GATES, &clock);
        moe_packed_experts(r, level);
        below = level;
    }
}

/* The last layer of a tower on its own, where no tile can do it. */
static void dots(const struct packed_tower *t, const float *x, size_t stride, int n, int width,
                 float *logits) {
    for (int i = 0; i < n; i++)
        logits[i] = t->dot_base + moe_vec_dot((size_t)width, x + (size_t)i * stride, t->dot);
}

static void run_tower(const struct packed_run *r, const struct packed_tower *t, float *logits) {
    const struct moe_packed *p = r->p;
    const struct packed_level *level = &p->levels[p->n_levels - 1];
    const char *a =
        r->scratch + level->at_sums + (size_t)(t->module * p->block) * level->sums_stride;
    size_t stride = level->sums_stride;
    const int hidden = t->n_layers - 1;
    if (hidden == 0) {
        dots(t, (const float *)(const void *)a, stride / sizeof(float), r->n, level->out, logits);
        return;
    }
    if (p->side != level->sum_type) {
        char *rows = r->scratch + p->at_tower_in;
        moe_packed_convert(p->k, p->side, NULL, 0, (const float *)(const void *)a,
                           stride / sizeof(float), r->n, level->out, rows,
                           moe_pack_row_bytes(p->side, level->out), NULL);
        a = rows;
        stride = moe_pack_row_bytes(p->side, level->out);
    }
    for (int i = 0; i + 1 < hidden; i++) {
        struct packed_target to = {
            p->side, r->scratch + p->at_tower[i & 1], p->tower_stride, NULL, 0, NULL};
        moe_packed_store(r, &t->layers[i], a, stride, 0, &to);
        a = to.rows;
        stride = to.stride;
    }
    const struct packed_layer *l = &t->layers[hidden - 1];
    struct moe_tile last = moe_packed_tile(r, l, a, stride, 0);
    if (l->act == MOE_ACT_RELU || l->act == MOE_ACT_NONE) {
        last.end = MOE_END_DOT;
        last.dot = t->dot;
        last.dot_out = logits;
        last.dot_first = true;
        last.dot_base = t->dot_base;
        moe_packed_layer(r, l, &last);
        return;
    }
    const size_t columns = (size_t)moe_pack_columns(&l->w);
    float *y = packed_floats(r, p->at_float);
    last.end = MOE_END_F32;
    last.out = y;
    last.out_stride = columns * sizeof *y;
    moe_packed_layer(r, l, &last);
    moe_vec_act(l->act, (size_t)r->n * columns, y, y);
    dots(t, y, columns, r->n, l->out, logits);
}

/* Logits of all tasks, then probabilities to out [task * stride + row]. */
static void run_towers(const struct packed_run *r, float *out, size_t out_stride) {
    const struct moe_packed *p = r->p;
    const int tasks = p->m->n_tasks;
    float *logits = packed_floats(r, p->at_logits); /* [tasks x lanes] */
    const int lanes = (p->block + MOE_LANES - 1) / MOE_LANES * MOE_LANES;
    const struct packed_source *s = &p->levels[0].sources[p->wide_source];
    const float *wide = packed_floats(r, s->at_logits) + p->wide_at;
    for (int t = 0; t < tasks; t++) {
        float *z = logits + (size_t)(t * lanes);
        run_tower(r, &p->towers[t], z);
        for (int i = 0; i < r->n && p->wide_at >= 0; i++)
            z[i] += wide[(size_t)i * s->logits_stride + (size_t)t];
        memset(z + r->n, 0, (size_t)(lanes - r->n) * sizeof *z);
    }
    p->k->sigmoid(logits, tasks * lanes);
    for (int t = 0; t < tasks; t++)
        memcpy(out + (size_t)t * out_stride, logits + (size_t)(t * lanes),
               (size_t)r->n * sizeof *logits);
}

static void run_query_product(const struct packed_run *r, const struct packed_query *q,
                              enum moe_precision to, const float *x, size_t at) {
    const struct moe_packed *p = r->p;
    if (!q->columns)
        return;
    const void *a = x;
    if (to != MOE_FP32) {
        a = r->scratch + at;
        moe_packed_convert(p->k, to, q->per_unit, q->zero, x, 0, 1, p->m->part[MOE_QUERY],
                           r->scratch + at, 0, NULL);
    }
    struct moe_tile t = {.a = a, .start = q->start, .end = MOE_END_F32, .out = r->scratch + q->at};
    moe_pack_run(p->k, &q->w, &t, 1, 0, q->w.panels);
    if (q == &p->query_low)
        packed_show(r, 0, a, 0, p->m->part[MOE_QUERY]);
}

/* The query part of every first layer, once for the request. */
static void run_query(const struct packed_run *r, const struct moe_batch *b) {
    const struct moe_packed *p = r->p;
    const struct moe_model *m = p->m;
    const int dq = m->part[MOE_QUERY];
    float *x = packed_floats(r, p->at_query);
    if (!dq)
        return;
    moe_packed_gather(p, MOE_QUERY, b->query, b->query_ids, 1, x);
    run_query_product(r, &p->query_low, p->low, x, p->at_query_low);
    run_query_product(r, &p->query_side, p->side, x, p->at_query_side);
    run_query_product(r, &p->query_choice, MOE_FP32, x, 0);
}

void moe_packed_score(const struct moe_packed *p, const struct moe_batch *b, void *scratch,
                      float *probabilities, const struct packed_watch *watch) {
    assert(b->n_groups == 1 && b->n_rows <= p->rows_max);
    const struct moe_inputs *in = &p->m->inputs;
    struct moe_batch block = *b;
    struct packed_run r = {.p = p, .scratch = scratch, .n = 1, .batch = &block, .watch = watch};
    const bool keeps = p->halves.cache != NULL;
    int64_t clock = 0;
    packed_lap(&r, PACKED_QUERY, &clock);
    run_query(&r, b);
    moe_packed_merge(&r);
    if (p->at_group)
        memset(r.scratch + p->at_group, 0, (size_t)p->block * sizeof(int));
    packed_lap(&r, PACKED_QUERY, &clock);
    if (keeps)
        moe_packed_halves_begin(&r, b);
    for (int from = 0; from < b->n_rows; from += p->block) {
        const size_t at = (size_t)from;
        r.n = block.n_rows = b->n_rows - from < p->block ? b->n_rows - from : p->block;
        block.cand = b->cand + at * (size_t)in->cand_columns;
        block.cand_ids = b->cand_ids + at * (size_t)in->cand_slots;
        if (keeps)
            moe_packed_halves_block(&r, b, from);
        else
            moe_packed_gather(p, MOE_CAND, block.cand, block.cand_ids, r.n,
                              packed_floats(&r, p->at_x));
        packed_lap(&r, PACKED_GATHER, &clock);
        run_levels(&r);
        clock = 0;
        packed_lap(&r, PACKED_TOWERS, &clock);
        run_towers(&r, probabilities + at, (size_t)b->n_rows);
        packed_lap(&r, PACKED_TOWERS, &clock);
        if (keeps)
            moe_packed_halves_end(&r, from);
    }
}
