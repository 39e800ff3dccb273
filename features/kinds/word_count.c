/* word_count.c: how many words a text has, or all texts of a list together. A word is a run of
 * letters and digits (features/text.h). Only the count is remembered, not the text. */
#include "features/kinds/one.h"

static const struct conf_item items[] = {
    CONF_STRING(struct feat_one, source_text, "source", NULL,
                "item.FIELD, user.FIELD or context.FIELD."),
    CONF_ENUM(struct feat_one, scale, "scale", "raw", FEAT_SCALE_CHOICES, "log: log(1 + n)."),
    CONF_END};

static enum status check(struct feat_plan *p, struct feat *f) {
    return feat_one_check(p, f, FEAT_AS_WORDS);
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    const struct feat_one *m = f->params;
    double v;
    if (feat_one_number(f, r, row, &v))
        dense[0] = feat_scaled(m->scale, v);
}

const struct feat_kind feat_kind_word_count = {
    .name = "word_count",
    .doc = "How many words a text has.",
    .params = items,
    .params_bytes = sizeof(struct feat_one),
    .check = check,
    .extract = extract,
};
