/* fill.h: events made up after a plan, so that its state fills as real ones would fill it: every
 * type of interaction it counts, every field it reads. For sizes, where there are no events yet. */
#pragma once
#include "features/state.h"

struct fill {
    const struct feat_plan *plan;
    int64_t users, items;         /* entities of the sample */
    int64_t actions, impressions; /* of a user, of each type, and shown items */
    int64_t span_us;              /* the time they are spread over */
    int64_t slate;
};
/* Applies them to `s`. Equal numbers, equal states. */
void fill_state(const struct fill *f, struct feat_state *s);
