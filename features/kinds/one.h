/* one.h: what kinds share that put one number of a source into one column. */
#pragma once
#include "features/claim.h"

struct feat_one { /* their params */
    const char *source_text;
    int scale; /* FEAT_SCALE_*, where the kind lets choose */
    struct feat_source source;
};

/* The source in that form, its side, a column. */
enum status feat_one_check(struct feat_plan *p, struct feat *f, enum feat_form form);
/* The row's number; false: it has none, and the column stays missing. */
bool feat_one_number(const struct feat *f, const struct feat_read *r, int row, double *out);
