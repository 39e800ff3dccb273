/* list_size.c: how many elements a list of texts or numbers has; anything else counts as 1. Only
 * the size is remembered, not the list. */
#include "features/kinds/one.h"

static const struct conf_item items[] = {
    CONF_STRING(struct feat_one, source_text, "source", NULL,
                "item.FIELD, user.FIELD or context.FIELD."),
    CONF_ENUM(struct feat_one, scale, "scale", "raw", FEAT_SCALE_CHOICES, "log: log(1 + n)."),
    CONF_END};

static enum status check(struct feat_plan *p, struct feat *f) {
    return feat_one_check(p, f, FEAT_AS_SIZE);
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    const struct feat_one *m = f->params;
    double v;
    if (feat_one_number(f, r, row, &v))
        dense[0] = feat_scaled(m->scale, v);
}

const struct feat_kind feat_kind_list_size = {
    .name = "list_size",
    .doc = "How many elements a list has.",
    .params = items,
    .params_bytes = sizeof(struct feat_one),
    .check = check,
    .extract = extract,
};
