/* kernel_avx512.c: the kernels for AVX-512: 14 x 32 tiles in fp32, bf16 (vdpbf16ps) and int8
 * (vpdpbusd). Built by any x86-64 compiler through function targets; run only where cpu.c found the
 * instructions. */
#include "moe/score/kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <string.h>

#define TARGET                                                                                     \
    __attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16")))
#define MR             14
#define NV             2
#define V              __m512
#define V_LANES        16
#define V_LOAD(p)      _mm512_loadu_ps(p)
#define V_STORE(p, v)  _mm512_storeu_ps((p), (v))
#define V_SET1(x)      _mm512_set1_ps(x)
#define V_FMA(a, b, c) _mm512_fmadd_ps((a), (b), (c))
#define V_RELU(v)      _mm512_max_ps(_mm512_setzero_ps(), (v)) /* NaN stays */
#define V_SUM(v)       _mm512_reduce_add_ps(v)
#define V_MOST(v)      _mm512_reduce_max_ps(v)
#define V_MAX(a, b)    _mm512_max_ps((a), (b))
#define V_MIN(a, b)    _mm512_min_ps((a), (b))
#define V_BITS(p)      _mm512_castsi512_ps(_mm512_set1_epi32(load_bits(p)))
#define TILE_LOW       1

static inline __attribute__((always_inline)) int load_bits(const char *p) {
    int bits;
    memcpy(&bits, p, sizeof bits);
    return bits;
}

#include "moe/score/kernel_tile.inc"
#include "moe/score/kernel_rows.inc"

/* It would move these lines anew each time. */
/* clang-format off */
#define EACH_MR(X, type)                                                                           \
    X(type, 1) X(type, 2) X(type, 3) X(type, 4) X(type, 5) X(type, 6) X(type, 7) X(type, 8)        \
    X(type, 9) X(type, 10) X(type, 11) X(type, 12) X(type, 13) X(type, 14)
#define TILE_OF(type, mr)   tile_##type##_##mr,
#define NARROW_OF(type, mr) narrow_##type##_##mr,
/* clang-format on */
EACH_MR(TILE, MOE_FP32)
EACH_MR(TILE, MOE_BF16)
EACH_MR(TILE, MOE_INT8)
EACH_MR(NARROW, MOE_FP32)
EACH_MR(NARROW, MOE_BF16)
static moe_tile_fn *const tiles[][MR] = {
    {EACH_MR(TILE_OF, MOE_FP32)}, {EACH_MR(TILE_OF, MOE_BF16)}, {EACH_MR(TILE_OF, MOE_INT8)}};
static moe_tile_fn *const narrow[][MR] = {{EACH_MR(NARROW_OF, MOE_FP32)},
                                          {EACH_MR(NARROW_OF, MOE_BF16)}};

const struct moe_kernels moe_kernels_avx512 = {
    .name = "avx512",
    .nr = NR,
    .mr = {MR, MR, MR},
    .tile = {tiles[0], tiles[1], tiles[2]},
    .nr_narrow = V_LANES,
    .narrow = {narrow[0], narrow[1], NULL},
    .sigmoid = rows_sigmoid,
    .softmax = rows_softmax,
    .choose = rows_choose,
    .mix = {{mix_f32_f32, mix_f32_bf16}, {mix_bf16_f32, mix_bf16_bf16}},
    .half = {half_f32, half_bf16, half_int8},
    .standardise = rows_standardise,
    .bf16 = rows_bf16,
    .u8 = rows_u8,
};
#endif
