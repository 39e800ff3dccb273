/* kernel_portable.c: the kernels in plain C on the compiler's vectors of four, for any CPU; and the
 * choice among the sets. It multiplies and adds with two roundings where the others have one, so
 * its results agree with theirs within a bound, not in bits. */
#include "moe/score/kernel.h"
#include <math.h>
#include <string.h>

typedef float four __attribute__((vector_size(16)));
#define TARGET
#define MR             6
#define NV             2
#define V              four
#define V_LANES        4
#define V_LOAD(p)      load(p)
#define V_STORE(p, v)  store((p), (v))
#define V_SET1(x)      set1(x)
#define V_FMA(a, b, c) ((a) * (b) + (c))
#define V_RELU(v)      larger(set1(0.0f), (v)) /* NaN stays */
#define V_MAX(a, b)    larger((a), (b))
#define V_MIN(a, b)    smaller((a), (b))
#define V_SUM(v)       sum_lanes(v)
#define V_MOST(v)      most_lanes(v)
#define V_BITS(p)      set1(load_one(p))
#define TILE_LOW       0
#define HERE           static inline __attribute__((always_inline))

HERE four load(const float *p) {
    four v;
    memcpy(&v, p, sizeof v);
    return v;
}
HERE float load_one(const char *p) {
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}
HERE void store(float *p, four v) { memcpy(p, &v, sizeof v); }
HERE four set1(float x) { return (four){x, x, x, x}; }
typedef int four_int __attribute__((vector_size(16)));
HERE four choose(four_int first, four a, four b) {
    return (four)((first & (four_int)a) | (~first & (four_int)b));
}
HERE four larger(four a, four b) { return choose(a > b, a, b); }
HERE four smaller(four a, four b) { return choose(a < b, a, b); }
HERE float sum_lanes(four v) { return (v[0] + v[2]) + (v[1] + v[3]); }
HERE float most_lanes(four v) { return fmaxf(fmaxf(v[0], v[2]), fmaxf(v[1], v[3])); }

#include "moe/score/kernel_tile.inc"
#include "moe/score/kernel_rows.inc"

/* clang-format off */
#define EACH_MR(X, type) X(type, 1) X(type, 2) X(type, 3) X(type, 4) X(type, 5) X(type, 6)
#define TILE_OF(type, mr)   tile_##type##_##mr,
#define NARROW_OF(type, mr) narrow_##type##_##mr,
/* clang-format on */
EACH_MR(TILE, MOE_FP32)
EACH_MR(NARROW, MOE_FP32)
static moe_tile_fn *const tiles[MR] = {EACH_MR(TILE_OF, MOE_FP32)};
static moe_tile_fn *const narrow[MR] = {EACH_MR(NARROW_OF, MOE_FP32)};

const struct moe_kernels moe_kernels_portable = {
    .name = "portable",
    .nr = NR,
    .mr = {MR, 0, 0},
    .tile = {tiles, NULL, NULL},
    .nr_narrow = V_LANES,
    .narrow = {narrow, NULL, NULL},
    .sigmoid = rows_sigmoid,
    .softmax = rows_softmax,
    .choose = rows_choose,
    .mix = {{mix_f32_f32, NULL}, {NULL, NULL}},
    .half = {half_f32, NULL, NULL},
    .standardise = rows_standardise,
};

const struct moe_kernels *moe_kernels_for(const struct moe_cpu *cpu) {
#if defined(__x86_64__)
    if (cpu->isa == MOE_ISA_AVX512)
        return &moe_kernels_avx512;
    if (cpu->isa == MOE_ISA_AVX2)
        return &moe_kernels_avx2;
#endif
    (void)cpu;
    return &moe_kernels_portable;
}
