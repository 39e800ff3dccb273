/* ring.h: whole-number counts per event-time bucket, one ring for many windows.
 *
 * Kept are the buckets later than (newest bucket of the cell) - keep, where keep covers the longest
 * window and the allowed lateness: a function of the set of events, whatever their order. A reader
 * at `now` counts the buckets in (now's bucket - window, now's bucket]; so a window of 24h over
 * buckets of 1h is between 23h and 24h long. Cell: the newest bucket's number and counts, then
 * those before it: 2 x first count + (1: not next to the one before, and the distance follows),
 * other counts; empty buckets are not there. */
#pragma once
#include "base/buf.h"
#include "features/plan.h"

#define FEAT_RING_COUNTERS    2
#define FEAT_RING_BUCKETS_MAX 10000
#define FEAT_WINDOWS_MAX      16

struct feat_ring {
    int64_t bucket_us;
    int64_t window_buckets; /* of the longest window */
    int64_t keep;           /* buckets kept, lateness included */
    int n_counters;
};
/* Errors name `key`. */
enum status feat_ring_check(const struct feat_plan *p, const char *key, int64_t bucket_us,
                            int64_t window_us, int n_counters, struct feat_ring *out);

/* One ring for all windows: buckets[i] of each (oldest first is not asked for), and a name for each
 * as "7d". */
enum status feat_claim_windows(struct feat_plan *p, const char *key, int64_t bucket_us,
                               const struct conf_times *windows, int n_counters,
                               struct feat_ring *out, int64_t *buckets /* [FEAT_WINDOWS_MAX] */,
                               const char *const **names);

/* feat_kind.apply's contract: adds add[k] at time_us. */
bool feat_ring_add(const struct feat_ring *g, struct slice old, int64_t time_us,
                   const uint64_t *add /* [n_counters] */, struct buf *out);
/* feat_kind.merge's contract. */
void feat_ring_merge(const struct feat_ring *g, struct slice cell, struct slice other, int sign,
                     struct buf *out);
/* Adds to sums [n x n_counters] what each window that ends now holds. */
void feat_ring_sum(const struct feat_ring *g, struct slice cell, int64_t now_us,
                   const int64_t *buckets /* [n] */, int n, double *sums);
void feat_ring_expire(const struct feat_ring *g, int64_t now_us, struct slice cell,
                      struct buf *out);

/* Newest first. */
struct feat_ring_reader {
    struct cursor c;
    int64_t bucket;
    uint64_t counts[FEAT_RING_COUNTERS];
    int n_counters;
    bool started;
};
void feat_ring_open(const struct feat_ring *g, struct slice cell, struct feat_ring_reader *r);
bool feat_ring_next(struct feat_ring_reader *r);
