/* mean.h: reading a mean's cell, for the kinds that build on it (residual). */
#pragma once
#include "features/kind.h"

/* The scope the mean is kept in. */
enum feat_scope feat_mean_scope(const struct feat *f);
/* The smoothed mean in `rec` (NULL: an entity without events), NaN when nothing is known. Between
 * begin() of `f` and the end of the request. `f` is of kind mean. */
double feat_mean_value(const struct feat *f, const struct feat_read *r,
                       const struct feat_record *rec);
