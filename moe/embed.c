/* embed.c: embedding lookup with mean pooling, and its sparse gradient. */
#include "moe/embed.h"
#include <string.h>
#include "base/heap.h"

static void pool(const struct moe_embed_input *in, const float *table, uint32_t rows,
                 const uint32_t *ids, float *x) {
    int n = 0, dim = in->dim;
    memset(x, 0, (size_t)dim * sizeof *x);
    for (int s = 0; s < in->n_slots; s++) {
        uint32_t id = ids[in->slot + s];
        if (!id)
            continue;
        const float *v = table + (size_t)moe_embed_row(id, rows) * (size_t)dim;
        for (int i = 0; i < dim; i++)
            x[i] += v[i];
        n++;
    }
    float share = n > 1 ? 1.0f / (float)n : 1;
    for (int i = 0; n > 1 && i < dim; i++)
        x[i] *= share;
}

void moe_embed_forward(const struct moe_embed_side *s, const struct moe_params *p, const float *v,
                       const int *tensor, const uint32_t *ids, int n, float *x, int ld) {
    for (int i = 0; i < s->n; i++) {
        const struct moe_embed_input *in = &s->input[i];
        const struct moe_tensor *t = &p->t[tensor[in->table]];
        uint32_t rows = (uint32_t)t->layout.f[0].rows;
        for (int r = 0; r < n; r++)
            pool(in, v + t->at, rows, ids + (size_t)r * (size_t)s->slots,
                 x + (size_t)r * (size_t)ld + in->at);
    }
}

void moe_embed_grad_init(struct moe_embed_grad *g, uint32_t rows, int dim) {
    *g = (struct moe_embed_grad){.rows = rows, .dim = dim};
    g->place = HEAP_ARRAY(int, rows);
    for (uint32_t i = 0; i < rows; i++)
        g->place[i] = -1;
}
void moe_embed_grad_deinit(struct moe_embed_grad *g) {
    heap_free(g->row);
    heap_free(g->place);
    heap_free(g->g);
    *g = (struct moe_embed_grad){0};
}
void moe_embed_grad_clear(struct moe_embed_grad *g) {
    for (int i = 0; i < g->n; i++)
        g->place[g->row[i]] = -1;
    g->n = 0;
}

float *moe_embed_grad_row(struct moe_embed_grad *g, uint32_t row) {
    size_t dim = (size_t)g->dim;
    if (g->place[row] < 0) {
        if (g->n == g->cap) {
            g->cap = g->cap ? 2 * g->cap : 256;
            g->row = heap_grow(g->row, (size_t)g->cap * sizeof *g->row);
            g->g = heap_grow(g->g, (size_t)g->cap * dim * sizeof *g->g);
        }
        memset(g->g + (size_t)g->n * dim, 0, dim * sizeof *g->g);
        g->row[g->n] = row;
        g->place[row] = g->n++;
    }
    return g->g + (size_t)g->place[row] * dim;
}

void moe_embed_grad_merge(struct moe_embed_grad *to, const struct moe_embed_grad *from) {
    for (int i = 0; i < from->n; i++) {
        float *g = moe_embed_grad_row(to, from->row[i]);
        const float *v = from->g + (size_t)i * (size_t)from->dim;
        for (int k = 0; k < to->dim; k++)
            g[k] += v[k];
    }
}

static void unpool(const struct moe_embed_input *in, const uint32_t *ids, const float *dx,
                   struct moe_embed_grad *g) {
    int n = 0;
    for (int s = 0; s < in->n_slots; s++)
        n += ids[in->slot + s] != 0;
    float share = n > 1 ? 1.0f / (float)n : 1;
    for (int s = 0; s < in->n_slots; s++) {
        uint32_t id = ids[in->slot + s];
        if (!id)
            continue;
        float *d = moe_embed_grad_row(g, moe_embed_row(id, g->rows));
        for (int i = 0; i < in->dim; i++)
            d[i] += share * dx[i];
    }
}

void moe_embed_backward(const struct moe_embed_side *s, const uint32_t *ids, int n, const float *dx,
                        int ld, struct moe_embed_grad *grads) {
    for (int i = 0; i < s->n; i++) {
        const struct moe_embed_input *in = &s->input[i];
        for (int r = 0; r < n; r++)
            unpool(in, ids + (size_t)r * (size_t)s->slots, dx + (size_t)r * (size_t)ld + in->at,
                   &grads[in->table]);
    }
}

void moe_embed_backward_table(const struct moe_embed_input *in, const uint32_t *ids, int slots,
                              int n, const float *dtable, struct moe_embed_grad *g) {
    size_t dim = (size_t)in->dim;
    for (int r = 0; r < n; r++) {
        uint32_t id = ids[(size_t)r * (size_t)slots + (size_t)in->slot];
        if (id)
            moe_embed_grad_row(g, moe_embed_row(id, g->rows));
    }
    for (uint32_t row = 1; row < g->rows; row++) {
        if (g->place[row] < 0)
            continue;
        float *d = g->g + (size_t)g->place[row] * dim;
        for (size_t i = 0; i < dim; i++)
            d[i] += dtable[row * dim + i];
    }
}
