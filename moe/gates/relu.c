/* relu.c: ReMoE (Wang et al., ICLR 2025): w = ReLU(x W + b), no softmax, no fixed k: rows take as
 * many experts as they need. A controller holds the mean share s of zeros at s* = 1 - k / N:
 *
 *     loss = lambda mean_t sum_e f_e w_te,  f_e = N / (k T) #{t: w_te > 0}   (no gradient through
 * f) after a step: lambda *= alpha ^ clamp((s* - s - look_ahead * speed) / band, -1, 1)
 *
 * with speed = the smoothed change of s in a step. band 0 and look_ahead 0 make the paper's rule,
 * lambda *= alpha or /= alpha. There, s follows lambda within a few steps, since a thousand inputs
 * move each logit; here a few dozen do, s is hundreds of steps late, and by the paper's rule lambda
 * grows by orders of magnitude too far, turns nearly everything off and finds no gradient to come
 * back with. Looking ahead stops it in time; the band stops it from swinging about the target.
 *
 * lambda stands in the buffers, so that a checkpoint continues where it was. Each gate has its own
 * (the paper: one for all layers). The paper's router has no bias; standardised inputs need one:
 * without, half of all x W are positive whatever W is, no more than half can be zero, and lambda
 * grows to its limit.
 *
 * A row may lose all its experts, and a whole gate may, by the task's gradient alone when experts
 * do harm at first: then no gradient comes back. `revive` (ours, not the paper's) pulls the
 * greatest logit of such a row up:
 *
 *     loss += revive mean_t [w_t = 0] (-max_e h_te)
 *
 * Rows and gates without weight are counted, and `alarm` says so, as for lambda at its limit; keep
 * shared experts or a wide term. */
#include <math.h>
#include <string.h>
#include "moe/router.h"
#include "moe/math/vec.h"

enum {
    LAMBDA,
    SPARSITY,
    ZERO_ROWS,
    ALARM,
    SPEED,
    STARTED,
    STEPS,
    STRIDE,
    TRACED,
    TRACE
};                                          /* buffers */
enum { POINTS = 64, POINT = 4 };            /* of the trace: step, lambda, sparsity, rows without */
enum { ACTIVE, ROWS, ROWS_WITHOUT, STATS }; /* statistics */
#define SMOOTH     0.95f                    /* of the speed */
#define LAMBDA_MIN 1e-20f                   /* keeps fp32 from sticking at 0 */

struct conf {
    bool bias, balance;
    double k, lambda, lambda_max, alpha, band, look_ahead, alarm, revive;
};
static const struct conf_item items[] = {
    CONF_FLOAT(struct conf, k, "k", "2", 0.01, 512, "experts", "mean number of experts of a row"),
    CONF_FLOAT(struct conf, lambda, "lambda", "1e-8", 1e-20, 1, NULL,
               "weight of the penalty at the start"),
    CONF_FLOAT(struct conf, lambda_max, "lambda_max", "10", 1e-20, 1e6, NULL,
               "limit of that weight; reaching it raises the alarm"),
    CONF_FLOAT(struct conf, alpha, "alpha", "1.2", 1, 2, NULL,
               "most that a step multiplies lambda by; 1 holds it"),
    CONF_FLOAT(struct conf, band, "band", "0.05", 0, 1, NULL,
               "distance from the target below which lambda moves by less; 0: never less"),
    CONF_FLOAT(struct conf, look_ahead, "look_ahead", "50", 0, 10000, "steps",
               "the controller judges where sparsity will be after so many steps"),
    CONF_BOOL(struct conf, balance, "balance", "true",
              "the penalty weighs experts by their load; false: plain L1"),
    MOE_BIAS_ITEM(struct conf, bias),
    CONF_FLOAT(struct conf, revive, "revive", "0.01", 0, 100, NULL,
               "pull on the greatest logit of a row that no expert gets; 0: the paper's gate"),
    CONF_FLOAT(struct conf, alarm, "alarm", "0.5", 0, 1, NULL,
               "share of rows without any expert that raises the alarm"),
    CONF_END};

struct saved {
    struct moe_router_conf conf; /* the router's: nothing random */
    struct moe_router router;
    float *f; /* [n] */
};

static struct moe_router_conf router_conf(const struct moe_gate *g) {
    return (struct moe_router_conf){.bias = ((const struct conf *)g->conf)->bias, .temperature = 1};
}

static enum status shape(struct moe_gate *g, struct conf_place place, struct arena *a) {
    const struct conf *c = g->conf;
    struct moe_router_conf router = router_conf(g);
    (void)place;
    (void)a;
    moe_router_shape(g, &router, g->n_experts);
    moe_layout_add(&g->buffers, "lambda", 1, 1, MOE_INIT_CONST, (float)c->lambda);
    moe_layout_add(&g->buffers, "sparsity", 1, 1, MOE_INIT_ZERO, 0);
    moe_layout_add(&g->buffers, "zero_rows", 1, 1, MOE_INIT_ZERO, 0);
    moe_layout_add(&g->buffers, "alarm", 1, 1, MOE_INIT_ZERO, 0);
    moe_layout_add(&g->buffers, "speed", 1, 1, MOE_INIT_ZERO, 0);
    moe_layout_add(&g->buffers, "started", 1, 1, MOE_INIT_ZERO, 0);
    moe_layout_add(&g->buffers, "steps", 1, 1, MOE_INIT_ZERO, 0);
    moe_layout_add(&g->buffers, "stride", 1, 1, MOE_INIT_ONE, 0);
    moe_layout_add(&g->buffers, "traced", 1, 1, MOE_INIT_ZERO, 0);
    moe_layout_add(&g->buffers, "trace", POINTS, POINT, MOE_INIT_ZERO, 0);
    g->n_stats = STATS;
    return STATUS_OK;
}

static void *bind(const struct moe_gate *g, const struct moe_plan *plan, struct moe_work *work) {
    struct saved s = {.conf = router_conf(g)}, *out = moe_work_take_bytes(work, sizeof s);
    moe_router_bind(&s.conf, g->dq, g->in, g->n_experts, plan, work, &s.router);
    s.f = moe_work_take(work, (size_t)g->n_experts);
    if (out)
        *out = s;
    return out;
}

/* f [n], or ones */
static void loads(const struct conf *c, int rows, int n, const float *w, float *f) {
    for (int e = 0; e < n; e++)
        f[e] = c->balance ? 0 : 1;
    for (int r = 0; r < rows && c->balance; r++)
        for (int e = 0; e < n; e++)
            f[e] += w[(size_t)r * (size_t)n + (size_t)e] > 0;
    for (int e = 0; e < n && c->balance; e++)
        f[e] *= (float)(n / (c->k * rows));
}

/* The greatest logit of a row without any expert; -1: the row has one. */
static int lost(int n, const float *w, const float *h) {
    int best = 0;
    for (int e = 0; e < n; e++) {
        if (w[e] > 0)
            return -1;
        best = h[e] > h[best] ? e : best;
    }
    return best;
}

static void forward(const struct moe_gate *g, const struct moe_gate_io *io,
                    const struct moe_rows *x, struct moe_pass *pass, struct moe_route *route) {
    struct saved *s = io->saved;
    int n = g->n_experts;
    size_t all = (size_t)x->n_rows * (size_t)n;
    double sum = 0;
    moe_router_forward(&s->conf, n, io->w, x, pass, &s->router);
    moe_vec_act(MOE_ACT_RELU, all, s->router.h, route->w);
    if (!pass->training)
        return;
    loads(g->conf, x->n_rows, n, route->w, s->f);
    for (size_t i = 0; i < all; i++)
        sum += (double)s->f[i % (size_t)n] * (double)route->w[i];
    if (!x->n_rows)
        return;
    pass->aux += (double)pass->share * (double)io->buffers[LAMBDA] * sum / x->n_rows;
    for (int r = 0; r < x->n_rows; r++) {
        const float *h = s->router.h + (size_t)r * (size_t)n;
        int best = lost(n, route->w + (size_t)r * (size_t)n, h);
        if (best >= 0)
            pass->aux -= (double)pass->share * ((const struct conf *)g->conf)->revive *
                         (double)h[best] / x->n_rows;
    }
}

static void count(int rows, int n, const float *w, float *stats) {
    for (int r = 0; r < rows; r++) {
        int active = 0;
        for (int e = 0; e < n; e++)
            active += w[(size_t)r * (size_t)n + (size_t)e] > 0;
        stats[ACTIVE] += (float)active;
        stats[ROWS] += 1;
        stats[ROWS_WITHOUT] += active == 0;
    }
}

static void backward(const struct moe_gate *g, const struct moe_gate_io *io,
                     const struct moe_rows *x, struct moe_pass *pass, const struct moe_route *route,
                     struct moe_route *d, float *dw, float *stats, const struct moe_rows_grad *dx) {
    struct saved *s = io->saved;
    int n = g->n_experts;
    float by =
        pass->training && x->n_rows ? pass->share * io->buffers[LAMBDA] / (float)x->n_rows : 0;
    for (size_t i = 0; i < (size_t)x->n_rows * (size_t)n; i++)
        d->w[i] = route->w[i] > 0 ? d->w[i] + (by > 0 ? by * s->f[i % (size_t)n] : 0) : 0;
    for (int r = 0; pass->training && r < x->n_rows; r++) {
        size_t at = (size_t)r * (size_t)n;
        int best = lost(n, route->w + at, s->router.h + at);
        if (best >= 0)
            d->w[at + (size_t)best] =
                -pass->share * (float)((const struct conf *)g->conf)->revive / (float)x->n_rows;
    }
    if (pass->training)
        count(x->n_rows, n, route->w, stats);
    moe_router_backward(&s->conf, n, io->w, x, pass, &s->router, d->w, dw, dx);
}

/* The exponent of alpha. Equality counts as above the target. */
static float correction(const struct conf *c, float target, float sparsity, float speed) {
    float error = target - sparsity - (float)c->look_ahead * speed;
    if (c->band == 0)
        return error > 0 ? 1 : -1;
    return fminf(fmaxf(error / (float)c->band, -1), 1);
}

/* The trace keeps at most POINTS steps, evenly spread: when it is full every other goes and the
 * stride doubles. It is saved with the model: how lambda came where it is can be seen later. */
static void record(float *b) {
    float *points = b + TRACE;
    int step = (int)b[STEPS], n = (int)b[TRACED];
    b[STEPS] = (float)(step + 1);
    if (step % (int)b[STRIDE])
        return;
    if (n == POINTS) {
        for (n = 0; n < POINTS / 2; n++)
            memmove(points + n * POINT, points + 2 * n * POINT, POINT * sizeof *points);
        b[STRIDE] *= 2;
    }
    if (step % (int)b[STRIDE] == 0) {
        const float point[POINT] = {(float)(step + 1), b[LAMBDA], b[SPARSITY], b[ZERO_ROWS]};
        memcpy(points + n++ * POINT, point, sizeof point);
    }
    b[TRACED] = (float)n;
}

static void after_step(const struct moe_gate *g, const float *stats, float *buffers) {
    const struct conf *c = g->conf;
    if (stats[ROWS] == 0)
        return;
    float target = fmaxf(0, 1 - (float)c->k / (float)g->n_experts);
    float sparsity = 1 - stats[ACTIVE] / (stats[ROWS] * (float)g->n_experts);
    if (buffers[STARTED] != 0)
        buffers[SPEED] = SMOOTH * buffers[SPEED] + (1 - SMOOTH) * (sparsity - buffers[SPARSITY]);
    float by = correction(c, target, sparsity, buffers[SPEED]);
    float lambda = buffers[LAMBDA] * powf((float)c->alpha, by);
    buffers[LAMBDA] = fminf(fmaxf(lambda, LAMBDA_MIN), (float)c->lambda_max);
    buffers[SPARSITY] = sparsity;
    buffers[ZERO_ROWS] = stats[ROWS_WITHOUT] / stats[ROWS];
    buffers[ALARM] = stats[ACTIVE] == 0 || buffers[ZERO_ROWS] > (float)c->alarm ||
                     buffers[LAMBDA] >= (float)c->lambda_max;
    buffers[STARTED] = 1;
    record(buffers);
}

const struct moe_gate_ops moe_gate_relu = {
    .name = "relu",
    .doc = "ReLU of the logits, sparsity held by a controller (ReMoE, ICLR 2025)",
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
