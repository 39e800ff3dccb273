/* loss.h: binary cross-entropy over tasks. A label may be soft (0..1); NaN: the row is outside the
 * task's sample space and adds nothing. */
#pragma once

/* Sum over rows and tasks of scale[t] * weight[r] * bce. logits, labels, dlogits [rows x tasks];
 * weight [rows] or NULL; scale [tasks]; dlogits NULL: loss only. */
double moe_loss_bce(int rows, int tasks, const float *logits, const float *labels,
                    const float *weight, const float *scale, float *dlogits);
