/* window_count.c: how many matching events in each of several windows that end now. One ring of
 * event-time buckets serves all windows (ring.h); expiry is the reader's business. */
#include "features/claim.h"
#include "features/ring.h"

#define WINDOWS_MAX 16

struct params {
    const char *on_text;
    int scope, scale;
    int64_t bucket_us;
    struct conf_times windows;
    struct feat_match on;
    struct feat_ring ring;
    int64_t buckets[WINDOWS_MAX]; /* [windows.n] */
};

static const struct conf_item items[] = {
    CONF_ENUM(struct params, scope, "scope", NULL, FEAT_SCOPE_CHOICES, "Whose events."),
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
    if (m->windows.n < 1 || m->windows.n > WINDOWS_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "windows: %d windows; 1 to %d are allowed",
                    m->windows.n, WINDOWS_MAX);
    const char **names = ARENA_ARRAY(&p->arena, const char *, m->windows.n);
    int64_t longest_us = 0;
    for (int i = 0; i < m->windows.n; i++) {
        int64_t window_us = m->windows.v[i];
        TRY(feat_ring_check(p, "windows", m->bucket_us, window_us, 1, &m->ring));
        m->buckets[i] = m->ring.window_buckets;
        names[i] = feat_time_word(p, window_us);
        longest_us = window_us > longest_us ? window_us : longest_us;
    }
    TRY(feat_ring_check(p, "windows", m->bucket_us, longest_us, 1, &m->ring));
    feat_plan_cell(p, f, (enum feat_scope)m->scope);
    f->side = feat_scope_side((enum feat_scope)m->scope);
    f->n_columns = m->windows.n;
    f->column_names = names;
    return STATUS_OK;
}

static bool apply(const struct feat *f, const struct feat_update *u, struct slice old,
                  struct buf *out) {
    const struct params *m = f->params;
    const uint64_t one = 1;
    return feat_match_event(&m->on, u->event, u->shown) &&
           feat_ring_add(&m->ring, old, u->event->event_time_us, &one, out);
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    const struct params *m = f->params;
    enum feat_scope scope = (enum feat_scope)m->scope;
    if (!feat_read_names(r, scope, row))
        return;
    uint64_t sums[WINDOWS_MAX] = {0};
    int64_t now = r->now_us / m->ring.bucket_us;
    struct feat_ring_reader ring;
    feat_ring_open(&m->ring, feat_record_cell(feat_read_record(r, scope, row), f->cells[0].index),
                   &ring);
    while (feat_ring_next(&ring) && ring.bucket > now - m->ring.window_buckets)
        for (int i = 0; ring.bucket <= now && i < f->n_columns; i++)
            if (ring.bucket > now - m->buckets[i])
                sums[i] += ring.counts[0];
    for (int i = 0; i < f->n_columns; i++)
        dense[i] = feat_scaled(m->scale, (double)sums[i]);
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
    .check = check,
    .apply = apply,
    .extract = extract,
    .expire = expire,
};
