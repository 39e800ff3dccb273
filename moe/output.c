/* output.c: what a model says of a task, from its logit. Temperature and Platt calibration are not
 * here: they are folded into the weights (recalibrate.c). */
#include <math.h>
#include "moe/model_impl.h"
#include "moe/math/vec.h"

bool moe_outputs_plain(const struct moe_model *m) {
    for (int t = 0; t < m->n_tasks; t++)
        if (!moe_loss_is_probability(&m->task_loss[t]))
            return false;
    return m->calibrate_tensor < 0;
}

bool moe_outputs_good(const struct moe_model *m) {
    for (int t = 0; m->calibrate_tensor >= 0 && t < m->n_tasks; t++) {
        const float *map = moe_params_at(&m->params, m->params.v, m->calibrate_tensor, t);
        int n = map[0] >= 0 && map[0] <= MOE_KNOTS ? (int)map[0] : -1;
        if (n < 0 || (float)n != map[0])
            return false;
        for (int i = 1; i < n; i++)
            if (!(map[1 + i] > map[i] && map[1 + MOE_KNOTS + i] >= map[MOE_KNOTS + i]))
                return false;
    }
    return true;
}

/* The polyline of points (x, y); beyond its ends the slope is one. */
static float along(int n, const float *x, const float *y, float z) {
    if (z <= x[0])
        return y[0] + (z - x[0]);
    if (z >= x[n - 1])
        return y[n - 1] + (z - x[n - 1]);
    int i = 1;
    while (z > x[i])
        i++;
    return y[i - 1] + (y[i] - y[i - 1]) * ((z - x[i - 1]) / (x[i] - x[i - 1]));
}

static float mapped(const struct moe_model *m, int task, float z) {
    const float *map = m->calibrate_tensor < 0
                           ? NULL
                           : moe_params_at(&m->params, m->params.v, m->calibrate_tensor, task);
    int n = map ? (int)map[0] : 0;
    return n > 0 && !isnan(z) ? along(n, map + 1, map + 1 + MOE_KNOTS, z) : z;
}

void moe_outputs(const struct moe_model *m, int rows, const float *logits, float *out) {
    size_t T = (size_t)m->n_tasks, n = (size_t)rows * T;
    if (moe_outputs_plain(m)) {
        moe_vec_sigmoid(n, logits, out);
        return;
    }
    for (size_t t = 0; t < T; t++)
        for (size_t i = t; i < n; i += T) {
            float z = logits[i];
            if (moe_loss_is_probability(&m->task_loss[t])) {
                z = mapped(m, (int)t, z);
                moe_vec_sigmoid(1, &z, &z);
            }
            out[i] = z;
        }
}
