/* moe_grads.c: gradients by expert and task: their sum is the gradient of the sum, equal tasks
 * agree, opposed tasks do not, and what no task reaches has none. */
#include "moe/report/grads.h"
#include "tests/support/moe_fixture.h"
#include "tests/support/suite.h"

enum { ROWS = 40, TASKS = 2 };
#define CGC                                                                                          \
    "{\"layers\":[{\"kind\":\"cgc\",\"shared\":2,\"own\":1,\"expert\":{\"hidden\":[6],\"out\":4}}]," \
    "\"tower\":{\"hidden\":[]}}"
#define BOTTOM                                                                                     \
    "{\"layers\":[{\"kind\":\"shared_bottom\",\"expert\":{\"hidden\":[6],\"out\":4}}],"            \
    "\"tower\":{\"hidden\":[]}}"

static struct moe_examples *open_model(struct fixture *f, const char *spec) {
    fix_batch(f, 6, ROWS, TASKS, 3);
    return CHECK_OK(fix_open(f, spec, TASKS, 11)) ? fix_examples(f, ROWS, TASKS, f->weight) : NULL;
}

/* By the ordinary path: all tasks at once. */
static void test_they_add_up(void) {
    struct fixture f = {0};
    struct moe_examples *x = open_model(&f, CGC);
    struct moe_task_grads *g;
    float scale[TASKS] = {0};
    struct rng rng;
    rng_init(&rng, 1);
    for (int t = 0; t < TASKS; t++)
        for (int r = 0; r < ROWS; r++)
            scale[t] += isnan(x->labels[r * TASKS + t]) ? 0 : x->weight[r];
    for (int t = 0; t < TASKS; t++)
        scale[t] = 1 / scale[t];
    moe_task_grads_new(f.m, x, &g);
    CU_ASSERT_EQUAL(g->n_experts, 4);
    struct moe_pass pass = {.training = true, .rng = &rng, .batch = &f.batch};
    struct moe_numbers n = {&f.m->params, f.m->params.v, f.g, f.stats};
    memset(f.g, 0, moe_params_floats(&f.m->params) * sizeof(float));
    moe_forward(f.m, f.m->params.v, &f.batch, f.run, &pass, false);
    moe_loss_bce(ROWS, TASKS, f.run->logits, x->labels, x->weight, scale, f.run->dlogits);
    moe_backward(f.m, &n, &f.batch, f.run, &pass, f.embed);
    for (int e = 0; e < 4; e++) {
        const struct moe_expert_group *group = moe_level_group(&f.m->levels[0], e);
        const float *d =
            moe_params_at(&f.m->params, f.g, group->tensor, f.m->levels[0].experts[e].index);
        const double *a = g->norm + e * TASKS, *cosine = g->cosine + e * TASKS * TASKS;
        double want = 0, both = isnan(cosine[1]) ? 0 : 2 * a[0] * a[1] * cosine[1];
        for (size_t i = 0; i < f.m->params.t[group->tensor].stride; i++)
            want += (double)d[i] * (double)d[i];
        CU_ASSERT(want > 0);
        CU_ASSERT_DOUBLE_EQUAL(a[0] * a[0] + a[1] * a[1] + both, want, 1e-4 * want);
    }
    /* experts of one task are out of the other's reach */
    CU_ASSERT(g->norm[2 * TASKS + 1] == 0 && g->norm[2 * TASKS] > 0);
    CU_ASSERT(g->norm[3 * TASKS] == 0 && isnan(g->cosine[3 * TASKS * TASKS + 1]));
    moe_task_grads_free(g);
    moe_examples_free(x);
    fix_close(&f);
}

static double cosine_of(struct fixture *f, bool flipped) {
    struct moe_examples *x;
    struct moe_task_grads *g;
    const int a = f->m->towers[0].tensor, b = f->m->towers[1].tensor;
    const size_t n = f->m->params.t[a].stride;
    float *from = moe_params_at(&f->m->params, f->m->params.v, a, 0);
    for (size_t i = 0; i < n; i++)
        from[i] *= 1e-3f; /* every probability near a half: opposite labels, opposite gradients */
    memcpy(moe_params_at(&f->m->params, f->m->params.v, b, 0), from, n * sizeof *from);
    for (int r = 0; r < ROWS; r++) {
        f->labels[r * TASKS] = (float)(r % 3 == 0);
        f->labels[r * TASKS + 1] = flipped ? 1 - f->labels[r * TASKS] : f->labels[r * TASKS];
    }
    x = fix_examples(f, ROWS, TASKS, f->weight);
    moe_task_grads_new(f->m, x, &g);
    double cosine = g->cosine[1];
    moe_task_grads_free(g);
    moe_examples_free(x);
    return cosine;
}

static void test_tasks_agree_or_not(void) {
    for (int flipped = 0; flipped < 2; flipped++) {
        struct fixture f = {0};
        fix_batch(&f, 6, ROWS, TASKS, 3);
        if (!CHECK_OK(fix_open(&f, BOTTOM, TASKS, 11)))
            return;
        double cosine = cosine_of(&f, flipped);
        CU_ASSERT(flipped ? cosine < -0.95 : cosine > 0.9999);
        fix_close(&f);
    }
}

static void test_a_task_without_labels(void) {
    struct fixture f = {0};
    struct moe_examples *x = open_model(&f, CGC);
    struct moe_task_grads *g;
    for (int r = 0; r < ROWS; r++)
        x->labels[r * TASKS + 1] = NAN;
    moe_task_grads_new(f.m, x, &g);
    for (int e = 0; e < 4; e++)
        CU_ASSERT(g->norm[e * TASKS + 1] == 0);
    CU_ASSERT(g->norm[0] > 0);
    moe_task_grads_free(g);
    moe_examples_free(x);
    fix_close(&f);
}

SUITE("moe_grads", TEST(test_they_add_up), TEST(test_tasks_agree_or_not),
      TEST(test_a_task_without_labels))
