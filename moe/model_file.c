/* model_file.c: a model to a safetensors file and back. Tensors: the encoders [columns x floats],
 * each expert group [experts x P], every other field by name. The spec, the inputs and the tasks
 * stand in __metadata__ as JSON, so that the file alone rebuilds the model. Loading trusts nothing:
 * sizes, finite values, the hash. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/heap.h"
#include "base/io.h"
#include "moe/model_impl.h"
#include "moe/safetensors.h"

#define FORMAT         "moerank-model-1"
#define FILE_BYTES_MAX ((size_t)16 << 30)
#define META_PREFIX    "meta."

static const char *const side_names[MOE_SIDES] = {"query", "cand"};

/* --- saving ---------------------------------------------------------------------------------- */

static void put_names(struct json *j, const char *key, const char *const *names, int n) {
    json_key(j, key);
    json_array(j);
    for (int i = 0; i < n; i++)
        json_cstr(j, names[i]);
    json_array_end(j);
}

struct id_conf {
    const char *name;
    bool in_query;
    int64_t slot, n_slots, table;
};
static const struct conf_item id_items[] = {
    CONF_STRING(struct id_conf, name, "name", NULL, "name"),
    CONF_BOOL(struct id_conf, in_query, "query", NULL, "stands in the query part"),
    CONF_INT(struct id_conf, slot, "slot", NULL, 0, 1 << 20, NULL, "first slot"),
    CONF_INT(struct id_conf, n_slots, "n_slots", NULL, 1, 1 << 20, NULL, "slots"),
    CONF_INT(struct id_conf, table, "table", NULL, 0, 1 << 20, NULL, "table"),
    CONF_END};
struct table_conf {
    const char *name;
    int64_t rows, dim;
};
static const struct conf_item table_items[] = {
    CONF_STRING(struct table_conf, name, "name", NULL, "name"),
    CONF_INT(struct table_conf, rows, "rows", NULL, 2, 1 << 30, "rows", "rows"),
    CONF_INT(struct table_conf, dim, "dim", NULL, 1, 4096, "floats", "floats of a row"), CONF_END};
struct task_conf {
    const char *name;
    double weight;
    int64_t after;
    struct moe_loss_conf loss;
};
static const struct conf_item task_items[] = {
    CONF_STRING(struct task_conf, name, "name", NULL, "name"),
    CONF_FLOAT(struct task_conf, weight, "weight", "1", 0, 1e6, NULL, "weight of the loss"),
    CONF_INT(struct task_conf, after, "after", "0", 0, 64, "tasks",
             "1 + the task before it; 0: none"),
    MOE_LOSS_ITEMS(struct task_conf, loss), CONF_END};
struct inputs_conf {
    struct conf_strings query, cand;
    int64_t query_slots, cand_slots;
};
static const struct conf_item inputs_items[] = {
    CONF_STRINGS(struct inputs_conf, query, "query", NULL, "columns of the query part"),
    CONF_STRINGS(struct inputs_conf, cand, "cand", NULL, "columns of the candidate part"),
    CONF_INT(struct inputs_conf, query_slots, "query_slots", NULL, 0, 1 << 20, NULL,
             "ids of a query"),
    CONF_INT(struct inputs_conf, cand_slots, "cand_slots", NULL, 0, 1 << 20, NULL,
             "ids of a candidate"),
    CONF_END};

static void put_inputs(const struct moe_inputs *in, struct json *j) {
    json_object(j);
    put_names(j, "query", in->query_names, in->query_columns);
    put_names(j, "cand", in->cand_names, in->cand_columns);
    json_key(j, "query_slots");
    json_int(j, in->query_slots);
    json_key(j, "cand_slots");
    json_int(j, in->cand_slots);
    json_key(j, "ids");
    json_array(j);
    for (int i = 0; i < in->n_ids; i++) {
        const struct moe_id_input *id = &in->ids[i];
        struct id_conf c = {id->name, id->in_query != 0, id->slot, id->n_slots, id->table};
        json_object(j);
        conf_write_json(id_items, &c, j);
        json_object_end(j);
    }
    json_array_end(j);
    json_key(j, "tables");
    json_array(j);
    for (int i = 0; i < in->n_tables; i++) {
        struct table_conf c = {in->tables[i].name, in->tables[i].rows, in->tables[i].dim};
        json_object(j);
        conf_write_json(table_items, &c, j);
        json_object_end(j);
    }
    json_array_end(j);
    json_object_end(j);
}

static void put_json(struct moe_st_writer *w, const char *key, struct buf *text) {
    buf_add_byte(text, 0);
    moe_st_put_meta(w, key, text->p);
    buf_deinit(text);
    *text = (struct buf){0};
}

static void put_meta(const struct moe_model *m, struct moe_st_writer *w) {
    struct buf text = {0};
    struct json j;
    moe_st_put_meta(w, "format", FORMAT);
    moe_st_put_meta(w, "version", m->version);
    moe_st_put_meta(w, "spec", m->spec_json);
    json_begin(&j, &text);
    put_inputs(&m->inputs, &j);
    put_json(w, "inputs", &text);
    json_begin(&j, &text);
    json_array(&j);
    for (int t = 0; t < m->n_tasks; t++) {
        struct task_conf c = {m->tasks[t], (double)m->task_weight[t], m->task_loss[t].after,
                              m->task_loss[t]};
        json_object(&j);
        conf_write_json(task_items, &c, &j);
        json_object_end(&j);
    }
    json_array_end(&j);
    put_json(w, "tasks", &text);
    for (const struct moe_meta *x = m->meta; x; x = x->next) {
        buf_printf(&text, META_PREFIX "%s", x->key);
        buf_add_byte(&text, 0);
        moe_st_put_meta(w, text.p, x->value);
        buf_clear(&text);
    }
    buf_deinit(&text);
}

enum status moe_model_save(const struct moe_model *m, const char *path) {
    struct moe_st_writer w;
    moe_st_begin(&w);
    put_meta(m, &w);
    for (int s = 0; s < MOE_SIDES; s++) {
        char name[32];
        size_t dims[2] = {(size_t)m->encode[s].columns, MOE_ENC_FLOATS};
        snprintf(name, sizeof name, "encode.%s", side_names[s]);
        moe_st_put(&w, name, dims, 2, (const float *)(const void *)m->encode[s].column);
    }
    for (int i = 0; i < m->params.n; i++) {
        const struct moe_tensor *t = &m->params.t[i];
        const float *v = moe_params_at(&m->params, m->params.v, i, 0);
        char name[160];
        if (t->copies > 1) {
            moe_st_put(&w, t->name, (size_t[]){(size_t)t->copies, t->stride}, 2, v);
            continue;
        }
        for (int f = 0; f < t->layout.n; f++) {
            const struct moe_field *field = &t->layout.f[f];
            size_t dims[2] = {(size_t)field->rows, (size_t)field->cols};
            snprintf(name, sizeof name, "%s.%s", t->name, field->name);
            moe_st_put(&w, name, field->rows == 1 ? dims + 1 : dims, field->rows == 1 ? 1 : 2,
                       v + field->at);
        }
    }
    return moe_st_end(&w, path);
}

/* --- loading --------------------------------------------------------------------------------- */

struct loading {
    const char *path;
    struct arena arena;
    struct moe_st st;
    struct moe_inputs inputs;
    const char *tasks[64];
    float weights[64];
    struct moe_loss_conf losses[64];
    int n_tasks;
    struct moe_encode encode[MOE_SIDES];
    int used; /* tensors */
};

/* The JSON in a metadata key; a list or map. */
static enum status meta_json(struct loading *l, const char *key, struct node **out) {
    const char *text = moe_st_meta(&l->st, key);
    if (!text)
        return fail(STATUS_DATA_LOSS, "%s: metadata '%s' is missing", l->path, key);
    if (node_parse_json(&l->arena, slice_of(text), key, out) != STATUS_OK)
        return fail_in(STATUS_DATA_LOSS, "%s", l->path);
    return STATUS_OK;
}

static enum status as_loss(struct loading *l, enum status s) {
    return s == STATUS_OK ? s : fail_in(STATUS_DATA_LOSS, "%s", l->path);
}

static enum status load_ids(struct loading *l, const struct node *list) {
    struct moe_id_input *ids = ARENA_ARRAY(&l->arena, struct moe_id_input, list->n + 1);
    int i = 0;
    for (const struct node *n = list->first; n; n = n->next, i++) {
        struct id_conf c;
        TRY(conf_read(id_items, n, (struct conf_place){l->path, "inputs.ids"}, NULL, &c,
                      &l->arena));
        ids[i] =
            (struct moe_id_input){c.name, c.in_query, (int)c.slot, (int)c.n_slots, (int)c.table};
    }
    l->inputs.ids = ids;
    l->inputs.n_ids = i;
    return STATUS_OK;
}

static enum status load_tables(struct loading *l, const struct node *list) {
    struct moe_table_spec *tables = ARENA_ARRAY(&l->arena, struct moe_table_spec, list->n + 1);
    int i = 0;
    for (const struct node *n = list->first; n; n = n->next, i++) {
        struct table_conf c;
        TRY(conf_read(table_items, n, (struct conf_place){l->path, "inputs.tables"}, NULL, &c,
                      &l->arena));
        tables[i] = (struct moe_table_spec){c.name, (uint32_t)c.rows, (int)c.dim};
    }
    l->inputs.tables = tables;
    l->inputs.n_tables = i;
    return STATUS_OK;
}

static enum status load_inputs(struct loading *l) {
    static const char *const also[] = {"ids", "tables", NULL};
    struct node *map;
    struct inputs_conf c;
    TRY(meta_json(l, "inputs", &map));
    if (map->type != NODE_MAP)
        return fail(STATUS_DATA_LOSS, "%s: metadata 'inputs' is not a map", l->path);
    TRY(as_loss(l, conf_read(inputs_items, map, (struct conf_place){"metadata", "inputs"}, also, &c,
                             &l->arena)));
    l->inputs = (struct moe_inputs){.query_columns = c.query.n,
                                    .cand_columns = c.cand.n,
                                    .query_names = c.query.v,
                                    .cand_names = c.cand.v,
                                    .query_slots = (int)c.query_slots,
                                    .cand_slots = (int)c.cand_slots};
    const struct node *ids = node_get(map, "ids"), *tables = node_get(map, "tables");
    if (!ids || ids->type != NODE_LIST || !tables || tables->type != NODE_LIST)
        return fail(STATUS_DATA_LOSS, "%s: metadata 'inputs': ids and tables must be lists",
                    l->path);
    TRY(as_loss(l, load_ids(l, ids)));
    return as_loss(l, load_tables(l, tables));
}

static enum status load_tasks(struct loading *l) {
    struct node *list;
    TRY(meta_json(l, "tasks", &list));
    if (list->type != NODE_LIST || list->n < 1 || list->n > 64)
        return fail(STATUS_DATA_LOSS, "%s: metadata 'tasks' is not a list of 1 to 64", l->path);
    for (const struct node *n = list->first; n; n = n->next) {
        struct task_conf c;
        TRY(as_loss(l, conf_read(task_items, n, (struct conf_place){"metadata", "tasks"}, NULL, &c,
                                 &l->arena)));
        l->tasks[l->n_tasks] = c.name;
        l->losses[l->n_tasks] = c.loss;
        l->losses[l->n_tasks].after = c.after <= list->n ? (int)c.after : 0;
        l->weights[l->n_tasks++] = (float)c.weight;
    }
    return STATUS_OK;
}

/* Copies a tensor of exactly this shape; every value finite. */
static enum status take(struct loading *l, const char *name, const size_t *dims, int n_dims,
                        float *out) {
    const struct moe_st_tensor *t = moe_st_find(&l->st, name);
    if (!t)
        return fail(STATUS_DATA_LOSS, "%s: tensor '%s' is missing", l->path, name);
    bool fits = t->type == MOE_ST_F32 && t->n_dims == n_dims;
    for (int i = 0; fits && i < n_dims; i++)
        fits = t->dims[i] == dims[i];
    if (!fits)
        return fail(STATUS_DATA_LOSS,
                    "%s: tensor '%s' has another type or shape than the spec says", l->path, name);
    if (t->bytes)
        memcpy(out, t->data, t->bytes);
    for (size_t i = 0; i < t->count; i++)
        if (!isfinite(out[i]))
            return fail(STATUS_DATA_LOSS, "%s: tensor '%s' is not finite at %zu", l->path, name, i);
    l->used++;
    return STATUS_OK;
}

static enum status check_column(const struct loading *l, const struct moe_encode_column *c) {
    int n = (int)c->n_edges;
    bool good = c->n_edges >= 0 && c->n_edges < MOE_ENC_BINS_MAX && (float)n == c->n_edges &&
                (c->missing == 0 || c->missing == 1);
    for (int i = 1; good && i < n; i++)
        good = c->edges[i] > c->edges[i - 1];
    return good ? STATUS_OK
                : fail(STATUS_DATA_LOSS, "%s: an encoder's edges are out of order", l->path);
}

static enum status load_encoders(struct loading *l, const struct node *spec) {
    struct moe_numbers_conf c;
    unsigned kinds;
    TRY(as_loss(l, moe_spec_numbers(spec, "metadata", &c, &l->arena)));
    TRY(as_loss(l, moe_spec_encodings(&c, "metadata", &kinds)));
    for (int s = 0; s < MOE_SIDES; s++) {
        struct moe_encode *e = &l->encode[s];
        char name[32];
        int n = s == MOE_QUERY ? l->inputs.query_columns : l->inputs.cand_columns;
        *e = (struct moe_encode){.kinds = kinds, .clip = (float)c.clip, .columns = n};
        e->column = HEAP_ARRAY(struct moe_encode_column, n + 1);
        snprintf(name, sizeof name, "encode.%s", side_names[s]);
        TRY(take(l, name, (size_t[]){(size_t)n, MOE_ENC_FLOATS}, 2, (float *)(void *)e->column));
        for (int i = 0; i < n; i++)
            TRY(check_column(l, &e->column[i]));
        moe_encode_place(e);
    }
    return STATUS_OK;
}

static enum status load_numbers(struct loading *l, struct moe_model *m) {
    for (int i = 0; i < m->params.n; i++) {
        const struct moe_tensor *t = &m->params.t[i];
        float *v = moe_params_at(&m->params, m->params.v, i, 0);
        char name[160];
        if (t->copies > 1) {
            TRY(take(l, t->name, (size_t[]){(size_t)t->copies, t->stride}, 2, v));
            continue;
        }
        for (int f = 0; f < t->layout.n; f++) {
            const struct moe_field *field = &t->layout.f[f];
            size_t dims[2] = {(size_t)field->rows, (size_t)field->cols};
            snprintf(name, sizeof name, "%s.%s", t->name, field->name);
            TRY(take(l, name, field->rows == 1 ? dims + 1 : dims, field->rows == 1 ? 1 : 2,
                     v + field->at));
        }
    }
    if (l->used != l->st.n)
        return fail(STATUS_DATA_LOSS, "%s: %d tensors, of which the spec knows %d", l->path,
                    l->st.n, l->used);
    return STATUS_OK;
}

static enum status finish(struct loading *l, struct moe_model *m) {
    TRY(load_numbers(l, m));
    if (!moe_outputs_good(m))
        return fail(STATUS_DATA_LOSS, "%s: tensor 'isotonic' is no increasing map", l->path);
    for (int t = 0; t < m->n_tasks; t++) {
        m->task_weight[t] = l->weights[t];
        m->task_loss[t] = l->losses[t];
    }
    for (const struct node *n = l->st.meta->first; n; n = n->next)
        if (strncmp(n->key.p, META_PREFIX, strlen(META_PREFIX)) == 0)
            moe_model_meta_set(m, n->key.p + strlen(META_PREFIX), n->text.p);
    /* as it was written: a setting that came later than the file is not in it, nor in its hash */
    m->spec_json = arena_strdup(&m->arena, slice_of(moe_st_meta(&l->st, "spec")));
    moe_model_stamp(m);
    const char *version = moe_st_meta(&l->st, "version");
    if (!version || strcmp(version, m->version) != 0)
        return fail(STATUS_DATA_LOSS, "%s: its numbers hash to %s, but it says %s: damaged",
                    l->path, m->version, version ? version : "nothing");
    return STATUS_OK;
}

static enum status load(struct loading *l, struct slice bytes, struct moe_model **out) {
    struct node *spec;
    struct moe_model *m;
    TRY(moe_st_parse(bytes, l->path, &l->arena, &l->st));
    const char *format = moe_st_meta(&l->st, "format");
    if (!format || strcmp(format, FORMAT) != 0)
        return fail(STATUS_DATA_LOSS, "%s: not a " FORMAT " file", l->path);
    TRY(load_inputs(l));
    TRY(load_tasks(l));
    TRY(meta_json(l, "spec", &spec));
    TRY(load_encoders(l, spec));
    TRY(as_loss(l, moe_model_build(spec, "metadata", &l->inputs, l->tasks, l->n_tasks, l->encode,
                                   bytes.n / sizeof(float) + 1, &m)));
    enum status status = finish(l, m);
    if (status != STATUS_OK) {
        moe_model_free(m);
        return status;
    }
    *out = m;
    return STATUS_OK;
}

enum status moe_model_load_bytes(struct slice bytes, const char *path, struct moe_model **out) {
    struct loading *l = HEAP_NEW(struct loading);
    l->path = path;
    arena_init(&l->arena, 0);
    enum status status = load(l, bytes, out);
    for (int s = 0; s < MOE_SIDES; s++)
        moe_encode_deinit(&l->encode[s]);
    arena_deinit(&l->arena);
    heap_free(l);
    return status;
}

enum status moe_model_load(const char *path, struct moe_model **out) {
    struct buf bytes = {0};
    enum status status = io_read_file(path, FILE_BYTES_MAX, &bytes);
    if (status == STATUS_OK)
        status = moe_model_load_bytes(buf_slice(&bytes), path, out);
    buf_deinit(&bytes);
    return status;
}
