/* Gates in whole models: settings that the contract suite's defaults leave off, saving and loading
 * with the gates' state, serving in blocks, and training: the ReLU gate's share of zeros and the
 * bias-balanced gate's loads after a real run. */
#include <unistd.h>
#include "moe/report/eval.h"
#include "moe/score/scorer.h"
#include "moe/train/train.h"
#include "tests/support/moe_fixture.h"
#include "tests/support/suite.h"

static const char *const gates[] = {
    "\"kind\":\"softmax\",\"dropout\":0.3",
    "\"kind\":\"sigmoid\",\"normalise\":true,\"jitter\":0.2,\"z_loss\":0.1",
    "\"kind\":\"noisy_topk\",\"importance_loss\":1,\"load_loss\":1",
    "\"kind\":\"topk\",\"k\":3,\"capacity\":1,\"dropout\":0.2,\"aux_loss\":0.5,\"aux_over\":\"step\"",
    "\"kind\":\"topk\",\"capacity\":1,\"capacity_in\":\"always\",\"jitter\":0.1",
    "\"kind\":\"switch\",\"jitter\":0.1,\"aux_loss\":0.5,\"z_loss\":0.1",
    "\"kind\":\"gshard\",\"aux_loss\":0.5",
    "\"kind\":\"deepseek\",\"groups\":2,\"groups_kept\":1,\"scale\":2",
    "\"kind\":\"cosine\",\"aux_loss\":0.5,\"dim\":3",
    "\"kind\":\"dselectk\",\"per_example\":false,\"gamma\":0.3",
    "\"kind\":\"dselectk\",\"gamma\":0.3,\"entropy_loss\":0.3",
    "\"kind\":\"relu\",\"lambda\":0.3,\"k\":1",
    "\"kind\":\"hash\",\"input\":\"item\",\"buckets\":8",
    "\"kind\":\"segment\",\"input\":\"city\"",
    "\"kind\":\"expert_choice\",\"jitter\":0.1,\"capacity\":1",
    "\"kind\":\"base_assign\",\"dropout\":0.2",
    "\"kind\":\"sinkhorn\",\"k\":2,\"jitter\":0.1",
    "\"kind\":\"soft\",\"slots\":2,\"scale\":2",
    "\"kind\":\"smear\",\"jitter\":0.1,\"dropout\":0.2,\"z_loss\":0.1",
};
#define N_GATES ((int)(sizeof gates / sizeof *gates))

static enum status open(struct fixture *f, const char *gate, const char *input) {
    char text[1024];
    snprintf(
        text, sizeof text,
        "{\"numbers\":{\"encode\":[\"value\",\"ple\"],\"bins\":4},%s"
        "\"layers\":[{\"kind\":\"mmoe\",\"experts\":4,\"gate\":{%s},\"expert\":{\"kind\":\"mlp\","
        "\"hidden\":[6],\"out\":4,\"act\":\"silu\"}}],\"tower\":{\"hidden\":[5],\"act\":\"gelu\"}}",
        input, gate);
    fix_batch(f, 4, 40, 2, 3);
    return fix_open(f, text, 2, 11);
}

static void test_gradients(void) {
    for (int i = 0; i < N_GATES; i++) {
        struct fixture f = {0};
        char worst[128] = "";
        if (CHECK_OK(open(&f, gates[i], ""))) {
            double error = fix_gradient_error(&f, 0, 5e-3, worst);
            if (!(error < 1e-2))
                printf("\n    %s: %s off by %g\n", gates[i], worst, error);
            CU_ASSERT(error < 1e-2);
        }
        fix_close(&f);
    }
}

/* Numbers of all regions, the state of controllers among them, survive; so do settings. */
static void test_saved_with_their_state(void) {
    char path[64];
    snprintf(path, sizeof path, "/tmp/moe_gate_model.%d", (int)getpid());
    for (int i = 0; i < N_GATES; i++) {
        struct fixture f = {0};
        struct moe_model *m = NULL;
        if (CHECK_OK(open(&f, gates[i], ""))) {
            struct moe_params *p = &f.m->params;
            size_t all = moe_params_floats(p);
            for (int t = 0; t < p->n; t++)
                for (size_t k = 0; k < p->t[t].stride && p->t[t].region == MOE_BUFFER; k++)
                    p->v[p->t[t].at + k] += 0.25f;
            moe_model_stamp(f.m);
            CHECK_OK(moe_model_save(f.m, path));
            if (CHECK_OK(moe_model_load(path, &m))) {
                CU_ASSERT(memcmp(m->params.v, p->v, all * sizeof(float)) == 0);
                CU_ASSERT_STRING_EQUAL(moe_model_spec_json(m), moe_model_spec_json(f.m));
                CU_ASSERT_STRING_EQUAL(moe_model_version(m), moe_model_version(f.m));
                CU_ASSERT(moe_model_mixes_rows(m) == moe_model_mixes_rows(f.m));
            }
            moe_model_free(m);
        }
        fix_close(&f);
    }
    unlink(path);
}

/* --- serving ------------------------------------------------------------------------------------
 */

#define ROWS 300
static struct moe_batch request(const struct fixture *f, float *cand, uint32_t *ids, int from,
                                int n) {
    return (struct moe_batch){.n_groups = 1,
                              .n_rows = n,
                              .query = f->query,
                              .query_ids = f->query_ids,
                              .cand = cand + from * 4,
                              .cand_ids = ids + from * 4};
}
/* One request of several blocks: a row's score is the same alone and among the others, unless the
 * model says that it mixes rows; then, some rows' are not. */
static void serve(struct fixture *f, const char *what) {
    static float cand[ROWS * 4], all[ROWS * 2], one[2];
    static uint32_t ids[ROWS * 4];
    struct moe_scorer_conf conf = {.precision = MOE_FP32, .rows_max = ROWS};
    struct moe_scorer *s = NULL;
    struct rng r;
    int differs = 0;
    rng_init(&r, 4);
    for (int i = 0; i < ROWS * 4; i++) {
        cand[i] = (float)(10 + 3 * rng_normal(&r));
        ids[i] = rng_below(&r, 17);
    }
    if (!CHECK_OK(moe_scorer_new(f->m, &conf, &s)))
        return;
    void *scratch = heap_alloc_aligned(moe_scorer_scratch_bytes(s));
    struct moe_batch b = request(f, cand, ids, 0, ROWS);
    moe_scorer_score(s, &b, scratch, all);
    for (int k = 0; k < ROWS; k += 13) {
        b = request(f, cand, ids, k, 1);
        moe_scorer_score(s, &b, scratch, one);
        for (int t = 0; t < 2; t++) {
            CU_ASSERT(isfinite(all[t * ROWS + k]));
            differs += memcmp(&one[t], &all[t * ROWS + k], sizeof *one) != 0;
        }
    }
    if ((differs > 0) != moe_model_mixes_rows(f->m))
        printf("\n    %s: %d scores differ alone (%s)\n", what, differs, moe_scorer_path(s));
    CU_ASSERT((differs > 0) == moe_model_mixes_rows(f->m));
    heap_free(scratch);
    moe_scorer_free(s);
}
static void test_serving(void) {
    for (int i = 0; i < N_GATES; i++)
        for (int crossed = 0; crossed < 2; crossed++) { /* crossed inputs have no query part */
            struct fixture f = {0};
            if (CHECK_OK(open(&f, gates[i], crossed ? "\"cross\":1,\"cross_rank\":3," : "")))
                serve(&f, gates[i]);
            fix_close(&f);
        }
}

/* --- training -----------------------------------------------------------------------------------
 */

#define N 8
static const char *const query_names[] = {"q0", "q1"}, *const cand_names[] = {"a", "b", "c", "d"};
static const struct moe_task_spec tasks[] = {{.name = "click", .weight = 1}};

/* Eight regimes: the sign pattern of three inputs picks the direction that makes a click. */
static struct moe_examples *world(int groups, uint64_t seed) {
    struct moe_inputs in = {.query_columns = 2,
                            .cand_columns = 4,
                            .query_names = query_names,
                            .cand_names = cand_names};
    struct moe_examples *x = moe_examples_new(&in, 1);
    struct rng r;
    rng_init(&r, seed);
    for (int g = 0; g < groups; g++) {
        float q[2] = {(float)rng_normal(&r), (float)rng_normal(&r)}, cand[16], labels[4];
        for (int i = 0; i < 4; i++) {
            float *c = cand + 4 * i;
            for (int k = 0; k < 4; k++)
                c[k] = (float)rng_normal(&r);
            int regime = (q[0] > 0.5f) + 2 * (c[0] > 0) + 4 * (c[1] > 0.8f);
            double z = 2 * (regime & 1 ? 1 : -1) * (double)c[2 + (regime >> 1 & 1)] +
                       (regime & 4 ? 1.5 : 0) * (double)q[1];
            labels[i] = rng_double(&r) < 1 / (1 + exp(-z));
        }
        struct moe_batch b = {.n_groups = 1, .n_rows = 4, .query = q, .cand = cand};
        moe_examples_add(x, &b, labels, NULL, g, (uint64_t)g);
    }
    return x;
}

static struct moe_model *train(const struct moe_examples *x, const char *gate, struct arena *a) {
    char text[512];
    struct node *spec;
    struct moe_train_conf c;
    struct moe_train_report report;
    struct moe_model *m = NULL;
    snprintf(text, sizeof text,
             "{layers: [{kind: mmoe, experts: 8, gate: {%s}, expert: {hidden: [16], out: 8}}], "
             "tower: {hidden: [8]}, wide: true}",
             gate);
    conf_defaults(moe_train_items, &c, a);
    c.epochs = 8;
    c.batch_rows = 256;
    c.rate = 5e-3;
    c.threads = 2;
    c.patience = 100;
    CHECK_OK(node_parse_yaml(a, slice_of(text), "spec", &spec));
    CHECK_OK(moe_train(spec, "spec", tasks, x, &c, 1, a, &report, &m));
    return m;
}

struct routes {
    double auc, zeros, maxvio;
    int rows_without, experts_without;
    float lambda, alarm;
};
static struct routes routes_of(struct moe_model *m, const struct moe_examples *x) {
    struct routes out = {0};
    double count[N] = {0}, sum = 0;
    float *p = HEAP_ARRAY(float, x->n_rows);
    struct moe_plan plan = {512, 128, false};
    float *memory = heap_alloc_aligned(moe_run_floats(m, &plan) * sizeof(float));
    struct moe_run *run = moe_run_bind(m, &plan, memory);
    for (int g = 0; g + 128 <= x->n_groups; g += 128) {
        struct moe_batch b;
        moe_examples_view(x, g, 128, &b);
        struct moe_pass pass = {.batch = &b};
        moe_forward(m, m->params.v, &b, run, &pass, false);
        const float *w = run->levels[0]->route[0].w;
        for (int r = 0; r < b.n_rows; r++) {
            int any = 0;
            for (int e = 0; e < N; e++) {
                count[e] += w[r * N + e] != 0;
                any |= w[r * N + e] != 0;
            }
            out.rows_without += !any;
        }
        sum += b.n_rows * N;
    }
    double most = 0, total = 0;
    for (int e = 0; e < N; e++) {
        total += count[e];
        most = fmax(most, count[e]);
        out.experts_without += count[e] == 0;
    }
    out.zeros = 1 - total / sum;
    out.maxvio = most * N / total - 1;
    if (m->levels[0].gates[0].buffer >= 0) {
        const float *state =
            moe_params_at(&m->params, m->params.v, m->levels[0].gates[0].buffer, 0);
        out.lambda = state[0];
        out.alarm = state[3];
    }
    moe_predict(m, x, p);
    out.auc = moe_auc(p, x->labels, x->n_rows);
    heap_free(memory);
    heap_free(p);
    return out;
}

static void test_training(void) {
    struct arena a;
    struct moe_examples *x = world(8192, 1), *fresh = world(4096, 2);
    static const char *const kinds[] = {"kind: softmax", "kind: relu, k: 2",
                                        "kind: deepseek, k: 2, rate: 0.002"};
    double base = 0;
    arena_init(&a, 0);
    printf("\n");
    for (int i = 0; i < 3; i++) {
        struct moe_model *m = train(x, kinds[i], &a);
        if (!m)
            continue;
        struct routes r = routes_of(m, fresh);
        printf("    %s: AUC %.4f, zeros %.3f, MaxVio %.3f, rows without %d, experts without %d\n",
               kinds[i], r.auc, r.zeros, r.maxvio, r.rows_without, r.experts_without);
        CU_ASSERT(r.auc > 0.8);
        base = i == 0 ? r.auc : base;
        CU_ASSERT(r.auc > base - 0.02);
        if (i == 1) {
            CU_ASSERT(fabs(r.zeros - 0.75) < 0.02);
            CU_ASSERT(r.experts_without == 0 && r.lambda > 1e-7f && r.lambda < 1 && r.alarm == 0);
        }
        if (i == 2) {
            CU_ASSERT(r.zeros == 0.75 && r.maxvio < 0.1);
        }
        moe_model_free(m);
    }
    moe_examples_free(x);
    moe_examples_free(fresh);
    arena_deinit(&a);
}

SUITE("moe_gate_model", TEST(test_gradients), TEST(test_saved_with_their_state), TEST(test_serving),
      TEST(test_training))
