/* rate.c: top events per bottom event, as clicks per impression, ever or in a window. Pulled
 * towards a prior of so many bottom events, so that one lucky click is not a rate of 1 (the mean of
 * a Beta prior; additive smoothing). The prior is a number or the same rate over everything, which
 * is kept in the global scope. Cell: two varints, or a ring of two counters. */
#include "features/claim.h"
#include "features/codec.h"
#include "features/ring.h"
#include <math.h>
#include <stdlib.h>

struct params {
    const char *top_text, *bottom_text, *prior_text;
    int scope;
    int64_t bucket_us, window_us;
    double prior_weight;
    struct feat_match top, bottom;
    struct feat_ring ring; /* of a windowed rate */
    bool windowed, prior_global;
    double prior; /* NaN: none */
};

static const struct conf_item items[] = {
    CONF_ENUM(struct params, scope, "scope", NULL, FEAT_SCOPE_CHOICES, "Whose events."),
    CONF_STRING(struct params, top_text, "top", NULL,
                "Counted above the line: TYPE [where FIELD OP VALUE]."),
    CONF_STRING(struct params, bottom_text, "bottom", NULL, "Counted below the line."),
    CONF_TIME(struct params, bucket_us, "bucket", "0s", 0, 366 * 86400e6,
              "Resolution of the window; given together with window."),
    CONF_TIME(struct params, window_us, "window", "0s", 0, 3660 * 86400e6,
              "Only events so far back; 0: all."),
    CONF_FLOAT(struct params, prior_weight, "prior_weight", "10", 0, 1e9, "events",
               "How many bottom events the prior is worth; 0: no smoothing."),
    CONF_STRING(struct params, prior_text, "prior", "global",
                "A number, or global: the same rate over all entities."),
    CONF_END};

static enum status check_prior(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    m->prior = NAN;
    m->prior_global = strcmp(m->prior_text, "global") == 0;
    if (m->prior_global) {
        if (m->scope == FEAT_SCOPE_GLOBAL)
            m->prior_global = false; /* it is that rate */
        else
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

static enum status check(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    TRY(feat_claim_match(p, "top", m->top_text, &m->top));
    TRY(feat_claim_match(p, "bottom", m->bottom_text, &m->bottom));
    if ((m->window_us > 0) != (m->bucket_us > 0))
        return fail(STATUS_INVALID_ARGUMENT, "window: give window and bucket together");
    m->windowed = m->window_us > 0;
    if (m->windowed)
        TRY(feat_ring_check(p, "window", m->bucket_us, m->window_us, 2, &m->ring));
    feat_plan_cell(p, f, (enum feat_scope)m->scope);
    TRY(check_prior(p, f));
    f->side = feat_scope_side((enum feat_scope)m->scope);
    f->n_columns = 1;
    return STATUS_OK;
}

static bool apply(const struct feat *f, const struct feat_update *u, struct slice old,
                  struct buf *out) {
    const struct params *m = f->params;
    uint64_t add[2] = {feat_match_event(&m->top, u->event, u->shown),
                       feat_match_event(&m->bottom, u->event, u->shown)};
    if (add[0] + add[1] == 0)
        return false;
    if (m->windowed)
        return feat_ring_add(&m->ring, old, u->event->event_time_us, add, out);
    struct cursor c = cursor_of(old.p, old.n);
    for (int k = 0; k < 2; k++)
        buf_add_varint(out, (old.n == 0 ? 0 : feat_get_varint(&c)) + add[k]);
    return true;
}

static void read_counts(const struct params *m, int64_t now_us, struct slice cell, double *counts) {
    counts[0] = counts[1] = 0;
    if (!m->windowed) {
        struct cursor c = cursor_of(cell.p, cell.n);
        for (int k = 0; k < 2 && cell.n > 0; k++)
            counts[k] = (double)feat_get_varint(&c);
        return;
    }
    int64_t now = now_us / m->ring.bucket_us;
    struct feat_ring_reader ring;
    feat_ring_open(&m->ring, cell, &ring);
    while (feat_ring_next(&ring) && ring.bucket > now - m->ring.window_buckets)
        for (int k = 0; ring.bucket <= now && k < 2; k++)
            counts[k] += (double)ring.counts[k];
}

/* The prior as of this request: one double. */
static void begin(const struct feat *f, struct feat_read *r) {
    const struct params *m = f->params;
    double *prior = ARENA_NEW(r->arena, double);
    *prior = m->prior;
    if (m->prior_global) {
        double counts[2];
        read_counts(m, r->now_us,
                    feat_record_cell(r->records[FEAT_SCOPE_GLOBAL], f->cells[1].index), counts);
        *prior = counts[1] > 0 ? counts[0] / counts[1] : NAN;
    }
    r->scratch[f->number] = prior;
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    const struct params *m = f->params;
    enum feat_scope scope = (enum feat_scope)m->scope;
    if (!feat_read_names(r, scope, row))
        return;
    double prior = *(const double *)r->scratch[f->number], counts[2];
    double weight = isnan(prior) ? 0 : m->prior_weight;
    read_counts(m, r->now_us, feat_record_cell(feat_read_record(r, scope, row), f->cells[0].index),
                counts);
    double below = counts[1] + weight;
    if (below > 0)
        dense[0] = (float)((counts[0] + (weight > 0 ? weight * prior : 0)) / below);
}

static void expire(const struct feat *f, int64_t now_us, struct slice cell, struct buf *out) {
    const struct params *m = f->params;
    if (m->windowed)
        feat_ring_expire(&m->ring, now_us, cell, out);
    else
        buf_add(out, cell.p, cell.n);
}

const struct feat_kind feat_kind_rate = {
    .name = "rate",
    .doc = "Top events per bottom event, smoothed.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .check = check,
    .apply = apply,
    .begin = begin,
    .extract = extract,
    .expire = expire,
};
