/* slate.c: order statistics of one number over the candidates, once per request. Sums run over the
 * sorted numbers, so that they do not depend on the candidates' order. */
#include "features/kinds/slate.h"
#include <math.h>
#include <stdlib.h>

struct feat_slate *feat_slate_new(struct feat_read *r) {
    struct feat_slate *s = ARENA_NEW(r->arena, struct feat_slate);
    s->v = arena_alloc(r->arena, (size_t)r->n_rows * sizeof *s->v);
    s->sorted = arena_alloc(r->arena, (size_t)r->n_rows * sizeof *s->sorted);
    return s;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

void feat_slate_sort(struct feat_slate *s, const struct feat_read *r, int64_t top) {
    for (int i = 0; i < r->n_rows && (top == 0 || s->n < top); i++)
        if (!isnan(s->v[i]))
            s->sorted[s->n++] = s->v[i];
    qsort(s->sorted, (size_t)s->n, sizeof *s->sorted, by_value);
    double squares = 0;
    for (int i = 0; i < s->n; i++)
        s->mean += s->sorted[i] / s->n;
    for (int i = 0; i < s->n; i++)
        squares += (s->sorted[i] - s->mean) * (s->sorted[i] - s->mean);
    s->sd = s->n > 0 ? sqrt(squares / s->n) : 0;
}

double feat_slate_median(const struct feat_slate *s) {
    if (s->n == 0)
        return (double)NAN;
    return (s->sorted[(s->n - 1) / 2] + s->sorted[s->n / 2]) / 2;
}

/* How many are less than v, or (with_equal) at most v. */
static int count_below(const struct feat_slate *s, double v, bool with_equal) {
    int lo = 0, hi = s->n;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (s->sorted[mid] < v || (with_equal && s->sorted[mid] == v))
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

double feat_slate_rank(const struct feat_slate *s, double v) {
    int less = count_below(s, v, false), equal = count_below(s, v, true) - less;
    int others = s->n - (equal > 0); /* it is one of them, unless it came after `top` */
    if (others < 1)
        return 0.5;
    return (less + (equal > 0 ? equal - 1 : 0) / 2.0) / others;
}
