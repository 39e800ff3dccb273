/* vec.c: the elementwise loops. exp is a degree-6 polynomial after range reduction (Cephes), about
 * 1 ulp, NaN passes through. Sums along a row keep 16 lanes, folded in a fixed order, so that the
 * compiler may use vectors without reordering licences. */
#include "moe/math/vec.h"
#include <math.h>
#include <string.h>

static inline __attribute__((always_inline)) float exp_fast(float x) {
    x = x < -87.0f ? -87.0f : x; /* comparisons are false for NaN, which stays */
    x = x > 88.0f ? 88.0f : x;
    float n = x * 1.44269504088896341f + 12582912.0f; /* 1.5 * 2^23: rounds to an integer */
    int32_t bits;
    memcpy(&bits, &n, 4);
    n -= 12582912.0f;
    x -= n * 0.693359375f;
    x -= n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * x + 1.3981999507e-3f;
    p = p * x + 8.3334519073e-3f;
    p = p * x + 4.1665795894e-2f;
    p = p * x + 1.6666665459e-1f;
    p = p * x + 5.0000001201e-1f;
    p = p * x * x + x + 1.0f;
    int32_t power = (int32_t)((uint32_t)(bits - 0x4B400000 + 127) << 23);
    float scale;
    memcpy(&scale, &power, 4);
    return p * scale;
}
static inline __attribute__((always_inline)) float sigmoid(float x) {
    return 1.0f / (1.0f + exp_fast(-x));
}

#define GELU_A 1.5957691216057308f /* 2 sqrt(2 / pi) */
#define GELU_B 0.044715f

MOE_CLONES static void relu(size_t n, const float *x, float *y) {
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] < 0 ? 0 : x[i]; /* NaN stays NaN */
}
MOE_CLONES static void silu(size_t n, const float *x, float *y) {
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * sigmoid(x[i]);
}
MOE_CLONES static void gelu(size_t n, const float *x, float *y) {
    for (size_t i = 0; i < n; i++) {
        float v = x[i];
        y[i] = v * sigmoid(GELU_A * (v + GELU_B * v * v * v));
    }
}
void moe_vec_act(enum moe_act act, size_t n, const float *x, float *y) {
    switch (act) {
    case MOE_ACT_RELU:
        relu(n, x, y);
        return;
    case MOE_ACT_SILU:
        silu(n, x, y);
        return;
    case MOE_ACT_GELU:
        gelu(n, x, y);
        return;
    case MOE_ACT_NONE:
        if (x != y)
            memcpy(y, x, n * sizeof *y);
    }
}

MOE_CLONES static void relu_grad(size_t n, const float *y, float *dy) {
    for (size_t i = 0; i < n; i++)
        dy[i] = y[i] > 0 ? dy[i] : 0;
}
MOE_CLONES static void silu_grad(size_t n, const float *x, float *dy) {
    for (size_t i = 0; i < n; i++) {
        float s = sigmoid(x[i]);
        dy[i] *= s * (1 + x[i] * (1 - s));
    }
}
MOE_CLONES static void gelu_grad(size_t n, const float *x, float *dy) {
    for (size_t i = 0; i < n; i++) {
        float v = x[i], s = sigmoid(GELU_A * (v + GELU_B * v * v * v));
        dy[i] *= s + v * s * (1 - s) * GELU_A * (1 + 3 * GELU_B * v * v);
    }
}
void moe_vec_act_grad(enum moe_act act, size_t n, const float *kept, float *dy) {
    switch (act) {
    case MOE_ACT_RELU:
        relu_grad(n, kept, dy);
        return;
    case MOE_ACT_SILU:
        silu_grad(n, kept, dy);
        return;
    case MOE_ACT_GELU:
        gelu_grad(n, kept, dy);
        return;
    case MOE_ACT_NONE:
        return;
    }
}

MOE_CLONES void moe_vec_sigmoid(size_t n, const float *x, float *y) {
    for (size_t i = 0; i < n; i++)
        y[i] = sigmoid(x[i]);
}

MOE_CLONES static void exp_all(size_t n, const float *x, float *y) {
    for (size_t i = 0; i < n; i++)
        y[i] = exp_fast(x[i]);
}
void moe_vec_softmax(int rows, int n, const float *x, float *y) {
    for (int r = 0; r < rows; r++) {
        const float *xr = x + (size_t)r * (size_t)n;
        float *yr = y + (size_t)r * (size_t)n, most = xr[0];
        for (int i = 1; i < n; i++)
            most = xr[i] > most ? xr[i] : most;
        for (int i = 0; i < n; i++)
            yr[i] = xr[i] - most;
    }
    exp_all((size_t)rows * (size_t)n, y, y);
    for (int r = 0; r < rows; r++) {
        float *yr = y + (size_t)r * (size_t)n, sum = 0;
        for (int i = 0; i < n; i++)
            sum += yr[i];
        sum = 1 / sum;
        for (int i = 0; i < n; i++)
            yr[i] *= sum;
    }
}
void moe_vec_softmax_grad(int rows, int n, const float *y, const float *dy, float *dx) {
    for (int r = 0; r < rows; r++) {
        size_t at = (size_t)r * (size_t)n;
        float dot = 0;
        for (int i = 0; i < n; i++)
            dot += y[at + (size_t)i] * dy[at + (size_t)i];
        for (int i = 0; i < n; i++)
            dx[at + (size_t)i] = y[at + (size_t)i] * (dy[at + (size_t)i] - dot);
    }
}

MOE_CLONES static void dropout(size_t n, uint32_t below, float keep, uint32_t a, uint32_t b,
                               float *y) {
    for (size_t i = 0; i < n; i++) {
        uint32_t h = (uint32_t)i * 0x9E3779B9u + a; /* murmur3's finisher over a counter */
        h = (h ^ (h >> 16)) * 0x85EBCA6Bu;
        h = ((h ^ (h >> 13)) + b) * 0xC2B2AE35u;
        h ^= h >> 16;
        y[i] = h < below ? 0 : y[i] * keep;
    }
}
void moe_vec_dropout_part(size_t from, size_t n, float rate, uint64_t key, float *y) {
    if (rate > 0)
        dropout(n, (uint32_t)((double)rate * 4294967295.0), 1 / (1 - rate),
                (uint32_t)key + (uint32_t)from * 0x9E3779B9u, (uint32_t)(key >> 32), y);
}
void moe_vec_dropout(size_t n, float rate, uint64_t key, float *y) {
    moe_vec_dropout_part(0, n, rate, key, y);
}

MOE_CLONES void moe_vec_add(size_t n, const float *restrict x, float *restrict y) {
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}
MOE_CLONES void moe_vec_axpy(size_t n, float a, const float *restrict x, float *restrict y) {
    for (size_t i = 0; i < n; i++)
        y[i] += a * x[i];
}

void moe_vec_fill_rows(int rows, int n, const float *b, float *y) {
    for (int r = 0; r < rows; r++)
        memcpy(y + (size_t)r * (size_t)n, b, (size_t)n * sizeof *y);
}
void moe_vec_spread(int rows, int n, const float *q, const int *group, float *y) {
    for (int r = 0; r < rows; r++)
        memcpy(y + (size_t)r * (size_t)n, q + (size_t)group[r] * (size_t)n, (size_t)n * sizeof *y);
}
MOE_CLONES void moe_vec_collect(int rows, int n, const float *restrict y, const int *restrict group,
                                float *restrict q) {
    for (int r = 0; r < rows; r++) {
        const float *yr = y + (size_t)r * (size_t)n;
        float *qr = q + (size_t)group[r] * (size_t)n;
        for (int i = 0; i < n; i++)
            qr[i] += yr[i];
    }
}
MOE_CLONES void moe_vec_sum_rows(int rows, int n, const float *restrict y, float *restrict sum) {
    for (int r = 0; r < rows; r++) {
        const float *yr = y + (size_t)r * (size_t)n;
        for (int i = 0; i < n; i++)
            sum[i] += yr[i];
    }
}
MOE_CLONES void moe_vec_mix(int rows, int n, const float *restrict w, int ldw,
                            const float *restrict x, float *restrict y) {
    for (int r = 0; r < rows; r++) {
        float a = w[(size_t)r * (size_t)ldw];
        const float *xr = x + (size_t)r * (size_t)n;
        float *yr = y + (size_t)r * (size_t)n;
        for (int i = 0; i < n; i++)
            yr[i] += a * xr[i];
    }
}

#define LANES 16
static inline __attribute__((always_inline)) float dot(size_t n, const float *x, const float *y) {
    float lane[LANES] = {0}, rest = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++)
            lane[j] += x[i + j] * y[i + j];
    for (; i < n; i++)
        rest += x[i] * y[i];
    for (size_t half = LANES / 2; half; half /= 2)
        for (size_t j = 0; j < half; j++)
            lane[j] += lane[j + half];
    return lane[0] + rest;
}
/* A row of x is in the registers and the nearest cache for all k modules at once. */
MOE_CLONES void moe_vec_mix_all(int rows, int n, int k, const float *const *w, const int *ldw,
                                const float *x, float *const *y) {
    for (int r = 0; r < rows; r++) {
        const float *xr = x + (size_t)r * (size_t)n;
        for (int i = 0; i < k; i++) {
            const float a = w[i][(size_t)r * (size_t)ldw[i]];
            float *restrict yr = y[i] + (size_t)r * (size_t)n;
            for (int c = 0; c < n; c++)
                yr[c] += a * xr[c];
        }
    }
}
MOE_CLONES void moe_vec_unmix_all(int rows, int n, int k, const float *const *w, const int *ldw,
                                  const float *const *dy, const float *x, float *const *dw,
                                  float *dx) {
    for (int r = 0; r < rows; r++) {
        const size_t at = (size_t)r * (size_t)n;
        float *restrict to = dx + at;
        for (int i = 0; i < k; i++) {
            const float a = w[i][(size_t)r * (size_t)ldw[i]], *restrict d = dy[i] + at;
            for (int c = 0; c < n && i == 0; c++)
                to[c] = a * d[c];
            for (int c = 0; c < n && i > 0; c++)
                to[c] += a * d[c];
            dw[i][(size_t)r * (size_t)ldw[i]] = dot((size_t)n, d, x + at);
        }
    }
}
MOE_CLONES void moe_vec_dots(int rows, int n, const float *restrict x, const float *restrict y,
                             float *restrict d, int ldd) {
    for (int r = 0; r < rows; r++) {
        size_t at = (size_t)r * (size_t)n;
        d[(size_t)r * (size_t)ldd] = dot((size_t)n, x + at, y + at);
    }
}
MOE_CLONES float moe_vec_dot(size_t n, const float *x, const float *y) { return dot(n, x, y); }

MOE_CLONES double moe_vec_sum_squares(size_t n, const float *x) {
    double lane[8] = {0}, sum = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (size_t j = 0; j < 8; j++)
            lane[j] += (double)x[i + j] * (double)x[i + j];
    for (; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    for (size_t j = 0; j < 8; j++)
        sum += lane[j];
    return sum;
}
