/* usage.h: what the experts do, in numbers: formulas over a gate's weights w [rows x n] on a fixed
 * set of rows, over experts' outputs, over scores with and without an expert. docs/inspect.md has
 * the definitions. Everything is pure; sums run in double. A figure that is undefined (no rows, an
 * expert never used) is NaN.
 *
 * Active: one meaning for all gates. In a sparse gate an expert is active on a row when its weight
 * is not zero; in a dense one, where no weight is, when it has more than its fair share 1 / n of
 * the row's weight. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

/* active [rows x n] */
void moe_usage_active(int rows, int n, const float *w, bool sparse, uint8_t *active);

/* --- loads: how evenly something (choices, weight) is spread over n experts ------------------- */

struct moe_load {
    double cv;               /* standard deviation / mean */
    double maxvio, minvio;   /* max c / mean - 1, 1 - min c / mean (arXiv 2408.15664) */
    double entropy;          /* of the shares, nats */
    double effective;        /* exp(entropy): as many experts as would be, used evenly */
    double jain;             /* (sum c)^2 / (n sum c^2) = 1 / (1 + CV^2) */
    double gini;             /* sum_ij |c_i - c_j| / (2 n sum c) */
    double p25, median, p75; /* of c / mean */
    int dead;                /* experts with c = 0 */
};
struct moe_load moe_load_describe(int n, const double *c); /* c [n] >= 0 */

/* mass [n]: share of all weight; chosen [n]: share of rows it is active on; first [n]: share of
 * rows with its weight the greatest (and above zero). */
void moe_usage_shares(int rows, int n, const float *w, const uint8_t *active, double *mass,
                      double *chosen, double *first);

/* --- rows: how decided a gate is -------------------------------------------------------------- */

struct moe_decision {
    double entropy;     /* mean over rows of the weights' entropy, nats */
    double effective;   /* exp of it */
    double top, margin; /* mean share of the greatest weight; minus the second's */
    double active;      /* experts active on a row, mean */
    int active_p50, active_p95, active_p99;
    double zero_rows; /* share of rows without any weight; they take no part in the rest */
};
struct moe_decision moe_usage_decision(int rows, int n, const float *w, const uint8_t *active);

/* out [n x n]: N_ij / N_i, the share of i's rows on which j is active too. Over all pairs. */
void moe_usage_coactive(int rows, int n, const uint8_t *active, double *out);

/* --- between two models (or checkpoints) on the same rows ------------------------------------- */

struct moe_moves {
    double saturation;   /* mean of |A & B| / |B|: how much of the last choice is made (OLMoE) */
    double flip_rate;    /* share of (row, expert) that changed (ReMoE, appendix A) */
    double flips_a_row;  /* the same times n */
    double first_change; /* share of rows whose expert of greatest weight changed */
};
/* a: before, b: the last. */
struct moe_moves moe_usage_moves(int rows, int n, const float *wa, const uint8_t *a,
                                 const float *wb, const uint8_t *b);

/* --- segments ----------------------------------------------------------------------------------
 */

/* joint [segments x n] += weight of expert e on rows of segment s; segment [rows], -1: none. */
void moe_usage_joint(int rows, int n, const float *w, const int *segment, int segments,
                     double *joint);
/* Mutual information of segment and expert, bits; *share: of the segments' entropy, 0..1. */
double moe_usage_information(int segments, int n, const double *joint, double *share);

/* --- outputs of experts ------------------------------------------------------------------------
 */

/* Linear CKA (Kornblith et al., ICML 2019): |Yc' Xc|_F^2 / (|Xc' Xc|_F |Yc' Yc|_F), columns
 * centred; 1: equal up to a rotation and a scale. x, y [rows x d] */
double moe_cka(int rows, int d, const float *x, const float *y);
/* Mean over rows of the cosine of x and y; rows of zeros take no part. */
double moe_mean_cosine(int rows, int d, const float *x, const float *y);
double moe_cosine(int64_t n, const float *x, const float *y);

/* --- one expert less ----------------------------------------------------------------------------
 */

struct moe_auc_change {
    double auc, change; /* of a; of b - a */
    double error;       /* standard error of the change (DeLong et al. 1988, paired) */
};
/* scores a, b [n] of the same rows, labels 0/1 or NaN (left out). Rows count as independent. */
struct moe_auc_change moe_auc_compare(const float *a, const float *b, const float *labels, int n);

/* --- HoME's three failures (arXiv 2408.05430), as numbers ---------------------------------------
 */

#define MOE_COLLAPSE_FROM  0.9  /* share of an expert's outputs that are zero */
#define MOE_DEGRADED_FROM  0.9  /* share of a shared expert's weight held by one task */
#define MOE_UNDERFIT_BELOW 0.05 /* weight a task's gate gives its own experts; their gradient */
#define MOE_STARVED_BELOW  0.05 /* gradient of an expert, as a share of its level's middle one */
/* Share of y [n] that is exactly zero. */
double moe_zero_share(int64_t n, const float *y);
/* mass [n]: weight that each of n tasks gives to one expert; *largest: which. NaN: none. */
double moe_largest_share(int n, const double *mass, int *largest);
