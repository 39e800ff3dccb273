/* table_read.c: a file -> examples. One pass; the ids of categories are settled when it is over. A
 * row is read into scratch and added only when every cell of it is good. */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/hash.h"
#include "base/heap.h"
#include "base/progress.h"
#include "moe/data/table_impl.h"

struct reading {
    struct moe_table *t;
    struct moe_cells cells;
    struct moe_table_report *report;
    struct moe_examples *x;
    uint64_t seed;
    int group_cell, weight_cell, time_cell;
    /* the row at hand */
    float *numbers, *labels, weight;
    uint32_t *ids;
    float *binned; /* [n_columns] */
    uint64_t *text_hash;
    int64_t time_us;
    uint64_t group;
    /* the rows of the open group, not yet added */
    float *group_numbers, *group_labels, *group_weight;
    uint32_t *group_ids;
    int group_rows, group_cap;
    uint64_t open_group;
    int64_t open_time_us;
    struct map groups_seen;
};

static enum status bad_cell(const struct reading *r, const char *column, struct slice cell,
                            const char *what) {
    return fail(STATUS_INVALID_ARGUMENT, "%s:%lld: column '%s': '%.*s' %s", r->cells.path,
                (long long)io_lines_number(r->cells.lines), column,
                (int)(cell.n > 80 ? 80 : cell.n), cell.p ? cell.p : "", what);
}

/* --- one row
 * --------------------------------------------------------------------------------------- */

static bool is_missing(const struct moe_table *t, struct slice cell) {
    if (!cell.p)
        return true;
    for (int i = 0; i < t->conf.missing.n; i++)
        if (slice_is(cell, t->conf.missing.v[i]))
            return true;
    return false;
}

/* A finite number, or NaN for a missing cell. */
static enum status take_number(const struct reading *r, const char *column, struct slice cell,
                               double *out) {
    char text[64], *end;
    if (is_missing(r->t, cell)) {
        *out = cell.p || r->cells.format != MOE_FORMAT_LIBSVM ? (double)NAN : 0;
        return STATUS_OK;
    }
    if (cell.n >= sizeof text)
        return bad_cell(r, column, cell, "is not a number");
    memcpy(text, cell.p, cell.n);
    text[cell.n] = '\0';
    double v = strtod(text, &end);
    if (end == text || *end)
        return bad_cell(r, column, cell, "is not a number");
    if (!isfinite(v) || fabs(v) > 3e38)
        return bad_cell(r, column, cell,
                        "is not a finite number; list it in table.missing if it "
                        "means unknown");
    *out = v;
    return STATUS_OK;
}

static enum status take_label(struct reading *r, int k) {
    const struct moe_table_task *task = &r->t->tasks[k];
    const struct moe_loss_conf *loss = &r->t->specs[k].loss;
    double v = NAN;
    if (task->cell < 0) { /* nobody knows yet */
        r->labels[k] = NAN;
        return STATUS_OK;
    }
    struct slice cell = r->cells.cell[task->cell];
    if (task->positive.n && !is_missing(r->t, cell)) {
        v = 0;
        for (int i = 0; i < task->positive.n; i++)
            v = slice_is(cell, task->positive.v[i]) ? 1 : v;
    } else if (!task->positive.n) {
        TRY(take_number(r, task->from, cell, &v));
    }
    double low, high;
    moe_loss_labels(loss, &low, &high);
    if (v < low || v > high)
        return bad_cell(r, task->from, cell,
                        high == 1 ? "is out of range: this loss needs a label of 0 to 1"
                                  : "is out of range: this loss needs a label of 0 or more");
    r->labels[k] = (float)v;
    return STATUS_OK;
}

static enum status take_category(struct reading *r, int i) {
    struct moe_table_column *c = &r->t->columns[i];
    struct slice cell = r->cells.cell[c->cell];
    if (c->bins) {
        double v;
        TRY(take_number(r, c->from, cell, &v));
        r->binned[i] = (float)v;
        return STATUS_OK;
    }
    uint32_t *id = &r->ids[c->input];
    r->text_hash[i] = 0;
    *id = MOE_TABLE_MISSING;
    if (is_missing(r->t, cell))
        return STATUS_OK;
    uint64_t key = hash_bytes(cell, 11);
    if (c->hash) {
        *id = MOE_TABLE_FIRST_ID + (uint32_t)(key % (uint64_t)c->hash);
    } else if (r->t->learnt) {
        *id = moe_dict_find(&c->dict, key);
        if (*id == MOE_TABLE_RARE && r->t->conf.unknown == 1)
            return bad_cell(r, c->from, cell, "was not there in training");
        r->report->unknown += *id == MOE_TABLE_RARE;
    } else {
        r->text_hash[i] = key; /* learnt once the whole row is good */
    }
    return STATUS_OK;
}

static enum status take_place(struct reading *r) {
    double v = 1;
    if (r->weight_cell >= 0) {
        struct slice cell = r->cells.cell[r->weight_cell];
        TRY(take_number(r, r->cells.names[r->weight_cell], cell, &v));
        if (!(v >= 0))
            return bad_cell(r, r->cells.names[r->weight_cell], cell, "is no weight: 0 or more");
    }
    r->weight = (float)v;
    r->time_us =
        (int64_t)(r->t->conf.order == 0 ? hash_mix(r->seed, (uint64_t)r->report->rows) >> 12
                                        : (uint64_t)r->report->rows);
    if (r->time_cell >= 0) {
        struct slice cell = r->cells.cell[r->time_cell];
        TRY(take_number(r, r->cells.names[r->time_cell], cell, &v));
        if (!(fabs(v) < 9e15))
            return bad_cell(r, r->cells.names[r->time_cell], cell, "is no time in microseconds");
        r->time_us = (int64_t)v;
    }
    if (r->group_cell < 0)
        return STATUS_OK;
    struct slice cell = r->cells.cell[r->group_cell];
    if (is_missing(r->t, cell))
        return bad_cell(r, r->cells.names[r->group_cell], cell, "is no group");
    r->group = hash_bytes(cell, 13);
    if (r->group_rows && r->group == r->open_group)
        return STATUS_OK;
    uint64_t line;
    if (map_get(&r->groups_seen, r->group, &line))
        return bad_cell(r, r->cells.names[r->group_cell], cell,
                        "had its rows before: rows of a group must follow each other");
    return STATUS_OK;
}

static enum status take_row(struct reading *r) {
    struct moe_table *t = r->t;
    for (int i = 0; i < t->n_columns; i++) {
        const struct moe_table_column *c = &t->columns[i];
        if (c->trees) {
            r->numbers[c->input] = 0; /* until all rows are there */
        } else if (c->kind == MOE_COLUMN_NUMBER) {
            double v;
            TRY(take_number(r, c->from, r->cells.cell[c->cell], &v));
            r->numbers[c->input] = (float)v;
        } else if (c->kind == MOE_COLUMN_CATEGORY && !c->n_parts) {
            TRY(take_category(r, i));
        }
    }
    for (int k = 0; k < t->n_tasks; k++)
        TRY(take_label(r, k));
    return take_place(r);
}

/* --- groups
 * ---------------------------------------------------------------------------------------- */

static void flush_group(struct reading *r) {
    if (r->group_rows == 0)
        return;
    struct moe_batch b = {
        .n_groups = 1, .n_rows = r->group_rows, .cand = r->group_numbers, .cand_ids = r->group_ids};
    moe_examples_add(r->x, &b, r->group_labels, r->group_weight, r->open_time_us, r->open_group);
    r->report->groups++;
    r->group_rows = 0;
}

static void keep_binned(struct reading *r) {
    int row = (int)r->report->rows;
    for (int i = 0; i < r->t->n_columns; i++) {
        struct moe_table_column *c = &r->t->columns[i];
        if (c->bins == 0)
            continue;
        if (row >= c->raw_cap) {
            c->raw_cap = row < 1024 ? 2048 : 2 * row;
            c->raw = heap_grow(c->raw, (size_t)c->raw_cap * sizeof *c->raw);
        }
        c->raw[row] = r->binned[i];
    }
}

/* A task after another has no label where the first did not happen. */
static void mask_labels(struct reading *r) {
    const struct moe_table_task *tasks = r->t->tasks;
    for (int k = 0; k < r->t->n_tasks; k++)
        if (tasks[k].after && !(r->labels[tasks[k].after - 1] > 0))
            r->labels[k] = NAN;
}

static void keep_row(struct reading *r) {
    struct moe_table *t = r->t;
    size_t nc = (size_t)t->inputs.cand_columns, ns = (size_t)t->inputs.cand_slots;
    size_t nt = (size_t)t->n_tasks, at;
    if (r->group_cell < 0)
        r->group = (uint64_t)r->report->rows;
    if (r->group_rows && (r->group_cell < 0 || r->group != r->open_group))
        flush_group(r);
    if (r->group_rows == 0) {
        r->open_group = r->group;
        r->open_time_us = r->time_us;
        if (r->group_cell >= 0)
            map_put(&r->groups_seen, r->group, 1);
    }
    for (int i = 0; i < t->n_columns; i++)
        if (!t->learnt && r->text_hash[i])
            r->ids[t->columns[i].input] = moe_dict_learn(&t->columns[i].dict, r->text_hash[i]);
    if (r->group_rows == r->group_cap) {
        r->group_cap = r->group_cap ? 2 * r->group_cap : 16;
        size_t cap = (size_t)r->group_cap;
        r->group_numbers = heap_grow(r->group_numbers, (cap * nc + 1) * sizeof(float));
        r->group_ids = heap_grow(r->group_ids, (cap * ns + 1) * sizeof(uint32_t));
        r->group_labels = heap_grow(r->group_labels, cap * nt * sizeof(float));
        r->group_weight = heap_grow(r->group_weight, cap * sizeof(float));
    }
    at = (size_t)r->group_rows++;
    mask_labels(r);
    memcpy(r->group_numbers + at * nc, r->numbers, nc * sizeof(float));
    memcpy(r->group_ids + at * ns, r->ids, ns * sizeof(uint32_t));
    memcpy(r->group_labels + at * nt, r->labels, nt * sizeof(float));
    r->group_weight[at] = r->weight;
    keep_binned(r);
    r->report->rows++;
}

/* --- a file
 * ---------------------------------------------------------------------------------------- */

static enum status find_cell(const struct reading *r, const char *column, int *cell) {
    *cell = moe_cells_find(&r->cells, column);
    if (*cell >= 0)
        return STATUS_OK;
    const char **names = HEAP_ARRAY(const char *, r->cells.n + 1);
    memcpy(names, r->cells.names, (size_t)r->cells.n * sizeof *names);
    const char *near = conf_nearest(slice_of(column), names);
    heap_free(names);
    return fail(STATUS_INVALID_ARGUMENT, "%s: there is no column '%s'%s%s%s", r->cells.path, column,
                near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static bool has_qid(struct slice line) {
    for (size_t i = 0; i + 5 <= line.n; i++)
        if (memcmp(line.p + i, " qid:", 5) == 0)
            return true;
    return false;
}

/* LibSVM: columns for all features, and for qid where rows have it. */
static void add_features(struct reading *r) {
    struct moe_table *t = r->t;
    bool grouped = false;
    for (int i = 0; i < t->n_columns; i++)
        grouped |= t->columns[i].kind == MOE_COLUMN_GROUP;
    if (!grouped && has_qid(r->cells.line))
        moe_table_add(t, "qid", "qid", MOE_COLUMN_GROUP);
    for (int i = 2; t->all_features && i < r->cells.n; i++) {
        const char *name = arena_strdup(&t->arena, slice_of(r->cells.names[i]));
        moe_table_add(t, name, name, MOE_COLUMN_NUMBER);
    }
}

static enum status find_cells(struct reading *r) {
    struct moe_table *t = r->t;
    if (!t->learnt && r->cells.format == MOE_FORMAT_LIBSVM)
        add_features(r);
    if (!t->learnt)
        moe_table_lay_out(t);
    if (t->inputs.cand_columns + t->inputs.cand_slots == 0)
        return fail(STATUS_INVALID_ARGUMENT,
                    "%s: table: no inputs; name columns in table.number or table.category",
                    t->file);
    r->group_cell = r->weight_cell = r->time_cell = -1;
    for (int i = 0; i < t->n_columns; i++) {
        struct moe_table_column *c = &t->columns[i];
        if (c->n_parts || c->trees || c->kind == MOE_COLUMN_IGNORE)
            continue;
        TRY(find_cell(r, c->from, &c->cell));
        r->group_cell = c->kind == MOE_COLUMN_GROUP ? c->cell : r->group_cell;
        r->weight_cell = c->kind == MOE_COLUMN_WEIGHT ? c->cell : r->weight_cell;
        r->time_cell = c->kind == MOE_COLUMN_TIME ? c->cell : r->time_cell;
    }
    for (int k = 0; k < t->n_tasks; k++) {
        t->tasks[k].cell = t->restored ? moe_cells_find(&r->cells, t->tasks[k].from) : -1;
        if (!t->restored)
            TRY(find_cell(r, t->tasks[k].from, &t->tasks[k].cell));
    }
    return STATUS_OK;
}

static enum status count_bad(struct reading *r, enum status status) {
    struct moe_table_report *report = r->report;
    if (status != STATUS_INVALID_ARGUMENT || r->t->conf.on_bad_row == 0)
        return status;
    if (report->bad_rows++ == 0) {
        strncpy(report->first_bad, status_message(), sizeof report->first_bad - 1);
        report->first_bad[sizeof report->first_bad - 1] = '\0';
    }
    if (report->bad_rows > r->t->conf.bad_rows_max)
        return fail_in(status, "more than %lld bad rows; the last",
                       (long long)r->t->conf.bad_rows_max);
    return STATUS_OK;
}

static enum status read_rows(struct reading *r, int quiet) {
    struct progress progress;
    enum status status = STATUS_OK;
    progress_start(&progress, "read", "rows", 0, quiet);
    while (status == STATUS_OK && r->report->rows < INT_MAX - 1) {
        status = moe_cells_next(&r->cells);
        if (status == STATUS_OUT_OF_RANGE)
            break;
        if (status == STATUS_OK)
            status = take_row(r);
        if (status == STATUS_OK)
            keep_row(r);
        else
            status = count_bad(r, status);
        progress_at(&progress, r->report->rows);
    }
    flush_group(r);
    progress_end(&progress);
    return status == STATUS_OUT_OF_RANGE ? STATUS_OK : status;
}

/* A task that cannot be learnt: one class only, or no label at all. */
static enum status check_classes(const struct reading *r) {
    size_t nt = (size_t)r->t->n_tasks;
    for (size_t k = 0; k < nt; k++) {
        float low = INFINITY, high = -INFINITY;
        for (size_t i = 0; i < (size_t)r->x->n_rows; i++) {
            float y = r->x->labels[i * nt + k];
            low = y < low ? y : low;
            high = y > high ? y : high;
        }
        if (!(high > low))
            return fail(STATUS_FAILED_PRECONDITION,
                        "%s: task '%s': %s in all %lld rows; nothing can be learnt from that",
                        r->cells.path, r->t->specs[k].name,
                        isinf(low) ? "no label" : "the same label", (long long)r->report->rows);
    }
    return STATUS_OK;
}

/* Does it teach what is expected? Of categories how many there are, once the rows were read. */
static enum status check_expected(const struct reading *r, bool rows_read) {
    const struct moe_table *t = r->t;
    const struct moe_inputs *is = &t->inputs, *in = t->expected;
    if (!in || t->learnt)
        return STATUS_OK;
    bool same = in->cand_columns == is->cand_columns && in->cand_slots == is->cand_slots &&
                in->n_ids == is->n_ids && in->n_tables == is->n_tables &&
                t->expected_tasks == t->n_tasks;
    for (int i = 0; same && i < in->cand_columns; i++)
        same = strcmp(in->cand_names[i], is->cand_names[i]) == 0;
    for (int i = 0; same && i < in->n_ids; i++)
        same = strcmp(in->ids[i].name, is->ids[i].name) == 0;
    for (int i = 0; same && rows_read && i < in->n_tables; i++)
        same = in->tables[i].rows == is->tables[i].rows;
    return same ? STATUS_OK
                : fail(STATUS_FAILED_PRECONDITION,
                       "the model was not trained on %s: other columns, categories or tasks",
                       r->cells.path);
}

static enum status read_table(struct reading *r, int quiet) {
    struct moe_table *t = r->t;
    TRY(find_cells(r));
    TRY(check_expected(r, false));
    size_t columns = (size_t)t->n_columns + 1;
    r->numbers = HEAP_ARRAY(float, t->inputs.cand_columns + 1);
    r->ids = HEAP_ARRAY(uint32_t, t->inputs.cand_slots + 1);
    r->labels = HEAP_ARRAY(float, t->n_tasks);
    r->binned = HEAP_ARRAY(float, columns);
    r->text_hash = HEAP_ARRAY(uint64_t, columns);
    r->x = moe_examples_new(&t->inputs, t->n_tasks);
    TRY(read_rows(r, quiet));
    if (r->report->rows == 0)
        return fail(STATUS_FAILED_PRECONDITION, "%s: no rows%s%s", r->cells.path,
                    r->report->bad_rows ? "; the first bad one: " : "", r->report->first_bad);
    moe_table_finish_ids(t, r->x);
    r->x->inputs = t->inputs;
    TRY(check_expected(r, true));
    if (!t->learnt)
        TRY(check_classes(r));
    moe_table_finish_trees(t, r->x, quiet);
    t->learnt = true;
    return STATUS_OK;
}

enum status moe_table_read(struct moe_table *t, const char *path, uint64_t seed, int quiet,
                           struct moe_table_report *report, struct moe_examples **out) {
    struct reading r = {.t = t, .report = report, .seed = seed};
    *report = (struct moe_table_report){0};
    TRY(moe_cells_open(t, path, &r.cells));
    enum status status = read_table(&r, quiet);
    void *all[] = {r.numbers,       r.ids,       r.labels,       r.binned,      r.text_hash,
                   r.group_numbers, r.group_ids, r.group_labels, r.group_weight};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        heap_free(all[i]);
    map_deinit(&r.groups_seen);
    moe_cells_close(&r.cells);
    if (status != STATUS_OK) {
        moe_examples_free(r.x);
        return status;
    }
    *out = r.x;
    return STATUS_OK;
}
