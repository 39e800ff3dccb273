/* moe_trace.c: what is traced is what the model does: weights, outputs, an expert left out, the
 * parts of a logit; with a linear tower all of it can be summed up by hand. */
#include "moe/data/examples.h"
#include "moe/score/scorer.h"
#include "moe/report/trace.h"
#include "moe/train/train.h"
#include "tests/support/moe_fixture.h"
#include "tests/support/suite.h"

enum { ROWS = 40, TASKS = 3 };

#define SPEC(gate, tower)                                                                          \
    "{\"layers\":[{\"kind\":\"cgc\",\"shared\":2,\"own\":1,\"expert\":{\"kind\":\"mlp\","          \
    "\"hidden\":[6],\"out\":4},\"gate\":{\"kind\":\"" gate "\"}}],\"tower\":{" tower "}}"
static const char *const kinds[] = {SPEC("softmax", "\"hidden\":[]"), SPEC("topk", "\"hidden\":[]"),
                                    SPEC("relu", "\"hidden\":[]")};
static const char deep[] =
    "{\"layers\":[{\"kind\":\"ple\",\"levels\":2,\"shared\":2,\"own\":1,\"expert\":{\"kind\":"
    "\"mlp\",\"hidden\":[6],\"out\":4}}],\"tower\":{\"hidden\":[5],\"act\":\"relu\"},"
    "\"wide\":true}";

static struct moe_examples *open_all(struct fixture *f, const char *spec) {
    fix_batch(f, 6, ROWS, TASKS, 3);
    if (!CHECK_OK(fix_open(f, spec, TASKS, 11)))
        return NULL;
    return fix_examples(f, ROWS, TASKS, NULL);
}

static void test_weights_and_predictions(void) {
    struct fixture f = {0};
    struct moe_examples *x = open_all(&f, deep);
    struct moe_trace *t;
    float p[ROWS * TASKS], w[16];
    moe_trace_new(f.m, x, &t);
    moe_predict(f.m, x, p);
    CU_ASSERT_EQUAL(t->n_gates, 7);
    CU_ASSERT(memcmp(p, t->p, sizeof p) == 0);
    for (int r = 0; r < ROWS; r += 7) {
        struct moe_batch b;
        int first = moe_examples_view(x, x->group[r], 1, &b);
        for (int g = 0; g < t->n_gates; g++) {
            CHECK_OK(moe_explain(f.m, &b, r - first, g, w));
            for (int e = 0; e < t->gates[g].n; e++)
                CU_ASSERT_DOUBLE_EQUAL(w[e], t->gates[g].w[r * t->gates[g].n + e], 1e-5);
        }
    }
    moe_trace_free(t);
    moe_examples_free(x);
    fix_close(&f);
}

/* logit = b + sum_e w_e <W, f_e>: from the traced pieces. */
static double by_hand(const struct fixture *f, const struct moe_trace *t, const float *y, int row,
                      int task, int without, double *parts) {
    const struct moe_tower *tower = &f->m->towers[task];
    const float *w = moe_params_at(&f->m->params, f->m->params.v, tower->tensor, 0);
    const struct moe_trace_gate *g = &t->gates[task];
    const float *gw = g->w + row * g->n;
    double sum = (double)w[tower->mlp.b[0]], kept = 0, all = 0;
    for (int e = 0; e < g->n; e++) {
        all += (double)gw[e];
        kept += g->experts[e] == without ? 0 : (double)gw[e];
    }
    for (int e = 0; e < g->n; e++) {
        const float *out = y + (g->experts[e] * ROWS + row) * 4;
        double dot = 0;
        for (int i = 0; i < 4; i++)
            dot += (double)w[tower->mlp.w[0] + (size_t)i] * (double)out[i];
        if (parts)
            parts[e] = (double)gw[e] * dot;
        if (g->experts[e] != without)
            sum += (double)gw[e] * dot * (fabs(all - 1) < 1e-3 && kept > 0 ? all / kept : 1);
    }
    return sum;
}

static void check_kind(const char *spec) {
    struct fixture f = {0};
    struct moe_examples *x = open_all(&f, spec);
    struct moe_trace *t;
    float y[5 * ROWS * 4], p[ROWS * TASKS];
    double parts[5];
    moe_trace_new(f.m, x, &t);
    CU_ASSERT(moe_trace_experts(f.m, 0) == 5 && moe_trace_width(f.m, 0) == 4);
    moe_trace_outputs(f.m, x, 0, y);
    for (int r = 0; r < ROWS; r += 3)
        for (int task = 0; task < TASKS; task++) {
            double want = by_hand(&f, t, y, r, task, -1, parts);
            struct moe_explained e;
            moe_trace_explain(f.m, x, r, task, &e);
            CU_ASSERT_DOUBLE_EQUAL(e.logit, want, 1e-4);
            CU_ASSERT_EQUAL(e.n, 3);
            double sum = e.rest;
            for (int k = 0; k < e.n; k++) {
                CU_ASSERT_DOUBLE_EQUAL(e.parts[k].adds, parts[k], 1e-4);
                CU_ASSERT(e.parts[k].gate == task && e.parts[k].at == k);
                sum += e.parts[k].adds;
            }
            CU_ASSERT_DOUBLE_EQUAL(sum, e.logit, 1e-9);
            heap_free(e.parts);
        }
    for (int without = 0; without < 5; without++) {
        moe_trace_without(f.m, x, 0, without, p);
        for (int r = 0; r < ROWS; r++)
            for (int task = 0; task < TASKS; task++) {
                double z = by_hand(&f, t, y, r, task, without, NULL);
                CU_ASSERT_DOUBLE_EQUAL(p[r * TASKS + task], 1 / (1 + exp(-z)), 1e-4);
                if (r == 5)
                    CU_ASSERT_DOUBLE_EQUAL(moe_trace_logit(f.m, x, r, task, 0, without), z, 1e-4);
            }
    }
    /* an own expert of another task is worth nothing to this one */
    moe_trace_without(f.m, x, 0, 2, p);
    CU_ASSERT(p[0] != t->p[0] && p[1] == t->p[1] && p[2] == t->p[2]);
    moe_trace_free(t);
    moe_examples_free(x);
    fix_close(&f);
}
static void test_by_hand(void) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        check_kind(kinds[i]);
}

/* A ReLU tower is linear where it stands: what is not experts' is biases and the wide part, and a
 * tiny change of an expert's weight moves the logit by what the parts say. */
static void test_parts_of_a_relu_tower(void) {
    struct fixture f = {0};
    struct moe_examples *x = open_all(&f, deep);
    struct moe_explained e, scaled;
    moe_trace_explain(f.m, x, 4, 1, &e);
    CU_ASSERT_EQUAL(e.n, 3);
    CU_ASSERT_EQUAL(e.parts[0].gate, 5);
    /* all last-level experts' outputs times (1 + h): by their last layer's numbers */
    double adds = 0, h = 1e-2;
    for (int k = 0; k < e.n; k++)
        adds += e.parts[k].adds;
    for (int g = 0; g < f.m->levels[1].n_groups; g++) {
        const struct moe_expert_group *group = &f.m->levels[1].groups[g];
        for (int c = 0; c < group->n; c++) {
            float *w = moe_params_at(&f.m->params, f.m->params.v, group->tensor, c);
            for (size_t i = group->expert.layout.f[2].at; i < group->expert.layout.floats; i++)
                w[i] *= (float)(1 + h);
        }
    }
    moe_trace_explain(f.m, x, 4, 1, &scaled);
    CU_ASSERT_DOUBLE_EQUAL(scaled.logit - e.logit, h * adds, 1e-4);
    CU_ASSERT(fabs(adds) > 1e-3);
    heap_free(e.parts);
    heap_free(scaled.parts);
    moe_examples_free(x);
    fix_close(&f);
}

/* Gates that blend and gates of slots: no parts, but leaving out works. */
static void test_other_routes(void) {
    static const char *const specs[] = {
        "{\"layers\":[{\"kind\":\"mmoe\",\"experts\":3,\"expert\":{\"kind\":\"mlp\",\"hidden\":[6],"
        "\"out\":4},\"gate\":{\"kind\":\"smear\"}}]}",
        "{\"layers\":[{\"kind\":\"mmoe\",\"experts\":3,\"expert\":{\"kind\":\"mlp\",\"hidden\":[6],"
        "\"out\":4},\"gate\":{\"kind\":\"soft\"}}]}"};
    for (int i = 0; i < 2; i++) {
        struct fixture f = {0};
        struct moe_examples *x = open_all(&f, specs[i]);
        struct moe_trace *t;
        struct moe_explained e;
        float p[ROWS * TASKS];
        moe_trace_new(f.m, x, &t);
        for (int r = 0; r < ROWS; r++) {
            double sum = 0;
            for (int k = 0; k < 3; k++)
                sum += (double)t->gates[0].w[r * 3 + k];
            CU_ASSERT_DOUBLE_EQUAL(sum, 1, 1e-5);
        }
        moe_trace_without(f.m, x, 0, 1, p);
        CU_ASSERT(memcmp(p, t->p, sizeof p) != 0);
        moe_trace_explain(f.m, x, 0, 0, &e);
        CU_ASSERT(e.n == 3 && isnan(e.parts[0].adds) && e.rest == e.logit);
        heap_free(e.parts);
        moe_trace_free(t);
        moe_examples_free(x);
        fix_close(&f);
    }
}

static void test_data_of_other_settings(void) {
    static const char *const others[] = {"price", "clicks", "views", "match"};
    struct fixture f = {0};
    struct moe_examples *x = open_all(&f, deep);
    struct moe_inputs in = f.inputs;
    struct moe_table_spec tables[2];
    CHECK_OK(moe_trace_check(f.m, &in, TASKS));
    CHECK_FAILS(moe_trace_check(f.m, &in, 2), STATUS_FAILED_PRECONDITION, "for 2");
    in.cand_names = others;
    CHECK_FAILS(moe_trace_check(f.m, &in, TASKS), STATUS_FAILED_PRECONDITION, "'views'");
    in = f.inputs;
    memcpy(tables, in.tables, sizeof tables);
    tables[1].rows++;
    in.tables = tables;
    CHECK_FAILS(moe_trace_check(f.m, &in, TASKS), STATUS_FAILED_PRECONDITION, "'item'");
    moe_examples_free(x);
    fix_close(&f);
}

SUITE("moe_trace", TEST(test_weights_and_predictions), TEST(test_by_hand),
      TEST(test_parts_of_a_relu_tower), TEST(test_other_routes), TEST(test_data_of_other_settings))
