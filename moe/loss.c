/* loss.c: cross-entropy on logits, in the form that cannot overflow: max(z, 0) - y z + log(1 + e^-|z|).
 * The sum is in double; the caller's scale holds task weights and normalisers. */
#include "moe/loss.h"
#include <math.h>
#include <stddef.h>

double moe_loss_bce(int rows, int tasks, const float *logits, const float *labels,
                    const float *weight, const float *scale, float *dlogits) {
    double sum = 0;
    for (int r = 0; r < rows; r++)
        for (int t = 0; t < tasks; t++) {
            size_t i = (size_t)r * (size_t)tasks + (size_t)t;
            float z = logits[i], y = labels[i], w = scale[t] * (weight ? weight[r] : 1);
            if (isnan(y)) {
                if (dlogits)
                    dlogits[i] = 0;
                continue;
            }
            float e = expf(-fabsf(z));
            sum += (double)w * ((double)fmaxf(z, 0) - (double)y * (double)z + (double)log1pf(e));
            if (isnan(z))
                sum = NAN; /* fmaxf hides it */
            if (dlogits)
                dlogits[i] = w * ((z >= 0 ? 1 / (1 + e) : e / (1 + e)) - y);
        }
    return sum;
}
