/* eval.h: metrics, each exact. A metric that is undefined for its input (one class only, no
 * positives) is NaN and says so through that; callers print "-" and count such groups. */
#pragma once
#include <stdint.h>

/* Area under the ROC curve; ties count half (Mann-Whitney with mid-ranks). labels 0/1, NaN rows
 * are left out. O(n log n). */
double moe_auc(const float *scores, const float *labels, int n);
/* Mean over groups that have both classes, each group once; *groups_used may be NULL. */
double moe_auc_grouped(const float *scores, const float *labels, const uint64_t *group, int n,
                       int *groups_used);
double moe_logloss(const float *probabilities, const float *labels, int n);
/* Expected calibration error over equal-count bins; mean prediction / observed rate. */
double moe_ece(const float *probabilities, const float *labels, int n, int bins);
double moe_calibration_ratio(const float *probabilities, const float *labels, int n);
/* NDCG@k of one list: gains [n] (>= 0) in the order shown. NaN without positive gains. Ties in
 * the scores are the caller's to break. */
double moe_ndcg(const float *gains_in_order, int n, int k);
/* 95 % interval of an AUC difference etc. by bootstrap is in tools; seeds come as arguments. */
