/* time_diff.c: seconds from one moment to another, both in fields: how long before the release an
 * offer was made, how long after registration. Negative when the second is earlier. For the time
 * since a moment until the request see time_since. Stateless but for the remembered fields. */
#include "features/claim.h"
#include <math.h>

enum { UNIT_S, UNIT_MS, UNIT_US };

struct params {
    const char *from_text, *to_text;
    int unit, scale;
    struct feat_source from, to;
};

static const struct conf_item items[] = {
    CONF_STRING(struct params, from_text, "from", NULL,
                "The moment in a field, as item.created_at: ISO 8601, or a number in unit."),
    CONF_STRING(struct params, to_text, "to", NULL, "The other moment."),
    CONF_ENUM(struct params, unit, "unit", "s", "s|ms|us", "Unit of both, where they are numbers."),
    CONF_ENUM(struct params, scale, "scale", "raw", FEAT_SCALE_CHOICES,
              "log: log(1 + seconds), with the difference's sign."),
    CONF_END};

static enum status check(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    TRY(feat_claim_source(p, "from", m->from_text, FEAT_AS_TIME, &m->from));
    TRY(feat_claim_source(p, "to", m->to_text, FEAT_AS_TIME, &m->to));
    f->side = feat_side_join(feat_source_side(&m->from), feat_source_side(&m->to));
    f->n_columns = 1;
    return STATUS_OK;
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    static const double per_second[] = {1, 1e3, 1e6};
    (void)ids;
    const struct params *m = f->params;
    double from, to;
    if (!feat_source_number(&m->from, r, row, &from) || !feat_source_number(&m->to, r, row, &to))
        return;
    double seconds = (to - from) / per_second[m->unit];
    dense[0] = m->scale == FEAT_SCALE_LOG ? (float)copysign(log1p(fabs(seconds)), seconds)
                                          : (float)seconds;
}

const struct feat_kind feat_kind_time_diff = {
    .name = "time_diff",
    .doc = "Seconds from one moment in a field to another.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .check = check,
    .extract = extract,
};
