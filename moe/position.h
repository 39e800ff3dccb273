/* position.h: a tower for what made an item be seen, not wanted: its place in the list, the device,
 * the surface (PAL, Guo et al., RecSys 2019; the shallow tower of Zhao et al., RecSys 2019). Its
 * inputs are taken out of the network, and in training only
 *
 *     logit_t += b_t(e(position)) - b_t(0),    e = [log(1 + |x|), 1 / (1 + |x|), 1] of each input
 *
 * A missing input is e = 0, as is every input of a row with probability `dropout`, so that the
 * network alone must do then, too. Serving knows no position and adds nothing: the tower's
 * constant, which is zero. So no scorer need know of it.
 *
 * Such a sum is identified only as far as the same things were shown at different places: keep a
 * small share of randomised lists. Only columns, no ids. */
#pragma once
#include "moe/layer.h"
#include "moe/mlp.h"

struct moe_model;
struct moe_position {
    int n;              /* inputs; 0: there is no such tower */
    bool *in_query;     /* [n] */
    int *column;        /* [n] in its part of the batch */
    struct moe_mlp mlp; /* [3 n] -> [n_tasks] */
    double dropout;
    int tensor;
};
extern const struct conf_item moe_position_items[]; /* for documentation */

/* While a model is built: takes the inputs of the spec's `position` out of the encoders, before the
 * network's width is known; then writes the settings to b->json and declares the tower.
 * INVALID_ARGUMENT. */
enum status moe_position_take(struct moe_model *m, const struct node *spec, const char *file);
enum status moe_position_declare(struct moe_model *m, struct moe_build *b, const struct node *spec);

struct moe_position_state;
/* For a training plan; NULL while counting. */
struct moe_position_state *moe_position_bind(const struct moe_model *m, const struct moe_plan *plan,
                                             struct moe_work *work);
/* Adds to logits [rows x n_tasks]; only if pass->training. */
void moe_position_forward(const struct moe_model *m, const struct moe_numbers *n,
                          const struct moe_batch *b, struct moe_position_state *s,
                          struct moe_pass *pass, float *logits);
/* From dlogits [rows x n_tasks]; adds to n->g. */
void moe_position_backward(const struct moe_model *m, const struct moe_numbers *n, int rows,
                           struct moe_position_state *s, const struct moe_pass *pass,
                           const float *dlogits);
