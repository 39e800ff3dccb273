/* table.c: the settings of a table: which columns there are and what they become. Reading is in
 * table_read.c. A column may be used several times under different names (a number as such and,
 * cut into bins, as a category); nothing is guessed from the data but the categories' values. */
#include "moe/data/table.h"
#include <stdio.h>
#include <string.h>
#include "base/heap.h"
#include "moe/data/table_impl.h"

#define TASKS_MAX     64
#define EMBED_DEFAULT -1 /* as table.embed says */

const struct conf_item moe_table_items[] = {
    CONF_ENUM(struct moe_table_conf, format, "format", "auto", "auto|csv|tsv|jsonl|libsvm",
              "of the file; auto: told by its first line"),
    CONF_BOOL(struct moe_table_conf, header, "header", "true",
              "csv, tsv: the first line names the columns"),
    CONF_STRINGS(struct moe_table_conf, names, "names", "[]",
                 "csv, tsv: names of the columns, of all of them, in place of the header's"),
    CONF_STRING(struct moe_table_conf, delimiter, "delimiter", "",
                "csv: one character in place of the comma"),
    CONF_STRINGS(struct moe_table_conf, missing, "missing", "[?, ]",
                 "cells that mean: not known; by default ? and the empty one"),
    CONF_STRINGS(struct moe_table_conf, number, "number", "[]",
                 "columns that are numbers; libsvm: none named means all features"),
    CONF_STRINGS(struct moe_table_conf, category, "category", "[]",
                 "columns that are categories, with the settings of a category below"),
    CONF_INT(struct moe_table_conf, embed, "embed", "8", 1, 4096, "floats",
             "embedding of a category, unless its column says otherwise"),
    CONF_INT(struct moe_table_conf, min_count, "min_count", "1", 1, 1e9, "rows",
             "values of a category that are rarer share one embedding"),
    CONF_INT(struct moe_table_conf, features, "features", "0", 0, MOE_TABLE_CELLS_MAX, "columns",
             "libsvm: greatest index; 0: looked up in the file, which is then read twice"),
    CONF_ENUM(struct moe_table_conf, on_bad_row, "on_bad_row", "stop", "stop|skip",
              "what a row that cannot be read, or has a number or label out of range, does"),
    CONF_INT(struct moe_table_conf, bad_rows_max, "bad_rows_max", "1000", 0, 1e12, "rows",
             "skip: beyond so many, reading stops"),
    CONF_ENUM(struct moe_table_conf, unknown, "unknown", "rare", "rare|bad",
              "a category not seen in training: like a rare one, or a bad row"),
    CONF_ENUM(struct moe_table_conf, order, "order", "random", "random|file",
              "without a time column: which rows are the newest and so the validation rows"),
    CONF_END};

const struct conf_item moe_table_column_items[] = {
    CONF_STRING(struct moe_column_conf, name, "name", NULL, "of the input"),
    CONF_STRING(struct moe_column_conf, column, "column", "", "of the file; empty: as the name"),
    CONF_ENUM(struct moe_column_conf, kind, "kind", "category",
              "number|category|weight|group|time|ignore",
              "what it is; group: rows that follow each other with one value are a slate; time: "
              "microseconds, the newest rows validate"),
    CONF_INT(struct moe_column_conf, embed, "embed", "-1", EMBED_DEFAULT, 4096, "floats",
             "category: width of its embedding; -1: table.embed"),
    CONF_INT(struct moe_column_conf, hash, "hash", "0", 0, 1 << 30, "rows",
             "category: values are hashed into so many rows instead of being remembered; 0: not"),
    CONF_INT(struct moe_column_conf, min_count, "min_count", "-1", -1, 1e9, "rows",
             "category: as table.min_count; -1: that"),
    CONF_INT(struct moe_column_conf, bins, "bins", "0", 0, MOE_ENC_BINS_MAX, "bins",
             "category: the column is a number, cut into so many quantiles; 0: it is not"),
    CONF_END};

const struct conf_item moe_table_cross_items[] = {
    CONF_STRING(struct moe_cross_conf, name, "name", "", "of the input; empty: the parts' with x"),
    CONF_STRINGS(struct moe_cross_conf, of, "of", NULL, "2 to 4 categories, by their names"),
    CONF_INT(struct moe_cross_conf, embed, "embed", "-1", EMBED_DEFAULT, 4096, "floats",
             "as of a category"),
    CONF_INT(struct moe_cross_conf, hash, "hash", "0", 0, 1 << 30, "rows", "as of a category"),
    CONF_INT(struct moe_cross_conf, min_count, "min_count", "-1", -1, 1e9, "rows",
             "as of a category"),
    CONF_END};

const struct conf_item moe_table_task_items[] = {
    CONF_STRING(struct moe_table_task_conf, name, "name", NULL, "stands in models and figures"),
    CONF_STRING(struct moe_table_task_conf, column, "column", "", "of the label; empty: the name"),
    CONF_STRINGS(struct moe_table_task_conf, positive, "positive", "[]",
                 "cells that mean 1, all others 0; none: the cell is the label as a number"),
    CONF_FLOAT(struct moe_table_task_conf, weight, "weight", "1", 0, 1e6, NULL, "of its loss"),
    CONF_STRING(
        struct moe_table_task_conf, esmm, "esmm", "",
        "bce: this task's event happens only after that task's (a conversion after a click): "
        "its chance given that is learnt from all rows, by the product of both (ESMM)"),
    MOE_LOSS_ITEMS(struct moe_table_task_conf, loss),
    CONF_END};

struct moe_table_column *moe_table_add(struct moe_table *t, const char *name, const char *from,
                                       enum moe_column_kind kind) {
    if (t->n_columns == t->columns_cap) {
        t->columns_cap = t->columns_cap ? 2 * t->columns_cap : 64;
        t->columns = heap_grow(t->columns, (size_t)t->columns_cap * sizeof *t->columns);
    }
    struct moe_table_column *c = &t->columns[t->n_columns++];
    *c = (struct moe_table_column){.name = name,
                                   .from = from,
                                   .kind = kind,
                                   .cell = -1,
                                   .embed = t->conf.embed,
                                   .min_count = t->conf.min_count};
    return c;
}

static int find_column(const struct moe_table *t, const char *name) {
    for (int i = 0; i < t->n_columns; i++)
        if (strcmp(t->columns[i].name, name) == 0)
            return i;
    return -1;
}

static enum status check_new(const struct moe_table *t, struct conf_place place, int line,
                             const char *name) {
    if (find_column(t, name) >= 0)
        return fail(STATUS_INVALID_ARGUMENT, "%s:%d: %s: column '%s' stands twice", place.file,
                    line, place.section, name);
    return STATUS_OK;
}

static enum status read_short_lists(struct moe_table *t, const struct node *map) {
    const struct conf_strings *lists[] = {&t->conf.number, &t->conf.category};
    const struct conf_place place = {t->file, "table"};
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < lists[k]->n; i++) {
            const char *name = lists[k]->v[i];
            TRY(check_new(t, place, map ? map->line : 0, name));
            moe_table_add(t, name, name, k ? MOE_COLUMN_CATEGORY : MOE_COLUMN_NUMBER);
        }
    return STATUS_OK;
}

static enum status list_of(const struct moe_table *t, const struct node *map, const char *key,
                           const struct node **first) {
    const struct node *list = map ? node_get(map, key) : NULL;
    if (list && list->type != NODE_LIST && list->type != NODE_NULL)
        return fail(STATUS_INVALID_ARGUMENT, "%s:%d: %s: must be a list of maps", t->file,
                    list->line, key);
    *first = list && list->type == NODE_LIST ? list->first : NULL;
    return STATUS_OK;
}

static enum status read_column(struct moe_table *t, const struct node *n, int index) {
    struct conf_place place = {t->file, arena_printf(&t->arena, "table.columns[%d]", index)};
    struct moe_column_conf c;
    TRY(conf_read(moe_table_column_items, n, place, NULL, &c, &t->arena));
    TRY(check_new(t, place, n->line, c.name));
    if (c.kind != MOE_COLUMN_CATEGORY && (c.hash || c.bins))
        return fail(STATUS_INVALID_ARGUMENT, "%s:%d: %s: hash and bins are for categories", t->file,
                    n->line, place.section);
    if (c.hash && c.bins)
        return fail(STATUS_INVALID_ARGUMENT, "%s:%d: %s: hash and bins exclude each other", t->file,
                    n->line, place.section);
    struct moe_table_column *to =
        moe_table_add(t, c.name, *c.column ? c.column : c.name, (enum moe_column_kind)c.kind);
    to->embed = c.embed > 0 ? c.embed : to->embed;
    to->min_count = c.min_count >= 0 ? c.min_count : to->min_count;
    to->hash = c.hash;
    to->bins = c.bins;
    return STATUS_OK;
}

static enum status read_cross(struct moe_table *t, const struct node *n, int index) {
    struct conf_place place = {t->file, arena_printf(&t->arena, "table.crosses[%d]", index)};
    struct moe_cross_conf c;
    int part[MOE_CROSS_PARTS_MAX];
    TRY(conf_read(moe_table_cross_items, n, place, NULL, &c, &t->arena));
    if (c.of.n < 2 || c.of.n > MOE_CROSS_PARTS_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "%s:%d: %s.of: 2 to %d categories", t->file, n->line,
                    place.section, MOE_CROSS_PARTS_MAX);
    const char *name = "";
    for (int i = 0; i < c.of.n; i++) {
        part[i] = find_column(t, c.of.v[i]);
        if (part[i] < 0 || t->columns[part[i]].kind != MOE_COLUMN_CATEGORY ||
            t->columns[part[i]].n_parts)
            return fail(STATUS_INVALID_ARGUMENT, "%s:%d: %s.of: '%s' is not a category", t->file,
                        n->line, place.section, c.of.v[i]);
        name = arena_printf(&t->arena, "%s%s%s", name, i ? " x " : "", c.of.v[i]);
    }
    name = *c.name ? c.name : name;
    TRY(check_new(t, place, n->line, name));
    struct moe_table_column *to = moe_table_add(t, name, NULL, MOE_COLUMN_CATEGORY);
    to->embed = c.embed > 0 ? c.embed : to->embed;
    to->min_count = c.min_count >= 0 ? c.min_count : to->min_count;
    to->hash = c.hash;
    to->n_parts = c.of.n;
    memcpy(to->part, part, (size_t)c.of.n * sizeof *part);
    return STATUS_OK;
}

static enum status read_columns(struct moe_table *t, const struct node *map) {
    const struct node *n = NULL;
    int i = 0, single[MOE_COLUMN_IGNORE] = {0};
    TRY(read_short_lists(t, map));
    TRY(list_of(t, map, "columns", &n));
    for (; n; n = n->next)
        TRY(read_column(t, n, i++));
    TRY(list_of(t, map, "crosses", &n));
    for (i = 0; n; n = n->next)
        TRY(read_cross(t, n, i++));
    for (i = 0; i < t->n_columns; i++) {
        enum moe_column_kind kind = t->columns[i].kind;
        if (kind >= MOE_COLUMN_WEIGHT && kind <= MOE_COLUMN_TIME && single[kind]++)
            return fail(STATUS_INVALID_ARGUMENT,
                        "%s: table.columns: '%s': there is another one of "
                        "its kind",
                        t->file, t->columns[i].name);
    }
    return STATUS_OK;
}

static enum status read_task(struct moe_table *t, const struct node *n, int index) {
    struct conf_place place = {t->file, arena_printf(&t->arena, "tasks[%d]", index)};
    struct moe_table_task_conf c;
    TRY(conf_read(moe_table_task_items, n, place, NULL, &c, &t->arena));
    for (int i = 0; i < index; i++)
        if (strcmp(t->specs[i].name, c.name) == 0)
            return fail(STATUS_INVALID_ARGUMENT, "%s:%d: tasks[%d] and tasks[%d] are both '%s'",
                        t->file, n->line, i, index, c.name);
    t->specs[index] =
        (struct moe_task_spec){.name = c.name, .weight = c.weight, .loss = c.loss, .esmm = c.esmm};
    t->tasks[index] =
        (struct moe_table_task){.from = *c.column ? c.column : c.name, .positive = c.positive};
    return STATUS_OK;
}

/* Tasks after others, whose labels say something only where the first is positive. */
static void relate_tasks(struct moe_table *t) {
    for (int k = 0; k < t->n_tasks; k++)
        for (int u = 0; u < t->n_tasks; u++)
            if (u != k && strcmp(t->specs[k].esmm, t->specs[u].name) == 0)
                t->tasks[k].after = 1 + u;
}

static enum status read_tasks(struct moe_table *t, const struct node *root) {
    const struct node *list = node_get(root, "tasks");
    if (!list || list->type != NODE_LIST || list->n == 0 || list->n > TASKS_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "%s: section 'tasks' must be a list of 1 to %d maps",
                    t->file, TASKS_MAX);
    t->tasks = ARENA_ARRAY(&t->arena, struct moe_table_task, list->n);
    t->specs = ARENA_ARRAY(&t->arena, struct moe_task_spec, list->n);
    for (const struct node *n = list->first; n; n = n->next)
        TRY(read_task(t, n, t->n_tasks++));
    relate_tasks(t);
    return STATUS_OK;
}

/* The two sections again, for moe_table_save. */
static void keep_settings(struct moe_table *t, const struct node *root) {
    static const char *const sections[] = {"table", "tasks"};
    struct buf text = {0};
    struct json j;
    json_begin(&j, &text);
    json_object(&j);
    for (int i = 0; i < 2; i++) {
        const struct node *n = node_get(root, sections[i]);
        if (n) {
            json_key(&j, sections[i]);
            json_tree(&j, n);
        }
    }
    json_object_end(&j);
    t->settings = arena_strdup(&t->arena, buf_slice(&text));
    buf_deinit(&text);
}

static enum status read_settings(struct moe_table *t, const struct node *root) {
    static const char *const also[] = {"columns", "crosses", "trees", NULL};
    const struct node *map = root && root->type == NODE_MAP ? node_get(root, "table") : NULL;
    const struct node *n = NULL;
    if (!root || root->type != NODE_MAP)
        return fail(STATUS_INVALID_ARGUMENT, "%s: there is no section 'tasks'", t->file);
    TRY(conf_read(moe_table_items, map, (struct conf_place){t->file, "table"}, also, &t->conf,
                  &t->arena));
    if (strlen(t->conf.delimiter) > 1)
        return fail(STATUS_INVALID_ARGUMENT, "%s:%d: table.delimiter: must be one character",
                    t->file, map->line);
    TRY(read_columns(t, map));
    TRY(read_tasks(t, root));
    for (int i = 0; i < t->n_columns; i++)
        t->all_features |= t->columns[i].kind <= MOE_COLUMN_CATEGORY;
    t->all_features = !t->all_features; /* no input was named */
    TRY(list_of(t, map, "trees", &n));
    for (int i = 0; n; n = n->next)
        TRY(moe_table_read_trees(t, n, i++));
    keep_settings(t, root);
    return STATUS_OK;
}

enum status moe_table_new(const struct node *root, const char *file, struct moe_table **out) {
    struct moe_table *t = HEAP_NEW(struct moe_table);
    t->file = file;
    arena_init(&t->arena, 0);
    enum status status = read_settings(t, root);
    if (status != STATUS_OK) {
        moe_table_free(t);
        return status;
    }
    *out = t;
    return STATUS_OK;
}

void moe_table_free(struct moe_table *t) {
    if (!t)
        return;
    for (int i = 0; i < t->n_columns; i++) {
        moe_dict_deinit(&t->columns[i].dict);
        heap_free(t->columns[i].raw);
    }
    moe_table_free_trees(t);
    heap_free(t->columns);
    arena_deinit(&t->arena);
    heap_free(t);
}

void moe_table_expect(struct moe_table *t, const struct moe_inputs *in, int n_tasks) {
    t->expected = in;
    t->expected_tasks = n_tasks;
}

int moe_table_tasks(const struct moe_table *t) { return t->n_tasks; }
const struct moe_task_spec *moe_table_task_specs(const struct moe_table *t) { return t->specs; }

void moe_table_lay_out(struct moe_table *t) {
    struct moe_inputs *in = &t->inputs;
    const char **names = ARENA_ARRAY(&t->arena, const char *, t->n_columns + 1);
    struct moe_id_input *ids = ARENA_ARRAY(&t->arena, struct moe_id_input, t->n_columns + 1);
    t->tables = ARENA_ARRAY(&t->arena, struct moe_table_spec, t->n_columns + 1);
    for (int i = 0; i < t->n_columns; i++) {
        struct moe_table_column *c = &t->columns[i];
        if (c->kind == MOE_COLUMN_NUMBER) {
            c->input = in->cand_columns;
            names[in->cand_columns++] = c->name;
        } else if (c->kind == MOE_COLUMN_CATEGORY) {
            c->input = in->cand_slots;
            ids[in->n_ids++] = (struct moe_id_input){c->name, 0, c->input, 1, c->input};
            t->tables[in->n_tables++] = (struct moe_table_spec){c->name, 2, (int)c->embed};
            in->cand_slots++;
        }
    }
    in->cand_names = names;
    in->ids = ids;
    in->tables = t->tables;
}
