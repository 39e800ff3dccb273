/* sample.h: models and requests of chosen shape with drawn numbers, for benches and tests: what a
 * request costs depends on the shape alone. Their scores mean nothing. */
#pragma once
#include "base/rng.h"
#include "moe/model.h"

struct moe_sample {
    const char *spec; /* YAML or JSON of the settings' section `model` */
    int query_columns, cand_columns;
    int query_ids, cand_ids; /* id inputs, all of one table */
    int slots;               /* of each id input */
    uint32_t table_rows;
    int dim;
    int n_tasks;
};
/* Reference models by name: "ple14"; "mmoe8", "mmoe8-top2"; "omoe8", "omoe8-top2", "omoe8-top8",
 * "omoe8-smear"; "small". NULL: unknown. */
const struct moe_sample *moe_sample_find(const char *name);
/* INVALID_ARGUMENT: the spec is wrong. */
enum status moe_sample_model(const struct moe_sample *s, uint64_t seed, struct moe_model **out);
/* One request of `rows` candidates, in the arena: normal numbers, every `missing`-th of them NaN
 * (0: none), uniform ids, some 0. */
struct moe_batch moe_sample_batch(const struct moe_inputs *in, int rows, int missing, struct rng *r,
                                  struct arena *a);
