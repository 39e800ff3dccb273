/* cpu_peak.c: the ceiling that "% of peak" is measured against: multiply-adds between registers,
 * enough independent chains to hide their latency. Inline assembly, so that no compiler folds the
 * constant operands or wraps vpdpbusd in copies. It measures one core and no memory. */
#include "moe/math/cpu.h"
#include "base/clock.h"

#define CHAINS    12
#define PER_CHAIN 2

#if defined(__x86_64__)
#include <immintrin.h>

#define EACH(X)       X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define START(i)      __m512 a##i = _mm512_set1_ps(1.0f);
#define START_HALF(i) __m256 a##i = _mm256_set1_ps(1.0f);
#define FMA(i)        __asm__ volatile("vfmadd231ps %1, %2, %0" : "+v"(a##i) : "v"(b), "v"(c));
#define FMA_HALF(i)   __asm__ volatile("vfmadd231ps %1, %2, %0" : "+x"(a##i) : "x"(b), "x"(c));
#define DOT_BF16(i)   __asm__ volatile("vdpbf16ps %1, %2, %0" : "+v"(a##i) : "v"(b), "v"(c));
#define DOT_INT8(i)   __asm__ volatile("vpdpbusd %1, %2, %0" : "+v"(a##i) : "v"(b), "v"(c));

#define LOOP(name, target_, START_, OP, vec, set1)                                                 \
    __attribute__((target(target_), noinline)) static void name(long n) {                          \
        EACH(START_)                                                                               \
        vec b = set1(1.0001f), c = set1(0.9999f);                                                  \
        for (long i = 0; i < n; i++) {                                                             \
            EACH(OP)                                                                               \
            EACH(OP)                                                                               \
        }                                                                                          \
    }
#define AVX512 "avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16"
LOOP(run_avx2, "avx2,fma", START_HALF, FMA_HALF, __m256, _mm256_set1_ps)
LOOP(run_avx512, AVX512, START, FMA, __m512, _mm512_set1_ps)
LOOP(run_bf16, AVX512, START, DOT_BF16, __m512, _mm512_set1_ps)
LOOP(run_int8, AVX512, START, DOT_INT8, __m512, _mm512_set1_ps)
#endif

typedef float four __attribute__((vector_size(16)));
static void run_portable(long n) {
    four a[CHAINS], b = {1.0001f, 1.0f, 1.0f, 1.0f}, c = {1e-9f, 0, 0, 0};
    for (int i = 0; i < CHAINS; i++)
        a[i] = b;
    for (long k = 0; k < n * PER_CHAIN; k++) {
        for (int i = 0; i < CHAINS; i++)
            a[i] = a[i] * b + c;
        __asm__ volatile("" : : "g"(a) : "memory");
    }
}

struct peak_loop {
    void (*run)(long n);
    int lanes; /* multiply-adds per instruction */
};

static struct peak_loop loop_of(const struct moe_cpu *cpu, enum moe_precision precision) {
    if (!moe_cpu_has(cpu, precision))
        return (struct peak_loop){NULL, 0};
#if defined(__x86_64__)
    if (precision == MOE_BF16)
        return (struct peak_loop){run_bf16, 32};
    if (precision == MOE_INT8)
        return (struct peak_loop){run_int8, 64};
    if (cpu->isa == MOE_ISA_AVX512)
        return (struct peak_loop){run_avx512, 16};
    if (cpu->isa == MOE_ISA_AVX2)
        return (struct peak_loop){run_avx2, 8};
#endif
    return (struct peak_loop){run_portable, 4};
}

double moe_cpu_peak(const struct moe_cpu *cpu, enum moe_precision precision, int window_us) {
    const struct peak_loop loop = loop_of(cpu, precision);
    if (!loop.run)
        return 0;
    double best = 0;
    long n = 1000;
    for (int window = 0; window < 5;) {
        int64_t from = clock_mono_ns();
        loop.run(n);
        int64_t took = clock_mono_ns() - from;
        if (took < (int64_t)window_us * 1000 && n < (1l << 40)) {
            n = n * 2;
            continue;
        }
        double rate = 2.0 * loop.lanes * CHAINS * PER_CHAIN * (double)n / (double)took;
        best = rate > best ? rate : best;
        window++;
    }
    return best;
}
