/* optim.h: gradient to step. The dense part is one loop over a flat block; of embeddings only the
 * touched rows move, with moments and a step count of their own (a row's first step is as bold as
 * a weight's first). */
#pragma once
#include "moe/embed.h"
#include "moe/params.h"

enum moe_optim_kind { MOE_ADAMW, MOE_ADAM, MOE_SGD };
#define MOE_OPTIM_CHOICES "adamw|adam|sgd"

/* A run of the dense part; matrices decay, biases do not. */
struct moe_optim_run {
    size_t at, n;
    int decays;
};
struct moe_optim {
    enum moe_optim_kind kind;
    float beta1, beta2, eps, weight_decay;
    int64_t step;        /* of the dense part */
    float *m, *v;        /* [dense + tables] moments, layout of the parameters */
    uint32_t **row_step; /* [n_tables][rows] */
    const int *table_tensor;
    int n_tables, n_runs;
    struct moe_optim_run *runs;
};
/* Adam's usual constants; p is placed. */
void moe_optim_init(struct moe_optim *o, enum moe_optim_kind kind, float weight_decay,
                    const struct moe_params *p, const int *table_tensor, int n_tables);
void moe_optim_deinit(struct moe_optim *o);
/* Counts a step; then any number of slices and tables, by any threads, each once. */
void moe_optim_begin(struct moe_optim *o);
/* Floats [from, to) of the dense part; the gradient is scaled by `clip` first. */
void moe_optim_dense(const struct moe_optim *o, const struct moe_params *p, float *values,
                     const float *g, size_t from, size_t to, float rate, float clip);
void moe_optim_table(const struct moe_optim *o, const struct moe_params *p, float *values,
                     int table, const struct moe_embed_grad *g, float rate, float clip);
