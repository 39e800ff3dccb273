/* slate.h: one number of each candidate of a request, for kinds that compare a candidate with the
 * others. */
#pragma once
#include "features/kind.h"

struct feat_slate {
    double *v;      /* [n_rows] NaN: missing */
    double *sorted; /* [n] of those that count, ascending */
    int n;
    double mean, sd; /* of sorted */
};
/* v is filled by the caller; the rest is made of its first `top` numbers (0: all of them). */
struct feat_slate *feat_slate_new(struct feat_read *r);
void feat_slate_sort(struct feat_slate *s, const struct feat_read *r, int64_t top);
double feat_slate_median(const struct feat_slate *s); /* NaN of none */
/* The part of the others that is less, equal ones counting half; 0.5 when there is no other. */
double feat_slate_rank(const struct feat_slate *s, double v);
