/* predict.c: probabilities of many rows on the training path's forward. */
#include "moe/blocks.h"
#include "moe/train/train.h"

int moe_predict_from(const struct moe_model *m, const struct moe_examples *x, int group,
                     float *out) {
    struct moe_blocks b;
    struct moe_batch none;
    const int first = moe_examples_view(x, group, 0, &none);
    moe_blocks_open(&b, m, x);
    b.next_group = group;
    b.next_row = first;
    while (moe_blocks_next(&b))
        moe_outputs(m, b.batch.n_rows, b.run->logits,
                    out + (size_t)(b.row - first) * (size_t)m->n_tasks);
    moe_blocks_close(&b);
    return first;
}

void moe_predict(const struct moe_model *m, const struct moe_examples *x, float *out) {
    moe_predict_from(m, x, 0, out);
}
