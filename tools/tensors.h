/* tensors.h: a safetensors file as it lies on disk: names, shapes and floats, for looking into it
 * without trusting it. moe/model.h loads models. */
#pragma once
#include "base/arena.h"
#include "base/buf.h"
#include "base/node.h"
#include "base/status.h"

enum { TENSOR_DIMS_MAX = 4 };
struct tensor {
    struct slice name, dtype;
    int64_t shape[TENSOR_DIMS_MAX];
    int n_dims;
    int64_t n;      /* elements */
    const float *v; /* [n] when dtype is F32, else NULL */
};
struct tensors {
    struct buf bytes;
    struct tensor *list; /* [n] in the order of their bytes */
    int n;
    const struct node *metadata; /* map of strings, or NULL */
};

bool tensors_is_file(struct slice head); /* of the first bytes: they may be such a file */
/* NOT_FOUND; DATA_LOSS names the tensor or the byte. Names live in `a`. */
enum status tensors_load(const char *path, struct arena *a, struct tensors *out);
void tensors_deinit(struct tensors *t);
double tensor_norm(const float *v, int64_t n); /* Euclidean */
