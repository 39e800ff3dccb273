/* train_table.c: table -> examples -> model -> figures of another table. */
#include "tools/train_table.h"
#include <math.h>
#include <stdio.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/io.h"
#include "moe/eval.h"
#include "moe/table.h"
#include "tools/report.h"

#define ECE_BINS 20

struct fit {
    struct moe_table *table;
    struct moe_table_report read, read_test;
    struct moe_examples *examples, *test;
    struct moe_train_report report;
    struct moe_model *model;
    float *predictions; /* [test rows x tasks] */
};

static void report_read(struct report *r, const char *key, const struct moe_table_report *read) {
    report_group(r, key);
    report_int(r, "rows", read->rows);
    report_int(r, "groups", read->groups);
    report_int(r, "unknown_categories", read->unknown);
    report_int(r, "bad_rows", read->bad_rows);
    if (read->bad_rows)
        report_cstr(r, "first_bad", read->first_bad);
    report_group_end(r);
}

/* One task's column of [rows x tasks]. */
static void column_of(const float *all, int rows, int tasks, int task, float *out) {
    for (int i = 0; i < rows; i++)
        out[i] = all[(size_t)i * (size_t)tasks + (size_t)task];
}

static double mean_square(const float *p, const float *y, int n) {
    double sum = 0, known = 0;
    for (int i = 0; i < n; i++)
        if (!isnan(y[i])) {
            sum += ((double)p[i] - (double)y[i]) * ((double)p[i] - (double)y[i]);
            known++;
        }
    return known > 0 ? sum / known : (double)NAN;
}

static void report_task(struct report *r, const struct moe_task_spec *task, const float *p,
                        const float *y, int n) {
    bool chance = moe_loss_is_probability(&task->loss);
    int64_t rows = 0, positives = 0;
    for (int i = 0; i < n; i++) {
        rows += !isnan(y[i]);
        positives += y[i] > 0.5f;
    }
    report_cstr(r, NULL, task->name);
    report_int(r, NULL, rows);
    report_int(r, NULL, positives);
    report_num(r, NULL, chance ? moe_auc(p, y, n) : (double)NAN, 4);
    report_num(r, NULL, chance ? moe_logloss(p, y, n) : (double)NAN, 4);
    report_num(r, NULL, chance ? moe_calibration_ratio(p, y, n) : (double)NAN, 4);
    report_num(r, NULL, chance ? moe_ece(p, y, n, ECE_BINS) : (double)NAN, 4);
    report_num(r, NULL, mean_square(p, y, n), 4);
}

static void report_test(struct report *r, const struct fit *f) {
    int n = f->test->n_rows, tasks = f->test->n_tasks;
    float *p = HEAP_ARRAY(float, n + 1), *y = HEAP_ARRAY(float, n + 1);
    report_table(r, "test",
                 (const char *const[]){"task", "rows", "positives", "auc", "logloss", "ratio",
                                       "ece", "mse", NULL});
    for (int t = 0; t < tasks; t++) {
        column_of(f->predictions, n, tasks, t, p);
        column_of(f->test->labels, n, tasks, t, y);
        report_task(r, &moe_table_task_specs(f->table)[t], p, y, n);
    }
    report_table_end(r);
    heap_free(p);
    heap_free(y);
}

static enum status print_result(const struct verb_call *call, const struct fit *f,
                                const struct train_table_options *o) {
    struct report r;
    report_begin(&r, call->json);
    report_read(&r, "table", &f->read);
    report_int(&r, "epochs", f->report.epochs_run);
    report_int(&r, "best_epoch", f->report.best_epoch);
    report_num(&r, "train_loss", f->report.train_loss, 4);
    report_num(&r, "validation_loss", f->report.validation_loss, 5);
    report_table(&r, "tasks", (const char *const[]){"task", "validation_auc", NULL});
    for (int t = 0; t < f->examples->n_tasks; t++) {
        report_cstr(&r, NULL, moe_table_task_specs(f->table)[t].name);
        report_num(&r, NULL, f->report.validation_auc[t], 4);
    }
    report_table_end(&r);
    if (f->test) {
        report_read(&r, "test_table", &f->read_test);
        report_test(&r, f);
    }
    report_num(&r, "seconds", f->report.seconds, 2);
    report_num(&r, "rows_per_s", f->report.rows_per_s, 0);
    report_int(&r, "floats", (int64_t)moe_model_floats(f->model));
    report_num(&r, "mflop_per_row", moe_model_mflop_per_row(f->model), 3);
    report_cstr(&r, "version", moe_model_version(f->model));
    if (*o->model)
        report_cstr(&r, "model", o->model);
    return report_end(&r, stdout);
}

static enum status write_predictions(const struct fit *f, const char *path) {
    struct buf text = {0};
    int tasks = f->test->n_tasks;
    for (int t = 0; t < tasks; t++)
        buf_printf(&text, "%s%s", t ? "," : "", moe_table_task_specs(f->table)[t].name);
    buf_add_byte(&text, '\n');
    for (int i = 0; i < f->test->n_rows; i++)
        for (int t = 0; t < tasks; t++)
            buf_printf(&text, "%.7g%c",
                       (double)f->predictions[(size_t)i * (size_t)tasks + (size_t)t],
                       t + 1 < tasks ? ',' : '\n');
    enum status status = io_write_file(path, buf_slice(&text));
    buf_deinit(&text);
    return status;
}

static void describe(const struct fit *f, struct arena *a) {
    moe_model_meta_set(f->model, "trained_at_us",
                       arena_printf(a, "%lld", (long long)clock_wall_us()));
    moe_model_meta_set(f->model, "rows", arena_printf(a, "%lld", (long long)f->read.rows));
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
        TRY(write_predictions(f, o->predictions));
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
