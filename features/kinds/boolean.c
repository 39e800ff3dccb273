/* boolean.c: yes or no of the item, the user, the request or the candidate: true and false, numbers
 * other than 0, and the words people write for them. Missing is NaN. Stateless but for the
 * remembered field. */
#include "features/claim.h"

struct params {
    const char *source_text;
    struct feat_source source;
};

static const struct conf_item items[] = {
    CONF_STRING(struct params, source_text, "source", NULL,
                "item.FIELD, user.FIELD, context.FIELD or candidate.COLUMN; A or B is the first "
                "that has a value."),
    CONF_END};

static enum status check(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    TRY(feat_claim_source(p, "source", m->source_text, FEAT_AS_FLAG, &m->source));
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
        dense[0] = v != 0;
}

const struct feat_kind feat_kind_boolean = {
    .name = "boolean",
    .doc = "1 for yes, 0 for no.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .check = check,
    .extract = extract,
};
