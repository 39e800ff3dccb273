/* safetensors.h: named tensors in a file, with metadata: 8 bytes of header length, a JSON header,
 * the bytes. Files may be hostile: every length, overlap and type is checked. */
#pragma once
#include "base/arena.h"
#include "base/buf.h"
#include "base/node.h"
#include "base/status.h"

#define MOE_ST_DIMS_MAX   8
#define MOE_ST_HEADER_MAX ((size_t)64 << 20)

enum moe_st_type {
    MOE_ST_F32,
    MOE_ST_BF16,
    MOE_ST_F16,
    MOE_ST_F64,
    MOE_ST_I64,
    MOE_ST_I32,
    MOE_ST_U8,
    MOE_ST_I8,
    MOE_ST_BOOL
};

struct moe_st_tensor {
    const char *name;
    enum moe_st_type type;
    int n_dims;
    size_t dims[MOE_ST_DIMS_MAX];
    size_t count;     /* elements */
    const void *data; /* borrowed, not aligned */
    size_t bytes;
};
struct moe_st {
    struct moe_st_tensor *t; /* [n] in the order of the header */
    int n;
    const struct node *meta; /* map of strings, or NULL */
};

/* Borrows `bytes`; the rest lives in the arena. DATA_LOSS "name: what, where". */
enum status moe_st_parse(struct slice bytes, const char *name, struct arena *a, struct moe_st *out);
const struct moe_st_tensor *moe_st_find(const struct moe_st *s,
                                        const char *name);        /* NULL: absent */
const char *moe_st_meta(const struct moe_st *s, const char *key); /* NULL: absent */

/* Writing: metadata pairs, then tensors of F32, in order. */
struct moe_st_writer {
    struct buf header, data;
    struct json json;
    bool in_meta;
};
void moe_st_begin(struct moe_st_writer *w);
void moe_st_put_meta(struct moe_st_writer *w, const char *key, const char *value);
void moe_st_put(struct moe_st_writer *w, const char *name, const size_t *dims, int n_dims,
                const float *v);
enum status moe_st_end(struct moe_st_writer *w, const char *path); /* writes atomically, frees */
