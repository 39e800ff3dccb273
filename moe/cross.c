/* cross.c: DCN-v2's low-rank cross layers, forward and backward. One rank per layer, no mixture of
 * low-rank experts; no activation inside. */
#include "moe/cross.h"
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include "moe/math/blas.h"
#include "moe/math/vec.h"

#define CROSS_MAX ((int)(sizeof((struct moe_cross *)0)->at / sizeof((struct moe_cross *)0)->at[0]))

struct moe_cross_state {
    float *x[9]; /* [rows x d] x_0 .. x_n */
    float *z[8]; /* [rows x rank] x_l V */
    float *t[8]; /* [rows x d] z U + b */
    float *dx[2], *dx0, *dz, *dt;
};

void moe_cross_declare(struct moe_cross *c, struct moe_layout *l, int n, int rank, int d) {
    assert(n <= CROSS_MAX);
    *c = (struct moe_cross){.n = n, .rank = rank, .d = d};
    for (int i = 0; i < n; i++) {
        char name[24];
        snprintf(name, sizeof name, "v%d", i);
        c->at[i].v = l->f[moe_layout_add(l, name, d, rank, MOE_INIT_GLOROT, 0)].at;
        snprintf(name, sizeof name, "u%d", i);
        c->at[i].u = l->f[moe_layout_add(l, name, rank, d, MOE_INIT_GLOROT, 0)].at;
        snprintf(name, sizeof name, "b%d", i);
        c->at[i].b = l->f[moe_layout_add(l, name, 1, d, MOE_INIT_ZERO, 0)].at;
    }
}

struct moe_cross_state *moe_cross_bind(const struct moe_cross *c, const struct moe_plan *plan,
                                       struct moe_work *work) {
    struct moe_cross_state s = {0}, *out = moe_work_take_bytes(work, sizeof s);
    size_t wide = (size_t)plan->rows_max * (size_t)c->d,
           thin = (size_t)plan->rows_max * (size_t)c->rank;
    for (int i = 0; i <= c->n; i++)
        s.x[i] = moe_work_take(work, wide);
    for (int i = 0; i < c->n; i++) {
        s.z[i] = moe_work_take(work, thin);
        s.t[i] = moe_work_take(work, wide);
    }
    if (plan->training) {
        s.dx[0] = moe_work_take(work, wide);
        s.dx[1] = moe_work_take(work, wide);
        s.dx0 = moe_work_take(work, wide);
        s.dt = moe_work_take(work, wide);
        s.dz = moe_work_take(work, thin);
    }
    if (out)
        *out = s;
    return out;
}

/* y = x0 * t + x */
MOE_CLONES static void cross(size_t n, const float *restrict x0, const float *restrict t,
                             const float *restrict x, float *restrict y) {
    for (size_t i = 0; i < n; i++)
        y[i] = x0[i] * t[i] + x[i];
}
/* dt = x0 * dy; dx0 += t * dy */
MOE_CLONES static void cross_grad(size_t n, const float *restrict x0, const float *restrict t,
                                  const float *restrict dy, float *restrict dt,
                                  float *restrict dx0) {
    for (size_t i = 0; i < n; i++) {
        dt[i] = x0[i] * dy[i];
        dx0[i] += t[i] * dy[i];
    }
}

static void join(const struct moe_rows *x, float *out) {
    size_t dq = (size_t)x->dq, dc = (size_t)x->dc, d = dq + dc;
    for (int r = 0; r < x->n_rows; r++) {
        if (dq)
            memcpy(out + (size_t)r * d, x->q + (size_t)x->group[r] * dq, dq * sizeof(float));
        if (dc)
            memcpy(out + (size_t)r * d + dq, x->c + (size_t)r * dc, dc * sizeof(float));
    }
}

void moe_cross_forward(const struct moe_cross *c, const float *w, const struct moe_rows *x,
                       struct moe_cross_state *s, struct moe_rows *out) {
    int R = x->n_rows, d = c->d, k = c->rank;
    join(x, s->x[0]);
    for (int i = 0; i < c->n; i++) {
        moe_gemm(0, 0, R, k, d, s->x[i], d, w + c->at[i].v, k, 0, s->z[i], k);
        moe_vec_fill_rows(R, d, w + c->at[i].b, s->t[i]);
        moe_gemm(0, 0, R, d, k, s->z[i], k, w + c->at[i].u, d, 1, s->t[i], d);
        cross((size_t)R * (size_t)d, s->x[0], s->t[i], s->x[i], s->x[i + 1]);
    }
    *out = *x;
    out->dq = out->q_from = out->c_from = 0;
    out->q = NULL;
    out->fold = NULL;
    out->fold_q = out->fold_c = NULL;
    out->dc = d;
    out->c = s->x[c->n];
}

struct moe_rows_grad moe_cross_grad(const struct moe_cross *c, struct moe_cross_state *s,
                                    int n_rows) {
    memset(s->dx[c->n & 1], 0, (size_t)n_rows * (size_t)c->d * sizeof(float));
    return (struct moe_rows_grad){.c = s->dx[c->n & 1]};
}

void moe_cross_backward(const struct moe_cross *c, const float *w, const struct moe_rows *x,
                        struct moe_cross_state *s, float *dw, const struct moe_rows_grad *dx) {
    int R = x->n_rows, d = c->d, k = c->rank;
    size_t n = (size_t)R * (size_t)d;
    memset(s->dx0, 0, n * sizeof(float));
    for (int i = c->n - 1; i >= 0; i--) {
        float *dy = s->dx[(i + 1) & 1], *dxi = s->dx[i & 1];
        cross_grad(n, s->x[0], s->t[i], dy, s->dt, s->dx0);
        moe_vec_sum_rows(R, d, s->dt, dw + c->at[i].b);
        moe_gemm(1, 0, k, d, R, s->z[i], k, s->dt, d, 1, dw + c->at[i].u, d);
        moe_gemm(0, 1, R, k, d, s->dt, d, w + c->at[i].u, d, 0, s->dz, k);
        moe_gemm(1, 0, d, k, R, s->x[i], d, s->dz, k, 1, dw + c->at[i].v, k);
        memcpy(dxi, dy, n * sizeof(float));
        moe_gemm(0, 1, R, d, k, s->dz, k, w + c->at[i].v, k, 1, dxi, d);
    }
    moe_vec_add(n, s->dx0, s->dx[0]);
    size_t dq = (size_t)x->dq, dc = (size_t)x->dc;
    for (int r = 0; r < R; r++) {
        if (dx->q && dq)
            moe_vec_add(dq, s->dx[0] + (size_t)r * (size_t)d, dx->q + (size_t)x->group[r] * dq);
        if (dx->c && dc)
            moe_vec_add(dc, s->dx[0] + (size_t)r * (size_t)d + dq, dx->c + (size_t)r * dc);
    }
}
