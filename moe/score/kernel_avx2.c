/* kernel_avx2.c: the kernels for AVX2 and FMA: 6 x 16 tiles in fp32, of the 16 registers 12 are
 * sums. No bf16 and no int8: without their instructions they would save memory, not time. */
#include "moe/score/kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>

#define TARGET         __attribute__((target("avx2,fma")))
#define MR             6
#define NV             2
#define V              __m256
#define V_LANES        8
#define V_LOAD(p)      _mm256_loadu_ps(p)
#define V_STORE(p, v)  _mm256_storeu_ps((p), (v))
#define V_SET1(x)      _mm256_set1_ps(x)
#define V_FMA(a, b, c) _mm256_fmadd_ps((a), (b), (c))
#define V_RELU(v)      _mm256_max_ps(_mm256_setzero_ps(), (v)) /* NaN stays */
#define V_MAX(a, b)    _mm256_max_ps((a), (b))
#define V_MIN(a, b)    _mm256_min_ps((a), (b))
#define V_SUM(v)       sum_lanes(v)
#define V_MOST(v)      most_lanes(v)
#define V_BITS(p)      _mm256_broadcast_ss((const float *)(const void *)(p))
#define TILE_LOW       0

static inline __attribute__((always_inline)) TARGET float sum_lanes(__m256 v) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

static inline __attribute__((always_inline)) TARGET float most_lanes(__m256 v) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

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

const struct moe_kernels moe_kernels_avx2 = {
    .name = "avx2",
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
#endif
