/* table_impl.h: the inside of a table, for table*.c. */
#pragma once
#include "base/arena.h"
#include "base/io.h"
#include "base/map.h"
#include "moe/data/boost.h"
#include "moe/encode.h"
#include "moe/data/table.h"

#define MOE_TABLE_CELLS_MAX 65536
enum { MOE_TABLE_MISSING, MOE_TABLE_RARE, MOE_TABLE_FIRST_ID }; /* ids of every category */

enum moe_table_format {
    MOE_FORMAT_AUTO,
    MOE_FORMAT_CSV,
    MOE_FORMAT_TSV,
    MOE_FORMAT_JSONL,
    MOE_FORMAT_LIBSVM
};
enum moe_column_kind {
    MOE_COLUMN_NUMBER,
    MOE_COLUMN_CATEGORY,
    MOE_COLUMN_WEIGHT,
    MOE_COLUMN_GROUP,
    MOE_COLUMN_TIME,
    MOE_COLUMN_IGNORE
};

struct moe_table_conf {
    int format, on_bad_row, unknown, order;
    bool header;
    const char *delimiter;
    struct conf_strings names, missing, number, category;
    int64_t embed, min_count, bad_rows_max, features;
};
struct moe_column_conf {
    const char *name, *column;
    int kind;
    int64_t embed, hash, min_count, bins;
};
struct moe_cross_conf {
    const char *name;
    struct conf_strings of;
    int64_t embed, hash, min_count;
};
struct moe_trees_conf {
    struct conf_strings of; /* tasks */
    int64_t folds;
    struct moe_boost_conf boost;
};
struct moe_table_task_conf {
    const char *name, *column, *esmm;
    struct conf_strings positive;
    double weight;
    struct moe_loss_conf loss;
};

/* Values by the hash of their text; ids from MOE_TABLE_FIRST_ID in order of appearance. */
struct moe_dict {
    struct map ids;
    int64_t *count; /* [cap] rows of id, while it learns */
    uint32_t n, cap;
};
uint32_t moe_dict_learn(struct moe_dict *d, uint64_t key);
uint32_t moe_dict_find(const struct moe_dict *d, uint64_t key); /* MOE_TABLE_RARE when unknown */
/* Keeps values of at least min_count rows; new_id [n + FIRST_ID] maps old ids. */
void moe_dict_admit(struct moe_dict *d, int64_t min_count, uint32_t *new_id);
void moe_dict_deinit(struct moe_dict *d);

enum { MOE_CROSS_PARTS_MAX = 4 };
struct moe_table_column {
    const char *name, *from; /* from: the file's column */
    enum moe_column_kind kind;
    int cell;  /* in the file at hand */
    int input; /* number: column of cand; category: slot of cand_ids */
    int64_t embed, hash, min_count, bins;
    int part[MOE_CROSS_PARTS_MAX], n_parts; /* of a cross: columns; else 0 */
    struct moe_dict dict;
    float edges[MOE_ENC_BINS_MAX - 1]; /* bins > 0, and of numbers for trees */
    int n_edges;
    const struct moe_trees_conf *trees; /* a number that trees give; NULL: read from cells */
    struct moe_boost *boosts;           /* [trees->folds] */
    int task;                           /* theirs */
    float *raw;                         /* [rows] of a binned column, of the file at hand; heap */
    int raw_cap;
};
struct moe_table_task {
    const char *from;
    int cell;
    struct conf_strings positive;
    int after; /* 1 + the task whose event must happen first; 0: none */
};

struct moe_table {
    struct arena arena;
    const char *file;
    struct moe_table_conf conf;
    struct moe_table_column *columns; /* [n_columns] crosses last */
    int n_columns, columns_cap;
    struct moe_table_task *tasks;
    struct moe_task_spec *specs;
    int n_tasks;
    bool all_features; /* LibSVM without named columns: every feature is a number */
    bool learnt;
    bool restored;                     /* from a model file: labels may be absent */
    const char *settings;              /* sections table and tasks as JSON */
    const struct moe_inputs *expected; /* of the first file; NULL: nothing */
    int expected_tasks;
    struct moe_inputs inputs;
    struct moe_table_spec *tables; /* [inputs.n_tables], one a slot */
};
struct moe_table_column *moe_table_add(struct moe_table *t, const char *name, const char *from,
                                       enum moe_column_kind kind);
/* Numbers inputs and slots once all columns are known. */
void moe_table_lay_out(struct moe_table *t);

/* --- cells: lines cut into values (table_cells.c) -----------------------------------------------
 */

struct moe_cells {
    const struct moe_table *t;
    const char *path;
    enum moe_table_format format;
    char delimiter;
    struct io_lines *lines;
    struct arena arena; /* of a line */
    const char **names; /* [n] heap; strings in names_arena */
    struct arena names_arena;
    int n, cap;
    struct map by_name; /* hash of a name -> cell */
    struct slice *cell; /* [n] p NULL: absent */
    bool pending;       /* the first line was read to tell the format */
    struct slice line;
};
/* Opens, tells the format, reads the header. */
enum status moe_cells_open(const struct moe_table *t, const char *path, struct moe_cells *out);
void moe_cells_close(struct moe_cells *c);
/* OUT_OF_RANGE: the end. INVALID_ARGUMENT: a bad row; reading may go on. Others: for good. */
enum status moe_cells_next(struct moe_cells *c);
int moe_cells_find(const struct moe_cells *c, const char *name); /* -1: none */

/* --- ids (table_ids.c)
 * ----------------------------------------------------------------------------- */

/* After the rows were read: bins, admission, crosses; sets the tables' rows when learning. */
void moe_table_finish_ids(struct moe_table *t, struct moe_examples *x);
/* Rows of the tables of what was learnt. */
void moe_table_size_ids(struct moe_table *t);

/* --- trees (table_trees.c) -------------------------------------------------------------------- */

/* Reads an entry of table.trees and adds its columns; after the tasks. */
enum status moe_table_read_trees(struct moe_table *t, const struct node *n, int index);
int moe_table_offered(const struct moe_table *t); /* columns that the trees may split by */
/* Once ids are final: fits the trees when learning, and fills in their numbers. */
void moe_table_finish_trees(struct moe_table *t, struct moe_examples *x, int quiet);
void moe_table_free_trees(struct moe_table *t);
void moe_table_save_trees(const struct moe_table *t, struct json *j);
enum status moe_table_take_trees(struct moe_table *t, const struct node *list);
