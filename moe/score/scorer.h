/* scorer.h: a model made ready to serve: weights packed for this CPU, sizes planned. A scorer is
 * immutable and shared by all workers; each worker brings its own scratch. Scoring allocates
 * nothing and cannot fail. */
#pragma once
#include "moe/model.h"

enum moe_precision { MOE_FP32, MOE_BF16, MOE_INT8 };

struct moe_scorer_conf {
    enum moe_precision precision;
    int rows_max; /* largest request */
    /* Keeps the candidate half of the first layers by item, in at most so many bytes; 0: no. Where
     * a model's shape does not allow it, it is logged and left out. */
    size_t cache_bytes;
};

struct moe_scorer;
/* `m` must outlive the scorer. UNIMPLEMENTED when this CPU lacks what the precision needs. */
enum status moe_scorer_new(const struct moe_model *m, const struct moe_scorer_conf *conf,
                           struct moe_scorer **out);
void moe_scorer_free(struct moe_scorer *s);
size_t moe_scorer_scratch_bytes(const struct moe_scorer *s);
/* Probabilities of one request: b->n_groups must be 1, n_rows <= rows_max. scratch: 64-byte
 * aligned. probabilities [n_tasks x n_rows]. A row's result is bit-equal whatever other rows are
 * in the batch and wherever it stands, unless moe_model_mixes_rows. */
void moe_scorer_score(const struct moe_scorer *s, const struct moe_batch *b, void *scratch,
                      float *probabilities);
const char *moe_scorer_path(const struct moe_scorer *s); /* "avx512-fp32", "reference-fp32", ... */
struct moe_item_cache;
/* The item halves it keeps (item_cache.h); NULL: none. */
const struct moe_item_cache *moe_scorer_cache(const struct moe_scorer *s);

/* Gate weights of one row of the request: weights [n_experts] of gate `gate`. Names live as long
 * as the model. Not a hot path; computed on the reference path. */
int moe_explain_gates(const struct moe_model *m);
const char *moe_explain_gate_name(const struct moe_model *m, int gate);
int moe_explain_experts(const struct moe_model *m, int gate);
const char *moe_explain_expert_name(const struct moe_model *m, int gate, int expert);
enum status moe_explain(const struct moe_model *m, const struct moe_batch *b, int row, int gate,
                        float *weights);
