/* boost.h: boosted trees on rows that are cut into bins, for one task with labels of 0 to 1. What a
 * table makes of them stands in table_trees.c: their sum is an input of the model (He et al., ADKDD
 * 2014), never the model itself.
 *
 * Columns are numbers (bins in the order of the values, 0: missing) or categories (bins are
 * values); a split of a number is a threshold, of a category a set. One thread at a time; no
 * randomness but that of the seed. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/status.h"

#define MOE_BOOST_BINS   256
#define MOE_BOOST_LEAVES 256

struct moe_boost_conf {
    int64_t count, leaves, rows_min; /* trees at most; leaves of a tree, rows of a leaf */
    int64_t patience;                /* trees without a gain on held rows; 0: all are grown */
    double rate, columns, ridge;     /* shrinkage; share of the columns a tree sees; of leaves */
};

struct moe_boost_rows {
    int columns;
    const bool *category; /* [columns] */
    const int *n_bins;    /* [columns] 1..MOE_BOOST_BINS */
    const uint8_t *bins;  /* [rows x columns] */
    const float *label;   /* label of row r: label[r * label_stride], 0..1 */
    const float *weight;  /* [rows] */
    int label_stride;
};

struct moe_boost_node {
    int column;      /* -1: a leaf */
    int right;       /* node of the rows that are not in the set; the left one follows this */
    uint32_t set[8]; /* bins that go left, of both kinds of column */
    float value;     /* of a leaf */
};
struct moe_boost {
    float base; /* log-odds before the first tree */
    int n_nodes, nodes_cap, n_trees, trees_cap;
    struct moe_boost_node *nodes; /* [n_nodes] heap; tree after tree, each in preorder */
    int *root;                    /* [n_trees] heap */
};

/* Fits to the rows named in `use` [n], n > 0, which it reorders. The rows `held` [n_held] (may be
 * none; NULL then) only say how many trees are kept: those up to their least loss. */
void moe_boost_fit(const struct moe_boost_conf *c, const struct moe_boost_rows *x, int *use, int n,
                   const int *held, int n_held, uint64_t seed, struct moe_boost *out);
void moe_boost_deinit(struct moe_boost *b);
/* The log-odds of one row, bins [columns]. */
float moe_boost_score(const struct moe_boost *b, const uint8_t *bins);

/* As text, floats bit for bit, and back. DATA_LOSS: not such a text, or not of so many columns. */
void moe_boost_save(const struct moe_boost *b, struct buf *out);
enum status moe_boost_load(struct slice text, int columns, struct moe_boost *out);
