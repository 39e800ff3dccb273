/* moe_train_esmm.c: a task after another: its output is the chance given the first, the product of
 * both fits the rate of both over all rows, and relations that make no sense are refused. Slopes:
 * moe_loss.c. Prints what the full-space loss gains over learning on the first's rows alone. */
#include <math.h>
#include <string.h>
#include "base/heap.h"
#include "base/rng.h"
#include "moe/model_impl.h"
#include "moe/report/eval.h"
#include "moe/train/train.h"
#include "tests/support/suite.h"

static const char *const names[] = {"a", "b"};
static const char spec_text[] =
    "layers: [{kind: mmoe, experts: 2, expert: {hidden: [16], out: 8}}]\ntower: {hidden: [8]}\n";

/* A click is rare and follows a, an order given a click follows b and a. would: order labels as
 * they were if all rows had been clicked. */
static struct moe_examples *world(int rows, uint64_t seed, float *would) {
    struct moe_inputs in = {.cand_columns = 2, .cand_names = names};
    struct moe_examples *x = moe_examples_new(&in, 2);
    struct rng r;
    rng_init(&r, seed);
    for (int i = 0; i < rows; i++) {
        float v[2] = {(float)rng_normal(&r), (float)rng_normal(&r)}, label[2];
        bool click = rng_double(&r) < 1 / (1 + exp(2.5 - 1.2 * (double)v[0]));
        bool order = rng_double(&r) < 1 / (1 + exp(0.5 + 0.6 * (double)v[0] - 1.5 * (double)v[1]));
        label[0] = click;
        label[1] = click ? (float)order : NAN;
        would[i] = order;
        struct moe_batch b = {.n_groups = 1, .n_rows = 1, .cand = v};
        moe_examples_add(x, &b, label, NULL, i, (uint64_t)i);
    }
    return x;
}

static enum status train(const struct moe_task_spec *tasks, const struct moe_examples *x,
                         struct arena *a, struct moe_model **out) {
    struct moe_train_conf c;
    struct moe_train_report report;
    struct node *spec;
    conf_defaults(moe_train_items, &c, a);
    c.epochs = 6;
    c.batch_rows = 256;
    c.rate = 5e-3;
    TRY(node_parse_yaml(a, slice_of(spec_text), "spec", &spec));
    return moe_train(spec, "spec", tasks, x, &c, 1, a, &report, out);
}

struct seen {
    double auc, mean, want; /* of orders had all been clicked; of the product; of both labels */
};
static struct seen look(const struct moe_model *m, const struct moe_examples *x,
                        const float *would) {
    const int n = x->n_rows;
    float *p = HEAP_ARRAY(float, n * 2), *order = HEAP_ARRAY(float, n);
    struct seen s = {0};
    moe_predict(m, x, p);
    for (int i = 0; i < n; i++) {
        order[i] = p[i * 2 + 1];
        s.mean += (double)p[i * 2] * (double)p[i * 2 + 1] / n;
        s.want += (double)(x->labels[i * 2] * would[i]) / n;
    }
    s.auc = moe_auc(order, would, n);
    heap_free(p);
    heap_free(order);
    return s;
}

enum { ROWS = 12000 };
static float would[ROWS];

static void test_chance_of_both(void) {
    static const struct moe_task_spec plain[] = {{"click", 1}, {"order", 1}},
                                      esmm[] = {{"click", 1}, {"order", 1, .esmm = "click"}};
    struct arena a;
    struct moe_model *m[2] = {0};
    struct moe_examples *x = world(ROWS, 1, would), *fresh;
    arena_init(&a, 0);
    CHECK_OK(train(plain, x, &a, &m[0]));
    CHECK_OK(train(esmm, x, &a, &m[1]));
    fresh = world(ROWS, 2, would);
    if (m[0] && m[1]) {
        struct seen s[2] = {look(m[0], fresh, would), look(m[1], fresh, would)};
        printf(
            "\n    order given click, over all rows: AUC %.4f learnt on clicks, %.4f by the product; "
            "rate of both %.4f: says %.4f and %.4f ",
            s[0].auc, s[1].auc, s[0].want, s[0].mean, s[1].mean);
        CU_ASSERT_EQUAL(m[1]->task_loss[1].after, 1);
        CU_ASSERT(fabs(s[1].mean / s[1].want - 1) < 0.15);
        CU_ASSERT(s[1].auc > 0.75); /* it is the chance given the click, of rows without one too */
        CU_ASSERT(strcmp(moe_model_version(m[0]), moe_model_version(m[1])) != 0);
    }
    for (int i = 0; i < 2; i++)
        moe_model_free(m[i]);
    moe_examples_free(x);
    moe_examples_free(fresh);
    arena_deinit(&a);
}

static void test_what_is_refused(void) {
    static const struct moe_task_spec bad[][2] = {
        {{"click", 1}, {"order", 1, .esmm = "clikc"}},
        {{"click", 1}, {"order", 1, .esmm = "order"}},
        {{"click", 1, .esmm = "order"}, {"order", 1, .esmm = "click"}},
        {{"click", 1}, {"order", 1, .loss = {.kind = MOE_LOSS_FOCAL}, .esmm = "click"}},
        {{"click", 1, .loss = {.kind = MOE_LOSS_MSE}}, {"order", 1, .esmm = "click"}},
    };
    struct arena a;
    struct moe_examples *x = world(100, 1, would);
    arena_init(&a, 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct moe_model *m = NULL;
        CU_ASSERT_EQUAL(train(bad[i], x, &a, &m), STATUS_INVALID_ARGUMENT);
        CU_ASSERT(m == NULL && strstr(status_message(), "esmm") != NULL);
    }
    moe_examples_free(x);
    arena_deinit(&a);
}

static void test_the_file_keeps_it(void) {
    static const struct moe_task_spec esmm[] = {{"click", 1}, {"order", 1, .esmm = "click"}};
    struct arena a;
    struct moe_model *m = NULL, *back = NULL;
    struct moe_examples *x = world(500, 1, would);
    arena_init(&a, 0);
    if (CHECK_OK(train(esmm, x, &a, &m)) && CHECK_OK(moe_model_save(m, "moe_train_esmm.st")) &&
        CHECK_OK(moe_model_load("moe_train_esmm.st", &back)))
        CU_ASSERT(back->task_loss[1].after == 1 && back->task_loss[0].after == 0);
    remove("moe_train_esmm.st");
    moe_model_free(m);
    moe_model_free(back);
    moe_examples_free(x);
    arena_deinit(&a);
}

SUITE("moe_train_esmm", TEST(test_chance_of_both), TEST(test_what_is_refused),
      TEST(test_the_file_keeps_it))
