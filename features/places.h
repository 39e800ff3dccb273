/* places.h: keys of FEAT_SCOPE_VALUE records: shared by the writer (places.c) and readers
 * (spots.c). */
#pragma once
#include "features/keys.h"
#include "features/plan.h"

/* What one part of a place can be of one event or row. */
struct feat_choices {
    uint64_t v[FEAT_TERMS_MAX];
    int n;
};

uint64_t feat_place_start(const struct feat_place *pl, uint64_t tenant_hash);
/* All combinations of the parts' choices, repeats dropped, at most FEAT_SPOTS_MAX. */
int feat_place_keys(const struct feat_place *pl, uint64_t tenant_hash,
                    const struct feat_choices *choices /* [n_parts] */,
                    uint64_t *out /* [FEAT_SPOTS_MAX] */);
/* Key of a value's record in a place that sums over items; value 0: of the total. */
uint64_t feat_place_value_key(const struct feat_place *pl, uint64_t tenant_hash, uint64_t value);
/* Appends v unless it is 0 or there. */
void feat_choices_add(struct feat_choices *c, uint64_t v, int max);
