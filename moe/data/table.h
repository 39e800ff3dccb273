/* table.h: labelled rows out of a file: CSV, TSV, JSON lines or LibSVM (with qid), plain or
 * compressed. The settings' sections `table` and `tasks` say what the columns mean
 * (docs/tables.md):
 *
 *     table:
 *       header: true
 *       number: [age, dividends]
 *       category: [occupation, industry]
 *       columns: [{name: income, kind: ignore}, {name: w, kind: weight}]
 *       crosses: [{of: [occupation, industry], embed: 8, min_count: 5}]
 *       trees: [{of: [income]}]
 *     tasks:
 *       - {name: income, column: income, positive: ["50000+."]}
 *
 * Numbers go to the model as they are (its section `numbers` encodes them), categories as ids of
 * tables of their own: 0 missing, 1 rare or unknown, 2.. the values seen in the first file read,
 * from `min_count` rows on. Everything stands in the candidate part; rows that follow each other
 * with one value of a `group` column are a group (a slate), else each row is one.
 *
 * A table is read into memory as a whole. One thread at a time. */
#pragma once
#include "base/buf.h"
#include "base/conf.h"
#include "moe/data/examples.h"
#include "moe/train/train.h"

/* The name of the number that trees of a task give (table.trees) is this and the task's. */
#define MOE_TREES_OF "trees of "

struct moe_table;

/* What reading a file met. */
struct moe_table_report {
    int64_t rows, groups, bad_rows, unknown; /* unknown: cells with a category not seen before */
    char first_bad[300];                     /* "FILE:LINE: column 'age': ..."; "" */
};

/* root: the settings' tree. INVALID_ARGUMENT names file, line and key. */
enum status moe_table_new(const struct node *root, const char *file, struct moe_table **out);
void moe_table_free(struct moe_table *t);
int moe_table_tasks(const struct moe_table *t);
const struct moe_task_spec *moe_table_task_specs(const struct moe_table *t); /* [n_tasks] */

/* Reads a file. The first one read teaches the categories, the bins and the width; later ones are
 * read by what was learnt. The examples borrow names from `t`. seed: of the order in time of a
 * table without a time column.
 * NOT_FOUND; INVALID_ARGUMENT names file, line and column of what is wrong, unless bad rows are
 * skipped; FAILED_PRECONDITION: no rows, or (first file) a task with one class only. */
enum status moe_table_read(struct moe_table *t, const char *path, uint64_t seed, int quiet,
                           struct moe_table_report *report, struct moe_examples **out);

/* Before the first file is read: it must teach what this model was taught, by its inputs and number
 * of tasks. What differs is said before any trees are fitted: FAILED_PRECONDITION. in: borrowed
 * until the file is read. */
void moe_table_expect(struct moe_table *t, const struct moe_inputs *in, int n_tasks);

/* The texts behind the ids of categories (not of hashed, binned or crossed ones), as a file that
 * was just read has them; each again wherever it stands. slot: of cand_ids. */
enum status moe_table_texts(const struct moe_table *t, const char *path,
                            void (*named)(void *context, int slot, uint32_t id, struct slice text),
                            void *context);

/* What was learnt, as JSON to keep in a model's metadata ("table"), added to out; after a read. */
void moe_table_save(const struct moe_table *t, struct buf *out);
/* And back: a table that reads files for that model; a task whose label is not in a file has no
 * labels there. file: for messages; must outlive the table. DATA_LOSS: damaged, or not of a model
 * with such inputs. */
enum status moe_table_restore(const char *text, const char *file, const struct moe_inputs *inputs,
                              struct moe_table **out);

/* Settings tables, for documentation: of the section, of a column, of a cross, of a task. */
extern const struct conf_item moe_table_items[], moe_table_column_items[], moe_table_cross_items[],
    moe_table_trees_items[], moe_table_task_items[];
