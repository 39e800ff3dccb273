/* linear.c: the one place where rows in two parts meet a weight matrix. The query part is
 * multiplied once per group and spread over the group's rows; backwards, the rows' gradients are
 * summed by group first, so the query part costs one product per group there too. */
#include "moe/linear.h"
#include <string.h>
#include "moe/blas.h"
#include "moe/vec.h"

void moe_linear_forward(const struct moe_rows *x, const float *w, const float *b, int n, float *qy,
                        float *y) {
    int R = x->n_rows, G = x->n_groups, dq = x->dq, dc = x->dc;
    if (dq) {
        if (!x->q_ready) {
            if (b)
                moe_vec_fill_rows(G, n, b, qy);
            moe_gemm(0, 0, G, n, dq, x->q, dq, w, n, b ? 1 : 0, qy, n);
        }
        moe_vec_spread(R, n, qy, x->group, y);
    } else if (b) {
        moe_vec_fill_rows(R, n, b, y);
    }
    if (dc || !dq)
        moe_gemm(0, 0, R, n, dc, x->c, dc, w + (size_t)dq * (size_t)n, n, dq || b ? 1 : 0, y, n);
}

void moe_linear_backward(const struct moe_rows *x, const float *w, int n, const float *dy, float *qdy,
                         float *dw, float *db, const struct moe_rows_grad *dx) {
    int R = x->n_rows, G = x->n_groups, dq = x->dq, dc = x->dc;
    if (db)
        moe_vec_sum_rows(R, n, dy, db);
    if (dc) {
        moe_gemm(1, 0, dc, n, R, x->c, dc, dy, n, 1, dw + (size_t)dq * (size_t)n, n);
        if (dx && dx->c)
            moe_gemm(0, 1, R, dc - x->c_from, n, dy, n, w + (size_t)(dq + x->c_from) * (size_t)n, n,
                     1, dx->c + x->c_from, dc);
    }
    if (dq) {
        memset(qdy, 0, (size_t)G * (size_t)n * sizeof *qdy);
        moe_vec_collect(R, n, dy, x->group, qdy);
        moe_gemm(1, 0, dq, n, G, x->q, dq, qdy, n, 1, dw, n);
        if (dx && dx->q)
            moe_gemm(0, 1, G, dq - x->q_from, n, qdy, n, w + (size_t)x->q_from * (size_t)n, n, 1,
                     dx->q + x->q_from, dq);
    }
}
