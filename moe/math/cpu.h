/* cpu.h: what this CPU can do, and an override, so that every code path can be run on one machine.
 *
 *     MOERANK_ISA=avx512 | avx2 | portable, then ",no-bf16" and ",no-vnni" to take parts away
 *
 * Asking for more than the CPU has is an error, never a crash. Results live as long as the
 * process; all functions may be called by any thread. */
#pragma once
#include <stdbool.h>
#include "base/status.h"
#include "moe/score/scorer.h"

enum moe_isa { MOE_ISA_PORTABLE, MOE_ISA_AVX2, MOE_ISA_AVX512, MOE_ISAS };

struct moe_cpu {
    enum moe_isa isa;
    bool bf16; /* vdpbf16ps: AVX512_BF16 */
    bool vnni; /* vpdpbusd: AVX512_VNNI */
};

const struct moe_cpu *moe_cpu_host(void); /* what the CPU has */
/* The host, limited by MOERANK_ISA. A value that cannot be followed is logged once and left out. */
const struct moe_cpu *moe_cpu(void);
/* `text` as MOERANK_ISA has it, NULL or "" for the host. INVALID_ARGUMENT: an unknown word;
 * UNIMPLEMENTED: the CPU lacks it. */
enum status moe_cpu_parse(const char *text, struct moe_cpu *out);
bool moe_cpu_has(const struct moe_cpu *cpu, enum moe_precision precision);
const char *moe_isa_word(enum moe_isa isa);
const char *moe_precision_word(enum moe_precision precision); /* "fp32", "bf16", "int8" */
const char *moe_cpu_model(void); /* "AMD EPYC ...", from /proc/cpuinfo */

/* The most one core reaches in products of `precision`: register-resident multiply-adds for about
 * `window_us`, the best of a few windows. In 10^9 operations a second, an add and a multiply being
 * two; 0 where the CPU lacks the instruction. */
double moe_cpu_peak(const struct moe_cpu *cpu, enum moe_precision precision, int window_us);
