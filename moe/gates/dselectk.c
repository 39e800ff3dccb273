/* dselectk.c: DSelect-k (Hazimeh et al., NeurIPS 2021): a differentiable choice of at most k. Each
 * of k selectors writes an expert's number in binary, a bit at a time, through a smooth step:
 *
 *     S(z) = 0 below -gamma/2, 1 above gamma/2, else -2 z^3 / gamma^3 + 3 z / (2 gamma) + 1/2
 *     r_i(e) = prod_b (S(z_ib) where bit b of e is 1, else 1 - S(z_ib))
 *     w_e = sum_i softmax(a)_i r_i(e)
 *
 * The rows start dense and become exactly sparse as the bits settle, which an entropy penalty
 * hastens. N that is no power of two leaves numbers without an expert: 1 / (sum_e r_i(e) + 0.01)
 * keeps selectors away from them. z and a are constants of the gate, or linear in x. */
#include <math.h>
#include <string.h>
#include "moe/linear.h"
#include "moe/math/vec.h"
#include "moe/gate.h"

/* The step's slope fades out towards its ends, so that z would stop just short of them and weights
 * of 1e-8 would keep experts running: the last thousandth (3e-6 of height) is cut off. */
#define SETTLED       0.499f
#define ENTROPY_FLOOR 1e-6f
#define REACH_FLOOR   1e-2f

struct conf {
    int64_t k;
    bool per_example;
    double gamma, entropy, reach;
};
static const struct conf_item items[] = {
    CONF_INT(struct conf, k, "k", "2", 1, 64, "experts",
             "selectors: the most experts a row is given"),
    CONF_BOOL(struct conf, per_example, "per_example", "true",
              "choices depend on the row; false: one choice for the gate"),
    CONF_FLOAT(struct conf, gamma, "gamma", "1", 0.001, 100, NULL, "width of the smooth step"),
    CONF_FLOAT(struct conf, entropy, "entropy_loss", "0.005", 0, 100, NULL,
               "weight of the selectors' entropy"),
    CONF_FLOAT(struct conf, reach, "reach_loss", "0.01", 0, 100, NULL,
               "weight against numbers without an expert (N is no power of two)"),
    CONF_END};

/* Sizes, and one row at work. */
struct saved {
    int k, n, bits, columns; /* columns = k bits + k */
    float *y, *dy;       /* [rows x columns], of static gates [columns]: z by selector, then a */
    float *qy, *qdy;     /* [groups x columns] */
    float *step, *r, *a; /* [k x bits], [k x n], [k] */
    float *dr, *da, *dw; /* [k x n], [k], [n] */
};

static struct saved sizes(const struct moe_gate *g) {
    const struct conf *c = g->conf;
    struct saved s = {.n = g->n_experts};
    s.k = c->k < s.n ? (int)c->k : s.n;
    while (1 << s.bits < s.n)
        s.bits++;
    s.columns = s.k * s.bits + s.k;
    return s;
}

static enum status shape(struct moe_gate *g, struct conf_place place, struct arena *a) {
    const struct conf *c = g->conf;
    struct saved s = sizes(g);
    float bound = (float)c->gamma / 100;
    (void)place;
    (void)a;
    /* U(+-gamma / 100), in terms of GLOROT's bound */
    if (c->per_example)
        moe_layout_add(&g->params, "w", g->in, s.columns, MOE_INIT_GLOROT,
                       bound * bound * (float)(g->in + s.columns) / 6);
    moe_layout_add(&g->params, "b", 1, s.columns, MOE_INIT_GLOROT,
                   bound * bound * (float)(1 + s.columns) / 6);
    return STATUS_OK;
}

static void *bind(const struct moe_gate *g, const struct moe_plan *plan, struct moe_work *work) {
    const struct conf *c = g->conf;
    struct saved s = sizes(g), *out = moe_work_take_bytes(work, sizeof s);
    size_t columns = (size_t)s.columns, kn = (size_t)(s.k * s.n);
    size_t all = columns * (size_t)(c->per_example ? plan->rows_max : 1);
    s.y = moe_work_take(work, all);
    s.dy = plan->training ? moe_work_take(work, all) : NULL;
    s.qy = moe_work_take(work, moe_linear_scratch(plan->groups_max, g->dq, s.columns));
    s.qdy = moe_work_take(work, moe_linear_scratch(plan->groups_max, g->dq, s.columns));
    s.step = moe_work_take(work, columns);
    s.r = moe_work_take(work, kn);
    s.a = moe_work_take(work, (size_t)s.k);
    s.dr = moe_work_take(work, kn);
    s.da = moe_work_take(work, (size_t)s.k);
    s.dw = moe_work_take(work, (size_t)s.n);
    if (out)
        *out = s;
    return out;
}

static float smooth_step(float z, float gamma) {
    if (z <= -SETTLED * gamma)
        return 0;
    return z >= SETTLED * gamma
               ? 1
               : -2 * z * z * z / (gamma * gamma * gamma) + 1.5f * z / gamma + 0.5f;
}
static float smooth_step_grad(float z, float gamma) {
    return fabsf(z) >= SETTLED * gamma ? 0 : -6 * z * z / (gamma * gamma * gamma) + 1.5f / gamma;
}
/* Factor of bit b in the product of number e. */
static float bit(const float *step, int e, int b) { return e >> b & 1 ? step[b] : 1 - step[b]; }

/* From y of a row: step, r and a of s. */
static void select_experts(const struct conf *c, const struct saved *s, const float *y) {
    for (int i = 0; i < s->k * s->bits; i++)
        s->step[i] = smooth_step(y[i], (float)c->gamma);
    for (int i = 0; i < s->k; i++)
        for (int e = 0; e < s->n; e++) {
            float p = 1;
            for (int b = 0; b < s->bits; b++)
                p *= bit(s->step + i * s->bits, e, b);
            s->r[i * s->n + e] = p;
        }
    moe_vec_softmax(1, s->k, y + s->k * s->bits, s->a);
}

static void weigh(const struct saved *s, float *w) {
    for (int e = 0; e < s->n; e++) {
        float sum = 0;
        for (int i = 0; i < s->k; i++)
            sum += s->a[i] * s->r[i * s->n + e];
        w[e] = sum;
    }
}

static bool unreachable(const struct saved *s) { return s->n != 1 << s->bits; }
static float reached(const struct saved *s, int i) {
    float sum = 0;
    for (int e = 0; e < s->n; e++)
        sum += s->r[i * s->n + e];
    return sum;
}

static double penalty(const struct conf *c, const struct saved *s) {
    double sum = 0;
    for (int i = 0; i < s->k * s->n && c->entropy > 0; i++)
        sum -= c->entropy * (double)(s->r[i] * logf(s->r[i] + ENTROPY_FLOOR));
    for (int i = 0; i < s->k && c->reach > 0 && unreachable(s); i++)
        sum += c->reach / (double)(reached(s, i) + REACH_FLOOR);
    return sum;
}

static void forward(const struct moe_gate *g, const struct moe_gate_io *io,
                    const struct moe_rows *x, struct moe_pass *pass, struct moe_route *route) {
    const struct conf *c = g->conf;
    const struct saved *s = io->saved;
    size_t n = (size_t)s->n;
    double sum = 0;
    if (c->per_example)
        moe_linear_forward(x, io->w, io->w + g->params.f[1].at, s->columns, s->qy, s->y);
    else
        memcpy(s->y, io->w, (size_t)s->columns * sizeof *s->y);
    int distinct = c->per_example || x->n_rows == 0 ? x->n_rows : 1;
    for (int r = 0; r < distinct; r++) {
        select_experts(c, s, s->y + (size_t)r * (size_t)s->columns);
        weigh(s, route->w + (size_t)r * n);
        sum += pass->training ? penalty(c, s) : 0;
    }
    for (int r = distinct; r < x->n_rows; r++)
        memcpy(route->w + (size_t)r * n, route->w, n * sizeof *route->w);
    if (distinct)
        pass->aux += (double)pass->share * sum / distinct;
}

/* by: weight of the row's penalty. dw [n] towards the weights; sets dy of the row. */
static void row_backward(const struct conf *c, const struct saved *s, const float *y, float by,
                         const float *dw, float *dy) {
    select_experts(c, s, y);
    for (int i = 0; i < s->k; i++) {
        float reach = unreachable(s) ? reached(s, i) + REACH_FLOOR : INFINITY;
        s->da[i] = 0;
        for (int e = 0; e < s->n; e++) {
            float r = s->r[i * s->n + e];
            s->da[i] += dw[e] * r;
            s->dr[i * s->n + e] =
                s->a[i] * dw[e] - by * (float)c->reach / (reach * reach) -
                by * (float)c->entropy * (logf(r + ENTROPY_FLOOR) + r / (r + ENTROPY_FLOOR));
        }
    }
    moe_vec_softmax_grad(1, s->k, s->a, s->da, dy + s->k * s->bits);
    for (int i = 0; i < s->k; i++)
        for (int b = 0; b < s->bits; b++) {
            float sum = 0;
            for (int e = 0; e < s->n; e++) {
                float p = e >> b & 1 ? s->dr[i * s->n + e] : -s->dr[i * s->n + e];
                for (int other = 0; other < s->bits; other++)
                    p *= other == b ? 1 : bit(s->step + i * s->bits, e, other);
                sum += p;
            }
            dy[i * s->bits + b] = sum * smooth_step_grad(y[i * s->bits + b], (float)c->gamma);
        }
}

static void backward(const struct moe_gate *g, const struct moe_gate_io *io,
                     const struct moe_rows *x, struct moe_pass *pass, const struct moe_route *route,
                     struct moe_route *d, float *dw, float *stats, const struct moe_rows_grad *dx) {
    const struct conf *c = g->conf;
    struct saved *s = io->saved;
    float by = pass->training ? pass->share : 0;
    (void)route;
    (void)stats;
    if (x->n_rows == 0)
        return;
    if (!c->per_example) {
        memset(s->dw, 0, (size_t)s->n * sizeof *s->dw);
        moe_vec_sum_rows(x->n_rows, s->n, d->w, s->dw);
        row_backward(c, s, s->y, by, s->dw, s->dy);
        moe_vec_add((size_t)s->columns, s->dy, dw);
        return;
    }
    for (int r = 0; r < x->n_rows; r++) {
        size_t at = (size_t)r * (size_t)s->columns;
        row_backward(c, s, s->y + at, by / (float)x->n_rows, d->w + (size_t)r * (size_t)s->n,
                     s->dy + at);
    }
    moe_linear_backward(x, io->w, s->columns, s->dy, s->qdy, dw, dw + g->params.f[1].at, dx);
}

const struct moe_gate_ops moe_gate_dselectk = {
    .name = "dselectk",
    .doc = "k selectors of binary numbers through smooth steps (DSelect-k, NeurIPS 2021)",
    .kind = MOE_ROUTE_WEIGHTS,
    .flags = MOE_GATE_SPARSE | MOE_GATE_LINEAR,
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .shape = shape,
    .bind = bind,
    .forward = forward,
    .backward = backward,
};
