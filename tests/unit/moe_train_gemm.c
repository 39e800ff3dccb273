/* Products of training against sums in double precision: every transposition, fp32 and bf16, odd
 * sizes and strides, on top of what stands in C, and the pieces that are announced. What lies
 * beside the matrices is not touched. Bounds: (k + 2) 2^-23 sum |a b|. */
#include <math.h>
#include <string.h>
#include "base/heap.h"
#include "base/rng.h"
#include "moe/math/blas.h"
#include "moe/score/pack.h"
#include "moe/math/train_gemm.h"
#include "tests/support/suite.h"

#define BESIDE 12345.0f

struct pieces {
    unsigned char *seen; /* [m x n] */
    const struct moe_train_gemm *g;
    int wrong;
};
static void note(void *ctx, int row, int rows, int col, int cols) {
    struct pieces *p = ctx;
    for (int i = row; i < row + rows; i++)
        for (int j = col; j < col + cols; j++)
            p->wrong += p->seen[(size_t)i * (size_t)p->g->n + (size_t)j]++ != 0;
}

static float *drawn(size_t n, struct rng *r) {
    float *x = HEAP_ARRAY(float, n + 1);
    for (size_t i = 0; i < n; i++)
        x[i] = 2 * rng_float(r) - 1;
    return x;
}

static double operand(const struct moe_train_gemm *g, const float *x, int ld, bool across, int i,
                      int j) {
    float v =
        across ? x[(size_t)j * (size_t)ld + (size_t)i] : x[(size_t)i * (size_t)ld + (size_t)j];
    return (double)(g->bf16 ? moe_bf16_value(moe_bf16_of(v)) : v);
}

static int wrong_elements(const struct moe_train_gemm *g, const float *before) {
    int wrong = 0;
    for (int i = 0; i < g->m; i++)
        for (int j = 0; j < g->ldc; j++) {
            size_t at = (size_t)i * (size_t)g->ldc + (size_t)j;
            double sum = 0, size = 0;
            if (j >= g->n) {
                wrong += g->c[at] != before[at];
                continue;
            }
            sum = g->add ? (double)before[at] : g->bias ? (double)g->bias[j] : 0;
            size = fabs(sum);
            for (int k = 0; k < g->k; k++) {
                double x =
                    operand(g, g->a, g->lda, g->ta, i, k) * operand(g, g->b, g->ldb, g->tb, k, j);
                sum += x;
                size += fabs(x);
            }
            wrong += !(fabs((double)g->c[at] - sum) <= (g->k + 2) * 0x1p-23 * size);
        }
    return wrong;
}

static void check(struct moe_train_gemm g, struct rng *r) {
    size_t floats = (size_t)g.m * (size_t)g.ldc;
    float *a = drawn((size_t)(g.ta ? g.k : g.m) * (size_t)g.lda, r);
    float *b = drawn((size_t)(g.tb ? g.n : g.k) * (size_t)g.ldb, r);
    float *c = drawn(floats, r), *before = HEAP_ARRAY(float, floats), *bias = drawn((size_t)g.n, r);
    struct pieces pieces = {.seen = HEAP_ARRAY(unsigned char, (size_t)g.m *(size_t)g.n), .g = &g};
    for (int i = 0; i < g.m; i++)
        for (int j = 0; j < g.ldc; j++)
            if (j >= g.n)
                c[(size_t)i * (size_t)g.ldc + (size_t)j] = BESIDE;
            else if (!g.add)
                c[(size_t)i * (size_t)g.ldc + (size_t)j] = NAN; /* must not be read */
    memcpy(before, c, floats * sizeof *c);
    g.a = a;
    g.b = b;
    g.c = c;
    g.bias = g.add ? NULL : bias;
    g.done = note;
    g.ctx = &pieces;
    moe_train_gemm(&g);
    int wrong = wrong_elements(&g, before);
    CU_ASSERT_EQUAL(wrong, 0);
    CU_ASSERT_EQUAL(pieces.wrong, 0);
    CU_ASSERT_PTR_NULL(memchr(pieces.seen, 0, (size_t)g.m * (size_t)g.n));
    if (wrong)
        printf("  %d x %d x %d ta %d tb %d bf16 %d add %d: %d wrong\n", g.m, g.n, g.k, g.ta, g.tb,
               g.bf16, g.add, wrong);
    float *all[] = {a, b, c, before, bias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        heap_free(all[i]);
    heap_free(pieces.seen);
}

static int size(struct rng *r) {
    static const int sizes[] = {1, 2, 3, 13, 14, 15, 16, 17, 28, 31, 32, 33, 48, 64, 65};
    return rng_below(r, 8) == 0 ? 200 + (int)rng_below(r, 1200)
                                : sizes[rng_below(r, sizeof sizes / sizeof *sizes)];
}

static void test_products(void) {
    struct rng r;
    rng_init(&r, 1);
    for (int i = 0; i < 1200 && moe_train_gemm_possible(false); i++) {
        struct moe_train_gemm g = {.ta = rng_below(&r, 2),
                                   .tb = rng_below(&r, 2),
                                   .bf16 = moe_train_gemm_possible(true) && rng_below(&r, 2),
                                   .add = rng_below(&r, 2),
                                   .m = size(&r),
                                   .n = size(&r),
                                   .k = size(&r)};
        if ((double)g.m * g.n * g.k > 3e7)
            continue;
        int more = (int)rng_below(&r, 3) * 5;
        g.lda = (g.ta ? g.m : g.k) + more;
        g.ldb = (g.tb ? g.k : g.n) + more;
        g.ldc = g.n + more;
        if (i % 8 == 0) { /* rows 2 KB apart are packed, others read where they stand */
            g.lda = (g.lda + 511) / 512 * 512;
            g.ldb = (g.ldb + 511) / 512 * 512;
        }
        check(g, &r);
    }
}

/* NaN and infinity arrive in C: no masked lane swallows them. */
static void test_not_finite(void) {
    float a[40], b[40 * 5], c[5];
    struct moe_train_gemm g = {.m = 1, .n = 5, .k = 40, .a = a, .b = b, .c = c};
    g.lda = 40;
    g.ldb = g.ldc = 5;
    for (int half = 0; half < 2; half++) {
        if (!moe_train_gemm_possible(half))
            continue;
        for (int i = 0; i < 40; i++)
            a[i] = 1;
        for (int i = 0; i < 200; i++)
            b[i] = 1;
        g.bf16 = half;
        b[39 * 5 + 2] = NAN;
        b[7 * 5 + 3] = INFINITY;
        moe_train_gemm(&g);
        CU_ASSERT_EQUAL(c[1], 40);
        CU_ASSERT(isnan(c[2]));
        CU_ASSERT(isinf(c[3]));
    }
}

/* moe_gemm keeps what was asked of it: bf16 only while it is on, and not for narrow products. */
static void test_switch(void) {
    enum { N = 40 };
    float a[N * N], b[N * N], full[N * N], half[N * N];
    struct rng r;
    rng_init(&r, 3);
    for (int i = 0; i < N * N; i++) {
        a[i] = 2 * rng_float(&r) - 1;
        b[i] = 2 * rng_float(&r) - 1;
    }
    moe_gemm(0, 0, N, N, N, a, N, b, N, 0, full, N);
    int was = moe_gemm_set_bf16(1);
    CU_ASSERT_EQUAL(was, 0);
    moe_gemm(0, 0, N, N, N, a, N, b, N, 0, half, N);
    CU_ASSERT_EQUAL(memcmp(full, half, sizeof full) != 0, moe_train_gemm_possible(true));
    moe_gemm(0, 0, N, 8, N, a, N, b, N, 0, half, N);
    for (int i = 0; i < N; i++)
        for (int j = 0; j < 8; j++)
            CU_ASSERT_DOUBLE_EQUAL(half[i * N + j], full[i * N + j], 1e-5);
    CU_ASSERT_EQUAL(moe_gemm_set_bf16(0), 1);
    moe_gemm(0, 0, N, N, N, a, N, b, N, 0, half, N);
    CU_ASSERT_EQUAL(memcmp(full, half, sizeof full), 0);
}

/* A packed operand is kept for its key and for no other; two products share one B. */
static void test_kept_and_also(void) {
    enum { K = 700, M = 45, N = 33, OTHER = 20 };
    struct rng r;
    rng_init(&r, 4);
    for (int half = 0; half < 2; half++) {
        if (!moe_train_gemm_possible(half))
            continue;
        float *a = drawn(K * M, &r), *a2 = drawn(K * OTHER, &r), *b = drawn(K * N, &r);
        float *c = drawn((M + OTHER) * N, &r), *plain = HEAP_ARRAY(float, (M + OTHER) * N);
        struct moe_train_gemm g = {.ta = true,
                                   .bf16 = half,
                                   .m = M,
                                   .n = N,
                                   .k = K,
                                   .a = a,
                                   .b = b,
                                   .c = plain,
                                   .lda = M,
                                   .ldb = N,
                                   .ldc = N};
        struct moe_train_gemm also = g;
        also.m = also.lda = OTHER;
        also.a = a2;
        also.c = plain + M * N;
        for (uint64_t key = 1; key < 4; key++) {
            a[5] = a2[7] = (float)key; /* new contents, new key */
            g.key = also.key = 0;
            g.also = NULL;
            g.c = plain;
            also.c = plain + M * N;
            moe_train_gemm(&g);
            moe_train_gemm(&also);
            g.key = also.key = key + (uint64_t)half * 10;
            g.c = c;
            also.c = c + M * N;
            g.also = &also;
            for (int again = 0; again < 2; again++) {
                memset(c, 0xff, (M + OTHER) * N * sizeof *c);
                moe_train_gemm(&g);
                CU_ASSERT_EQUAL(memcmp(c, plain, (M + OTHER) * N * sizeof *c), 0);
            }
        }
        float *all[] = {a, a2, b, c, plain};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            heap_free(all[i]);
    }
}

SUITE("moe_train_gemm", TEST(test_kept_and_also), TEST(test_products), TEST(test_not_finite),
      TEST(test_switch))
