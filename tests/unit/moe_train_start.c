/* moe_train_start.c: where trees' numbers are among the inputs, an untrained model says what they
 * say: against the same model that does not know the column, the logit differs by the number less
 * the prior. Not without the plain value, and other tasks are as they were. */
#include <math.h>
#include <string.h>
#include "base/heap.h"
#include "base/rng.h"
#include "moe/model_impl.h"
#include "moe/train/train.h"
#include "tests/support/suite.h"

enum { ROWS = 400 };
static const struct moe_task_spec tasks[] = {{"click", 1}, {"buy", 1}};

static struct moe_examples *world(const char *const *names) {
    struct moe_inputs in = {.cand_columns = 2, .cand_names = (const char **)names};
    struct moe_examples *x = moe_examples_new(&in, 2);
    struct rng r;
    rng_init(&r, 4);
    for (int g = 0; g < ROWS; g++) {
        const float cand[] = {(float)rng_normal(&r), (float)(2 * rng_normal(&r) - 1)};
        const float labels[] = {g % 4 == 0, g % 2 == 0};
        struct moe_batch b = {.n_groups = 1, .n_rows = 1, .cand = cand};
        moe_examples_add(x, &b, labels, NULL, g, (uint64_t)g);
    }
    return x;
}

/* Logits [ROWS x 2] of the untrained model. */
static void start(const char *name, const char *spec_text, float *z) {
    const char *const names[] = {"a", name};
    struct arena a;
    struct node *spec;
    struct moe_train_conf c;
    struct moe_train_report r;
    struct moe_model *m = NULL;
    arena_init(&a, 0);
    conf_defaults(moe_train_items, &c, &a);
    c.epochs = 0;
    c.validation = 0;
    struct moe_examples *x = world(names);
    CHECK_OK(node_parse_yaml(&a, slice_of(spec_text), "spec", &spec));
    if (CHECK_OK(moe_train(spec, "spec", tasks, x, &c, 1, &a, &r, &m))) {
        moe_predict(m, x, z);
        for (int i = 0; i < 2 * ROWS; i++)
            z[i] = logf(z[i] / (1 - z[i]));
    }
    moe_model_free(m);
    moe_examples_free(x);
    arena_deinit(&a);
}

#define SPEC(numbers, wide)                                                                        \
    "numbers: {encode: [" numbers "]}\nwide: " wide                                                \
    "\nlayers: [{kind: mmoe, experts: 2, expert: {hidden: [8], out: 4}}]\n"

static void compare(const char *spec, bool starts) {
    const char *const names[] = {"a", "b"};
    static float with[2 * ROWS], without[2 * ROWS];
    struct moe_examples *x = world(names);
    const double prior = log(100.5 / 300.5);
    double worst = 0, other = 0;
    start("trees of click", spec, with);
    start("trees of nothing", spec, without);
    for (int r = 0; r < ROWS; r++) {
        const double more = starts ? (double)x->cand[2 * r + 1] - prior : 0;
        worst = fmax(worst, fabs((double)with[2 * r] - (double)without[2 * r] - more));
        other = fmax(other, fabs((double)with[2 * r + 1] - (double)without[2 * r + 1]));
    }
    CU_ASSERT(worst < 2e-3);
    CU_ASSERT(other == 0);
    moe_examples_free(x);
}

static void test_starts(void) {
    compare(SPEC("value", "true"), true);
    compare(SPEC("quantile, value, ple", "true"), true);
}
static void test_leaves_others(void) {
    compare(SPEC("value", "false"), false);
    compare(SPEC("quantile", "true"), false);
}

SUITE("moe_train_start", TEST(test_starts), TEST(test_leaves_others))
