/* batch_norm.c: batch normalisation, forward and backward side by side. Sums over rows run in their
 * order, so that equal batches give equal bits. Deliberately no synchronisation of workers: each
 * normalises by its own share of the batch (as "ghost" batches do), and only what is remembered for
 * inference is of all. */
#include "moe/batch_norm.h"
#include <math.h>
#include <string.h>
#include "moe/math/vec.h"

#define EPSILON  1e-5f
#define MOMENTUM 0.1f

MOE_CLONES static void add_squares(int rows, int n, const float *restrict x,
                                   const float *restrict mean, float *restrict sum) {
    for (int r = 0; r < rows; r++) {
        const float *xr = x + (size_t)r * (size_t)n;
        for (int i = 0; i < n; i++)
            sum[i] += (xr[i] - mean[i]) * (xr[i] - mean[i]);
    }
}

void moe_batch_stats(int rows, int n, const float *x, float *mean, float *var) {
    memset(mean, 0, (size_t)n * sizeof *mean);
    memset(var, 0, (size_t)n * sizeof *var);
    moe_vec_sum_rows(rows, n, x, mean);
    for (int i = 0; i < n; i++)
        mean[i] /= (float)rows;
    add_squares(rows, n, x, mean, var);
    for (int i = 0; i < n; i++)
        var[i] /= (float)rows;
}

void moe_batch_rstd(int n, const float *var, float *rstd) {
    for (int i = 0; i < n; i++)
        rstd[i] = 1 / sqrtf(fmaxf(var[i], 0) + EPSILON);
}

MOE_CLONES void moe_batch_normalise(int rows, int n, const float *restrict mean,
                                    const float *restrict rstd, const float *restrict g,
                                    const float *restrict b, float *restrict x, float *restrict y) {
    for (int r = 0; r < rows; r++) {
        float *xr = x + (size_t)r * (size_t)n, *yr = y + (size_t)r * (size_t)n;
        for (int i = 0; i < n; i++) {
            xr[i] = (xr[i] - mean[i]) * rstd[i];
            yr[i] = xr[i] * g[i] + b[i];
        }
    }
}

MOE_CLONES static void sum_columns(int rows, int n, const float *restrict xhat,
                                   const float *restrict dy, float *restrict plain,
                                   float *restrict along) {
    for (int r = 0; r < rows; r++) {
        const float *h = xhat + (size_t)r * (size_t)n, *d = dy + (size_t)r * (size_t)n;
        for (int i = 0; i < n; i++) {
            plain[i] += d[i];
            along[i] += d[i] * h[i];
        }
    }
}
MOE_CLONES static void to_input(int rows, int n, const float *restrict xhat,
                                const float *restrict g, const float *restrict rstd,
                                const float *restrict plain, const float *restrict along,
                                float *restrict dy) {
    for (int r = 0; r < rows; r++) {
        const float *h = xhat + (size_t)r * (size_t)n;
        float *d = dy + (size_t)r * (size_t)n;
        for (int i = 0; i < n; i++)
            d[i] = g[i] * rstd[i] * (d[i] - plain[i] - h[i] * along[i]);
    }
}

void moe_batch_norm_backward(int rows, int n, int own, const float *xhat, const float *rstd,
                             const float *g, float *sums, float *dy, float *dg, float *db) {
    float *plain = sums, *along = sums + n;
    memset(sums, 0, 2 * (size_t)n * sizeof *sums);
    sum_columns(rows, n, xhat, dy, plain, along);
    moe_vec_add((size_t)n, plain, db);
    moe_vec_add((size_t)n, along, dg);
    for (int i = 0; i < 2 * n; i++)
        sums[i] = own ? sums[i] / (float)rows : 0;
    to_input(rows, n, xhat, g, rstd, plain, along, dy);
}

void moe_batch_norm_linear(int n, const float *g, const float *b, const float *mean,
                           const float *var, float *scale, float *shift) {
    moe_batch_rstd(n, var, scale);
    for (int i = 0; i < n; i++) {
        scale[i] *= g[i];
        shift[i] = b[i] - mean[i] * scale[i];
    }
}

MOE_CLONES void moe_batch_norm_row(int n, const float *restrict scale, const float *restrict shift,
                                   const float *x, float *y) {
    for (int i = 0; i < n; i++)
        y[i] = x[i] * scale[i] + shift[i];
}

void moe_batch_sums_add(int rows, int n, const float *mean, const float *var, const float *running,
                        float *sums) {
    float *first = sums + 1, *second = first + n;
    sums[0] += (float)rows;
    for (int i = 0; i < n; i++) {
        const float d = mean[i] - running[i];
        first[i] += (float)rows * d;
        second[i] += (float)rows * (var[i] + d * d);
    }
}

void moe_batch_running_move(int n, const float *sums, float *running, float *running_var) {
    const float rows = sums[0], *first = sums + 1, *second = first + n;
    if (rows < 2)
        return;
    for (int i = 0; i < n; i++) {
        const float d = first[i] / rows, biased = fmaxf(second[i] / rows - d * d, 0);
        running[i] += MOMENTUM * d;
        running_var[i] += MOMENTUM * (biased * rows / (rows - 1) - running_var[i]);
    }
}
