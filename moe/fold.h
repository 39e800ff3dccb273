/* fold.h: products with input columns that come from tables. A batch of R rows has R x F ids, but
 * only a few hundred different ones: instead of multiplying each row's embedding,
 *
 *     x W = dense columns W  +  sum over fields f of P_f[id_f],      P_f = table_f W[columns of f]
 *
 * the small P is made once and its rows are added up. Backwards, rows of dy are added into dP, and
 * table and W get theirs from it. One-hot numbers are fields whose table is the identity: P_f is W.
 * Piecewise linear ones are 1 up to a bin, a share in it and 0 beyond: a row of W's running sums,
 * and the bin's row of W times the share.
 * Exact up to rounding. Worth it when tables are shorter than the batch; only fields of one slot.
 */
#pragma once
#include <stdbool.h>
#include "moe/rows.h"

#define MOE_FOLD_BLOCK 64 /* columns of W at a time, so that P stays in the cache */

#define MOE_FOLD_SUMS (-1) /* a field's dim: entry b stands for its first b columns together */

struct moe_fold_field {
    int col, dim;       /* columns in its part; dim 0: one-hot of `rows` columns; MOE_FOLD_SUMS */
    int rows, at;       /* rows of the table, and the first of them in P */
    const float *table; /* [rows x dim] */
    float *dtable;      /* [rows x dim], backward */
};
struct moe_fold_part {
    int n;                        /* fields; each row has so many entries, */
    int n_shares;                 /* so many columns of this part, and their shares as floats */
    int hot_from, hot_to;         /* columns of the fields that are no embeddings, and of shares */
    int from;                     /* columns from here on are those of the embedded fields */
    int p_rows;                   /* of P; the last is zero: an absent entry */
    struct moe_fold_field *field; /* [n] */
};
struct moe_fold {
    struct moe_fold_part part[2]; /* query, candidate */
    float *p;                     /* [max p_rows x MOE_FOLD_BLOCK] scratch */
};

/* Numbers that a row has in `index`. */
static inline int moe_fold_stride(const struct moe_fold_part *part) {
    return part->n + 2 * part->n_shares;
}
/* y [n_rows x n] += the folded columns' product; index [n_rows x stride]; w [columns x n] */
void moe_fold_forward(const struct moe_fold_part *part, float *p, int n_rows, const int *index,
                      const float *w, int n, float *y);
/* Adds to dw [columns x n] and, if `tables`, to the fields' dtable. */
void moe_fold_backward(const struct moe_fold_part *part, float *p, int n_rows, const int *index,
                       const float *w, int n, const float *dy, float *dw, bool tables);
