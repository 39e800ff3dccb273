/* grads.c: one backward pass for each task, all from the same forward pass; then norms and cosines
 * by expert. Tasks are weighed by nothing: what `weight`, balance and clipping do to them in
 * training is not the data's doing. */
#include "moe/report/grads.h"
#include <math.h>
#include <string.h>
#include "base/heap.h"
#include "moe/model_impl.h"
#include "moe/train/loss.h"

struct probe {
    const struct moe_model *m;
    const struct moe_examples *x;
    struct moe_batch batch;
    struct moe_run *run;
    float *memory, *stats;
    struct moe_embed_grad *embed;
    float *g; /* [n_tasks x dense] */
};

static void probe_open(struct probe *p, const struct moe_model *m, const struct moe_examples *x) {
    const struct moe_inputs *in = &m->inputs;
    *p = (struct probe){.m = m, .x = x};
    moe_examples_view(x, 0, x->n_groups, &p->batch);
    struct moe_plan plan = {x->n_rows, x->n_groups, true};
    p->memory = heap_alloc_aligned(moe_run_floats(m, &plan) * sizeof(float));
    p->run = moe_run_bind(m, &plan, p->memory);
    p->stats = HEAP_ARRAY(float, m->n_stats + 1);
    p->g =
        heap_alloc_aligned(((size_t)m->n_tasks * moe_params_dense(&m->params) + 1) * sizeof(float));
    p->embed = HEAP_ARRAY(struct moe_embed_grad, in->n_tables + 1);
    for (int i = 0; i < in->n_tables; i++)
        moe_embed_grad_init(&p->embed[i], in->tables[i].rows, in->tables[i].dim);
}

static void probe_close(struct probe *p) {
    for (int i = 0; i < p->m->inputs.n_tables; i++)
        moe_embed_grad_deinit(&p->embed[i]);
    heap_free(p->embed);
    heap_free(p->memory);
    heap_free(p->stats);
    heap_free(p->g);
}

/* The gradient of one task's mean loss into p->g. Forward again: a backward pass uses up what the
 * forward pass left. */
static void differentiate(struct probe *p, int task) {
    const struct moe_model *m = p->m;
    struct rng rng;
    float scale[64] = {0};
    double known = 0;
    const int after = m->task_loss[task].after;
    for (int r = 0; r < p->x->n_rows; r++) {
        const float *y = p->x->labels + (size_t)r * (size_t)m->n_tasks;
        if (!isnan(after ? moe_loss_joint(y[after - 1], y[task]) : y[task]))
            known += (double)p->x->weight[r];
    }
    scale[task] = known > 0 ? (float)(1 / known) : 0;
    rng_init(&rng, 1);
    struct moe_pass pass = {.training = true, .progress = 1, .rng = &rng, .batch = &p->batch};
    float *g = p->g + (size_t)task * moe_params_dense(&m->params);
    struct moe_numbers n = {&m->params, m->params.v, g, p->stats};
    for (int i = 0; i < m->inputs.n_tables; i++)
        moe_embed_grad_clear(&p->embed[i]);
    moe_forward(m, m->params.v, &p->batch, p->run, &pass, false);
    moe_loss_tasks(p->x->n_rows, m->n_tasks, m->task_loss, p->run->logits, p->x->labels,
                   p->x->weight, p->x->group, scale, p->run->dlogits, NULL);
    moe_backward(m, &n, &p->batch, p->run, &pass, p->embed);
}

static void compare(const struct probe *p, int tensor, int copy, double *norm, double *cosine) {
    const struct moe_params *all = &p->m->params;
    const size_t T = (size_t)p->m->n_tasks, dense = moe_params_dense(all);
    const size_t n = tensor < 0 ? 0 : all->t[tensor].stride;
    for (size_t t = 0; t < T; t++)
        for (size_t u = 0; u <= t && tensor >= 0; u++) {
            const float *a = moe_params_at(all, p->g + t * dense, tensor, copy);
            const float *b = moe_params_at(all, p->g + u * dense, tensor, copy);
            double sum = 0;
            for (size_t i = 0; i < n; i++)
                sum += (double)a[i] * (double)b[i];
            cosine[t * T + u] = cosine[u * T + t] = sum;
        }
    for (size_t t = 0; t < T; t++)
        norm[t] = tensor < 0 ? (double)NAN : sqrt(cosine[t * T + t]);
    for (size_t t = 0; t < T; t++)
        for (size_t u = 0; u < T; u++) {
            const double both = norm[t] * norm[u];
            cosine[t * T + u] = both > 0 ? cosine[t * T + u] / both : (double)NAN;
        }
}

void moe_task_grads_new(const struct moe_model *m, const struct moe_examples *x,
                        struct moe_task_grads **out) {
    struct moe_task_grads *g = HEAP_NEW(struct moe_task_grads);
    struct probe p;
    const size_t T = (size_t)m->n_tasks;
    g->n_tasks = m->n_tasks;
    for (int l = 0; l < m->n_levels; l++)
        g->n_experts += m->levels[l].n_experts;
    g->norm = HEAP_ARRAY(double, (size_t)g->n_experts *T + 1);
    g->cosine = HEAP_ARRAY(double, (size_t)g->n_experts *T *T + 1);
    probe_open(&p, m, x);
    for (int t = 0; t < m->n_tasks; t++)
        differentiate(&p, t);
    for (int l = 0, at = 0; l < m->n_levels; l++)
        for (int e = 0; e < m->levels[l].n_experts; e++, at++)
            compare(&p, moe_level_group(&m->levels[l], e)->tensor, m->levels[l].experts[e].index,
                    g->norm + (size_t)at * T, g->cosine + (size_t)at * T * T);
    probe_close(&p);
    *out = g;
}

void moe_task_grads_free(struct moe_task_grads *g) {
    if (!g)
        return;
    heap_free(g->norm);
    heap_free(g->cosine);
    heap_free(g);
}
