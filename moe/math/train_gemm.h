/* train_gemm.h: products of training, C = op(A) op(B) + beta C, through register tiles over packed
 * operands, in fp32 or with operands rounded to bf16 and sums in fp32. Where there are no such
 * kernels the caller falls back to BLAS (blas.h), through which plain products come here.
 *
 * All matrices row-major. Every element is summed in an order that m, n, k and the type fix, on any
 * thread. Packing buffers belong to the thread and are freed with it. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct moe_train_gemm {
    bool ta, tb; /* the operand is stored transposed */
    bool bf16;   /* operands rounded to nearest even */
    bool add;    /* C += */
    int m, n, k;
    const float *a; /* op(A) [m x k] */
    const float *b; /* op(B) [k x n] */
    float *c;       /* [m x n] */
    int lda, ldb, ldc;
    const float *bias; /* [n] added to every row, NULL: none; not with `add` */
    /* Called when rows [row, row + rows) of columns [col, col + cols) are final and still in the
     * nearest cache; pieces come in order of rows for given columns. NULL: nobody asks. */
    void (*done)(void *ctx, int row, int rows, int col, int cols);
    void *ctx;
    /* Names what stands in a transposed A: packed once, it serves this thread's later products with
     * the same A and key. 0: not kept. Keys are never used again for other contents. */
    uint64_t key;
    /* A second product with the same B, n, k and types (its a, lda, m, c, key and add count); NULL:
     * none. */
    const struct moe_train_gemm *also;
};

/* Whether this CPU (cpu.h, MOERANK_ISA heeded) has the kernels. */
bool moe_train_gemm_possible(bool bf16);
/* Only where possible; m, n, k > 0. */
void moe_train_gemm(const struct moe_train_gemm *g);

/* The kernels, of one instruction set. A tile: up to MR rows by 16 or 32 columns over `steps` of k;
 * a step is one float, or two bf16 side by side. */
#define MOE_TRAIN_MR 14
struct moe_train_tile {
    const char *a;        /* one step of one row: 4 bytes */
    size_t a_row, a_step; /* bytes */
    const float *w;       /* [steps][16 or 32]: packed, or B where it stands */
    size_t w_step;        /* floats from one step to the next */
    int steps;
    float *c;          /* [mr x ldc] */
    size_t ldc;        /* floats */
    const float *bias; /* NULL: none */
    int cols;          /* of C, at most 32; beyond them nothing is read or written */
    bool add;
    const char *soon; /* asked for into the cache, soon_step bytes a step; readable or not */
    size_t soon_step;
};
struct moe_train_kernels {
    void (*const (*tile)[2])(const struct moe_train_tile *t); /* [2 x MR][columns > 16] */
    /* x [k x cols] at ld -> out[step * stride + i], i < 16; cols <= 16, the rest zero */
    void (*pack)(bool bf16, const float *x, size_t ld, int k, int cols, float *out, size_t stride);
    /* the same from x [cols x k]: transposed */
    void (*pack_across)(bool bf16, const float *x, size_t ld, int k, int cols, float *out,
                        size_t stride);
    void (*round)(const float *x, int k, void *out); /* k floats to bf16, an odd end padded */
};
extern const struct moe_train_kernels moe_train_kernels_avx512; /* x86-64 only */
