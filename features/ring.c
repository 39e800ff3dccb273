/* ring.c: counts per event-time bucket. Cells are rewritten whole: they are tens of bytes, and a
 * rewrite has one case where a splice has five. */
#include "features/ring.h"
#include <endian.h>
#include "features/claim.h"
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
    uint64_t step = 1, first = feat_get_varint(&r->c);
    if (!r->started || first & 1)
        step = r->started ? feat_get_varint(&r->c) : first;
    if (step > (uint64_t)(r->started ? r->bucket : INT64_MAX))
        r->c.bad = 1; /* damaged: no bucket is before 1970 */
    else
        r->bucket = r->started ? r->bucket - (int64_t)step : (int64_t)step;
    r->counts[0] = r->started ? first >> 1 : feat_get_varint(&r->c);
    r->started = true;
    for (int k = 1; k < r->n_counters; k++)
        r->counts[k] = feat_get_varint(&r->c);
    return !r->c.bad;
}

/* Appends one bucket; `last` is the one before it, -1 for the first. Mostly that is the one next to
 * it: only where it is not, which the first count's lowest bit tells, a distance follows. */
static void put(const struct feat_ring *g, int64_t *last, int64_t bucket, const uint64_t *counts,
                struct buf *out) {
    const bool apart = *last >= 0 && *last - bucket != 1;
    if (*last < 0)
        feat_put_varint(out, (uint64_t)bucket);
    feat_put_varint(out, *last < 0 ? counts[0] : counts[0] << 1 | apart);
    if (apart)
        feat_put_varint(out, (uint64_t)(*last - bucket));
    for (int k = 1; k < g->n_counters; k++)
        feat_put_varint(out, counts[k]);
    *last = bucket;
}

/* The usual case: the bucket is the newest, and nothing behind it moves. */
static bool add_to_newest(const struct feat_ring *g, struct slice old, int64_t bucket,
                          const uint64_t *add, struct buf *out) {
    struct cursor c = cursor_of(old.p, old.n);
    uint64_t counts[FEAT_RING_COUNTERS];
    if (old.n == 0 || feat_get_varint(&c) != (uint64_t)bucket)
        return false;
    size_t head = (size_t)(c.p - (const uint8_t *)old.p);
    for (int k = 0; k < g->n_counters; k++)
        counts[k] = feat_get_varint(&c) + add[k];
    if (c.bad)
        return false;
    buf_reserve(out, old.n + 20);
    buf_add(out, old.p, head);
    for (int k = 0; k < g->n_counters; k++)
        feat_put_varint(out, counts[k]);
    buf_add(out, c.p, (size_t)(c.end - c.p));
    return true;
}

bool feat_ring_add(const struct feat_ring *g, struct slice old, int64_t time_us,
                   const uint64_t *add, struct buf *out) {
    int64_t bucket = time_us / g->bucket_us, newest = bucket, last = -1;
    struct feat_ring_reader r;
    if (add_to_newest(g, old, bucket, add, out))
        return true;
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

/* Two rings read side by side, newest bucket first. What is taken away and is not there any more
 * had been dropped as too old to be seen. */
void feat_ring_merge(const struct feat_ring *g, struct slice cell, struct slice other, int sign,
                     struct buf *out) {
    struct feat_ring_reader a, b;
    feat_ring_open(g, cell, &a);
    feat_ring_open(g, other, &b);
    bool more_a = feat_ring_next(&a), more_b = feat_ring_next(&b);
    int64_t newest = more_a ? a.bucket : 0, last = -1;
    if (more_b && sign > 0 && b.bucket > newest)
        newest = b.bucket;
    while (more_a || (more_b && sign > 0)) {
        bool take_a = more_a && (!more_b || a.bucket >= b.bucket);
        bool take_b = more_b && (!more_a || b.bucket >= a.bucket);
        int64_t bucket = take_a ? a.bucket : b.bucket;
        uint64_t counts[FEAT_RING_COUNTERS] = {0}, any = 0;
        for (int k = 0; k < g->n_counters; k++) {
            uint64_t in_a = take_a ? a.counts[k] : 0, in_b = take_b ? b.counts[k] : 0;
            counts[k] = sign > 0 ? in_a + in_b : in_a > in_b ? in_a - in_b : 0;
            any |= counts[k];
        }
        if (any != 0 && bucket > newest - g->keep)
            put(g, &last, bucket, counts, out);
        more_a = take_a ? feat_ring_next(&a) : more_a;
        more_b = take_b ? feat_ring_next(&b) : more_b;
    }
}

/* feat_get_varint of a cursor in registers, with those of two and three bytes in line. */
static inline uint64_t varint_at(const uint8_t **at, const uint8_t *end, int *bad) {
    const uint8_t *p = *at;
    if (end - p >= 3) {
        const uint64_t two = (p[0] & 0x7Fu) | (uint64_t)p[1] << 7;
        const int n = p[0] < 0x80 ? 1 : p[1] < 0x80 ? 2 : p[2] < 0x80 ? 3 : 0;
        *at += n;
        if (n == 1)
            return p[0];
        if (n == 2)
            return two;
        if (n == 3)
            return (two & 0x3FFF) | (uint64_t)p[2] << 14;
    }
    struct cursor c = {p, end, *bad};
    const uint64_t v = cursor_varint(&c);
    *at = c.p;
    *bad = c.bad;
    return v;
}

/* Windows of which no older bucket is one: what came until now is what they hold. `open`: bits of
 * those that go on. Says at which bucket the next one ends. */
static int64_t close_windows(int64_t now, int64_t bucket, const int64_t *buckets, int n,
                             int n_counters, const uint64_t *held, uint32_t *open, double *sums) {
    int64_t next = INT64_MIN;
    for (int i = 0; i < n; i++) {
        if ((*open >> i & 1) == 0)
            continue;
        const int64_t end = now - buckets[i];
        if (bucket > end) {
            next = end > next ? end : next;
            continue;
        }
        for (int k = 0; k < n_counters; k++)
            sums[i * n_counters + k] += (double)held[k];
        *open &= ~(1u << i);
    }
    return next;
}

/* The sum of four numbers of 16 bits each. */
static inline uint64_t sum_of_four(uint64_t v) { return v * 0x0001000100010001u >> 48; }

/* The usual buckets, eight bytes of them at a time: next to one another, counts of one byte, and in
 * windows that go on. Takes those up to the first eight that are not all such. */
static inline const uint8_t *take_usual(int n_counters, const uint8_t *p, const uint8_t *end,
                                        int64_t ends, int64_t *bucket, uint64_t *held) {
    const int64_t step = 8 / n_counters; /* buckets */
    const uint64_t unusual = n_counters == 1 ? 0x8181818181818181u : 0x8081808180818081u;
    const uint64_t low = 0x00FF00FF00FF00FFu;
    int64_t at = *bucket;
    for (; end - p >= 8 && at - step > ends && at >= step; p += 8, at -= step) {
        uint64_t v;
        memcpy(&v, p, sizeof v);
        v = le64toh(v);
        if ((v & unusual) != 0)
            break;
        held[0] += sum_of_four(v >> 1 & (low >> 1));
        if (n_counters == 1)
            held[0] += sum_of_four(v >> 9 & (low >> 1));
        else
            held[1] += sum_of_four(v >> 8 & low);
    }
    *bucket = at;
    return p;
}

/* As feat_ring_sum. Most of the time that rows of counts take is spent here, so the number of
 * counters is known where this is compiled, and the newest bucket is read before the others. */
static inline __attribute__((always_inline)) void sum_ring(int n_counters, struct slice cell,
                                                           int64_t now, const int64_t *buckets,
                                                           int n, double *sums) {
    const uint8_t *p = (const uint8_t *)cell.p, *end = p + cell.n;
    uint32_t open = (1u << n) - 1;
    uint64_t held[FEAT_RING_COUNTERS] = {0}, counts[FEAT_RING_COUNTERS] = {0};
    int bad = 0;
    int64_t ends = close_windows(now, INT64_MAX, buckets, n, n_counters, held, &open, sums);
    uint64_t step = p < end ? varint_at(&p, end, &bad) : 0;
    int64_t bucket = (int64_t)step;
    if (p == end || step > INT64_MAX)
        return;
    counts[0] = varint_at(&p, end, &bad);
    for (;;) {
        if (n_counters > 1)
            counts[1] = varint_at(&p, end, &bad);
        if (bad)
            break;
        if (bucket <= ends)
            ends = close_windows(now, bucket, buckets, n, n_counters, held, &open, sums);
        if (open == 0)
            break;
        if (bucket <= now) {
            held[0] += counts[0];
            held[1] += counts[1];
            if (counts[0] < 64 && counts[1] < 128) /* so will the next be */
                p = take_usual(n_counters, p, end, ends, &bucket, held);
        }
        if (p >= end)
            break;
        const uint64_t head = varint_at(&p, end, &bad); /* as feat_ring_next reads it */
        step = head & 1 ? varint_at(&p, end, &bad) : 1;
        if (step > (uint64_t)bucket)
            break;
        bucket -= (int64_t)step;
        counts[0] = head >> 1;
    }
    close_windows(now, INT64_MIN, buckets, n, n_counters, held, &open, sums);
}

/* Buckets come newest first, so one running sum serves all windows. */
void feat_ring_sum(const struct feat_ring *g, struct slice cell, int64_t now_us,
                   const int64_t *buckets, int n, double *sums) {
    const int64_t now = now_us / g->bucket_us;
    if (g->n_counters == 1)
        sum_ring(1, cell, now, buckets, n, sums);
    else
        sum_ring(2, cell, now, buckets, n, sums);
}

enum status feat_claim_windows(struct feat_plan *p, const char *key, int64_t bucket_us,
                               const struct conf_times *windows, int n_counters,
                               struct feat_ring *out, int64_t *buckets, const char *const **names) {
    if (windows->n < 1 || windows->n > FEAT_WINDOWS_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "%s: %d windows; 1 to %d are allowed", key, windows->n,
                    FEAT_WINDOWS_MAX);
    const char **words = ARENA_ARRAY(&p->arena, const char *, windows->n);
    int64_t longest_us = 0;
    for (int i = 0; i < windows->n; i++) {
        struct feat_ring one = {0};
        int64_t window_us = windows->v[i];
        TRY(feat_ring_check(p, key, bucket_us, window_us, n_counters, &one));
        buckets[i] = one.window_buckets;
        words[i] = feat_time_word(p, window_us);
        longest_us = window_us > longest_us ? window_us : longest_us;
    }
    *names = words;
    return feat_ring_check(p, key, bucket_us, longest_us, n_counters, out);
}
