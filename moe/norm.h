/* norm.h: layer normalisation of rows (Ba et al. 2016): y = g (x - mean) / sd + b, by row. */
#pragma once
#include <stddef.h>

/* y [rows x n]; keeps xhat [rows x n] and rstd [rows] for the backward pass; y == x is allowed, as
 * is y == xhat == x if no backward pass follows. */
void moe_norm_forward(int rows, int n, const float *x, const float *g, const float *b, float *xhat,
                      float *rstd, float *y);
/* dy [rows x n] becomes dx; adds to dg, db [n] */
void moe_norm_backward(int rows, int n, const float *xhat, const float *rstd, const float *g,
                       float *dy, float *dg, float *db);
