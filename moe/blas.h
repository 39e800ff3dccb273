/* blas.h: single-precision products. The only door to BLAS; BLAS itself runs one thread, since
 * requests and training workers are the unit of parallelism. All matrices row-major. */
#pragma once

/* C [m x n] = A [m x k] B [k x n] + beta C; ta, tb: the operand is stored transposed. ld*: floats
 * from one stored row to the next. Any size may be 0. */
void moe_gemm(int ta, int tb, int m, int n, int k, const float *a, int lda, const float *b, int ldb,
              float beta, float *c, int ldc);

const char *moe_blas_core(void); /* OpenBLAS's choice of kernels: "Cooperlake" */
/* The OPENBLAS_CORETYPE under which this CPU would be faster, NULL when the choice is right. It is
 * read when the library loads, so the program must set it and execute itself again. */
const char *moe_blas_better_core(void);
