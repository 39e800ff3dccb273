/* scorer_packed_experts.c: the experts of a level over a block: layers one after another, of sparse
 * routes on a gathered copy of an expert's rows, and the mixing of what comes out. */
#include <string.h>
#include "moe/score/scorer_packed_run.h"

void moe_packed_convert(const struct moe_kernels *k, enum moe_precision to, const float *per_unit,
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

struct moe_tile moe_packed_tile(const struct packed_run *r, const struct packed_layer *l,
                                const void *a, size_t a_stride, size_t query_at) {
    return (struct moe_tile){
        .a = a,
        .a_stride = a_stride,
        .start = l->start ? l->start : packed_floats(r, query_at) + l->start_at,
        .relu = l->act == MOE_ACT_RELU,
    };
}

void moe_packed_layer(const struct packed_run *r, const struct packed_layer *l,
                      const struct moe_tile *t) {
    moe_pack_run(r->p->k, &l->w, t, r->n, 0, l->w.panels);
}

void moe_packed_store(const struct packed_run *r, const struct packed_layer *l, const void *a,
                      size_t a_stride, size_t query_at, const struct packed_target *to) {
    static const enum moe_end ends[] = {MOE_END_F32, MOE_END_BF16, MOE_END_U8};
    struct moe_tile t = moe_packed_tile(r, l, a, a_stride, query_at);
    t.end = ends[to->type];
    t.out = to->rows;
    t.out_stride = to->stride;
    t.rows = to->at;
    if (l->act == MOE_ACT_RELU || (l->act == MOE_ACT_NONE && to->type != MOE_INT8)) {
        moe_packed_layer(r, l, &t);
        return;
    }
    const size_t columns = (size_t)moe_pack_columns(&l->w);
    float *x = packed_floats(r, r->p->at_float);
    t.end = MOE_END_F32;
    t.out = x;
    t.out_stride = columns * sizeof *x;
    t.rows = NULL;
    moe_packed_layer(r, l, &t);
    moe_vec_act(l->act, (size_t)r->n * columns, x, x);
    moe_packed_convert(r->p->k, to->type, to->per_unit, to->zero, x, columns, r->n, (int)columns,
                       to->rows, to->stride, to->at);
}

void moe_packed_open(const struct packed_run *r, const struct packed_level *below,
                     const struct packed_source *s) {
    const struct moe_packed *p = r->p;
    if (s->direct)
        return;
    const int parts = s->n ? s->n : 1, width = s->columns / parts;
    for (int i = 0; i < parts; i++) {
        const float *x = packed_floats(r, p->at_x);
        size_t stride = (size_t)p->m->part[MOE_CAND];
        if (s->n) {
            stride = below->sums_stride / sizeof *x;
            x = packed_floats(r, below->at_sums +
                                     (size_t)(s->modules[i] * p->block) * below->sums_stride);
        }
        const size_t at = (size_t)i * (size_t)width;
        const size_t low = p->low == MOE_FP32 ? 4 : p->low == MOE_BF16 ? 2 : 1;
        moe_packed_convert(p->k, p->low, s->per_unit ? s->per_unit + at : NULL, s->zero, x, stride,
                           r->n, width, r->scratch + s->at_low + at * low, s->low_stride, NULL);
        if (s->at_side != s->at_low && s->has_side)
            moe_packed_convert(p->k, p->side, NULL, 0, x, stride, r->n, width,
                               r->scratch + s->at_side + at * (p->side == MOE_FP32 ? 4 : 2),
                               s->side_stride, NULL);
    }
}

/* The rows that some gate sends to the expert, in order; returns how many. */
static int list_rows(const struct packed_run *r, const struct packed_level *l,
                     const struct packed_expert *e, int *list) {
    const float *weights = packed_floats(r, l->at_weights);
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
static void run_layers(const struct packed_run *r, const struct packed_level *level,
                       const struct packed_expert *e, size_t number, const char *a, size_t stride) {
    const struct moe_packed *p = r->p;
    int64_t clock = 0;
    packed_lap(r, PACKED_FIRST, &clock);
    for (int i = 0; i + 1 < e->n_layers; i++) {
        const struct packed_layer *next = &e->layers[i + 1];
        struct packed_target to = {p->low,           r->scratch + p->at_hidden[i & 1],
                                   p->hidden_stride, next->per_unit,
                                   next->zero,       NULL};
        if (i == 0 && r->kept && level == p->levels)
            moe_packed_halves_first(r, (int)number, &to);
        else
            moe_packed_store(r, &e->layers[i], a, stride, p->query_low.at, &to);
        a = to.rows;
        stride = to.stride;
        if (!e->merge)
            packed_show(r, next->unit_at, a, stride, next->in);
    }
    packed_lap(r, PACKED_FIRST, &clock);
    struct packed_target to = {.type = p->side,
                               .rows =
                                   r->scratch + level->at_outputs + number * level->expert_bytes,
                               .stride = level->output_bytes,
                               .at = r->rows};
    moe_packed_store(r, &e->layers[e->n_layers - 1], a, stride, p->query_low.at, &to);
    packed_lap(r, PACKED_LAST, &clock);
}

static void run_expert(const struct packed_run *r, const struct packed_level *level,
                       const struct packed_expert *e) {
    const struct packed_source *s = &level->sources[e->source];
    const char *a = r->scratch + s->at_low;
    const size_t number = (size_t)(e - level->experts);
    if (e->merge) {
        struct packed_layer layers[MOE_MLP_LAYERS_MAX];
        struct packed_expert blend = *e;
        moe_packed_merged(r, level, e, layers);
        blend.layers = layers;
        run_layers(r, level, &blend, number, a, s->low_stride);
        return;
    }
    if (!e->sparse) {
        run_layers(r, level, e, number, a, s->low_stride);
        return;
    }
    struct packed_run some = *r;
    int *list = (int *)(void *)(r->scratch + r->p->at_list);
    char *gathered = r->scratch + r->p->at_gathered;
    int64_t clock = 0;
    packed_lap(r, PACKED_CONVERT, &clock);
    some.n = list_rows(r, level, e, list);
    some.rows = list;
    for (int i = 0; i < some.n && some.n < r->n; i++)
        memcpy(gathered + (size_t)i * s->low_stride, a + (size_t)list[i] * s->low_stride,
               s->low_stride);
    packed_lap(r, PACKED_CONVERT, &clock);
    if (some.n)
        run_layers(&some, level, e, number, some.n < r->n ? gathered : a, s->low_stride);
}

static void mix_modules(const struct packed_run *r, const struct packed_level *l) {
    const int nr = r->p->k->nr;
    struct moe_blend m = {.modules = l->modules,
                          .n_modules = l->n_modules,
                          .sparse = l->sparse,
                          .x = r->scratch + l->at_outputs,
                          .x_stride = l->output_bytes,
                          .gates = packed_floats(r, l->at_weights),
                          .gate_stride = l->weights_stride,
                          .columns = (l->out + nr - 1) / nr * nr,
                          .out = r->scratch + l->at_sums,
                          .out_stride = l->sums_stride,
                          .module_stride = (size_t)r->p->block * l->sums_stride};
    r->p->k->mix[r->p->side][l->sum_type](&m, r->n);
}

void moe_packed_experts(const struct packed_run *r, const struct packed_level *level) {
    int64_t clock = 0;
    for (int e = 0; e < level->n_experts; e++)
        if (!level->experts[e].idle)
            run_expert(r, level, &level->experts[e]);
    packed_lap(r, PACKED_MIX, &clock);
    mix_modules(r, level);
    packed_lap(r, PACKED_MIX, &clock);
}
