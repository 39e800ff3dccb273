/* noisy_topk.c: the sparsely gated mixture (Shazeer et al., ICLR 2017). In training each logit gets
 * normal noise of a learned size; the k greatest are kept and go through a softmax.
 *
 *     H = h + z sigma,  sigma = softplus(x W_n) + 1e-2,  z ~ N(0, 1)
 *     loss = a CV^2(sum_t w_te) + b CV^2(sum_t Phi((h_te - thr_te) / sigma_te))
 *
 * thr is what expert e has to beat: the (k+1)-th noisy logit if e is among the k, else the k-th.
 * Phi makes the load smooth, so the noise's size learns from it too; thr has its gradient as any
 * other logit. In inference there is no noise and W_n is not read. */
#include <math.h>
#include <string.h>
#include "moe/balance.h"
#include "moe/choice.h"
#include "moe/linear.h"
#include "moe/router.h"

#define SIGMA_MIN 1e-2f

struct conf {
    struct moe_router_conf router;
    struct moe_capacity_conf capacity;
    int64_t k;
    double importance, load;
};
static const struct conf_item items[] = {
    MOE_K_ITEM(struct conf, k, "2", 2),
    CONF_FLOAT(struct conf, importance, "importance_loss", "0.1", 0, 100, NULL,
               "weight of CV^2 of the experts' summed weights"),
    CONF_FLOAT(struct conf, load, "load_loss", "0.1", 0, 100, NULL,
               "weight of CV^2 of the experts' smooth loads"),
    MOE_CAPACITY_ITEMS(struct conf, capacity),
    MOE_ROUTER_ITEMS(struct conf, router),
    CONF_END};

struct saved {
    struct moe_router router;
    struct moe_choice choice;          /* of the best k + 1 */
    float *z, *sigma, *noisy, *dsigma; /* [rows x n] */
    float *v;                          /* [rows x k] weights before capacity */
    float *qy, *qdy;                   /* [groups x n] of x W_n */
    double *sum, *dimp, *dload;        /* [n] */
};

/* Picks a row has: k, and the next one while there is one. */
static int picks(const struct conf *c, int n) { return moe_choice_k(c->k + 1, n); }

static enum status shape(struct moe_gate *g, struct conf_place place, struct arena *a) {
    const struct conf *c = g->conf;
    (void)place;
    (void)a;
    moe_router_shape(g, &c->router, g->n_experts);
    moe_layout_add(&g->params, "noise", g->in, g->n_experts, MOE_INIT_ZERO, 0);
    moe_capacity_shape(g, &c->capacity);
    return STATUS_OK;
}

static void *bind(const struct moe_gate *g, const struct moe_plan *plan, struct moe_work *work) {
    const struct conf *c = g->conf;
    struct saved s = {0}, *out = moe_work_take_bytes(work, sizeof s);
    int n = g->n_experts;
    size_t all = (size_t)plan->rows_max * (size_t)n;
    moe_router_bind(&c->router, g->dq, g->in, n, plan, work, &s.router);
    moe_choice_bind(picks(c, n), n, plan, work, &s.choice);
    s.v = moe_work_take(work, (size_t)plan->rows_max * (size_t)moe_choice_k(c->k, n));
    if (plan->training) {
        float **lists[] = {&s.z, &s.sigma, &s.noisy, &s.dsigma};
        for (int i = 0; i < 4; i++)
            *lists[i] = moe_work_take(work, all);
        s.qy = moe_work_take(work, moe_linear_scratch(plan->groups_max, g->dq, n));
        s.qdy = moe_work_take(work, moe_linear_scratch(plan->groups_max, g->dq, n));
        s.sum = moe_work_take_bytes(work, (size_t)n * sizeof(double));
        s.dimp = moe_work_take_bytes(work, (size_t)n * sizeof(double));
        s.dload = moe_work_take_bytes(work, (size_t)n * sizeof(double));
    }
    if (out)
        *out = s;
    return out;
}

static const float *noise_weights(const struct moe_gate *g, const float *w) {
    return w + g->params.f[g->params.n - 1].at;
}

static void add_noise(const struct moe_gate *g, const float *w, const struct moe_rows *x,
                      struct rng *rng, struct saved *s) {
    int n = g->n_experts;
    moe_linear_forward(x, noise_weights(g, w), NULL, n, s->qy, s->sigma);
    for (size_t i = 0; i < (size_t)x->n_rows * (size_t)n; i++) {
        float u = s->sigma[i]; /* softplus without overflow */
        s->sigma[i] = (u > 0 ? u : 0) + log1pf(expf(-fabsf(u))) + SIGMA_MIN;
        s->z[i] = (float)rng_normal(rng);
        s->noisy[i] = s->router.h[i] + s->z[i] * s->sigma[i];
    }
}

/* What expert e has to beat, as an index into the row: see the top. */
static int rival(int k, const int *pick, int e) {
    for (int j = 0; j < k; j++)
        if (pick[j] == e)
            return pick[k];
    return pick[k - 1];
}
static double margin(const struct saved *s, size_t at, int k, const int *pick, int e) {
    size_t i = at + (size_t)e, thr = at + (size_t)rival(k, pick, e);
    return ((double)s->router.h[i] - (double)s->noisy[thr]) / (double)s->sigma[i];
}

/* Both losses; their gradients towards the sums stay in dimp, dload. */
static double losses(const struct conf *c, int rows, int n, struct saved *s, double share) {
    int k = moe_choice_k(c->k, n), p = picks(c, n);
    double loss = 0;
    memset(s->sum, 0, (size_t)n * sizeof *s->sum);
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < k; j++)
            s->sum[s->choice.pick[(size_t)r * (size_t)p + (size_t)j]] +=
                (double)s->v[(size_t)r * (size_t)k + (size_t)j];
    loss += c->importance * moe_cv2(n, s->sum);
    moe_cv2_grad(n, s->sum, share * c->importance, s->dimp);
    memset(s->sum, 0, (size_t)n * sizeof *s->sum);
    for (int r = 0; r < rows && p > k; r++) /* with all experts chosen the load is what it is */
        for (int e = 0; e < n; e++)
            s->sum[e] += 0.5 * erfc(-M_SQRT1_2 * margin(s, (size_t)r * (size_t)n, k,
                                                        s->choice.pick + (size_t)r * (size_t)p, e));
    loss += c->load * moe_cv2(n, s->sum);
    moe_cv2_grad(n, s->sum, share * c->load, s->dload);
    return share * loss;
}

static void forward(const struct moe_gate *g, const struct moe_gate_io *io,
                    const struct moe_rows *x, struct moe_pass *pass, struct moe_route *route) {
    const struct conf *c = g->conf;
    struct saved *s = io->saved;
    int n = g->n_experts, k = moe_choice_k(c->k, n), p = picks(c, n);
    const float *h = s->router.h;
    moe_router_forward(&c->router, n, io->w, x, pass, &s->router);
    if (pass->training) {
        add_noise(g, io->w, x, pass->rng, s);
        h = s->noisy;
    }
    moe_choice_pick(NULL, x->n_rows, p, n, h, &s->choice);
    memset(route->w, 0, (size_t)x->n_rows * (size_t)n * sizeof *route->w);
    for (int r = 0; r < x->n_rows; r++) {
        const int *pick = s->choice.pick + (size_t)r * (size_t)p;
        float *v = s->v + (size_t)r * (size_t)k;
        moe_choice_softmax(k, h + (size_t)r * (size_t)n, pick, v);
        for (int j = 0; j < k; j++)
            route->w[(size_t)r * (size_t)n + (size_t)pick[j]] = v[j];
    }
    moe_choice_limit(&c->capacity, x, pass->training, k, p, n, &s->choice, route->w);
    if (pass->training)
        pass->aux += losses(c, x->n_rows, n, s, (double)pass->share);
}

/* d Load: Phi' = phi(m) / sigma towards h_e, minus that towards the rival's noisy logit, and
 * -m phi / sigma towards sigma_e. */
static void load_backward(struct saved *s, size_t at, int n, int k, const int *pick, float *dh) {
    for (int e = 0; e < n; e++) {
        size_t i = at + (size_t)e, thr = at + (size_t)rival(k, pick, e);
        double m = margin(s, at, k, pick, e);
        double by =
            s->dload[e] * exp(-0.5 * m * m) * (M_SQRT1_2 * M_2_SQRTPI / 2) / (double)s->sigma[i];
        dh[i] += (float)by;
        s->dsigma[i] -= (float)(by * m);
        dh[thr] -= (float)by;
        s->dsigma[thr] -= (float)(by * (double)s->z[thr]);
    }
}

/* Towards the noisy logits of the kept, then apart into h and sigma. */
static void row_backward(const struct conf *c, int n, struct saved *s, int r, bool training,
                         const float *w, float *d) {
    int k = moe_choice_k(c->k, n), p = picks(c, n);
    size_t at = (size_t)r * (size_t)n;
    const int *pick = s->choice.pick + (size_t)r * (size_t)p;
    const float *v = s->v + (size_t)r * (size_t)k;
    float *dv = s->choice.score, dot = 0;
    for (int j = 0; j < k; j++) {
        size_t i = at + (size_t)pick[j];
        dv[j] = (w[i] != 0 ? d[i] : 0) + (training ? (float)s->dimp[pick[j]] : 0);
        dot += v[j] * dv[j];
    }
    memset(d + at, 0, (size_t)n * sizeof *d);
    if (training)
        memset(s->dsigma + at, 0, (size_t)n * sizeof *s->dsigma);
    for (int j = 0; j < k; j++) {
        size_t i = at + (size_t)pick[j];
        d[i] = v[j] * (dv[j] - dot);
        if (training)
            s->dsigma[i] = d[i] * s->z[i];
    }
    if (training && p > k)
        load_backward(s, at, n, k, pick, d);
}

static void backward(const struct moe_gate *g, const struct moe_gate_io *io,
                     const struct moe_rows *x, struct moe_pass *pass, const struct moe_route *route,
                     struct moe_route *d, float *dw, float *stats, const struct moe_rows_grad *dx) {
    const struct conf *c = g->conf;
    struct saved *s = io->saved;
    int n = g->n_experts;
    (void)stats;
    for (int r = 0; r < x->n_rows; r++)
        row_backward(c, n, s, r, pass->training, route->w, d->w);
    if (pass->training) {
        for (size_t i = 0; i < (size_t)x->n_rows * (size_t)n;
             i++) /* softplus' = 1 - exp(-softplus) */
            s->dsigma[i] *= -expm1f(SIGMA_MIN - s->sigma[i]);
        moe_linear_backward(x, noise_weights(g, io->w), n, s->dsigma, s->qdy,
                            dw + g->params.f[g->params.n - 1].at, NULL, dx);
    }
    moe_router_backward(&c->router, n, io->w, x, pass, &s->router, d->w, dw, dx);
}

const struct moe_gate_ops moe_gate_noisy_topk = {
    .name = "noisy_topk",
    .doc = "noise of a learned size, the best k, importance and load losses (ICLR 2017)",
    .kind = MOE_ROUTE_WEIGHTS,
    .flags = MOE_GATE_SPARSE | MOE_GATE_STOCHASTIC | MOE_GATE_LINEAR,
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .shape = shape,
    .bind = bind,
    .forward = forward,
    .backward = backward,
};
