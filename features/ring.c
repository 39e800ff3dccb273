/* ring.c: counts per event-time bucket. Cells are rewritten whole: they are tens of bytes, and a
 * rewrite has one case where a splice has five. */
#include "features/ring.h"
#include "features/codec.h"

enum status feat_ring_check(const struct feat_plan *p, const char *key, int64_t bucket_us,
                            int64_t window_us, int n_counters, struct feat_ring *out) {
    if (bucket_us <= 0 || window_us < bucket_us)
        return fail(STATUS_INVALID_ARGUMENT,
                    "%s: must be a bucket or longer, and the bucket longer than nothing", key);
    struct feat_ring g = {.bucket_us = bucket_us, .n_counters = n_counters};
    g.window_buckets = (window_us + bucket_us - 1) / bucket_us;
    g.keep = g.window_buckets + (p->lateness_us + bucket_us - 1) / bucket_us;
    if (g.keep > FEAT_RING_BUCKETS_MAX)
        return fail(STATUS_INVALID_ARGUMENT,
                    "%s: window and lateness are %lld buckets; at most %d, so make the bucket "
                    "longer",
                    key, (long long)g.keep, FEAT_RING_BUCKETS_MAX);
    *out = g;
    return STATUS_OK;
}

void feat_ring_open(const struct feat_ring *g, struct slice cell, struct feat_ring_reader *r) {
    *r = (struct feat_ring_reader){.c = cursor_of(cell.p, cell.n), .n_counters = g->n_counters};
}

bool feat_ring_next(struct feat_ring_reader *r) {
    if (r->c.bad || r->c.p == r->c.end)
        return false;
    uint64_t step = feat_get_varint(&r->c);
    if (step > (uint64_t)(r->started ? r->bucket : INT64_MAX))
        r->c.bad = 1; /* damaged: no bucket is before 1970 */
    else
        r->bucket = r->started ? r->bucket - (int64_t)step : (int64_t)step;
    r->started = true;
    for (int k = 0; k < r->n_counters; k++)
        r->counts[k] = feat_get_varint(&r->c);
    return !r->c.bad;
}

/* Appends one bucket; `last` is the one before it, -1 for the first. */
static void put(const struct feat_ring *g, int64_t *last, int64_t bucket, const uint64_t *counts,
                struct buf *out) {
    buf_add_varint(out, *last < 0 ? (uint64_t)bucket : (uint64_t)(*last - bucket));
    for (int k = 0; k < g->n_counters; k++)
        buf_add_varint(out, counts[k]);
    *last = bucket;
}

bool feat_ring_add(const struct feat_ring *g, struct slice old, int64_t time_us,
                   const uint64_t *add, struct buf *out) {
    int64_t bucket = time_us / g->bucket_us, newest = bucket, last = -1;
    struct feat_ring_reader r;
    feat_ring_open(g, old, &r);
    bool more = feat_ring_next(&r);
    if (more && r.bucket > newest)
        newest = r.bucket;
    int64_t floor = newest - g->keep;
    if (bucket <= floor)
        return false;
    bool done = false;
    for (; more && r.bucket > floor; more = feat_ring_next(&r)) {
        if (!done && r.bucket < bucket) {
            put(g, &last, bucket, add, out);
            done = true;
        }
        for (int k = 0; r.bucket == bucket && k < g->n_counters; k++)
            r.counts[k] += add[k];
        done = done || r.bucket == bucket;
        put(g, &last, r.bucket, r.counts, out);
    }
    if (!done)
        put(g, &last, bucket, add, out);
    return true;
}

void feat_ring_expire(const struct feat_ring *g, int64_t now_us, struct slice cell,
                      struct buf *out) {
    int64_t floor = now_us / g->bucket_us - g->window_buckets, last = -1;
    struct feat_ring_reader r;
    feat_ring_open(g, cell, &r);
    while (feat_ring_next(&r) && r.bucket > floor)
        put(g, &last, r.bucket, r.counts, out);
}
