/* mix.c: weights of a softmax over the choices, and their gradient. */
#include "moe/mix.h"
#include <string.h>

static bool over_kept(const struct moe_mix_conf *c) {
    return c->order == MOE_TOPK_SOFTMAX || c->renormalise;
}

enum status moe_mix_shape(struct moe_gate *g, const struct moe_mix_conf *c,
                          struct conf_place place) {
    if (c->k == 1 && g->n_experts > 1 && over_kept(c))
        return fail(STATUS_INVALID_ARGUMENT,
                    "%s: %s: with k 1 a softmax over the chosen is always 1 and the gate learns "
                    "nothing; use order: softmax_topk and renormalise: false",
                    place.file, place.section);
    TRY(moe_groups_check(&c->groups, moe_choice_k(c->k, g->n_experts), g->n_experts, place));
    moe_capacity_shape(g, &c->capacity);
    if (c->random_second)
        g->flags |= MOE_GATE_STOCHASTIC;
    moe_load_shape(g, &c->load);
    return STATUS_OK;
}

void moe_mix_bind(const struct moe_mix_conf *c, int n, const struct moe_plan *plan,
                  struct moe_work *work, struct moe_mix *s) {
    int k = moe_choice_k(c->k, n);
    *s = (struct moe_mix){0};
    moe_choice_bind(k, n, plan, work, &s->choice);
    s->p = moe_work_take(work, (size_t)plan->rows_max * (size_t)n);
    s->v = moe_work_take(work, (size_t)plan->rows_max * (size_t)k);
    s->f = moe_work_take(work, (size_t)n);
}

static void weigh(const struct moe_mix_conf *c, int n, int k, const float *h, struct moe_pass *pass,
                  struct moe_mix *s, struct moe_route *route) {
    for (int r = 0; r < route->n_rows; r++) {
        size_t at = (size_t)r * (size_t)n;
        const int *pick = s->choice.pick + (size_t)r * (size_t)k;
        float *v = s->v + (size_t)r * (size_t)k;
        if (over_kept(c))
            moe_choice_softmax(k, h + at, pick, v);
        for (int j = 0; j < k; j++) {
            if (!over_kept(c))
                v[j] = s->p[at + (size_t)pick[j]];
            route->w[at + (size_t)pick[j]] = v[j] * (float)c->scale;
        }
        if (c->random_second && pass->training && k > 1 && rng_float(pass->rng) >= 2 * v[1])
            route->w[at + (size_t)pick[1]] = 0;
    }
}

static void count_choices(const struct moe_mix_conf *c, int rows, int n, const struct moe_mix *s,
                          float *count) {
    int k = moe_choice_k(c->k, n), counted = c->counted && c->counted < k ? c->counted : k;
    for (int r = 0; r < rows; r++)
        moe_load_count(counted, s->choice.pick + (size_t)r * (size_t)k, count);
}

void moe_mix_forward(const struct moe_mix_conf *c, int n, const float *h, const float *buffers,
                     const struct moe_rows *x, struct moe_pass *pass, struct moe_mix *s,
                     struct moe_route *route) {
    int k = moe_choice_k(c->k, n), rows = x->n_rows;
    memset(route->w, 0, (size_t)rows * (size_t)n * sizeof *route->w);
    moe_router_softmax(rows, n, h, s->p);
    moe_choice_pick(&c->groups, rows, k, n, c->groups.n ? s->p : h, &s->choice);
    weigh(c, n, k, h, pass, s, route);
    moe_choice_limit(&c->capacity, x, pass->training, k, k, n, &s->choice, route->w);
    if (!pass->training || c->load.aux == 0)
        return;
    memset(s->choice.count, 0, (size_t)n * sizeof *s->choice.count);
    count_choices(c, rows, n, s, s->choice.count);
    moe_load_choose(&c->load, n, s->choice.count, buffers, s->f);
    pass->aux += (double)pass->share * c->load.aux * moe_load_loss(rows, n, s->f, s->p);
}

/* One row: dv [k] towards the weights, dp_e = a f_e towards p; dh [n]. */
static void row_backward(bool kept, int n, int k, const int *pick, const float *p, const float *v,
                         const float *dv, float a, const float *f, float *dh) {
    float dot = 0, dot_kept = 0;
    for (int e = 0; e < n; e++)
        dh[e] = a != 0 ? a * f[e] : 0;
    for (int j = 0; j < k && !kept; j++)
        dh[pick[j]] += dv[j];
    for (int e = 0; e < n; e++)
        dot += p[e] * dh[e];
    for (int e = 0; e < n; e++)
        dh[e] = p[e] * (dh[e] - dot);
    for (int j = 0; j < k; j++)
        dot_kept += v[j] * dv[j];
    for (int j = 0; j < k && kept; j++)
        dh[pick[j]] += v[j] * (dv[j] - dot_kept);
}

void moe_mix_backward(const struct moe_mix_conf *c, int n, const struct moe_rows *x,
                      const struct moe_pass *pass, const struct moe_mix *s,
                      const struct moe_route *route, const struct moe_route *d, float *stats,
                      float *dh) {
    int k = moe_choice_k(c->k, n), rows = x->n_rows;
    bool aux = pass->training && c->load.aux > 0 && rows > 0;
    float a = aux ? (float)((double)pass->share * c->load.aux * n / rows) : 0;
    float *dv = s->choice.score;
    for (int r = 0; r < rows; r++) {
        size_t at = (size_t)r * (size_t)n;
        const int *pick = s->choice.pick + (size_t)r * (size_t)k;
        for (int j = 0; j < k; j++) {
            size_t e = at + (size_t)pick[j];
            dv[j] = route->w[e] != 0 ? d->w[e] * (float)c->scale : 0;
        }
        row_backward(over_kept(c), n, k, pick, s->p + at, s->v + (size_t)r * (size_t)k, dv, a, s->f,
                     dh + at);
    }
    if (aux && c->load.over == MOE_LOAD_STEP)
        count_choices(c, rows, n, s, stats);
}

void moe_mix_after_step(const struct moe_mix_conf *c, int n, const float *stats, float *buffers) {
    if (c->load.aux > 0 && c->load.over == MOE_LOAD_STEP)
        moe_load_after_step(n, stats, buffers);
}

/* --- the whole gate -----------------------------------------------------------------------------
 */

struct saved {
    struct moe_router router;
    struct moe_mix mix;
};

enum status moe_mix_gate_shape(struct moe_gate *g, const struct moe_mix_gate *shape,
                               struct conf_place place, struct arena *a) {
    struct moe_mix_gate *own = ARENA_NEW(a, struct moe_mix_gate);
    *own = *shape;
    g->shape = own;
    moe_router_shape(g, &own->router, g->n_experts);
    return moe_mix_shape(g, &own->mix, place);
}

void *moe_mix_gate_bind(const struct moe_gate *g, const struct moe_plan *plan,
                        struct moe_work *work) {
    const struct moe_mix_gate *c = g->shape;
    struct saved s, *out = moe_work_take_bytes(work, sizeof s);
    moe_router_bind(&c->router, g->dq, g->in, g->n_experts, plan, work, &s.router);
    moe_mix_bind(&c->mix, g->n_experts, plan, work, &s.mix);
    if (out)
        *out = s;
    return out;
}

void moe_mix_gate_forward(const struct moe_gate *g, const struct moe_gate_io *io,
                          const struct moe_rows *x, struct moe_pass *pass,
                          struct moe_route *route) {
    const struct moe_mix_gate *c = g->shape;
    struct saved *s = io->saved;
    moe_router_forward(&c->router, g->n_experts, io->w, x, pass, &s->router);
    moe_mix_forward(&c->mix, g->n_experts, s->router.h, io->buffers, x, pass, &s->mix, route);
}

void moe_mix_gate_backward(const struct moe_gate *g, const struct moe_gate_io *io,
                           const struct moe_rows *x, struct moe_pass *pass,
                           const struct moe_route *route, struct moe_route *d, float *dw,
                           float *stats, const struct moe_rows_grad *dx) {
    const struct moe_mix_gate *c = g->shape;
    struct saved *s = io->saved;
    moe_mix_backward(&c->mix, g->n_experts, x, pass, &s->mix, route, d, stats, d->w);
    moe_router_backward(&c->router, g->n_experts, io->w, x, pass, &s->router, d->w, dw, dx);
}

void moe_mix_gate_after_step(const struct moe_gate *g, const float *stats, float *buffers) {
    moe_mix_after_step(&((const struct moe_mix_gate *)g->shape)->mix, g->n_experts, stats, buffers);
}
