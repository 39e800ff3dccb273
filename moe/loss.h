/* loss.h: binary cross-entropy over tasks. A label may be soft (0..1); NaN: the row is outside the
 * task's sample space and adds nothing. */
#pragma once
#include <stdint.h>

/* Sum over rows and tasks of scale[t] * weight[r] * bce. logits, labels, dlogits [rows x tasks];
 * weight [rows] or NULL; scale [tasks]; dlogits NULL: loss only. */
double moe_loss_bce(int rows, int tasks, const float *logits, const float *labels,
                    const float *weight, const float *scale, float *dlogits);

/* Pairwise logistic loss within runs of rows of equal key (loss_pairs.c). A pair weighs so much that
 * a run of n rows weighs scale[t] * n. key [rows]; adds to dlogits [rows x tasks] (may be NULL). */
double moe_loss_pairs(int rows, int tasks, const float *logits, const float *labels,
                      const uint64_t *key, const float *scale, float *dlogits);
