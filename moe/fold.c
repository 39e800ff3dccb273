/* fold.c: gather-add forward, scatter-add backward, through blocks of W's columns. */
#include "moe/fold.h"
#include <string.h>
#include "moe/math/blas.h"
#include "moe/math/vec.h"

/* 16 floats wherever they stand; wider than the machine's vectors is fine, the compiler cuts them.
 */
typedef float lanes __attribute__((vector_size(64), aligned(4)));

/* What a row's entries point to, for columns [j, j + n) of W. */
struct block {
    int fields, shares, stride;
    const int *index; /* [rows x stride] */
    float *p;         /* [p_rows x n] */
    const float *w;   /* [columns x ldw], from column j on */
    float *dw;
    int n, ldw;
};

static inline __attribute__((always_inline)) float float_of(int bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static inline __attribute__((always_inline)) const lanes *at_row(const float *p, int row, int ld,
                                                                 int j) {
    return (const lanes *)(const void *)(p + (size_t)row * (size_t)ld + (size_t)j);
}

/* `vectors` of 16 columns from j on: the sums stay in registers */
static inline __attribute__((always_inline)) void gather_some(const struct block *b, const int *at,
                                                              const int vectors, int j, float *y) {
    lanes *to = (lanes *)(void *)(y + j), s[4];
    for (int i = 0; i < vectors; i++)
        s[i] = to[i];
    for (int f = 0; f < b->fields; f++) {
        const lanes *v = at_row(b->p, at[f], b->n, j);
        for (int i = 0; i < vectors; i++)
            s[i] += v[i];
    }
    for (int f = 0; f < b->shares; f++) {
        const lanes *v = at_row(b->w, at[b->fields + f], b->ldw, j);
        const float share = float_of(at[b->fields + b->shares + f]);
        for (int i = 0; i < vectors; i++)
            s[i] += share * v[i];
    }
    for (int i = 0; i < vectors; i++)
        to[i] = s[i];
}

/* y[r, 0..n) += sum of the row's entries of P, and of W's rows by their shares */
MOE_CLONES static void gather(int rows, const struct block *b, float *restrict y, int ldy) {
    for (int r = 0; r < rows; r++) {
        const int *at = b->index + (size_t)r * (size_t)b->stride;
        float *yr = y + (size_t)r * (size_t)ldy;
        int j = 0;
        for (; j + 64 <= b->n; j += 64)
            gather_some(b, at, 4, j, yr);
        for (; j + 16 <= b->n; j += 16)
            gather_some(b, at, 1, j, yr);
        for (; j < b->n; j++) {
            float sum = yr[j];
            for (int f = 0; f < b->fields; f++)
                sum += b->p[(size_t)at[f] * (size_t)b->n + (size_t)j];
            for (int f = 0; f < b->shares; f++)
                sum += float_of(at[b->fields + b->shares + f]) *
                       b->w[(size_t)at[b->fields + f] * (size_t)b->ldw + (size_t)j];
            yr[j] = sum;
        }
    }
}

static inline __attribute__((always_inline)) void add_to(float *row, int n, float by,
                                                         const float *restrict d) {
    int j = 0;
    for (; j + 16 <= n; j += 16)
        *(lanes *)(void *)(row + j) += by * *(const lanes *)(const void *)(d + j);
    for (; j < n; j++)
        row[j] += by * d[j];
}

static inline __attribute__((always_inline)) void
scatter_some(const struct block *b, const int *at, const int vectors, int j, const float *d) {
    const lanes *from = (const lanes *)(const void *)(d + j);
    lanes s[4];
    for (int i = 0; i < vectors; i++)
        s[i] = from[i];
    for (int f = 0; f < b->fields; f++) {
        lanes *v = (lanes *)(void *)(b->p + (size_t)at[f] * (size_t)b->n + (size_t)j);
        for (int i = 0; i < vectors; i++)
            v[i] += s[i];
    }
}

/* P[entries of r] += dy[r, 0..n), dW[columns of r] += share dy[r, 0..n) */
MOE_CLONES static void scatter(int rows, const struct block *b, const float *restrict dy, int ldy) {
    for (int r = 0; r < rows; r++) {
        const int *at = b->index + (size_t)r * (size_t)b->stride;
        const float *d = dy + (size_t)r * (size_t)ldy;
        int j = 0;
        for (; j + 64 <= b->n; j += 64)
            scatter_some(b, at, 4, j, d);
        for (; j + 16 <= b->n; j += 16)
            scatter_some(b, at, 1, j, d);
        for (int f = 0; f < b->fields && j < b->n; f++)
            add_to(b->p + (size_t)at[f] * (size_t)b->n + (size_t)j, b->n - j, 1, d + j);
        for (int f = 0; f < b->shares; f++)
            add_to(b->dw + (size_t)at[b->fields + f] * (size_t)b->ldw, b->n,
                   float_of(at[b->fields + b->shares + f]), d);
    }
}

/* Rows 0, W_0, W_0 + W_1, .. */
static void running_sums(int rows, const float *w, int n, int b, float *to) {
    memset(to, 0, (size_t)b * sizeof *to);
    for (int r = 1; r < rows; r++) {
        memcpy(to + (size_t)r * (size_t)b, to + (size_t)(r - 1) * (size_t)b,
               (size_t)b * sizeof *to);
        moe_vec_add((size_t)b, w + (size_t)(r - 1) * (size_t)n, to + (size_t)r * (size_t)b);
    }
}
/* Backwards: a column is in all later sums. d is overwritten. */
static void from_sums(int rows, float *d, int b, float *dw, int n) {
    for (int r = rows - 1; r > 0; r--) {
        moe_vec_add((size_t)b, d + (size_t)r * (size_t)b, dw + (size_t)(r - 1) * (size_t)n);
        moe_vec_add((size_t)b, d + (size_t)r * (size_t)b, d + (size_t)(r - 1) * (size_t)b);
    }
}

/* P of columns [j, j + b) of W, [p_rows x b] */
static void fill(const struct moe_fold_part *part, const float *w, int n, int j, int b, float *p) {
    for (int f = 0; f < part->n; f++) {
        const struct moe_fold_field *x = &part->field[f];
        const float *wf = w + (size_t)x->col * (size_t)n + (size_t)j;
        float *to = p + (size_t)x->at * (size_t)b;
        if (x->dim == MOE_FOLD_SUMS) {
            running_sums(x->rows, wf, n, b, to);
            continue;
        }
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
        const struct block all = {
            part->n, part->n_shares, moe_fold_stride(part), index, p, w + j, NULL, b, n};
        gather(n_rows, &all, y + j, n);
    }
}

/* dP [p_rows x b] to the fields' tables and W */
static void drain(const struct moe_fold_part *part, float *p, int b, const float *w, int n, int j,
                  float *dw, bool tables) {
    for (int f = 0; f < part->n; f++) {
        const struct moe_fold_field *x = &part->field[f];
        size_t at = (size_t)x->col * (size_t)n + (size_t)j;
        float *d = p + (size_t)x->at * (size_t)b;
        if (x->dim == MOE_FOLD_SUMS) {
            from_sums(x->rows, d, b, dw + at, n);
            continue;
        }
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
        const struct block all = {
            part->n, part->n_shares, moe_fold_stride(part), index, p, w + j, dw + j, b, n};
        scatter(n_rows, &all, dy + j, n);
        drain(part, p, b, w, n, j, dw, tables);
    }
}
