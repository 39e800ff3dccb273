/* Elementwise kernels of every instruction set this CPU has, against double precision: sigmoid,
 * softmax, standardising, conversions, mixing, kept halves. NaN stays NaN where a server must see
 * it; a place in the row changes no bit. */
#include <math.h>
#include <string.h>
#include "base/rng.h"
#include "moe/score/pack.h"
#include "tests/support/suite.h"

static const struct moe_kernels *const sets[] = {&moe_kernels_portable, &moe_kernels_avx2,
                                                 &moe_kernels_avx512};
#define EACH_SET(k)                                                                                \
    for (int set_ = 0; set_ <= (int)moe_cpu_host()->isa; set_++)                                   \
        for (const struct moe_kernels *k = sets[set_]; k; k = NULL)

static void test_sigmoid(void) {
    EACH_SET(k) {
        float x[256], want[256];
        for (int i = 0; i < 256; i++) {
            x[i] = (float)(i - 128) * 0.61f;
            want[i] = (float)(1 / (1 + exp(-(double)x[i])));
        }
        x[3] = NAN;
        k->sigmoid(x, 256);
        for (int i = 0; i < 256; i++)
            if (i != 3 && !(fabsf(x[i] - want[i]) <= 4e-7f * want[i] + 1e-37f))
                CU_FAIL("sigmoid is off");
        CU_ASSERT(isnan(x[3]));
    }
}

static void test_softmax(void) {
    struct rng r;
    rng_init(&r, 4);
    EACH_SET(k) for (int lanes = 1; lanes <= 40; lanes++) {
        enum { ROWS = 5, STRIDE = 64 };
        float x[ROWS * STRIDE + 64], y[ROWS * STRIDE];
        for (int i = 0; i < ROWS * STRIDE + 64; i++) /* what stands behind a row may be anything */
            x[i] = i % STRIDE < lanes ? 20 * rng_float(&r) - 10 : NAN;
        k->softmax(x, STRIDE, y, STRIDE, ROWS, lanes);
        for (int row = 0; row < ROWS; row++) {
            double sum = 0;
            for (int i = 0; i < lanes; i++)
                sum += exp((double)x[row * STRIDE + i]);
            for (int i = 0; i < (lanes + 15) / 16 * 16; i++) {
                double want = i < lanes ? exp((double)x[row * STRIDE + i]) / sum : 0;
                if (!(fabs(y[row * STRIDE + i] - want) <= 1e-6 * want + 1e-9))
                    CU_FAIL("softmax is off");
            }
        }
    }
}

/* What choose should give one row: the k best, ties to the lower lane. */
static void chosen_weights(const struct moe_top *c, const float *h, double *want) {
    double sum = 0;
    bool in[MOE_LANES] = {false};
    for (int k = 0; k < c->k; k++) {
        int best = -1;
        for (int i = 0; i < c->n; i++)
            best = in[i] || (best >= 0 && h[i] <= h[best]) ? best : i;
        in[best] = true;
    }
    for (int i = 0; i < c->n; i++)
        sum += in[i] || !c->over_chosen ? exp((double)h[i]) : 0;
    for (int i = 0; i < MOE_LANES; i++)
        want[i] = i < c->n && in[i] ? c->scale * exp((double)h[i]) / sum : 0;
}

static void test_choose(void) {
    enum { ROWS = 7, STRIDE = 21 };
    struct rng r;
    rng_init(&r, 4);
    EACH_SET(k) for (int i = 0; i < 400; i++) {
        struct moe_top c = {.n = 1 + (int)rng_below(&r, MOE_LANES), .scale = i % 2 ? 1 : 2.5f};
        c.k = 1 + (int)rng_below(&r, (uint32_t)c.n);
        c.over_chosen = i % 3 != 0;
        float x[ROWS * STRIDE + MOE_LANES], y[ROWS * MOE_LANES];
        double want[MOE_LANES];
        for (int j = 0; j < ROWS * STRIDE + MOE_LANES; j++) /* few values: ties */
            x[j] = j % STRIDE < c.n ? (float)rng_below(&r, i % 5 ? 1000 : 3) * 0.01f : NAN;
        x[STRIDE + (int)rng_below(&r, (uint32_t)c.n)] = NAN;
        k->choose(&c, x, STRIDE, y, MOE_LANES, ROWS);
        for (int row = 0; row < ROWS; row++) {
            chosen_weights(&c, x + row * STRIDE, want);
            for (int j = 0; j < MOE_LANES; j++)
                if (row == 1 ? !isnan(y[MOE_LANES + j])
                             : !(fabs(y[row * MOE_LANES + j] - want[j]) <= 2e-6 * want[j]) ||
                                   (want[j] == 0) != (y[row * MOE_LANES + j] == 0))
                    CU_FAIL("choose is off");
        }
    }
}

static void test_standardise(void) {
    EACH_SET(k) {
        float x[37], mean[37], scale[37], y[37];
        for (int i = 0; i < 37; i++) {
            x[i] = (float)i * 3 - 50;
            mean[i] = (float)i;
            scale[i] = 0.1f;
        }
        x[2] = NAN;
        x[20] = INFINITY;
        x[36] = -INFINITY;
        k->standardise(x, mean, scale, 3, y, 37);
        for (int i = 0; i < 37; i++) {
            float want = (x[i] - mean[i]) * scale[i];
            want = want > 3 ? 3 : want < -3 ? -3 : want;
            CU_ASSERT_EQUAL(y[i], isfinite(x[i]) ? want : 0);
        }
    }
}

static void test_conversions(void) {
    struct rng r;
    rng_init(&r, 5);
    EACH_SET(k) {
        float x[64], per[64];
        uint16_t half[64];
        uint8_t byte[64];
        for (int i = 0; i < 64; i++) {
            x[i] = 8 * rng_float(&r) - 4;
            per[i] = 60 * rng_float(&r);
        }
        if (k->bf16 && moe_cpu_host()->bf16) {
            k->bf16(x, half, 64);
            for (int i = 0; i < 64; i++)
                CU_ASSERT_EQUAL(half[i], moe_bf16_of(x[i]));
        }
        if (k->u8) {
            k->u8(x, per, 128, byte, 64);
            for (int i = 0; i < 64; i++) {
                float q = rintf(x[i] * per[i]) + 128;
                CU_ASSERT_EQUAL(byte[i], (uint8_t)(q < 0 ? 0 : q > 255 ? 255 : q));
            }
        }
    }
}

enum { EXPERTS = 5, ROWS = 3, COLUMNS = 160, GATES = 16 };

static void check_mix(const struct moe_kernels *k, int from, int to, bool sparse) {
    static float x[ROWS * EXPERTS * COLUMNS], out[2 * ROWS * COLUMNS], gates[ROWS * GATES];
    static uint16_t xh[ROWS * EXPERTS * COLUMNS];
    struct rng r;
    rng_init(&r, 6);
    const size_t in = from ? 2 : 4, each = to ? 2 : 4;
    struct moe_term terms[EXPERTS];
    for (int i = 0; i < ROWS * GATES; i++)
        gates[i] = sparse && i % 3 == 0 ? 0 : rng_float(&r);
    for (int e = 0; e < EXPERTS; e++)
        terms[e] = (struct moe_term){(size_t)(e * COLUMNS) * in, (size_t)e};
    for (int i = 0; i < ROWS * EXPERTS * COLUMNS; i++) {
        int row = i / (EXPERTS * COLUMNS), e = i / COLUMNS % EXPERTS;
        xh[i] = moe_bf16_of(2 * rng_float(&r) - 1);
        x[i] = moe_bf16_value(xh[i]);
        if (sparse && gates[row * GATES + e] == 0) { /* nobody wrote there */
            x[i] = NAN;
            xh[i] = 0x7fc0;
        }
    }
    const struct moe_module_terms modules[2] = {{terms, EXPERTS}, {terms + 1, 2}};
    struct moe_blend m = {.modules = modules,
                          .n_modules = 2,
                          .sparse = sparse,
                          .x = from ? (const void *)xh : x,
                          .x_stride = EXPERTS * COLUMNS * in,
                          .gates = gates,
                          .gate_stride = GATES,
                          .columns = COLUMNS,
                          .out = out,
                          .out_stride = COLUMNS * each,
                          .module_stride = ROWS * COLUMNS * each};
    k->mix[from][to](&m, ROWS);
    int bad = 0;
    for (int i = 0; i < 2 * ROWS * COLUMNS; i++) {
        int module = i / (ROWS * COLUMNS), row = i / COLUMNS % ROWS, c = i % COLUMNS;
        double want = 0;
        for (int e = module; e < (module ? 3 : EXPERTS); e++)
            if (gates[row * GATES + e] != 0)
                want += (double)gates[row * GATES + e] * x[(row * EXPERTS + e) * COLUMNS + c];
        double got = to ? moe_bf16_value(((uint16_t *)(void *)out)[i]) : out[i];
        bad += !(fabs(got - want) <= 2e-6 + (to ? fabs(want) / 256 : 0));
    }
    CU_ASSERT_EQUAL(bad, 0);
}

static void test_mix(void) {
    EACH_SET(k)
    for (int from = 0; from < 2; from++)
        for (int to = 0; to < 2; to++)
            if (k->mix[from][to] && (from + to == 0 || moe_cpu_host()->bf16)) {
                check_mix(k, from, to, false);
                check_mix(k, from, to, true);
            }
}

static void test_half_int8(void) {
    enum { N = 128 };
    struct rng r;
    rng_init(&r, 7);
    EACH_SET(k) {
        int8_t half[N];
        int16_t start[N], step[N];
        uint8_t out[N];
        if (!k->half[MOE_INT8])
            continue;
        for (int i = 0; i < N; i++) {
            half[i] = (int8_t)((int)rng_below(&r, 255) - 127);
            start[i] = (int16_t)((int)rng_below(&r, 65536) - 32768);
            step[i] = (int16_t)(1 + rng_below(&r, 256));
        }
        const char *row = (const char *)half;
        struct moe_half h = {.rows = &row,
                             .columns = N,
                             .relu = true,
                             .start = start,
                             .step = step,
                             .out = out,
                             .out_stride = N};
        k->half[MOE_INT8](&h, 1);
        for (int at = 0; at < N; at++) {
            int c = at / 64 * 64 + moe_half_order(at % 64), sum = start[at] + half[at] * step[at];
            sum = sum > 32767 ? 32767 : sum < -32768 ? -32768 : sum;
            int want = sum >> 5;
            CU_ASSERT_EQUAL(out[c], want < 0 ? 0 : want > 255 ? 255 : want);
        }
    }
}

static void test_half_order(void) {
    int seen[64] = {0};
    for (int i = 0; i < 64; i++)
        seen[moe_half_order(i)]++;
    for (int i = 0; i < 64; i++)
        CU_ASSERT_EQUAL(seen[i], 1);
}

static void test_cpu_words(void) {
    struct moe_cpu cpu;
    CHECK_OK(moe_cpu_parse("portable", &cpu));
    CU_ASSERT(cpu.isa == MOE_ISA_PORTABLE && !cpu.bf16 && !cpu.vnni);
    CHECK_OK(moe_cpu_parse("no-bf16,no-vnni", &cpu));
    CU_ASSERT(cpu.isa == moe_cpu_host()->isa && !cpu.bf16 && !cpu.vnni);
    CHECK_OK(moe_cpu_parse("", &cpu));
    CU_ASSERT_EQUAL(cpu.bf16, moe_cpu_host()->bf16);
    CHECK_FAILS(moe_cpu_parse("avx3", &cpu), STATUS_INVALID_ARGUMENT, "'avx3'");
    if (moe_cpu_host()->isa < MOE_ISA_AVX512)
        CHECK_FAILS(moe_cpu_parse("avx512", &cpu), STATUS_UNIMPLEMENTED, "no avx512");
    CU_ASSERT(moe_cpu_peak(moe_cpu_host(), MOE_FP32, 50) > 0);
}

SUITE("moe_kernel_rows", TEST(test_sigmoid), TEST(test_softmax), TEST(test_choose),
      TEST(test_standardise), TEST(test_conversions), TEST(test_mix), TEST(test_half_int8),
      TEST(test_half_order), TEST(test_cpu_words))
