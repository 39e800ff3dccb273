/* grads.h: which task's loss moves which expert: the gradient of each task's mean loss by each
 * expert's numbers, on a probe of rows. A task that cannot reach its experts, an expert that
 * nothing moves, and tasks that pull an expert apart are seen here before they are seen in an AUC.
 * Costs a forward pass and a backward pass a task over the probe; not for the hot path. */
#pragma once
#include "moe/data/examples.h"
#include "moe/model.h"

struct moe_task_grads {
    int n_tasks, n_experts; /* experts of all levels, in order */
    double *norm;   /* [n_experts x n_tasks] norm of the task's gradient; NaN: it has no numbers */
    double *cosine; /* [n_experts x n_tasks x n_tasks] of tasks; NaN: one has no gradient */
};
/* Without auxiliary losses and dropout; gates that draw noise draw the same for all tasks. Batch
 * norms take the probe's statistics. */
void moe_task_grads_new(const struct moe_model *m, const struct moe_examples *x,
                        struct moe_task_grads **out);
void moe_task_grads_free(struct moe_task_grads *g);
