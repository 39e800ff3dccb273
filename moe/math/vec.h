/* vec.h: elementwise loops over arrays, compiled for several instruction sets. No BLAS, no state.
 * An element's result does not depend on its neighbours; sums over a row run in a fixed order. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* One source, three instruction sets, chosen when the program loads. Not under the thread
 * sanitizer, whose start-up the resolvers precede, and not with older clang, which gives the
 * resolved function another name than its callers in other files use. */
#if defined(__SANITIZE_THREAD__) || !defined(__x86_64__) ||                                        \
    (defined(__clang__) && __clang_major__ < 18)
#define MOE_CLONES
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MOE_CLONES
#endif
#endif
#ifndef MOE_CLONES
#define MOE_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#endif

enum moe_act { MOE_ACT_RELU, MOE_ACT_SILU, MOE_ACT_GELU, MOE_ACT_NONE };
#define MOE_ACT_CHOICES "relu|silu|gelu|none"
/* silu and gelu need their input in the backward pass; relu and none only the output */
static inline int moe_act_keeps_input(enum moe_act a) {
    return a == MOE_ACT_SILU || a == MOE_ACT_GELU;
}

/* y = act(x); x == y is allowed for all but may not be if the input is to be kept. GELU is the
 * tanh form. */
void moe_vec_act(enum moe_act act, size_t n, const float *x, float *y);
/* dy *= act'(kept), kept: the input (silu, gelu) or the output (relu, none) */
void moe_vec_act_grad(enum moe_act act, size_t n, const float *kept, float *dy);
void moe_vec_sigmoid(size_t n, const float *x, float *y);
/* Softmax of each row; in place allowed. x, y [rows x n] */
void moe_vec_softmax(int rows, int n, const float *x, float *y);
/* dx = y * (dy - <y, dy>) by row; dx == dy allowed. all [rows x n] */
void moe_vec_softmax_grad(int rows, int n, const float *y, const float *dy, float *dx);
/* Zeroes each element with probability `rate`, scales the rest; the mask is a function of (key,
 * index), so the same call masks the gradient. */
void moe_vec_dropout(size_t n, float rate, uint64_t key, float *y);
/* The same for elements [from, from + n) of a longer run; y [n]. */
void moe_vec_dropout_part(size_t from, size_t n, float rate, uint64_t key, float *y);

void moe_vec_add(size_t n, const float *x, float *y);           /* y += x */
void moe_vec_axpy(size_t n, float a, const float *x, float *y); /* y += a x */
void moe_vec_fill_rows(int rows, int n, const float *b,
                       float *y); /* every row of y [rows x n] = b [n] */
/* y[r] = q[group[r]]; q [groups x n], y [rows x n] */
void moe_vec_spread(int rows, int n, const float *q, const int *group, float *y);
/* q[group[r]] += y[r] */
void moe_vec_collect(int rows, int n, const float *y, const int *group, float *q);
void moe_vec_sum_rows(int rows, int n, const float *y, float *sum); /* sum [n] += rows of y */
/* y[r] += w[r * ldw] * x[r]; x, y [rows x n] */
void moe_vec_mix(int rows, int n, const float *w, int ldw, const float *x, float *y);
/* One expert's output x [rows x n] to k modules: y[i][r] += w[i][r * ldw[i]] * x[r] */
void moe_vec_mix_all(int rows, int n, int k, const float *const *w, const int *ldw, const float *x,
                     float *const *y);
/* Backwards: dx[r] = sum_i w[i][r * ldw[i]] * dy[i][r];  dw[i][r * ldw[i]] = <dy[i][r], x[r]> */
void moe_vec_unmix_all(int rows, int n, int k, const float *const *w, const int *ldw,
                       const float *const *dy, const float *x, float *const *dw, float *dx);
/* d[r * ldd] = <x[r], y[r]> */
void moe_vec_dots(int rows, int n, const float *x, const float *y, float *d, int ldd);
float moe_vec_dot(size_t n, const float *x, const float *y);
double moe_vec_sum_squares(size_t n, const float *x);
