/* decayed.h: reading a decayed count, for the kinds that build on it (trending). */
#pragma once
#include "features/kind.h"

/* `f` is of kind decayed_count. NaN: the request names no such entity. */
double feat_decayed_value(const struct feat *f, const struct feat_read *r, int row);
int64_t feat_decayed_half_life_us(const struct feat *f);
