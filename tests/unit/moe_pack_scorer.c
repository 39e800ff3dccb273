/* Packed scoring against the plain forward pass, over models of every shape it covers, odd sizes
 * and instruction sets. Bounds on probabilities: fp32 1e-5; bf16 0.03; int8 0.15 and 0.02 in the
 * mean (weights are random, layers narrow; docs/scoring.md has those of trained models). Scratch
 * ends at a page that faults. */
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/heap.h"
#include "moe/score/calibrate.h"
#include "moe/score/sample.h"
#include "moe/score/scorer_packed.h"
#include "tests/support/suite.h"

static const struct moe_sample models[] = {
    {.spec = "{layers: [{kind: mmoe, experts: 3, expert: {kind: mlp, hidden: [24], out: 17}}], "
             "tower: {hidden: [9]}}",
     .query_columns = 7,
     .cand_columns = 13,
     .n_tasks = 2},
    {.spec =
         "{layers: [{kind: cgc, shared: 3, own: 2, expert: {kind: mlp, hidden: [40, 33], out: 32}}], "
         "tower: {hidden: [16, 8]}, wide: true}",
     .query_columns = 33,
     .cand_columns = 70,
     .query_ids = 2,
     .cand_ids = 3,
     .slots = 4,
     .table_rows = 50,
     .dim = 10,
     .n_tasks = 3},
    {.spec =
         "{layers: [{kind: ple, levels: 2, shared: 2, own: 1, expert: {kind: mlp, hidden: [], out: 20}}], "
         "tower: {hidden: []}}",
     .query_columns = 5,
     .cand_columns = 3,
     .n_tasks = 2},
    {.spec =
         "{layers: [{kind: ple, levels: 3, shared: 1, own: 2, expert: {kind: mlp, hidden: [18], out: 21, "
         "act: silu}}], tower: {hidden: [12], act: gelu}}",
     .query_columns = 11,
     .cand_columns = 20,
     .n_tasks = 3},
    {.spec =
         "{layers: [{kind: shared_bottom, expert: {kind: mlp, hidden: [30, 31], out: 8, act: gelu, "
         "out_act: false}}], tower: {hidden: [12, 12], act: silu}, wide: true}",
     .query_columns = 0,
     .cand_columns = 40,
     .n_tasks = 1},
    {.spec = "{layers: [{kind: mmoe, experts: 1, expert: {kind: mlp, hidden: [16], out: 16}}, "
             "{kind: mmoe, experts: 20, expert: {kind: mlp, hidden: [16], out: 16}}], "
             "numbers: {encode: [value, log, quantile, ple], bins: 5}}",
     .query_columns = 6,
     .cand_columns = 4,
     .query_ids = 1,
     .slots = 1,
     .table_rows = 9,
     .dim = 4,
     .n_tasks = 2},
    {.spec = "{layers: [{kind: mmoe, experts: 2, expert: {kind: mlp, hidden: [8], out: 8}}]}",
     .query_columns = 9,
     .cand_columns = 0,
     .cand_ids = 1,
     .slots = 2,
     .table_rows = 9,
     .dim = 1,
     .n_tasks = 2},
    {.spec = "{layers: [{kind: mmoe, experts: 8, gate: {kind: topk, k: 2}, expert: {kind: mlp, "
             "hidden: [33], out: 20}}]}",
     .query_columns = 9,
     .cand_columns = 21,
     .n_tasks = 2},
    {.spec =
         "{layers: [{kind: ple, levels: 2, shared: 3, own: 1, gate: {kind: topk, k: 1, order: "
         "softmax_topk, renormalise: false}, expert: {kind: mlp, hidden: [12], out: 9, act: silu}}]}",
     .query_columns = 4,
     .cand_columns = 5,
     .n_tasks = 2},
    {.spec = "{layers: [{kind: cgc, shared: 3, own: 1, gate: {kind: relu}, expert: {kind: mlp, "
             "hidden: [12], out: 9}}], wide: true}",
     .query_columns = 4,
     .cand_columns = 5,
     .n_tasks = 3},
    {.spec = "{layers: [{kind: mmoe, experts: 4, gate: {kind: sigmoid}}, "
             "{kind: mmoe, experts: 5, gate: {kind: hash}}]}",
     .query_columns = 4,
     .cand_columns = 5,
     .cand_ids = 1,
     .slots = 1,
     .table_rows = 30,
     .dim = 4,
     .n_tasks = 2},
    {.spec = "{layers: [{kind: mmoe, experts: 40, gate: {kind: hash}}], wide: true}",
     .query_columns = 4,
     .cand_columns = 5,
     .cand_ids = 1,
     .slots = 1,
     .table_rows = 30,
     .dim = 4,
     .n_tasks = 2},
    {.spec = "{layers: [{kind: mmoe, experts: 40, gate: {kind: topk, k: 3}}], wide: true}",
     .query_columns = 4,
     .cand_columns = 5,
     .n_tasks = 2},
    {.spec =
         "{layers: [{kind: omoe, experts: 9, gate: {kind: topk, k: 3, renormalise: false, scale: "
         "1.5}}, {kind: mmoe, experts: 6, gate: {kind: switch}}]}",
     .query_columns = 0,
     .cand_columns = 5,
     .n_tasks = 2},
    {.spec = "{layers: [{kind: mmoe, experts: 4, gate: {kind: expert_choice}}]}",
     .query_columns = 4,
     .cand_columns = 5,
     .n_tasks = 2},
#define FIRST_MERGED 15 /* no int8 from here on */
    {.spec = "{layers: [{kind: mmoe, experts: 5, gate: {kind: smear}, expert: {kind: mlp, hidden: "
             "[33, 20], out: 19}}], wide: true}",
     .query_columns = 9,
     .cand_columns = 21,
     .n_tasks = 3},
    {.spec = "{layers: [{kind: cgc, shared: 2, own: 1, gate: {kind: smear}, expert: {kind: mlp, "
             "hidden: [12], out: 9, act: silu}}, {kind: omoe, experts: 4, gate: {kind: smear}}]}",
     .query_columns = 4,
     .cand_columns = 0,
     .cand_ids = 1,
     .slots = 3,
     .table_rows = 30,
     .dim = 5,
     .n_tasks = 2},
    {.spec = "{layers: [{kind: mmoe, experts: 1, gate: {kind: smear}}]}",
     .query_columns = 3,
     .cand_columns = 1,
     .n_tasks = 1},
};
#define N_MODELS (int)(sizeof models / sizeof *models)
enum { ROWS = 131 };

static float *plain(const struct moe_model *m, const struct moe_batch *b) {
    struct moe_plan plan = {.rows_max = b->n_rows, .groups_max = 1};
    float *memory = heap_alloc_aligned(moe_run_floats(m, &plan) * sizeof(float));
    struct moe_run *run = moe_run_bind(m, &plan, memory);
    struct moe_pass pass = {.batch = b};
    moe_forward(m, m->params.v, b, run, &pass, false);
    float *out = HEAP_ARRAY(float, m->n_tasks * b->n_rows);
    for (int r = 0; r < b->n_rows; r++)
        for (int t = 0; t < m->n_tasks; t++)
            out[t * b->n_rows + r] = 1 / (1 + expf(-run->logits[r * m->n_tasks + t]));
    heap_free(memory);
    return out;
}

/* Scratch that begins at any cache line and ends at an unmapped page. */
struct guarded {
    char *map, *p;
    size_t mapped;
};
static struct guarded guarded_new(size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (bytes + page - 1) / page * page;
    struct guarded g = {.mapped = body + page};
    g.map = mmap(NULL, g.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CU_ASSERT_FATAL(g.map != MAP_FAILED && mprotect(g.map + body, page, PROT_NONE) == 0);
    memset(g.map, 0xff, body); /* floats that are NaN: nothing may depend on what stood there */
    g.p = g.map + ((body - bytes) & ~(size_t)63);
    return g;
}

static float *packed(const struct moe_packed *p, const struct moe_batch *b) {
    struct guarded scratch = guarded_new(p->scratch_bytes);
    float *out = HEAP_ARRAY(float, p->m->n_tasks * b->n_rows);
    moe_packed_score(p, b, scratch.p, out, NULL);
    munmap(scratch.map, scratch.mapped);
    return out;
}

static double furthest(const float *a, const float *b, int n) {
    double most = 0;
    for (int i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        most = d > most || isnan(d) ? d : most;
    }
    return most;
}

static double mean_off(const float *a, const float *b, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += fabs((double)a[i] - (double)b[i]);
    return sum / n;
}

static struct moe_batch rows_of(const struct moe_batch *b, const struct moe_inputs *in, int from,
                                int n) {
    struct moe_batch part = *b;
    part.n_rows = n;
    part.cand += from * in->cand_columns;
    part.cand_ids += from * in->cand_slots;
    return part;
}

/* Every row alone, and slates of all sizes that begin anywhere, give the whole's bits. */
static int different_bits(const struct moe_packed *p, const struct moe_batch *b,
                          const float *whole) {
    int different = 0;
    for (int from = 0; from < b->n_rows; from += 5) {
        int n = 1 + (from * 7) % (b->n_rows - from);
        struct moe_batch part = rows_of(b, &p->m->inputs, from, n);
        float *got = packed(p, &part);
        for (int t = 0; t < p->m->n_tasks; t++)
            different +=
                memcmp(got + t * n, whole + t * b->n_rows + from, (size_t)n * sizeof *got) != 0;
        heap_free(got);
    }
    return different;
}

/* Examples that a calibration sees; labels are drawn. */
static struct moe_examples *examples_for(const struct moe_model *m, struct arena *a) {
    struct rng r;
    rng_init(&r, 8);
    struct moe_examples *x = moe_examples_new(&m->inputs, m->n_tasks);
    float labels[4 * 100];
    for (int g = 0; g < 300; g++) {
        struct moe_batch b = moe_sample_batch(&m->inputs, 20, 11, &r, a);
        for (int i = 0; i < 20 * m->n_tasks; i++)
            labels[i] = (float)rng_below(&r, 2);
        moe_examples_add(x, &b, labels, NULL, g, (uint64_t)g);
    }
    return x;
}

static const struct moe_calibrate_conf lenient = {
    .requests = 8, .rows = 90, .top = 10, .overlap_min = 0, .auc_loss_max = 1};

static const float *units_of(struct moe_model *m, struct arena *a) {
    struct moe_calibration got = {0};
    const float *units = NULL;
    struct moe_examples *x = examples_for(m, a);
    if (CHECK_OK(moe_calibrate(m, x, &lenient, a, &got)))
        CHECK_OK(moe_calibrate_units(m, a, &units));
    for (int i = 0; i < got.n_layers; i++) {
        if (got.layers[i].relative > 0.05)
            printf("  %s: error %.4f\n", got.layers[i].name, got.layers[i].relative);
        CU_ASSERT(got.layers[i].relative < 0.12);
    }
    CU_ASSERT(got.loss.score_max < 0.15);
    CU_ASSERT(got.loss.top_overlap > 0.5);
    moe_examples_free(x);
    return units;
}

/* A sample model packed for a CPU. */
struct tried {
    int number;
    const char *isa;
    enum moe_precision precision;
    struct arena a;
    struct moe_model *m;
    struct moe_batch b; /* ROWS rows */
    struct moe_packed *p;
};

static void try_end(struct tried *t) {
    moe_packed_free(t->p);
    moe_model_free(t->m);
    arena_deinit(&t->a);
}

/* False: this machine cannot, or the model has no such form; there is nothing to end. */
static bool try_begin(struct tried *t) {
    struct moe_cpu cpu;
    struct rng r;
    if (moe_cpu_parse(t->isa, &cpu) != STATUS_OK || !moe_cpu_has(&cpu, t->precision) ||
        !moe_cpu_has(moe_cpu(), t->precision)) /* MOERANK_ISA holds for calibration too */
        return false;
    arena_init(&t->a, 0);
    rng_init(&r, 5);
    if (!CHECK_OK(moe_sample_model(&models[t->number], 1, &t->m)))
        return false;
    t->b = moe_sample_batch(&t->m->inputs, ROWS, 11, &r, &t->a);
    bool lacks = moe_packed_lacks(t->m, t->precision);
    if (lacks)
        CU_ASSERT(t->number >= FIRST_MERGED && t->precision == MOE_INT8);
    const float *units = t->precision == MOE_INT8 && !lacks ? units_of(t->m, &t->a) : NULL;
    if (!lacks && CHECK_OK(moe_packed_new(t->m, &cpu, t->precision, ROWS, units, &t->p)))
        return true;
    try_end(t);
    return false;
}

static void check_off(const struct tried *t, const char *what, double d, double bound) {
    if (!(d <= bound))
        printf("  model %d %s %s: %s off by %g\n", t->number, t->isa,
               moe_precision_word(t->precision), what, d);
    CU_ASSERT(d <= bound);
}

static void check_model(int number, const char *isa, enum moe_precision precision, double bound) {
    struct tried t = {.number = number, .isa = isa, .precision = precision};
    if (!try_begin(&t))
        return;
    float *want = plain(t.m, &t.b), *got = packed(t.p, &t.b);
    check_off(&t, "greatest", furthest(want, got, t.m->n_tasks * ROWS), bound);
    check_off(&t, "mean", mean_off(want, got, t.m->n_tasks * ROWS), bound / 7);
    if (!moe_model_mixes_rows(t.m))
        CU_ASSERT_EQUAL(different_bits(t.p, &t.b, got), 0);
    heap_free(want);
    heap_free(got);
    try_end(&t);
}

/* Scores through the item cache: near the plain ones, and the same bits whether rows are kept,
 * made, thrown out or of another slate. */
static void check_kept(int number, const char *isa, enum moe_precision precision, double bound) {
    struct tried t = {.number = number, .isa = isa, .precision = precision};
    if (!try_begin(&t))
        return;
    if (CHECK_OK(moe_packed_keep_halves(t.p, 60 * t.p->halves.row_bytes))) {
        float *want = plain(t.m, &t.b), *first = packed(t.p, &t.b), *again = packed(t.p, &t.b);
        struct moe_item_cache_stats s = moe_item_cache_read(t.p->halves.cache);
        CU_ASSERT(s.hits > 0 && s.misses >= ROWS && s.evictions > 0);
        CU_ASSERT_EQUAL(s.hits + s.misses, 2 * ROWS);
        CU_ASSERT(s.bytes <= 60 * t.p->halves.row_bytes);
        check_off(&t, "kept", furthest(want, first, t.m->n_tasks * ROWS), bound);
        CU_ASSERT_EQUAL(memcmp(first, again, (size_t)(t.m->n_tasks * ROWS) * sizeof *first), 0);
        CU_ASSERT_EQUAL(different_bits(t.p, &t.b, first), 0);
        heap_free(want);
        heap_free(first);
        heap_free(again);
    }
    try_end(&t);
}

static void test_kept(void) {
    static const int which[] = {0, 1}; /* with hidden ReLU layers and softmax gates */
    for (size_t i = 0; i < sizeof which / sizeof *which; i++) {
        check_kept(which[i], "portable", MOE_FP32, 1e-5);
        check_kept(which[i], "avx2", MOE_FP32, 1e-5);
        check_kept(which[i], "avx512", MOE_FP32, 1e-5);
        check_kept(which[i], "avx512", MOE_BF16, 0.03);
        check_kept(which[i], "avx512", MOE_INT8, 0.15);
        check_kept(which[i], "avx512,no-bf16", MOE_INT8, 0.15);
    }
}

static void test_kept_needs_a_plain_level(void) {
    struct moe_model *m;
    struct moe_packed *p;
    if (!CHECK_OK(moe_sample_model(&models[2], 1, &m))) /* experts without hidden layers */
        return;
    if (CHECK_OK(moe_packed_new(m, moe_cpu(), MOE_FP32, 10, NULL, &p)))
        CHECK_FAILS(moe_packed_keep_halves(p, 1 << 20), STATUS_UNIMPLEMENTED, "hidden ReLU");
    moe_packed_free(p);
    moe_model_free(m);
}

static void test_fp32(void) {
    for (int i = 0; i < N_MODELS; i++) {
        check_model(i, "portable", MOE_FP32, 1e-5);
        check_model(i, "avx2", MOE_FP32, 1e-5);
        check_model(i, "avx512", MOE_FP32, 1e-5);
    }
}

/* The k best of k experts are all of them: the sparse way gives the dense model's scores. */
static void test_all_of_all(void) {
    struct moe_model *dense, *all;
    struct moe_packed *p[2] = {NULL};
    struct arena a;
    struct rng r;
    arena_init(&a, 0);
    rng_init(&r, 5);
    if (!CHECK_OK(moe_sample_model(moe_sample_find("omoe8"), 1, &dense)) ||
        !CHECK_OK(moe_sample_model(moe_sample_find("omoe8-top8"), 1, &all)))
        return;
    struct moe_batch b = moe_sample_batch(&dense->inputs, ROWS, 0, &r, &a);
    for (int precision = MOE_FP32; precision <= MOE_BF16; precision++) {
        if (!moe_cpu_has(moe_cpu(), (enum moe_precision)precision))
            continue;
        float *want = plain(dense, &b), *got[2];
        for (int i = 0; i < 2; i++) {
            CHECK_OK(moe_packed_new(i ? all : dense, moe_cpu(), (enum moe_precision)precision, ROWS,
                                    NULL, &p[i]));
            got[i] = packed(p[i], &b);
            moe_packed_free(p[i]);
        }
        /* the gates differ in their type under bf16 */
        CU_ASSERT(furthest(got[0], got[1], 3 * ROWS) <= (precision == MOE_FP32 ? 2e-6 : 0.01));
        CU_ASSERT(furthest(want, got[1], 3 * ROWS) <= (precision == MOE_FP32 ? 1e-5 : 0.03));
        heap_free(want);
        heap_free(got[0]);
        heap_free(got[1]);
    }
    moe_model_free(dense);
    moe_model_free(all);
    arena_deinit(&a);
}

static void test_bf16(void) {
    for (int i = 0; i < N_MODELS; i++)
        check_model(i, "avx512", MOE_BF16, 0.03);
}

static void test_int8(void) {
    for (int i = 0; i < N_MODELS; i++) {
        check_model(i, "avx512", MOE_INT8, 0.15);
        check_model(i, "avx512,no-bf16", MOE_INT8, 0.15);
    }
}

static void test_calibration_refuses(void) {
    struct moe_model *m;
    struct arena a;
    const float *units;
    struct moe_calibration got = {0};
    struct moe_packed *p;
    if (!moe_cpu_has(moe_cpu(), MOE_INT8))
        return;
    arena_init(&a, 0);
    if (!CHECK_OK(moe_sample_model(&models[0], 1, &m)))
        return;
    struct moe_examples *x = examples_for(m, &a), *none = moe_examples_new(&m->inputs, 2);
    struct moe_calibrate_conf strict = lenient;
    strict.overlap_min = 1.1;
    CHECK_FAILS(moe_calibrate_units(m, &a, &units), STATUS_FAILED_PRECONDITION, "calibrate");
    CHECK_FAILS(moe_packed_new(m, moe_cpu(), MOE_INT8, 10, NULL, &p), STATUS_FAILED_PRECONDITION,
                "calibrated");
    CHECK_FAILS(moe_calibrate(m, none, &lenient, &a, &got), STATUS_FAILED_PRECONDITION, "examples");
    CHECK_FAILS(moe_calibrate(m, x, &strict, &a, &got), STATUS_FAILED_PRECONDITION, "top 10");
    CHECK_FAILS(moe_calibrate_units(m, &a, &units), STATUS_FAILED_PRECONDITION, "calibrate");
    moe_model_meta_set(m, "int8.units", "0.5 1 x");
    CHECK_FAILS(moe_calibrate_units(m, &a, &units), STATUS_DATA_LOSS, "number 2");
    CHECK_OK(moe_calibrate(m, x, &lenient, &a, &got));
    CHECK_OK(moe_calibrate_units(m, &a, &units));
    moe_examples_free(x);
    moe_examples_free(none);
    moe_model_free(m);
    arena_deinit(&a);
}

SUITE("moe_pack_scorer", TEST(test_fp32), TEST(test_bf16), TEST(test_int8), TEST(test_all_of_all),
      TEST(test_calibration_refuses), TEST(test_kept), TEST(test_kept_needs_a_plain_level))
