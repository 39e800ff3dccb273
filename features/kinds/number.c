/* number.c: one number of the item, the user, the request or the candidate. Missing is NaN, and
 * left to the model: a mean put in its place here would be a guess. Stateless but for the
 * remembered field. */
#include "features/kinds/one.h"
#include <math.h>

static const struct conf_item items[] = {
    CONF_STRING(struct feat_one, source_text, "source", NULL,
                "item.FIELD, user.FIELD, context.FIELD or candidate.COLUMN; A or B is the first "
                "that has a value."),
    CONF_ENUM(struct feat_one, scale, "scale", "raw", FEAT_SCALE_CHOICES,
              "log: log(1 + |x|) with the sign of x."),
    CONF_END};

static enum status check(struct feat_plan *p, struct feat *f) {
    return feat_one_check(p, f, FEAT_AS_NUMBER);
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    const struct feat_one *m = f->params;
    double v;
    if (feat_one_number(f, r, row, &v))
        dense[0] = m->scale == FEAT_SCALE_LOG ? (float)copysign(log1p(fabs(v)), v) : (float)v;
}

const struct feat_kind feat_kind_number = {
    .name = "number",
    .doc = "A number as it is.",
    .params = items,
    .params_bytes = sizeof(struct feat_one),
    .check = check,
    .extract = extract,
};
