/* blas.c: OpenBLAS behind one function, and the kernels of train_gemm.h where the CPU has them: 95
 * % of the peak against 85 %, and bf16, which Debian's OpenBLAS has not. A single row or column
 * stays with sgemv: sgemm is up to seven times slower there (measured). */
#include "moe/math/blas.h"
#include <cblas.h>
#include <string.h>
#include "moe/math/train_gemm.h"

__attribute__((constructor)) static void one_thread(void) { openblas_set_num_threads(1); }

static _Thread_local int exact;
int moe_gemm_set_exact(int on) {
    int was = exact;
    exact = on;
    return was;
}

static _Thread_local int bf16;
int moe_gemm_set_bf16(int on) {
    int was = bf16;
    bf16 = on;
    return was;
}
int moe_gemm_bf16(int m, int n, int k) {
    return bf16 && m >= MOE_BF16_FROM && n >= MOE_BF16_FROM && k >= MOE_BF16_FROM &&
           moe_train_gemm_possible(true);
}
int moe_gemm_own(void) { return !exact && moe_train_gemm_possible(false); }

static void scale(int m, int n, float beta, float *c, int ldc) {
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++)
            c[(size_t)i * (size_t)ldc + (size_t)j] =
                beta == 0 ? 0 : beta * c[(size_t)i * (size_t)ldc + (size_t)j];
}

void moe_gemm(int ta, int tb, int m, int n, int k, const float *a, int lda, const float *b, int ldb,
              float beta, float *c, int ldc) {
    if (m <= 0 || n <= 0)
        return;
    if (k <= 0) {
        scale(m, n, beta, c, ldc);
        return;
    }
    if (exact && !ta && !tb) {
        moe_gemm_exact(m, n, k, a, lda, b, ldb, beta, c, ldc);
        return;
    }
    if (m == 1 && (!ta || lda == 1)) { /* y = op(B)^T a */
        cblas_sgemv(CblasRowMajor, tb ? CblasNoTrans : CblasTrans, tb ? n : k, tb ? k : n, 1.0f, b,
                    ldb, a, 1, beta, c, 1);
        return;
    }
    if (n > 4 && (beta == 0 || beta == 1) && moe_gemm_own()) {
        moe_train_gemm(&(struct moe_train_gemm){.ta = ta,
                                                .tb = tb,
                                                .bf16 = moe_gemm_bf16(m, n, k),
                                                .add = beta == 1,
                                                .m = m,
                                                .n = n,
                                                .k = k,
                                                .a = a,
                                                .b = b,
                                                .c = c,
                                                .lda = lda,
                                                .ldb = ldb,
                                                .ldc = ldc});
        return;
    }
    cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, m, n,
                k, 1.0f, a, lda, b, ldb, beta, c, ldc);
}

static int narrow(const struct moe_train_gemm *g) { return g->m <= 1 || g->n <= 4 || g->k <= 0; }

void moe_gemm_then(const struct moe_train_gemm *g) {
    if (g->m <= 0 || g->n <= 0)
        return;
    if (moe_gemm_own() && !narrow(g) && (!g->also || !narrow(g->also))) {
        struct moe_train_gemm own = *g, also = g->also ? *g->also : *g;
        own.bf16 = also.bf16 = moe_gemm_bf16(g->m < also.m ? g->m : also.m, g->n, g->k);
        if (g->also)
            own.also = &also;
        moe_train_gemm(&own);
        return;
    }
    for (int i = 0; g->bias && i < g->m; i++)
        memcpy(g->c + (size_t)i * (size_t)g->ldc, g->bias, (size_t)g->n * sizeof *g->c);
    moe_gemm(g->ta, g->tb, g->m, g->n, g->k, g->a, g->lda, g->b, g->ldb, g->add || g->bias, g->c,
             g->ldc);
    if (g->done)
        g->done(g->ctx, 0, g->m, 0, g->n);
    if (g->also)
        moe_gemm_then(g->also);
}

const char *moe_blas_core(void) { return openblas_get_corename(); }

const char *moe_blas_better_core(void) {
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512vl"))
        return NULL;
    const char *core = openblas_get_corename();
    return strcmp(core, "Haswell") == 0 || strcmp(core, "Zen") == 0 ? "SkylakeX" : NULL;
}
