/* one.c: one number of a source: number, boolean, list_size and word_count differ in the form they
 * ask for and in what they make of the number. */
#include "features/kinds/one.h"

enum status feat_one_check(struct feat_plan *p, struct feat *f, enum feat_form form) {
    struct feat_one *m = f->params;
    TRY(feat_claim_source(p, "source", m->source_text, form, &m->source));
    f->side = feat_source_side(&m->source);
    f->n_columns = 1;
    return STATUS_OK;
}

bool feat_one_number(const struct feat *f, const struct feat_read *r, int row, double *out) {
    return feat_source_number(&((const struct feat_one *)f->params)->source, r, row, out);
}
