/* deepseek.c: sigmoid scores balanced by a bias instead of a loss (Wang et al., arXiv 2408.15664;
 * DeepSeek-V3). Experts are chosen by s + b; their weights come from the unbiased s. After each
 * step, b rises for experts with less than the mean load and falls for the others; no gradient
 * touches it, and it stands still outside training. Groups as in DeepSeek-V2 and V3. */
#include <string.h>
#include "moe/balance.h"
#include "moe/choice.h"
#include "moe/router.h"

enum rule { RULE_SIGN, RULE_PROPORTIONAL };
struct conf {
    struct moe_router_conf router;
    struct moe_groups_conf groups;
    struct moe_capacity_conf capacity;
    int64_t k;
    bool normalise;
    double scale, rate;
    int rule;
};
static const struct conf_item items[] = {
    MOE_K_ITEM(struct conf, k, "2", 1),
    CONF_BOOL(struct conf, normalise, "normalise", "true", "the chosen weights sum to `scale`"),
    MOE_SCALE_ITEM(struct conf, scale),
    CONF_FLOAT(struct conf, rate, "rate", "0.001", 0, 1, NULL,
               "how far a step moves the bias: 1e-4 is slow, 1e-2 swings"),
    CONF_ENUM(struct conf, rule, "rule", "sign", "sign|proportional",
              "the bias moves by rate * sign(mean - load), or rate * (mean - load) / mean"),
    MOE_GROUPS_ITEMS(struct conf, groups),
    MOE_CAPACITY_ITEMS(struct conf, capacity),
    MOE_ROUTER_ITEMS(struct conf, router),
    CONF_END};

struct saved {
    struct moe_router router;
    struct moe_choice choice;
    float *s, *biased; /* [rows x n] */
};

static enum status shape(struct moe_gate *g, struct conf_place place, struct arena *a) {
    const struct conf *c = g->conf;
    (void)a;
    if (c->k == 1 && c->normalise && g->n_experts > 1)
        return fail(STATUS_INVALID_ARGUMENT,
                    "%s: %s: with k 1 a normalised weight is always 1 and the gate learns nothing; "
                    "use normalise: false",
                    place.file, place.section);
    TRY(moe_groups_check(&c->groups, moe_choice_k(c->k, g->n_experts), g->n_experts, place));
    moe_router_shape(g, &c->router, g->n_experts);
    moe_capacity_shape(g, &c->capacity);
    moe_layout_add(&g->buffers, "bias", 1, g->n_experts, MOE_INIT_ZERO, 0);
    g->n_stats = g->n_experts; /* loads */
    return STATUS_OK;
}

static void *bind(const struct moe_gate *g, const struct moe_plan *plan, struct moe_work *work) {
    const struct conf *c = g->conf;
    struct saved s, *out = moe_work_take_bytes(work, sizeof s);
    size_t all = (size_t)plan->rows_max * (size_t)g->n_experts;
    moe_router_bind(&c->router, g->dq, g->in, g->n_experts, plan, work, &s.router);
    moe_choice_bind(moe_choice_k(c->k, g->n_experts), g->n_experts, plan, work, &s.choice);
    s.s = moe_work_take(work, all);
    s.biased = moe_work_take(work, all);
    if (out)
        *out = s;
    return out;
}

/* What a row's scores are multiplied by. */
static float row_scale(const struct conf *c, int k, const int *pick, const float *s) {
    float sum = 0;
    if (!c->normalise)
        return (float)c->scale;
    for (int j = 0; j < k; j++)
        sum += s[pick[j]];
    return (float)c->scale / (sum + 1e-20f);
}

static void forward(const struct moe_gate *g, const struct moe_gate_io *io,
                    const struct moe_rows *x, struct moe_pass *pass, struct moe_route *route) {
    const struct conf *c = g->conf;
    struct saved *s = io->saved;
    int n = g->n_experts, k = moe_choice_k(c->k, n);
    moe_router_forward(&c->router, n, io->w, x, pass, &s->router);
    moe_router_sigmoid(x->n_rows, n, s->router.h, s->s);
    for (size_t i = 0; i < (size_t)x->n_rows * (size_t)n; i++)
        s->biased[i] =
            moe_withheld(s->router.h[i]) ? MOE_WITHHELD : s->s[i] + io->buffers[i % (size_t)n];
    moe_choice_pick(&c->groups, x->n_rows, k, n, s->biased, &s->choice);
    memset(route->w, 0, (size_t)x->n_rows * (size_t)n * sizeof *route->w);
    for (int r = 0; r < x->n_rows; r++) {
        const int *pick = s->choice.pick + (size_t)r * (size_t)k;
        size_t at = (size_t)r * (size_t)n;
        float scale = row_scale(c, k, pick, s->s + at);
        for (int j = 0; j < k; j++)
            route->w[at + (size_t)pick[j]] = scale * s->s[at + (size_t)pick[j]];
    }
    moe_choice_limit(&c->capacity, x, pass->training, k, k, n, &s->choice, route->w);
}

/* Normalised: w = scale s / S over the chosen, so ds = (scale d - <d, w>) / S, also for those that
 * a capacity limit took out afterwards (their d is 0). */
static void row_backward(const struct conf *c, int k, int n, const int *pick, const float *s,
                         const float *w, float *d) {
    float scale = row_scale(c, k, pick, s), dot = 0;
    for (int j = 0; j < k && c->normalise; j++)
        dot += d[pick[j]] * w[pick[j]] / (float)c->scale;
    for (int e = 0; e < n; e++)
        d[e] = w[e] != 0 ? d[e] : 0;
    for (int j = 0; j < k; j++) {
        int e = pick[j];
        d[e] = (d[e] - dot) * scale * s[e] * (1 - s[e]);
    }
}

static void backward(const struct moe_gate *g, const struct moe_gate_io *io,
                     const struct moe_rows *x, struct moe_pass *pass, const struct moe_route *route,
                     struct moe_route *d, float *dw, float *stats, const struct moe_rows_grad *dx) {
    const struct conf *c = g->conf;
    struct saved *s = io->saved;
    int n = g->n_experts, k = moe_choice_k(c->k, n);
    for (int r = 0; r < x->n_rows; r++) {
        size_t at = (size_t)r * (size_t)n;
        const int *pick = s->choice.pick + (size_t)r * (size_t)k;
        row_backward(c, k, n, pick, s->s + at, route->w + at, d->w + at);
        if (pass->training)
            moe_load_count(k, pick, stats);
    }
    moe_router_backward(&c->router, n, io->w, x, pass, &s->router, d->w, dw, dx);
}

static void after_step(const struct moe_gate *g, const float *stats, float *buffers) {
    const struct conf *c = g->conf;
    int n = g->n_experts;
    float mean = 0;
    for (int e = 0; e < n; e++)
        mean += stats[e] / (float)n;
    for (int e = 0; e < n && mean > 0; e++) {
        float error = mean - stats[e];
        float by = c->rule == RULE_SIGN ? (float)(error > 0) - (float)(error < 0) : error / mean;
        buffers[e] += (float)c->rate * by;
    }
}

const struct moe_gate_ops moe_gate_deepseek = {
    .name = "deepseek",
    .doc = "sigmoid scores balanced by a bias, no loss (arXiv 2408.15664; DeepSeek-V3)",
    .kind = MOE_ROUTE_WEIGHTS,
    .flags = MOE_GATE_SPARSE | MOE_GATE_LINEAR,
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .shape = shape,
    .bind = bind,
    .forward = forward,
    .backward = backward,
    .after_step = after_step,
};
