/* kernel_avx512.c: the kernels for AVX-512: 14 x 32 tiles in fp32, bf16 (vdpbf16ps) and int8
 * (vpdpbusd). Built by any x86-64 compiler through function targets; run only where cpu.c found the
 * instructions. */
#include "moe/kernel.h"

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

#include "moe/kernel_tile.inc"
#include "moe/kernel_rows.inc"

/* It would move these lines anew each time. */
/* clang-format off */
#define TILES(type)                                                                                \
    TILE(type, 1) TILE(type, 2) TILE(type, 3) TILE(type, 4) TILE(type, 5) TILE(type, 6)            \
    TILE(type, 7) TILE(type, 8) TILE(type, 9) TILE(type, 10) TILE(type, 11) TILE(type, 12)         \
    TILE(type, 13) TILE(type, 14)                                                                  \
    static moe_tile_fn *const tiles_##type[MR] = {                                                 \
        tile_##type##_1,  tile_##type##_2,  tile_##type##_3,  tile_##type##_4,  tile_##type##_5,   \
        tile_##type##_6,  tile_##type##_7,  tile_##type##_8,  tile_##type##_9,  tile_##type##_10,  \
        tile_##type##_11, tile_##type##_12, tile_##type##_13, tile_##type##_14};
/* clang-format on */
TILES(MOE_FP32)
TILES(MOE_BF16)
TILES(MOE_INT8)

const struct moe_kernels moe_kernels_avx512 = {
    .name = "avx512",
    .nr = NR,
    .mr = {MR, MR, MR},
    .tile = {tiles_MOE_FP32, tiles_MOE_BF16, tiles_MOE_INT8},
    .sigmoid = rows_sigmoid,
    .softmax = rows_softmax,
    .mix = {{mix_f32_f32, mix_f32_bf16}, {mix_bf16_f32, mix_bf16_bf16}},
    .half = {half_f32, half_bf16, half_int8},
    .standardise = rows_standardise,
    .bf16 = rows_bf16,
    .u8 = rows_u8,
};
#endif
