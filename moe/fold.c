/* fold.c: gather-add forward, scatter-add backward, through blocks of W's columns. */
#include "moe/fold.h"
#include <string.h>
#include "moe/blas.h"
#include "moe/vec.h"

/* 16 floats wherever they stand; wider than the machine's vectors is fine, the compiler cuts them.
 */
typedef float lanes __attribute__((vector_size(64), aligned(4)));

/* y[r, 0..n) += sum of the row's entries of P; the sums stay in registers, 64 columns at a time. */
MOE_CLONES static void gather(int rows, int fields, const int *restrict index,
                              const float *restrict p, int n, float *restrict y, int ldy) {
    for (int r = 0; r < rows; r++) {
        const int *at = index + (size_t)r * (size_t)fields;
        float *yr = y + (size_t)r * (size_t)ldy;
        int j = 0;
        for (; j + 64 <= n; j += 64) {
            lanes *to = (lanes *)(void *)(yr + j), s0 = to[0], s1 = to[1], s2 = to[2], s3 = to[3];
            for (int f = 0; f < fields; f++) {
                const lanes *v =
                    (const lanes *)(const void *)(p + (size_t)at[f] * (size_t)n + (size_t)j);
                s0 += v[0];
                s1 += v[1];
                s2 += v[2];
                s3 += v[3];
            }
            to[0] = s0;
            to[1] = s1;
            to[2] = s2;
            to[3] = s3;
        }
        for (; j + 16 <= n; j += 16) {
            lanes *to = (lanes *)(void *)(yr + j), s = *to;
            for (int f = 0; f < fields; f++)
                s += *(const lanes *)(const void *)(p + (size_t)at[f] * (size_t)n + (size_t)j);
            *to = s;
        }
        for (int f = 0; f < fields && j < n; f++) {
            const float *v = p + (size_t)at[f] * (size_t)n;
            for (int i = j; i < n; i++)
                yr[i] += v[i];
        }
    }
}

/* P[entries of r] += dy[r, 0..n) */
MOE_CLONES static void scatter(int rows, int fields, const int *restrict index,
                               const float *restrict dy, int n, int ldy, float *restrict p) {
    for (int r = 0; r < rows; r++) {
        const int *at = index + (size_t)r * (size_t)fields;
        const float *d = dy + (size_t)r * (size_t)ldy;
        int j = 0;
        for (; j + 32 <= n; j += 32) {
            const lanes *from = (const lanes *)(const void *)(d + j), d0 = from[0], d1 = from[1];
            for (int f = 0; f < fields; f++) {
                lanes *v = (lanes *)(void *)(p + (size_t)at[f] * (size_t)n + (size_t)j);
                v[0] += d0;
                v[1] += d1;
            }
        }
        for (int f = 0; f < fields && j < n; f++) {
            float *v = p + (size_t)at[f] * (size_t)n;
            for (int i = j; i < n; i++)
                v[i] += d[i];
        }
    }
}

/* P of columns [j, j + b) of W, [p_rows x b] */
static void fill(const struct moe_fold_part *part, const float *w, int n, int j, int b, float *p) {
    for (int f = 0; f < part->n; f++) {
        const struct moe_fold_field *x = &part->field[f];
        const float *wf = w + (size_t)x->col * (size_t)n + (size_t)j;
        float *to = p + (size_t)x->at * (size_t)b;
        if (x->dim) {
            moe_gemm(0, 0, x->rows, b, x->dim, x->table, x->dim, wf, n, 0, to, b);
            continue;
        }
        for (int r = 0; r < x->rows; r++)
            memcpy(to + (size_t)r * (size_t)b, wf + (size_t)r * (size_t)n, (size_t)b * sizeof *to);
    }
    memset(p + (size_t)(part->p_rows - 1) * (size_t)b, 0, (size_t)b * sizeof *p);
}

void moe_fold_forward(const struct moe_fold_part *part, float *p, int n_rows, const int *index,
                      const float *w, int n, float *y) {
    for (int j = 0; j < n; j += MOE_FOLD_BLOCK) {
        int b = n - j < MOE_FOLD_BLOCK ? n - j : MOE_FOLD_BLOCK;
        fill(part, w, n, j, b, p);
        gather(n_rows, part->n, index, p, b, y + j, n);
    }
}

/* dP [p_rows x b] to the fields' tables and W */
static void drain(const struct moe_fold_part *part, const float *p, int b, const float *w, int n,
                  int j, float *dw, bool tables) {
    for (int f = 0; f < part->n; f++) {
        const struct moe_fold_field *x = &part->field[f];
        size_t at = (size_t)x->col * (size_t)n + (size_t)j;
        const float *d = p + (size_t)x->at * (size_t)b;
        if (!x->dim) {
            for (int r = 0; r < x->rows; r++)
                moe_vec_add((size_t)b, d + (size_t)r * (size_t)b, dw + at + (size_t)r * (size_t)n);
            continue;
        }
        moe_gemm(1, 0, x->dim, b, x->rows, x->table, x->dim, d, b, 1, dw + at, n);
        if (tables)
            moe_gemm(0, 1, x->rows, x->dim, b, d, b, w + at, n, 1, x->dtable, x->dim);
    }
}

void moe_fold_backward(const struct moe_fold_part *part, float *p, int n_rows, const int *index,
                       const float *w, int n, const float *dy, float *dw, bool tables) {
    for (int j = 0; j < n; j += MOE_FOLD_BLOCK) {
        int b = n - j < MOE_FOLD_BLOCK ? n - j : MOE_FOLD_BLOCK;
        memset(p, 0, (size_t)part->p_rows * (size_t)b * sizeof *p);
        scatter(n_rows, part->n, index, dy + j, b, n, p);
        drain(part, p, b, w, n, j, dw, tables);
    }
}
