/* pass.h: what a forward or backward pass is told besides numbers. Randomness is an argument; there
 * is none in inference. */
#pragma once
#include <stdbool.h>
#include "base/rng.h"
#include "moe/batch.h"

struct moe_mute;
struct moe_pass {
    bool training;
    bool exact;      /* serving: a row's result is bit-equal whatever rows are near it */
    float dropout;   /* of hidden activations, in training */
    float share;     /* this worker's rows / the batch's rows: weighs auxiliary losses */
    float progress;  /* 0..1 of the planned steps, in training: for annealing */
    struct rng *rng; /* NULL unless training */
    const struct moe_batch *batch; /* raw ids, for gates that hash; may be NULL in tests */
    double *task_squares; /* training: [n_tasks] the backward pass adds the sum of squares of each
                           * task's gradient where its tower begins; NULL: nobody asks */
    /* Of the expert that runs, set by who runs it: its buffers, and where its backward pass adds
     * what moves them (NULL: nobody asks). NULL for kinds that have none. */
    const float *running;
    float *running_stats;
    const struct moe_mute *mute; /* an expert left out (mute.h); NULL: none */
    double aux;                  /* sum of auxiliary losses; forward passes add to it */
};

/* Sizes that a run's scratch is planned for. */
struct moe_plan {
    int rows_max, groups_max;
    bool training;   /* false: what only a backward pass needs is left out */
    int fold_fields; /* set by moe_run_bind: folded fields of a candidate */
    int fold; /* columns from short tables: 0 folded when that is cheaper, 1 always, -1 never */
};
