/* Tiles of every instruction set this CPU has, against sums in double precision, over random
 * shapes; all memory ends at pages that fault. Bounds, with S = |start| + sum |a w|:
 *
 *     fp32, bf16 (inputs already rounded)   (k + 2) 2^-23 S   any order of summation would do
 *     int8                                  2^-22 (|scale sum| + |start|): the sum itself is exact
 *
 * and outputs in bf16 or u8 get half a unit more. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/heap.h"
#include "base/rng.h"
#include "moe/score/pack.h"
#include "tests/support/suite.h"

/* `bytes` that end at an unmapped page; starts are aligned to 4 only. */
struct guarded {
    char *map, *p;
    size_t mapped;
};
static struct guarded guarded_new(size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (bytes + page - 1) / page * page;
    struct guarded g = {.mapped = body + page};
    g.map = mmap(NULL, g.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CU_ASSERT_FATAL(g.map != MAP_FAILED);
    CU_ASSERT_FATAL(mprotect(g.map + body, page, PROT_NONE) == 0);
    g.p = g.map + body - bytes;
    return g;
}
static void guarded_free(struct guarded *g) { munmap(g->map, g->mapped); }

struct shape {
    enum moe_precision precision;
    int m, k, n, steps, columns, nr;
    enum moe_end end;
    bool relu, scattered;
};
struct matrices {
    double *a, *w; /* [m x k], [k x n]: the values the tile really sees */
    struct guarded ga, gw, gstart, gout, gdot;
    struct moe_pack pack;
    float *start, *dot;
    int *rows;
};

static int each_of(enum moe_precision p) { return p == MOE_FP32 ? 1 : p == MOE_BF16 ? 2 : 4; }
static float around(struct rng *r) { return 2 * rng_float(r) - 1; }

static void make_activations(struct shape *s, struct matrices *x, struct rng *r) {
    x->a = HEAP_ARRAY(double, s->m * s->k);
    x->ga = guarded_new((size_t)s->m * (size_t)s->steps * 4);
    for (int i = 0; i < s->m; i++)
        for (int k = 0; k < s->k; k++) {
            char *row = x->ga.p + (size_t)i * (size_t)s->steps * 4;
            float v = around(r);
            uint16_t half = moe_bf16_of(v);
            uint8_t byte = (uint8_t)rng_below(r, 256);
            if (s->precision == MOE_FP32)
                memcpy(row + k * 4, &v, 4);
            else if (s->precision == MOE_BF16)
                memcpy(row + k * 2, &half, 2);
            else
                row[k] = (char)byte;
            x->a[i * s->k + k] = s->precision == MOE_FP32   ? v
                                 : s->precision == MOE_BF16 ? moe_bf16_value(half)
                                                            : byte;
        }
}

static void make_weights(struct shape *s, struct matrices *x, int nr, struct rng *r) {
    float *w = HEAP_ARRAY(float, s->k * s->n);
    for (int i = 0; i < s->k * s->n; i++)
        w[i] = s->precision == MOE_BF16 ? moe_bf16_value(moe_bf16_of(around(r))) : around(r);
    size_t bytes = moe_pack_bytes(s->precision, s->k, s->n, nr);
    x->gw = guarded_new(bytes);
    moe_pack_place(&x->pack, s->precision, s->k, s->n, nr, x->gw.p);
    moe_pack_fill(&x->pack, 0, s->n, w, (size_t)s->n, NULL);
    x->w = HEAP_ARRAY(double, s->k * s->n);
    for (int k = 0; k < s->k; k++)
        for (int c = 0; c < s->n; c++) {
            double v = w[k * s->n + c];
            if (s->precision == MOE_INT8) {
                float scale = x->pack.scale[c];
                v = scale > 0 ? (double)scale * (double)lrintf((float)v / scale) : 0;
            }
            x->w[k * s->n + c] = v;
        }
    heap_free(w);
}

static void make_ends(struct shape *s, struct matrices *x, struct rng *r) {
    size_t floats = (size_t)s->columns;
    x->gstart = guarded_new(floats * 4);
    x->gdot = guarded_new(floats * 4);
    x->start = (float *)(void *)x->gstart.p;
    x->dot = (float *)(void *)x->gdot.p;
    for (int c = 0; c < s->n; c++) {
        x->start[c] = around(r) * (s->end == MOE_END_U8 ? 200 : 1);
        x->dot[c] = around(r);
    }
    x->gout = guarded_new((size_t)s->m * floats * 4);
    x->rows = HEAP_ARRAY(int, s->m);
    for (int i = 0; i < s->m; i++)
        x->rows[i] = s->m - 1 - i;
}

static struct moe_tile tile_for(const struct shape *s, struct matrices *x) {
    size_t out = s->end == MOE_END_BF16 ? 2 : s->end == MOE_END_U8 ? 1 : 4;
    return (struct moe_tile){
        .a = x->ga.p,
        .a_stride = (size_t)s->steps * 4,
        .start = x->start,
        .relu = s->relu,
        .end = s->end,
        .out = s->end <= MOE_END_U8 ? x->gout.p : NULL,
        .out_stride = (size_t)s->columns * out,
        .rows = s->scattered ? x->rows : NULL,
        .dot = x->dot,
        .dot_out = (float *)(void *)x->gout.p,
        .dot_first = true,
        .dot_base = 0.25f,
    };
}

/* The value before the end, and how far off it may be. */
static double expected(const struct shape *s, const struct matrices *x, int row, int c,
                       double *bound) {
    double sum = 0, size = 0;
    for (int k = 0; k < s->k && c < s->n; k++) {
        double p = x->a[row * s->k + k] * x->w[k * s->n + c];
        sum += p;
        size += fabs(p);
    }
    double start = x->start[c];
    *bound = s->precision == MOE_INT8 ? ldexp(fabs(sum) + fabs(start), -22)
                                      : (s->k + 2) * ldexp(size + fabs(start), -23);
    double v = start + sum;
    return s->relu && v < 0 ? 0 : v;
}

static bool check_stored(const struct shape *s, const struct matrices *x, int row, int c) {
    double bound, want = expected(s, x, row, c, &bound), got;
    size_t to = (size_t)(s->scattered ? x->rows[row] : row);
    size_t at = to * (size_t)s->columns + (size_t)c;
    if (s->end == MOE_END_F32)
        got = ((const float *)(const void *)x->gout.p)[at];
    else if (s->end == MOE_END_BF16) {
        got = moe_bf16_value(((const uint16_t *)(const void *)x->gout.p)[at]);
        bound += fabs(want) * ldexp(1, -8);
    } else {
        got = ((const uint8_t *)x->gout.p)[at];
        want = want < 0 ? 0 : want > 255 ? 255 : want;
        bound += 0.5;
    }
    return fabs(got - want) <= bound;
}

static bool check_dots(const struct shape *s, const struct matrices *x, int row) {
    double want = 0.25, allowed = 1e-6;
    for (int c = 0; c < s->columns; c++) {
        double bound, v = expected(s, x, row, c, &bound);
        want += v * x->dot[c];
        allowed += (bound + fabs(v) * (s->columns + 2) * ldexp(1, -23)) * fabs(x->dot[c]);
    }
    return fabs(((const float *)(const void *)x->gout.p)[row] - want) <= allowed;
}

static void free_all(struct matrices *x) {
    struct guarded *all[] = {&x->ga, &x->gw, &x->gstart, &x->gout, &x->gdot};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        guarded_free(all[i]);
    heap_free(x->a);
    heap_free(x->w);
    heap_free(x->rows);
}

static int run_case(const struct moe_kernels *kernels, struct shape *s, struct rng *r) {
    struct matrices x = {0};
    s->steps = (s->k + each_of(s->precision) - 1) / each_of(s->precision);
    s->columns = (s->n + s->nr - 1) / s->nr * s->nr;
    make_activations(s, &x, r);
    make_weights(s, &x, s->nr, r);
    make_ends(s, &x, r);
    struct moe_tile t = tile_for(s, &x);
    if (s->end == MOE_END_DOT) { /* only one row of floats comes out */
        guarded_free(&x.gout);
        x.gout = guarded_new((size_t)s->m * 4);
        t.dot_out = (float *)(void *)x.gout.p;
    }
    moe_pack_run(kernels, &x.pack, &t, s->m, 0, x.pack.panels);
    int bad = 0;
    for (int row = 0; row < s->m; row++) {
        if (s->end == MOE_END_DOT)
            bad += !check_dots(s, &x, row);
        for (int c = 0; c < s->columns && s->end != MOE_END_DOT; c++)
            bad += !check_stored(s, &x, row, c);
    }
    free_all(&x);
    return bad;
}

static void random_cases(const struct moe_kernels *kernels, enum moe_precision precision,
                         int cases) {
    struct rng r;
    rng_init(&r, 17);
    for (int i = 0; i < cases; i++) {
        struct shape s = {.precision = precision};
        s.m = 1 + (int)rng_below(&r, i % 3 ? 60 : 15);
        s.k = 1 + (int)rng_below(&r, i % 4 ? 70 : 300);
        s.n = 1 + (int)rng_below(&r, 100);
        s.end = (enum moe_end)(i % 4);
        if (!kernels->mr[MOE_BF16] && (s.end == MOE_END_BF16 || s.end == MOE_END_U8))
            s.end = MOE_END_F32;
        s.nr = kernels->nr;
        if (kernels->narrow[precision] && rng_below(&r, 4) == 0) {
            s.nr = kernels->nr_narrow;
            s.end = MOE_END_F32;
        }
        s.relu = rng_below(&r, 2);
        s.scattered = s.end != MOE_END_DOT && rng_below(&r, 2);
        int bad = run_case(kernels, &s, &r);
        if (bad)
            printf("  %s %s nr %d m %d k %d n %d end %d relu %d scattered %d: %d wrong\n",
                   kernels->name, moe_precision_word(precision), s.nr, s.m, s.k, s.n, (int)s.end,
                   s.relu, s.scattered, bad);
        CU_ASSERT_EQUAL(bad, 0);
    }
}

static void all_precisions(const struct moe_kernels *kernels, const struct moe_cpu *cpu) {
    for (int p = MOE_FP32; p <= MOE_INT8; p++)
        if (kernels->mr[p] && moe_cpu_has(cpu, (enum moe_precision)p))
            random_cases(kernels, (enum moe_precision)p, 300);
}

static void test_portable(void) { all_precisions(&moe_kernels_portable, moe_cpu_host()); }
static void test_avx2(void) {
    if (moe_cpu_host()->isa >= MOE_ISA_AVX2)
        all_precisions(&moe_kernels_avx2, moe_cpu_host());
}
static void test_avx512(void) {
    if (moe_cpu_host()->isa >= MOE_ISA_AVX512)
        all_precisions(&moe_kernels_avx512, moe_cpu_host());
}

/* A row's bits do not depend on how many rows there are or where it stands. */
static void same_bits(const struct moe_kernels *kernels, enum moe_precision precision) {
    enum { K = 67, N = 45, ROWS = 40 };
    struct rng r;
    rng_init(&r, 3);
    struct moe_pack pack;
    float *w = HEAP_ARRAY(float, K *N), start[128] = {0};
    void *block = heap_alloc_aligned(moe_pack_bytes(precision, K, N, kernels->nr));
    for (int i = 0; i < K * N; i++)
        w[i] = around(&r);
    moe_pack_place(&pack, precision, K, N, kernels->nr, block);
    moe_pack_fill(&pack, 0, N, w, N, NULL);
    size_t row_bytes = moe_pack_row_bytes(precision, K);
    int columns = moe_pack_columns(&pack);
    char *a = heap_alloc_aligned(ROWS * row_bytes);
    for (size_t i = 0; i < ROWS * row_bytes; i++) /* bf16 and floats of moderate size */
        a[i] = precision == MOE_INT8 ? (char)rng_below(&r, 256)
               : i % 2               ? 0x3e
                                     : (char)rng_below(&r, 256);
    float *all = HEAP_ARRAY(float, ROWS *columns), *part = HEAP_ARRAY(float, ROWS *columns);
    struct moe_tile t = {.a = a,
                         .a_stride = row_bytes,
                         .start = start,
                         .end = MOE_END_F32,
                         .out = all,
                         .out_stride = (size_t)columns * 4};
    moe_pack_run(kernels, &pack, &t, ROWS, 0, pack.panels);
    int different = 0;
    for (int from = 0; from < ROWS; from += 3)
        for (int m = 1; from + m <= ROWS; m++) {
            t.a = a + (size_t)from * row_bytes;
            t.out = part;
            moe_pack_run(kernels, &pack, &t, m, 0, pack.panels);
            different += memcmp(part, all + from * columns, (size_t)(m * columns) * 4) != 0;
        }
    CU_ASSERT_EQUAL(different, 0);
    heap_free(w);
    heap_free(block);
    heap_free(a);
    heap_free(all);
    heap_free(part);
}

static void test_same_bits(void) {
    const struct moe_kernels *sets[] = {&moe_kernels_portable, &moe_kernels_avx2,
                                        &moe_kernels_avx512};
    for (int i = 0; i <= (int)moe_cpu_host()->isa; i++)
        for (int p = MOE_FP32; p <= MOE_INT8; p++)
            if (sets[i]->mr[p] && moe_cpu_has(moe_cpu_host(), (enum moe_precision)p))
                same_bits(sets[i], (enum moe_precision)p);
}

SUITE("moe_kernel_tile", TEST(test_portable), TEST(test_avx2), TEST(test_avx512),
      TEST(test_same_bits))
