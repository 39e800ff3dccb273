/* attend.h: target attention over a list of ids (Deep Interest Network, Zhou et al., KDD 2018):
 * what a user did last, weighed by how well each of it goes with the candidate.
 *
 *     u_r = sum_s a_rs h_s,    a_r = softmax over the list's non-zero ids of c_r' W h_s / sqrt(d)
 *
 * h_s: embeddings of the list, once a request; c_r: the candidate's; both of the same width d. u_r
 * stands in the candidate part of the network's input beside the pooled embeddings, which stay. W
 * starts at zero: the mean of the list, from which training departs. An empty list gives zeros. The
 * paper scores by a perceptron over (h, c, h - c) and does not normalise; a bilinear form is one
 * product a request and one a row, and a softmax keeps long and short lists apart from the scale.
 *
 * On the reference path only: packed scoring hands models with it over. */
#pragma once
#include "moe/embed.h"
#include "moe/layer.h"

struct moe_model;
struct moe_batch;
struct moe_run;

struct moe_attend_one {
    int slot, n_slots, list_table; /* the list: query ids */
    int item_slot, item_table;     /* the candidate's id */
    int dim, at;                   /* columns [at, at + dim) of the candidate part */
    int tensor;                    /* W [dim x dim] */
};
struct moe_attend {
    int n;
    struct moe_attend_one *one; /* [n] */
};
extern const struct conf_item moe_attend_items[]; /* for documentation */

/* While a model is built: finds the inputs of the spec's `attention`, before the width of the
 * candidate part is known; gives them columns from `at` on (returns the next free one); writes the
 * settings to b->json and declares W. INVALID_ARGUMENT. */
enum status moe_attend_take(struct moe_model *m, const struct node *spec, const char *file);
int moe_attend_place(struct moe_model *m, int at);
enum status moe_attend_declare(struct moe_model *m, struct moe_build *b, const struct node *spec);

struct moe_attend_state;
struct moe_attend_state *moe_attend_bind(const struct moe_model *m, const struct moe_plan *plan,
                                         struct moe_work *work);
/* Fills its columns of the candidate part x [rows x part]; groups of rows as in r->group. */
void moe_attend_forward(const struct moe_model *m, const struct moe_numbers *n,
                        const struct moe_batch *b, const int *group, struct moe_attend_state *s,
                        float *x);
/* From dx [rows x part]; adds to n->g and grads [n_tables]. */
void moe_attend_backward(const struct moe_model *m, const struct moe_numbers *n,
                         const struct moe_batch *b, const int *group, struct moe_attend_state *s,
                         const float *dx, struct moe_embed_grad *grads);
