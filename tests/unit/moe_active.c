/* What a row costs: dense mixtures cost all their experts, sparse ones those that ran. */
#include "moe/report/active.h"
#include "tests/support/moe_fixture.h"
#include "tests/support/suite.h"

static struct moe_active measure(const char *gate) {
    struct moe_active out = {0};
    struct fixture f = {0};
    char spec[512];
    snprintf(spec, sizeof spec,
             "{\"layers\":[{\"kind\":\"mmoe\",\"experts\":4,\"expert\":{\"kind\":\"mlp\","
             "\"hidden\":[64],\"out\":8},\"gate\":%s}],\"tower\":{\"hidden\":[]}}",
             gate);
    fix_batch(&f, 6, 60, 1, 3);
    if (!CHECK_OK(fix_open(&f, spec, 1, 4)))
        return out;
    struct moe_examples *x = moe_examples_new(&f.inputs, 1);
    for (int r = 0; r < 60; r++) {
        int g = f.group[r];
        struct moe_batch one = {.n_groups = 1,
                                .n_rows = 1,
                                .query = f.query + g * 3,
                                .query_ids = f.query_ids + g,
                                .cand = f.cand + r * 4,
                                .cand_ids = f.cand_ids + r * 4};
        moe_examples_add(x, &one, f.labels + r, NULL, r, (uint64_t)r);
    }
    moe_active_measure(f.m, x, &out);
    CU_ASSERT_DOUBLE_EQUAL(out.dense, moe_model_mflop_per_row(f.m), 1e-12);
    CU_ASSERT_EQUAL(out.out, 8);
    moe_examples_free(x);
    fix_close(&f);
    return out;
}

static void test_dense(void) {
    struct moe_active a = measure("{\"kind\":\"softmax\"}");
    CU_ASSERT_DOUBLE_EQUAL(a.mflop, a.dense, 1e-12);
    CU_ASSERT(a.body > 0 && a.body < a.mflop);
}

/* One task, k of four experts: the others' share is exactly what is saved. */
static void test_sparse(void) {
    struct moe_active one = measure("{\"kind\":\"switch\"}");
    struct moe_active two = measure("{\"kind\":\"topk\",\"k\":2}");
    double expert = (one.dense - one.mflop) / 3;
    CU_ASSERT(expert > 0);
    CU_ASSERT_DOUBLE_EQUAL(two.dense - two.mflop, 2 * expert, 1e-9);
}

/* Blending runs one expert, but every expert's numbers are read: it counts as dense. */
static void test_blend(void) {
    struct moe_active a = measure("{\"kind\":\"smear\"}");
    CU_ASSERT_DOUBLE_EQUAL(a.mflop, a.dense, 1e-12);
}

SUITE("moe_active", TEST(test_dense), TEST(test_sparse), TEST(test_blend))
