/* mlp.c: forward and backward of the perceptron, side by side. Hidden outputs stay for the backward
 * pass; inputs of the activation only where its derivative needs them (SiLU, GELU). The dropout
 * mask is not stored: it is a function of a key drawn in the forward pass. Activations and their
 * derivatives are taken piece by piece as the products announce them, while they are in the cache.
 */
#include "moe/mlp.h"
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include "moe/batch_norm.h"
#include "moe/linear.h"

struct moe_mlp_saved {
    float *qy;                        /* [groups x width[1]] query part of layer 0 */
    float *qdy;                       /* the same, backward */
    float *z[MOE_MLP_LAYERS_MAX];     /* [rows x width[i + 1]] inputs of act, or NULL */
    float *a[MOE_MLP_LAYERS_MAX];     /* [rows x width[i + 1]] outputs of hidden layers */
    float *da[MOE_MLP_LAYERS_MAX];    /* their gradients */
    uint64_t key[MOE_MLP_LAYERS_MAX]; /* dropout */
    /* batch normalisation */
    float *hat[MOE_MLP_LAYERS_MAX];  /* [rows x width[i + 1]] normalised, or NULL */
    float *stat[MOE_MLP_LAYERS_MAX]; /* [3 x width[i + 1]] mean, variance, 1 / sd of the batch; in
                                      * inference scale and shift */
    float *sums;                     /* [2 x the greatest width] */
    bool own[MOE_MLP_LAYERS_MAX];    /* by the rows' own statistics */
};

void moe_mlp_declare(struct moe_mlp *m, struct moe_layout *l, int in, const int *hidden,
                     int n_hidden, int out, enum moe_act act, bool act_last) {
    assert(n_hidden < MOE_MLP_LAYERS_MAX);
    *m = (struct moe_mlp){.n_layers = n_hidden + 1, .act = act, .act_last = act_last};
    m->width[0] = in;
    for (int i = 0; i <= n_hidden; i++) {
        char name[24];
        bool active = i < n_hidden || act_last;
        m->width[i + 1] = i < n_hidden ? hidden[i] : out;
        snprintf(name, sizeof name, "w%d", i);
        int w = moe_layout_add(l, name, m->width[i], m->width[i + 1],
                               active ? MOE_INIT_HE : MOE_INIT_GLOROT, 0);
        snprintf(name, sizeof name, "b%d", i);
        int b = moe_layout_add(l, name, 1, m->width[i + 1], MOE_INIT_ZERO, 0);
        m->w[i] = l->f[w].at;
        m->b[i] = l->f[b].at;
    }
}

static bool active(const struct moe_mlp *m, int i) { return i < m->n_layers - 1 || m->act_last; }

void moe_mlp_add_norm(struct moe_mlp *m, struct moe_layout *l, struct moe_layout *buffers,
                      int *n_stats) {
    size_t at = 0;
    m->norm = true;
    for (int i = 0; i < m->n_layers; i++) {
        const int n = m->width[i + 1];
        char name[24];
        if (!active(m, i))
            continue;
        snprintf(name, sizeof name, "gain%d", i);
        m->gain[i] = l->f[moe_layout_add(l, name, 1, n, MOE_INIT_ONE, 0)].at;
        snprintf(name, sizeof name, "mean%d", i);
        m->mean[i] = buffers->f[moe_layout_add(buffers, name, 1, n, MOE_INIT_ZERO, 0)].at;
        snprintf(name, sizeof name, "var%d", i);
        m->var[i] = buffers->f[moe_layout_add(buffers, name, 1, n, MOE_INIT_ONE, 0)].at;
        m->sums[i] = at;
        at += moe_batch_sums_floats(n);
    }
    *n_stats = (int)at;
}

void moe_mlp_after_step(const struct moe_mlp *m, const float *stats, float *buffers) {
    for (int i = 0; i < m->n_layers && m->norm; i++)
        if (active(m, i))
            moe_batch_running_move(m->width[i + 1], stats + m->sums[i], buffers + m->mean[i],
                                   buffers + m->var[i]);
}

void moe_mlp_fold(const struct moe_mlp *m, const float *w, const float *running, float *to) {
    for (int i = 0; i < m->n_layers; i++) {
        const size_t in = (size_t)m->width[i], n = (size_t)m->width[i + 1];
        float *scale = to + m->gain[i], *wi = to + m->w[i];
        memcpy(wi, w + m->w[i], in * n * sizeof *wi);
        memcpy(to + m->b[i], w + m->b[i], n * sizeof *wi);
        if (!m->norm || !active(m, i))
            continue;
        moe_batch_norm_linear((int)n, w + m->gain[i], w + m->b[i], running + m->mean[i],
                              running + m->var[i], scale, to + m->b[i]);
        for (size_t r = 0; r < in; r++)
            for (size_t c = 0; c < n; c++)
                wi[r * n + c] *= scale[c];
    }
}

struct moe_mlp_saved *moe_mlp_bind(const struct moe_mlp *m, int dq, const struct moe_plan *plan,
                                   struct moe_work *work) {
    struct moe_mlp_saved s = {0}, *out = moe_work_take_bytes(work, sizeof s);
    size_t rows = (size_t)plan->rows_max;
    int widest = 0;
    s.qy = moe_work_take(work, dq ? (size_t)plan->groups_max * (size_t)m->width[1] : 0);
    if (plan->training)
        s.qdy = moe_work_take(work, dq ? (size_t)plan->groups_max * (size_t)m->width[1] : 0);
    for (int i = 0; i < m->n_layers; i++) {
        size_t n = rows * (size_t)m->width[i + 1];
        if (plan->training && active(m, i) && moe_act_keeps_input(m->act))
            s.z[i] = moe_work_take(work, n);
        if (m->norm && active(m, i)) {
            s.hat[i] = plan->training ? moe_work_take(work, n) : NULL;
            s.stat[i] = moe_work_take(work, 3 * (size_t)m->width[i + 1]);
            widest = m->width[i + 1] > widest ? m->width[i + 1] : widest;
        }
        if (i == m->n_layers - 1)
            break;
        s.a[i] = moe_work_take(work, n);
        if (plan->training)
            s.da[i] = moe_work_borrow(work, n);
    }
    s.sums = m->norm && plan->training ? moe_work_take(work, 2 * (size_t)widest) : NULL;
    if (out)
        *out = s;
    return out;
}

static struct moe_rows layer_input(const struct moe_mlp *m, const struct moe_rows *x,
                                   const struct moe_mlp_saved *s, int i) {
    if (i == 0)
        return *x;
    return (struct moe_rows){.n_rows = x->n_rows,
                             .n_groups = x->n_groups,
                             .dc = m->width[i],
                             .c = s->a[i - 1],
                             .group = x->group};
}

/* One layer's activation, forward or backward. */
struct piecewise {
    enum moe_act act;
    int width;
    float dropout; /* 0: none */
    uint64_t key;
    const float *in; /* forward: inputs of the activation; backward: what its derivative needs */
    float *out;      /* forward: outputs; backward: the gradient, in place */
    float *db;       /* backward: [width] sum over rows */
    const float *scale, *shift; /* forward: of the inputs, [width]; NULL: none */
};

static void activate(void *ctx, int row, int rows, int col, int cols) {
    const struct piecewise *p = ctx;
    const bool whole = cols == p->width; /* then the piece is one run of floats */
    const size_t n = whole ? (size_t)rows * (size_t)cols : (size_t)cols;
    for (int r = 0; r < (whole ? 1 : rows); r++) {
        size_t at = (size_t)(row + r) * (size_t)p->width + (size_t)col;
        moe_vec_act(p->act, n, p->in + at, p->out + at);
        moe_vec_dropout_part(at, n, p->dropout, p->key, p->out + at);
    }
}

static void differentiate(void *ctx, int row, int rows, int col, int cols) {
    const struct piecewise *p = ctx;
    const bool whole = cols == p->width;
    const size_t n = whole ? (size_t)rows * (size_t)cols : (size_t)cols;
    for (int r = 0; r < (whole ? 1 : rows); r++) {
        size_t at = (size_t)(row + r) * (size_t)p->width + (size_t)col;
        moe_vec_dropout_part(at, n, p->dropout, p->key, p->out + at);
        moe_vec_act_grad(p->act, n, p->in + at, p->out + at);
        moe_vec_sum_rows(whole ? rows : 1, cols, p->out + at, p->db + col);
    }
}

/* Inference: a scale and a shift, then the activation. in == out */
static void activate_scaled(void *ctx, int row, int rows, int col, int cols) {
    const struct piecewise *p = ctx;
    for (int r = 0; r < rows; r++) {
        float *y = p->out + (size_t)(row + r) * (size_t)p->width + (size_t)col;
        moe_batch_norm_row(cols, p->scale + col, p->shift + col, y, y);
        moe_vec_act(p->act, (size_t)cols, y, y);
    }
}

/* Training, of layer i: from s->hat[i], which holds the product, to p->out. */
static void normalise(const struct moe_mlp *m, const float *w, const struct moe_pass *pass, int i,
                      int rows, struct moe_mlp_saved *s, struct piecewise *p) {
    const int n = m->width[i + 1];
    const float *mean = pass->running + m->mean[i], *var = pass->running + m->var[i];
    float *z = s->z[i] ? s->z[i] : p->out, *rstd = s->stat[i] + 2 * (size_t)n;
    s->own[i] = rows > 1; /* a row alone is its own mean */
    if (s->own[i]) {
        moe_batch_stats(rows, n, s->hat[i], s->stat[i], s->stat[i] + n);
        mean = s->stat[i];
        var = s->stat[i] + n;
    }
    moe_batch_rstd(n, var, rstd);
    moe_batch_normalise(rows, n, mean, rstd, w + m->gain[i], w + m->b[i], s->hat[i], z);
    p->in = z;
    activate(p, 0, rows, 0, n);
}

/* Layer i, which is normalised. */
static void forward_normed(const struct moe_mlp *m, const float *w, const struct moe_rows *in,
                           const struct moe_pass *pass, int i, struct moe_mlp_saved *s,
                           struct piecewise *p) {
    const size_t n = (size_t)m->width[i + 1];
    float *scale = s->stat[i], *shift = scale + n;
    assert(pass->running);
    if (pass->training) {
        moe_linear_forward(in, w + m->w[i], NULL, (int)n, s->qy, s->hat[i]);
        normalise(m, w, pass, i, in->n_rows, s, p);
        return;
    }
    moe_batch_norm_linear((int)n, w + m->gain[i], w + m->b[i], pass->running + m->mean[i],
                          pass->running + m->var[i], scale, shift);
    p->scale = scale;
    p->shift = shift;
    moe_linear_forward_then(in, w + m->w[i], NULL, (int)n, s->qy, p->out,
                            &(struct moe_linear_then){activate_scaled, p});
}

void moe_mlp_forward(const struct moe_mlp *m, const float *w, const struct moe_rows *x,
                     struct moe_mlp_saved *s, struct moe_pass *pass, float *y) {
    for (int i = 0; i < m->n_layers; i++) {
        struct moe_rows in = layer_input(m, x, s, i);
        float *a = i == m->n_layers - 1 ? y : s->a[i], *z = s->z[i] ? s->z[i] : a;
        struct piecewise p = {.act = m->act, .width = m->width[i + 1], .in = z, .out = a};
        if (active(m, i) && pass->training && pass->dropout > 0) {
            p.dropout = pass->dropout;
            p.key = s->key[i] = rng_u64(pass->rng);
        }
        if (m->norm && active(m, i))
            forward_normed(m, w, &in, pass, i, s, &p);
        else
            moe_linear_forward_then(&in, w + m->w[i], w + m->b[i], m->width[i + 1], s->qy, z,
                                    active(m, i) ? &(struct moe_linear_then){activate, &p} : NULL);
    }
}

/* Of layer i, whose output's gradient is `da`. */
static struct piecewise backwards(const struct moe_mlp *m, const struct moe_mlp_saved *s,
                                  const struct moe_pass *pass, int i, const float *y, float *da,
                                  float *dw) {
    const float *a = i == m->n_layers - 1 ? y : s->a[i];
    return (struct piecewise){.act = m->act,
                              .width = m->width[i + 1],
                              .dropout = pass->training ? pass->dropout : 0,
                              .key = s->key[i],
                              .in = s->z[i] ? s->z[i] : a,
                              .out = da,
                              .db = dw + m->b[i]};
}

/* Of layer i, which is normalised: da, the gradient of its output, becomes the product's. */
static void backward_normed(const struct moe_mlp *m, const float *w, const struct moe_pass *pass,
                            int i, int rows, struct moe_mlp_saved *s, const struct piecewise *p,
                            float *dw) {
    const int n = m->width[i + 1];
    const size_t all = (size_t)rows * (size_t)n;
    const float *mean = s->stat[i];
    moe_vec_dropout_part(0, all, p->dropout, p->key, p->out);
    moe_vec_act_grad(m->act, all, p->in, p->out);
    moe_batch_norm_backward(rows, n, s->own[i], s->hat[i], mean + 2 * (size_t)n, w + m->gain[i],
                            s->sums, p->out, dw + m->gain[i], dw + m->b[i]);
    if (s->own[i] && pass->running_stats)
        moe_batch_sums_add(rows, n, mean, mean + n, pass->running + m->mean[i],
                           pass->running_stats + m->sums[i]);
}

void moe_mlp_backward(const struct moe_mlp *m, const float *w, const struct moe_rows *x,
                      struct moe_mlp_saved *s, const struct moe_pass *pass, const float *y,
                      float *dy, float *dw, const struct moe_rows_grad *dx) {
    const int top = m->n_layers - 1;
    for (int i = top; i >= 0; i--) {
        struct moe_rows in = layer_input(m, x, s, i);
        float *da = i == top ? dy : s->da[i], *db = active(m, i) ? NULL : dw + m->b[i];
        struct piecewise now = backwards(m, s, pass, i, y, da, dw);
        if (m->norm && active(m, i))
            backward_normed(m, w, pass, i, x->n_rows, s, &now, dw);
        else if (i == top && active(m, i))
            differentiate(&now, 0, x->n_rows, 0, m->width[i + 1]);
        if (i == 0) {
            moe_linear_backward_then(&in, w + m->w[0], m->width[1], da, s->qdy, dw + m->w[0], db,
                                     dx, NULL);
            break;
        }
        struct moe_rows_grad below = {.c = s->da[i - 1], .fresh = true};
        struct piecewise next = backwards(m, s, pass, i - 1, y, s->da[i - 1], dw);
        moe_linear_backward_then(&in, w + m->w[i], m->width[i + 1], da, s->qdy, dw + m->w[i], db,
                                 &below,
                                 m->norm ? NULL : &(struct moe_linear_then){differentiate, &next});
    }
}

double moe_mlp_flop(const struct moe_mlp *m, int dq) {
    double flop = 0;
    for (int i = 0; i < m->n_layers; i++)
        flop += 2.0 * (m->width[i] - (i ? 0 : dq)) * m->width[i + 1];
    return flop;
}
