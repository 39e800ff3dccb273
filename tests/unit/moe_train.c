/* moe_train.c: training learns what can be learned, is the same for the same seed and threads,
 * keeps to its own slice of time, and says what is wrong. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/heap.h"
#include "base/rng.h"
#include "moe/report/eval.h"
#include "moe/model_impl.h"
#include "moe/train/train.h"
#include "tests/support/suite.h"

static const char *const query_names[] = {"q"};
static const char *const cand_names[] = {"a", "b"};
static const struct moe_id_input ids[] = {{"item", 0, 0, 1, 0}};
static const struct moe_table_spec tables[] = {{"item", 21, 4}};
static const struct moe_task_spec tasks[] = {{"click", 1}, {"buy", 0.5}};
#define ITEMS 20

/* Requests of 1-6 candidates; click depends on a * q and the item, buy (known on clicks only) on b.
 */
static struct moe_examples *world(int groups, uint64_t seed) {
    struct moe_inputs in = {.query_columns = 1,
                            .cand_columns = 2,
                            .query_names = query_names,
                            .cand_names = cand_names,
                            .cand_slots = 1,
                            .ids = ids,
                            .n_ids = 1,
                            .tables = tables,
                            .n_tables = 1};
    struct moe_examples *x = moe_examples_new(&in, 2);
    struct rng r;
    rng_init(&r, seed);
    for (int g = 0; g < groups; g++) {
        float q[1] = {(float)rng_normal(&r)}, cand[12], labels[12];
        uint32_t id[6];
        int n = 1 + (int)rng_below(&r, 6);
        for (int i = 0; i < n; i++) {
            cand[i * 2] = (float)rng_normal(&r);
            cand[i * 2 + 1] = rng_below(&r, 10) ? (float)(100 * rng_normal(&r)) : NAN;
            id[i] = 1 + rng_below(&r, ITEMS);
            double z = 1.5 * (double)(q[0] * cand[i * 2]) + ((id[i] % 3) - 1.0) * 1.5;
            double b = isnan(cand[i * 2 + 1]) ? 1.0 : (double)cand[i * 2 + 1] / 50;
            labels[i * 2] = rng_double(&r) < 1 / (1 + exp(-z));
            labels[i * 2 + 1] = labels[i * 2] == 1 ? rng_double(&r) < 1 / (1 + exp(-b)) : NAN;
        }
        struct moe_batch b = {.n_groups = 1, .n_rows = n, .query = q, .cand = cand, .cand_ids = id};
        moe_examples_add(x, &b, labels, NULL, groups - g, (uint64_t)g); /* newest first */
    }
    return x;
}

static struct moe_train_conf conf_of(struct arena *a) {
    struct moe_train_conf c;
    conf_defaults(moe_train_items, &c, a);
    c.epochs = 8;
    c.batch_rows = 256;
    c.rate = 5e-3;
    return c;
}

static double auc_of(const struct moe_model *m, const struct moe_examples *x, int task) {
    float *p = HEAP_ARRAY(float, x->n_rows * 2), *s = HEAP_ARRAY(float, x->n_rows),
          *y = HEAP_ARRAY(float, x->n_rows);
    moe_predict(m, x, p);
    for (int i = 0; i < x->n_rows; i++) {
        s[i] = p[i * 2 + task];
        y[i] = x->labels[i * 2 + task];
    }
    double auc = moe_auc(s, y, x->n_rows);
    heap_free(p);
    heap_free(s);
    heap_free(y);
    return auc;
}

static const char spec_text[] =
    "layers: [{kind: cgc, shared: 2, own: 1, expert: {hidden: [16], out: 8}}]\n"
    "tower: {hidden: [8]}\n";
static struct node *spec_of(struct arena *a, const char *text) {
    struct node *n = NULL;
    CHECK_OK(node_parse_yaml(a, slice_of(text), "spec", &n));
    return n;
}

static void test_learns(void) {
    struct arena a;
    arena_init(&a, 0);
    struct moe_examples *x = world(3000, 1), *fresh = world(1500, 2);
    struct moe_train_conf c = conf_of(&a);
    struct moe_train_report r;
    struct moe_model *m = NULL;
    c.ema = 0.99;
    c.dropout = 0.05;
    if (CHECK_OK(moe_train(spec_of(&a, spec_text), "spec", tasks, x, &c, 1, &a, &r, &m))) {
        CU_ASSERT(auc_of(m, fresh, 0) > 0.78);
        CU_ASSERT(auc_of(m, fresh, 1) > 0.78);
        CU_ASSERT(r.validation_auc[0] > 0.78 && r.validation_loss < 1.0 && r.best_epoch >= 1);
        CU_ASSERT(r.rows_per_s > 0 && r.epochs_run <= 8);
        CU_ASSERT_EQUAL(strlen(moe_model_version(m)), 16);
    }
    moe_model_free(m);
    moe_examples_free(x);
    moe_examples_free(fresh);
    arena_deinit(&a);
}

static void test_same_seed_same_bits(void) {
    struct arena a;
    struct moe_model *m[5] = {0};
    arena_init(&a, 0);
    struct moe_examples *x = world(600, 1);
    for (int i = 0; i < 5; i++) {
        struct moe_train_conf c = conf_of(&a);
        struct moe_train_report r;
        c.epochs = 2;
        c.dropout = 0.2;
        c.threads = i < 2 ? 1 : i < 4 ? 3 : 1;
        c.seed = i < 4 ? 7 : 8;
        CHECK_OK(moe_train(spec_of(&a, spec_text), "spec", tasks, x, &c, 1, &a, &r, &m[i]));
    }
    CU_ASSERT_STRING_EQUAL(moe_model_version(m[0]), moe_model_version(m[1]));
    CU_ASSERT_STRING_EQUAL(moe_model_version(m[2]), moe_model_version(m[3]));
    CU_ASSERT_STRING_NOT_EQUAL(moe_model_version(m[0]), moe_model_version(m[4]));
    for (int i = 0; i < 5; i++)
        moe_model_free(m[i]);
    moe_examples_free(x);
    arena_deinit(&a);
}

/* Without dropout, threads change only the order of sums. */
static void test_threads_agree(void) {
    struct arena a;
    struct moe_model *m[2] = {0};
    arena_init(&a, 0);
    struct moe_examples *x = world(400, 3);
    for (int i = 0; i < 2; i++) {
        struct moe_train_conf c = conf_of(&a);
        struct moe_train_report r;
        c.epochs = 1;
        c.threads = i ? 4 : 1;
        c.optimizer = 2; /* sgd: adam turns rounding of tiny gradients into whole steps */
        c.rate = 0.05;
        CHECK_OK(moe_train(spec_of(&a, spec_text), "spec", tasks, x, &c, 1, &a, &r, &m[i]));
    }
    float *p = HEAP_ARRAY(float, x->n_rows * 2), *q = HEAP_ARRAY(float, x->n_rows * 2);
    moe_predict(m[0], x, p);
    moe_predict(m[1], x, q);
    float worst = 0;
    for (int i = 0; i < x->n_rows * 2; i++)
        worst = fmaxf(worst, fabsf(p[i] - q[i]));
    CU_ASSERT(worst < 1e-4f);
    heap_free(p);
    heap_free(q);
    moe_model_free(m[0]);
    moe_model_free(m[1]);
    moe_examples_free(x);
    arena_deinit(&a);
}

/* Examples that hold their numbers compact, whole chunks of them and sorted, make the very model.
 */
static void test_compact_examples_make_the_same_model(void) {
    struct arena a;
    struct moe_model *m[2] = {0};
    arena_init(&a, 0);
    struct moe_examples *x = world(6000, 6), *y = moe_examples_new(&x->inputs, 2);
    moe_examples_hold_compact(y);
    for (int g = 0; g < x->n_groups; g++) {
        struct moe_batch b;
        int r = moe_examples_view(x, g, 1, &b);
        moe_examples_add(y, &b, x->labels + r * 2, NULL, x->time_us[g], x->group_key[g]);
    }
    moe_examples_sort(x);
    moe_examples_sort(y);
    CU_ASSERT(x->n_rows > 16384 && y->cand == NULL && y->place != NULL);
    float *p = HEAP_ARRAY(float, x->n_rows * 2), *q = HEAP_ARRAY(float, x->n_rows * 2);
    for (int i = 0; i < 2; i++) {
        struct moe_train_conf c = conf_of(&a);
        struct moe_train_report r;
        c.epochs = 1;
        CHECK_OK(moe_train(spec_of(&a, spec_text), "spec", tasks, i ? y : x, &c, 1, &a, &r, &m[i]));
    }
    CU_ASSERT_STRING_EQUAL(moe_model_version(m[0]), moe_model_version(m[1]));
    moe_predict(m[0], x, p);
    moe_predict(m[1], y, q);
    CU_ASSERT(memcmp(p, q, (size_t)x->n_rows * 2 * sizeof *p) == 0);
    int first = moe_predict_from(m[1], y, 5990, q);
    CU_ASSERT(first > 0 && x->group[first] == 5990 && x->group[first - 1] == 5989);
    for (int i = first * 2; i < x->n_rows * 2; i++)
        CU_ASSERT(fabsf(q[i - first * 2] - p[i]) < 1e-6f); /* other blocks, other orders of sums */
    CU_ASSERT_EQUAL(moe_predict_from(m[1], y, x->n_groups, q), x->n_rows);
    heap_free(p);
    heap_free(q);
    moe_model_free(m[0]);
    moe_model_free(m[1]);
    moe_examples_free(x);
    moe_examples_free(y);
    arena_deinit(&a);
}

/* Encoders see training rows only: the newest tenth is 1000 times larger and must not be seen. */
static void test_no_peeking(void) {
    struct arena a;
    arena_init(&a, 0);
    struct moe_examples *x = world(1000, 4);
    struct moe_train_conf c = conf_of(&a);
    struct moe_train_report r;
    struct moe_model *m = NULL;
    c.epochs = 1;
    for (int i = 0; i < x->n_rows; i++)
        if (x->group[i] < 100) /* times fall with the group's number */
            x->cand[i * 2] += 1e6f;
    if (CHECK_OK(moe_train(spec_of(&a, spec_text), "spec", tasks, x, &c, 1, &a, &r, &m)))
        CU_ASSERT(fabsf(m->encode[MOE_CAND].column[0].mean) < 1);
    moe_model_free(m);
    moe_examples_free(x);
    arena_deinit(&a);
}

static void test_stops_early(void) {
    struct arena a;
    arena_init(&a, 0);
    struct moe_examples *x = world(150, 5);
    struct moe_train_conf c = conf_of(&a);
    struct moe_train_report r;
    struct moe_model *m = NULL;
    c.epochs = 200;
    c.patience = 2;
    c.rate = 0.03;
    c.batch_rows = 32;
    c.schedule = 1; /* constant */
    if (CHECK_OK(moe_train(spec_of(&a, spec_text), "spec", tasks, x, &c, 1, &a, &r, &m)))
        CU_ASSERT(r.epochs_run < 200 && r.best_epoch == r.epochs_run - 2);
    moe_model_free(m);
    moe_examples_free(x);
    arena_deinit(&a);
}

static void test_what_is_wrong(void) {
    struct arena a;
    arena_init(&a, 0);
    struct moe_examples *x = world(200, 6);
    struct moe_train_conf c = conf_of(&a);
    struct moe_train_report r;
    struct moe_model *m = NULL;
#define FAILS(text, code, part)                                                                    \
    CHECK_FAILS(moe_train(spec_of(&a, text), "m.yaml", tasks, x, &c, 1, &a, &r, &m), code, part)
    FAILS("layers: [{kind: mmo}]", STATUS_INVALID_ARGUMENT, "did you mean 'mmoe'");
    FAILS("layers: [{kind: mmoe, gate: {kind: sofmax}}]", STATUS_INVALID_ARGUMENT, "m.yaml:1");
    FAILS("layers: [{kind: mmoe, expert: {hiden: [3]}}]", STATUS_INVALID_ARGUMENT, "hidden");
    FAILS("layers: [{kind: cgc, shared: 0, own: 0}]", STATUS_INVALID_ARGUMENT, "no experts");
    FAILS("layers: 3", STATUS_INVALID_ARGUMENT, "layers");
    FAILS("numbers: {encode: [valeu]}", STATUS_INVALID_ARGUMENT, "did you mean 'value'");
    FAILS("colour: red", STATUS_INVALID_ARGUMENT, "colour");
    c.rate = 10;
    c.optimizer = 2;
    x->labels[(x->n_rows - 1) * 2] = 1e30f; /* the oldest: not held out */
    FAILS(spec_text, STATUS_FAILED_PRECONDITION, "epoch 1, batch");
    moe_examples_free(x);
    x = world(0, 6);
    FAILS(spec_text, STATUS_FAILED_PRECONDITION, "no rows");
    moe_examples_free(x);
    arena_deinit(&a);
}

/* One poisoned row: training stops there, or skips the steps it is in and learns from the others.
 */
static void test_bad_steps(void) {
    struct arena a;
    arena_init(&a, 0);
    struct moe_examples *x = world(3000, 8), *fresh = world(1500, 2);
    struct moe_train_conf c = conf_of(&a);
    struct moe_train_report r;
    struct moe_model *m = NULL;
    c.epochs = 8;
    c.prior_bias = false;
    c.patience = 0;
    x->labels[(x->n_rows - 1) * 2] = INFINITY; /* the oldest: not held out */
    for (int threads = 1; threads <= 2; threads++) {
        c.threads = threads;
        c.bad_steps_max = 0;
        FAILS(spec_text, STATUS_FAILED_PRECONDITION, "epoch 1, batch");
        c.bad_steps_max = 7;
        FAILS(spec_text, STATUS_FAILED_PRECONDITION, "more often than bad_steps_max");
        CU_ASSERT_EQUAL(r.bad_steps, 8);
        c.bad_steps_max = 8;
        if (CHECK_OK(moe_train(spec_of(&a, spec_text), "m.yaml", tasks, x, &c, 1, &a, &r, &m))) {
            CU_ASSERT_EQUAL(r.bad_steps, 8);
            CU_ASSERT(auc_of(m, fresh, 0) > 0.75);
            moe_model_free(m);
        }
    }
    moe_examples_free(x);
    moe_examples_free(fresh);
    arena_deinit(&a);
}

static void test_examples(void) {
    struct moe_examples *x = world(50, 7);
    struct moe_batch b;
    float first = x->cand[0];
    int64_t newest = x->time_us[0];
    CU_ASSERT(newest == 50);
    moe_examples_sort(x);
    CU_ASSERT(x->n_groups == 50 && x->time_us[0] == 1 && x->time_us[49] == 50);
    int from = moe_examples_view(x, 49, 1, &b);
    CU_ASSERT(b.n_rows + from == x->n_rows && b.cand[0] == first && b.group[0] == 49 &&
              b.first_group == 49);
    CU_ASSERT(moe_examples_view(x, 50, 0, &b) == x->n_rows && b.n_rows == 0);
    moe_examples_free(x);
    moe_examples_free(NULL);
}

SUITE("moe_train", TEST(test_learns), TEST(test_same_seed_same_bits), TEST(test_threads_agree),
      TEST(test_compact_examples_make_the_same_model), TEST(test_no_peeking),
      TEST(test_stops_early), TEST(test_what_is_wrong), TEST(test_bad_steps), TEST(test_examples))
