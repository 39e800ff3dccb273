/* sample.c: the reference models of the benches, and models and requests made of random numbers.
 * Weights are drawn as training draws them; biases, which training starts at zero, are drawn too,
 * so that a forgotten bias shows. Nothing is fitted to anything. */
#include "moe/score/sample.h"
#include <math.h>
#include <string.h>
#include "base/heap.h"
#include "moe/model_impl.h"

#define EXPERT "expert: {kind: mlp, hidden: [256], out: 128}"
#define ONE_GATE(kind)                                                                             \
    "{layers: [{kind: omoe, experts: 8, gate: {kind: " kind "}, " EXPERT                           \
    "}], tower: {hidden: [64]}}"
#define SHAPE .query_columns = 256, .cand_columns = 256, .n_tasks = 3

static const struct {
    const char *name;
    struct moe_sample sample;
} samples[] = {
    {"ple14",
     {.spec = "{layers: [{kind: cgc, shared: 8, own: 2, " EXPERT "}], tower: {hidden: [64]}}",
      .query_columns = 256,
      .cand_columns = 256,
      .n_tasks = 3}},
    {"mmoe8",
     {.spec = "{layers: [{kind: mmoe, experts: 8, " EXPERT "}], tower: {hidden: [64]}}",
      .query_columns = 256,
      .cand_columns = 256,
      .n_tasks = 3}},
    {"mmoe8-top2",
     {.spec = "{layers: [{kind: mmoe, experts: 8, gate: {kind: topk, k: 2}, " EXPERT
              "}], tower: {hidden: [64]}}",
      .query_columns = 256,
      .cand_columns = 256,
      .n_tasks = 3}},
    /* one gate for all tasks; dense, its two best, and all eight of eight: the dense one again */
    {"omoe8", {.spec = ONE_GATE("softmax"), SHAPE}},
    {"omoe8-top2", {.spec = ONE_GATE("topk, k: 2"), SHAPE}},
    {"omoe8-top8", {.spec = ONE_GATE("topk, k: 8"), SHAPE}},
    {"omoe8-smear", {.spec = ONE_GATE("smear"), SHAPE}},
    {"small",
     {.spec = "{layers: [{kind: mmoe, experts: 3, expert: {kind: mlp, hidden: [64], out: 64}}], "
              "tower: {hidden: [32]}}",
      .query_columns = 32,
      .cand_columns = 32,
      .n_tasks = 2}},
};

const struct moe_sample *moe_sample_find(const char *name) {
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++)
        if (strcmp(samples[i].name, name) == 0)
            return &samples[i].sample;
    return NULL;
}

/* `columns` of some hundred normal numbers, every 97th missing when there is more than one kind of
 * encoding to try. */
static void fit(struct moe_encode *e, const struct moe_numbers_conf *c, unsigned kinds, int columns,
                struct rng *r) {
    enum { ROWS = 256 };
    float *rows = HEAP_ARRAY(float, ROWS *columns + 1);
    for (int i = 0; i < ROWS * columns; i++)
        rows[i] = kinds != MOE_ENC_VALUE && rng_below(r, 97) == 0 ? NAN : (float)rng_normal(r);
    moe_encode_fit(e, kinds, (float)c->clip, (int)c->bins, rows, ROWS, columns);
    heap_free(rows);
}

static void draw_zeros(struct moe_params *p, uint64_t seed) {
    struct rng r;
    rng_init(&r, seed);
    for (int t = 0; t < p->n; t++)
        for (int copy = 0; copy < p->t[t].copies; copy++)
            for (int f = 0; f < p->t[t].layout.n && p->t[t].region == MOE_DENSE; f++) {
                const struct moe_field *field = &p->t[t].layout.f[f];
                float *v = moe_params_at(p, p->v, t, copy) + field->at;
                for (int i = 0; i < field->rows * field->cols && field->init == MOE_INIT_ZERO; i++)
                    v[i] = 0.1f * (float)rng_normal(&r);
            }
}

static enum status make(const struct moe_sample *s, uint64_t seed, struct arena *a,
                        struct moe_model **out) {
    static const char *const tasks[] = {"t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7"};
    struct node *spec;
    struct moe_numbers_conf numbers;
    unsigned kinds;
    struct rng r;
    rng_init(&r, seed);
    TRY(node_parse_yaml(a, slice_of(s->spec), "sample", &spec));
    TRY(moe_spec_numbers(spec, "sample", &numbers, a));
    TRY(moe_spec_encodings(&numbers, "sample", &kinds));
    const int n_ids = s->query_ids + s->cand_ids;
    struct moe_id_input *ids = ARENA_ARRAY(a, struct moe_id_input, n_ids + 1);
    struct moe_table_spec table = {"items", s->table_rows, s->dim};
    for (int i = 0; i < n_ids; i++) {
        bool query = i < s->query_ids;
        ids[i] = (struct moe_id_input){.name = arena_printf(a, "id%d", i),
                                       .in_query = query,
                                       .slot = (query ? i : i - s->query_ids) * s->slots,
                                       .n_slots = s->slots};
    }
    struct moe_inputs in = {.query_columns = s->query_columns,
                            .cand_columns = s->cand_columns,
                            .query_slots = s->query_ids * s->slots,
                            .cand_slots = s->cand_ids * s->slots,
                            .ids = ids,
                            .n_ids = n_ids,
                            .tables = &table,
                            .n_tables = n_ids ? 1 : 0};
    struct moe_encode encode[MOE_SIDES] = {0};
    fit(&encode[MOE_QUERY], &numbers, kinds, s->query_columns, &r);
    fit(&encode[MOE_CAND], &numbers, kinds, s->cand_columns, &r);
    struct moe_model *m;
    TRY(moe_model_build(spec, "sample", &in, tasks, s->n_tasks, encode, 0, &m));
    moe_params_init(&m->params, seed);
    draw_zeros(&m->params, seed + 1);
    moe_model_stamp(m);
    *out = m;
    return STATUS_OK;
}

enum status moe_sample_model(const struct moe_sample *s, uint64_t seed, struct moe_model **out) {
    struct arena a;
    arena_init(&a, 0);
    enum status status = make(s, seed, &a, out);
    arena_deinit(&a);
    return status;
}

static float *numbers_of(int n, int missing, struct rng *r, struct arena *a) {
    float *x = ARENA_ARRAY(a, float, n + 1);
    for (int i = 0; i < n; i++)
        x[i] = missing && rng_below(r, (uint32_t)missing) == 0 ? NAN : (float)rng_normal(r);
    return x;
}

static uint32_t *ids_of(int n, uint32_t rows, struct rng *r, struct arena *a) {
    uint32_t *x = ARENA_ARRAY(a, uint32_t, n + 1);
    for (int i = 0; i < n; i++)
        x[i] = rng_below(r, 5) == 0 ? 0 : 1 + rng_below(r, rows + 100);
    return x;
}

struct moe_batch moe_sample_batch(const struct moe_inputs *in, int rows, int missing, struct rng *r,
                                  struct arena *a) {
    const uint32_t table = in->n_tables ? in->tables[0].rows : 1;
    return (struct moe_batch){
        .n_groups = 1,
        .n_rows = rows,
        .query = numbers_of(in->query_columns, missing, r, a),
        .query_ids = ids_of(in->query_slots, table, r, a),
        .cand = numbers_of(rows * in->cand_columns, missing, r, a),
        .cand_ids = ids_of(rows * in->cand_slots, table, r, a),
    };
}
