/* scorer_packed_gather.c: from numbers and ids to the network's inputs. Rows of embedding tables
 * are asked for some rows ahead, since nearly each is a cache miss; sums are taken in the order of
 * the slots, as in embed.c, so that both paths agree in bits. */
#include <string.h>
#include "moe/score/scorer_packed.h"

#define AHEAD 16 /* rows; further gains nothing (performance.md, section 4) */
#define LINE  64

static uint32_t row_of(uint32_t id, uint32_t rows) { return id < rows ? id : 1 + id % (rows - 1); }

static void ask(const float *table, uint32_t rows, const uint32_t *ids, int n_slots, int dim) {
    for (int s = 0; s < n_slots; s++) {
        if (!ids[s])
            continue;
        const char *row = (const char *)(table + (size_t)row_of(ids[s], rows) * (size_t)dim);
        for (size_t i = 0; i < (size_t)dim * sizeof(float); i += LINE)
            __builtin_prefetch(row + i);
    }
}

MOE_CLONES static void add(const float *restrict v, float *restrict x, int n) {
    for (int i = 0; i < n; i++)
        x[i] += v[i];
}

static void pool(const float *table, uint32_t rows, const uint32_t *ids, int n_slots, int dim,
                 float *x) {
    int n = 0;
    for (int s = 0; s < n_slots; s++) {
        if (!ids[s])
            continue;
        const float *v = table + (size_t)row_of(ids[s], rows) * (size_t)dim;
        if (n++)
            add(v, x, dim);
        else
            memcpy(x, v, (size_t)dim * sizeof *x);
    }
    if (n == 0)
        memset(x, 0, (size_t)dim * sizeof *x);
    const float share = n > 1 ? 1.0f / (float)n : 1;
    for (int i = 0; n > 1 && i < dim; i++)
        x[i] *= share;
}

static void gather(const struct moe_packed *p, const struct moe_embed_side *side,
                   const struct moe_embed_input *in, const uint32_t *ids, int n, float *x,
                   size_t stride) {
    const struct moe_tensor *t = &p->m->params.t[p->m->table_tensor[in->table]];
    const float *table = p->m->params.v + t->at;
    const uint32_t rows = (uint32_t)t->layout.f[0].rows;
    const size_t slots = (size_t)side->slots;
    ids += in->slot;
    for (int r = 0; r < n && r < AHEAD; r++)
        ask(table, rows, ids + (size_t)r * slots, in->n_slots, in->dim);
    for (int r = 0; r < n; r++) {
        if (r + AHEAD < n)
            ask(table, rows, ids + (size_t)(r + AHEAD) * slots, in->n_slots, in->dim);
        pool(table, rows, ids + (size_t)r * slots, in->n_slots, in->dim,
             x + (size_t)r * stride + in->at);
    }
}

void moe_packed_gather(const struct moe_packed *p, int side, const float *numbers,
                       const uint32_t *ids, int n, float *x) {
    const struct moe_encode *e = &p->m->encode[side];
    const struct moe_embed_side *embed = &p->m->embed[side];
    const struct packed_numbers *simple = &p->numbers[side];
    const size_t stride = (size_t)p->m->part[side];
    memset(x + (size_t)n * stride, 0, MOE_LANES * sizeof *x);
    if (simple->n == 0)
        moe_encode_rows(e, numbers, n, x, (int)stride);
    for (int r = 0; r < n && simple->n; r++)
        p->k->standardise(numbers + (size_t)r * (size_t)simple->n, simple->mean, simple->scale,
                          e->clip, x + (size_t)r * stride, simple->n);
    for (int i = 0; i < embed->n; i++)
        gather(p, embed, &embed->input[i], ids, n, x, stride);
}
