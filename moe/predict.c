/* predict.c: probabilities of many rows on the training path's forward. */
#include "moe/blocks.h"
#include "moe/train/train.h"

void moe_predict(const struct moe_model *m, const struct moe_examples *x, float *out) {
    struct moe_blocks b;
    for (moe_blocks_open(&b, m, x); moe_blocks_next(&b);)
        moe_outputs(m, b.batch.n_rows, b.run->logits, out + (size_t)b.row * (size_t)m->n_tasks);
    moe_blocks_close(&b);
}
