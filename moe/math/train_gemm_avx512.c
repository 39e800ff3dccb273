/* train_gemm_avx512.c: the tiles of training for AVX-512: 14 rows x 32 (or 16) columns in
 * registers, multiply-adds in fp32 or vdpbf16ps, and the packing. Built by any x86-64 compiler
 * through function targets; run only where cpu.c found the instructions. */
#include "moe/math/train_gemm.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#define TARGET __attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#define INLINE static inline __attribute__((always_inline)) TARGET
#define MR     MOE_TRAIN_MR
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define EACH_ROW    UNROLL for (int r = 0; r < mr; r++)
#define EACH_VECTOR UNROLL for (int v = 0; v < nv; v++)

INLINE __m512 broadcast(const char *p) {
    int bits;
    memcpy(&bits, p, sizeof bits);
    return _mm512_castsi512_ps(_mm512_set1_epi32(bits));
}

/* Rows are reached from every third one, so that the addresses fit in the general registers. */
INLINE void tile_sum(const bool bf16, const int mr, const int nv, __m512 acc[][2],
                     const struct moe_train_tile *t) {
    const char *third[(MR + 2) / 3];
    const float *w = t->w;
    const char *soon = t->soon;
    const size_t ahead = 16 * t->w_step;
    UNROLL for (int i = 0; i < (MR + 2) / 3; i++) third[i] =
        t->a + (size_t)(i * 3 < mr ? i * 3 : 0) * t->a_row;
    EACH_ROW EACH_VECTOR {
        acc[r][v] = _mm512_setzero_ps();
        __builtin_prefetch(t->c + (size_t)r * t->ldc + v * 16, 1, 3); /* needed when k is through */
    }
    for (int k = 0; k < t->steps; k++) {
        __m512 wv[2];
        EACH_VECTOR wv[v] = _mm512_loadu_ps(w + v * 16);
        EACH_VECTOR __builtin_prefetch(w + ahead + 16 * v, 0, 3);
        __builtin_prefetch(soon, 0, 2);
        soon += t->soon_step;
        EACH_ROW {
            __m512 av = broadcast(third[r / 3] + (size_t)(r % 3) * t->a_row);
            EACH_VECTOR {
                if (bf16)
                    acc[r][v] = _mm512_dpbf16_ps(acc[r][v], (__m512bh)av, (__m512bh)wv[v]);
                else
                    acc[r][v] = _mm512_fmadd_ps(av, wv[v], acc[r][v]);
            }
        }
        w += t->w_step;
        UNROLL for (int i = 0; i < (MR + 2) / 3; i++) third[i] += t->a_step;
    }
}

INLINE void tile_body(const bool bf16, const int mr, const int nv, const struct moe_train_tile *t) {
    __m512 acc[MR][2];
    const __mmask16 mask[2] = {
        (__mmask16)(t->cols < 16 ? (1u << t->cols) - 1 : 0xffff),
        (__mmask16)(t->cols < 32 && t->cols > 16 ? (1u << (t->cols - 16)) - 1 : 0xffff)};
    tile_sum(bf16, mr, nv, acc, t);
    if (t->bias)
        EACH_VECTOR {
            __m512 b = _mm512_maskz_loadu_ps(mask[v], t->bias + v * 16);
            EACH_ROW acc[r][v] += b;
        }
    EACH_ROW EACH_VECTOR {
        float *c = t->c + (size_t)r * t->ldc + v * 16;
        __m512 x = acc[r][v];
        if (t->add)
            x += _mm512_maskz_loadu_ps(mask[v], c);
        _mm512_mask_storeu_ps(c, mask[v], x);
    }
}

#define TILE(type, bf16, mr)                                                                       \
    static TARGET void type##_##mr##_1(const struct moe_train_tile *t) {                           \
        tile_body(bf16, mr, 1, t);                                                                 \
    }                                                                                              \
    static TARGET void type##_##mr##_2(const struct moe_train_tile *t) {                           \
        tile_body(bf16, mr, 2, t);                                                                 \
    }
/* It would move these lines anew each time. */
/* clang-format off */
#define TILES(type, bf16)                                                                          \
    TILE(type, bf16, 1) TILE(type, bf16, 2) TILE(type, bf16, 3) TILE(type, bf16, 4)                \
    TILE(type, bf16, 5) TILE(type, bf16, 6) TILE(type, bf16, 7) TILE(type, bf16, 8)                \
    TILE(type, bf16, 9) TILE(type, bf16, 10) TILE(type, bf16, 11) TILE(type, bf16, 12)             \
    TILE(type, bf16, 13) TILE(type, bf16, 14)
TILES(fp32, false)
TILES(half, true)
#define BOTH(type, mr) {type##_##mr##_1, type##_##mr##_2}
#define ALL(type)                                                                                  \
    BOTH(type, 1), BOTH(type, 2), BOTH(type, 3), BOTH(type, 4), BOTH(type, 5), BOTH(type, 6),      \
    BOTH(type, 7), BOTH(type, 8), BOTH(type, 9), BOTH(type, 10), BOTH(type, 11), BOTH(type, 12),   \
    BOTH(type, 13), BOTH(type, 14)
/* clang-format on */
static void (*const tiles[2 * MR][2])(const struct moe_train_tile *t) = {ALL(fp32), ALL(half)};

/* --- packing ---------------------------------------------------------------------------------- */

INLINE __mmask16 first(int n) { return (__mmask16)(n < 16 ? (1u << n) - 1 : 0xffff); }

/* bf16 of a and b side by side: a0 b0 a1 b1 .. */
INLINE __m512 side_by_side(__m512 a, __m512 b) {
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(b, a);
    return _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, both));
}

/* Rows of a matrix as wide as ours lie pages apart: the hardware does not guess the next. */
#define AHEAD 32

static TARGET void pack(bool bf16, const float *x, size_t ld, int k, int cols, float *out,
                        size_t stride) {
    const __mmask16 m = first(cols);
    int i = 0;
    if (!bf16) {
        for (; i < k; i++, x += ld, out += stride) {
            __builtin_prefetch(x + AHEAD * ld, 0, 3);
            _mm512_storeu_ps(out, _mm512_maskz_loadu_ps(m, x));
        }
        return;
    }
    for (; i + 2 <= k; i += 2, x += 2 * ld, out += stride) {
        __builtin_prefetch(x + AHEAD * ld, 0, 3);
        __builtin_prefetch(x + (AHEAD + 1) * ld, 0, 3);
        _mm512_storeu_ps(
            out, side_by_side(_mm512_maskz_loadu_ps(m, x), _mm512_maskz_loadu_ps(m, x + ld)));
    }
    if (i < k)
        _mm512_storeu_ps(out, side_by_side(_mm512_maskz_loadu_ps(m, x), _mm512_setzero_ps()));
}

/* 16 x 16 of four bytes: pairs, quads, then 128-bit lanes twice. */
INLINE void transpose(__m512 r[16]) {
    __m512 t[16];
    UNROLL for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4) {
        UNROLL for (int h = 0; h < 2; h++) {
            __m512d lo = _mm512_castps_pd(t[i + h]), hi = _mm512_castps_pd(t[i + 2 + h]);
            r[i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(lo, hi));
            r[i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(lo, hi));
        }
    }
    UNROLL for (int i = 0; i < 4; i++) {
        __m512 a = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
        __m512 b = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
        __m512 c = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
        __m512 d = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
        t[i] = _mm512_shuffle_f32x4(a, c, 0x88);
        t[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
        t[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
    UNROLL for (int i = 0; i < 16; i++) r[i] = t[i];
}

/* 16 steps of k of one row, `left` floats of which there are. */
INLINE __m512 row_steps(bool bf16, const float *x, int left) {
    if (!bf16)
        return _mm512_maskz_loadu_ps(first(left), x);
    __m512 low = _mm512_maskz_loadu_ps(first(left), x);
    __m512 high = left > 16 ? _mm512_maskz_loadu_ps(first(left - 16), x + 16) : _mm512_setzero_ps();
    return _mm512_castsi512_ps((__m512i)_mm512_cvtne2ps_pbh(high, low));
}

static TARGET void pack_across(bool bf16, const float *x, size_t ld, int k, int cols, float *out,
                               size_t stride) {
    const int run = bf16 ? 32 : 16;
    for (int i = 0; i < k; i += run) {
        const int left = k - i, steps = bf16 ? (left + 1) / 2 : left;
        __m512 r[16];
        for (int c = 0; c < 16; c++)
            r[c] = c < cols ? row_steps(bf16, x + (size_t)c * ld + i, left) : _mm512_setzero_ps();
        transpose(r);
        for (int s = 0; s < 16 && s < steps; s++, out += stride)
            _mm512_storeu_ps(out, r[s]);
    }
}

static TARGET void round_row(const float *x, int k, void *out) {
    for (int i = 0; i < k; i += 32)
        _mm512_storeu_ps((float *)out + i / 2, row_steps(true, x + i, k - i));
}

const struct moe_train_kernels moe_train_kernels_avx512 = {
    .tile = tiles, .pack = pack, .pack_across = pack_across, .round = round_row};
#endif
