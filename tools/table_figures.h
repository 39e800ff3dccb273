/* table_figures.h: figures of labelled tables, for the verbs that read them. */
#pragma once
#include "moe/data/table.h"
#include "tools/report.h"

/* A group: rows, groups, unknown categories, bad rows. */
void table_figures_read(struct report *r, const char *key, const struct moe_table_report *read);
/* A table: AUC, log loss, prediction / rate, ECE, mean square of every task; null where there are
 * no labels. predictions [n_rows x n_tasks] */
void table_figures_tasks(struct report *r, const char *key, const struct moe_table *t,
                         const struct moe_examples *x, const float *predictions);
/* A header of the tasks' names, then a line a row. Atomic. */
enum status table_figures_write(const struct moe_table *t, const struct moe_examples *x,
                                const float *predictions, const char *path);
