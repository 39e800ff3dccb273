/* output.c: what a model says of a task, from its logit. Temperature and Platt calibration are not
 * here: they are folded into the weights (recalibrate.c). */
#include "moe/model_impl.h"
#include "moe/vec.h"

bool moe_outputs_plain(const struct moe_model *m) {
    for (int t = 0; t < m->n_tasks; t++)
        if (!moe_loss_is_probability(&m->task_loss[t]))
            return false;
    return true;
}

void moe_outputs(const struct moe_model *m, int rows, const float *logits, float *out) {
    size_t T = (size_t)m->n_tasks, n = (size_t)rows * T;
    if (moe_outputs_plain(m)) {
        moe_vec_sigmoid(n, logits, out);
        return;
    }
    for (size_t t = 0; t < T; t++)
        for (size_t i = t; i < n; i += T)
            if (moe_loss_is_probability(&m->task_loss[t]))
                moe_vec_sigmoid(1, logits + i, out + i);
            else
                out[i] = logits[i];
}
