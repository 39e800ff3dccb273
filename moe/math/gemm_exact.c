/* gemm_exact.c: C = A B + beta C where every element is one chain of products in the order of k,
 * whatever m is and wherever its row stands. OpenBLAS does not promise that (its Haswell kernels
 * sum differently at a tile's edge), and scorer.h does. Plain C on the compiler's vectors, in 6 x
 * 16 register tiles; nothing is packed. */
#include <string.h>
#include "moe/math/blas.h"
#include "moe/math/vec.h"

#define MR 6
#define NR 16

/* NR floats wherever they stand. Spelled as a vector: left to itself, gcc 12 vectorises the loop
 * over rows and spills all of it. */
typedef float lanes __attribute__((vector_size(NR * sizeof(float)), aligned(4)));

/* One tile of `rows` <= MR rows and NR columns; constant bounds so that `sum` stays in registers.
 */
static inline __attribute__((always_inline)) void tile(int rows, int k, const float *a, size_t lda,
                                                       const float *b, size_t ldb, float beta,
                                                       float *c, size_t ldc) {
    lanes sum[MR];
    for (int i = 0; i < rows; i++) {
        const lanes *from = (const lanes *)(const void *)(c + (size_t)i * ldc);
        sum[i] = beta == 0 ? (lanes){0} : beta * *from;
    }
    for (int l = 0; l < k; l++) {
        const lanes w = *(const lanes *)(const void *)(b + (size_t)l * ldb);
        for (int i = 0; i < rows; i++)
            sum[i] += a[(size_t)i * lda + (size_t)l] * w;
    }
    for (int i = 0; i < rows; i++)
        *(lanes *)(void *)(c + (size_t)i * ldc) = sum[i];
}

/* NR columns of all rows; b [k x ldb] */
MOE_CLONES static void panel(int m, int k, const float *restrict a, size_t lda,
                             const float *restrict b, size_t ldb, float beta, float *restrict c,
                             size_t ldc) {
    int i = 0;
    for (; i + MR <= m; i += MR)
        tile(MR, k, a + (size_t)i * lda, lda, b, ldb, beta, c + (size_t)i * ldc, ldc);
    for (; i < m; i++)
        tile(1, k, a + (size_t)i * lda, lda, b, ldb, beta, c + (size_t)i * ldc, ldc);
}

/* The last columns, fewer than NR: through a padded copy of b's, in runs of k. The first run has
 * the caller's beta, the others add: the same chain as in one run. */
#define RUN 128
static void edge(int m, int n, int k, const float *a, size_t lda, const float *b, size_t ldb,
                 float beta, float *c, size_t ldc) {
    float pad[RUN * NR], out[MR * NR];
    for (int from = 0; from < k || from == 0; from += RUN) {
        int run = k - from < RUN ? k - from : RUN;
        memset(pad, 0, sizeof pad);
        for (int l = 0; l < run; l++)
            memcpy(pad + l * NR, b + (size_t)(from + l) * ldb, (size_t)n * sizeof *pad);
        for (int i = 0; i < m; i += MR) {
            int rows = m - i < MR ? m - i : MR;
            memset(out, 0, sizeof out);
            for (int r = 0; r < rows; r++)
                memcpy(out + r * NR, c + (size_t)(i + r) * ldc, (size_t)n * sizeof *out);
            panel(rows, run, a + (size_t)i * lda + from, lda, pad, NR, from ? 1 : beta, out, NR);
            for (int r = 0; r < rows; r++)
                memcpy(c + (size_t)(i + r) * ldc, out + r * NR, (size_t)n * sizeof *out);
        }
    }
}

void moe_gemm_exact(int m, int n, int k, const float *a, int lda, const float *b, int ldb,
                    float beta, float *c, int ldc) {
    int j = 0;
    for (; j + NR <= n; j += NR)
        panel(m, k, a, (size_t)lda, b + j, (size_t)ldb, beta, c + j, (size_t)ldc);
    if (j < n)
        edge(m, n - j, k, a, (size_t)lda, b + j, (size_t)ldb, beta, c + j, (size_t)ldc);
}
