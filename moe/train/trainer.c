/* trainer.c: a step: every worker copies its share of the batch together, runs forward and backward
 * into gradients of its own; then the gradients are summed in the workers' order (so a seed and a
 * number of threads fix every bit), clipped by their norm, and the optimizer moves the numbers,
 * again in shares. Workers meet at a barrier four times a step; no locks. */
#include "moe/train/trainer.h"
#include <math.h>
#include <string.h>
#include "base/hash.h"
#include "base/heap.h"
#include "moe/math/blas.h"
#include "moe/math/cpu.h"
#include "moe/train/loss.h"
#include "moe/math/vec.h"

/* --- a worker's share ------------------------------------------------------------------------ */

void moe_worker_gather(struct moe_worker *w, const int *groups, int n_groups) {
    const struct moe_trainer *t = w->trainer;
    const struct moe_examples *x = t->x;
    const struct moe_inputs *in = &x->inputs;
    size_t qc = (size_t)in->query_columns, cc = (size_t)in->cand_columns, T = (size_t)x->n_tasks;
    size_t qs = (size_t)in->query_slots, cs = (size_t)in->cand_slots, rows = 0;
    for (int k = 0; k < n_groups; k++) {
        size_t g = (size_t)groups[k], at = (size_t)k, r = (size_t)t->first[g];
        size_t n = (size_t)t->first[g + 1] - r;
        if (qc)
            memcpy(w->query + at * qc, x->query + g * qc, qc * sizeof(float));
        if (qs)
            memcpy(w->query_ids + at * qs, x->query_ids + g * qs, qs * sizeof(uint32_t));
        moe_examples_numbers(x, (int)r, (int)n, 0, (int)cc, w->cand + rows * cc);
        if (cs)
            memcpy(w->cand_ids + rows * cs, x->cand_ids + r * cs, n * cs * sizeof(uint32_t));
        memcpy(w->labels + rows * T, x->labels + r * T, n * T * sizeof(float));
        memcpy(w->weight + rows, x->weight + r, n * sizeof(float));
        for (size_t i = 0; i < n; i++)
            w->group[rows + i] = (int)at;
        for (size_t i = 0; w->key && i < n; i++)
            w->key[rows + i] = x->group_key[g];
        rows += n;
    }
    w->batch = (struct moe_batch){.n_groups = n_groups,
                                  .n_rows = (int)rows,
                                  .query = w->query,
                                  .query_ids = w->query_ids,
                                  .cand = w->cand,
                                  .cand_ids = w->cand_ids,
                                  .group = w->group};
}

static void differentiate(struct moe_worker *w) {
    struct moe_trainer *t = w->trainer;
    const struct moe_model *m = t->m;
    struct rng rng;
    float scale[64];
    rng_init(&rng, hash_mix(hash_mix((uint64_t)t->conf->seed, (uint64_t)t->optim.step),
                            (uint64_t)w->index));
    int from = t->share[w->index];
    moe_worker_gather(w, t->groups + from, t->share[w->index + 1] - from);
    memset(w->g, 0, moe_params_dense(&m->params) * sizeof *w->g);
    memset(w->stats, 0, m->n_stats * sizeof *w->stats);
    for (int i = 0; i < m->inputs.n_tables; i++)
        moe_embed_grad_clear(&w->embed[i]);
    w->loss = 0;
    memset(w->task_loss, 0, sizeof w->task_loss);
    if (w->batch.n_rows == 0)
        return;
    for (int i = 0; i < m->n_tasks; i++)
        scale[i] = (float)((double)t->scale[i] * t->balance.factor[i] / t->rows_weight);
    memset(w->task_squares, 0, sizeof w->task_squares);
    struct moe_pass pass = {.training = true,
                            .dropout = (float)t->conf->dropout,
                            .rng = &rng,
                            .share = (float)w->batch.n_rows / (float)t->n_rows,
                            .batch = &w->batch,
                            .progress = (float)t->optim.step / (float)t->steps_planned};
    if (t->balance.kind == MOE_BALANCE_GRADNORM)
        pass.task_squares = w->task_squares;
    struct moe_numbers n = {&m->params, m->params.v, w->g, w->stats};
    int was = moe_gemm_set_bf16(t->conf->precision == MOE_BF16);
    moe_forward(m, m->params.v, &w->batch, w->run, &pass, false);
    w->loss = moe_loss_tasks(w->batch.n_rows, m->n_tasks, m->task_loss, w->run->logits, w->labels,
                             w->weight, w->group, scale, w->run->dlogits, w->task_loss);
    for (int i = 0; i < m->n_tasks; i++)
        scale[i] *= (float)t->conf->pairwise;
    if (w->key)
        w->loss += moe_loss_pairs(w->batch.n_rows, m->n_tasks, w->run->logits, w->labels, w->key,
                                  scale, w->run->dlogits);
    moe_backward(m, &n, &w->batch, w->run, &pass, w->embed);
    moe_gemm_set_bf16(was);
    w->loss += pass.aux;
}

/* --- after all workers have their gradients -------------------------------------------------- */

static size_t bound(size_t n, int part, int parts) {
    return part == parts ? n : (n * (size_t)part / (size_t)parts) & ~(size_t)15;
}

/* Sums this worker's slice (and tables) over all workers into worker 0's; leaves its squares. */
static void reduce(struct moe_worker *w) {
    struct moe_trainer *t = w->trainer;
    size_t dense = moe_params_dense(&t->m->params);
    size_t from = bound(dense, w->index, t->n_workers),
           to = bound(dense, w->index + 1, t->n_workers);
    float *g = t->workers[0].g;
    for (int k = 1; k < t->n_workers; k++)
        moe_vec_add(to - from, t->workers[k].g + from, g + from);
    w->squares = moe_vec_sum_squares(to - from, g + from);
    for (int i = w->index; i < t->m->inputs.n_tables; i += t->n_workers) {
        struct moe_embed_grad *e = &t->workers[0].embed[i];
        for (int k = 1; k < t->n_workers; k++)
            moe_embed_grad_merge(e, &t->workers[k].embed[i]);
        w->squares += moe_vec_sum_squares((size_t)e->n * (size_t)e->dim, e->g);
    }
}

static void after_step(struct moe_trainer *t) {
    const struct moe_model *m = t->m;
    float *stats = t->workers[0].stats;
    for (int k = 1; k < t->n_workers; k++)
        moe_vec_add(m->n_stats, t->workers[k].stats, stats);
    for (int i = 0; i < m->n_levels; i++) {
        for (int k = 0; k < m->levels[i].n_groups; k++) {
            const struct moe_expert_group *g = &m->levels[i].groups[k];
            for (int e = 0; e < g->n && g->expert.ops->after_step && g->buffer >= 0; e++)
                g->expert.ops->after_step(
                    &g->expert, stats + g->stats_at + (size_t)e * (size_t)g->expert.n_stats,
                    moe_params_at(&m->params, m->params.v, g->buffer, e));
        }
        for (int k = 0; k < m->levels[i].n_gates; k++) {
            const struct moe_gate_use *u = &m->levels[i].gates[k];
            if (u->gate.ops->after_step)
                u->gate.ops->after_step(
                    &u->gate, stats + u->stats_at,
                    u->buffer < 0 ? NULL : moe_params_at(&m->params, m->params.v, u->buffer, 0));
        }
    }
}

static void set_clip(struct moe_trainer *t) {
    double squares = 0, loss = 0;
    for (int k = 0; k < t->n_workers; k++) {
        squares += t->workers[k].squares;
        loss += t->workers[k].loss;
    }
    double norm = sqrt(squares);
    t->bad = !isfinite(loss) || !isfinite(norm);
    t->clip = t->conf->clip > 0 && norm > t->conf->clip ? (float)(t->conf->clip / norm) : 1;
}

static void move(struct moe_worker *w) {
    struct moe_trainer *t = w->trainer;
    const struct moe_params *p = &t->m->params;
    size_t dense = moe_params_dense(p);
    if (t->bad)
        return;
    moe_optim_dense(&t->optim, p, p->v, t->workers[0].g, bound(dense, w->index, t->n_workers),
                    bound(dense, w->index + 1, t->n_workers), t->rate, t->clip);
    for (int i = w->index; i < t->m->inputs.n_tables; i += t->n_workers)
        moe_optim_table(&t->optim, p, p->v, i, &t->workers[0].embed[i],
                        t->rate * (float)t->conf->embed_rate, t->clip);
}

static void balance(struct moe_trainer *t) {
    double loss[64], norm[64];
    if (t->balance.kind == MOE_BALANCE_FIXED)
        return;
    for (int i = 0; i < t->m->n_tasks; i++) {
        double sum = 0, squares = 0, weight = (double)t->m->task_weight[i];
        for (int k = 0; k < t->n_workers; k++) {
            sum += t->workers[k].task_loss[i];
            squares += t->workers[k].task_squares[i];
        }
        loss[i] = weight > 0 ? sum * (double)t->scale[i] / (weight * t->rows_weight) : (double)NAN;
        norm[i] = sqrt(squares);
    }
    moe_task_balance_step(&t->balance, loss, norm);
}

static void meet(struct moe_trainer *t) {
    if (t->n_workers > 1)
        pthread_barrier_wait(&t->barrier);
}

static void step(struct moe_worker *w) {
    struct moe_trainer *t = w->trainer;
    differentiate(w);
    meet(t);
    reduce(w);
    meet(t);
    if (w->index == 0) {
        set_clip(t);
        if (!t->bad) {
            after_step(t);
            balance(t);
        }
    }
    meet(t);
    move(w);
    meet(t);
}

static void *work(void *arg) {
    struct moe_worker *w = arg;
    for (;;) {
        meet(w->trainer);
        if (w->trainer->stop)
            return NULL;
        step(w);
    }
}

/* --- life ------------------------------------------------------------------------------------ */

static void worker_init(struct moe_worker *w, struct moe_trainer *t, int index) {
    const struct moe_inputs *in = &t->x->inputs;
    const struct moe_model *m = t->m;
    size_t rows = (size_t)t->rows_max, groups = (size_t)t->groups_max;
    struct moe_plan plan = {t->rows_max, t->groups_max, true};
    w->trainer = t;
    w->index = index;
    w->memory = heap_alloc_aligned(moe_run_floats(m, &plan) * sizeof(float));
    w->run = moe_run_bind(m, &plan, w->memory);
    w->query = HEAP_ARRAY(float, groups *(size_t)in->query_columns + 1);
    w->query_ids = HEAP_ARRAY(uint32_t, groups * (size_t)in->query_slots + 1);
    w->cand = HEAP_ARRAY(float, rows *(size_t)in->cand_columns + 1);
    w->cand_ids = HEAP_ARRAY(uint32_t, rows * (size_t)in->cand_slots + 1);
    w->labels = HEAP_ARRAY(float, rows *(size_t)m->n_tasks + 1);
    w->weight = HEAP_ARRAY(float, rows + 1);
    w->group = HEAP_ARRAY(int, rows + 1);
    w->key = t->conf->pairwise > 0 ? HEAP_ARRAY(uint64_t, rows + 1) : NULL;
    w->g = heap_alloc_aligned((moe_params_dense(&m->params) + 1) * sizeof(float));
    w->stats = HEAP_ARRAY(float, m->n_stats + 1);
    w->embed = HEAP_ARRAY(struct moe_embed_grad, in->n_tables + 1);
    for (int i = 0; i < in->n_tables; i++)
        moe_embed_grad_init(&w->embed[i], in->tables[i].rows, in->tables[i].dim);
}

static void worker_deinit(struct moe_worker *w) {
    for (int i = 0; i < w->trainer->m->inputs.n_tables; i++)
        moe_embed_grad_deinit(&w->embed[i]);
    void *all[] = {w->memory, w->query, w->query_ids, w->cand, w->cand_ids, w->labels,
                   w->weight, w->group, w->key,       w->g,    w->stats,    w->embed};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        heap_free(all[i]);
}

void moe_trainer_init(struct moe_trainer *t, struct moe_model *m, const struct moe_examples *x,
                      const struct moe_train_conf *conf, const int *first, int batch_rows_max,
                      int group_rows_max, int64_t steps_planned) {
    int n = (int)conf->threads;
    *t = (struct moe_trainer){.m = m,
                              .x = x,
                              .conf = conf,
                              .first = first,
                              .n_workers = n,
                              .steps_planned = steps_planned > 0 ? steps_planned : 1};
    t->rows_max = n == 1 ? batch_rows_max : batch_rows_max / n + group_rows_max + 1;
    if (t->rows_max > batch_rows_max)
        t->rows_max = batch_rows_max;
    t->groups_max = t->rows_max;
    moe_task_balance_init(&t->balance, conf->balance, m->n_tasks, conf->gradnorm_alpha);
    t->scale = HEAP_ARRAY(float, m->n_tasks);
    t->share = HEAP_ARRAY(int, n + 1);
    t->workers = HEAP_ARRAY(struct moe_worker, n);
    for (int i = 0; i < m->n_tasks; i++)
        t->scale[i] = m->task_weight[i];
    moe_optim_init(&t->optim, (enum moe_optim_kind)conf->optimizer, (float)conf->weight_decay,
                   &m->params, m->table_tensor, m->inputs.n_tables);
    for (int i = 0; i < n; i++)
        worker_init(&t->workers[i], t, i);
    if (n > 1)
        pthread_barrier_init(&t->barrier, NULL, (unsigned)n);
    for (int i = 1; i < n; i++)
        pthread_create(&t->workers[i].thread, NULL, work, &t->workers[i]);
}

void moe_trainer_deinit(struct moe_trainer *t) {
    t->stop = true;
    meet(t);
    for (int i = 1; i < t->n_workers; i++)
        pthread_join(t->workers[i].thread, NULL);
    if (t->n_workers > 1)
        pthread_barrier_destroy(&t->barrier);
    for (int i = 0; i < t->n_workers; i++)
        worker_deinit(&t->workers[i]);
    moe_optim_deinit(&t->optim);
    heap_free(t->workers);
    heap_free(t->scale);
    heap_free(t->share);
}

/* The learning rate at a step: a linear warm-up, then the schedule. */
static double rate_at(const struct moe_train_conf *c, int64_t step, int64_t planned) {
    double warm = c->warmup * (double)planned, at = (double)step;
    if (at < warm)
        return c->rate * (at + 1) / (warm + 1);
    double done = (at - warm) / fmax(1, (double)planned - warm);
    done = done > 1 ? 1 : done;
    switch ((enum moe_schedule)c->schedule) {
    case MOE_COSINE:
        return c->rate * 0.5 * (1 + cos(3.14159265358979323846 * done));
    case MOE_LINEAR:
        return c->rate * (1 - done);
    case MOE_CONSTANT:
        break;
    }
    return c->rate;
}

/* Cuts the batch's groups into runs of about equal rows. */
static void cut(struct moe_trainer *t) {
    int rows = 0, k = 0;
    t->share[0] = 0;
    for (int i = 0; i < t->n_groups; i++) {
        while (k + 1 < t->n_workers && (int64_t)rows * t->n_workers >= (int64_t)t->n_rows * (k + 1))
            t->share[++k] = i;
        rows += t->first[t->groups[i] + 1] - t->first[t->groups[i]];
    }
    while (k < t->n_workers)
        t->share[++k] = t->n_groups;
}

double moe_trainer_step(struct moe_trainer *t, const int *groups, int n) {
    double loss = 0;
    t->groups = groups;
    t->n_groups = n;
    t->n_rows = 0;
    t->rows_weight = 0;
    for (int i = 0; i < n; i++)
        for (int r = t->first[groups[i]]; r < t->first[groups[i] + 1]; r++, t->n_rows++)
            t->rows_weight += (double)t->x->weight[r];
    t->rows_weight = t->rows_weight > 0 ? t->rows_weight : 1;
    t->rate = (float)rate_at(t->conf, t->optim.step, t->steps_planned);
    moe_optim_begin(&t->optim);
    cut(t);
    meet(t);
    step(&t->workers[0]);
    for (int k = 0; k < t->n_workers; k++)
        loss += t->workers[k].loss;
    return t->bad ? (double)NAN : loss;
}
