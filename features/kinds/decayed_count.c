/* decayed_count.c: how many matching events, each worth half as much after every half-life: forward
 * decay (Cormode, Shkapenyuk, Srivastava, Xu 2009), whose weights grow with event time and are
 * scaled down when read, so that nothing is rewritten as time passes.
 *
 * Sums of floats depend on their order, so weights are whole numbers: 2^(t / half_life) =
 * 2^q x 2^fraction, kept as a sum of round(2^20 x 2^fraction) per q in a ring (ring.h) whose bucket
 * is a half-life. A reader adds sum_q x 2^(q - now / half_life). What is 24 half-lives old has a
 * weight below 1e-7 and is dropped. The power is computed in whole numbers, too: cells must be
 * equal on every machine that shares them. Events in half-lives after the reader's do not count
 * yet. */
#include "features/kinds/decayed.h"
#include "features/claim.h"
#include "features/ring.h"
#include <math.h>

enum { HALF_LIVES = 24, POWER_BITS = 20 };

struct params {
    const char *on_text;
    struct conf_strings scope_text;
    int64_t half_life_us;
    int scale;
    enum feat_scope scope;
    struct feat_match on;
    struct feat_ring ring;
};

static const struct conf_item items[] = {
    FEAT_CONF_SCOPE(struct params, scope_text, NULL, "Whose events."),
    CONF_STRING(struct params, on_text, "on", NULL,
                "Which events: TYPE [where FIELD OP VALUE]; TYPE may be impression or any."),
    CONF_TIME(struct params, half_life_us, "half_life", NULL, 1e6, 3660 * 86400e6,
              "After this time an event counts half."),
    CONF_ENUM(struct params, scale, "scale", "raw", FEAT_SCALE_CHOICES, "log: log(1 + count)."),
    CONF_END};

static enum status check(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    TRY(feat_claim_match(p, "on", m->on_text, &m->on));
    TRY(feat_ring_check(p, "half_life", m->half_life_us, HALF_LIVES * m->half_life_us, 1,
                        &m->ring));
    TRY(feat_claim_scope(p, f, &m->scope_text, &m->scope));
    feat_claim_cell(p, f, m->scope);
    f->n_columns = 1;
    return STATUS_OK;
}

/* round(2^20 x 2^(at / of)), 0 <= at < of: the product of 2^(1/2), 2^(1/4), ... over the bits of
 * at / of. */
static uint64_t power(int64_t at, int64_t of) {
    static const uint64_t roots[POWER_BITS] = {
        /* 2^62 x 2^(2^-i), i from 1 */
        6521908912666391106u, 5484249825272419512u, 5029079263719320435u, 4815862801830788490u,
        4712668792719003884u, 4661903986662671290u, 4636727017470743990u, 4624189567668517720u,
        4617933561212708776u, 4614808732577250068u, 4613247111281068008u, 4612466498810092975u,
        4612076242109103707u, 4611881126141011236u, 4611783571252412754u, 4611734794581956353u,
        4611710406440186476u, 4611698212417665819u, 4611692115418496524u, 4611689066921934630u};
    uint64_t v = 1ull << 62;
    for (int i = 0; i < POWER_BITS; i++) {
        at *= 2;
        if (at < of)
            continue;
        at -= of;
        v = (uint64_t)((unsigned __int128)v * roots[i] >> 62);
    }
    return (v + (1ull << 41)) >> 42;
}

static bool apply(const struct feat *f, const struct feat_update *u, struct slice old,
                  struct buf *out) {
    const struct params *m = f->params;
    uint64_t n = feat_match_count(&m->on, u);
    if (n == 0)
        return false;
    n *= power(u->event->event_time_us % m->half_life_us, m->half_life_us);
    return feat_ring_add(&m->ring, old, u->event->event_time_us, &n, out);
}

static void merge(const struct feat *f, struct slice cell, struct slice other, int sign,
                  struct buf *out) {
    const struct params *m = f->params;
    feat_ring_merge(&m->ring, cell, other, sign, out);
}

double feat_decayed_value(const struct feat *f, const struct feat_read *r, int row) {
    const struct params *m = f->params;
    struct slice cells[FEAT_SPOTS_MAX];
    int n = feat_read_cells(r, f, 0, row, cells);
    int64_t now = r->now_us / m->half_life_us;
    double sum = 0, into = (double)(r->now_us % m->half_life_us) / (double)m->half_life_us;
    for (int i = 0; i < n; i++) {
        struct feat_ring_reader ring;
        feat_ring_open(&m->ring, cells[i], &ring);
        while (feat_ring_next(&ring) && ring.bucket > now - m->ring.window_buckets)
            if (ring.bucket <= now)
                sum += ldexp((double)ring.counts[0], (int)(ring.bucket - now) - 20);
    }
    return n == 0 ? (double)NAN : sum * exp2(-into);
}

int64_t feat_decayed_half_life_us(const struct feat *f) {
    return ((const struct params *)f->params)->half_life_us;
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    dense[0] =
        feat_scaled(((const struct params *)f->params)->scale, feat_decayed_value(f, r, row));
}

static void expire(const struct feat *f, int64_t now_us, struct slice cell, struct buf *out) {
    const struct params *m = f->params;
    feat_ring_expire(&m->ring, now_us, cell, out);
}

const struct feat_kind feat_kind_decayed_count = {
    .name = "decayed_count",
    .doc = "Number of matching events, each worth half as much after every half-life.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .matches_only = true,
    .check = check,
    .apply = apply,
    .merge = merge,
    .extract = extract,
    .expire = expire,
};
