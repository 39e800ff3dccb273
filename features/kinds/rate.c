/* rate.c: top events per bottom event, as clicks per impression, ever or in windows. Pulled towards
 * a prior of so many events, so that one lucky click is not a rate of 1 (the mean of a Beta prior;
 * additive smoothing). The prior is a number or the same rate over everything, which is kept in the
 * global scope. Cell: two varints, or a ring of two counters that serves all windows. */
#include "features/claim.h"
#include "features/codec.h"
#include "features/ring.h"
#include <math.h>
#include <string.h>

enum { PRIOR_BOTTOM, PRIOR_TOP };

struct params {
    const char *top_text, *bottom_text, *prior_text;
    struct conf_strings scope_text;
    int64_t bucket_us, window_us;
    struct conf_times windows;
    double prior_weight;
    int prior_counts;
    enum feat_scope scope;
    struct feat_match top, bottom;
    struct feat_ring ring;             /* of a windowed rate */
    int64_t buckets[FEAT_WINDOWS_MAX]; /* [n_columns] */
    bool windowed, prior_global;
    int prior_cell;
    double prior; /* NaN: none */
};

static const struct conf_item items[] = {
    FEAT_CONF_SCOPE(struct params, scope_text, NULL, "Whose events."),
    CONF_STRING(struct params, top_text, "top", NULL,
                "Counted above the line: TYPE [where FIELD OP VALUE]."),
    CONF_STRING(struct params, bottom_text, "bottom", NULL, "Counted below the line."),
    CONF_TIME(struct params, bucket_us, "bucket", "0s", 0, 366 * 86400e6,
              "Resolution of the windows; given together with them."),
    CONF_TIME(struct params, window_us, "window", "0s", 0, 3660 * 86400e6,
              "Only events so far back; 0: all."),
    CONF_TIMES(struct params, windows, "windows", "[]", 1e3, 3660 * 86400e6,
               "Several windows, one column each; instead of window."),
    CONF_FLOAT(struct params, prior_weight, "prior_weight", "10", 0, 1e9, "events",
               "How many events the prior is worth; 0: no smoothing."),
    CONF_ENUM(struct params, prior_counts, "prior_counts", "bottom", "bottom|top",
              "Which events prior_weight counts. top: (top + w) / (bottom + w / prior)."),
    CONF_STRING(struct params, prior_text, "prior", "global",
                "A number, or global: the same rate over all entities."),
    CONF_END};

static enum status check_prior(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    m->prior = NAN;
    m->prior_global = strcmp(m->prior_text, "global") == 0;
    if (!m->prior_global) {
        TRY(feat_claim_number("prior", m->prior_text, &m->prior));
        return m->prior >= 0 ? STATUS_OK
                             : fail(STATUS_INVALID_ARGUMENT,
                                    "prior: a rate is not below 0 (got %s)", m->prior_text);
    }
    if (m->scope == FEAT_SCOPE_GLOBAL)
        m->prior_global = false; /* it is that rate */
    else
        m->prior_cell = feat_claim_cell(p, f, FEAT_SCOPE_GLOBAL);
    return STATUS_OK;
}

static enum status check_windows(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    f->n_columns = 1;
    if (m->windows.n > 0 && m->window_us > 0)
        return fail(STATUS_INVALID_ARGUMENT, "window: give either window or windows");
    m->windowed = m->window_us > 0 || m->windows.n > 0;
    if (m->windowed != (m->bucket_us > 0))
        return fail(STATUS_INVALID_ARGUMENT, "window: give window and bucket together");
    if (m->windows.n > 0) {
        f->n_columns = m->windows.n;
        return feat_claim_windows(p, "windows", m->bucket_us, &m->windows, 2, &m->ring, m->buckets,
                                  &f->column_names);
    }
    if (m->windowed)
        TRY(feat_ring_check(p, "window", m->bucket_us, m->window_us, 2, &m->ring));
    m->buckets[0] = m->ring.window_buckets;
    return STATUS_OK;
}

static enum status check(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    TRY(feat_claim_match(p, "top", m->top_text, &m->top));
    TRY(feat_claim_match(p, "bottom", m->bottom_text, &m->bottom));
    TRY(check_windows(p, f));
    TRY(feat_claim_scope(p, f, &m->scope_text, &m->scope));
    feat_claim_cell(p, f, m->scope);
    return check_prior(p, f);
}

static bool apply(const struct feat *f, const struct feat_update *u, struct slice old,
                  struct buf *out) {
    const struct params *m = f->params;
    uint64_t add[2] = {feat_match_count(&m->top, u), feat_match_count(&m->bottom, u)};
    if (add[0] + add[1] == 0)
        return false;
    if (m->windowed)
        return feat_ring_add(&m->ring, old, u->event->event_time_us, add, out);
    struct cursor c = cursor_of(old.p, old.n);
    for (int k = 0; k < 2; k++)
        buf_add_varint(out, (old.n == 0 ? 0 : feat_get_varint(&c)) + add[k]);
    return true;
}

static void merge(const struct feat *f, struct slice cell, struct slice other, int sign,
                  struct buf *out) {
    const struct params *m = f->params;
    if (m->windowed)
        feat_ring_merge(&m->ring, cell, other, sign, out);
    else
        feat_merge_varints(cell, other, sign, 2, out);
}

/* Adds to counts [n_columns x {top, bottom}]. */
static void add_counts(const struct feat *f, int64_t now_us, struct slice cell, double *counts) {
    const struct params *m = f->params;
    if (m->windowed) {
        feat_ring_sum(&m->ring, cell, now_us, m->buckets, f->n_columns, counts);
        return;
    }
    struct cursor c = cursor_of(cell.p, cell.n);
    for (int k = 0; k < 2 && cell.n > 0; k++)
        counts[k] += (double)feat_get_varint(&c);
}

/* The priors as of this request: [n_columns]. */
static void begin(const struct feat *f, struct feat_read *r) {
    const struct params *m = f->params;
    double *priors = ARENA_ARRAY(r->arena, double, f->n_columns);
    double counts[2 * FEAT_WINDOWS_MAX] = {0};
    if (m->prior_global)
        add_counts(f, r->now_us,
                   feat_record_cell(r->records[FEAT_SCOPE_GLOBAL], f->cells[m->prior_cell].index),
                   counts);
    for (int i = 0; i < f->n_columns; i++)
        priors[i] = !m->prior_global        ? m->prior
                    : counts[2 * i + 1] > 0 ? counts[2 * i] / counts[2 * i + 1]
                                            : (double)NAN;
    r->scratch[f->number] = priors;
}

static void smooth(const struct params *m, const double *counts, double prior, float *out) {
    double weight = isnan(prior) ? 0 : m->prior_weight;
    if (m->prior_counts == PRIOR_TOP && weight > 0)
        weight = prior > 0 ? weight / prior : 0; /* so many bottom events */
    double below = counts[1] + weight;
    if (below > 0)
        *out = (float)((counts[0] + (weight > 0 ? weight * prior : 0)) / below);
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    const double *priors = r->scratch[f->number];
    double counts[2 * FEAT_WINDOWS_MAX] = {0};
    struct slice cells[FEAT_SPOTS_MAX];
    int n = feat_read_cells(r, f, 0, row, cells);
    for (int i = 0; i < n; i++)
        add_counts(f, r->now_us, cells[i], counts);
    for (int i = 0; n > 0 && i < f->n_columns; i++)
        smooth(f->params, &counts[2 * i], priors[i], &dense[i]);
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
    .matches_only = true,
    .by_cells = true,
    .check = check,
    .apply = apply,
    .merge = merge,
    .begin = begin,
    .extract = extract,
    .expire = expire,
};
