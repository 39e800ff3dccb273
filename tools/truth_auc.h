/* truth_auc.h: AUC of a stream without keeping it: scores are counted in bins of their log-odds.
 * Within 1e-4 of the exact value for smooth scores; moe/report/eval.h has the exact one. */
#pragma once
#include <stdint.h>

enum { TRUTH_AUC_BINS = 8192 };
struct truth_auc {
    uint64_t positives[TRUTH_AUC_BINS], negatives[TRUTH_AUC_BINS];
};
void truth_auc_add(struct truth_auc *t, double probability, int positive);
double truth_auc_value(const struct truth_auc *t); /* NaN with one class only */
