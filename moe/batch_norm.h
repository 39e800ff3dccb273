/* batch_norm.h: batch normalisation of columns (Ioffe & Szegedy, ICML 2015):
 *
 *     y = g (x - mean) / sqrt(var + eps) + b
 *
 * with mean and variance of the batch in training, of what training saw in inference: then it is a
 * scale and a shift by column, which folds into the product before it. No state, no memory. */
#pragma once
#include <stddef.h>

/* Of the columns of x [rows x n], biased: mean, var [n]. rows > 0 */
void moe_batch_stats(int rows, int n, const float *x, float *mean, float *var);
/* rstd [n] = 1 / sqrt(var + eps) */
void moe_batch_rstd(int n, const float *var, float *rstd);
/* x [rows x n] becomes xhat, y [rows x n] = g xhat + b; y == x is not allowed */
void moe_batch_normalise(int rows, int n, const float *mean, const float *rstd, const float *g,
                         const float *b, float *x, float *y);
/* dy [rows x n] becomes dx; adds to dg, db [n]. own: mean and variance were of these rows and have
 * a gradient; else they were given. sums [2 x n]: scratch */
void moe_batch_norm_backward(int rows, int n, int own, const float *xhat, const float *rstd,
                             const float *g, float *sums, float *dy, float *dg, float *db);
/* The same as a scale and a shift: y = x scale + shift, all [n]. */
void moe_batch_norm_linear(int n, const float *g, const float *b, const float *mean,
                           const float *var, float *scale, float *shift);
/* y = x scale + shift for columns [0, n) of one row; y == x is allowed */
void moe_batch_norm_row(int n, const float *scale, const float *shift, const float *x, float *y);

/* What after_step needs of all workers' rows, as one run of floats that are added up: the rows,
 * then by column the distance of their mean from the running one, then their mean square from
 * there. */
static inline size_t moe_batch_sums_floats(int n) { return 1 + 2 * (size_t)n; }
void moe_batch_sums_add(int rows, int n, const float *mean, const float *var, const float *running,
                        float *sums);
/* running, running_var [n] move by a tenth towards what sums [moe_batch_sums_floats(n)] say;
 * fewer than two rows say nothing. */
void moe_batch_running_move(int n, const float *sums, float *running, float *running_var);
