/* rows.h: the inputs of a level: rows in two parts. The query part stands once per group (request),
 * the candidate part once per row; a weight matrix W [(dq + dc) x n] splits the same way:
 *
 *     x W = q[group] W[0..dq) + c W[dq..dq+dc)
 *
 * so the query half of every first layer costs one product per request, in training too. Rows of
 * deeper levels have dq = 0. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct moe_fold;
struct moe_rows {
    int n_rows, n_groups;
    int dq, dc;
    const float *q;     /* [n_groups x dq] */
    const float *c;     /* [n_rows x dc] */
    const int *group;   /* [n_rows] the row's group, ascending; never NULL */
    const int *start;   /* [n_groups + 1] first row of each group; NULL for a selection of rows */
    int q_from, c_from; /* columns before these need no gradient (plain numbers) */
    /* Columns that products take from tables (fold.h); NULL: none. Then q and c hold them only if
     * something in the model reads rows other than through moe_linear_*. */
    const struct moe_fold *fold;
    const int *fold_q, *fold_c; /* [n_groups x fields of q], [n_rows x fields of c] rows of P; NULL:
                                 * this part is not folded */
    uint64_t key; /* of what stands in q and c, never used again: for who keeps something made of
                   * them; 0: none */
    bool q_ready; /* serving: products of the query part are in the scratch already */
};
static inline int moe_rows_columns(const struct moe_rows *x) { return x->dq + x->dc; }

/* Where the gradient of rows goes: added to, columns as in the rows. NULL: nobody needs it. */
struct moe_rows_grad {
    float *q;   /* [n_groups x dq] */
    float *c;   /* [n_rows x dc] */
    bool fresh; /* c is not added to but set: allowed where dq is 0 and nothing is folded */
};

/* A bump over one block of floats. base NULL: only counts. Binding a run's scratch is written
 * once and done twice: to count and to hand out. Every piece is 64-byte aligned. */
struct moe_work {
    float *base;
    size_t used; /* floats */
    /* Whoever binds many things of which one at a time is in use lends them scratch: */
    bool lends;
    float *lent;      /* NULL while counting */
    size_t lent_used; /* floats, by the present one */
};
static inline float *moe_work_take(struct moe_work *w, size_t floats) {
    float *p = w->base ? w->base + w->used : NULL;
    w->used += (floats + 15) & ~(size_t)15;
    return p;
}
/* What keeps nothing from one call to the next: may be shared with others. */
static inline float *moe_work_borrow(struct moe_work *w, size_t floats) {
    if (!w->lends)
        return moe_work_take(w, floats);
    float *p = w->lent ? w->lent + w->lent_used : NULL;
    w->lent_used += (floats + 15) & ~(size_t)15;
    return p;
}
static inline int *moe_work_take_int(struct moe_work *w, size_t n) {
    return (int *)(void *)moe_work_take(w, n);
}
static inline void *moe_work_take_bytes(struct moe_work *w, size_t bytes) {
    return moe_work_take(w, (bytes + 3) / 4);
}
