/* cmd_bench.c: measures this machine. `score`: candidates a second of one core, by precision,
 * slate size and item cache. Forms are timed in turns, so that a slow spell of the machine hits all
 * of them, and the peak they are held against is measured between them. Ratios to rivals are
 * tests/bench/score.py's, which drives this verb by --serve. */
#define _GNU_SOURCE /* sched_setaffinity */
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "moe/score/sample.h"
#include "tools/bench_rank.h"
#include "tools/bench_score.h"
#include "tools/bench_train.h"
#include "tools/options.h"
#include "tools/report.h"
#include "tools/verbs.h"

struct options {
    struct option_config config;
    const char *model, *sample, *export, *table, *target, *requests, *method;
    struct conf_numbers rows;
    int64_t rounds, cpu, cache_bytes, seconds, concurrency, catalogue, users, spin_us;
    bool serve;
};
static const struct conf_item items[] = {
    OPTION_CONFIG_OR(struct options, config, ""),
    OPTION_TEXT(struct options, table, "table", "", "FILE",
                "train: rows of this file and the settings' model instead of a sample"),
    OPTION_TEXT(struct options, model, "model", "", "FILE", "a model file instead of a sample"),
    OPTION_TEXT(struct options, sample, "sample", "ple14", "NAME",
                "a model of drawn numbers: ple14, mmoe8[-top2], omoe8[-top2|-top8|-smear], small"),
    CONF_NUMBERS(struct options, rows, "rows", "[1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]",
                 1, 100000, "candidates in a request"),
    CONF_INT(struct options, rounds, "rounds", "15", 1, 10000, "rounds",
             "turns that the median is taken over"),
    CONF_INT(struct options, cpu, "cpu", "-1", -1, 4095, "CPU", "pins to one CPU; -1: not"),
    CONF_BYTES(struct options, cache_bytes, "cache", "512MiB", 1, 1e12,
               "budget of each item cache"),
    OPTION_TEXT(struct options, export, "export", "", "FOLDER",
                "writes the model, one slate and its scores for a rival, and ends"),
    CONF_BOOL(struct options, serve, "serve", "false",
              "answers lines of stdin: `time FORM ROWS REQUESTS`, `stages FORM ROWS` or `steps N`, "
              "`peak PRECISION`"),
    OPTION_TEXT(struct options, target, "target", "127.0.0.1:7070", "HOST:PORT",
                "rank: the service, with items i0.. and users u0.."),
    CONF_INT(struct options, seconds, "seconds", "5", 1, 86400, "seconds", "rank: for how long"),
    CONF_INT(struct options, concurrency, "concurrency", "2", 1, 1024, "callers",
             "rank: who each wait for their answer"),
    CONF_INT(struct options, catalogue, "catalogue", "2000", 1, 1e9, "items",
             "rank: that candidates are drawn from"),
    OPTION_TEXT(
        struct options, requests, "requests", "", "FILE",
        "rank: these instead, each once, one at a time: 4 bytes of length, little-endian, and "
        "the message, again and again"),
    OPTION_TEXT(struct options, method, "method", "Rank", "METHOD",
                "rank: what the file's requests are for"),
    CONF_TIME(struct options, spin_us, "spin", "0s", 0, 1e6,
              "rank: how long callers look for an answer before they sleep"),
    CONF_INT(struct options, users, "users", "200", 1, 1e9, "users", "rank: that ask"),
    CONF_END};

enum { FEW = 1000 }; /* microseconds a turn should last at least */

static enum status pin(int64_t cpu) {
    cpu_set_t set;
    if (cpu < 0)
        return STATUS_OK;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        return fail(STATUS_INVALID_ARGUMENT, "--cpu %lld: there is no such CPU", (long long)cpu);
    return STATUS_OK;
}

static enum status open_model(const struct options *o, struct moe_model **out) {
    if (*o->model)
        return moe_model_load(o->model, out);
    const struct moe_sample *s = moe_sample_find(o->sample);
    if (!s)
        return fail(STATUS_INVALID_ARGUMENT,
                    "--sample %s: known are ple14, mmoe8, mmoe8-top2, omoe8, omoe8-top2, "
                    "omoe8-top8, omoe8-smear, small",
                    o->sample);
    return moe_sample_model(s, 1, out);
}

/* Stages are timed by the wall, so of several requests each stage's least counts. */
static void least_stages(struct bench_score *b, const struct bench_form *f, int rows, double us,
                         int64_t least[PACKED_STAGES]) {
    if (!f->p)
        return;
    const int requests = us > 10000 ? 10 : us > 500 ? (int)(1e5 / us) : 200;
    for (int i = 0; i < requests; i++) {
        int64_t ns[PACKED_STAGES] = {0};
        bench_score_time(b, f, rows, 1, ns);
        for (int s = 0; s < PACKED_STAGES; s++)
            least[s] = i == 0 || ns[s] < least[s] ? ns[s] : least[s];
    }
}

/* --- answering a driver ------------------------------------------------------------------------
 */

static enum status answer(struct bench_score *b, const char *line) {
    char word[16], name[32];
    int rows = 0, requests = 0;
    const int n = sscanf(line, "%15s %31s %d %d", word, name, &rows, &requests);
    const struct bench_form *f = n >= 2 ? bench_score_form(b, name) : NULL;
    if (n == 4 && strcmp(word, "time") == 0 && f && rows >= 1 && rows <= b->rows_max) {
        printf("%.3f\n",
               bench_score_has(f) ? bench_score_time(b, f, rows, requests, NULL) : (double)NAN);
        return STATUS_OK;
    }
    if (n == 3 && strcmp(word, "stages") == 0 && f && rows >= 1 && rows <= b->rows_max) {
        int64_t ns[PACKED_STAGES] = {0};
        if (bench_score_has(f))
            least_stages(b, f, rows, bench_score_time(b, f, rows, 1, NULL), ns);
        for (int s = 0; s < PACKED_STAGES && f->p; s++)
            printf("%s %.2f ", moe_packed_stage((enum packed_stage)s), (double)ns[s] * 1e-3);
        printf("\n");
        return STATUS_OK;
    }
    if (n == 2 && strcmp(word, "peak") == 0 && f) {
        printf("%.3f\n", moe_cpu_peak(moe_cpu(), f->precision, FEW));
        return STATUS_OK;
    }
    return fail(STATUS_INVALID_ARGUMENT, "not understood: %s", line);
}

static enum status serve(struct bench_score *b) {
    char line[128];
    while (fgets(line, sizeof line, stdin)) {
        TRY(answer(b, line));
        fflush(stdout);
    }
    return STATUS_OK;
}

/* --- the table ---------------------------------------------------------------------------------
 */

struct result {
    double us[64]; /* per round, of one request */
    double peak;   /* 10^9 operations a second, the best seen */
    int64_t stage_ns[PACKED_STAGES];
};

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void put_row(struct report *r, const char *what, double value, int digits, const char *unit,
                    int runs, double min, double max) {
    report_cstr(r, NULL, what);
    report_num(r, NULL, value, digits);
    report_cstr(r, NULL, unit);
    report_num(r, NULL, NAN, 0); /* target: the driver's */
    report_num(r, NULL, NAN, 0);
    report_int(r, NULL, runs);
    report_num(r, NULL, min, digits);
    report_num(r, NULL, max, digits);
}

static void put_result(struct bench_score *b, const struct bench_form *f, struct result *x,
                       int rows, int rounds, struct arena *a, struct report *r) {
    const double flop = bench_score_mflop(b, f) * 1e6 * rows;
    qsort(x->us, (size_t)rounds, sizeof *x->us, ascending);
    const double us = x->us[rounds / 2], least = x->us[0], most = x->us[rounds - 1];
    const char *of = arena_printf(a, "%s, K = %d", f->name, rows);
    put_row(r, arena_printf(a, "%s: candidates", of), rows * 1e6 / us, 0, "1/s", rounds,
            rows * 1e6 / most, rows * 1e6 / least);
    put_row(r, arena_printf(a, "%s: operations", of), flop / us * 1e-3, 1, "GFLOP/s", rounds,
            flop / most * 1e-3, flop / least * 1e-3);
    put_row(r, arena_printf(a, "%s: of its peak", of), flop / us * 1e-1 / x->peak, 1, "%", rounds,
            flop / most * 1e-1 / x->peak, flop / least * 1e-1 / x->peak);
    for (int s = 0; s < PACKED_STAGES && f->p; s++)
        put_row(r, arena_printf(a, "%s: %s", of, moe_packed_stage((enum packed_stage)s)),
                (double)x->stage_ns[s] * 1e-3, 1, "us", 1, NAN, NAN);
}

static void measure_rows(struct bench_score *b, int rows, int rounds, struct arena *a,
                         struct report *r) {
    struct result *all = ARENA_ARRAY(a, struct result, BENCH_FORMS);
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < BENCH_FORMS; i++) {
            if (!bench_score_has(&b->forms[i]))
                continue;
            double once = bench_score_time(b, &b->forms[i], rows, 1, NULL);
            int requests = 3 + (int)(FEW / (once + 1));
            all[i].us[round] = bench_score_time(b, &b->forms[i], rows, requests, NULL);
            double peak = moe_cpu_peak(moe_cpu(), b->forms[i].precision, 200);
            all[i].peak = peak > all[i].peak ? peak : all[i].peak;
        }
    for (int i = 0; i < BENCH_FORMS; i++)
        if (bench_score_has(&b->forms[i])) {
            least_stages(b, &b->forms[i], rows, all[i].us[0], all[i].stage_ns);
            put_result(b, &b->forms[i], &all[i], rows, rounds, a, r);
        }
}

static void put_peaks(struct report *r) {
    report_group(r, "peaks");
    for (int p = MOE_FP32; p <= MOE_INT8; p++)
        report_num(r, moe_precision_word((enum moe_precision)p),
                   moe_cpu_peak(moe_cpu(), (enum moe_precision)p, FEW), 1);
    report_group_end(r);
}

static enum status measure(struct bench_score *b, const struct options *o,
                           const struct verb_call *call) {
    static const char *const columns[] = {"what", "value", "unit", "target", "ok",
                                          "runs", "min",   "max",  NULL};
    const char *commit = getenv("MOERANK_COMMIT");
    struct report r;
    report_begin(&r, call->json);
    report_cstr(&r, "name", "score");
    report_cstr(&r, "commit", commit ? commit : "unknown");
    report_cstr(&r, "cpu", moe_cpu_model());
    report_cstr(&r, "isa", moe_isa_word(moe_cpu()->isa));
    report_int(&r, "cores", sysconf(_SC_NPROCESSORS_ONLN));
    report_cstr(&r, "model", *o->model ? o->model : o->sample);
    report_num(&r, "mflop_per_row", moe_model_mflop_per_row(b->m), 4);
    put_peaks(&r);
    report_table(&r, "rows", columns);
    for (int i = 0; i < o->rows.n; i++)
        measure_rows(b, (int)o->rows.v[i], o->rounds < 64 ? (int)o->rounds : 64, call->arena, &r);
    report_table_end(&r);
    return report_end(&r, stdout);
}

static enum status run_score(const struct verb_call *call, const struct options *o) {
    struct moe_model *m;
    struct bench_score b;
    double most = 1;
    for (int i = 0; i < o->rows.n; i++)
        most = o->rows.v[i] > most ? o->rows.v[i] : most;
    TRY(pin(o->cpu));
    TRY(open_model(o, &m));
    const char *lacks = moe_packed_lacks(m, MOE_FP32);
    if (lacks) {
        moe_model_free(m);
        return fail(STATUS_UNIMPLEMENTED, "the packed scorer does not cover this model: %s", lacks);
    }
    enum status status = bench_score_init(&b, m, (int)most, (size_t)o->cache_bytes);
    if (status == STATUS_OK && *o->export)
        status = bench_score_export(&b, o->export, (int)most);
    else if (status == STATUS_OK && o->serve)
        status = serve(&b);
    else if (status == STATUS_OK)
        status = measure(&b, o, call);
    bench_score_deinit(&b);
    return status;
}

static enum status run(const struct verb_call *call, void *options) {
    const struct options *o = options;
    const char *which = call->n_operands == 1 ? call->operands[0] : "";
    if (strcmp(which, "score") == 0)
        return run_score(call, o);
    if (strcmp(which, "rank") == 0)
        return bench_rank(call, &(struct bench_rank_options){.target = o->target,
                                                             .k = &o->rows,
                                                             .seconds = o->seconds,
                                                             .concurrency = o->concurrency,
                                                             .catalogue = o->catalogue,
                                                             .users = o->users,
                                                             .requests = o->requests,
                                                             .method = o->method,
                                                             .spin_us = o->spin_us});
    if (strcmp(which, "train") != 0)
        return fail(STATUS_INVALID_ARGUMENT, "which bench? There are: score, train, rank");
    TRY(pin(o->cpu));
    return bench_train(call, &(struct bench_train_options){.config = o->config,
                                                           .sample = o->sample,
                                                           .table = o->table,
                                                           .export = o->export,
                                                           .serve = o->serve,
                                                           .rounds = o->rounds});
}

static const struct verb verb = {
    .name = "bench",
    .operands = "score|train|rank",
    .operands_max = 1,
    .about =
        "Measures this machine. score: candidates a second of one core, by precision, slate "
        "size and item cache, with the share of the measured peak and the time of every stage. "
        "train: rows a second of training steps, with the settings' threads and batch. "
        "rank: load for a service that runs (tools/bench rank makes one and its profile).",
    .example = "moerank bench score --cpu 1\n"
               "moerank bench score --model like.model --rows [1, 500] --json\n"
               "moerank bench train --sample ple14 --set train.threads=2\n"
               "moerank bench rank --target 127.0.0.1:7070 --rows [500] --seconds 10",
    .items = items,
    .bytes = sizeof(struct options),
    .run = run,
};

enum status cmd_bench(int argc, char **argv) { return verb_main(&verb, argc, argv); }
