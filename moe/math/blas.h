/* blas.h: single-precision products. The only door to BLAS; BLAS itself runs one thread, since
 * requests and training workers are the unit of parallelism. All matrices row-major. Where the CPU
 * has kernels of our own (train_gemm.h), moe_gemm uses those. */
#pragma once

/* C [m x n] = A [m x k] B [k x n] + beta C; ta, tb: the operand is stored transposed. ld*: floats
 * from one stored row to the next. Any size may be 0. */
void moe_gemm(int ta, int tb, int m, int n, int k, const float *a, int lda, const float *b, int ldb,
              float beta, float *c, int ldc);

/* The same for plain A and B, with every element summed in the order of k, whatever m is and
 * wherever its row stands. Slower. */
void moe_gemm_exact(int m, int n, int k, const float *a, int lda, const float *b, int ldb,
                    float beta, float *c, int ldc);
/* While on, moe_gemm of this thread is moe_gemm_exact where operands are not transposed: set by a
 * forward pass that promises equal bits (pass.h), so that no plug-in has to think of it. Returns
 * what it was. */
int moe_gemm_set_exact(int on);

/* While on, moe_gemm of this thread rounds operands to bf16 (sums stay fp32) where all three sizes
 * are at least MOE_BF16_FROM and the CPU has the instruction. Returns what it was. */
#define MOE_BF16_FROM 32
int moe_gemm_set_bf16(int on);
int moe_gemm_bf16(int m, int n, int k); /* whether a product of this thread would be rounded */
/* Whether moe_gemm of this thread runs on kernels of our own. */
int moe_gemm_own(void);
/* moe_gemm with a bias and announced rows (train_gemm.h); bf16 is set here. Without kernels of our
 * own the bias is laid down first and all rows are announced at once. */
struct moe_train_gemm;
void moe_gemm_then(const struct moe_train_gemm *g);

const char *moe_blas_core(void); /* OpenBLAS's choice of kernels: "Cooperlake" */
/* The OPENBLAS_CORETYPE under which this CPU would be faster, NULL when the choice is right. It is
 * read when the library loads, so the program must set it and execute itself again. */
const char *moe_blas_better_core(void);
