/* inspect_data.c: the rows that a model is looked at with. Too many are thinned evenly by whole
 * groups, so that slates stay together. */
#include <math.h>
#include "moe/data/table.h"
#include "tools/harvest.h"
#include "tools/inspect.h"

/* Groups [g] of x appended to `to`. */
static void add_group(const struct moe_examples *x, int g, struct moe_examples *to) {
    struct moe_batch b;
    int first = moe_examples_view(x, g, 1, &b);
    moe_examples_add(to, &b, x->labels + (size_t)first * (size_t)x->n_tasks, x->weight + first,
                     x->time_us[g], x->group_key[g]);
}

/* At most about rows_max rows, evenly spread over time. */
static struct moe_examples *thin(const struct moe_examples *x, int64_t rows_max) {
    struct moe_examples *out = moe_examples_new(&x->inputs, x->n_tasks);
    double share = fmin(1, (double)rows_max / x->n_rows);
    for (int g = 0; g < x->n_groups; g++)
        if ((int64_t)((g + 1) * share) > (int64_t)(g * share))
            add_group(x, g, out);
    return out;
}

/* Which row --row means: of a table without groups the file's, else the row in order of time. */
static enum status find_row(const struct moe_examples *x, bool table, int64_t row, int *out) {
    if (row > x->n_rows)
        return fail(STATUS_INVALID_ARGUMENT, "--row %lld: there are %d rows", (long long)row,
                    x->n_rows);
    *out = (int)row - 1;
    for (int g = 0; table && x->n_groups == x->n_rows && g < x->n_groups; g++)
        if (x->group_key[g] == (uint64_t)(row - 1))
            *out = g;
    return STATUS_OK;
}

static enum status choose(const struct moe_model *m, const struct moe_examples *x, bool table,
                          const struct inspect_options *o, struct inspect_data *d) {
    int row = -1;
    TRY(moe_trace_check(m, &x->inputs, x->n_tasks));
    if (o->row > 0)
        TRY(find_row(x, table, o->row, &row));
    d->all_rows = x->n_rows;
    d->x = thin(x, o->rows);
    d->x->inputs = *moe_model_inputs(m); /* names that outlive the table or the events */
    if (row < 0)
        return STATUS_OK;
    d->one = moe_examples_new(moe_model_inputs(m), x->n_tasks);
    add_group(x, x->group[row], d->one);
    for (d->one_at = row; d->one_at > 0 && x->group[d->one_at - 1] == x->group[row];)
        d->one_at--;
    d->one_at = row - d->one_at;
    return STATUS_OK;
}

struct naming {
    struct map *texts;
    struct arena *a;
};
static void on_text(void *context, int slot, uint32_t id, struct slice text) {
    struct naming *n = context;
    uint64_t key = (uint64_t)slot << 32 | id, known;
    if (!map_get(n->texts, key, &known))
        map_put(n->texts, key, (uint64_t)(uintptr_t)arena_strdup(n->a, text));
}

static enum status read_table(const struct moe_model *m, const char *path, const char *learnt,
                              const struct inspect_options *o, const struct verb_call *call,
                              struct inspect_data *d) {
    struct moe_table *t;
    struct moe_table_report read;
    struct moe_examples *x = NULL;
    TRY(moe_table_restore(learnt, path, moe_model_inputs(m), &t));
    enum status status = moe_table_read(t, o->data, 1, call->quiet, &read, &x);
    if (status == STATUS_OK)
        status = choose(m, x, true, o, d);
    struct naming naming = {&d->texts, call->arena};
    if (status == STATUS_OK)
        status = moe_table_texts(t, o->data, on_text, &naming);
    moe_examples_free(x);
    moe_table_free(t);
    return status;
}

static enum status read_events(const struct moe_model *m, const struct inspect_options *o,
                               const struct verb_call *call, struct inspect_data *d) {
    struct rk_config *c;
    struct harvest h = {0};
    struct moe_examples *x = NULL;
    if (!*o->config.path)
        return fail(STATUS_INVALID_ARGUMENT,
                    "--data: events are read by the settings' features; give --config");
    TRY(option_config_load(&o->config, &c));
    enum status status = harvest_init(&h, c, 1, call->arena);
    if (status == STATUS_OK)
        rk_labels_as_served(h.labels);
    if (status == STATUS_OK)
        status = harvest_read(&h, o->data, call->quiet);
    if (status == STATUS_OK)
        status = harvest_examples(&h, &x);
    if (status == STATUS_OK)
        status = choose(m, x, false, o, d);
    moe_examples_free(x);
    harvest_deinit(&h);
    rk_config_free(c);
    return status;
}

enum status inspect_data_read(const struct moe_model *m, const char *path,
                              const struct inspect_options *o, const struct verb_call *call,
                              struct inspect_data *d) {
    const char *learnt = moe_model_meta(m, "table");
    *d = (struct inspect_data){.source = o->data};
    return learnt ? read_table(m, path, learnt, o, call, d) : read_events(m, o, call, d);
}

void inspect_data_free(struct inspect_data *d) {
    moe_examples_free(d->x);
    moe_examples_free(d->one);
    map_deinit(&d->texts);
    *d = (struct inspect_data){0};
}
