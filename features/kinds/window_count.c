/* window_count.c: how many matching events in each of several windows that end now. One ring of
 * event-time buckets serves all windows (ring.h); expiry is the reader's business. */
#include "features/claim.h"
#include "features/ring.h"

struct params {
    const char *on_text;
    struct conf_strings scope_text;
    int scale;
    enum feat_scope scope;
    int64_t bucket_us;
    struct conf_times windows;
    struct feat_match on;
    struct feat_ring ring;
    int64_t buckets[FEAT_WINDOWS_MAX]; /* [windows.n] */
};

static const struct conf_item items[] = {
    FEAT_CONF_SCOPE(struct params, scope_text, NULL, "Whose events."),
    CONF_STRING(struct params, on_text, "on", NULL,
                "Which events: TYPE [where FIELD OP VALUE]; TYPE may be impression or any."),
    CONF_TIME(struct params, bucket_us, "bucket", NULL, 1e3, 366 * 86400e6,
              "Resolution: a window starts at a bucket's border."),
    CONF_TIMES(struct params, windows, "windows", NULL, 1e3, 3660 * 86400e6,
               "One column per window."),
    CONF_ENUM(struct params, scale, "scale", "raw", FEAT_SCALE_CHOICES, "log: log(1 + count)."),
    CONF_END};

static enum status check(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    TRY(feat_claim_match(p, "on", m->on_text, &m->on));
    TRY(feat_claim_windows(p, "windows", m->bucket_us, &m->windows, 1, &m->ring, m->buckets,
                           &f->column_names));
    TRY(feat_claim_scope(p, f, &m->scope_text, &m->scope));
    feat_claim_cell(p, f, m->scope);
    f->n_columns = m->windows.n;
    return STATUS_OK;
}

static bool apply(const struct feat *f, const struct feat_update *u, struct slice old,
                  struct buf *out) {
    const struct params *m = f->params;
    const uint64_t n = feat_match_count(&m->on, u);
    return n > 0 && feat_ring_add(&m->ring, old, u->event->event_time_us, &n, out);
}

static void merge(const struct feat *f, struct slice cell, struct slice other, int sign,
                  struct buf *out) {
    const struct params *m = f->params;
    feat_ring_merge(&m->ring, cell, other, sign, out);
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    const struct params *m = f->params;
    struct slice cells[FEAT_SPOTS_MAX];
    int n = feat_read_cells(r, f, 0, row, cells);
    double sums[FEAT_WINDOWS_MAX] = {0};
    for (int i = 0; i < n; i++)
        feat_ring_sum(&m->ring, cells[i], r->now_us, m->buckets, f->n_columns, sums);
    for (int i = 0; n > 0 && i < f->n_columns; i++)
        dense[i] = feat_scaled(m->scale, sums[i]);
}

static void expire(const struct feat *f, int64_t now_us, struct slice cell, struct buf *out) {
    const struct params *m = f->params;
    feat_ring_expire(&m->ring, now_us, cell, out);
}

const struct feat_kind feat_kind_window_count = {
    .name = "window_count",
    .doc = "Number of matching events in windows that end now.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .matches_only = true,
    .by_cells = true,
    .check = check,
    .apply = apply,
    .merge = merge,
    .extract = extract,
    .expire = expire,
};
