/* kernel.h: the inner loops of scoring, per instruction set, behind one table.
 *
 * A *tile* is `mr` rows by one panel of `nr` columns, kept in registers over the whole of k:
 *
 *     out[r, c] = end( start[c] + sum_k a[r, k] w[k, c] )
 *
 * k runs upwards in every tile of every height, so a row's result is the same bits whatever rows
 * stand beside it. What happens to the sums (`end`) happens in registers: they are stored in the
 * next layer's type, or dotted with a tower's last layer. Weights come packed (pack.h), activations
 * row-major as they are.
 *
 * Pure functions on the caller's memory; any thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "moe/math/cpu.h"

enum moe_end {
    MOE_END_F32,  /* out: float */
    MOE_END_BF16, /* out: uint16_t, rounded to nearest even */
    MOE_END_U8,   /* out: uint8_t, rounded, clamped to 0..255; the unit stands in scale and start */
    MOE_END_DOT,  /* dot_out[row] += sum_c x dot[c] */
};

struct moe_tile {
    const void *a;   /* [mr x steps] floats, bf16 pairs or u8 quads */
    size_t a_stride; /* bytes from row to row */
    const void *w;   /* one panel: [steps x nr], see pack.h */
    int steps;
    const float *start; /* [nr] bias, or the request's user vector */
    const float *scale; /* [nr] int8 only: value of one unit of the integer sum */
    bool relu;
    enum moe_end end;
    void *out;         /* F32, BF16, U8: [mr x nr] */
    size_t out_stride; /* bytes */
    const int *rows;   /* [mr] rows of out; NULL: 0, 1, .. */
    const float *dot;  /* [nr] */
    float *dot_out;    /* [mr] */
    bool dot_first;    /* write dot_base + the sum, not add */
    float dot_base;
};

typedef void moe_tile_fn(const struct moe_tile *t);
#define MOE_MR_MAX 14
#define MOE_LANES  16 /* a gate's weights stand in groups of 16, padded with zeros */

/* Modules' rows out of experts' rows: out_m[r] = sum over terms of gate[r] * x[r]. */
struct moe_term {
    size_t x;    /* bytes from a row's begin */
    size_t gate; /* floats from a row's begin */
};
struct moe_module_terms {
    struct moe_term *terms; /* [n_terms] added in this order */
    int n_terms;
};
struct moe_blend {
    const struct moe_module_terms *modules; /* [n_modules] */
    int n_modules;
    bool sparse;     /* terms of weight 0 are skipped: what stands there may be anything */
    const void *x;   /* experts' outputs: floats or bf16 */
    size_t x_stride; /* bytes */
    const float *gates;
    size_t gate_stride; /* floats */
    int columns;        /* a multiple of nr */
    void *out;          /* floats or bf16: [n_modules][rows], strides in bytes */
    size_t out_stride, module_stride;
};

/* A first layer whose candidate half is kept (item_cache.h): out = act(start + half), in the next
 * layer's type. Halves: floats; bf16; or int8 in steps of step[c] / MOE_HALF_ONE, where start is
 * int16 in units of 1 / MOE_HALF_ONE with the rounding half added, and every 64 columns of half,
 * step and start stand in the order of moe_half_order. */
#define MOE_HALF_ONE 32
struct moe_half {
    const char *const *rows; /* [n] */
    size_t at;               /* bytes from a row's begin */
    int columns;             /* a multiple of nr; int8: of 64 */
    bool relu;               /* int8: always */
    const void *start;       /* float or int16_t [columns] */
    const int16_t *step;     /* int8: [columns] */
    void *out;               /* [n] rows of floats, bf16 or u8 */
    size_t out_stride;       /* bytes */
};
/* The column, of 64, at place p: such that packing two vectors of words puts columns in order. */
static inline int moe_half_order(int p) {
    return p < 32 ? 16 * (p / 8) + p % 8 : 16 * ((p - 32) / 8) + 8 + p % 8;
}

/* A choice of k among n <= MOE_LANES: softmax over the chosen, or over all of them. */
struct moe_top {
    int n, k;
    bool over_chosen;
    float scale; /* of the weights */
};

/* One instruction set. Elementwise counts are multiples of MOE_LANES: buffers are padded. */
struct moe_kernels {
    const char *name;            /* "avx512" */
    int nr;                      /* columns of a panel */
    int mr[3];                   /* rows of the highest tile, per precision; 0: no such kernel */
    moe_tile_fn *const *tile[3]; /* [mr] tile[precision][m - 1]: tiles of m rows */
    /* The same over panels of nr_narrow columns, for gates; they end in F32. NULL: none */
    int nr_narrow;
    moe_tile_fn *const *narrow[3];

    void (*sigmoid)(float *x, int n); /* x = 1 / (1 + exp(-x)) */
    /* Of each row the softmax over x[0 .. lanes); what is left of out's last group of MOE_LANES is
     * 0. That much of x is read, whatever stands there. Strides in floats. */
    void (*softmax)(const float *x, size_t x_stride, float *out, size_t out_stride, int rows,
                    int lanes);
    /* Of each row the best `c->k` of its first `c->n` logits: out [MOE_LANES] is their weight, 0
     * for the rest. Ties go to the lower lane; a row with a NaN becomes NaN. Strides in floats; a
     * whole MOE_LANES of x is read. */
    void (*choose)(const struct moe_top *c, const float *x, size_t x_stride, float *out,
                   size_t out_stride, int rows);
    /* out = (x - mean) * scale, cut to +-clip; 0 where x is not finite. Any n. */
    void (*standardise)(const float *x, const float *mean, const float *scale, float clip,
                        float *out, int n);
    /* The types of x and out, fp32 or bf16, are the indices. NULL: no such kernel. */
    void (*mix[2][2])(const struct moe_blend *m, int rows);
    void (*half[3])(const struct moe_half *h, int n);
    /* Where there are such tiles. bf16: to nearest even; u8: clamp(round(x * per_unit[i]) + zero)
     */
    void (*bf16)(const float *x, uint16_t *out, int n);
    void (*u8)(const float *x, const float *per_unit /* [n] */, int zero, uint8_t *out, int n);
};

/* The best set for `cpu`. Never NULL. */
const struct moe_kernels *moe_kernels_for(const struct moe_cpu *cpu);
extern const struct moe_kernels moe_kernels_avx512, moe_kernels_avx2, moe_kernels_portable;
