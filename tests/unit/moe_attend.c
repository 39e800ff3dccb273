/* moe_attend.c: attention over a list: against a direct loop, its gradient, empty lists and missing
 * candidates, serving, what is refused, and that it finds what a mean cannot. */
#define FIX_QUERY_SLOTS 5
#include <unistd.h>
#include "moe/score/scorer.h"
#include "moe/train/train.h"
#include "tests/support/moe_fixture.h"
#include "tests/support/suite.h"

#define SPEC                                                                                        \
    "{\"numbers\":{\"encode\":[\"value\",\"quantile\"],\"bins\":4},\"layers\":[{\"kind\":\"mmoe\"," \
    "\"experts\":2,\"expert\":{\"kind\":\"mlp\",\"hidden\":[6],\"out\":4,\"act\":\"silu\"}}],"      \
    "\"tower\":{\"hidden\":[]},\"wide\":true,\"attention\":{\"lists\":[\"recent\"],\"item\":\"item\"}}"
enum { TASKS = 2, ROWS = 30, SLOTS = FIX_QUERY_SLOTS - 1, DIM = 4 };

static bool open_it(struct fixture *f) {
    fix_batch(f, 5, ROWS, TASKS, 3);
    f->cand_ids[4] = 0; /* a candidate without id */
    for (int s = 1; s <= SLOTS; s++)
        f->query_ids[2 * FIX_QUERY_SLOTS + s] = 0; /* an empty list */
    f->query_ids[3 * FIX_QUERY_SLOTS + 1] = f->query_ids[3 * FIX_QUERY_SLOTS + 2] = 5; /* twice */
    return CHECK_OK(fix_open(f, SPEC, TASKS, 11));
}

static void by_hand(const struct fixture *f, int r, double *u) {
    const struct moe_model *m = f->m;
    const float *t = m->params.v + m->params.t[m->table_tensor[1]].at;
    const float *w = moe_params_at(&m->params, m->params.v, m->attend.one[0].tensor, 0);
    uint32_t item = f->cand_ids[r * 4];
    double e[SLOTS], sum = 0;
    for (int i = 0; i < DIM; i++)
        u[i] = 0;
    for (int s = 0; s < SLOTS; s++) {
        uint32_t id = f->query_ids[f->group[r] * FIX_QUERY_SLOTS + 1 + s];
        double score = 0;
        for (int i = 0; i < DIM && item; i++)
            for (int k = 0; k < DIM; k++)
                score += (double)(t[moe_embed_row(item, 17) * DIM + (uint32_t)i] * w[i * DIM + k] *
                                  t[moe_embed_row(id, 17) * DIM + (uint32_t)k]);
        e[s] = id ? exp(score / 2) : 0; /* sqrt(4) */
        sum += e[s];
        for (int k = 0; k < DIM; k++)
            u[k] += e[s] * (double)t[moe_embed_row(id, 17) * DIM + (uint32_t)k];
    }
    for (int k = 0; k < DIM; k++)
        u[k] = sum > 0 ? u[k] / sum : 0;
}

static void test_against_a_loop(void) {
    struct fixture f = {0};
    if (open_it(&f)) {
        struct moe_pass pass = {.batch = &f.batch};
        float *w = moe_params_at(&f.m->params, f.m->params.v, f.m->attend.one[0].tensor, 0);
        double u[DIM], apart = 0;
        for (int i = 0; i < DIM * DIM; i++)
            w[i] *= 300; /* embeddings are small at the start; the weights should differ */
        moe_forward(f.m, f.m->params.v, &f.batch, f.run, &pass, false);
        for (int r = 0; r < ROWS; r++) {
            const float *x = f.run->c + r * f.m->part[MOE_CAND] + f.m->attend.one[0].at;
            by_hand(&f, r, u);
            for (int k = 0; k < DIM; k++)
                CU_ASSERT_DOUBLE_EQUAL(x[k], u[k], 1e-5);
            if (r && f.group[r] == f.group[r - 1])
                apart = fmax(apart, fabs((double)(x[0] - x[-f.m->part[MOE_CAND]])));
        }
        CU_ASSERT(apart > 0.005); /* rows of one request differ */
    }
    fix_close(&f);
}

static void test_gradient(void) {
    for (int fold = -1; fold <= 1; fold++) {
        struct fixture f = {.fold = fold};
        char worst[128] = "";
        if (open_it(&f)) {
            float *t = f.m->params.v + f.m->params.t[f.m->table_tensor[1]].at;
            float *w = moe_params_at(&f.m->params, f.m->params.v, f.m->attend.one[0].tensor, 0);
            for (int i = DIM; i < 17 * DIM; i++)
                t[i] *= 15;
            for (int i = 0; i < DIM * DIM; i++)
                w[i] *= 10;
            double error = fix_gradient_error(&f, 0.2f, 5e-3, worst), sum = 0;
            if (!(error < 3e-3))
                printf("\n    fold %d: %s off by %g\n", fold, worst, error);
            CU_ASSERT(error >= 0 && error < 3e-3);
            fix_loss(&f, f.m->params.v, 0, true);
            for (int i = 0; i < DIM * DIM; i++)
                sum +=
                    fabs((double)moe_params_at(&f.m->params, f.g, f.m->attend.one[0].tensor, 0)[i]);
            CU_ASSERT(sum > 1e-4);
        }
        fix_close(&f);
    }
}

/* The scorer is the reference one, and says what the training path says. */
static void test_serving(void) {
    struct fixture f = {0};
    struct moe_scorer *s;
    struct moe_scorer_conf conf = {.precision = MOE_FP32, .rows_max = ROWS};
    if (open_it(&f) && CHECK_OK(moe_scorer_new(f.m, &conf, &s))) {
        struct moe_batch one = f.batch;
        struct moe_pass pass = {.batch = &one};
        float p[ROWS * TASKS], again[ROWS * TASKS];
        void *scratch = heap_alloc_aligned(moe_scorer_scratch_bytes(s) + 64);
        one.n_groups = 1;
        one.group = NULL;
        CU_ASSERT_STRING_EQUAL(moe_scorer_path(s), "reference-fp32");
        moe_scorer_score(s, &one, scratch, p);
        moe_forward(f.m, f.m->params.v, &one, f.run, &pass, false);
        for (int r = 0; r < ROWS; r++)
            for (int t = 0; t < TASKS; t++)
                CU_ASSERT_DOUBLE_EQUAL(p[t * ROWS + r],
                                       1 / (1 + exp(-(double)f.run->logits[r * TASKS + t])), 1e-5);
        one.n_rows = 7; /* a row's bits do not depend on the others */
        moe_scorer_score(s, &one, scratch, again);
        for (int r = 0; r < 7; r++)
            CU_ASSERT(again[r] == p[r] && again[7 + r] == p[ROWS + r]);
        heap_free(scratch);
        moe_scorer_free(s);
    }
    fix_close(&f);
}

static void refused(const char *attention, const char *why) {
    struct fixture f = {0};
    char spec[256];
    snprintf(spec, sizeof spec, "{\"attention\":%s}", attention);
    fix_batch(&f, 4, ROWS, TASKS, 3);
    CHECK_FAILS(fix_open(&f, spec, TASKS, 3), STATUS_INVALID_ARGUMENT, why);
    fix_close(&f);
}
static void test_refusals_and_the_file(void) {
    refused("{\"lists\":[\"seen\"],\"item\":\"item\"}", "'seen'");
    refused("{\"lists\":[\"tags\"],\"item\":\"item\"}", "query part");
    refused("{\"lists\":[\"recent\"],\"item\":\"tags\"}", "no single id");
    refused("{\"lists\":[\"city\"],\"item\":\"item\"}", "3 and 4 wide");
    struct fixture f = {0};
    struct moe_model *m;
    char path[] = "/tmp/moe_attend_XXXXXX";
    int file = mkstemp(path);
    if (open_it(&f) && CHECK_OK(moe_model_save(f.m, path)) && CHECK_OK(moe_model_load(path, &m))) {
        CU_ASSERT_STRING_EQUAL(moe_model_version(m), moe_model_version(f.m));
        CU_ASSERT(m->attend.n == 1 && m->attend.one[0].at == f.m->attend.one[0].at);
        moe_model_free(m);
    }
    close(file);
    unlink(path);
    fix_close(&f);
}

/* Liked is what the user has had before: the mean of a list does not tell well whether it holds the
 * candidate, attention does. */
static double trained_auc(const char *attention) {
    enum { REQUESTS = 1500, EACH = 4, ITEMS = 60 };
    static const struct moe_id_input ids[] = {{"recent", 1, 0, SLOTS, 0}, {"item", 0, 0, 1, 0}};
    static const struct moe_table_spec tables[] = {{"item", ITEMS + 1, 8}};
    const struct moe_inputs in = {.query_slots = SLOTS,
                                  .cand_slots = 1,
                                  .ids = ids,
                                  .n_ids = 2,
                                  .tables = tables,
                                  .n_tables = 1};
    struct moe_examples *x = moe_examples_new(&in, 1);
    struct moe_train_conf conf;
    struct moe_train_report report;
    struct moe_task_spec task = {.name = "like", .weight = 1};
    struct conf_place place = {"t", "train"};
    struct moe_model *m = NULL;
    struct node *spec, *train;
    struct arena a;
    struct rng r;
    char text[512];
    double auc = NAN;
    arena_init(&a, 0);
    rng_init(&r, 7);
    for (int g = 0; g < REQUESTS; g++) {
        uint32_t list[SLOTS], item[EACH];
        float label[EACH];
        for (int s = 0; s < SLOTS; s++)
            list[s] = 1 + rng_below(&r, ITEMS);
        for (int i = 0; i < EACH; i++) {
            bool had = i % 2;
            item[i] = had ? list[rng_below(&r, SLOTS)] : 1 + rng_below(&r, ITEMS);
            label[i] = rng_float(&r) < (had ? 0.8f : 0.2f);
        }
        struct moe_batch b = {.n_groups = 1, .n_rows = EACH, .query_ids = list, .cand_ids = item};
        moe_examples_add(x, &b, label, NULL, g, (uint64_t)g);
    }
    snprintf(
        text, sizeof text,
        "{\"layers\":[{\"kind\":\"shared_bottom\",\"expert\":{\"kind\":\"mlp\",\"hidden\":[32],"
        "\"out\":16}}],\"tower\":{\"hidden\":[]}%s}",
        attention);
    CHECK_OK(node_parse_json(&a, slice_of(text), "spec", &spec));
    CHECK_OK(node_parse_json(&a,
                             SLICE_LIT("{\"epochs\":30,\"rate\":0.01,\"validation\":0.25,"
                                       "\"batch_rows\":100}"),
                             "t", &train));
    CHECK_OK(conf_read(moe_train_items, train, place, NULL, &conf, &a));
    if (CHECK_OK(moe_train(spec, "t", &task, x, &conf, true, &a, &report, &m)))
        auc = report.validation_auc[0];
    moe_model_free(m);
    moe_examples_free(x);
    arena_deinit(&a);
    return auc;
}
static void test_it_finds_the_candidate_in_the_list(void) {
    double mean = trained_auc(""),
           with = trained_auc(",\"attention\":{\"lists\":[\"recent\"],\"item\":\"item\"}");
    printf(
        "\n    AUC on held-out requests (0.80 is all there is): mean of the list %.3f, attention "
        "%.3f\n    ",
        mean, with);
    CU_ASSERT(with > mean + 0.03);
}

SUITE("moe_attend", TEST(test_against_a_loop), TEST(test_gradient), TEST(test_serving),
      TEST(test_refusals_and_the_file), TEST(test_it_finds_the_candidate_in_the_list))
