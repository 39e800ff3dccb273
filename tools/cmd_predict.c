/* cmd_predict.c: what a model of tables says of another table, read as the training table was: the
 * model file holds the settings and every category's id. */
#include <stdio.h>
#include "base/heap.h"
#include "moe/data/table.h"
#include "tools/options.h"
#include "tools/table_figures.h"
#include "tools/verbs.h"

struct options {
    const char *model, *table, *to;
};
static const struct conf_item items[] = {
    OPTION_TEXT(struct options, model, "model", NULL, "FILE",
                "a model that was trained with moerank train --table"),
    OPTION_TEXT(struct options, table, "table", NULL, "FILE",
                "rows with the columns of the training table; labels may be absent"),
    OPTION_TEXT(struct options, to, "predictions", "", "FILE",
                "what the model says of each row, as CSV"),
    CONF_END};

struct work {
    struct moe_model *model;
    struct moe_table *table;
    struct moe_examples *x;
    struct moe_table_report read;
    float *predictions; /* [rows x tasks] */
};

static enum status predict(const struct verb_call *call, const struct options *o, struct work *w) {
    struct report r;
    TRY(moe_model_load(o->model, &w->model));
    const char *learnt = moe_model_meta(w->model, "table");
    if (!learnt)
        return fail(STATUS_FAILED_PRECONDITION,
                    "%s: is not a model of a table, or of an older version; train it again with "
                    "moerank train --table",
                    o->model);
    TRY(moe_table_restore(learnt, o->model, moe_model_inputs(w->model), &w->table));
    if (moe_table_tasks(w->table) != moe_model_tasks(w->model))
        return fail(STATUS_DATA_LOSS, "%s: metadata 'table': other tasks than the model's",
                    o->model);
    TRY(moe_table_read(w->table, o->table, 0, call->quiet, &w->read, &w->x));
    w->predictions = HEAP_ARRAY(float, (size_t)w->x->n_rows *(size_t)w->x->n_tasks);
    moe_predict(w->model, w->x, w->predictions);
    if (*o->to)
        TRY(table_figures_write(w->table, w->x, w->predictions, o->to));
    report_begin(&r, call->json);
    report_cstr(&r, "version", moe_model_version(w->model));
    table_figures_read(&r, "table", &w->read);
    table_figures_tasks(&r, "tasks", w->table, w->x, w->predictions);
    return report_end(&r, stdout);
}

static enum status run(const struct verb_call *call, void *options) {
    struct work w = {0};
    enum status status = predict(call, options, &w);
    heap_free(w.predictions);
    moe_examples_free(w.x);
    moe_table_free(w.table);
    moe_model_free(w.model);
    return status;
}

static const struct verb verb = {
    .name = "predict",
    .about =
        "Reads a table as the model's training table was read (columns, categories and bins are "
        "in the model file), and prints each task's figures where there are labels. With "
        "--predictions, what the model says of each row is written.",
    .example =
        "moerank predict --model model.safetensors --table new.csv --predictions new.out.csv",
    .items = items,
    .bytes = sizeof(struct options),
    .run = run,
};

enum status cmd_predict(int argc, char **argv) { return verb_main(&verb, argc, argv); }
