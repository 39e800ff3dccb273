/* moe_train_bf16.c: products with bf16 operands: gradients near those of fp32 and yet not theirs,
 * training that learns as well, the same bits for a seed and a number of threads, and a refusal
 * where the CPU cannot. Rows that are groups of their own: same numbers by the short way. */
#include <sys/wait.h>
#include <unistd.h>
#include "moe/math/blas.h"
#include "moe/math/cpu.h"
#include "moe/linear.h"
#include "moe/train/train.h"
#include "moe/math/train_gemm.h"
#include "tests/support/moe_fixture.h"
#include "tests/support/suite.h"

#define ROWS 1500

static const struct moe_task_spec tasks[] = {{"click", 1}, {"buy", 1}};
static const char spec_text[] =
    "layers: [{kind: mmoe, experts: 3, expert: {hidden: [64], out: 32, act: silu}}]\n"
    "tower: {hidden: [32]}\n";

/* 40 numbers a row, two tasks that are sums of some of them. */
static struct moe_examples *world(void) {
    enum { COLUMNS = 40 };
    static const char *names[COLUMNS];
    for (int i = 0; i < COLUMNS; i++)
        names[i] = "x";
    struct moe_inputs in = {.cand_columns = COLUMNS, .cand_names = names};
    struct moe_examples *x = moe_examples_new(&in, 2);
    struct rng r;
    rng_init(&r, 5);
    for (int i = 0; i < ROWS; i++) {
        float c[COLUMNS], y[2];
        for (int k = 0; k < COLUMNS; k++)
            c[k] = (float)rng_normal(&r);
        y[0] = (float)(rng_float(&r) < 1 / (1 + expf(-2 * (c[0] + c[1]))));
        y[1] = (float)(rng_float(&r) < 1 / (1 + expf(-2 * (c[0] - c[2]))));
        struct moe_batch b = {.n_groups = 1, .n_rows = 1, .cand = c};
        moe_examples_add(x, &b, y, NULL, i, (uint64_t)i);
    }
    return x;
}

static enum status fit(const struct moe_examples *x, int precision, int threads, struct arena *a,
                       struct moe_train_report *report, struct moe_model **out) {
    struct moe_train_conf c;
    struct node *spec;
    conf_defaults(moe_train_items, &c, a);
    c.epochs = 6;
    c.batch_rows = 128;
    c.rate = 5e-3;
    c.precision = precision;
    c.threads = threads;
    TRY(node_parse_yaml(a, slice_of(spec_text), "spec", &spec));
    return moe_train(spec, "spec", tasks, x, &c, 1, a, report, out);
}

/* In a child, since what a CPU has is asked once: this test must be the first. */
static void test_refused(void) {
    fflush(stdout);
    pid_t child = fork();
    CU_ASSERT_FATAL(child >= 0);
    if (child == 0) {
        struct arena a;
        struct moe_train_report r;
        struct moe_model *m = NULL;
        setenv("MOERANK_ISA", "portable", 1);
        arena_init(&a, 0);
        struct moe_examples *x = world();
        enum status status = fit(x, MOE_BF16, 1, &a, &r, &m);
        bool said = status == STATUS_UNIMPLEMENTED && strstr(status_message(), "AVX512_BF16");
        _exit(said && fit(x, MOE_FP32, 1, &a, &r, &m) == STATUS_OK ? 0 : 1);
    }
    int how = 0;
    CU_ASSERT_EQUAL(waitpid(child, &how, 0), child);
    CU_ASSERT(WIFEXITED(how) && WEXITSTATUS(how) == 0);
}

static void test_gradients_near(void) {
    static const char spec[] =
        "{\"layers\":[{\"kind\":\"mmoe\",\"experts\":3,\"expert\":{\"kind\":\"mlp\",\"hidden\":"
        "[96],\"out\":64,\"act\":\"silu\"}}],\"tower\":{\"hidden\":[48],\"act\":\"silu\"}}"; /* no
                                                                                                kinks
                                                                                              */
    struct fixture f = {0};
    if (!moe_train_gemm_possible(true))
        return;
    fix_batch(&f, FIX_GROUPS, FIX_ROWS_MAX, 2, 3);
    if (!CHECK_OK(fix_open(&f, spec, 2, 3)))
        return;
    size_t n = moe_params_dense(&f.m->params);
    float *full = HEAP_ARRAY(float, n);
    double loss = fix_loss(&f, f.m->params.v, 0, true), off = 0, size = 0;
    memcpy(full, f.g, n * sizeof *full);
    moe_gemm_set_bf16(1);
    double rounded = fix_loss(&f, f.m->params.v, 0, true);
    moe_gemm_set_bf16(0);
    for (size_t i = 0; i < n; i++) {
        double d = (double)f.g[i] - (double)full[i];
        off += d * d;
        size += (double)full[i] * (double)full[i];
    }
    CU_ASSERT(off > 0); /* or nothing was rounded */
    CU_ASSERT(sqrt(off) < 0.01 * sqrt(size));
    CU_ASSERT_DOUBLE_EQUAL(loss, rounded, 2e-3 * fabs(loss));
    heap_free(full);
    fix_close(&f);
}

static void test_learns_the_same(void) {
    struct arena a;
    struct moe_train_report r[4];
    struct moe_model *m[4] = {0};
    if (!moe_train_gemm_possible(true))
        return;
    arena_init(&a, 0);
    struct moe_examples *x = world();
    CHECK_OK(fit(x, MOE_FP32, 2, &a, &r[0], &m[0]));
    CHECK_OK(fit(x, MOE_BF16, 2, &a, &r[1], &m[1]));
    CHECK_OK(fit(x, MOE_BF16, 2, &a, &r[2], &m[2]));
    CU_ASSERT(r[0].validation_auc[0] > 0.8);
    CU_ASSERT_DOUBLE_EQUAL(r[0].validation_auc[0], r[1].validation_auc[0], 0.01);
    CU_ASSERT_STRING_EQUAL(moe_model_version(m[1]), moe_model_version(m[2]));
    CU_ASSERT_STRING_NOT_EQUAL(moe_model_version(m[0]), moe_model_version(m[1]));
    for (int i = 0; i < 3; i++)
        moe_model_free(m[i]);
    moe_examples_free(x);
    arena_deinit(&a);
}

/* Forward and backward of one product whose query part is shared by none or by some rows. */
static void product(const int *group, int rows, int groups, float *out) {
    enum { DQ = 7, DC = 5, N = 20 };
    float q[12 * DQ], c[12 * DC], w[(DQ + DC) * N], b[N], qy[12 * N];
    float *y = out, *dw = y + 12 * N, *db = dw + (DQ + DC) * N, *dq = db + N, *dc = dq + 12 * DQ;
    struct rng r;
    rng_init(&r, 8);
    float *all[] = {q, c, w, b};
    const int n[] = {12 * DQ, 12 * DC, (DQ + DC) * N, N};
    for (int k = 0; k < 4; k++)
        for (int i = 0; i < n[k]; i++)
            all[k][i] = (float)rng_normal(&r);
    struct moe_rows x = {rows, groups, DQ, DC, .q = q, .c = c, .group = group};
    moe_linear_forward(&x, w, b, N, qy, y);
    moe_linear_backward(&x, w, N, y, qy, dw, db, &(struct moe_rows_grad){.q = dq, .c = dc});
}

static void test_rows_alone(void) {
    enum { FLOATS = 12 * 20 + 12 * 20 + 20 + 12 * 7 + 12 * 5 };
    static const int alone[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    float a[FLOATS] = {0}, b[FLOATS] = {0};
    product(alone, 12, 12, a);
    int was = moe_gemm_set_exact(1); /* the plain way, with a scratch of the query part */
    product(alone, 12, 12, b);
    moe_gemm_set_exact(was);
    for (int i = 0; i < FLOATS; i++)
        CU_ASSERT_DOUBLE_EQUAL(a[i], b[i], 1e-3);
    CU_ASSERT(fabsf(a[0]) > 0);
    /* as many groups as rows, but not one each: the last group is empty */
    static const int two[12] = {0, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10};
    memset(a, 0, sizeof a);
    memset(b, 0, sizeof b);
    product(two, 12, 12, a);
    was = moe_gemm_set_exact(1);
    product(two, 12, 12, b);
    moe_gemm_set_exact(was);
    for (int i = 0; i < FLOATS; i++)
        CU_ASSERT_DOUBLE_EQUAL(a[i], b[i], 1e-3);
}

SUITE("moe_train_bf16", TEST(test_refused), TEST(test_gradients_near), TEST(test_learns_the_same),
      TEST(test_rows_alone))
