/* loss.h: losses on logits and their gradients. A label that is NaN puts the row outside the task's
 * sample space: it adds nothing.
 *
 *     bce        cross-entropy; labels 0..1, soft ones allowed
 *     focal      bce x (1 - p of the label)^gamma: hard rows count more (Lin et al., ICCV 2017)
 *     mse        (z - y)^2 / 2: the output is the number itself, not a probability
 *     huber      the same up to a difference of delta, linear beyond
 *     listwise   cross-entropy of a softmax over the rows of a group (slate) with the labels'
 * shares (ListNet, Cao et al., ICML 2007); a group of n rows weighs n pairwise   beside any of
 * them, within a user: loss_pairs.c
 *
 * A bce task t `after` a task u (ESMM, Ma et al., SIGIR 2018): its logit is that of the chance of t
 * given u, and what is learnt from is the chance of both, on all rows where u is known:
 *
 *     loss = cross-entropy of sigmoid(z_t) sigmoid(z_u) with the label y_t y_u (0 where y_u is 0)
 *
 * so rows without u teach it too, and the gradient goes to both logits. */
#pragma once
#include <stdint.h>

enum moe_loss_kind {
    MOE_LOSS_BCE,
    MOE_LOSS_FOCAL,
    MOE_LOSS_MSE,
    MOE_LOSS_HUBER,
    MOE_LOSS_LISTWISE
};
struct moe_loss_conf {
    int kind; /* enum moe_loss_kind */
    double gamma, delta, smooth;
    int after; /* bce: 1 + the task that must happen first (ESMM, below); 0: none */
};
#define MOE_LOSS_ITEMS(st, f)                                                                      \
    CONF_ENUM(st, f.kind, "loss", "bce", "bce|focal|mse|huber|listwise", "what is minimised"),     \
        CONF_FLOAT(st, f.gamma, "gamma", "2", 0, 10, NULL, "focal: how much easy rows lose"),      \
        CONF_FLOAT(st, f.delta, "delta", "1", 0, 1e6, NULL,                                        \
                   "huber: differences beyond it count linearly; 0: none do"),                     \
        CONF_FLOAT(st, f.smooth, "smooth", "0", 0, 0.5, NULL,                                      \
                   "bce, focal: labels are drawn so much towards one half (half of it each way)")

/* Whether the output is a probability: sigmoid of the logit. Else it is the logit itself. */
static inline int moe_loss_is_probability(const struct moe_loss_conf *c) {
    return c->kind != MOE_LOSS_MSE && c->kind != MOE_LOSS_HUBER;
}
/* The label of both, of a task after another: NaN where it is not known. */
float moe_loss_joint(float first, float then);
/* The labels a loss can be given. */
void moe_loss_labels(const struct moe_loss_conf *c, double *low, double *high);

/* Sum over rows and tasks of scale[t] * weight[r] * loss of t. loss [tasks], NULL: all bce. logits,
 * labels, dlogits [rows x tasks]; weight [rows] or NULL; group [rows] ascending, for listwise,
 * NULL: each row its own; scale [tasks]; dlogits NULL: loss only. each [tasks]: the sums by task
 * without scale, may be NULL. */
double moe_loss_tasks(int rows, int tasks, const struct moe_loss_conf *loss, const float *logits,
                      const float *labels, const float *weight, const int *group,
                      const float *scale, float *dlogits, double *each);

/* The same for cross-entropy alone. */
double moe_loss_bce(int rows, int tasks, const float *logits, const float *labels,
                    const float *weight, const float *scale, float *dlogits);

/* Pairwise logistic loss within runs of rows of equal key (loss_pairs.c). A pair weighs so much
 * that a run of n rows weighs scale[t] * n. key [rows]; adds to dlogits [rows x tasks] (may be
 * NULL). */
double moe_loss_pairs(int rows, int tasks, const float *logits, const float *labels,
                      const uint64_t *key, const float *scale, float *dlogits);
