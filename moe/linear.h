/* linear.h: y = x W + b over rows in two parts, and its gradient. */
#pragma once
#include "moe/rows.h"

/* y [n_rows x n]; w [(dq + dc) x n]; b [n] or NULL; qy [n_groups x n]: scratch that keeps the query
 * part's product (not read or written when dq is 0). */
void moe_linear_forward(const struct moe_rows *x, const float *w, const float *b, int n, float *qy,
                        float *y);
/* Adds to dw [(dq + dc) x n], db [n] (NULL: none) and dx (NULL: none). dy [n_rows x n] is kept.
 * qdy [n_groups x n]: scratch, not read or written when dq is 0. */
void moe_linear_backward(const struct moe_rows *x, const float *w, int n, const float *dy,
                         float *qdy, float *dw, float *db, const struct moe_rows_grad *dx);
/* What else is done to a product's rows while they are in the nearest cache: called for pieces
 * [row, row + rows) x [col, col + cols) that are final, each element once, for given columns in the
 * order of rows. */
struct moe_linear_then {
    void (*done)(void *ctx, int row, int rows, int col, int cols);
    void *ctx;
};
/* then: of y; NULL: nothing */
void moe_linear_forward_then(const struct moe_rows *x, const float *w, const float *b, int n,
                             float *qy, float *y, const struct moe_linear_then *then);
/* then: of dx->c, which is fresh: only where x is without query part and not folded. db NULL: the
 * caller sums it itself. */
void moe_linear_backward_then(const struct moe_rows *x, const float *w, int n, const float *dy,
                              float *qdy, float *dw, float *db, const struct moe_rows_grad *dx,
                              const struct moe_linear_then *then);
/* Floats of qy or qdy. */
static inline size_t moe_linear_scratch(int groups_max, int dq, int n) {
    return dq ? (size_t)groups_max * (size_t)n : 0;
}
