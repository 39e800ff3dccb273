/* scorer_packed_run.c: scores one request with a packed model, block by block. Nothing here
 * allocates or fails; all buffers are pieces of the caller's scratch.
 *
 * Rows never meet: every product adds in the order of k, softmax and sigmoid work on one row's
 * numbers, and columns stand at fixed places of the vectors. So a row's bits do not depend on the
 * block it falls into. */
#include <assert.h>
#include <string.h>
#include "base/clock.h"
#include "moe/blas.h"
#include "moe/scorer_packed.h"

struct run {
    const struct moe_packed *p;
    char *scratch;
    int n;                         /* rows of this block, or of them those that an expert gets */
    const int *rows;               /* [n] which these are; NULL: all */
    const struct moe_batch *batch; /* the block's */
    const struct packed_watch *watch;
};

const char *moe_packed_stage(enum packed_stage s) {
    static const char *const words[] = {"query", "gather", "convert", "gates",
                                        "first", "last",   "mix",     "towers"};
    return words[s];
}

/* Ends a stage that began at *from, and begins the next. */
static void lap(const struct run *r, enum packed_stage stage, int64_t *from) {
    if (!r->watch || !r->watch->stage_ns)
        return;
    int64_t now = clock_mono_ns();
    if (*from)
        r->watch->stage_ns[stage] += now - *from;
    *from = now;
}

static void show(const struct run *r, size_t unit, const void *rows, size_t stride, int columns) {
    if (r->watch && r->watch->see)
        r->watch->see(r->watch->to, unit, rows, stride, r->n, columns, r->rows);
}

static float *floats_at(const struct run *r, size_t at) {
    return (float *)(void *)(r->scratch + at);
}

/* Rows [n x columns] of floats as the tiles want them; padding columns are read and written. */
static void convert(const struct moe_kernels *k, enum moe_precision to, const float *per_unit,
                    int zero, const float *x, size_t x_stride, int n, int columns, char *out,
                    size_t out_stride, const int *rows) {
    const int wide = (columns + MOE_LANES - 1) / MOE_LANES * MOE_LANES;
    for (int r = 0; r < n; r++, x += x_stride) {
        char *to_row = out + (size_t)(rows ? rows[r] : r) * out_stride;
        if (to == MOE_FP32)
            memcpy(to_row, x, (size_t)columns * sizeof *x);
        else if (to == MOE_BF16)
            k->bf16(x, (uint16_t *)(void *)to_row, wide);
        else
            k->u8(x, per_unit, zero, (uint8_t *)to_row, wide);
    }
}

/* The part of a tile's description that follows from the layer. */
static struct moe_tile tile_of(const struct run *r, const struct packed_layer *l, const void *a,
                               size_t a_stride, size_t query_at) {
    return (struct moe_tile){
        .a = a,
        .a_stride = a_stride,
        .start = l->start ? l->start : floats_at(r, query_at) + l->start_at,
        .relu = l->act == MOE_ACT_RELU,
    };
}

static void run_layer(const struct run *r, const struct packed_layer *l, const struct moe_tile *t) {
    moe_pack_run(r->p->k, &l->w, t, r->n, 0, l->w.panels);
}

/* Where a layer's output goes: rows of `type`, u8 with these units. */
struct target {
    enum moe_precision type;
    char *rows;
    size_t stride; /* bytes */
    const float *per_unit;
    int zero;
    const int *at; /* [n] which rows; NULL: 0, 1, .. */
};

static void store_layer(const struct run *r, const struct packed_layer *l, const void *a,
                        size_t a_stride, size_t query_at, const struct target *to) {
    static const enum moe_end ends[] = {MOE_END_F32, MOE_END_BF16, MOE_END_U8};
    struct moe_tile t = tile_of(r, l, a, a_stride, query_at);
    t.end = ends[to->type];
    t.out = to->rows;
    t.out_stride = to->stride;
    t.rows = to->at;
    if (l->act == MOE_ACT_RELU || (l->act == MOE_ACT_NONE && to->type != MOE_INT8)) {
        run_layer(r, l, &t);
        return;
    }
    const size_t columns = (size_t)moe_pack_columns(&l->w);
    float *x = floats_at(r, r->p->at_float);
    t.end = MOE_END_F32;
    t.out = x;
    t.out_stride = columns * sizeof *x;
    t.rows = NULL;
    run_layer(r, l, &t);
    moe_vec_act(l->act, (size_t)r->n * columns, x, x);
    convert(r->p->k, to->type, to->per_unit, to->zero, x, columns, r->n, (int)columns, to->rows,
            to->stride, to->at);
}

/* The rows that some gate sends to the expert, in order; returns how many. */
static int list_rows(const struct run *r, const struct packed_level *l,
                     const struct packed_expert *e, int *list) {
    const float *weights = floats_at(r, l->at_weights);
    int n = 0;
    for (int i = 0; i < r->n; i++, weights += l->weights_stride) {
        bool sent = false;
        for (int u = 0; u < e->n_uses; u++)
            sent |= weights[e->weights_at[u]] != 0;
        list[n] = i;
        n += sent;
    }
    return n;
}

/* Layers of an expert over rows `a`; the outputs go to their rows' places. */
static void run_layers(const struct run *r, const struct packed_level *level,
                       const struct packed_expert *e, const char *a, size_t stride) {
    const struct moe_packed *p = r->p;
    const size_t number = (size_t)(e - level->experts);
    int64_t clock = 0;
    lap(r, PACKED_FIRST, &clock);
    for (int i = 0; i + 1 < e->n_layers; i++) {
        const struct packed_layer *next = &e->layers[i + 1];
        struct target to = {p->low,           r->scratch + p->at_hidden[i & 1],
                            p->hidden_stride, next->per_unit,
                            next->zero,       NULL};
        store_layer(r, &e->layers[i], a, stride, p->query_low.at, &to);
        a = to.rows;
        stride = to.stride;
        show(r, next->unit_at, a, stride, next->in);
    }
    lap(r, PACKED_FIRST, &clock);
    struct target to = {.type = p->side,
                        .rows = r->scratch + level->at_outputs + number * level->output_bytes,
                        .stride = (size_t)level->n_experts * level->output_bytes,
                        .at = r->rows};
    store_layer(r, &e->layers[e->n_layers - 1], a, stride, p->query_low.at, &to);
    lap(r, PACKED_LAST, &clock);
}

static void run_expert(const struct run *r, const struct packed_level *level,
                       const struct packed_expert *e) {
    const struct packed_source *s = &level->sources[e->source];
    const char *a = r->scratch + s->at_low;
    if (!e->sparse) {
        run_layers(r, level, e, a, s->low_stride);
        return;
    }
    struct run some = *r;
    int *list = (int *)(void *)(r->scratch + r->p->at_list);
    char *gathered = r->scratch + r->p->at_gathered;
    int64_t clock = 0;
    lap(r, PACKED_CONVERT, &clock);
    some.n = list_rows(r, level, e, list);
    some.rows = list;
    for (int i = 0; i < some.n && some.n < r->n; i++)
        memcpy(gathered + (size_t)i * s->low_stride, a + (size_t)list[i] * s->low_stride,
               s->low_stride);
    lap(r, PACKED_CONVERT, &clock);
    if (some.n)
        run_layers(&some, level, e, some.n < r->n ? gathered : a, s->low_stride);
}

static void mix_modules(const struct run *r, const struct packed_level *l) {
    const int nr = r->p->k->nr;
    struct moe_mix m = {.modules = l->modules,
                        .n_modules = l->n_modules,
                        .sparse = l->sparse,
                        .x = r->scratch + l->at_outputs,
                        .x_stride = (size_t)l->n_experts * l->output_bytes,
                        .gates = floats_at(r, l->at_weights),
                        .gate_stride = l->weights_stride,
                        .columns = (l->out + nr - 1) / nr * nr,
                        .out = r->scratch + l->at_sums,
                        .out_stride = l->sums_stride,
                        .module_stride = (size_t)r->p->block * l->sums_stride};
    r->p->k->mix[r->p->side][l->sum_type](&m, r->n);
}

/* Copies of a source's rows in the types that read them. */
static void open_source(const struct run *r, const struct packed_level *below,
                        const struct packed_source *s) {
    const struct moe_packed *p = r->p;
    if (s->direct)
        return;
    const int parts = s->n ? s->n : 1, width = s->columns / parts;
    for (int i = 0; i < parts; i++) {
        const float *x = floats_at(r, p->at_x);
        size_t stride = (size_t)p->m->part[MOE_CAND];
        if (s->n) {
            stride = below->sums_stride / sizeof *x;
            x = floats_at(r,
                          below->at_sums + (size_t)(s->modules[i] * p->block) * below->sums_stride);
        }
        const size_t at = (size_t)i * (size_t)width;
        const size_t low = p->low == MOE_FP32 ? 4 : p->low == MOE_BF16 ? 2 : 1;
        convert(p->k, p->low, s->per_unit ? s->per_unit + at : NULL, s->zero, x, stride, r->n,
                width, r->scratch + s->at_low + at * low, s->low_stride, NULL);
        if (s->at_side != s->at_low && s->has_side)
            convert(p->k, p->side, NULL, 0, x, stride, r->n, width,
                    r->scratch + s->at_side + at * (p->side == MOE_FP32 ? 4 : 2), s->side_stride,
                    NULL);
    }
}

/* A source's rows as gates' own code reads them. */
static struct moe_rows own_rows(const struct run *r, const struct packed_level *below,
                                const struct packed_source *s, const int start[2]) {
    const struct moe_packed *p = r->p;
    struct moe_rows x = {.n_rows = r->n, .n_groups = 1, .dc = s->columns, .start = start};
    x.group = (const int *)(const void *)(r->scratch + p->at_group);
    if (s->n == 0) {
        x.dq = p->m->part[MOE_QUERY];
        x.q = floats_at(r, p->at_query);
        x.c = floats_at(r, p->at_x);
        return x;
    }
    float *c = floats_at(r, s->at_own);
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

static void run_own_gate(const struct run *r, const struct packed_level *below,
                         const struct packed_source *s, const struct packed_gate *g, float *weights,
                         size_t stride) {
    const struct moe_model *m = r->p->m;
    const struct moe_gate *gate = &g->use->gate;
    const struct moe_plan plan = {r->p->block, 1, false};
    const int start[2] = {0, r->n}, n = g->n_experts;
    struct moe_work work = {.base = floats_at(r, g->at_work)};
    struct moe_numbers numbers = {.p = &m->params, .v = m->params.v};
    struct moe_gate_io io = {moe_numbers_value(&numbers, g->use->tensor, 0),
                             moe_numbers_value(&numbers, g->use->buffer, 0),
                             gate->ops->bind ? gate->ops->bind(gate, &plan, &work) : NULL};
    struct moe_rows x = own_rows(r, below, s, start);
    struct moe_pass pass = {.exact = !r->p->mixes_rows, .batch = r->batch};
    struct moe_route route = {.kind = MOE_ROUTE_WEIGHTS,
                              .n_experts = n,
                              .n_rows = r->n,
                              .n_groups = 1,
                              .w = floats_at(r, g->at_route)};
    const int was = moe_gemm_set_exact(pass.exact);
    gate->ops->forward(gate, &io, &x, &pass, &route);
    moe_gemm_set_exact(was);
    for (int i = 0; i < r->n; i++)
        memcpy(weights + (size_t)i * stride, route.w + (size_t)(i * n),
               (size_t)n * sizeof *weights);
}

static void run_gates(const struct run *r, const struct packed_level *below,
                      const struct packed_level *l) {
    for (int i = 0; i < l->n_sources; i++) {
        const struct packed_source *s = &l->sources[i];
        if (!s->has_side)
            continue;
        struct moe_tile t =
            tile_of(r, &s->side, r->scratch + s->at_side, s->side_stride, r->p->query_side.at);
        t.end = MOE_END_F32;
        t.out = r->scratch + s->at_logits;
        t.out_stride = s->logits_stride * sizeof(float);
        run_layer(r, &s->side, &t);
    }
    for (int g = 0; g < l->n_gates; g++) {
        const struct packed_gate *gate = &l->gates[g];
        const struct packed_source *s = &l->sources[gate->source];
        float *weights = floats_at(r, l->at_weights) + gate->at;
        switch (gate->kind) {
        case PACKED_ONE:
            for (int i = 0; i < r->n; i++)
                weights[(size_t)i * l->weights_stride] = 1;
            break;
        case PACKED_SOFTMAX:
            r->p->k->softmax(floats_at(r, s->at_logits) + gate->logits_at, s->logits_stride,
                             weights, l->weights_stride, r->n, gate->n_experts);
            break;
        case PACKED_OWN:
            run_own_gate(r, below, s, gate, weights, l->weights_stride);
            break;
        }
    }
}

static void run_levels(const struct run *r) {
    const struct packed_level *below = NULL;
    int64_t clock = 0;
    for (int l = 0; l < r->p->n_levels; l++) {
        const struct packed_level *level = &r->p->levels[l];
        clock = 0;
        lap(r, PACKED_CONVERT, &clock);
        for (int i = 0; i < level->n_sources; i++) {
            const struct packed_source *s = &level->sources[i];
            open_source(r, below, s);
            show(r, s->unit_at, r->scratch + s->at_low, s->low_stride, s->columns);
        }
        lap(r, PACKED_CONVERT, &clock);
        run_gates(r, below, level);
        lap(r, PACKED_GATES, &clock);
        for (int e = 0; e < level->n_experts; e++)
            run_expert(r, level, &level->experts[e]);
        clock = 0;
        lap(r, PACKED_MIX, &clock);
        mix_modules(r, level);
        lap(r, PACKED_MIX, &clock);
        below = level;
    }
}

/* The last layer of a tower on its own, where no tile can do it. */
static void dots(const struct packed_tower *t, const float *x, size_t stride, int n, int width,
                 float *logits) {
    for (int i = 0; i < n; i++)
        logits[i] = t->dot_base + moe_vec_dot((size_t)width, x + (size_t)i * stride, t->dot);
}

static void run_tower(const struct run *r, const struct packed_tower *t, float *logits) {
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
        convert(p->k, p->side, NULL, 0, (const float *)(const void *)a, stride / sizeof(float),
                r->n, level->out, rows, moe_pack_row_bytes(p->side, level->out), NULL);
        a = rows;
        stride = moe_pack_row_bytes(p->side, level->out);
    }
    for (int i = 0; i + 1 < hidden; i++) {
        struct target to = {p->side, r->scratch + p->at_tower[i & 1], p->tower_stride, NULL, 0,
                            NULL};
        store_layer(r, &t->layers[i], a, stride, 0, &to);
        a = to.rows;
        stride = to.stride;
    }
    const struct packed_layer *l = &t->layers[hidden - 1];
    struct moe_tile last = tile_of(r, l, a, stride, 0);
    if (l->act == MOE_ACT_RELU || l->act == MOE_ACT_NONE) {
        last.end = MOE_END_DOT;
        last.dot = t->dot;
        last.dot_out = logits;
        last.dot_first = true;
        last.dot_base = t->dot_base;
        run_layer(r, l, &last);
        return;
    }
    const size_t columns = (size_t)moe_pack_columns(&l->w);
    float *y = floats_at(r, p->at_float);
    last.end = MOE_END_F32;
    last.out = y;
    last.out_stride = columns * sizeof *y;
    run_layer(r, l, &last);
    moe_vec_act(l->act, (size_t)r->n * columns, y, y);
    dots(t, y, columns, r->n, l->out, logits);
}

/* Logits of all tasks, then probabilities to out [task * stride + row]. */
static void run_towers(const struct run *r, float *out, size_t out_stride) {
    const struct moe_packed *p = r->p;
    const int tasks = p->m->n_tasks;
    float *logits = floats_at(r, p->at_logits); /* [tasks x lanes] */
    const int lanes = (p->block + MOE_LANES - 1) / MOE_LANES * MOE_LANES;
    const struct packed_source *s = &p->levels[0].sources[p->wide_source];
    const float *wide = floats_at(r, s->at_logits) + p->wide_at;
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

static void run_query_product(const struct run *r, const struct packed_query *q,
                              enum moe_precision to, const float *x, size_t at) {
    const struct moe_packed *p = r->p;
    if (!q->columns)
        return;
    const void *a = x;
    if (to != MOE_FP32) {
        a = r->scratch + at;
        convert(p->k, to, q->per_unit, q->zero, x, 0, 1, p->m->part[MOE_QUERY], r->scratch + at, 0,
                NULL);
    }
    struct moe_tile t = {.a = a, .start = q->start, .end = MOE_END_F32, .out = r->scratch + q->at};
    moe_pack_run(p->k, &q->w, &t, 1, 0, q->w.panels);
    if (q == &p->query_low)
        show(r, 0, a, 0, p->m->part[MOE_QUERY]);
}

/* The query part of every first layer, once for the request. */
static void run_query(const struct run *r, const struct moe_batch *b) {
    const struct moe_packed *p = r->p;
    const struct moe_model *m = p->m;
    const int dq = m->part[MOE_QUERY];
    float *x = floats_at(r, p->at_query);
    if (!dq)
        return;
    moe_packed_gather(p, MOE_QUERY, b->query, b->query_ids, 1, x);
    run_query_product(r, &p->query_low, p->low, x, p->at_query_low);
    run_query_product(r, &p->query_side, p->side, x, p->at_query_side);
}

void moe_packed_score(const struct moe_packed *p, const struct moe_batch *b, void *scratch,
                      float *probabilities, const struct packed_watch *watch) {
    assert(b->n_groups == 1 && b->n_rows <= p->rows_max);
    const struct moe_inputs *in = &p->m->inputs;
    struct moe_batch block = *b;
    struct run r = {p, scratch, 1, NULL, &block, watch};
    int64_t clock = 0;
    lap(&r, PACKED_QUERY, &clock);
    run_query(&r, b);
    if (p->at_group)
        memset(r.scratch + p->at_group, 0, (size_t)p->block * sizeof(int));
    lap(&r, PACKED_QUERY, &clock);
    for (int from = 0; from < b->n_rows; from += p->block) {
        const size_t at = (size_t)from;
        r.n = block.n_rows = b->n_rows - from < p->block ? b->n_rows - from : p->block;
        block.cand = b->cand + at * (size_t)in->cand_columns;
        block.cand_ids = b->cand_ids + at * (size_t)in->cand_slots;
        lap(&r, PACKED_TOWERS, &clock);
        moe_packed_gather(p, MOE_CAND, block.cand, block.cand_ids, r.n, floats_at(&r, p->at_x));
        lap(&r, PACKED_GATHER, &clock);
        run_levels(&r);
        clock = 0;
        lap(&r, PACKED_TOWERS, &clock);
        run_towers(&r, probabilities + at, (size_t)b->n_rows);
        lap(&r, PACKED_TOWERS, &clock);
    }
}
