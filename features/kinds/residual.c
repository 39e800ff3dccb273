/* residual.c: how far a user's values lie above what the same items get from everybody: generosity
 * that is not the taste for good items (the user bias of Koren's baseline predictors, 2009). Over
 * all of a last_n's entries it is a trait, over the newest few a mood. The items' means are read at
 * request time: state stays a function of the set of events. No state of its own. */
#include "features/claim.h"
#include "features/kinds/last_n.h"
#include "features/kinds/mean.h"
#include "features/state_parts.h"
#include <math.h>

struct params {
    const char *of_text, *against_text;
    int64_t last;
    double prior_weight;
    const struct feat *of, *against;
};

static const struct conf_item items[] = {
    CONF_STRING(struct params, of_text, "of", NULL,
                "An earlier last_n feature with a value_field."),
    CONF_STRING(struct params, against_text, "against", NULL,
                "An earlier mean feature of scope item, of the same number."),
    CONF_INT(struct params, last, "last", "0", 0, FEAT_LAST_MAX, "items",
             "Only the newest so many; 0: all that 'of' keeps."),
    CONF_FLOAT(struct params, prior_weight, "prior_weight", "10", 0, 1e9, "items",
               "How many items a residual of zero is worth."),
    CONF_END};

static enum status check(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    TRY(feat_claim_last(p, "of", m->of_text, &m->of));
    TRY(feat_claim_feature(p, "against", m->against_text, "mean", &m->against));
    if (!feat_last_has_value(m->of))
        return fail(STATUS_INVALID_ARGUMENT, "of: '%s' keeps no value_field", m->of_text);
    if (feat_mean_scope(m->against) != FEAT_SCOPE_ITEM)
        return fail(STATUS_INVALID_ARGUMENT, "against: '%s' is not of scope item", m->against_text);
    f->side = FEAT_USER;
    f->n_columns = 1;
    return STATUS_OK;
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)row, (void)ids;
    const struct params *m = f->params;
    if (!feat_last_named(m->of, r))
        return;
    struct feat_last_reader reader;
    struct feat_last_entry e;
    int n = feat_last_open(m->of, feat_last_cell(m->of, r), &reader), kept = 0;
    if (m->last > 0 && n > m->last)
        n = (int)m->last;
    uint64_t *keys = arena_alloc(r->arena, (size_t)n * sizeof *keys);
    double *values = arena_alloc(r->arena, (size_t)n * sizeof *values);
    while (kept < n && feat_last_next(&reader, &e)) {
        keys[kept] = e.item;
        values[kept++] = e.value;
    }
    const struct feat_record **records =
        arena_alloc(r->arena, (size_t)n * sizeof(const struct feat_record *));
    feat_state_records(r->state, r->arena, FEAT_SCOPE_ITEM, keys, kept, records);
    double sum = 0, count = 0;
    for (int i = 0; i < kept; i++) {
        double mean = feat_mean_value(m->against, r, records[i]);
        if (isnan(values[i]) || isnan(mean))
            continue;
        sum += values[i] - mean;
        count++;
    }
    if (count + m->prior_weight > 0)
        dense[0] = (float)(sum / (count + m->prior_weight));
}

const struct feat_kind feat_kind_residual = {
    .name = "residual",
    .doc = "How far a user's values lie above the items' means.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .check = check,
    .extract = extract,
};
