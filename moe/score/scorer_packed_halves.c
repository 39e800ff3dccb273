/* scorer_packed_halves.c: the candidate half of the first layers, kept by item.
 *
 * A kept row holds, for one candidate, x W of every expert's first layer (without bias and query
 * part) and of the gates' logits, in the experts' type. The key is a hash of the candidate's raw
 * numbers and ids, so a row can never be stale: an item that changes has another key, and a new
 * model has another cache. What is missing is made inside the same block, by the same products,
 * and takes the same way through the kept form, so a score does not depend on what was kept.
 *
 * int8 rows are in steps per column, chosen when the model was calibrated. */
#include <math.h>
#include <string.h>
#include "base/hash.h"
#include "base/log.h"
#include "moe/score/scorer_packed_run.h"

/* --- building ----------------------------------------------------------------------------------
 */

static const char *lacks(const struct moe_packed *p) {
    const struct packed_level *first = &p->levels[0];
    if (!p->k->half[p->low])
        return "kernels for it";
    for (int l = 1; l < p->n_levels; l++)
        for (int i = 0; i < p->levels[l].n_sources; i++)
            if (p->levels[l].sources[i].n == 0)
                return "a first level that alone reads the input";
    if (first->n_sources != 1)
        return "a first level with one source";
    for (int g = 0; g < first->n_gates; g++)
        if (first->gates[g].kind != PACKED_ONE && first->gates[g].kind != PACKED_SOFTMAX)
            return "softmax gates in the first level";
    for (int e = 0; e < first->n_experts; e++)
        if (first->experts[e].n_layers < 2 || first->experts[e].layers[0].act != MOE_ACT_RELU)
            return "experts with a hidden ReLU layer";
    return NULL;
}

static size_t whole(int columns, int to) { return (size_t)((columns + to - 1) / to * to); }

void moe_packed_shape_halves(struct moe_packed *p) {
    struct packed_halves *h = &p->halves;
    const struct packed_level *first = &p->levels[0];
    size_t unit_at = moe_packed_units(p->m), widest = 0;
    const size_t element = p->low == MOE_FP32 ? 4 : p->low == MOE_BF16 ? 2 : 1;
    if (lacks(p))
        return;
    h->expert = ARENA_ARRAY(&p->arena, struct packed_half, first->n_experts);
    for (int e = first->n_experts; e-- > 0;) { /* units of halves stand last, in order */
        struct packed_half *half = &h->expert[e];
        const int out = first->experts[e].layers[0].out;
        half->columns = (int)whole(out, p->low == MOE_INT8 ? 64 : p->k->nr);
        unit_at -= (size_t)out;
        half->unit_at = unit_at;
        half->start = ARENA_ARRAY(&p->arena, float, half->columns);
        half->step = ARENA_ARRAY(&p->arena, int16_t, half->columns);
        half->start_at = moe_packed_take(p, (size_t)half->columns * sizeof(int16_t));
        widest = (size_t)half->columns > widest ? (size_t)half->columns : widest;
    }
    for (int e = 0; e < first->n_experts; e++) {
        h->expert[e].at = h->row_bytes;
        h->row_bytes += whole((int)((size_t)h->expert[e].columns * element), 64);
    }
    const size_t lanes = whole(first->sources[0].side.out, p->k->nr);
    h->side_at = h->row_bytes;
    h->row_bytes += whole((int)(lanes * sizeof(float)), 64);
    h->side_start = ARENA_ARRAY(&p->arena, float, lanes + 1);
    h->at_float = moe_packed_take(p, (size_t)p->block * widest * sizeof(float));
}

/* The kept form's own constants. */
void moe_packed_fill_halves(struct moe_packed *p, const float *units) {
    const struct packed_level *first = &p->levels[0];
    for (int e = 0; e < first->n_experts && p->halves.expert && p->low == MOE_INT8; e++) {
        struct packed_half *half = &p->halves.expert[e];
        const struct packed_layer *l = &first->experts[e].layers[0];
        for (int at = 0; at < half->columns; at++) {
            const int c = at / 64 * 64 + moe_half_order(at % 64);
            if (c < l->out) {
                float unit = units[half->unit_at + (size_t)c] / units[l[1].unit_at + (size_t)c];
                half->step[at] = (int16_t)fminf(fmaxf(roundf(unit * MOE_HALF_ONE), 1), 256);
                half->start[c] = -(float)l->zero * l->w.zero[c];
            }
        }
    }
}

enum status moe_packed_keep_halves(struct moe_packed *p, size_t bytes) {
    struct packed_halves *h = &p->halves;
    const char *no = lacks(p);
    if (no)
        return fail(STATUS_UNIMPLEMENTED, "an item cache needs %s", no);
    h->at_keys = moe_packed_take(p, (size_t)p->rows_max * sizeof(uint64_t));
    for (int i = 0; i < 2; i++) {
        h->at_rows[i] = moe_packed_take(p, (size_t)p->block * sizeof(char *));
        h->at_pins[i] = moe_packed_take(p, (size_t)p->block * sizeof(uint32_t));
    }
    h->at_missing = moe_packed_take(p, (size_t)p->block * sizeof(int));
    h->at_made = moe_packed_take(p, (size_t)p->block * h->row_bytes);
    h->cache = moe_item_cache_new(bytes, h->row_bytes);
    return STATUS_OK;
}

/* --- making ------------------------------------------------------------------------------------
 */

static void keep_int8(const struct packed_half *half, const float *x, char *out) {
    for (int at = 0; at < half->columns; at++) {
        const int c = at / 64 * 64 + moe_half_order(at % 64);
        float q = half->step[at] ? roundf(x[c] * MOE_HALF_ONE / (float)half->step[at]) : 0;
        out[at] = (char)(int8_t)(q > 127 ? 127 : q < -127 ? -127 : q);
    }
}

/* x W of one expert for the r->n rows at the source's place: floats [n x columns]. */
static void half_floats(const struct packed_run *r, int expert, float *out) {
    const struct packed_level *first = &r->p->levels[0];
    const struct packed_layer *l = &first->experts[expert].layers[0];
    const struct packed_half *half = &r->p->halves.expert[expert];
    struct moe_tile t = {.a = r->scratch + first->sources[0].at_low,
                         .a_stride = first->sources[0].low_stride,
                         .start = half->start,
                         .end = MOE_END_F32,
                         .out = out,
                         .out_stride = (size_t)half->columns * sizeof *out};
    moe_packed_layer(r, l, &t);
}

/* Kept rows of the r->n candidates whose inputs are at the source's place. */
static void make_rows(const struct packed_run *r, char *made) {
    const struct moe_packed *p = r->p;
    const struct packed_halves *h = &p->halves;
    const struct packed_source *s = &p->levels[0].sources[0];
    float *x = packed_floats(r, h->at_float);
    for (int e = 0; e < p->levels[0].n_experts; e++) {
        const struct packed_half *half = &h->expert[e];
        const size_t columns = (size_t)half->columns;
        half_floats(r, e, x);
        for (int i = 0; i < r->n; i++) {
            char *out = made + (size_t)i * h->row_bytes + half->at;
            if (p->low == MOE_INT8)
                keep_int8(half, x + (size_t)i * columns, out);
            else
                moe_packed_convert(p->k, p->low, NULL, 0, x + (size_t)i * columns, 0, 1,
                                   half->columns, out, 0, NULL);
        }
    }
    if (!s->has_side)
        return;
    struct moe_tile t = {.a = r->scratch + s->at_side,
                         .a_stride = s->side_stride,
                         .start = h->side_start,
                         .end = MOE_END_F32,
                         .out = made + h->side_at,
                         .out_stride = h->row_bytes};
    moe_packed_layer(r, &s->side, &t);
}

void moe_packed_halves_show(const struct packed_run *r) {
    const struct packed_halves *h = &r->p->halves;
    float *x = packed_floats(r, h->at_float);
    for (int e = 0; e < r->p->levels[0].n_experts && h->expert; e++) {
        half_floats(r, e, x);
        packed_show(r, h->expert[e].unit_at, x, (size_t)h->expert[e].columns * sizeof *x,
                    r->p->levels[0].experts[e].layers[0].out);
    }
}

/* --- a request ---------------------------------------------------------------------------------
 */

static uint64_t *keys_of(const struct packed_run *r) {
    return (uint64_t *)(void *)(r->scratch + r->p->halves.at_keys);
}

/* Looks up the block that begins at `from`; returns its rows. */
static int look_up(const struct packed_run *r, const struct moe_batch *b, int from) {
    const struct packed_halves *h = &r->p->halves;
    const int parity = from / r->p->block & 1;
    const int n = b->n_rows - from < r->p->block ? b->n_rows - from : r->p->block;
    const char **rows = (const char **)(void *)(r->scratch + h->at_rows[parity]);
    uint32_t *pins = (uint32_t *)(void *)(r->scratch + h->at_pins[parity]);
    const uint64_t *keys = keys_of(r) + from;
    for (int i = 0; i < n; i++)
        rows[i] = moe_item_cache_get(h->cache, keys[i], &pins[i]);
    return n;
}

/* int8: the request's start vectors in 16 bits, in the order of the kept rows. */
static void make_starts(const struct packed_run *r) {
    const struct moe_packed *p = r->p;
    const struct packed_level *first = &p->levels[0];
    for (int e = 0; e < first->n_experts; e++) {
        const struct packed_half *half = &p->halves.expert[e];
        const struct packed_layer *l = &first->experts[e].layers[0];
        const float *start = l->start ? l->start : packed_floats(r, p->query_low.at) + l->start_at;
        int16_t *out = (int16_t *)(void *)(r->scratch + half->start_at);
        for (int at = 0; at < half->columns; at++) {
            const int c = at / 64 * 64 + moe_half_order(at % 64);
            float x =
                c < l->out ? (start[c] - half->start[c]) * MOE_HALF_ONE + MOE_HALF_ONE / 2 : 0;
            out[at] = (int16_t)lrintf(x > 32767 ? 32767 : x < -32768 ? -32768 : x);
        }
    }
}

void moe_packed_halves_begin(struct packed_run *r, const struct moe_batch *b) {
    const struct moe_inputs *in = &r->p->m->inputs;
    const size_t numbers = (size_t)in->cand_columns, ids = (size_t)in->cand_slots;
    uint64_t *keys = keys_of(r);
    for (size_t i = 0; i < (size_t)b->n_rows; i++) {
        struct slice x = {(const char *)(b->cand + i * numbers), numbers * sizeof(float)};
        struct slice y = {(const char *)(b->cand_ids + i * ids), ids * sizeof(uint32_t)};
        keys[i] = hash_bytes(x, 1);
        if (ids)
            keys[i] = hash_mix(keys[i], hash_bytes(y, 2));
        moe_item_cache_ask(r->p->halves.cache, keys[i]);
    }
    if (r->p->low == MOE_INT8)
        make_starts(r);
    if (b->n_rows)
        look_up(r, b, 0);
}

/* Inputs of the missing rows, one after another, then their kept rows. */
static void make_missing(struct packed_run *r, const struct moe_batch *b, int from,
                         const int *missing, int n) {
    const struct moe_packed *p = r->p;
    const struct moe_inputs *in = &p->m->inputs;
    const struct packed_level *first = &p->levels[0];
    const size_t width = (size_t)p->m->part[MOE_CAND];
    float *x = packed_floats(r, p->at_x);
    for (int i = 0; i < n; i++) {
        const size_t row = (size_t)(from + missing[i]);
        moe_packed_gather(p, MOE_CAND, b->cand + row * (size_t)in->cand_columns,
                          b->cand_ids + row * (size_t)in->cand_slots, 1, x + (size_t)i * width);
    }
    struct packed_run some = *r;
    some.n = n;
    moe_packed_open(&some, NULL, &first->sources[0]);
    make_rows(&some, r->scratch + p->halves.at_made);
}

void moe_packed_halves_block(struct packed_run *r, const struct moe_batch *b, int from) {
    const struct packed_halves *h = &r->p->halves;
    const int parity = from / r->p->block & 1, next = from + r->p->block;
    const char **rows = (const char **)(void *)(r->scratch + h->at_rows[parity]);
    int *missing = (int *)(void *)(r->scratch + h->at_missing), n = 0;
    for (int i = 0; i < r->n; i++)
        if (!rows[i])
            missing[n++] = i;
    if (n)
        make_missing(r, b, from, missing, n);
    for (int i = 0; i < n; i++) {
        const char *made = r->scratch + h->at_made + (size_t)i * h->row_bytes;
        rows[missing[i]] = made;
        moe_item_cache_put(h->cache, keys_of(r)[from + missing[i]], made);
    }
    moe_item_cache_count(h->cache, (uint64_t)(r->n - n), (uint64_t)n);
    r->kept = rows;
    r->n_next = next < b->n_rows ? look_up(r, b, next) : 0;
    r->kept_next = (const char *const *)(const void *)(r->scratch + h->at_rows[1 - parity]);
}

void moe_packed_halves_end(struct packed_run *r, int from) {
    const struct packed_halves *h = &r->p->halves;
    const uint32_t *pins =
        (const uint32_t *)(const void *)(r->scratch + h->at_pins[from / r->p->block & 1]);
    const char *made = r->scratch + h->at_made;
    const char *made_end = made + (size_t)r->p->block * h->row_bytes;
    for (int i = 0; i < r->n; i++)
        if (r->kept[i] < made || r->kept[i] >= made_end)
            moe_item_cache_release(h->cache, pins[i]);
}

void moe_packed_halves_logits(const struct packed_run *r) {
    const struct moe_packed *p = r->p;
    const struct packed_source *s = &p->levels[0].sources[0];
    const float *start =
        s->side.start ? s->side.start : packed_floats(r, p->query_side.at) + s->side.start_at;
    if (!s->has_side)
        return;
    struct moe_half h = {.rows = r->kept,
                         .at = p->halves.side_at,
                         .columns = moe_pack_columns(&s->side.w),
                         .start = start,
                         .out = r->scratch + s->at_logits,
                         .out_stride = s->logits_stride * sizeof(float)};
    p->k->half[MOE_FP32](&h, r->n);
}

void moe_packed_halves_first(const struct packed_run *r, int expert, struct packed_target *to) {
    const struct moe_packed *p = r->p;
    const struct packed_half *half = &p->halves.expert[expert];
    const struct packed_layer *l = &p->levels[0].experts[expert].layers[0];
    const float *start = l->start ? l->start : packed_floats(r, p->query_low.at) + l->start_at;
    struct moe_half h = {.rows = r->kept,
                         .at = half->at,
                         .columns = half->columns,
                         .relu = true,
                         .start = p->low == MOE_INT8 ? (const void *)(r->scratch + half->start_at)
                                                     : (const void *)start,
                         .step = half->step,
                         .out = to->rows,
                         .out_stride = to->stride};
    const size_t bytes = (size_t)half->columns * (p->low == MOE_FP32   ? 4
                                                  : p->low == MOE_BF16 ? 2
                                                                       : 1);
    for (int i = 0; i < r->n_next; i++)
        for (size_t b = 0; b < bytes && r->kept_next[i]; b += 64)
            __builtin_prefetch(r->kept_next[i] + half->at + b, 0, 2);
    p->k->half[p->low](&h, r->n);
}
