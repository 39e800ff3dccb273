/* task_balance.h: factors on the tasks' losses that move during training, on top of their fixed
 * weights. They are kept at a mean of one, so that rates and auxiliary losses keep their meaning.
 *
 *     fixed        1
 *     uncertainty  e^-s, s learnt as a noise level (Kendall et al., CVPR 2018): a task with a large
 *                  loss counts less
 *     gradnorm     tasks push the shared part equally hard, those that learn slower than the others
 *                  harder (after Chen et al., ICML 2018; norms are taken where the towers begin,
 * and factors follow by steps instead of a gradient of their own) */
#pragma once

enum moe_balance { MOE_BALANCE_FIXED, MOE_BALANCE_UNCERTAINTY, MOE_BALANCE_GRADNORM };
#define MOE_BALANCE_CHOICES   "fixed|uncertainty|gradnorm"
#define MOE_BALANCE_TASKS_MAX 64

struct moe_task_balance {
    int kind, n;  /* enum moe_balance; tasks */
    double alpha; /* gradnorm: how much harder the slower ones push */
    double factor[MOE_BALANCE_TASKS_MAX];
    double s[MOE_BALANCE_TASKS_MAX], first[MOE_BALANCE_TASKS_MAX];
};
void moe_task_balance_init(struct moe_task_balance *b, int kind, int n, double alpha);
/* After each step. loss [n]: mean loss of each task without its factor, NaN: no rows in the batch;
 * norm [n]: of its gradient with the factor, for gradnorm. */
void moe_task_balance_step(struct moe_task_balance *b, const double *loss, const double *norm);
