/* loss_pairs.c: the pairwise logistic loss (RankNet, Burges et al. 2005; BPR, Rendle et al. 2009)
 * over rows of the same key that stand together: for two rows with labels a > b the loss is log(1 +
 * e^-(z_a - z_b)). What is common to all rows of a key (a generous user, a good day) cancels, so it
 * trains the order within a user and leaves the level to the cross-entropy beside it.
 *
 * A run of n rows weighs as much as n rows of cross-entropy, however many pairs it has, so that
 * batches and workers may be cut anywhere between runs. */
#include <math.h>
#include <stddef.h>
#include "moe/train/loss.h"

/* One task's rows from..to: adds to dlogits (may be NULL), returns the sum. */
static double run_pairs(int from, int to, int tasks, const float *z, const float *y, float scale,
                        float *dz) {
    double sum = 0;
    int pairs = 0, rows = 0;
    for (int a = from; a < to; a++) {
        rows += !isnan(y[a * tasks]);
        for (int b = from; b < to; b++)
            pairs += y[a * tasks] > y[b * tasks]; /* false for NaN */
    }
    float each = pairs ? scale * (float)rows / (float)pairs : 0;
    for (int a = from; a < to && pairs; a++)
        for (int b = from; b < to; b++) {
            if (!(y[a * tasks] > y[b * tasks]))
                continue;
            float d = z[a * tasks] - z[b * tasks], e = expf(-fabsf(d));
            sum += (double)each * (double)(fmaxf(-d, 0) + log1pf(e));
            float slope = each * (d >= 0 ? e / (1 + e) : 1 / (1 + e));
            if (dz) {
                dz[a * tasks] -= slope;
                dz[b * tasks] += slope;
            }
        }
    return sum;
}

double moe_loss_pairs(int rows, int tasks, const float *logits, const float *labels,
                      const uint64_t *key, const float *scale, float *dlogits) {
    double sum = 0;
    for (int from = 0, to; from < rows; from = to) {
        for (to = from + 1; to < rows && key[to] == key[from]; to++)
            ;
        for (int t = 0; t < tasks; t++) {
            size_t at = (size_t)t;
            sum += run_pairs(from, to, tasks, logits + at, labels + at, scale[t],
                             dlogits ? dlogits + at : NULL);
        }
    }
    return sum;
}
