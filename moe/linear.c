/* linear.c: the one place where rows in two parts meet a weight matrix. The query part is
 * multiplied once per group and spread over the group's rows; backwards, the rows' gradients are
 * summed by group first, so the query part costs one product per group there too. Columns that come
 * from short tables are folded (fold.h). */
#include "moe/linear.h"
#include <string.h>
#include "moe/blas.h"
#include "moe/fold.h"
#include "moe/vec.h"

/* One part of the rows: a matrix, of which some columns may be folded. */
struct part {
    const float *x;                   /* [rows x d] */
    int rows, d, from;                /* from: columns before need no gradient */
    const struct moe_fold_part *fold; /* NULL: none */
    float *p;
    const int *index;
};
static struct part query_part(const struct moe_rows *x) {
    struct part p = {.x = x->q, .rows = x->n_groups, .d = x->dq, .from = x->q_from};
    if (x->fold_q)
        p.fold = &x->fold->part[0], p.p = x->fold->p, p.index = x->fold_q;
    return p;
}
static struct part cand_part(const struct moe_rows *x) {
    struct part p = {.x = x->c, .rows = x->n_rows, .d = x->dc, .from = x->c_from};
    if (x->fold_c)
        p.fold = &x->fold->part[1], p.p = x->fold->p, p.index = x->fold_c;
    return p;
}

/* The columns left to a plain product: two runs, of which either may be empty. */
static void dense_runs(const struct part *p, int run[2][2]) {
    run[0][0] = run[1][0] = run[1][1] = 0;
    run[0][1] = p->d;
    if (p->fold) {
        run[0][1] = p->fold->hot_from;
        run[1][0] = p->fold->hot_to;
        run[1][1] = p->fold->from;
    }
}

/* y [rows x n] = part * w [d x n] + beta y */
static void part_forward(const struct part *p, const float *w, int n, float beta, float *y) {
    int run[2][2];
    dense_runs(p, run);
    for (int i = 0; i < 2; i++) {
        int from = run[i][0], k = run[i][1] - from;
        if (k > 0 || (i == 0 && beta == 0))
            moe_gemm(0, 0, p->rows, n, k, p->x + from, p->d, w + (size_t)from * (size_t)n, n,
                     i ? 1 : beta, y, n);
    }
    if (p->fold)
        moe_fold_forward(p->fold, p->p, p->rows, p->index, w, n, y);
}

/* dw += part^T dy; dx += dy w^T, from column p->from on */
static void part_backward(const struct part *p, const float *w, int n, const float *dy, float *dw,
                          float *dx, float beta) {
    int run[2][2];
    dense_runs(p, run);
    for (int i = 0; i < 2; i++) {
        int from = run[i][0], to = run[i][1];
        if (to > from)
            moe_gemm(1, 0, to - from, n, p->rows, p->x + from, p->d, dy, n, 1,
                     dw + (size_t)from * (size_t)n, n);
        from = from > p->from ? from : p->from;
        if (dx && to > from)
            moe_gemm(0, 1, p->rows, to - from, n, dy, n, w + (size_t)from * (size_t)n, n, beta,
                     dx + from, p->d);
    }
    if (p->fold)
        moe_fold_backward(p->fold, p->p, p->rows, p->index, w, n, dy, dw, dx != NULL);
}

void moe_linear_forward(const struct moe_rows *x, const float *w, const float *b, int n, float *qy,
                        float *y) {
    if (x->dq) {
        if (!x->q_ready) {
            struct part q = query_part(x);
            if (b)
                moe_vec_fill_rows(x->n_groups, n, b, qy);
            part_forward(&q, w, n, b ? 1 : 0, qy);
        }
        moe_vec_spread(x->n_rows, n, qy, x->group, y);
    } else if (b) {
        moe_vec_fill_rows(x->n_rows, n, b, y);
    }
    if (x->dc || !x->dq) {
        struct part c = cand_part(x);
        part_forward(&c, w + (size_t)x->dq * (size_t)n, n, x->dq || b ? 1 : 0, y);
    }
}

void moe_linear_backward(const struct moe_rows *x, const float *w, int n, const float *dy,
                         float *qdy, float *dw, float *db, const struct moe_rows_grad *dx) {
    size_t at = (size_t)x->dq * (size_t)n;
    if (db)
        moe_vec_sum_rows(x->n_rows, n, dy, db);
    if (x->dc) {
        struct part c = cand_part(x);
        part_backward(&c, w + at, n, dy, dw + at, dx ? dx->c : NULL, dx && dx->fresh ? 0 : 1);
    }
    if (x->dq) {
        struct part q = query_part(x);
        memset(qdy, 0, (size_t)x->n_groups * (size_t)n * sizeof *qdy);
        moe_vec_collect(x->n_rows, n, dy, x->group, qdy);
        part_backward(&q, w, n, qdy, dw, dx ? dx->q : NULL, 1);
    }
}
