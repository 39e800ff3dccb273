/* examples.h: labelled rows, columnar, in memory: what training and evaluation read. Rows of one
 * request follow each other and share their group's query part. */
#pragma once
#include "base/status.h"
#include "moe/batch.h"
#include "moe/data/compact.h"

struct moe_examples {
    struct moe_inputs inputs; /* borrowed names */
    int n_tasks;
    int n_groups, n_rows;
    float *query;        /* [n_groups x query_columns] */
    uint32_t *query_ids; /* [n_groups x query_slots] */
    uint64_t *group_key; /* [n_groups] e.g. the user, for within-user metrics */
    int64_t *time_us;    /* [n_groups] ascending after moe_examples_sort */
    float *cand;         /* [n_rows x cand_columns]; NULL: they are held in `compact` */
    uint32_t *cand_ids;  /* [n_rows x cand_slots] */
    int *group;          /* [n_rows] ascending */
    float *labels;       /* [n_rows x n_tasks] NaN: outside the task's sample space */
    float *weight;       /* [n_rows] */
    int groups_cap, rows_cap;
    struct moe_compact *compact; /* NULL: candidate numbers stand in `cand` */
    int *place;                  /* [n_rows] of a row in `compact`; NULL: as they stand */
};

struct moe_examples *moe_examples_new(const struct moe_inputs *inputs, int n_tasks);
void moe_examples_free(struct moe_examples *x);
/* From the first row on candidate numbers are held in few bytes: who reads them asks
 * moe_examples_numbers, and views have none. For training, which holds millions of rows. */
void moe_examples_hold_compact(struct moe_examples *x);
/* Candidate numbers of columns [column, column + width) of rows [row, row + n), however they are
 * held: out [n x width]. */
void moe_examples_numbers(const struct moe_examples *x, int row, int n, int column, int width,
                          float *out);
/* Appends a group and its rows; copies. labels [b->n_rows x n_tasks]; weight NULL: ones. The batch
 * has one group. */
void moe_examples_add(struct moe_examples *x, const struct moe_batch *b, const float *labels,
                      const float *weight, int64_t time_us, uint64_t group_key);
/* Groups in time order (stable). */
void moe_examples_sort(struct moe_examples *x);
/* Groups [first, first + n) as a batch that borrows: *batch, and the index of its first row. Its
 * `cand` is NULL where numbers are held compact. */
int moe_examples_view(const struct moe_examples *x, int first_group, int n_groups,
                      struct moe_batch *out);
