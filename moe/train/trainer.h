/* trainer.h: one optimizer step over some groups, by one or more workers. train.c decides which
 * groups and how often. */
#pragma once
#include <pthread.h>
#include "moe/model_impl.h"
#include "moe/train/optim.h"
#include "moe/train/task_balance.h"
#include "moe/train/train.h"

enum moe_schedule { MOE_COSINE, MOE_CONSTANT, MOE_LINEAR };
#define MOE_SCHEDULE_CHOICES "cosine|constant|linear"

struct moe_trainer;

/* A worker's copy of its share of a batch, and its gradients. */
struct moe_worker {
    struct moe_trainer *trainer;
    pthread_t thread;
    int index;
    struct moe_run *run;
    void *memory;
    struct moe_batch batch;
    float *query, *cand, *labels, *weight; /* as in struct moe_batch and moe_examples */
    uint32_t *query_ids, *cand_ids;
    int *group;
    uint64_t *key;                /* [rows] of the row's group; NULL: nobody needs it */
    float *g;                     /* [dense] */
    float *stats;                 /* [n_stats] */
    struct moe_embed_grad *embed; /* [n_tables] */
    double loss, squares;
    double task_loss[64];    /* sums over the rows, without the tasks' weights */
    double task_squares[64]; /* of the tasks' gradients where their towers begin */
};

struct moe_trainer {
    struct moe_model *m;
    const struct moe_examples *x;
    const struct moe_train_conf *conf;
    const int *first; /* [n_groups + 1] first row of each group */
    float *scale;     /* [n_tasks] weight / share of the rows in the task's sample space */
    struct moe_task_balance balance; /* factors on top of `scale` */
    struct moe_optim optim;
    struct moe_worker *workers;
    int n_workers, rows_max, groups_max;
    int64_t steps_planned;
    /* of the step at hand */
    const int *groups;
    int n_groups, n_rows;
    double rows_weight;
    float rate, clip;
    bool bad;   /* its loss or gradient is not finite: nothing moves */
    int *share; /* [n_workers + 1] bounds into groups */
    pthread_barrier_t barrier;
    bool stop;
};

/* batch_rows_max: rows of the largest batch that will come. */
void moe_trainer_init(struct moe_trainer *t, struct moe_model *m, const struct moe_examples *x,
                      const struct moe_train_conf *conf, const int *first, int batch_rows_max,
                      int group_rows_max, int64_t steps_planned);
void moe_trainer_deinit(struct moe_trainer *t);
/* Copies groups [n] of the examples together into w->batch; at most rows_max rows. */
void moe_worker_gather(struct moe_worker *w, const int *groups, int n);
/* One step over groups [n] of the examples; returns the batch's mean loss with auxiliary losses.
 * NaN: the loss or its gradient is not finite; no number, state or moment was touched then. */
double moe_trainer_step(struct moe_trainer *t, const int *groups, int n);
