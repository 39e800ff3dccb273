/* training.h: what moe_train keeps while it runs, for its three files: train_data.c (splits,
 * encoders, normalisers), train_held.c (validation) and train.c (epochs). */
#pragma once
#include "base/progress.h"
#include "moe/train/trainer.h"

/* All that moe_train keeps while it runs. */
struct moe_training {
    const struct moe_examples *x;
    const struct moe_train_conf *conf;
    int *first;        /* [n_groups + 1] first row of each group */
    int *train, *held; /* groups */
    int *user;         /* [n_groups] number of the group's key, when rows of a user go together */
    int n_users;
    int n_train, n_held, train_rows, held_rows, group_rows_max;
    struct moe_model *m;
    struct moe_trainer trainer;
    float *ema;    /* [dense + tables] or NULL */
    float *best;   /* [all floats] of the kept epoch */
    float *held_p; /* [held_rows x n_tasks] logits of the validation rows */
    float *held_y, *held_w;
    int *held_group;
    struct progress progress;
    double *auc; /* [n_tasks] */
};

/* Groups with rows, cut by time into training and validation. */
enum status moe_training_split(struct moe_training *t);
/* Fits the encoders, builds the model and draws its numbers. */
enum status moe_training_model(struct moe_training *t, const struct node *spec, const char *file,
                               const struct moe_task_spec *tasks, struct arena *a);
/* Normalisers and priors of the tasks; the trainer is ready. */
void moe_training_weigh(struct moe_training *t);

/* Where there are trees' numbers among the inputs, the wide part starts with them; after the above.
 */
void moe_training_start(struct moe_training *t);

void moe_training_keep_held(struct moe_training *t);
/* Logits of the rows of some groups at values v: out [rows x n_tasks]. By worker 0's scratch. */
void moe_training_logits(struct moe_training *t, const float *v, const int *groups, int n,
                         float *out);
/* Logits of the validation rows at values v: t->held_p. */
void moe_training_predict(struct moe_training *t, const float *v);
/* Loss of the validation rows at values v; sets t->auc. */
double moe_training_validate(struct moe_training *t, const float *v);
