/* table_save.c: what a table learnt from its first file, as JSON that travels in the model file,
 * and back: the settings, the values of every category in the order of their ids, the bins' edges.
 * Values are kept as the 64-bit hashes they are looked up by, so the texts themselves do not leak;
 * two values of one hash would share an id, as they did in training. */
#include <math.h>
#include <string.h>
#include "base/heap.h"
#include "moe/data/table_impl.h"

#define KEY_DIGITS 16 /* hex digits of a value's hash */

static const char *const kinds[] = {"number", "category", "weight", "group", "time", "ignore"};

/* --- writing --------------------------------------------------------------------------------- */

static void put_values(const struct moe_dict *d, struct json *j) {
    struct buf text = {0};
    uint64_t *keys = HEAP_ARRAY(uint64_t, d->n + 1), key, id;
    for (size_t i = 0; map_next(&d->ids, &i, &key, &id);)
        keys[id - MOE_TABLE_FIRST_ID] = key;
    for (uint32_t i = 0; i < d->n; i++)
        buf_printf(&text, "%016llx", (unsigned long long)keys[i]);
    json_str(j, buf_slice(&text));
    heap_free(keys);
    buf_deinit(&text);
}

void moe_table_save(const struct moe_table *t, struct buf *out) {
    struct json j;
    json_begin(&j, out);
    json_object(&j);
    json_key(&j, "settings");
    json_str(&j, slice_of(t->settings));
    json_key(&j, "columns");
    json_array(&j);
    for (int i = 0; i < t->n_columns; i++) {
        const struct moe_table_column *c = &t->columns[i];
        json_object(&j);
        json_key(&j, "name");
        json_cstr(&j, c->name);
        json_key(&j, "kind");
        json_cstr(&j, kinds[c->kind]);
        json_key(&j, "values");
        put_values(&c->dict, &j);
        json_key(&j, "edges");
        json_array(&j);
        for (int k = 0; k < c->n_edges; k++)
            json_num(&j, (double)c->edges[k]);
        json_array_end(&j);
        json_object_end(&j);
    }
    json_array_end(&j);
    json_key(&j, "trees");
    moe_table_save_trees(t, &j);
    json_object_end(&j);
}

/* --- reading --------------------------------------------------------------------------------- */

static enum status broken(const char *file, const char *what) {
    return fail(STATUS_DATA_LOSS, "%s: metadata 'table': %s", file, what);
}

static bool take_key(const char *p, uint64_t *out) {
    uint64_t v = 0;
    for (int i = 0; i < KEY_DIGITS; i++) {
        int digit = p[i] >= '0' && p[i] <= '9'   ? p[i] - '0'
                    : p[i] >= 'a' && p[i] <= 'f' ? p[i] - 'a' + 10
                                                 : -1;
        if (digit < 0)
            return false;
        v = v << 4 | (uint64_t)digit;
    }
    *out = v;
    return true;
}

static enum status take_values(const char *file, const struct node *text, struct moe_dict *d) {
    if (!text || text->type != NODE_STRING || text->text.n % KEY_DIGITS)
        return broken(file, "a column's values");
    for (size_t at = 0; at < text->text.n; at += KEY_DIGITS) {
        uint64_t key, id;
        if (!take_key(text->text.p + at, &key) || map_get(&d->ids, key, &id))
            return broken(file, "a column's values");
        map_put(&d->ids, key, MOE_TABLE_FIRST_ID + d->n++);
    }
    return STATUS_OK;
}

static enum status take_edges(const char *file, const struct node *list,
                              struct moe_table_column *c) {
    if (!list || list->type != NODE_LIST || list->n > MOE_ENC_BINS_MAX - 1)
        return broken(file, "a column's edges");
    for (const struct node *n = list->first; n; n = n->next) {
        float edge = (float)n->number;
        if (n->type != NODE_NUMBER || !isfinite(edge) ||
            (c->n_edges && edge <= c->edges[c->n_edges - 1]))
            return broken(file, "a column's edges");
        c->edges[c->n_edges++] = edge;
    }
    return STATUS_OK;
}

/* The i-th column: one of the settings, or behind them one that LibSVM rows brought. */
static enum status take_column(struct moe_table *t, const struct node *n, int i) {
    const struct node *name = node_get(n, "name"), *kind = node_get(n, "kind");
    int k = 0;
    if (!name || name->type != NODE_STRING || !kind || kind->type != NODE_STRING)
        return broken(t->file, "a column without name or kind");
    while (k <= MOE_COLUMN_IGNORE && !slice_is(kind->text, kinds[k]))
        k++;
    if (k > MOE_COLUMN_IGNORE)
        return broken(t->file, "a column's kind");
    if (i == t->n_columns) {
        const char *copy = arena_strdup(&t->arena, name->text);
        moe_table_add(t, copy, copy, (enum moe_column_kind)k);
    }
    struct moe_table_column *c = &t->columns[i];
    if (!slice_is(name->text, c->name) || c->kind != (enum moe_column_kind)k)
        return broken(t->file, "its columns are not those of its settings");
    TRY(take_values(t->file, node_get(n, "values"), &c->dict));
    return take_edges(t->file, node_get(n, "edges"), c);
}

static enum status take_columns(struct moe_table *t, const struct node *list) {
    int i = 0;
    if (!list || list->type != NODE_LIST || list->n < t->n_columns || list->n > MOE_TABLE_CELLS_MAX)
        return broken(t->file, "its columns are not those of its settings");
    for (const struct node *n = list->first; n; n = n->next, i++) {
        if (n->type != NODE_MAP)
            return broken(t->file, "a column that is not a map");
        TRY(take_column(t, n, i));
    }
    moe_table_lay_out(t);
    moe_table_size_ids(t);
    t->learnt = t->restored = true;
    return STATUS_OK;
}

static enum status same_inputs(const struct moe_table *t, const struct moe_inputs *in) {
    const struct moe_inputs *own = &t->inputs;
    bool same = own->cand_columns == in->cand_columns && own->cand_slots == in->cand_slots &&
                own->n_tables == in->n_tables && own->n_ids == in->n_ids &&
                in->query_columns == 0 && in->query_slots == 0;
    for (int i = 0; same && i < own->n_tables; i++)
        same = own->tables[i].rows == in->tables[i].rows;
    return same ? STATUS_OK : broken(t->file, "its inputs are not the model's");
}

enum status moe_table_restore(const char *text, const char *file, const struct moe_inputs *inputs,
                              struct moe_table **out) {
    struct arena a;
    struct node *root, *settings;
    struct moe_table *t = NULL;
    arena_init(&a, 0);
    enum status status = node_parse_json(&a, slice_of(text), file, &root);
    if (status == STATUS_OK) {
        const struct node *s = root->type == NODE_MAP ? node_get(root, "settings") : NULL;
        status = s && s->type == NODE_STRING ? node_parse_json(&a, s->text, file, &settings)
                                             : broken(file, "no settings");
    }
    if (status == STATUS_OK)
        status = moe_table_new(settings, file, &t);
    if (status == STATUS_OK)
        status = take_columns(t, node_get(root, "columns"));
    if (status == STATUS_OK)
        status = moe_table_take_trees(t, node_get(root, "trees"));
    if (status == STATUS_OK)
        status = same_inputs(t, inputs);
    arena_deinit(&a);
    if (status != STATUS_OK) {
        moe_table_free(t);
        return status == STATUS_INVALID_ARGUMENT ? fail_in(STATUS_DATA_LOSS, "%s", file) : status;
    }
    *out = t;
    return STATUS_OK;
}
