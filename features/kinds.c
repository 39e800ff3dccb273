/* kinds.c: the table of kinds, made from kinds.def. */
#include "features/kind.h"

const struct feat_kind *const feat_kinds[] = {
#define FEAT_KIND(name) &feat_kind_##name,
#include "features/kinds.def"
#undef FEAT_KIND
    NULL};

const struct feat_kind *feat_kind_find(struct slice name) {
    for (int i = 0; feat_kinds[i] != NULL; i++)
        if (slice_is(name, feat_kinds[i]->name))
            return feat_kinds[i];
    return NULL;
}
