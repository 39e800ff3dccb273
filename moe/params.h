/* params.h: all numbers of a model in one flat block, cut into named tensors.
 *
 *     [ dense: trained, gradients dense | tables: embeddings, gradients by row | buffers ]
 *
 * Gradients and optimizer moments of the dense part share its layout, so zeroing is a memset, an
 * optimizer one loop, a hot swap one pointer. The n experts of a group are one tensor [n x P]:
 * merging them is one GEMM. Buffers are state that no gradient moves (a bias that balances load,
 * a controller's lambda); they are saved with the model. */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum moe_init {
    MOE_INIT_ZERO,
    MOE_INIT_ONE,
    MOE_INIT_HE,     /* N(0, scale * 2 / rows) */
    MOE_INIT_GLOROT, /* U(+-sqrt(scale * 6 / (rows + cols))) */
    MOE_INIT_NORMAL, /* N(0, scale^2) */
    MOE_INIT_CONST,  /* scale */
};

/* The parts of one expert, gate or tower: fields in a contiguous run of floats. */
struct moe_field {
    char name[24];
    int rows, cols; /* [rows x cols]; a bias is [1 x n] */
    size_t at;      /* floats from the run's start */
    enum moe_init init;
    float scale;
};
#define MOE_FIELDS_MAX 32
struct moe_layout {
    struct moe_field f[MOE_FIELDS_MAX];
    int n;
    size_t floats; /* P */
};
/* Appends; returns the field's index. scale 0 means 1. */
int moe_layout_add(struct moe_layout *l, const char *name, int rows, int cols, enum moe_init init,
                   float scale);

enum moe_region { MOE_DENSE, MOE_TABLE, MOE_BUFFER, MOE_REGIONS };

struct moe_tensor {
    char name[96];
    enum moe_region region;
    int copies;    /* experts of the group; 1 for the rest */
    size_t stride; /* floats of one copy: layout.floats */
    size_t at;     /* floats from the block's start; 16-float aligned */
    struct moe_layout layout;
};
struct moe_params {
    struct moe_tensor *t; /* [n] */
    int n, cap;
    size_t region_at[MOE_REGIONS + 1]; /* bounds of the regions in floats */
    float *v;                          /* [region_at[MOE_REGIONS]], 64-byte aligned */
};

int moe_params_add(struct moe_params *p, enum moe_region region, int copies,
                   const struct moe_layout *layout, const char *name_format, ...)
    __attribute__((format(printf, 5, 6)));
/* Gives every tensor its place and allocates the block, zeroed. No moe_params_add after it. */
void moe_params_place(struct moe_params *p);
/* Draws the initial values. Each tensor has a stream of its own from (seed, name), so that a new
 * tensor does not change the others; each copy draws anew, so that no two experts start equal. */
void moe_params_init(struct moe_params *p, uint64_t seed);
void moe_params_deinit(struct moe_params *p);

static inline size_t moe_params_floats(const struct moe_params *p) {
    return p->region_at[MOE_REGIONS];
}
static inline size_t moe_params_dense(const struct moe_params *p) { return p->region_at[1]; }
/* Copy `copy` of tensor `t` in `block`, which has the layout of p->v (or of its dense part). */
static inline float *moe_params_at(const struct moe_params *p, float *block, int t, int copy) {
    return block + p->t[t].at + (size_t)copy * p->t[t].stride;
}
