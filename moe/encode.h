/* encode.h: plain numbers to inputs of the network. Per column, side by side:
 *
 *     value     (x - mean) / sd, clipped                                  1 input
 *     log       the same of sign(x) log(1 + |x|)                          1
 *     quantile  one-hot of the bin                                        bins
 *     ple       piecewise linear: share of each bin that lies below x     bins
 *     missing   1 where the number was absent (columns that had one)      1
 *
 * with the one-hots of all columns last. Fitted on training rows only. A missing number is 0 in all
 * others. Quantile edges are taken over all values and over the values other than the commonest,
 * since many columns are mostly zero. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "moe/params.h"
#include "moe/rows.h"

enum moe_encoding { MOE_ENC_VALUE = 1, MOE_ENC_LOG = 2, MOE_ENC_QUANTILE = 4, MOE_ENC_PLE = 8 };
#define MOE_ENC_BINS_MAX 128

struct moe_encode_column {
    float mean, scale; /* value: (x - mean) * scale */
    float log_mean, log_scale;
    float missing;   /* 1: has a missing bit */
    float n_edges;   /* 0, or 1..BINS_MAX - 1 inner edges, ascending: n_edges + 1 bins */
    float low, high; /* outer edges of ple */
    float edges[MOE_ENC_BINS_MAX - 1];
};
#define MOE_ENC_FLOATS (sizeof(struct moe_encode_column) / sizeof(float))

struct moe_encode {
    unsigned kinds; /* enum moe_encoding */
    float clip;
    int columns;                            /* numbers in */
    int width;                              /* inputs out */
    struct moe_encode_column *column;       /* [columns] heap */
    int *at_quantile, *at_ple, *at_missing; /* [columns] first output of a column, -1: none; heap */
    int hot_from, n_hot; /* one-hots stand in outputs [hot_from, width), of so many columns */
    /* What `column` says, by output: of value and log [columns], of ple and missing bits [n_steps].
     * One block, which `mean` owns; heap. */
    float *mean, *scale, *log_mean, *log_scale;
    int n_steps, *step_column;
    float *step_from, *step_span, *step_absent;
};

/* Fits columns to rows [n x columns]; weightless. bins 2..128. */
void moe_encode_fit(struct moe_encode *e, unsigned kinds, float clip, int bins, const float *rows,
                    int n, int columns);
/* Derives width and places from e->column after loading. */
void moe_encode_place(struct moe_encode *e);
void moe_encode_deinit(struct moe_encode *e);
/* bins[k] of the k-th column with a one-hot, of one row: -1 when the number is missing. */
void moe_encode_bins(const struct moe_encode *e, const float *row, int *bins);
/* out[r * ld .. + width) from rows [n x columns] */
void moe_encode_rows(const struct moe_encode *e, const float *rows, int n, float *out, int ld);
/* The same without the one-hots, which are not written. */
void moe_encode_rows_cold(const struct moe_encode *e, const float *rows, int n, float *out, int ld);
/* The same with value and log alone, outputs [0, moe_encode_ple_from). With ple these are followed
 * by the piecewise and missing ones, which stand together. */
void moe_encode_rows_plain(const struct moe_encode *e, const float *rows, int n, float *out,
                           int ld);
int moe_encode_ple_from(const struct moe_encode *e);
/* Column c's ple and missing outputs of a row in short: `below` bins of ple are 1 (-1: no ple, or
 * no number), and `output` is `share`; all others are 0. False when the column has neither. */
struct moe_encode_short {
    int below, output;
    float share;
};
bool moe_encode_ple(const struct moe_encode *e, const float *row, int c,
                    struct moe_encode_short *out);
int moe_encode_ple_columns(const struct moe_encode *e); /* that have either; 0 without ple */
