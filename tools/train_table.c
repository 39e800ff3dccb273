/* train_table.c: table -> examples -> model -> figures of another table. */
#include "tools/train_table.h"
#include <math.h>
#include <stdio.h>
#include "base/clock.h"
#include "base/heap.h"
#include "moe/report/active.h"
#include "moe/data/table.h"
#include "tools/gate_states.h"
#include "tools/report.h"
#include "tools/table_figures.h"

struct fit {
    struct moe_table *table;
    struct moe_table_report read, read_test;
    struct moe_examples *examples, *test;
    struct moe_train_report report;
    struct moe_model *model;
    float *predictions; /* [test rows x tasks] */
};

static enum status print_result(const struct verb_call *call, const struct fit *f,
                                const struct train_table_options *o) {
    struct report r;
    struct moe_active active;
    report_begin(&r, call->json);
    table_figures_read(&r, "table", &f->read);
    report_int(&r, "epochs", f->report.epochs_run);
    report_int(&r, "best_epoch", f->report.best_epoch);
    if (f->report.bad_steps)
        report_int(&r, "bad_steps", f->report.bad_steps);
    report_num(&r, "train_loss", f->report.train_loss, 4);
    report_num(&r, "validation_loss", f->report.validation_loss, 5);
    report_table(&r, "tasks", (const char *const[]){"task", "validation_auc", NULL});
    for (int t = 0; t < f->examples->n_tasks; t++) {
        report_cstr(&r, NULL, moe_table_task_specs(f->table)[t].name);
        report_num(&r, NULL, f->report.validation_auc[t], 4);
    }
    report_table_end(&r);
    gate_states_report(f->model, &r);
    if (f->test) {
        table_figures_read(&r, "test_table", &f->read_test);
        table_figures_tasks(&r, "test", f->table, f->test, f->predictions);
    }
    report_num(&r, "seconds", f->report.seconds, 2);
    report_num(&r, "rows_per_s", f->report.rows_per_s, 0);
    report_int(&r, "floats", (int64_t)moe_model_floats(f->model));
    report_num(&r, "mflop_per_row", moe_model_mflop_per_row(f->model), 3);
    moe_active_measure(f->model, f->test ? f->test : f->examples, &active);
    report_num(&r, "active_mflop_per_row", active.mflop, 3);
    report_cstr(&r, "version", moe_model_version(f->model));
    if (*o->model)
        report_cstr(&r, "model", o->model);
    return report_end(&r, stdout);
}

/* The table's categories travel with the model: it can read other tables later. */
static void describe(const struct fit *f, struct arena *a) {
    struct buf learnt = {0};
    moe_model_meta_set(f->model, "trained_at_us",
                       arena_printf(a, "%lld", (long long)clock_wall_us()));
    moe_model_meta_set(f->model, "rows", arena_printf(a, "%lld", (long long)f->read.rows));
    moe_table_save(f->table, &learnt);
    moe_model_meta_set(f->model, "table", arena_strdup(a, buf_slice(&learnt)));
    buf_deinit(&learnt);
}

static enum status fit(const struct verb_call *call, const struct train_table_options *o,
                       const struct rk_config *c, struct fit *f) {
    uint64_t seed = (uint64_t)c->train.seed;
    const struct node *spec = node_get(c->root, "model");
    TRY(moe_table_new(c->root, c->file, &f->table));
    TRY(moe_table_read(f->table, o->table, seed, call->quiet, &f->read, &f->examples));
    if (*o->test) /* before training: its rows may be wrong as well */
        TRY(moe_table_read(f->table, o->test, seed, call->quiet, &f->read_test, &f->test));
    TRY(moe_train(spec, c->file, moe_table_task_specs(f->table), f->examples, &c->train,
                  call->quiet, call->arena, &f->report, &f->model));
    describe(f, call->arena);
    if (f->test) {
        size_t n = (size_t)f->test->n_rows * (size_t)f->test->n_tasks;
        f->predictions = HEAP_ARRAY(float, n);
        moe_predict(f->model, f->test, f->predictions);
    }
    if (*o->model)
        TRY(moe_model_save(f->model, o->model));
    if (*o->predictions && f->test)
        TRY(table_figures_write(f->table, f->test, f->predictions, o->predictions));
    return print_result(call, f, o);
}

enum status train_table(const struct verb_call *call, const struct train_table_options *o,
                        const struct rk_config *c) {
    struct fit f = {0};
    enum status status = fit(call, o, c, &f);
    moe_model_free(f.model);
    moe_examples_free(f.examples);
    moe_examples_free(f.test);
    moe_table_free(f.table);
    heap_free(f.predictions);
    return status;
}
