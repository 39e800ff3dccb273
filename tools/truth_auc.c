/* truth_auc.c: Mann-Whitney over a histogram: pairs in different bins count by their order, pairs
 * in one bin count half. */
#include "tools/truth_auc.h"
#include <math.h>

void truth_auc_add(struct truth_auc *t, double probability, int positive) {
    double odds = log(probability / (1 - probability)); /* bins span -16 .. 16 */
    double place = (odds + 16) / 32 * TRUTH_AUC_BINS;
    int bin = place > 0 ? place < TRUTH_AUC_BINS ? (int)place : TRUTH_AUC_BINS - 1 : 0;
    (positive ? t->positives : t->negatives)[bin]++;
}

double truth_auc_value(const struct truth_auc *t) {
    double below = 0, good = 0, positives = 0;
    for (int b = 0; b < TRUTH_AUC_BINS; b++) {
        double p = (double)t->positives[b], n = (double)t->negatives[b];
        good += p * (below + n / 2);
        below += n;
        positives += p;
    }
    return positives > 0 && below > 0 ? good / (positives * below) : NAN;
}
