/* bench_export.c: a model taken apart for a rival: every matrix as raw floats, and a JSON file that
 * says where each one is and what feeds what. */
#include <string.h>
#include "base/io.h"
#include "moe/experts/mlp.h"
#include "tools/bench_score.h"

struct export {
    struct buf floats;
    struct buf text;
    struct json j;
    const struct moe_model *m;
};

/* {"at": floats from the file's start, "rows":, "cols":} */
static void put_matrix(struct export *e, const char *key, const float *v, int rows, int cols) {
    json_key(&e->j, key);
    json_object(&e->j);
    json_key(&e->j, "at");
    json_int(&e->j, (int64_t)(e->floats.n / sizeof(float)));
    json_key(&e->j, "rows");
    json_int(&e->j, rows);
    json_key(&e->j, "cols");
    json_int(&e->j, cols);
    json_object_end(&e->j);
    buf_add(&e->floats, v, (size_t)rows * (size_t)cols * sizeof *v);
}

static void put_int(struct export *e, const char *key, int v) {
    json_key(&e->j, key);
    json_int(&e->j, v);
}

static void put_ints(struct export *e, const char *key, const int *v, int n) {
    json_key(&e->j, key);
    json_array(&e->j);
    for (int i = 0; i < n; i++)
        json_int(&e->j, v[i]);
    json_array_end(&e->j);
}

static void put_mlp(struct export *e, const struct moe_mlp *m, const float *run) {
    static const char *const acts[] = {"relu", "silu", "gelu", "none"};
    json_key(&e->j, "layers");
    json_array(&e->j);
    for (int i = 0; i < m->n_layers; i++) {
        bool active = i + 1 < m->n_layers || m->act_last;
        json_object(&e->j);
        put_matrix(e, "w", run + m->w[i], m->width[i], m->width[i + 1]);
        put_matrix(e, "b", run + m->b[i], 1, m->width[i + 1]);
        json_key(&e->j, "act");
        json_cstr(&e->j, active ? acts[m->act] : "none");
        json_object_end(&e->j);
    }
    json_array_end(&e->j);
}

static void put_level(struct export *e, const struct moe_level *l) {
    const struct moe_params *p = &e->m->params;
    json_object(&e->j);
    put_int(e, "modules", l->n_modules);
    json_key(&e->j, "sources");
    json_array(&e->j);
    for (int i = 0; i < l->n_sources; i++) {
        json_object(&e->j);
        put_ints(e, "modules", l->sources[i].modules, l->sources[i].n);
        json_object_end(&e->j);
    }
    json_array_end(&e->j);
    json_key(&e->j, "experts");
    json_array(&e->j);
    for (int i = 0; i < l->n_experts; i++) {
        const struct moe_expert_group *g = moe_level_group(l, i);
        json_object(&e->j);
        put_int(e, "source", g->source);
        put_mlp(e, g->expert.shape, moe_params_at(p, p->v, g->tensor, l->experts[i].index));
        json_object_end(&e->j);
    }
    json_array_end(&e->j);
    json_key(&e->j, "gates");
    json_array(&e->j);
    for (int i = 0; i < l->n_gates; i++) {
        const struct moe_gate_use *u = &l->gates[i];
        const struct moe_layout *y = &u->gate.params;
        const int n = u->gate.n_experts;
        json_object(&e->j);
        put_int(e, "source", u->source);
        put_int(e, "module", u->module);
        json_key(&e->j, "kind");
        json_cstr(&e->j, u->gate.ops->name);
        put_ints(e, "experts", u->experts, n);
        if (u->tensor >= 0 && y->n > 0) {
            const float *w = moe_params_at(p, p->v, u->tensor, 0);
            put_matrix(e, "w", w + y->f[0].at, y->f[0].rows, n);
            if (y->n > 1)
                put_matrix(e, "b", w + y->f[1].at, 1, n);
        }
        json_object_end(&e->j);
    }
    json_array_end(&e->j);
    json_object_end(&e->j);
}

static void put_model(struct export *e) {
    const struct moe_model *m = e->m;
    const struct moe_params *p = &m->params;
    put_int(e, "dq", m->part[MOE_QUERY]);
    put_int(e, "dc", m->part[MOE_CAND]);
    put_int(e, "tasks", m->n_tasks);
    json_key(&e->j, "levels");
    json_array(&e->j);
    for (int i = 0; i < m->n_levels; i++)
        put_level(e, &m->levels[i]);
    json_array_end(&e->j);
    json_key(&e->j, "towers");
    json_array(&e->j);
    for (int t = 0; t < m->n_tasks; t++) {
        json_object(&e->j);
        put_int(e, "module", m->towers[t].module);
        put_mlp(e, &m->towers[t].mlp, moe_params_at(p, p->v, m->towers[t].tensor, 0));
        json_object_end(&e->j);
    }
    json_array_end(&e->j);
    if (m->wide_tensor >= 0) {
        const float *w = moe_params_at(p, p->v, m->wide_tensor, 0);
        const struct moe_layout *y = &p->t[m->wide_tensor].layout;
        put_matrix(e, "wide_w", w + y->f[0].at, y->f[0].rows, m->n_tasks);
        put_matrix(e, "wide_b", w + y->f[1].at, 1, m->n_tasks);
    }
}

/* The slate's inputs as the network sees them, and what each form makes of it. */
static void put_slate(struct export *e, struct bench_score *b, int rows) {
    const int dq = b->m->part[MOE_QUERY], dc = b->m->part[MOE_CAND];
    const struct moe_packed *p = b->forms[0].p;
    float *x = arena_alloc_aligned(&b->arena, ((size_t)(rows * dc) + MOE_LANES) * sizeof *x);
    float *q = arena_alloc_aligned(&b->arena, (size_t)(dq + MOE_LANES) * sizeof *q);
    b->slate.n_rows = rows;
    moe_packed_gather(p, MOE_QUERY, b->slate.query, b->slate.query_ids, 1, q);
    moe_packed_gather(p, MOE_CAND, b->slate.cand, b->slate.cand_ids, rows, x);
    put_matrix(e, "query", q, 1, dq);
    put_matrix(e, "cand", x, rows, dc);
    json_key(&e->j, "scores");
    json_object(&e->j);
    for (int i = 0; i < BENCH_FORMS; i++) {
        if (!bench_score_has(&b->forms[i]))
            continue;
        bench_score_run(b, &b->forms[i], NULL);
        put_matrix(e, b->forms[i].name, b->scores, b->m->n_tasks, rows);
    }
    json_object_end(&e->j);
}

enum status bench_score_export(struct bench_score *b, const char *folder, int rows) {
    struct export e = {.m = b->m};
    char *json_path = arena_printf(&b->arena, "%s/model.json", folder);
    char *floats_path = arena_printf(&b->arena, "%s/model.f32", folder);
    json_begin(&e.j, &e.text);
    json_object(&e.j);
    put_model(&e);
    put_slate(&e, b, rows);
    json_object_end(&e.j);
    enum status status = io_make_dirs(folder);
    if (status == STATUS_OK)
        status = io_write_file(json_path, buf_slice(&e.text));
    if (status == STATUS_OK)
        status = io_write_file(floats_path, buf_slice(&e.floats));
    buf_deinit(&e.text);
    buf_deinit(&e.floats);
    return status;
}
