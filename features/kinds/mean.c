/* mean.c: the mean of a number that interactions carry (stars, seconds watched), smoothed towards a
 * prior that is worth so many events. Sums are whole numbers of 1/65536, because integers can be
 * added in any order and floats cannot. Cell: varint count, zig-zag varint sum. */
#include "features/kinds/mean.h"
#include "features/claim.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define UNITS     65536.0
#define VALUE_MAX 1e6 /* larger values are cut: 2^63 units hold 1e8 events of them */

struct params {
    const char *on_text, *value_field, *prior_text;
    int scope;
    double prior_weight;
    struct feat_match on;
    bool prior_global;
    double prior; /* NaN: none */
};

static const struct conf_item items[] = {
    CONF_ENUM(struct params, scope, "scope", NULL, FEAT_SCOPE_CHOICES, "Whose events."),
    CONF_STRING(struct params, on_text, "on", NULL, "Which events: TYPE [where FIELD OP VALUE]."),
    CONF_STRING(struct params, value_field, "value_field", NULL,
                "The interaction's field that holds the number; events without it do not count."),
    CONF_FLOAT(struct params, prior_weight, "prior_weight", "10", 0, 1e9, "events",
               "How many events the prior is worth; 0: no smoothing."),
    CONF_STRING(struct params, prior_text, "prior", "global",
                "A number, or global: the mean over all entities."),
    CONF_END};

static enum status check(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    TRY(feat_claim_match(p, "on", m->on_text, &m->on));
    feat_plan_cell(p, f, (enum feat_scope)m->scope);
    f->side = feat_scope_side((enum feat_scope)m->scope);
    f->n_columns = 1;
    m->prior = NAN;
    if (strcmp(m->prior_text, "global") == 0) {
        m->prior_global = m->scope != FEAT_SCOPE_GLOBAL; /* else it is that mean */
        if (m->prior_global)
            feat_plan_cell(p, f, FEAT_SCOPE_GLOBAL);
        return STATUS_OK;
    }
    char *end;
    m->prior = strtod(m->prior_text, &end);
    if (end == m->prior_text || *end != '\0' || !isfinite(m->prior))
        return fail(STATUS_INVALID_ARGUMENT, "prior: '%s' is neither a number nor global",
                    m->prior_text);
    return STATUS_OK;
}

static bool apply(const struct feat *f, const struct feat_update *u, struct slice old,
                  struct buf *out) {
    const struct params *m = f->params;
    if (!feat_match_event(&m->on, u->event, u->shown))
        return false;
    const struct ev_value *v = ev_field_get(u->event->fields, u->event->n_fields, m->value_field);
    double value;
    if (!v || !ev_value_number(v, &value))
        return false;
    value = fmin(fmax(value, -VALUE_MAX), VALUE_MAX);
    struct cursor c = cursor_of(old.p, old.n);
    uint64_t count = old.n ? cursor_varint(&c) : 0;
    int64_t sum = old.n ? unzigzag(cursor_varint(&c)) : 0;
    buf_add_varint(out, count + 1);
    buf_add_varint(out, zigzag(sum + llround(value * UNITS)));
    return true;
}

static void read_sums(struct slice cell, double *count, double *sum) {
    struct cursor c = cursor_of(cell.p, cell.n);
    *count = cell.n ? (double)cursor_varint(&c) : 0;
    *sum = cell.n ? (double)unzigzag(cursor_varint(&c)) / UNITS : 0;
}

/* The prior as of this request: one double. */
static void begin(const struct feat *f, struct feat_read *r) {
    const struct params *m = f->params;
    double *prior = ARENA_NEW(r->arena, double);
    *prior = m->prior;
    if (m->prior_global) {
        double count, sum;
        read_sums(feat_record_cell(r->records[FEAT_SCOPE_GLOBAL], f->cells[1].index), &count, &sum);
        *prior = count > 0 ? sum / count : (double)NAN;
    }
    r->scratch[f->number] = prior;
}

enum feat_scope feat_mean_scope(const struct feat *f) {
    return (enum feat_scope)((const struct params *)f->params)->scope;
}

double feat_mean_value(const struct feat *f, const struct feat_read *r,
                       const struct feat_record *rec) {
    const struct params *m = f->params;
    double prior = *(const double *)r->scratch[f->number], count, sum;
    double weight = isnan(prior) ? 0 : m->prior_weight;
    read_sums(feat_record_cell(rec, f->cells[0].index), &count, &sum);
    if (count + weight <= 0)
        return (double)NAN;
    return (sum + (weight > 0 ? weight * prior : 0)) / (count + weight);
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    enum feat_scope scope = feat_mean_scope(f);
    if (feat_read_names(r, scope, row))
        dense[0] = (float)feat_mean_value(f, r, feat_read_record(r, scope, row));
}

const struct feat_kind feat_kind_mean = {
    .name = "mean",
    .doc = "Mean of a number that events carry, smoothed.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .check = check,
    .apply = apply,
    .begin = begin,
    .extract = extract,
};
