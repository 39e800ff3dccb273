/* moe_position.c: the position tower: its gradient, that serving does not see it, that the network
 * does not see its inputs, what is written and read, and that it keeps the place out of the score.
 */
#include <unistd.h>
#include "moe/score/scorer.h"
#include "moe/train/train.h"
#include "tests/support/moe_fixture.h"
#include "tests/support/suite.h"

#define BODY                                                                                       \
    "\"numbers\":{\"encode\":[\"value\",\"quantile\"],\"bins\":4},\"layers\":[{\"kind\":\"mmoe\"," \
    "\"experts\":2,\"expert\":{\"kind\":\"mlp\",\"hidden\":[6],\"out\":4,\"act\":\"silu\"}}],"     \
    "\"tower\":{\"hidden\":[]},\"wide\":true"
static const char with[] =
    "{" BODY ",\"position\":{\"inputs\":[\"shown\",\"hour\"],\"hidden\":[4],\"dropout\":0.3}}";
enum { TASKS = 2, ROWS = 30 };

static bool open_it(struct fixture *f, const char *spec) {
    fix_batch(f, 4, ROWS, TASKS, 3);
    return CHECK_OK(fix_open(f, spec, TASKS, 11));
}

static void test_gradient(void) {
    struct fixture f = {0};
    char worst[128] = "";
    if (open_it(&f, with)) {
        CU_ASSERT(fix_gradient_error(&f, 0.2f, 5e-3, worst) < 3e-3);
        double sum = 0;
        fix_loss(&f, f.m->params.v, 0, true);
        for (size_t i = 0; i < f.m->params.t[f.m->position.tensor].stride; i++)
            sum += fabs((double)moe_params_at(&f.m->params, f.g, f.m->position.tensor, 0)[i]);
        CU_ASSERT(sum > 1e-3);
    }
    fix_close(&f);
}

/* Training logits are the serving ones and b(e) - b(0), counted by hand for a linear tower. */
static void test_what_it_adds(void) {
    struct fixture f = {0};
    if (open_it(&f, "{" BODY ",\"position\":{\"inputs\":[\"shown\",\"hour\"],\"hidden\":[],"
                    "\"dropout\":0}}")) {
        float plain[ROWS * TASKS];
        struct moe_pass serving = {.batch = &f.batch};
        const float *w = moe_params_at(&f.m->params, f.m->params.v, f.m->position.tensor, 0);
        moe_forward(f.m, f.m->params.v, &f.batch, f.run, &serving, false);
        memcpy(plain, f.run->logits, sizeof plain);
        fix_loss(&f, f.m->params.v, 0, false);
        int moved = 0;
        for (int r = 0; r < ROWS; r++)
            for (int t = 0; t < TASKS; t++) {
                float x[2] = {f.cand[r * 4 + 2], f.query[f.group[r] * 3 + 1]};
                double want = (double)plain[r * TASKS + t];
                for (int i = 0; i < 2; i++) {
                    float a = fabsf(x[i]), e[3] = {log1pf(a), 1 / (1 + a), 1};
                    for (int k = 0; k < 3 && !isnan(x[i]); k++)
                        want += (double)(e[k] * w[(i * 3 + k) * TASKS + t]);
                }
                CU_ASSERT_DOUBLE_EQUAL(f.run->logits[r * TASKS + t], want, 1e-4);
                moved += fabs(want - (double)plain[r * TASKS + t]) > 1e-3;
            }
        CU_ASSERT(moved > ROWS);
    }
    fix_close(&f);
}

/* Every scorer gives the same bits wherever an item stood. */
static void test_serving_ignores_it(void) {
    static const char *const paths[] = {"reference", NULL};
    for (int i = 0; i < 2; i++) {
        struct fixture f = {0};
        struct moe_scorer *s;
        struct moe_scorer_conf conf = {.precision = MOE_FP32, .rows_max = ROWS};
        float p[2][ROWS * TASKS];
        if (paths[i])
            setenv("MOERANK_SCORER", paths[i], 1);
        if (open_it(&f, with) && CHECK_OK(moe_scorer_new(f.m, &conf, &s))) {
            void *scratch = heap_alloc_aligned(moe_scorer_scratch_bytes(s) + 64);
            struct moe_batch one = f.batch;
            one.n_groups = 1;
            one.group = NULL;
            for (int k = 0; k < 2; k++) {
                moe_scorer_score(s, &one, scratch, p[k]);
                for (int r = 0; r < ROWS; r++)
                    f.cand[r * 4 + 2] = r % 3 ? (float)(r + 1) : NAN;
                f.query[1] = 1e30f;
            }
            CU_ASSERT(memcmp(p[0], p[1], sizeof p[0]) == 0);
            f.cand[0] += 3; /* the control: another column does count */
            moe_scorer_score(s, &one, scratch, p[1]);
            CU_ASSERT(memcmp(p[0], p[1], sizeof p[0]) != 0);
            heap_free(scratch);
            moe_scorer_free(s);
        }
        unsetenv("MOERANK_SCORER");
        fix_close(&f);
    }
}

static void test_written_and_read(void) {
    struct fixture f = {0};
    struct moe_model *m;
    char path[] = "/tmp/moe_position_XXXXXX";
    int file = mkstemp(path);
    if (open_it(&f, with) && CHECK_OK(moe_model_save(f.m, path)) &&
        CHECK_OK(moe_model_load(path, &m))) {
        CU_ASSERT(m->position.n == 2 && m->part[1] == f.m->part[1]);
        CU_ASSERT_STRING_EQUAL(moe_model_version(m), moe_model_version(f.m));
        CU_ASSERT_STRING_EQUAL(moe_model_spec_json(m), moe_model_spec_json(f.m));
        moe_model_free(m);
    }
    close(file);
    unlink(path);
    fix_close(&f);
    CHECK_FAILS((fix_batch(&f, 4, ROWS, TASKS, 3),
                 fix_open(&f, "{" BODY ",\"position\":{\"inputs\":[\"place\"]}}", TASKS, 3)),
                STATUS_INVALID_ARGUMENT, "'place'");
    fix_close(&f);
}

/* Clicks at the top are seen more, and the logging policy puts what it likes there, with some
 * swaps. The model with the tower finds how much `good` counts at equal places; one that is hardly
 * told of the place takes the policy's liking for the users'. */
static double slope_of(const char *spec_json, struct arena *a) {
    enum { N = 6000, EACH = 10 };
    static const char *const names[] = {"good", "shown"};
    const struct moe_inputs in = {.cand_columns = 2, .cand_names = names};
    struct moe_examples *x = moe_examples_new(&in, 1);
    struct moe_train_conf conf;
    struct conf_place place = {"t", "train"};
    struct moe_train_report report;
    struct moe_task_spec task = {.name = "click", .weight = 1};
    struct moe_model *m = NULL;
    struct node *spec, *train;
    struct rng r;
    double slope = NAN;
    rng_init(&r, 7);
    for (int g = 0; g < N / EACH; g++) {
        float cand[EACH * 2], label[EACH];
        for (int i = 0; i < EACH; i++) {
            double good = rng_normal(&r), seen = 4 * (good + 0.7 * rng_normal(&r));
            int at = (int)fmin(9, fmax(0, 5 - seen));
            cand[2 * i] = (float)good;
            cand[2 * i + 1] = (float)at;
            label[i] = rng_double(&r) < 1 / (1 + exp(-(good - 0.5 * at + 1)));
        }
        struct moe_batch b = {.n_groups = 1, .n_rows = EACH, .cand = cand};
        moe_examples_add(x, &b, label, NULL, g, (uint64_t)g);
    }
    CHECK_OK(node_parse_json(a, slice_of(spec_json), "spec", &spec));
    CHECK_OK(node_parse_json(a,
                             SLICE_LIT("{\"epochs\":12,\"rate\":0.01,\"validation\":0,"
                                       "\"batch_rows\":100,\"weight_decay\":0}"),
                             "t", &train));
    CHECK_OK(conf_read(moe_train_items, train, place, NULL, &conf, a));
    if (CHECK_OK(moe_train(spec, "t", &task, x, &conf, true, a, &report, &m))) {
        /* the slope of the logit in `good`, all shown at the fifth place */
        float cand[] = {-1, 5, 1, 5}, p[2];
        struct moe_examples *asked = moe_examples_new(&in, 1);
        float labels[] = {0, 0};
        struct moe_batch b = {.n_groups = 1, .n_rows = 2, .cand = cand};
        moe_examples_add(asked, &b, labels, NULL, 0, 0);
        moe_predict(m, asked, p);
        slope =
            (log((double)p[1] / (1 - (double)p[1])) - log((double)p[0] / (1 - (double)p[0]))) / 2;
        moe_examples_free(asked);
    }
    moe_model_free(m);
    moe_examples_free(x);
    return slope;
}
static void test_place_is_kept_out_of_the_score(void) {
    struct arena a;
    arena_init(&a, 0);
#define SMALL                                                                                       \
    "\"layers\":[{\"kind\":\"shared_bottom\",\"expert\":{\"kind\":\"mlp\",\"hidden\":[],\"out\":4," \
    "\"act\":\"none\"}}],\"tower\":{\"hidden\":[]},\"wide\":true"
    double tower = slope_of("{" SMALL ",\"position\":{\"inputs\":[\"shown\"],\"dropout\":0}}", &a);
    double some = slope_of("{" SMALL ",\"position\":{\"inputs\":[\"shown\"]}}", &a);
    double blind =
        slope_of("{" SMALL ",\"position\":{\"inputs\":[\"shown\"],\"dropout\":0.9}}", &a);
    printf(
        "\n    slope of the truth 1: told of every place %.3f, of 90 %% %.3f, of 10 %% %.3f\n    ",
        tower, some, blind);
    CU_ASSERT(fabs(tower - 1) < 0.25);
    CU_ASSERT(some > tower && some < tower + 0.5);
    CU_ASSERT(blind > tower + 0.8);
    arena_deinit(&a);
}

SUITE("moe_position", TEST(test_gradient), TEST(test_what_it_adds), TEST(test_serving_ignores_it),
      TEST(test_written_and_read), TEST(test_place_is_kept_out_of_the_score))
