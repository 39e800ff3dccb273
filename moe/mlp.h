/* mlp.h: a multi-layer perceptron over rows: the body of experts and towers.
 *
 *     a_0 = x;  z_i = a_i W_i + b_i;  a_{i+1} = act(z_i)
 *
 * The last layer has the activation only if act_last says so; dropout follows every activation. */
#pragma once
#include "moe/params.h"
#include "moe/pass.h"
#include "moe/rows.h"
#include "moe/math/vec.h"

#define MOE_MLP_LAYERS_MAX 8

struct moe_mlp {
    int n_layers;
    int width[MOE_MLP_LAYERS_MAX + 1]; /* width[0]: input columns; width[n_layers]: output */
    enum moe_act act;
    bool act_last;
    /* of layer i, floats from the run's start: W [width[i] x width[i + 1]], b [width[i + 1]] */
    size_t w[MOE_MLP_LAYERS_MAX], b[MOE_MLP_LAYERS_MAX];
    /* Batch normalisation of what has the activation (moe_mlp_add_norm); b is then its shift: */
    bool norm;
    size_t gain[MOE_MLP_LAYERS_MAX];                          /* floats from the run's start */
    size_t mean[MOE_MLP_LAYERS_MAX], var[MOE_MLP_LAYERS_MAX]; /* from the buffers' start */
    size_t sums[MOE_MLP_LAYERS_MAX];                          /* from the statistics' start */
};
/* Declares the fields w0, b0, w1, ... in `l` and fills *m. hidden [n_hidden]. */
void moe_mlp_declare(struct moe_mlp *m, struct moe_layout *l, int in, const int *hidden,
                     int n_hidden, int out, enum moe_act act, bool act_last);

/* Declares the fields gain0, .. in `l` and mean0, var0, .. in `buffers`; *n_stats: the floats of
 * pass->running_stats. Passes then need pass->running. */
void moe_mlp_add_norm(struct moe_mlp *m, struct moe_layout *l, struct moe_layout *buffers,
                      int *n_stats);
/* Moves the running statistics by the sum of all workers' (batch_norm.h). */
void moe_mlp_after_step(const struct moe_mlp *m, const float *stats, float *buffers);
/* The run without normalisation that gives what (w, running) give in inference: to [floats of the
 * run], whose gains are left out. */
void moe_mlp_fold(const struct moe_mlp *m, const float *w, const float *running, float *to);

struct moe_mlp_saved;
/* dq: columns of the input's query part. */
struct moe_mlp_saved *moe_mlp_bind(const struct moe_mlp *m, int dq, const struct moe_plan *plan,
                                   struct moe_work *work);
/* y [n_rows x out]; w: the run. */
void moe_mlp_forward(const struct moe_mlp *m, const float *w, const struct moe_rows *x,
                     struct moe_mlp_saved *s, struct moe_pass *pass, float *y);
/* dy [n_rows x out] is overwritten; adds to dw (as the run) and dx (NULL: none). y as forward left
 * it. */
void moe_mlp_backward(const struct moe_mlp *m, const float *w, const struct moe_rows *x,
                      struct moe_mlp_saved *s, const struct moe_pass *pass, const float *y,
                      float *dy, float *dw, const struct moe_rows_grad *dx);
double moe_mlp_flop(const struct moe_mlp *m, int dq); /* per row, forward, query part excluded */
