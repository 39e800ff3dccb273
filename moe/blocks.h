/* blocks.h: a model run over many examples on the training path's forward, a block of whole groups
 * at a time:
 *
 *     struct moe_blocks b;
 *     for (moe_blocks_open(&b, m, x); moe_blocks_next(&b);)
 *         ... b.run->logits of b.batch.n_rows rows, the first of which is row b.row of x
 *     moe_blocks_close(&b);
 *
 * One thread. `x` and `m` are borrowed. */
#pragma once
#include "moe/data/examples.h"
#include "moe/model_impl.h"

struct moe_blocks {
    const struct moe_model *m;
    const struct moe_examples *x;
    struct moe_plan plan;
    float *memory;
    float *cand; /* [rows_max x cand_columns] of the block, where examples hold them compact */
    struct moe_run *run;
    struct moe_batch batch;
    struct moe_pass pass;
    int row; /* of batch's first row in x */
    int next_row, next_group;
};
/* May be given another plan.fold, pass.mute, or next_group with next_row, its first, before the
 * first block. */
void moe_blocks_open(struct moe_blocks *b, const struct moe_model *m, const struct moe_examples *x);
bool moe_blocks_next(struct moe_blocks *b); /* false: no more rows */
void moe_blocks_close(struct moe_blocks *b);
