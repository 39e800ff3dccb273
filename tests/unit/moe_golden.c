/* moe_golden.c: logits, every gradient and a ten-step loss curve against PyTorch's, made once by
 * tests/oracle/make_mmoe_golden.py in float64. */
#include <math.h>
#include "base/io.h"
#include "moe/train/optim.h"
#include "tests/support/moe_fixture.h"
#include "tests/support/suite.h"

struct golden {
    struct arena a;
    struct node *root;
    struct moe_model *m;
    struct moe_inputs inputs;
    struct moe_batch batch;
    const char *tasks[8];
    int n_tasks;
    float scale[8];
    float *labels, *weight, *memory, *g, *stats;
    struct moe_run *run;
    struct moe_embed_grad embed[2];
};

static const struct node *get(const struct golden *g, const char *a, const char *b) {
    const struct node *n = node_get(g->root, a);
    n = n && b ? node_get(n, b) : n;
    if (!n) {
        printf("\n    no %s.%s\n", a, b ? b : "");
        abort();
    }
    return n;
}
static float *floats(struct golden *g, const struct node *list) {
    float *v = ARENA_ARRAY(&g->a, float, list->n + 1);
    int i = 0;
    for (const struct node *n = list->first; n; n = n->next)
        v[i++] = n->type == NODE_NULL ? NAN : (float)n->number;
    return v;
}
static uint32_t *whole(struct golden *g, const struct node *list) {
    uint32_t *v = ARENA_ARRAY(&g->a, uint32_t, list->n + 1);
    int i = 0;
    for (const struct node *n = list->first; n; n = n->next)
        v[i++] = (uint32_t)n->number;
    return v;
}

static struct moe_id_input ids[2] = {{"city", 1, 0, 1, 0}, {"item", 0, 0, 3, 1}};
static struct moe_table_spec tables[2] = {{"city", 0, 0}, {"item", 0, 0}};
static const char *const names[] = {"a", "b", "c", "d"};

static void read_batch(struct golden *g) {
    int groups = (int)get(g, "batch", "n_groups")->number,
        rows = (int)get(g, "batch", "n_rows")->number;
    const struct node *t = get(g, "tables", NULL)->first;
    g->inputs = (struct moe_inputs){.query_columns = get(g, "batch", "query")->n / groups,
                                    .cand_columns = get(g, "batch", "cand")->n / rows,
                                    .query_names = names,
                                    .cand_names = names,
                                    .ids = ids,
                                    .tables = tables};
    for (int i = 0; t; t = t->next, i++) {
        tables[i].rows = (uint32_t)node_get(t, "rows")->number;
        tables[i].dim = (int)node_get(t, "dim")->number;
        g->inputs.n_ids = g->inputs.n_tables = 2;
        g->inputs.query_slots = 1;
        g->inputs.cand_slots = 3;
    }
    g->batch = (struct moe_batch){.n_groups = groups,
                                  .n_rows = rows,
                                  .query = floats(g, get(g, "batch", "query")),
                                  .cand = floats(g, get(g, "batch", "cand")),
                                  .query_ids = whole(g, get(g, "batch", "query_ids")),
                                  .cand_ids = whole(g, get(g, "batch", "cand_ids")),
                                  .group = (int *)whole(g, get(g, "batch", "group"))};
    g->labels = floats(g, get(g, "batch", "labels"));
    g->weight = floats(g, get(g, "batch", "weight"));
}

static void read_tasks(struct golden *g) {
    float *w = floats(g, get(g, "task_weight", NULL));
    double sum = 0;
    for (const struct node *n = get(g, "tasks", NULL)->first; n; n = n->next)
        g->tasks[g->n_tasks++] = n->text.p;
    for (int r = 0; r < g->batch.n_rows; r++)
        sum += (double)g->weight[r];
    for (int t = 0; t < g->n_tasks; t++)
        g->scale[t] = (float)((double)w[t] / sum);
}

/* Visits every tensor by its name in the model file. */
static void each(struct golden *g,
                 void (*visit)(struct golden *g, const char *name, float *v, float *d, size_t n)) {
    const struct moe_params *p = &g->m->params;
    for (int i = 0; i < p->n; i++) {
        const struct moe_tensor *t = &p->t[i];
        char name[160];
        if (t->region == MOE_BUFFER)
            continue;
        if (t->copies > 1) {
            visit(g, t->name, p->v + t->at, g->g + t->at, (size_t)t->copies * t->stride);
            continue;
        }
        for (int f = 0; f < t->layout.n; f++) {
            const struct moe_field *field = &t->layout.f[f];
            snprintf(name, sizeof name, "%s.%s", t->name, field->name);
            visit(g, name, p->v + t->at + field->at, g->g + t->at + field->at,
                  (size_t)field->rows * (size_t)field->cols);
        }
    }
}
static int n_set;
static void set(struct golden *g, const char *name, float *v, float *d, size_t n) {
    const struct node *list = get(g, "params", name);
    (void)d;
    CU_ASSERT_EQUAL_FATAL(list->n, (int)n);
    memcpy(v, floats(g, list), n * sizeof *v);
    n_set++;
}
static void compare(struct golden *g, const char *name, float *v, float *d, size_t n) {
    float *want = floats(g, get(g, "grads", name)), most = 0, worst = 0;
    (void)v;
    for (size_t i = 0; i < n; i++) {
        most = fmaxf(most, fabsf(want[i]));
        worst = fmaxf(worst, fabsf(want[i] - d[i]));
    }
    if (!(worst <= 2e-6f + 1e-5f * most))
        printf("\n    gradient of %s: off by %g of %g\n", name, (double)worst, (double)most);
    CU_ASSERT(worst <= 2e-6f + 1e-5f * most);
    CU_ASSERT(most > 0);
}

/* What batches leave behind moves at the end of a step, as in trainer.c. */
static void after_step(struct golden *g) {
    const struct moe_params *p = &g->m->params;
    for (int i = 0; i < g->m->levels[0].n_groups; i++) {
        const struct moe_expert_group *x = &g->m->levels[0].groups[i];
        for (int e = 0; e < x->n && x->buffer >= 0; e++)
            x->expert.ops->after_step(&x->expert,
                                      g->stats + x->stats_at + (size_t)(e * x->expert.n_stats),
                                      moe_params_at(p, p->v, x->buffer, e));
    }
}

static double step(struct golden *g) {
    struct rng rng;
    rng_init(&rng, 1);
    struct moe_pass pass = {.training = true, .share = 1, .rng = &rng, .batch = &g->batch};
    struct moe_numbers n = {&g->m->params, g->m->params.v, g->g, g->stats};
    memset(g->stats, 0, g->m->n_stats * sizeof(float));
    memset(g->g, 0, moe_params_floats(&g->m->params) * sizeof(float));
    for (int i = 0; i < g->inputs.n_tables; i++)
        moe_embed_grad_clear(&g->embed[i]);
    moe_forward(g->m, g->m->params.v, &g->batch, g->run, &pass, false);
    double loss = moe_loss_bce(g->batch.n_rows, g->n_tasks, g->run->logits, g->labels, g->weight,
                               g->scale, g->run->dlogits);
    moe_backward(g->m, &n, &g->batch, g->run, &pass, g->embed);
    for (int i = 0; i < g->inputs.n_tables; i++)
        for (int k = 0; k < g->embed[i].n; k++)
            memcpy(moe_params_at(&g->m->params, g->g, g->m->table_tensor[i], 0) +
                       g->embed[i].row[k] * (size_t)g->embed[i].dim,
                   g->embed[i].g + (size_t)k * (size_t)g->embed[i].dim,
                   (size_t)g->embed[i].dim * sizeof(float));
    after_step(g);
    return loss;
}

static void open(struct golden *g, const char *name) {
    char path[512];
    struct buf text = {0};
    struct moe_encode encode[MOE_SIDES] = {0};
    memset(g, 0, sizeof *g);
    arena_init(&g->a, 0);
    snprintf(path, sizeof path, "%s/golden/%s.json", TESTS_DIR, name);
    if (!CHECK_OK(io_read_file(path, 1 << 24, &text)) ||
        !CHECK_OK(node_parse_json(&g->a, buf_slice(&text), name, &g->root)))
        abort();
    buf_deinit(&text);
    read_batch(g);
    read_tasks(g);
    moe_encode_fit(&encode[0], MOE_ENC_VALUE, 100, 2, g->batch.query, g->batch.n_groups,
                   g->inputs.query_columns);
    moe_encode_fit(&encode[1], MOE_ENC_VALUE, 100, 2, g->batch.cand, g->batch.n_rows,
                   g->inputs.cand_columns);
    if (!CHECK_OK(moe_model_build(get(g, "spec", NULL), name, &g->inputs, g->tasks, g->n_tasks,
                                  encode, 0, &g->m)))
        abort();
    struct moe_plan plan = {g->batch.n_rows, g->batch.n_groups, true};
    g->memory = heap_alloc_aligned(moe_run_floats(g->m, &plan) * sizeof(float));
    g->run = moe_run_bind(g->m, &plan, g->memory);
    g->g = heap_alloc_aligned(moe_params_floats(&g->m->params) * sizeof(float));
    g->stats = HEAP_ARRAY(float, g->m->n_stats + 1);
    for (int i = 0; i < g->inputs.n_tables; i++)
        moe_embed_grad_init(&g->embed[i], tables[i].rows, tables[i].dim);
    n_set = 0;
    moe_params_init(&g->m->params, 1); /* what is not in the file: running statistics */
    each(g, set);
    CU_ASSERT_EQUAL(n_set, get(g, "params", NULL)->n);
}
static void close(struct golden *g) {
    for (int i = 0; i < g->inputs.n_tables; i++)
        moe_embed_grad_deinit(&g->embed[i]);
    heap_free(g->memory);
    heap_free(g->g);
    heap_free(g->stats);
    moe_model_free(g->m);
    arena_deinit(&g->a);
}

/* Means and variances that PyTorch remembers of the same batches. */
static void compare_running(struct golden *g) {
    const struct node *list = node_get(g->root, "running");
    const struct moe_params *p = &g->m->params;
    const int buffer = g->m->levels[0].groups[0].buffer;
    CU_ASSERT_EQUAL(list != NULL, buffer >= 0);
    if (!list || buffer < 0)
        return;
    float *want = floats(g, list), *got = moe_params_at(p, p->v, buffer, 0);
    CU_ASSERT_EQUAL(list->n, p->t[buffer].copies * (int)p->t[buffer].stride);
    for (int i = 0; i < list->n; i++)
        CU_ASSERT(fabsf(got[i] - want[i]) < 3e-5f * (1 + fabsf(want[i])));
}

static void golden(const char *name) {
    struct golden g;
    open(&g, name);
    double loss = step(&g), want = get(&g, "loss", NULL)->number;
    CU_ASSERT_DOUBLE_EQUAL(loss, want, 1e-6 * want);
    float *logits = floats(&g, get(&g, "logits", NULL));
    for (int i = 0; i < g.batch.n_rows * g.n_tasks; i++)
        CU_ASSERT(fabsf(g.run->logits[i] - logits[i]) < 1e-5f * (1 + fabsf(logits[i])));
    each(&g, compare);

    struct moe_optim o;
    float decay = (float)get(&g, "weight_decay", NULL)->number,
          rate = (float)get(&g, "rate", NULL)->number;
    bool adamw = slice_is(get(&g, "optimizer", NULL)->text, "adamw");
    moe_optim_init(&o, adamw ? MOE_ADAMW : MOE_ADAM, decay, &g.m->params, g.m->table_tensor,
                   g.inputs.n_tables);
    int i = 0;
    for (const struct node *n = get(&g, "curve", NULL)->first; n; n = n->next, i++) {
        double now = step(&g);
        if (!(fabs(now - n->number) < 2e-5 * n->number))
            printf("\n    %s: loss of step %d is %.9g, not %.9g\n", name, i, now, n->number);
        CU_ASSERT(fabs(now - n->number) < 2e-5 * n->number);
        moe_optim_begin(&o);
        moe_optim_dense(&o, &g.m->params, g.m->params.v, g.g, 0, moe_params_dense(&g.m->params),
                        rate, 1);
        for (int t = 0; t < g.inputs.n_tables; t++)
            moe_optim_table(&o, &g.m->params, g.m->params.v, t, &g.embed[t], rate, 1);
    }
    CU_ASSERT_EQUAL(i, 10);
    compare_running(&g);
    moe_optim_deinit(&o);
    close(&g);
}
static void test_mmoe(void) { golden("mmoe"); }
static void test_ple(void) { golden("ple"); }

static void test_batch_norm(void) { golden("batch_norm"); }

static void test_cgc(void) { golden("cgc"); }
static void test_cgc_with_the_best_two(void) { golden("cgc_topk"); }

SUITE("moe_golden", TEST(test_mmoe), TEST(test_ple), TEST(test_batch_norm), TEST(test_cgc),
      TEST(test_cgc_with_the_best_two))
