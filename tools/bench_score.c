/* bench_score.c: a model in every form, timed request by request. Items come from a pool larger
 * than the caches, as a catalogue is; a slate's raw rows are copied together before the clock
 * starts, as the service has just made them. Times are CPU time: on a busy machine the wall's would
 * be those of the scheduler. */
#include "tools/bench_score.h"
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/log.h"
#include "moe/score/calibrate.h"
#include "moe/score/sample.h"
#include "moe/score/scorer_path.h"

enum { POOL_ROWS = 20000, CALIBRATION_GROUPS = 300, CALIBRATION_ROWS = 20, TIMES_MAX = 4096 };

static enum status drawn_units(struct bench_score *b) {
    struct rng r;
    struct moe_calibration got = {0};
    struct moe_calibrate_conf conf = moe_calibrate_defaults;
    rng_init(&r, 7);
    conf.requests = 8;
    conf.overlap_min = 0; /* random numbers: nothing to refuse */
    conf.auc_loss_max = 1;
    struct moe_examples *x = moe_examples_new(&b->m->inputs, b->m->n_tasks);
    float *labels = HEAP_ARRAY(float, CALIBRATION_ROWS * b->m->n_tasks);
    for (int g = 0; g < CALIBRATION_GROUPS; g++) {
        struct moe_batch batch =
            moe_sample_batch(&b->m->inputs, CALIBRATION_ROWS, 0, &r, &b->arena);
        moe_examples_add(x, &batch, labels, NULL, g, (uint64_t)g);
    }
    enum status status = moe_calibrate(b->m, x, &conf, &b->arena, &got);
    moe_examples_free(x);
    heap_free(labels);
    return status;
}

static enum status open_reference(struct bench_score *b, struct bench_form *f) {
    const struct moe_scorer_conf conf = {.precision = MOE_FP32, .rows_max = b->rows_max};
    TRY(moe_scorer_path_reference.open(b->m, &conf, &f->reference));
    f->scratch = heap_alloc_aligned(moe_scorer_path_reference.scratch_bytes(f->reference));
    return STATUS_OK;
}

static enum status open_form(struct bench_score *b, struct bench_form *f, size_t cache_bytes) {
    const float *units = NULL;
    if (!moe_cpu_has(moe_cpu(), f->precision) || moe_packed_lacks(b->m, f->precision))
        return STATUS_OK;
    if (f->precision == MOE_INT8) {
        if (!moe_model_meta(b->m, "int8.units"))
            TRY(drawn_units(b));
        TRY(moe_calibrate_units(b->m, &b->arena, &units));
    }
    TRY(moe_packed_new(b->m, moe_cpu(), f->precision, b->rows_max, units, &f->p));
    if (f->cache && moe_packed_keep_halves(f->p, cache_bytes) != STATUS_OK) {
        log_info("bench", "%s: %s", f->name, status_message());
        moe_packed_free(f->p);
        f->p = NULL;
        return STATUS_OK;
    }
    f->scratch = heap_alloc_aligned(f->p->scratch_bytes);
    return STATUS_OK;
}

/* Copies `rows` of the pool into the slate: from row `from` on, or at random (-1). */
static void deal(struct bench_score *b, int rows, int from) {
    const struct moe_inputs *in = &b->m->inputs;
    const size_t columns = (size_t)in->cand_columns, slots = (size_t)in->cand_slots;
    for (int i = 0; i < rows; i++) {
        const size_t to = (size_t)i;
        size_t at = from < 0 ? rng_below(&b->rng, (uint32_t)b->pool_rows)
                             : (size_t)((from + i) % b->pool_rows);
        if (columns)
            memcpy((float *)b->slate.cand + to * columns, b->pool.cand + at * columns,
                   columns * sizeof(float));
        if (slots)
            memcpy((uint32_t *)b->slate.cand_ids + to * slots, b->pool.cand_ids + at * slots,
                   slots * sizeof(uint32_t));
    }
    b->slate.n_rows = rows;
}

static void warm_caches(struct bench_score *b) {
    for (int i = 0; i < BENCH_FORMS; i++)
        for (int from = 0; from < b->pool_rows && b->forms[i].p && b->forms[i].cache;
             from += b->rows_max) {
            deal(b, b->rows_max, from);
            moe_packed_score(b->forms[i].p, &b->slate, b->forms[i].scratch, b->scores, NULL);
        }
}

enum status bench_score_init(struct bench_score *b, struct moe_model *m, int rows_max,
                             size_t cache_bytes) {
    static const char *const names[BENCH_FORMS] = {
        "fp32", "bf16", "int8", "fp32+cache", "bf16+cache", "int8+cache", "reference"};
    *b = (struct bench_score){.m = m, .rows_max = rows_max, .pool_rows = POOL_ROWS};
    arena_init(&b->arena, 0);
    rng_init(&b->rng, 1);
    b->pool = moe_sample_batch(&m->inputs, POOL_ROWS, 0, &b->rng, &b->arena);
    b->slate = moe_sample_batch(&m->inputs, rows_max, 0, &b->rng, &b->arena);
    b->scores = HEAP_ARRAY(float, rows_max * m->n_tasks);
    for (int i = 0; i < BENCH_FORMS; i++) {
        struct bench_form *f = &b->forms[i];
        *f = (struct bench_form){
            .name = names[i], .precision = (enum moe_precision)(i % 3), .cache = i / 3 == 1};
        TRY(i < BENCH_FORMS - 1 ? open_form(b, f, cache_bytes) : open_reference(b, f));
    }
    warm_caches(b);
    return STATUS_OK;
}

void bench_score_deinit(struct bench_score *b) {
    for (int i = 0; i < BENCH_FORMS; i++) {
        moe_packed_free(b->forms[i].p);
        if (b->forms[i].reference)
            moe_scorer_path_reference.close(b->forms[i].reference);
        heap_free(b->forms[i].scratch);
    }
    heap_free(b->scores);
    moe_model_free(b->m);
    arena_deinit(&b->arena);
}

struct bench_form *bench_score_form(struct bench_score *b, const char *name) {
    for (int i = 0; i < BENCH_FORMS; i++)
        if (strcmp(b->forms[i].name, name) == 0)
            return &b->forms[i];
    return NULL;
}

void bench_score_run(struct bench_score *b, const struct bench_form *f,
                     const struct packed_watch *watch) {
    if (f->p)
        moe_packed_score(f->p, &b->slate, f->scratch, b->scores, watch);
    else
        moe_scorer_path_reference.score(f->reference, &b->slate, f->scratch, b->scores);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_score_time(struct bench_score *b, const struct bench_form *f, int rows, int requests,
                        int64_t *stage_ns) {
    double *us = HEAP_ARRAY(double, TIMES_MAX);
    struct packed_watch watch = {.stage_ns = stage_ns};
    requests = requests < 1 ? 1 : requests > TIMES_MAX ? TIMES_MAX : requests;
    for (int i = 0; i < requests; i++) {
        deal(b, rows, -1);
        double from = clock_cpu_s();
        bench_score_run(b, f, stage_ns ? &watch : NULL);
        us[i] = (clock_cpu_s() - from) * 1e6;
    }
    qsort(us, (size_t)requests, sizeof *us, ascending);
    double median = us[requests / 2];
    heap_free(us);
    return median;
}

double bench_score_mflop(const struct bench_score *b, const struct bench_form *f) {
    double mflop = moe_model_mflop_per_row(b->m);
    if (!f->cache)
        return mflop;
    const struct packed_level *first = &f->p->levels[0];
    const double dc = b->m->part[MOE_CAND];
    for (int e = 0; e < first->n_experts; e++)
        mflop -= 2e-6 * dc * first->experts[e].layers[0].out;
    for (int i = 0; i < first->n_sources; i++)
        mflop -= 2e-6 * dc * first->sources[i].side.out;
    return mflop;
}
