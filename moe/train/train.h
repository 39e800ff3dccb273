/* train.h: fits a model to examples. Deterministic for a given seed and thread count. */
#pragma once
#include "base/arena.h"
#include "base/conf.h"
#include "moe/data/examples.h"
#include "moe/train/loss.h"
#include "moe/model.h"

struct moe_train_conf {
    int64_t epochs, batch_rows, seed, threads, patience, bad_steps_max;
    double rate, weight_decay, clip, pairwise,
        validation; /* validation: last share of the groups by time */
    double embed_rate, dropout, warmup, ema, gradnorm_alpha;
    int optimizer, schedule, balance; /* enum moe_optim_kind, moe_schedule, moe_balance */
    int precision;                    /* of products: MOE_FP32 or MOE_BF16 */
    bool prior_bias;                  /* towers start at the tasks' log-odds */
    /* every field is a line of moe_train_items */
};
extern const struct conf_item moe_train_items[];

struct moe_train_report {
    int epochs_run, best_epoch;
    int64_t bad_steps; /* skipped: their loss or gradient was not finite */
    double train_loss, validation_loss;
    double *validation_auc; /* [n_tasks] of the kept epoch, arena */
    double seconds, rows_per_s;
};

/* `spec`: the model section of the settings (map), see docs/models.md. `tasks`: names and losses
 * by the same order as the examples' labels. Errors: INVALID_ARGUMENT names the key; a loss that
 * is not finite (more often than bad_steps_max): FAILED_PRECONDITION names the epoch and batch.
 * Progress on stderr unless quiet. */
struct moe_task_spec {
    const char *name;
    double weight;
    struct moe_loss_conf loss; /* zero: cross-entropy */
    const char *esmm;          /* the task that must happen first; NULL or "": none */
};
enum status moe_train(const struct node *spec, const char *file, const struct moe_task_spec *tasks,
                      const struct moe_examples *examples, const struct moe_train_conf *conf,
                      int quiet, struct arena *a, struct moe_train_report *report,
                      struct moe_model **out);

/* Probabilities (or numbers, of tasks with such a loss) of all rows on the training path's forward.
 * out [n_rows x n_tasks]. */
void moe_predict(const struct moe_model *m, const struct moe_examples *examples, float *out);
/* The same of the rows from this group's first on, whose number is returned: out's first row. */
int moe_predict_from(const struct moe_model *m, const struct moe_examples *examples, int group,
                     float *out);
