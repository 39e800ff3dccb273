/* pack.h: weights laid out for the tiles of kernel.h, once, at load.
 *
 *     fp32  [panels][k    ][nr]       float
 *     bf16  [panels][k / 2][nr][2]    two steps of k side by side, as vdpbf16ps adds them
 *     int8  [panels][k / 4][nr][4]    four, as vpdpbusd adds them; one scale per column
 *
 * Every element is four bytes, panels follow each other, and what k and n lack to whole steps and
 * panels is zero: activations padded with anything finite give the same sums. Immutable once
 * filled; shared by threads. The block is the caller's (64-byte aligned) and holds no pointers. */
#pragma once
#include "moe/score/kernel.h"

struct moe_pack {
    enum moe_precision precision;
    int k, nr, steps, panels;
    void *w;      /* [panels x steps x nr] of 4 bytes */
    float *scale; /* int8: [panels x nr] the value of one unit of the integer sum */
    float *zero;  /* int8: [panels x nr] the value that an input of all ones adds */
};

/* `k` inputs, `n` columns. The first counts bytes, the second takes them from `block` (zeroed). */
size_t moe_pack_bytes(enum moe_precision precision, int k, int n, int nr);
void moe_pack_place(struct moe_pack *p, enum moe_precision precision, int k, int n, int nr,
                    void *block);
/* Fills columns [at, at + n) from w [k x n], row-major with `stride` floats from row to row.
 * int8: unit [k] is the value of one unit of input i (NULL: all 1), folded into the weights. */
void moe_pack_fill(struct moe_pack *p, int at, int n, const float *w, size_t stride,
                   const float *unit);
/* Columns of a panel for a gate's `n` logits: narrow when one vector holds them. */
static inline int moe_pack_gate_nr(const struct moe_kernels *k, enum moe_precision precision,
                                   int n) {
    return n <= k->nr_narrow && k->narrow[precision] ? k->nr_narrow : k->nr;
}
static inline int moe_pack_columns(const struct moe_pack *p) { return p->panels * p->nr; }
/* Bytes of a row of activations of `k` columns, padded for the tiles and to 64. */
static inline size_t moe_pack_row_bytes(enum moe_precision precision, int k) {
    size_t bytes = (size_t)k * (precision == MOE_FP32 ? 4 : precision == MOE_BF16 ? 2 : 1);
    return (bytes + 63) & ~(size_t)63;
}

/* p->nr is k->nr, or k->nr_narrow. All panels in [from, to) over `n_rows` rows: `t` describes the
 * whole matrix (a, start, out, dot at row 0 and column 0); w, steps and, when t->scale is NULL, the
 * scale are the pack's. Rows are split evenly over tiles, so that none is thin. */
void moe_pack_run(const struct moe_kernels *k, const struct moe_pack *p, const struct moe_tile *t,
                  int n_rows, int from, int to);

uint16_t moe_bf16_of(float x); /* to nearest even; NaN stays NaN */
static inline float moe_bf16_value(uint16_t x) {
    union {
        uint32_t bits;
        float value;
    } u = {(uint32_t)x << 16};
    return u.value;
}
