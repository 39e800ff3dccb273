/* batch.h: the rows a model is given. A row is a candidate; rows of one request (its slate) share
 * a *query* part (user and context), stored once per group. The rest is the *candidate* part (item
 * and cross). A model's input vector is
 *
 *     x = [query dense | query embeddings | candidate dense | candidate embeddings]
 *
 * so the first layer splits by construction. Missing numbers are NaN, missing ids 0. */
#pragma once
#include <stdint.h>

/* What columns and ids a model reads. Immutable; part of the model file. */
struct moe_id_input {
    const char *name;
    int in_query;      /* 1: ids stand in query_ids, 0: in cand_ids */
    int slot, n_slots; /* mean-pooled over non-zero ids */
    int table;
};
struct moe_table_spec {
    const char *name;
    uint32_t rows;
    int dim;
};
struct moe_inputs {
    int query_columns, cand_columns;
    const char *const *query_names; /* [query_columns] */
    const char *const *cand_names;  /* [cand_columns] */
    int query_slots, cand_slots;
    const struct moe_id_input *ids; /* [n_ids] */
    int n_ids;
    const struct moe_table_spec *tables; /* [n_tables] */
    int n_tables;
};

struct moe_batch {
    int n_groups, n_rows;
    const float *query;        /* [n_groups x query_columns] */
    const uint32_t *query_ids; /* [n_groups x query_slots] */
    const float *cand;         /* [n_rows x cand_columns] */
    const uint32_t *cand_ids;  /* [n_rows x cand_slots] */
    const int *group;          /* [n_rows] ascending; NULL: all rows are of group 0 */
    int first_group;           /* what group[] counts from: 0, but in views of examples */
};
