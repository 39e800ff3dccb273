/* table_figures.c: what training and predicting on tables both say: what reading a file met, each
 * task's figures, predictions as CSV. */
#include "tools/table_figures.h"
#include <math.h>
#include "base/heap.h"
#include "base/io.h"
#include "moe/report/eval.h"

#define ECE_BINS 20

void table_figures_read(struct report *r, const char *key, const struct moe_table_report *read) {
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

void table_figures_tasks(struct report *r, const char *key, const struct moe_table *t,
                         const struct moe_examples *x, const float *predictions) {
    int n = x->n_rows, tasks = x->n_tasks;
    float *p = HEAP_ARRAY(float, n + 1), *y = HEAP_ARRAY(float, n + 1);
    report_table(r, key,
                 (const char *const[]){"task", "rows", "positives", "auc", "logloss", "ratio",
                                       "ece", "mse", NULL});
    for (int k = 0; k < tasks; k++) {
        column_of(predictions, n, tasks, k, p);
        column_of(x->labels, n, tasks, k, y);
        report_task(r, &moe_table_task_specs(t)[k], p, y, n);
    }
    report_table_end(r);
    heap_free(p);
    heap_free(y);
}

enum status table_figures_write(const struct moe_table *t, const struct moe_examples *x,
                                const float *predictions, const char *path) {
    struct buf text = {0};
    int tasks = x->n_tasks;
    for (int k = 0; k < tasks; k++)
        buf_printf(&text, "%s%s", k ? "," : "", moe_table_task_specs(t)[k].name);
    buf_add_byte(&text, '\n');
    for (int i = 0; i < x->n_rows; i++)
        for (int k = 0; k < tasks; k++)
            buf_printf(&text, "%.7g%c", (double)predictions[(size_t)i * (size_t)tasks + (size_t)k],
                       k + 1 < tasks ? ',' : '\n');
    enum status status = io_write_file(path, buf_slice(&text));
    buf_deinit(&text);
    return status;
}
