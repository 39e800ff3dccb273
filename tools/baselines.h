/* baselines.h: what a model has to beat: the same rows scored by an item's popularity and by its
 * smoothed rate of each task so far. They are features like any other, from a plan of their own,
 * seen at the same moments. */
#pragma once
#include "ranker/config.h"
#include "ranker/labels.h"

struct baselines {
    struct feat_plan *plan;
    struct moe_inputs inputs;
    struct feat_state *state;
    struct rk_labels *labels;
    struct moe_examples *examples; /* after finish: cand [n_rows x 1 + n_tasks] */
    int *columns;                  /* [n_tasks + 1] of the rates, then of popularity */
    int n_tasks;
};

/* `a` must outlive it. seed: as of the labels whose rows are compared. */
enum status baselines_init(struct baselines *b, const struct rk_config *c,
                           const struct rk_tasks *tasks, uint64_t seed, struct arena *a);
void baselines_deinit(struct baselines *b);
/* With each event, just before it is applied to the model's state. */
void baselines_event(struct baselines *b, const struct ev_event *e);
/* INTERNAL when the rows are not those of `x`. */
enum status baselines_finish(struct baselines *b, const struct moe_examples *x);
/* Interactions with the row's item so far; -1 where the item is unknown. */
float baselines_popularity(const struct baselines *b, int row);
float baselines_rate(const struct baselines *b, int row, int task);
