/* list_size.c: how many elements a list of texts or numbers has; anything else counts as 1. Only
 * the size is remembered, not the list. */
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
    TRY(feat_claim_source(p, "source", m->source_text, FEAT_AS_SIZE, &m->source));
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

const struct feat_kind feat_kind_list_size = {
    .name = "list_size",
    .doc = "How many elements a list has.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .check = check,
    .extract = extract,
};
