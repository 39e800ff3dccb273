/* model.h: a spec and one named flat block of floats. Immutable once built or loaded; shared by
 * threads. Stored as safetensors: tensors by name, the spec and all metadata in __metadata__. */
#pragma once
#include "base/node.h"
#include "base/status.h"
#include "moe/batch.h"

struct moe_model;

/* Loads and checks a model file: sizes, finite values, spec. NOT_FOUND, DATA_LOSS (names the
 * tensor or the byte), INVALID_ARGUMENT (names the spec's key). */
enum status moe_model_load(const char *path, struct moe_model **out);
/* The same from memory; path: for messages. */
enum status moe_model_load_bytes(struct slice bytes, const char *path, struct moe_model **out);
enum status moe_model_save(const struct moe_model *m, const char *path); /* atomic */
void moe_model_free(struct moe_model *m);

const char *moe_model_version(const struct moe_model *m); /* 16 hex digits: hash of spec + floats */
const struct moe_inputs *moe_model_inputs(const struct moe_model *m);
int moe_model_tasks(const struct moe_model *m);
const char *moe_model_task(const struct moe_model *m, int task);
const char *moe_model_spec_json(const struct moe_model *m);
/* Free-form metadata strings saved with the model ("plan", "trained_at_us", ...); NULL: absent. */
const char *moe_model_meta(const struct moe_model *m, const char *key);
void moe_model_meta_set(struct moe_model *m, const char *key,
                        const char *value); /* before publishing */
/* True when a row's result depends on the other rows of its request (expert choice, Soft MoE,
 * capacity, Sinkhorn): such scores enter no per-candidate cache. */
int moe_model_mixes_rows(const struct moe_model *m);
size_t moe_model_floats(const struct moe_model *m);
double moe_model_mflop_per_row(const struct moe_model *m); /* dense forward, query part excluded */
