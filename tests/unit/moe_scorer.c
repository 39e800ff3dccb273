/* moe_scorer.c: the promises of scorer.h on every path that takes the model: equal bits whatever
 * other rows come and wherever a row stands, agreement with the forward pass, no allocation; and
 * explain. */
#include <stdlib.h>
#include "moe/layer.h"
#include "moe/score/scorer.h"
#include "moe/score/scorer_path.h"
#include "moe/train/train.h"
#include "tests/support/moe_fixture.h"
#include "tests/support/suite.h"

#define ROWS  2000
#define TASKS 3

static const char *const specs[] = {
    "{\"layers\":[{\"kind\":\"cgc\",\"shared\":3,\"own\":1,\"expert\":{\"hidden\":[33,17],\"out\":19}}],"
    "\"tower\":{\"hidden\":[7]},\"wide\":true}",
    "{\"numbers\":{\"encode\":[\"value\",\"quantile\",\"ple\"]},\"layers\":[{\"kind\":\"ple\",\"levels\":2,"
    "\"shared\":2,\"own\":1,\"expert\":{\"hidden\":[64],\"out\":32,\"act\":\"gelu\"}}]}",
    "{\"layers\":[{\"kind\":\"shared_bottom\",\"expert\":{\"hidden\":[5],\"out\":3,\"act\":\"silu\"}}],"
    "\"cross\":2,\"cross_rank\":4,\"tower\":{\"hidden\":[]}}",
    "{\"layers\":[{\"kind\":\"cgc\",\"shared\":2,\"own\":1,\"expert\":{\"hidden\":[33,17],\"out\":19,"
    "\"act\":\"silu\",\"norm\":\"batch\"}}],\"tower\":{\"hidden\":[7]}}",
};

struct request {
    float query[3], *cand;
    uint32_t query_ids[1], *cand_ids;
};
static void request_open(struct request *q, int n) {
    struct rng r;
    rng_init(&r, 8);
    q->cand = HEAP_ARRAY(float, n * 4);
    q->cand_ids = HEAP_ARRAY(uint32_t, n * 4);
    for (int i = 0; i < 3; i++)
        q->query[i] = (float)rng_normal(&r);
    q->query_ids[0] = 4;
    for (int i = 0; i < n * 4; i++) {
        q->cand[i] = rng_below(&r, 12) ? (float)(10 + 3 * rng_normal(&r)) : NAN;
        q->cand_ids[i] = rng_below(&r, 20);
    }
}
static void request_close(struct request *q) {
    heap_free(q->cand);
    heap_free(q->cand_ids);
}
static struct moe_batch rows_of(const struct request *q, int from, int n) {
    return (struct moe_batch){.n_groups = 1,
                              .n_rows = n,
                              .query = q->query,
                              .query_ids = q->query_ids,
                              .cand = q->cand + from * 4,
                              .cand_ids = q->cand_ids + from * 4};
}

static void prefixes(const struct moe_scorer *s, const struct request *q, void *scratch,
                     const float *all, float *p, const char *what) {
    static const int more[] = {255, 256, 257, 500, 511, 777, 1000, 1023, 1024, 1999};
    int bad = 0;
    for (int k = 1; k <= 200 + (int)(sizeof more / sizeof *more); k++) {
        int n = k <= 200 ? k : more[k - 201];
        struct moe_batch b = rows_of(q, 0, n);
        moe_scorer_score(s, &b, scratch, p);
        for (int t = 0; t < TASKS; t++)
            bad += memcmp(p + t * n, all + t * ROWS, (size_t)n * sizeof *p) != 0;
    }
    if (bad)
        printf("\n    %s: %d prefixes differ\n", what, bad);
    CU_ASSERT_EQUAL(bad, 0);
}

static void shuffled(const struct moe_scorer *s, const struct request *q, void *scratch,
                     const float *all, float *p, const char *what) {
    struct request z;
    uint32_t *order = HEAP_ARRAY(uint32_t, ROWS);
    struct rng r;
    int bad = 0;
    request_open(&z, ROWS);
    rng_init(&r, 3);
    for (uint32_t i = 0; i < ROWS; i++)
        order[i] = i;
    for (int round = 0; round < 5; round++) {
        int n = round ? 1 + (int)rng_below(&r, ROWS) : ROWS;
        rng_shuffle_u32(&r, order, ROWS);
        for (int i = 0; i < n; i++) {
            memcpy(z.cand + i * 4, q->cand + order[i] * 4, 4 * sizeof(float));
            memcpy(z.cand_ids + i * 4, q->cand_ids + order[i] * 4, 4 * sizeof(uint32_t));
        }
        struct moe_batch b = rows_of(&z, 0, n);
        moe_scorer_score(s, &b, scratch, p);
        for (int t = 0; t < TASKS; t++)
            for (int i = 0; i < n; i++)
                bad += memcmp(&p[t * n + i], &all[t * ROWS + (int)order[i]], sizeof *p) != 0;
    }
    if (bad)
        printf("\n    %s: %d permuted rows differ\n", what, bad);
    CU_ASSERT_EQUAL(bad, 0);
    request_close(&z);
    heap_free(order);
}

/* The scorer against the forward pass over all rows at once. */
static void agrees(const struct moe_model *m, const struct request *q, const float *all,
                   const char *what) {
    struct moe_plan plan = {ROWS, 1, false};
    float *memory = heap_alloc_aligned(moe_run_floats(m, &plan) * sizeof *memory), worst = 0;
    struct moe_run *run = moe_run_bind(m, &plan, memory);
    struct moe_batch b = rows_of(q, 0, ROWS);
    struct moe_pass pass = {.batch = &b};
    moe_forward(m, m->params.v, &b, run, &pass, false);
    for (int t = 0; t < TASKS; t++)
        for (int i = 0; i < ROWS; i++) {
            float p = 1 / (1 + expf(-run->logits[i * TASKS + t]));
            worst = fmaxf(worst, fabsf(p - all[t * ROWS + i]));
        }
    if (worst > 1e-5f)
        printf("\n    %s: off by %g\n", what, (double)worst);
    CU_ASSERT(worst <= 1e-5f);
    heap_free(memory);
}

static void one_scorer(struct fixture *f, const char *what) {
    struct moe_scorer_conf conf = {MOE_FP32, ROWS};
    struct moe_scorer *s = NULL;
    struct request q;
    if (!CHECK_OK(moe_scorer_new(f->m, &conf, &s)))
        return;
    void *scratch = heap_alloc_aligned(moe_scorer_scratch_bytes(s));
    float *all = HEAP_ARRAY(float, ROWS *TASKS), *p = HEAP_ARRAY(float, ROWS *TASKS);
    request_open(&q, ROWS);
    struct moe_batch b = rows_of(&q, 0, ROWS), none = rows_of(&q, 0, 0);
    moe_scorer_score(s, &b, scratch, all);
    agrees(f->m, &q, all, what);
    unsigned long long before = heap_count();
    if (!moe_model_mixes_rows(f->m))
        prefixes(s, &q, scratch, all, p, what);
    moe_scorer_score(s, &none, scratch, p);
    CU_ASSERT_EQUAL(heap_count(), before);
    if (!moe_model_mixes_rows(f->m))
        shuffled(s, &q, scratch, all, p, what);
    memset(scratch, 0xff, moe_scorer_scratch_bytes(s)); /* nothing is remembered in the scratch */
    moe_scorer_score(s, &b, scratch, p);
    CU_ASSERT(memcmp(p, all, ROWS * TASKS * sizeof *p) == 0);
    request_close(&q);
    heap_free(p);
    heap_free(all);
    heap_free(scratch);
    moe_scorer_free(s);
}

static void test_equal_bits(void) {
    for (int path = 0; moe_scorer_paths[path]; path++)
        for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
            struct fixture f = {0};
            char what[64];
            void *state;
            struct moe_scorer_conf conf = {MOE_FP32, ROWS};
            fix_batch(&f, 4, 24, TASKS, 3);
            if (CHECK_OK(fix_open(&f, specs[i], TASKS, 11)) &&
                moe_scorer_paths[path]->open(f.m, &conf, &state) == STATUS_OK) {
                moe_scorer_paths[path]->close(state);
                snprintf(what, sizeof what, "%s, model %zu", moe_scorer_paths[path]->name, i);
                setenv("MOERANK_SCORER", moe_scorer_paths[path]->name, 1);
                one_scorer(&f, what);
                unsetenv("MOERANK_SCORER");
            }
            fix_close(&f);
        }
}

/* The same on the reference path with every gate, sparse ones included. */
static void test_every_gate(void) {
    setenv("MOERANK_SCORER", "reference", 1);
    for (int g = 0; moe_gates[g]; g++) {
        struct fixture f = {0};
        char spec[512];
        snprintf(
            spec, sizeof spec,
            "{\"layers\":[{\"kind\":\"mmoe\",\"experts\":4,\"expert\":{\"hidden\":[9],\"out\":7},"
            "\"gate\":{\"kind\":\"%s\"}}],\"tower\":{\"hidden\":[]}}",
            moe_gates[g]->name);
        fix_batch(&f, 4, 24, TASKS, 3);
        if (CHECK_OK(fix_open(&f, spec, TASKS, 11)))
            one_scorer(&f, moe_gates[g]->name);
        fix_close(&f);
    }
    unsetenv("MOERANK_SCORER");
}

static void test_forced_path(void) {
    struct fixture f = {0};
    struct moe_scorer *s = NULL;
    struct moe_scorer_conf conf = {MOE_FP32, 10}, none = {MOE_FP32, 0}, low = {MOE_BF16, 10};
    fix_batch(&f, 4, 24, TASKS, 3);
    CHECK_OK(fix_open(&f, specs[0], TASKS, 11));
    setenv("MOERANK_SCORER", "reference", 1);
    if (CHECK_OK(moe_scorer_new(f.m, &conf, &s)))
        CU_ASSERT_STRING_EQUAL(moe_scorer_path(s), "reference-fp32");
    moe_scorer_free(s);
    CHECK_FAILS(moe_scorer_new(f.m, &low, &s), STATUS_UNIMPLEMENTED, "fp32");
    CHECK_FAILS(moe_scorer_new(f.m, &none, &s), STATUS_INVALID_ARGUMENT, "rows_max");
    setenv("MOERANK_SCORER", "nonsense", 1);
    CHECK_FAILS(moe_scorer_new(f.m, &conf, &s), STATUS_INVALID_ARGUMENT, "nonsense");
    unsetenv("MOERANK_SCORER");
    moe_scorer_free(NULL);
    fix_close(&f);
}

static void test_explain(void) {
    struct fixture f = {0};
    struct request q;
    float w[16], sum;
    fix_batch(&f, 4, 24, TASKS, 3);
    CHECK_OK(fix_open(&f, specs[1], TASKS, 11));
    request_open(&q, 30);
    struct moe_batch b = rows_of(&q, 0, 30);
    CU_ASSERT_EQUAL(moe_explain_gates(f.m), 3 + 1 + 3);
    CU_ASSERT_STRING_EQUAL(moe_explain_gate_name(f.m, 0), "level0.click");
    CU_ASSERT_STRING_EQUAL(moe_explain_gate_name(f.m, 4), "level1.click");
    CU_ASSERT_EQUAL(moe_explain_experts(f.m, 0), 3);
    CU_ASSERT_EQUAL(moe_explain_experts(f.m, 3), 5);
    CU_ASSERT_STRING_EQUAL(moe_explain_expert_name(f.m, 0, 1), "shared.1");
    CU_ASSERT_STRING_EQUAL(moe_explain_expert_name(f.m, 5, 2), "like.0");
    CU_ASSERT(moe_explain_gate_name(f.m, 7) == NULL && moe_explain_expert_name(f.m, 0, 3) == NULL);
    for (int g = 0; g < 7; g++) {
        CHECK_OK(moe_explain(f.m, &b, 11, g, w));
        sum = 0;
        for (int e = 0; e < moe_explain_experts(f.m, g); e++)
            sum += w[e];
        CU_ASSERT(fabsf(sum - 1) < 1e-5f);
    }
    CHECK_FAILS(moe_explain(f.m, &b, 11, 7, w), STATUS_INVALID_ARGUMENT, "gate 7");
    CHECK_FAILS(moe_explain(f.m, &b, 30, 0, w), STATUS_INVALID_ARGUMENT, "row 30");
    request_close(&q);
    fix_close(&f);
}

SUITE("moe_scorer", TEST(test_equal_bits), TEST(test_every_gate), TEST(test_forced_path),
      TEST(test_explain))
