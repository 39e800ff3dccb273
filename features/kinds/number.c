/* number.c: one number of the item, the user, the request or the candidate. Missing is NaN, and
 * left to the model: a mean put in its place here would be a guess. Stateless but for the
 * remembered field. */
#include "features/claim.h"

struct params {
    const char *source_text;
    struct feat_source source;
};

static const struct conf_item items[] = {
    CONF_STRING(struct params, source_text, "source", NULL,
                "item.FIELD, user.FIELD, context.FIELD or candidate.COLUMN."),
    CONF_END};

static enum status check(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    TRY(feat_claim_source(p, "source", m->source_text, true, &m->source));
    f->side = feat_source_side(&m->source);
    f->n_columns = 1;
    return STATUS_OK;
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    const struct params *m = f->params;
    double v;
    if (feat_source_number(&m->source, r, row, &v))
        dense[0] = (float)v;
}

const struct feat_kind feat_kind_number = {
    .name = "number",
    .doc = "A number as it is.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .check = check,
    .extract = extract,
};
