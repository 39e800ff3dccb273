/* mean.c: the mean of a number that interactions carry (stars, seconds watched), smoothed towards a
 * prior that is worth so many events. Sums are whole numbers of 1/65536, because integers can be
 * added in any order and floats cannot. Cell: varint count, zig-zag varint sum. */
#include "features/kinds/mean.h"
#include "features/claim.h"
#include <math.h>
#include <string.h>

#define UNITS     65536.0
#define VALUE_MAX 1e6 /* larger values are cut: 2^63 units hold 1e8 events of them */

struct params {
    const char *on_text, *value_field, *prior_text;
    struct conf_strings scope_text;
    enum feat_scope scope;
    int prior_cell;
    double prior_weight;
    struct feat_match on;
    bool prior_global;
    double prior; /* NaN: none */
};

static const struct conf_item items[] = {
    FEAT_CONF_SCOPE(struct params, scope_text, NULL, "Whose events."),
    CONF_STRING(struct params, on_text, "on", NULL, "Which events: TYPE [where FIELD OP VALUE]."),
    CONF_STRING(struct params, value_field, "value_field", NULL,
                "The event's field that holds the number; events without it do not count."),
    CONF_FLOAT(struct params, prior_weight, "prior_weight", "10", 0, 1e9, "events",
               "How many events the prior is worth; 0: no smoothing."),
    CONF_STRING(struct params, prior_text, "prior", "global",
                "A number, or global: the mean over all entities."),
    CONF_END};

static enum status check(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    TRY(feat_claim_match(p, "on", m->on_text, &m->on));
    TRY(feat_claim_scope(p, f, &m->scope_text, &m->scope));
    feat_claim_cell(p, f, m->scope);
    f->n_columns = 1;
    m->prior = NAN;
    if (strcmp(m->prior_text, "global") == 0) {
        m->prior_global = m->scope != FEAT_SCOPE_GLOBAL; /* else it is that mean */
        if (m->prior_global)
            m->prior_cell = feat_claim_cell(p, f, FEAT_SCOPE_GLOBAL);
        return STATUS_OK;
    }
    return feat_claim_number("prior", m->prior_text, &m->prior);
}

/* The happening's number: an impression's own, or else its ranking's. */
static bool own_number(const struct feat_update *u, int i, const char *field, double *out) {
    const struct ev_shown *shown = feat_update_shown(u, i);
    const struct ev_value *v = NULL;
    if (shown != NULL)
        v = ev_field_get(shown->fields, shown->n_fields, field);
    if (v == NULL)
        v = ev_field_get(u->event->fields, u->event->n_fields, field);
    return v != NULL && ev_value_number(v, out);
}

static bool apply(const struct feat *f, const struct feat_update *u, struct slice old,
                  struct buf *out) {
    const struct params *m = f->params;
    uint64_t count = 0;
    int64_t sum = 0;
    for (int i = 0; i < u->n; i++) {
        double value;
        if (!feat_match_event(&m->on, u->event, feat_update_shown(u, i)) ||
            !own_number(u, i, m->value_field, &value))
            continue;
        sum += llround(fmin(fmax(value, -VALUE_MAX), VALUE_MAX) * UNITS);
        count++;
    }
    if (count == 0)
        return false;
    struct cursor c = cursor_of(old.p, old.n);
    count += old.n ? cursor_varint(&c) : 0;
    sum += old.n ? unzigzag(cursor_varint(&c)) : 0;
    buf_add_varint(out, count);
    buf_add_varint(out, zigzag(sum));
    return true;
}

static void merge(const struct feat *f, struct slice cell, struct slice other, int sign,
                  struct buf *out) {
    (void)f;
    struct cursor a = cursor_of(cell.p, cell.n), b = cursor_of(other.p, other.n);
    uint64_t count = cell.n ? cursor_varint(&a) : 0, by = other.n ? cursor_varint(&b) : 0;
    int64_t sum = cell.n ? unzigzag(cursor_varint(&a)) : 0;
    sum += sign * (other.n ? unzigzag(cursor_varint(&b)) : 0);
    count = sign > 0 ? count + by : count > by ? count - by : 0;
    if (count == 0)
        return;
    buf_add_varint(out, count);
    buf_add_varint(out, zigzag(sum));
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
        read_sums(feat_record_cell(r->records[FEAT_SCOPE_GLOBAL], f->cells[m->prior_cell].index),
                  &count, &sum);
        *prior = count > 0 ? sum / count : (double)NAN;
    }
    r->scratch[f->number] = prior;
}

enum feat_scope feat_mean_scope(const struct feat *f) {
    return ((const struct params *)f->params)->scope;
}

static double smoothed(const struct feat *f, const struct feat_read *r, double count, double sum) {
    const struct params *m = f->params;
    double prior = *(const double *)r->scratch[f->number];
    double weight = isnan(prior) ? 0 : m->prior_weight;
    if (count + weight <= 0)
        return (double)NAN;
    return (sum + (weight > 0 ? weight * prior : 0)) / (count + weight);
}

double feat_mean_value(const struct feat *f, const struct feat_read *r,
                       const struct feat_record *rec) {
    double count, sum;
    read_sums(feat_record_cell(rec, f->cells[0].index), &count, &sum);
    return smoothed(f, r, count, sum);
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    struct slice cells[FEAT_SPOTS_MAX];
    int n = feat_read_cells(r, f, 0, row, cells);
    double count = 0, sum = 0, one_count, one_sum;
    for (int i = 0; i < n; i++) {
        read_sums(cells[i], &one_count, &one_sum);
        count += one_count;
        sum += one_sum;
    }
    if (n > 0)
        dense[0] = (float)smoothed(f, r, count, sum);
}

const struct feat_kind feat_kind_mean = {
    .name = "mean",
    .doc = "Mean of a number that events carry, smoothed.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .check = check,
    .apply = apply,
    .merge = merge,
    .begin = begin,
    .extract = extract,
};
