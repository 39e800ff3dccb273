/* linear.c: the one place where rows in two parts meet a weight matrix. The query part is
 * multiplied once per group and spread over the group's rows; backwards, the rows' gradients are
 * summed by group first, so the query part costs one product per group there too. Columns that come
 * from short tables are folded (fold.h). When every row is a group of its own nothing is spread or
 * collected. */
#include "moe/linear.h"
#include <assert.h>
#include <string.h>
#include "moe/math/blas.h"
#include "moe/fold.h"
#include "moe/math/train_gemm.h"
#include "moe/math/vec.h"

/* One part of the rows: a matrix, of which some columns may be folded. */
struct part {
    const float *x;                   /* [rows x d] */
    int rows, d, from;                /* from: columns before need no gradient */
    const struct moe_fold_part *fold; /* NULL: none */
    float *p;
    const int *index;
    uint64_t key;
};
static struct part query_part(const struct moe_rows *x) {
    struct part p = {.x = x->q, .rows = x->n_groups, .d = x->dq, .from = x->q_from, .key = x->key};
    if (x->fold_q)
        p.fold = &x->fold->part[0], p.p = x->fold->p, p.index = x->fold_q;
    return p;
}
static struct part cand_part(const struct moe_rows *x) {
    struct part p = {.x = x->c, .rows = x->n_rows, .d = x->dc, .from = x->c_from, .key = x->key};
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

/* y [rows x n] = part * w [d x n] + (add: y, else the bias) */
static void part_forward(const struct part *p, const float *w, const float *bias, int n, bool add,
                         float *y, const struct moe_linear_then *then) {
    int run[2][2];
    dense_runs(p, run);
    const bool announce = then && !p->fold; /* there is one run then */
    for (int i = 0; i < 2; i++) {
        int from = run[i][0], k = run[i][1] - from;
        if (k <= 0 && (i > 0 || add))
            continue;
        moe_gemm_then(&(struct moe_train_gemm){.m = p->rows,
                                               .n = n,
                                               .k = k,
                                               .a = p->x + from,
                                               .b = w + (size_t)from * (size_t)n,
                                               .c = y,
                                               .lda = p->d,
                                               .ldb = n,
                                               .ldc = n,
                                               .add = add || i > 0,
                                               .bias = i == 0 && !add ? bias : NULL,
                                               .done = announce ? then->done : NULL,
                                               .ctx = announce ? then->ctx : NULL});
    }
    if (!p->fold)
        return;
    moe_fold_forward(p->fold, p->p, p->rows, p->index, w, n, y);
    if (then)
        then->done(then->ctx, 0, p->rows, 0, n);
}

/* What one run of columns adds to dw: part^T dy. */
static struct moe_train_gemm run_grad(const struct part *p, const int run[2], int n,
                                      const float *dy, float *dw) {
    return (struct moe_train_gemm){.ta = true,
                                   .add = true,
                                   .m = run[1] - run[0],
                                   .n = n,
                                   .k = p->rows,
                                   .a = p->x + run[0],
                                   .b = dy,
                                   .c = dw + (size_t)run[0] * (size_t)n,
                                   .lda = p->d,
                                   .ldb = n,
                                   .ldc = n,
                                   .key = p->key};
}

/* dw += part^T dy (unless dw is NULL); dx += dy w^T, from column p->from on */
static void part_backward(const struct part *p, const float *w, int n, const float *dy, float *dw,
                          float *dx, float beta, const struct moe_linear_then *then) {
    int run[2][2];
    dense_runs(p, run);
    for (int i = 0; i < 2; i++) {
        int from = run[i][0], to = run[i][1];
        if (to > from && dw) {
            struct moe_train_gemm g = run_grad(p, run[i], n, dy, dw);
            moe_gemm_then(&g);
        }
        from = from > p->from ? from : p->from;
        if (dx && to > from)
            moe_gemm_then(&(struct moe_train_gemm){.tb = true,
                                                   .m = p->rows,
                                                   .n = to - from,
                                                   .k = n,
                                                   .a = dy,
                                                   .b = w + (size_t)from * (size_t)n,
                                                   .c = dx + from,
                                                   .lda = n,
                                                   .ldb = n,
                                                   .ldc = p->d,
                                                   .add = beta != 0,
                                                   .done = then ? then->done : NULL,
                                                   .ctx = then ? then->ctx : NULL});
    }
    if (p->fold)
        moe_fold_backward(p->fold, p->p, p->rows, p->index, w, n, dy, dw, dx != NULL);
}

/* Both parts of rows that are alone have the same dy: dw of both in one product. */
static void both_grads(const struct part *q, const struct part *c, int n, const float *dy,
                       float *dw) {
    struct moe_train_gemm also =
        run_grad(c, (const int[2]){0, c->d}, n, dy, dw + (size_t)q->d * (size_t)n);
    struct moe_train_gemm g = run_grad(q, (const int[2]){0, q->d}, n, dy, dw);
    g.also = &also;
    moe_gemm_then(&g);
}

/* Row r is the only one of group r, in a pass that keeps no query products for later ones. */
static bool alone(const struct moe_rows *x) {
    if (x->n_rows != x->n_groups || x->q_ready || !moe_gemm_own())
        return false;
    int wrong = 0;
    for (int r = 0; r < x->n_rows; r++)
        wrong |= x->group[r] ^ r;
    return !wrong;
}

void moe_linear_forward_then(const struct moe_rows *x, const float *w, const float *b, int n,
                             float *qy, float *y, const struct moe_linear_then *then) {
    if (x->dq) {
        const bool direct = alone(x);
        const struct moe_linear_then *now = x->dc ? NULL : then;
        if (!x->q_ready) {
            struct part q = query_part(x);
            part_forward(&q, w, b, n, false, direct ? y : qy, direct ? now : NULL);
        }
        if (!direct) {
            moe_vec_spread(x->n_rows, n, qy, x->group, y);
            if (now)
                now->done(now->ctx, 0, x->n_rows, 0, n);
        }
    }
    if (x->dc || !x->dq) {
        struct part c = cand_part(x);
        part_forward(&c, w + (size_t)x->dq * (size_t)n, b, n, x->dq > 0, y, then);
    }
}
void moe_linear_forward(const struct moe_rows *x, const float *w, const float *b, int n, float *qy,
                        float *y) {
    moe_linear_forward_then(x, w, b, n, qy, y, NULL);
}

void moe_linear_backward_then(const struct moe_rows *x, const float *w, int n, const float *dy,
                              float *qdy, float *dw, float *db, const struct moe_rows_grad *dx,
                              const struct moe_linear_then *then) {
    size_t at = (size_t)x->dq * (size_t)n;
    assert(!then || (dx && dx->fresh && !x->dq && !x->fold_c));
    if (db)
        moe_vec_sum_rows(x->n_rows, n, dy, db);
    struct part q = query_part(x), c = cand_part(x);
    const bool direct = x->dq && alone(x), both = direct && x->dc && !q.fold && !c.fold;
    if (both)
        both_grads(&q, &c, n, dy, dw);
    if (x->dc)
        part_backward(&c, w + at, n, dy, both ? NULL : dw + at, dx ? dx->c : NULL,
                      dx && dx->fresh ? 0 : 1, then);
    if (x->dq) {
        if (!direct) {
            memset(qdy, 0, (size_t)x->n_groups * (size_t)n * sizeof *qdy);
            moe_vec_collect(x->n_rows, n, dy, x->group, qdy);
        }
        part_backward(&q, w, n, direct ? dy : qdy, both ? NULL : dw, dx ? dx->q : NULL, 1, NULL);
    }
}
void moe_linear_backward(const struct moe_rows *x, const float *w, int n, const float *dy,
                         float *qdy, float *dw, float *db, const struct moe_rows_grad *dx) {
    moe_linear_backward_then(x, w, n, dy, qdy, dw, db, dx, NULL);
}
