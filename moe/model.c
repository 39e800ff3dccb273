/* model.c: builds a model from its spec: reads settings, lets the layer kinds describe levels,
 * declares every tensor, echoes the effective settings as the canonical spec. Draws no numbers and
 * fits nothing; train.c and model_file.c do. */
#include <stdio.h>
#include <string.h>
#include "base/heap.h"
#include "base/hash.h"
#include "moe/layer.h"
#include "moe/model_impl.h"

#define TASKS_MAX       64
#define NAME_MAX_LENGTH 40

static const struct conf_item numbers_items[] = {
    CONF_STRINGS(struct moe_numbers_conf, encode, "encode", "[value]",
                 "encodings of every plain number, side by side: value, log, quantile, ple"),
    CONF_INT(struct moe_numbers_conf, bins, "bins", "16", 2, MOE_ENC_BINS_MAX, "bins",
             "bins of quantile and ple"),
    CONF_FLOAT(struct moe_numbers_conf, clip, "clip", "8", 0.1, 1000, "sd",
               "standardised numbers beyond this are cut"),
    CONF_END};

struct tower_conf {
    struct conf_numbers hidden;
    int act;
};
static const struct conf_item tower_items[] = {
    CONF_NUMBERS(struct tower_conf, hidden, "hidden", "[16]", 1, 65536,
                 "widths of the hidden layers of a task's tower; [] for a linear one"),
    CONF_ENUM(struct tower_conf, act, "act", "relu", MOE_ACT_CHOICES, "activation"), CONF_END};

struct body_conf {
    bool wide;
    int64_t cross, cross_rank;
    int calibrate;
};
static const struct conf_item body_items[] = {
    CONF_BOOL(struct body_conf, wide, "wide", "false",
              "adds a linear term over all inputs to each task's logit"),
    CONF_INT(struct body_conf, cross, "cross", "0", 0, 4, "layers",
             "low-rank cross layers before the experts (DCN-v2)"),
    CONF_INT(struct body_conf, cross_rank, "cross_rank", "16", 1, 4096, "columns",
             "rank of the cross layers"),
    CONF_ENUM(struct body_conf, calibrate, "calibrate", "none",
              "none|temperature|platt|isotonic|platt_all",
              "map of each task's logit, fitted on the validation rows after training"),
    CONF_END};
static const char *const body_also[] = {"numbers",  "layers",    "tower",
                                        "position", "attention", NULL};

enum status moe_spec_numbers(const struct node *spec, const char *file,
                             struct moe_numbers_conf *out, struct arena *a) {
    const struct node *map = spec && spec->type == NODE_MAP ? node_get(spec, "numbers") : NULL;
    struct conf_place place = {file, "model.numbers"};
    TRY(conf_read(numbers_items, map, place, NULL, out, a));
    return moe_spec_encodings(out, file, &(unsigned){0});
}

enum status moe_spec_encodings(const struct moe_numbers_conf *c, const char *file,
                               unsigned *kinds) {
    static const char *const names[] = {"value", "log", "quantile", "ple", NULL};
    unsigned got = 0;
    for (int i = 0; i < c->encode.n; i++) {
        int k = 0;
        while (names[k] && strcmp(names[k], c->encode.v[i]) != 0)
            k++;
        const char *near = names[k] ? NULL : conf_nearest(slice_of(c->encode.v[i]), names);
        if (!names[k])
            return fail(STATUS_INVALID_ARGUMENT,
                        "%s: model.numbers.encode: unknown encoding '%s'; did you mean '%s'?", file,
                        c->encode.v[i], near ? near : "value");
        got |= 1u << k;
    }
    *kinds = got;
    return STATUS_OK;
}

/* --- inputs ---------------------------------------------------------------------------------- */

static const char *const *copy_names(struct arena *a, const char *const *names, int n) {
    const char **out = ARENA_ARRAY(a, const char *, n + 1);
    for (int i = 0; i < n; i++)
        out[i] = arena_strdup(a, slice_of(names && names[i] ? names[i] : ""));
    return out;
}

static enum status copy_inputs(struct moe_model *m, const struct moe_inputs *in, const char *file) {
    struct moe_id_input *ids = ARENA_ARRAY(&m->arena, struct moe_id_input, in->n_ids + 1);
    struct moe_table_spec *tables = ARENA_ARRAY(&m->arena, struct moe_table_spec, in->n_tables + 1);
    m->inputs = *in;
    m->inputs.query_names = copy_names(&m->arena, in->query_names, in->query_columns);
    m->inputs.cand_names = copy_names(&m->arena, in->cand_names, in->cand_columns);
    for (int i = 0; i < in->n_tables; i++) {
        tables[i] = in->tables[i];
        tables[i].name = arena_strdup(&m->arena, slice_of(in->tables[i].name));
        if (tables[i].rows < 2 || tables[i].rows > 1u << 30 || tables[i].dim < 1 ||
            tables[i].dim > 4096)
            return fail(STATUS_INVALID_ARGUMENT, "%s: table '%s': %u rows of %d are not possible",
                        file, tables[i].name, tables[i].rows, tables[i].dim);
    }
    for (int i = 0; i < in->n_ids; i++) {
        ids[i] = in->ids[i];
        ids[i].name = arena_strdup(&m->arena, slice_of(in->ids[i].name));
        int slots = ids[i].in_query ? in->query_slots : in->cand_slots;
        if (ids[i].table < 0 || ids[i].table >= in->n_tables || ids[i].slot < 0 ||
            ids[i].n_slots < 1 || ids[i].slot > slots - ids[i].n_slots)
            return fail(STATUS_INVALID_ARGUMENT, "%s: id input '%s' is out of its table or slots",
                        file, ids[i].name);
    }
    m->inputs.ids = ids;
    m->inputs.tables = tables;
    return STATUS_OK;
}

static enum status copy_tasks(struct moe_model *m, const char *const *tasks, int n,
                              const char *file) {
    if (n < 1 || n > TASKS_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "%s: %d tasks; between 1 and %d are possible", file, n,
                    TASKS_MAX);
    m->n_tasks = n;
    m->tasks = ARENA_ARRAY(&m->arena, const char *, n);
    m->task_weight = ARENA_ARRAY(&m->arena, float, n);
    m->task_loss = ARENA_ARRAY(&m->arena, struct moe_loss_conf, n);
    for (int t = 0; t < n; t++) {
        size_t length = tasks[t] ? strlen(tasks[t]) : 0;
        if (length < 1 || length > NAME_MAX_LENGTH || strcmp(tasks[t], "shared") == 0)
            return fail(STATUS_INVALID_ARGUMENT,
                        "%s: task %d: a name has 1 to %d letters and is not 'shared'", file, t,
                        NAME_MAX_LENGTH);
        for (int s = 0; s < t; s++)
            if (strcmp(tasks[s], tasks[t]) == 0)
                return fail(STATUS_INVALID_ARGUMENT, "%s: task '%s' stands twice", file, tasks[t]);
        m->tasks[t] = arena_strdup(&m->arena, slice_of(tasks[t]));
        m->task_weight[t] = 1;
    }
    return STATUS_OK;
}

#define FOLD_ROWS_MAX 4096 /* rows of a table whose products may be made for the whole table */

static bool may_fold(const struct moe_inputs *in, const struct moe_id_input *id) {
    return id->n_slots == 1 && in->tables[id->table].rows <= FOLD_ROWS_MAX;
}

/* Embeddings that may be folded stand last, so that the others are one run of columns. */
static void declare_side(struct moe_model *m, int side) {
    const struct moe_inputs *in = &m->inputs;
    struct moe_embed_side *s = &m->embed[side];
    s->slots = side == MOE_QUERY ? in->query_slots : in->cand_slots;
    s->input = ARENA_ARRAY(&m->arena, struct moe_embed_input, in->n_ids + 1);
    int at = m->numbers[side] = m->encode[side].width;
    for (int fold = 0; fold < 2; fold++) {
        for (int i = 0; i < in->n_ids; i++) {
            const struct moe_id_input *id = &in->ids[i];
            if ((id->in_query != 0) != (side == MOE_QUERY) || may_fold(in, id) != (fold == 1))
                continue;
            int dim = in->tables[id->table].dim;
            s->input[s->n++] = (struct moe_embed_input){id->slot, id->n_slots, id->table, dim, at};
            at += dim;
            m->fold_inputs[side] += fold;
        }
        if (side == MOE_CAND && fold == 0)
            at = moe_attend_place(m, at);
    }
    m->part[side] = at;
}

static void declare_tables(struct moe_model *m) {
    m->table_tensor = ARENA_ARRAY(&m->arena, int, m->inputs.n_tables + 1);
    for (int i = 0; i < m->inputs.n_tables; i++) {
        const struct moe_table_spec *t = &m->inputs.tables[i];
        struct moe_layout l = {0};
        moe_layout_add(&l, "v", (int)t->rows, t->dim, MOE_INIT_NORMAL, 0.05f);
        m->table_tensor[i] = moe_params_add(&m->params, MOE_TABLE, 1, &l, "table%d", i);
    }
}

/* --- body ------------------------------------------------------------------------------------ */

static enum status read_layers(struct moe_build *b, const struct node *spec) {
    const struct node *list = spec ? node_get(spec, "layers") : NULL;
    static const struct node empty = {.type = NODE_MAP};
    json_key(b->json, "layers");
    json_array(b->json);
    if (list && list->type != NODE_LIST)
        return fail(STATUS_INVALID_ARGUMENT, "%s:%d: model.layers: must be a list of layers",
                    b->place.file, list->line);
    const struct node *layer = list && list->n ? list->first : &empty;
    for (int i = 0; layer; i++, layer = layer->next) {
        if (layer->type != NODE_MAP)
            return fail(STATUS_INVALID_ARGUMENT, "%s:%d: model.layers[%d]: must be a map",
                        b->place.file, layer->line, i);
        b->place.section = arena_printf(b->a, "model.layers[%d]", i);
        b->map = layer;
        b->last = layer->next == NULL;
        TRY(moe_build_layer(b));
    }
    json_array_end(b->json);
    return STATUS_OK;
}

static enum status read_towers(struct moe_model *m, struct moe_build *b, const struct node *spec) {
    struct tower_conf c;
    const struct moe_level *last = &b->levels[b->n_levels - 1];
    int hidden[MOE_MLP_LAYERS_MAX];
    struct conf_place place = {b->place.file, "model.tower"};
    TRY(conf_read(tower_items, spec ? node_get(spec, "tower") : NULL, place, NULL, &c, b->a));
    if (c.hidden.n >= MOE_MLP_LAYERS_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "%s: model.tower.hidden: at most %d layers",
                    place.file, MOE_MLP_LAYERS_MAX - 1);
    for (int i = 0; i < c.hidden.n; i++)
        hidden[i] = (int)c.hidden.v[i];
    m->towers = ARENA_ARRAY(b->a, struct moe_tower, m->n_tasks);
    for (int t = 0; t < m->n_tasks; t++) {
        struct moe_layout l = {0};
        m->towers[t].module = b->task_module[t];
        moe_mlp_declare(&m->towers[t].mlp, &l, last->out, hidden, c.hidden.n, 1,
                        (enum moe_act)c.act, false);
        m->towers[t].tensor = moe_params_add(b->params, MOE_DENSE, 1, &l, "tower.%s", m->tasks[t]);
    }
    json_key(b->json, "tower");
    json_object(b->json);
    conf_write_json(tower_items, &c, b->json);
    json_object_end(b->json);
    return STATUS_OK;
}

static enum status read_body(struct moe_model *m, struct moe_build *b, const struct node *spec) {
    struct body_conf c;
    struct conf_place place = {b->place.file, "model"};
    TRY(conf_read(body_items, spec, place, body_also, &c, b->a));
    conf_write_json(body_items, &c, b->json);
    int d = m->part[MOE_QUERY] + m->part[MOE_CAND];
    if (d < 1)
        return fail(STATUS_INVALID_ARGUMENT, "%s: model: there are no inputs", place.file);
    m->wide_tensor = m->cross_tensor = -1;
    if (c.wide) {
        struct moe_layout l = {0};
        moe_layout_add(&l, "w", d, m->n_tasks, MOE_INIT_ZERO, 0);
        moe_layout_add(&l, "b", 1, m->n_tasks, MOE_INIT_ZERO, 0);
        m->wide_tensor = moe_params_add(b->params, MOE_DENSE, 1, &l, "wide");
    }
    if (c.cross) {
        struct moe_layout l = {0};
        moe_cross_declare(&m->cross, &l, (int)c.cross, (int)c.cross_rank, d);
        m->cross_tensor = moe_params_add(b->params, MOE_DENSE, 1, &l, "cross");
    }
    m->calibrate = c.calibrate;
    m->calibrate_tensor = -1;
    if (c.calibrate == MOE_CALIBRATE_ISOTONIC) {
        struct moe_layout l = {0};
        moe_layout_add(&l, "map", 1, 1 + 2 * MOE_KNOTS, MOE_INIT_ZERO, 0);
        m->calibrate_tensor = moe_params_add(b->params, MOE_BUFFER, m->n_tasks, &l, "isotonic");
    }
    b->in_dq = c.cross ? 0 : m->part[MOE_QUERY];
    b->in_columns = d;
    return STATUS_OK;
}

static enum status build(struct moe_model *m, struct moe_build *b, const struct node *spec,
                         struct buf *json_out) {
    struct json j;
    struct moe_numbers_conf numbers;
    if (spec && spec->type != NODE_MAP && spec->type != NODE_NULL)
        return fail(STATUS_INVALID_ARGUMENT, "%s:%d: model: must be a map", b->place.file,
                    spec->line);
    if (spec && spec->type == NODE_NULL)
        spec = NULL;
    json_begin(&j, json_out);
    b->json = &j;
    json_object(&j);
    TRY(moe_spec_numbers(spec, b->place.file, &numbers, b->a));
    json_key(&j, "numbers");
    json_object(&j);
    conf_write_json(numbers_items, &numbers, &j);
    json_object_end(&j);
    TRY(read_body(m, b, spec));
    TRY(moe_position_declare(m, b, spec));
    TRY(moe_attend_declare(m, b, spec));
    TRY(read_layers(b, spec));
    TRY(read_towers(m, b, spec));
    json_object_end(&j);
    return STATUS_OK;
}

/* "shared.0": the group's name without its level, and the number in the group. */
static void name_experts(struct moe_model *m, struct moe_level *l) {
    l->expert_names = ARENA_ARRAY(&m->arena, const char *, l->n_experts + 1);
    for (int e = 0; e < l->n_experts; e++) {
        const char *group = moe_level_group(l, e)->name, *dot = strchr(group, '.');
        l->expert_names[e] =
            arena_printf(&m->arena, "%s.%d", dot ? dot + 1 : group, l->experts[e].index);
    }
}

/* Whether anything reads input rows other than through moe_linear_*. */
static bool reads_rows(const struct moe_model *m) {
    bool reads = m->cross.n > 0;
    for (int i = 0; i < m->n_levels; i++) {
        const struct moe_level *l = &m->levels[i];
        for (int k = 0; k < l->n_groups; k++)
            reads |=
                l->sources[l->groups[k].source].n == 0 && !l->groups[k].expert.ops->linear_only;
        for (int k = 0; k < l->n_gates; k++)
            reads |= (l->sources[l->gates[k].source].n == 0 &&
                      !(l->gates[k].gate.flags & MOE_GATE_LINEAR)) ||
                     l->gates[k].gate.ops->kind != MOE_ROUTE_WEIGHTS;
    }
    return reads;
}

static void finish(struct moe_model *m, const struct moe_build *b, const struct buf *json) {
    m->levels = ARENA_ARRAY(&m->arena, struct moe_level, b->n_levels);
    memcpy(m->levels, b->levels, (size_t)b->n_levels * sizeof *m->levels);
    m->n_levels = b->n_levels;
    m->n_stats = b->n_stats;
    for (int i = 0; i < m->n_levels; i++)
        name_experts(m, &m->levels[i]);
    for (int i = 0; i < m->n_levels; i++)
        for (int k = 0; k < m->levels[i].n_gates; k++)
            m->mixes_rows |= (m->levels[i].gates[k].gate.flags & MOE_GATE_MIXES_ROWS) != 0;
    m->write_out = reads_rows(m);
    m->spec_json = arena_strdup(&m->arena, buf_slice(json));
    moe_params_place(&m->params);
}

static enum status check_size(const struct moe_model *m, const char *file, size_t floats_max) {
    size_t n = 0;
    if (floats_max == 0 || floats_max > MOE_FLOATS_MAX)
        floats_max = MOE_FLOATS_MAX;
    for (int i = 0; i < m->params.n; i++)
        n += (size_t)m->params.t[i].copies * m->params.t[i].stride;
    if (n > floats_max)
        return fail(STATUS_INVALID_ARGUMENT,
                    "%s: model: %zu numbers, more than the %zu possible here", file, n, floats_max);
    return STATUS_OK;
}

enum status moe_model_build(const struct node *spec, const char *file,
                            const struct moe_inputs *inputs, const char *const *tasks, int n_tasks,
                            struct moe_encode encode[MOE_SIDES], size_t floats_max,
                            struct moe_model **out) {
    struct moe_model *m = HEAP_NEW(struct moe_model);
    struct moe_build *b = HEAP_NEW(struct moe_build);
    struct buf json = {0};
    arena_init(&m->arena, 0);
    for (int s = 0; s < MOE_SIDES; s++) {
        m->encode[s] = encode[s];
        encode[s] = (struct moe_encode){0};
    }
    enum status status = copy_inputs(m, inputs, file);
    if (status == STATUS_OK)
        status = copy_tasks(m, tasks, n_tasks, file);
    if (status == STATUS_OK)
        status = moe_position_take(m, spec, file);
    if (status == STATUS_OK)
        status = moe_attend_take(m, spec, file);
    if (status == STATUS_OK) {
        *b = (struct moe_build){.a = &m->arena,
                                .params = &m->params,
                                .place = {file, "model"},
                                .n_tasks = n_tasks,
                                .tasks = m->tasks,
                                .inputs = &m->inputs,
                                .shared_module = -1};
        memset(b->task_module, 0xff, sizeof b->task_module); /* -1 */
        declare_side(m, MOE_QUERY);
        declare_side(m, MOE_CAND);
        declare_tables(m);
        status = build(m, b, spec, &json);
    }
    if (status == STATUS_OK)
        status = check_size(m, file, floats_max);
    if (status == STATUS_OK)
        finish(m, b, &json);
    heap_free(b);
    buf_deinit(&json);
    if (status != STATUS_OK) {
        moe_model_free(m);
        return status;
    }
    *out = m;
    return STATUS_OK;
}

void moe_model_free(struct moe_model *m) {
    if (!m)
        return;
    for (struct moe_meta *x = m->meta, *next; x; x = next) {
        next = x->next;
        heap_free((char *)x->key);
        heap_free((char *)x->value);
        heap_free(x);
    }
    for (int s = 0; s < MOE_SIDES; s++)
        moe_encode_deinit(&m->encode[s]);
    moe_params_deinit(&m->params);
    arena_deinit(&m->arena);
    heap_free(m);
}
