/* norm.c: layer normalisation, forward and backward side by side. Sums along a row are plain loops
 * in a fixed order: a row's result does not depend on the others. */
#include "moe/norm.h"
#include <math.h>
#include "moe/math/vec.h"

#define EPSILON 1e-5f

MOE_CLONES static void normalise(size_t n, const float *restrict x, float mean, float rstd,
                                 float *restrict xhat) {
    for (size_t i = 0; i < n; i++)
        xhat[i] = (x[i] - mean) * rstd;
}
MOE_CLONES static void scale_shift(size_t n, const float *xhat, const float *restrict g,
                                   const float *restrict b, float *y) {
    for (size_t i = 0; i < n; i++)
        y[i] = xhat[i] * g[i] + b[i];
}

void moe_norm_forward(int rows, int n, const float *x, const float *g, const float *b, float *xhat,
                      float *rstd, float *y) {
    size_t width = (size_t)n;
    for (size_t r = 0; r < (size_t)rows; r++) {
        const float *xr = x + r * width;
        float *hat = xhat + r * width, sum = 0, squares = 0;
        for (size_t i = 0; i < width; i++)
            sum += xr[i];
        float mean = sum / (float)n;
        for (size_t i = 0; i < width; i++)
            squares += (xr[i] - mean) * (xr[i] - mean);
        rstd[r] = 1 / sqrtf(squares / (float)n + EPSILON);
        for (size_t i = 0; hat == xr && i < width; i++)
            hat[i] = (hat[i] - mean) * rstd[r];
        if (hat != xr)
            normalise(width, xr, mean, rstd[r], hat);
        scale_shift(width, hat, g, b, y + r * width);
    }
}

MOE_CLONES static void to_input(size_t n, const float *restrict xhat, const float *restrict g,
                                float rstd, float mean, float along, float *restrict dy) {
    for (size_t i = 0; i < n; i++)
        dy[i] = rstd * (dy[i] * g[i] - mean - xhat[i] * along);
}
MOE_CLONES static void to_gain(size_t n, const float *restrict dy, const float *restrict xhat,
                               float *restrict dg, float *restrict db) {
    for (size_t i = 0; i < n; i++) {
        dg[i] += dy[i] * xhat[i];
        db[i] += dy[i];
    }
}

void moe_norm_backward(int rows, int n, const float *xhat, const float *rstd, const float *g,
                       float *dy, float *dg, float *db) {
    size_t width = (size_t)n;
    for (size_t r = 0; r < (size_t)rows; r++) {
        const float *hat = xhat + r * width;
        float *d = dy + r * width, mean = 0, along = 0;
        to_gain(width, d, hat, dg, db);
        for (size_t i = 0; i < width; i++) {
            mean += d[i] * g[i];
            along += d[i] * g[i] * hat[i];
        }
        to_input(width, hat, g, rstd[r], mean / (float)n, along / (float)n, d);
    }
}
