/* optim.c: Adam (Kingma & Ba 2015), AdamW (Loshchilov & Hutter 2019), SGD with momentum 0.9. Adam's
 * weight decay is added to the gradient, AdamW's to the step. */
#include "moe/train/optim.h"
#include <math.h>
#include <string.h>
#include "base/heap.h"
#include "moe/math/vec.h"

void moe_optim_init(struct moe_optim *o, enum moe_optim_kind kind, float weight_decay,
                    const struct moe_params *p, const int *table_tensor, int n_tables) {
    *o = (struct moe_optim){.kind = kind,
                            .beta1 = 0.9f,
                            .beta2 = 0.999f,
                            .eps = 1e-8f,
                            .weight_decay = weight_decay,
                            .table_tensor = table_tensor,
                            .n_tables = n_tables};
    o->m = heap_alloc_aligned((p->region_at[MOE_BUFFER] + 1) * sizeof(float));
    o->v = heap_alloc_aligned((p->region_at[MOE_BUFFER] + 1) * sizeof(float));
    o->row_step = HEAP_ARRAY(uint32_t *, n_tables + 1);
    for (int i = 0; i < n_tables; i++)
        o->row_step[i] = HEAP_ARRAY(uint32_t, p->t[table_tensor[i]].layout.f[0].rows);
    for (int pass = 0; pass < 2; pass++) {
        int n = 0;
        for (int i = 0; i < p->n; i++)
            for (int c = 0; p->t[i].region == MOE_DENSE && c < p->t[i].copies; c++)
                for (int f = 0; f < p->t[i].layout.n; f++, n++) {
                    const struct moe_field *field = &p->t[i].layout.f[f];
                    if (pass)
                        o->runs[n] = (struct moe_optim_run){
                            p->t[i].at + (size_t)c * p->t[i].stride + field->at,
                            (size_t)field->rows * (size_t)field->cols, field->rows > 1};
                }
        if (!pass)
            o->runs = HEAP_ARRAY(struct moe_optim_run, n + 1);
        o->n_runs = n;
    }
}

void moe_optim_deinit(struct moe_optim *o) {
    heap_free(o->m);
    heap_free(o->v);
    for (int i = 0; i < o->n_tables; i++)
        heap_free(o->row_step[i]);
    heap_free(o->row_step);
    heap_free(o->runs);
    memset(o, 0, sizeof *o);
}

void moe_optim_begin(struct moe_optim *o) { o->step++; }

struct coefficients {
    float b1, b2, eps, rate, correct2, clip, l2, decay;
};
static struct coefficients coefficients(const struct moe_optim *o, int64_t step, float rate,
                                        float clip, int decays) {
    double c1 = 1 - pow((double)o->beta1, (double)step),
           c2 = 1 - pow((double)o->beta2, (double)step);
    float wd = decays ? o->weight_decay : 0;
    return (struct coefficients){.b1 = o->beta1,
                                 .b2 = o->beta2,
                                 .eps = o->eps,
                                 .rate = (float)((double)rate / c1),
                                 .correct2 = (float)(1 / sqrt(c2)),
                                 .clip = clip,
                                 .l2 = o->kind == MOE_ADAMW ? 0 : wd,
                                 .decay = o->kind == MOE_ADAMW ? 1 - rate * wd : 1};
}

MOE_CLONES static void adam(size_t n, struct coefficients c, const float *restrict g,
                            float *restrict m, float *restrict v, float *restrict x) {
    for (size_t i = 0; i < n; i++) {
        float gi = g[i] * c.clip + c.l2 * x[i];
        m[i] = c.b1 * m[i] + (1 - c.b1) * gi;
        v[i] = c.b2 * v[i] + (1 - c.b2) * gi * gi;
        x[i] = x[i] * c.decay - c.rate * m[i] / (sqrtf(v[i]) * c.correct2 + c.eps);
    }
}
MOE_CLONES static void sgd(size_t n, float rate, float clip, float l2, const float *restrict g,
                           float *restrict m, float *restrict x) {
    for (size_t i = 0; i < n; i++) {
        m[i] = 0.9f * m[i] + g[i] * clip + l2 * x[i];
        x[i] -= rate * m[i];
    }
}

static void move(const struct moe_optim *o, int64_t step, size_t at, size_t n, int decays,
                 const float *g, float *values, float rate, float clip) {
    if (o->kind == MOE_SGD) {
        sgd(n, rate, clip, decays ? o->weight_decay : 0, g, o->m + at, values + at);
        return;
    }
    adam(n, coefficients(o, step, rate, clip, decays), g, o->m + at, o->v + at, values + at);
}

void moe_optim_dense(const struct moe_optim *o, const struct moe_params *p, float *values,
                     const float *g, size_t from, size_t to, float rate, float clip) {
    (void)p;
    for (int i = 0; i < o->n_runs; i++) {
        const struct moe_optim_run *r = &o->runs[i];
        size_t a = r->at > from ? r->at : from, b = r->at + r->n < to ? r->at + r->n : to;
        if (a < b)
            move(o, o->step, a, b - a, r->decays, g + a, values, rate, clip);
    }
}

void moe_optim_table(const struct moe_optim *o, const struct moe_params *p, float *values,
                     int table, const struct moe_embed_grad *g, float rate, float clip) {
    const struct moe_tensor *t = &p->t[o->table_tensor[table]];
    size_t dim = (size_t)g->dim;
    for (int i = 0; i < g->n; i++) {
        uint32_t row = g->row[i], step = ++o->row_step[table][row];
        move(o, step, t->at + row * dim, dim, 1, g->g + (size_t)i * dim, values, rate, clip);
    }
}
