/* cpu.c: which instructions this CPU has, asked once through the compiler's run-time support.
 * It does not look at caches, nor at AMX, for which there is no kernel. */
#include "moe/math/cpu.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include "base/log.h"
#include "base/slice.h"

static struct moe_cpu host, limited;
static char model[96];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void read_model(void) {
    snprintf(model, sizeof model, "unknown");
    FILE *f = fopen("/proc/cpuinfo", "r");
    if (!f)
        return;
    char line[256];
    while (fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon)
            continue;
        snprintf(model, sizeof model, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    fclose(f);
}

static void detect(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        host.isa = MOE_ISA_AVX2;
    if (host.isa == MOE_ISA_AVX2 && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq")) {
        host.isa = MOE_ISA_AVX512;
        host.vnni = __builtin_cpu_supports("avx512vnni");
#if !defined(__clang__) || __clang_major__ >= 16
        host.bf16 = __builtin_cpu_supports("avx512bf16");
#else
        /* older clang does not know the name; leaf 7, subleaf 1, EAX bit 5 */
        unsigned a = 7, b, c = 1, d;
        __asm__("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
        host.bf16 = (a >> 5) & 1;
#endif
    }
#endif
}

static enum status parse_word(struct slice word, struct moe_cpu *cpu) {
    if (slice_is(word, "no-bf16")) {
        cpu->bf16 = false;
        return STATUS_OK;
    }
    if (slice_is(word, "no-vnni")) {
        cpu->vnni = false;
        return STATUS_OK;
    }
    for (int i = 0; i < MOE_ISAS; i++) {
        if (!slice_is(word, moe_isa_word((enum moe_isa)i)))
            continue;
        if ((int)host.isa < i)
            return fail(STATUS_UNIMPLEMENTED, "MOERANK_ISA: this CPU has no %s, at most %s",
                        moe_isa_word((enum moe_isa)i), moe_isa_word(host.isa));
        cpu->isa = (enum moe_isa)i;
        if (i < MOE_ISA_AVX512)
            cpu->bf16 = cpu->vnni = false;
        return STATUS_OK;
    }
    return fail(STATUS_INVALID_ARGUMENT,
                "MOERANK_ISA: '%.*s' is none of avx512, avx2, portable, no-bf16, no-vnni",
                SLICE_ARG(word));
}

static enum status parse(const char *text, struct moe_cpu *out) {
    struct moe_cpu cpu = host;
    while (text && *text) {
        struct slice word = {text, strcspn(text, ",")};
        TRY(parse_word(word, &cpu));
        text += word.n + (text[word.n] == ',');
    }
    *out = cpu;
    return STATUS_OK;
}

static void set_up(void) {
    detect();
    read_model();
    limited = host;
    if (parse(getenv("MOERANK_ISA"), &limited) != STATUS_OK)
        log_warn("cpu", "%s; using %s", status_message(), moe_isa_word(host.isa));
}

const struct moe_cpu *moe_cpu_host(void) {
    pthread_once(&once, set_up);
    return &host;
}

const struct moe_cpu *moe_cpu(void) {
    pthread_once(&once, set_up);
    return &limited;
}

enum status moe_cpu_parse(const char *text, struct moe_cpu *out) {
    pthread_once(&once, set_up);
    return parse(text, out);
}

const char *moe_cpu_model(void) {
    pthread_once(&once, set_up);
    return model;
}

bool moe_cpu_has(const struct moe_cpu *cpu, enum moe_precision precision) {
    return precision == MOE_FP32 || (precision == MOE_BF16 ? cpu->bf16 : cpu->vnni);
}

const char *moe_isa_word(enum moe_isa isa) {
    static const char *const words[] = {"portable", "avx2", "avx512"};
    return words[isa];
}

const char *moe_precision_word(enum moe_precision precision) {
    static const char *const words[] = {"fp32", "bf16", "int8"};
    return words[precision];
}
