/* scorer_path.h: ways to score a request. A way is one file and one line in scorers.def; the first
 * of the table that takes the model wins, or the one that MOERANK_SCORER names. All functions as
 * scorer.h says: score allocates nothing and cannot fail. */
#pragma once
#include "moe/score/scorer.h"

struct moe_scorer_path_ops {
    const char *name; /* for MOERANK_SCORER */
    int any_output;   /* knows outputs that are not the sigmoid of their logit */
    /* UNIMPLEMENTED: this model, precision or CPU is not covered, ask the next one. */
    enum status (*open)(const struct moe_model *m, const struct moe_scorer_conf *conf, void **out);
    void (*close)(void *state);
    const char *(*label)(const void *state); /* "avx512-bf16" */
    size_t (*scratch_bytes)(const void *state);
    void (*score)(const void *state, const struct moe_batch *b, void *scratch,
                  float *probabilities);
    const struct moe_item_cache *(*cache)(const void *state); /* NULL: this way keeps nothing */
};

#define SCORER_PATH(name) extern const struct moe_scorer_path_ops moe_scorer_path_##name;
#include "moe/score/scorers.def"
#undef SCORER_PATH
extern const struct moe_scorer_path_ops *const moe_scorer_paths[]; /* NULL-ended */
