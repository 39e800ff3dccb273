/* boolean.c: yes or no of the item, the user, the request or the candidate: true and false, numbers
 * other than 0, and the words people write for them. Missing is NaN. Stateless but for the
 * remembered field. */
#include "features/kinds/one.h"

static const struct conf_item items[] = {
    CONF_STRING(struct feat_one, source_text, "source", NULL,
                "item.FIELD, user.FIELD, context.FIELD or candidate.COLUMN; A or B is the first "
                "that has a value."),
    CONF_END};

static enum status check(struct feat_plan *p, struct feat *f) {
    return feat_one_check(p, f, FEAT_AS_FLAG);
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    double v;
    if (feat_one_number(f, r, row, &v))
        dense[0] = v != 0;
}

const struct feat_kind feat_kind_boolean = {
    .name = "boolean",
    .doc = "1 for yes, 0 for no.",
    .params = items,
    .params_bytes = sizeof(struct feat_one),
    .check = check,
    .extract = extract,
};
