/* recalibrate.h: probabilities that mean what they say: a map of each task's logit, fitted on
 * validation rows after training and kept with the model.
 *
 *     temperature  a z                  (Guo et al., ICML 2017)
 *     platt        a z + b              (Platt 1999)
 *     platt_all    a z + b, a as platt's, b by the count of all rows, training rows too
 *     isotonic     increasing polyline  (pool adjacent violators), at most MOE_KNOTS points
 *
 * The first three are folded into the last layer of the task's tower (and the wide part), so that
 * every way of scoring has them for nothing. The last is an output map (output.c). None changes
 * the order of rows. */
#pragma once
#include "moe/model_impl.h"

/* Fits a > 0 (and b, if with_bias; else 0) to minimise the weighted cross-entropy of a z + b. z, y
 * [n]; weight [n] or NULL; NaN labels are left out. False: there is nothing to fit (one class), a
 * and b are 1 and 0 then. */
bool moe_fit_platt(int n, const float *z, const float *y, const float *weight, bool with_bias,
                   double *a, double *b);
/* Points (x, logit), both increasing; returns how many, 0: nothing to fit. x, logit [MOE_KNOTS] */
int moe_fit_isotonic(int n, const float *z, const float *y, const float *weight, float *x,
                     float *logit);
/* The b at which the mean of a z + b's probabilities is the rate of y. As above; false: one class.
 */
bool moe_fit_level(int n, const float *z, const float *y, const float *weight, double a, double *b);
/* By m->calibrate, for every task whose output is a probability. The first n rows are validation
 * rows; those behind them, up to n_all, are training rows, for platt_all only. logits, labels
 * [n_all x n_tasks]; weight [n_all] or NULL. */
void moe_recalibrate(struct moe_model *m, int n, int n_all, const float *logits,
                     const float *labels, const float *weight);
