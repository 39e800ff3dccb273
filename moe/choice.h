/* choice.h: for gates that choose k experts for a row: picking, group limits, capacity limits.
 *
 *   groups    experts stand in equal groups; only the `groups_kept` groups with the greatest sum of
 *             their best k / groups_kept scores take part (DeepSeek-V2, V3; Megatron's code)
 *   capacity  an expert takes at most ceil(capacity * k * rows / n) rows. First choices come before
 *             second ones; within a rank the rows' order decides, or their first choice's weight
 *             (`priority: weight`, V-MoE's BPR). Whoever comes too late loses that weight, without
 *             renormalising. `training`: counted over the rows of the pass; `always`: over each
 *             request's rows, in serving too, so that a row's score depends on its rivals.
 *
 * Ties go to the lower index, so equal inputs make equal choices. */
#pragma once
#include "base/conf.h"
#include "moe/gate.h"

#define MOE_K_ITEM(st, f, dflt, lo)                                                                \
    CONF_INT(st, f, "k", dflt, lo, 512, "experts", "experts a row is given")
#define MOE_SCALE_ITEM(st, f)                                                                      \
    CONF_FLOAT(st, f, "scale", "1", 0.001, 1000, NULL, "the weights are multiplied by it")
#define MOE_ORDER_ITEM(st, f)                                                                      \
    CONF_ENUM(st, f, "order", "softmax_topk", "softmax_topk|topk_softmax",                         \
              "softmax over all experts and then the choice, or over the chosen only")
#define MOE_RENORMALISE_ITEM(st, f, dflt)                                                          \
    CONF_BOOL(st, f, "renormalise", dflt, "the chosen weights sum to 1")

enum moe_capacity_in { MOE_CAPACITY_TRAINING, MOE_CAPACITY_ALWAYS };
enum moe_priority { MOE_PRIORITY_ORDER, MOE_PRIORITY_WEIGHT };

struct moe_capacity_conf {
    double factor;
    int in, priority;
};
#define MOE_CAPACITY_ITEMS(st, f)                                                                  \
    CONF_FLOAT(st, f.factor, "capacity", "0", 0, 1000, NULL,                                       \
               "an expert takes at most this times its fair share of rows; 0: no limit"),          \
        CONF_ENUM(st, f.in, "capacity_in", "training", "training|always",                          \
                  "always: in serving too, counted by request; scores then depend on the slate"),  \
        CONF_ENUM(st, f.priority, "priority", "order", "order|weight",                             \
                  "who comes first under a capacity limit")

struct moe_groups_conf {
    int64_t n, kept;
};
#define MOE_GROUPS_ITEMS(st, f)                                                                    \
    CONF_INT(st, f.n, "groups", "0", 0, 256, "groups", "groups of experts; 0: no group limit"),    \
        CONF_INT(st, f.kept, "groups_kept", "1", 1, 256, "groups", "groups a row may choose from")

/* Room for picking; scratch only, in a gate's saved struct. */
struct moe_choice {
    int *pick;       /* [rows x k] best first */
    float *score;    /* [n] of a row, groups masked */
    int *group_pick; /* [n] */
    float *count;    /* [n] */
    uint64_t *order; /* [rows] of a capacity scope */
};

/* k, but not more than there are experts. */
static inline int moe_choice_k(int64_t k, int n) { return k < n ? (int)k : n; }
enum status moe_groups_check(const struct moe_groups_conf *c, int k, int n,
                             struct conf_place place);
void moe_capacity_shape(struct moe_gate *g, const struct moe_capacity_conf *c);
void moe_choice_bind(int k, int n, const struct moe_plan *plan, struct moe_work *work,
                     struct moe_choice *s);

/* One past the last row of the request that row `from` begins. */
static inline int moe_rows_group_end(const struct moe_rows *x, int from) {
    int to = from + 1;
    while (to < x->n_rows && x->group[to] == x->group[from])
        to++;
    return to;
}
void moe_sort_keys(uint64_t *v, int n); /* ascending, in place */
/* pick [k]: indices of the k greatest of score [n], best first. k <= n. */
void moe_top(int k, int n, const float *score, int *pick);
/* s->pick for all rows; score [rows x n]. groups NULL or groups->n 0: no limit. */
void moe_choice_pick(const struct moe_groups_conf *groups, int rows, int k, int n,
                     const float *score, struct moe_choice *s);
/* v [k]: softmax of the logits h [n] at pick [k] (best first); the withheld get 0. */
void moe_choice_softmax(int k, const float *h, const int *pick, float *v);
/* Zeroes entries of w [rows x n] over capacity. s->pick [rows x picked], of which the first k of a
 * row count. */
void moe_choice_limit(const struct moe_capacity_conf *c, const struct moe_rows *x, bool training,
                      int k, int picked, int n, struct moe_choice *s, float *w);
