/* moe_batch_norm.c: what batches leave behind for inference: of all workers together, nothing from
 * fewer than two rows; the running statistics are in the model file; a row alone in training is
 * normalised by them. Gradients: tests/contract/moe_gradients.c, PyTorch: moe_golden.c, folding
 * into packed weights: moe_scorer.c. */
#include <stdlib.h>
#include <unistd.h>
#include "moe/batch_norm.h"
#include "moe/experts/mlp.h"
#include "moe/model.h"
#include "tests/support/moe_fixture.h"
#include "tests/support/suite.h"

static const char spec[] =
    "{\"layers\":[{\"kind\":\"mmoe\",\"experts\":2,\"expert\":{\"hidden\":[6],\"out\":4,\"act\":\"silu\","
    "\"norm\":\"batch\"}}],\"tower\":{\"hidden\":[3]}}";

enum { N = 3, ROWS = 10 };

static void test_workers_add_up(void) {
    float x[ROWS * N], running[2][2 * N] = {{1, 2, 3, 1, 1, 1}, {1, 2, 3, 1, 1, 1}}, mean[N],
                                      var[N];
    struct rng r;
    rng_init(&r, 1);
    for (int i = 0; i < ROWS * N; i++)
        x[i] = (float)(100 + rng_normal(&r)); /* far from the running mean: sums must not cancel */
    for (int way = 0; way < 2; way++) {
        static const int cuts[2][4] = {{0, ROWS, ROWS, ROWS}, {0, 3, 5, ROWS}};
        float sums[1 + 2 * N] = {0};
        for (int w = 0; w < 3; w++) {
            int from = cuts[way][w], n = cuts[way][w + 1] - from;
            if (n == 0)
                continue;
            moe_batch_stats(n, N, x + from * N, mean, var);
            moe_batch_sums_add(n, N, mean, var, running[way], sums);
        }
        moe_batch_running_move(N, sums, running[way], running[way] + N);
    }
    for (int i = 0; i < 2 * N; i++)
        CU_ASSERT(fabsf(running[0][i] - running[1][i]) < 1e-3f * fabsf(running[0][i]));
    for (int i = 0; i < N; i++) {
        double sum = 0, squares = 0;
        for (int k = 0; k < ROWS; k++)
            sum += (double)x[k * N + i];
        for (int k = 0; k < ROWS; k++)
            squares += pow((double)x[k * N + i] - sum / ROWS, 2);
        CU_ASSERT_DOUBLE_EQUAL((double)running[0][i], 0.9 * (i + 1) + 0.1 * sum / ROWS, 1e-4);
        CU_ASSERT_DOUBLE_EQUAL((double)running[0][N + i], 0.9 + 0.1 * squares / (ROWS - 1), 1e-2);
    }
}

static void test_too_few_rows_say_nothing(void) {
    float running[2] = {1, 2}, none[3] = {0}, one[3] = {1, 5, 7}, mean, var, x = 9;
    moe_batch_running_move(1, none, running, running + 1);
    moe_batch_running_move(1, one, running, running + 1);
    CU_ASSERT(running[0] == 1 && running[1] == 2);
    moe_batch_stats(1, 1, &x, &mean, &var);
    CU_ASSERT(mean == 9 && var == 0);
}

/* Constant columns: the variance is zero and nothing is divided by it. */
static void test_constant_columns(void) {
    float x[4] = {2, 2, 2, 2}, y[4], mean, var, rstd, g = 3, b = 0.5f, dg = 0, db = 0, sums[2];
    float dy[4] = {1, -2, 3, 4};
    moe_batch_stats(4, 1, x, &mean, &var);
    moe_batch_rstd(1, &var, &rstd);
    moe_batch_normalise(4, 1, &mean, &rstd, &g, &b, x, y);
    for (int i = 0; i < 4; i++)
        CU_ASSERT(y[i] == b);
    moe_batch_norm_backward(4, 1, 1, x, &rstd, &g, sums, dy, &dg, &db);
    CU_ASSERT(dg == 0 && db == 6 && isfinite(dy[0]));
}

static void test_a_row_alone_is_as_in_serving(void) {
    struct fixture f = {0};
    struct rng rng;
    float alone[2];
    fix_batch(&f, 1, 1, 2, 3);
    if (!CHECK_OK(fix_open(&f, spec, 2, 4)))
        return;
    rng_init(&rng, 1);
    struct moe_pass training = {.training = true, .share = 1, .rng = &rng, .batch = &f.batch};
    struct moe_pass serving = {.batch = &f.batch};
    moe_forward(f.m, f.m->params.v, &f.batch, f.run, &training, false);
    memcpy(alone, f.run->logits, sizeof alone);
    moe_forward(f.m, f.m->params.v, &f.batch, f.run, &serving, false);
    for (int t = 0; t < 2; t++)
        CU_ASSERT(fabsf(alone[t] - f.run->logits[t]) < 1e-5f);
    /* and leaves nothing behind */
    fix_loss(&f, f.m->params.v, 0, true);
    for (size_t i = 0; i < f.m->n_stats; i++)
        CU_ASSERT(f.stats[i] == 0);
    fix_close(&f);
}

/* Each expert's sums count its own rows, not those of the batch. */
static void test_sparse_experts_count_their_rows(void) {
    static const char sparse[] =
        "{\"layers\":[{\"kind\":\"omoe\",\"experts\":3,\"gate\":{\"kind\":\"switch\"},"
        "\"expert\":{\"hidden\":[6],\"out\":4,\"norm\":\"batch\"}}]}";
    struct fixture f = {0};
    fix_batch(&f, 4, 40, 2, 3);
    if (!CHECK_OK(fix_open(&f, sparse, 2, 4)))
        return;
    fix_loss(&f, f.m->params.v, 0, true);
    const struct moe_expert_group *g = &f.m->levels[0].groups[0];
    const struct moe_route *r = &f.run->levels[0]->route[0];
    const struct moe_mlp *mlp = moe_expert_mlp_shape(&g->expert);
    for (int e = 0; e < 3; e++) {
        int rows = 0;
        for (int i = 0; i < r->n_rows; i++)
            rows += r->w[i * 3 + e] != 0;
        const float *sums = f.stats + g->stats_at + (size_t)(e * g->expert.n_stats);
        CU_ASSERT(sums[mlp->sums[0]] == (float)(rows > 1 ? rows : 0));
        CU_ASSERT(sums[mlp->sums[1]] == (float)(rows > 1 ? rows : 0));
    }
    fix_close(&f);
}

static void test_the_file_keeps_them(void) {
    struct fixture f = {0};
    struct moe_model *back = NULL;
    char path[] = "/tmp/moerank_norm_XXXXXX";
    int fd = mkstemp(path);
    fix_batch(&f, 4, 24, 2, 3);
    if (!CHECK_OK(fix_open(&f, spec, 2, 4)) || !CHECK_OK(moe_model_save(f.m, path)) ||
        !CHECK_OK(moe_model_load(path, &back)))
        return;
    CU_ASSERT_EQUAL(moe_params_floats(&back->params), moe_params_floats(&f.m->params));
    CU_ASSERT(memcmp(back->params.v, f.m->params.v,
                     moe_params_floats(&f.m->params) * sizeof(float)) == 0);
    const int buffer = back->levels[0].groups[0].buffer;
    CU_ASSERT_FATAL(buffer >= 0);
    CU_ASSERT_EQUAL(back->params.t[buffer].region, MOE_BUFFER);
    CU_ASSERT(moe_params_at(&back->params, back->params.v, buffer, 1)[0] != 0);
    moe_model_free(back);
    fix_close(&f);
    if (fd >= 0)
        unlink(path);
}

SUITE("moe_batch_norm", TEST(test_workers_add_up), TEST(test_too_few_rows_say_nothing),
      TEST(test_constant_columns), TEST(test_a_row_alone_is_as_in_serving),
      TEST(test_sparse_experts_count_their_rows), TEST(test_the_file_keeps_them))
