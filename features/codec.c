/* codec.c: packing of times, numbers, keys and stamps. Every value has exactly one encoding, since
 * equal states must be equal bytes. */
#include "features/codec.h"
#include "features/keys.h"
#include <math.h>
#include <string.h>

enum { TIME_S, TIME_MS, TIME_US, TIME_RAW };
static const uint64_t time_units[] = {
    [TIME_S] = FEAT_TIME_S, [TIME_MS] = FEAT_TIME_MS, [TIME_US] = FEAT_TIME_US, [TIME_RAW] = 1};

void feat_put_time_in(struct buf *b, int64_t time_us, uint64_t unit_us) {
    const uint64_t t = (uint64_t)time_us / unit_us;
    if (t < 1ull << 61) {
        buf_add_varint(b, t << 2 | (unit_us == FEAT_TIME_S    ? TIME_S
                                    : unit_us == FEAT_TIME_MS ? TIME_MS
                                                              : TIME_US));
    } else {
        buf_add_varint(b, TIME_RAW);
        buf_add_u64(b, t);
    }
}

int64_t feat_get_time_in(struct cursor *c, uint64_t *unit_us) {
    uint64_t v = feat_get_varint(c);
    *unit_us = time_units[v & 3];
    return (int64_t)((v & 3) == TIME_RAW ? cursor_u64(c) : (v >> 2) * *unit_us);
}

void feat_put_time(struct buf *b, int64_t time_us) {
    feat_put_time_in(b, time_us, feat_time_unit(time_us, FEAT_TIME_S));
}

int64_t feat_get_time(struct cursor *c) {
    uint64_t unit_us;
    return feat_get_time_in(c, &unit_us);
}

static bool is_whole(double v) { return fabs(v) < (double)(1 << 30) && v == (double)(int64_t)v; }

static const double powers[FEAT_DECIMALS_MAX + 1] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6};

/* How few decimals say v to the bit, and in at most four bytes; 0: none do. */
static int decimals_of(double v, int64_t *whole) {
    for (int k = 1; k <= FEAT_DECIMALS_MAX; k++) {
        double scaled = round(v * powers[k]);
        if (!(fabs(scaled) < (double)(1 << 27)))
            return 0;
        if (scaled / powers[k] == v) {
            *whole = (int64_t)scaled;
            return k;
        }
    }
    return 0;
}

void feat_put_number(struct buf *b, double v) {
    int64_t whole;
    int decimals;
    union {
        float f;
        uint32_t u;
    } f32 = {.f = (float)v};
    union {
        double f;
        uint64_t u;
    } f64 = {.f = v};
    if (!isfinite(v)) {
        buf_add_varint(b, FEAT_NUMBER_MISSING);
    } else if (is_whole(v)) {
        buf_add_varint(b, FEAT_NUMBER_WHOLE + zigzag((int64_t)v));
    } else if ((decimals = decimals_of(v, &whole)) > 0) {
        buf_add_byte(b, (uint8_t)(FEAT_NUMBER_TENTHS + decimals - 1));
        buf_add_varint(b, zigzag(whole));
    } else if ((double)f32.f == v) {
        buf_add_varint(b, FEAT_NUMBER_F32);
        buf_add_u32(b, f32.u);
    } else {
        buf_add_varint(b, FEAT_NUMBER_F64);
        buf_add_u64(b, f64.u);
    }
}

double feat_get_number(struct cursor *c) {
    union {
        float f;
        uint32_t u;
    } f32;
    union {
        double f;
        uint64_t u;
    } f64;
    uint64_t v = feat_get_varint(c);
    switch (v) {
    case FEAT_NUMBER_MISSING:
        return NAN;
    case FEAT_NUMBER_F64:
        f64.u = cursor_u64(c);
        return f64.f;
    case FEAT_NUMBER_F32:
        f32.u = cursor_u32(c);
        return (double)f32.f;
    default:
        if (v < FEAT_NUMBER_WHOLE)
            return (double)unzigzag(feat_get_varint(c)) / powers[v - FEAT_NUMBER_TENTHS + 1];
        return (double)unzigzag(v - FEAT_NUMBER_WHOLE);
    }
}

/* ---- bytes, greatest first ---- */

enum { AT_HAND = 9 }; /* bytes that a key or a step takes at most */

static void put_bytes(struct buf *b, uint64_t v, int n) {
    for (int i = n - 1; i >= 0; i--)
        buf_add_byte(b, (uint8_t)(v >> (8 * i)));
}

/* The n bytes from here on as the low ones of a number. */
static uint64_t first_bytes(uint64_t eight, int n) { return n == 0 ? 0 : eight >> (64 - 8 * n); }

/* The next AT_HAND bytes where they stand, or a copy that goes on with zeros. */
static const uint8_t *look(const struct cursor *c, uint8_t *copy) {
    const size_t left = (size_t)(c->end - c->p);
    if (left >= AT_HAND)
        return c->p;
    memset(copy, 0, AT_HAND);
    if (left > 0)
        memcpy(copy, c->p, left);
    return copy;
}

static uint64_t eight_at(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return __builtin_bswap64(v);
}

/* Goes on by n bytes, if so many are left; else reads nothing. */
static uint64_t passed(struct cursor *c, int n, uint64_t v) {
    if (c->bad || n > c->end - c->p) {
        c->bad = 1;
        return 0;
    }
    c->p += n;
    return v;
}

/* ---- keys ---- */

/* The bits in which two plain forms differ. First byte 1xxxxxxx: 63 bits in 8 bytes, which is what
 * two hashes take (keys.h). Else after the 0 as many ones as bytes follow, at most five, and
 * another 0: 6 bits and 7 more a byte. 01111110: the bits at both ends: a byte says how many bytes
 * of the upper (high half) and of the lower end follow. 01111111: 64 bits follow. */
enum {
    KEY_STEPS_MAX = 5,
    KEY_ENDS = 0x7E,
    KEY_WHOLE = 0x7F,
    KEY_HASHES = 0x80,
    KEY_HASH_BITS = 63,
    KEY_ENDS_MAX = 6
};

static int bytes_of(uint64_t v) { return v == 0 ? 0 : 8 - __builtin_clzll(v) / 8; }

/* The bytes of the two ends; of equal ones that with the shorter upper end. */
static int ends_of(uint64_t v, int *upper, int *lower) {
    int best = KEY_ENDS_MAX + 1;
    for (int n = 0; n <= KEY_ENDS_MAX; n++) {
        int rest = bytes_of(v << (8 * n) >> (8 * n));
        if (n + rest < best) {
            best = n + rest;
            *upper = n;
            *lower = rest;
        }
    }
    return best;
}

void feat_put_key(struct buf *b, uint64_t last, uint64_t key) {
    uint64_t v = feat_key_plain(last) ^ feat_key_plain(key);
    int n = 0, upper, lower, ends;
    while (n < KEY_STEPS_MAX && v >> (6 + 7 * n) != 0)
        n++;
    if (v >> (6 + 7 * n) == 0) {
        uint64_t ones = ((1ull << n) - 1) << (7 - n);
        put_bytes(b, ones << (8 * n) | v, n + 1);
        return;
    }
    ends = ends_of(v, &upper, &lower);
    if (v >> KEY_HASH_BITS == 0 && ends >= KEY_ENDS_MAX) {
        put_bytes(b, 1ull << KEY_HASH_BITS | v, 8);
    } else if (ends <= KEY_ENDS_MAX) {
        buf_add_byte(b, KEY_ENDS);
        buf_add_byte(b, (uint8_t)(upper << 4 | lower));
        put_bytes(b, first_bytes(v, upper), upper);
        put_bytes(b, v, lower);
    } else {
        buf_add_byte(b, KEY_WHOLE);
        put_bytes(b, v, 8);
    }
}

static uint64_t get_ends(struct cursor *c, const uint8_t *p) {
    const int upper = p[1] >> 4, lower = p[1] & 15;
    const uint64_t six = eight_at(p + 1) << 8;
    if (upper + lower > KEY_ENDS_MAX) {
        c->bad = 1;
        return 0;
    }
    uint64_t v = upper == 0 ? 0 : first_bytes(six, upper) << (64 - 8 * upper);
    return passed(c, 2 + upper + lower, v | first_bytes(six << (8 * upper), lower));
}

uint64_t feat_get_key_rest(struct cursor *c) {
    uint8_t copy[AT_HAND];
    const uint8_t *p = look(c, copy);
    const uint64_t first = p[0], eight = eight_at(p + 1);
    if (first >= KEY_HASHES)
        return passed(c, 8, (first & 0x7F) << 56 | first_bytes(eight, 7));
    if (first >= KEY_ENDS)
        return first == KEY_WHOLE ? passed(c, 9, eight) : get_ends(c, p);
    const int n = __builtin_clz(~((uint32_t)first << 25));
    return passed(c, n + 1, (first & (0x3Fu >> n)) << (8 * n) | first_bytes(eight, n));
}

uint64_t feat_get_key(struct cursor *c, uint64_t last) {
    return feat_key_spread(feat_key_plain(last) ^ feat_get_key_step(c));
}

/* ---- steps ---- */

/* By how many bytes follow: the first bytes that say so begin here, and hold the upper bits. */
static const uint8_t step_from[] = {0, 16, 144, 160, 224, 240};
enum { STEP_WHOLE = 255, STEP_WIDTHS = sizeof step_from };

void feat_put_step(struct buf *b, uint64_t step) {
    for (int n = 0; n < STEP_WIDTHS; n++) {
        const int to = n + 1 < STEP_WIDTHS ? step_from[n + 1] : STEP_WHOLE;
        if (step >> (8 * n) < (uint64_t)(to - step_from[n])) {
            put_bytes(b, ((uint64_t)step_from[n] << (8 * n)) + step, n + 1);
            return;
        }
    }
    buf_add_byte(b, STEP_WHOLE);
    put_bytes(b, step, 8);
}

uint64_t feat_get_step(struct cursor *c) {
    uint8_t copy[AT_HAND];
    const uint8_t *p = look(c, copy);
    const uint64_t eight = eight_at(p + 1);
    if (p[0] == STEP_WHOLE)
        return passed(c, 9, eight);
    const int n = (p[0] >= 16) + (p[0] >= 144) + (p[0] >= 160) + (p[0] >= 224) + (p[0] >= 240);
    return passed(c, n + 1, (uint64_t)(p[0] - step_from[n]) << (8 * n) | first_bytes(eight, n));
}

int feat_stamp_compare(struct feat_stamp a, struct feat_stamp b) {
    if (a.time_us != b.time_us)
        return a.time_us < b.time_us ? -1 : 1;
    if (a.partition != b.partition)
        return a.partition < b.partition ? -1 : 1;
    if (a.offset != b.offset)
        return a.offset < b.offset ? -1 : 1;
    return 0;
}

void feat_put_stamp(struct buf *b, struct feat_stamp s) {
    feat_put_time(b, s.time_us);
    buf_add_varint(b, zigzag(s.partition));
    buf_add_varint(b, zigzag(s.offset));
}

struct feat_stamp feat_get_stamp(struct cursor *c) {
    struct feat_stamp s;
    s.time_us = feat_get_time(c);
    s.partition = (int32_t)unzigzag(feat_get_varint(c));
    s.offset = unzigzag(feat_get_varint(c));
    return s;
}

void feat_skip_stamp(struct cursor *c) {
    const bool raw = c->p < c->end && (*c->p & 3) == TIME_RAW;
    feat_skip_varint(c);
    if (raw)
        feat_skip_bytes(c, 8);
    feat_skip_varint(c);
    feat_skip_varint(c);
}

void feat_merge_varints(struct slice cell, struct slice other, int sign, int n, struct buf *out) {
    struct cursor a = cursor_of(cell.p, cell.n), b = cursor_of(other.p, other.n);
    size_t before = out->n;
    uint64_t any = 0;
    for (int i = 0; i < n; i++) {
        uint64_t x = cell.n > 0 ? feat_get_varint(&a) : 0;
        uint64_t y = other.n > 0 ? feat_get_varint(&b) : 0;
        uint64_t v = sign > 0 ? x + y : x > y ? x - y : 0;
        any |= v;
        buf_add_varint(out, v);
    }
    if (any == 0)
        out->n = before;
}
