/* word_count.c: how many words a text has, or all texts of a list together. A word is a run of
 * letters and digits (features/text.h). Only the count is remembered, not the text. */
#include "features/claim.h"

struct params {
    const char *source_text;
    int scale;
    struct feat_source source;
};

static const struct conf_item items[] = {
    CONF_STRING(struct params, source_text, "source", NULL,
                "item.FIELD, user.FIELD or context.FIELD."),
    CONF_ENUM(struct params, scale, "scale", "raw", FEAT_SCALE_CHOICES, "log: log(1 + n)."),
    CONF_END};

static enum status check(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    TRY(feat_claim_source(p, "source", m->source_text, FEAT_AS_WORDS, &m->source));
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
        dense[0] = feat_scaled(m->scale, v);
}

const struct feat_kind feat_kind_word_count = {
    .name = "word_count",
    .doc = "How many words a text has.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .check = check,
    .extract = extract,
};
