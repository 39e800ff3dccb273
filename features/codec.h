/* codec.h: how times, numbers and stamps are packed inside cells. All readers take a cursor, so
 * hostile bytes end in `bad`, never past the end. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include "base/buf.h"

/* cursor_varint with the one-byte case in line: most of a cell is counts below 128. */
static inline uint64_t feat_get_varint(struct cursor *c) {
    if (!c->bad && c->p < c->end && *c->p < 0x80)
        return *c->p++;
    return cursor_varint(c);
}

/* Goes by one, whatever it says. */
static inline void feat_skip_varint(struct cursor *c) {
    const uint8_t *p = c->p;
    while (p < c->end && *p >= 0x80)
        p++;
    c->bad |= p >= c->end || p - c->p > 9;
    c->p = c->bad ? c->p : p + 1;
}

static inline void feat_skip_bytes(struct cursor *c, uint64_t n) {
    c->bad |= n > (uint64_t)(c->end - c->p);
    c->p += c->bad ? 0 : n;
}

/* buf_add_varint, likewise. */
static inline void feat_put_varint(struct buf *b, uint64_t v) {
    if (v < 0x80 && b->n < b->cap)
        b->p[b->n++] = (char)v;
    else
        buf_add_varint(b, v);
}

/* Microseconds >= 0. Whole seconds and milliseconds are written as such: 2-5 bytes, not 8. */
void feat_put_time(struct buf *b, int64_t time_us);
int64_t feat_get_time(struct cursor *c);
/* Units are so many microseconds. The coarsest that says both a time and what `unit_us` says. */
#define FEAT_TIME_S  1000000
#define FEAT_TIME_MS 1000
#define FEAT_TIME_US 1
static inline uint64_t feat_time_unit(int64_t time_us, uint64_t unit_us) {
    if ((uint64_t)time_us % unit_us == 0)
        return unit_us;
    return unit_us > FEAT_TIME_MS && (uint64_t)time_us % FEAT_TIME_MS == 0 ? FEAT_TIME_MS
                                                                           : FEAT_TIME_US;
}
/* A time in a unit that it is whole in, and back with the unit. */
void feat_put_time_in(struct buf *b, int64_t time_us, uint64_t unit_us);
int64_t feat_get_time_in(struct cursor *c, uint64_t *unit_us);

/* A number: whole ones as varints, those of few decimals (a price of 12.34) as whole ones and a
 * power of ten, float-exact ones as 4 bytes, the rest as 8. NaN is "missing". */
void feat_put_number(struct buf *b, double v);
double feat_get_number(struct cursor *c);
/* What one begins with. TENTHS + k: a whole number of 10^-(k + 1); from WHOLE on: it is one. */
enum {
    FEAT_NUMBER_MISSING,
    FEAT_NUMBER_F64,
    FEAT_NUMBER_F32,
    FEAT_NUMBER_TENTHS,
    FEAT_DECIMALS_MAX = 6,
    FEAT_NUMBER_WHOLE = FEAT_NUMBER_TENTHS + FEAT_DECIMALS_MAX
};
/* As feat_get_number, for who wants another: many more are gone by than read. */
static inline void feat_skip_number(struct cursor *c) {
    const unsigned first = c->p < c->end ? *c->p : 0;
    feat_skip_varint(c);
    if (first >= FEAT_NUMBER_WHOLE || first == FEAT_NUMBER_MISSING)
        return;
    if (first >= FEAT_NUMBER_TENTHS)
        feat_skip_varint(c);
    else
        feat_skip_bytes(c, first == FEAT_NUMBER_F64 ? 8 : 4);
}

/* One of a list of keys, `last` being the one before it, 0 at first: 1 to 6 bytes where their plain
 * forms differ in the low bits only, as those of packed names with one prefix do; 8 for two
 * hashes; 3 to 7 for a short packed name after nothing; 9 else. */
#define FEAT_KEY_BYTES_MAX 9
void feat_put_key(struct buf *b, uint64_t last, uint64_t key);
uint64_t feat_get_key(struct cursor *c, uint64_t last);
/* The difference of the plain forms alone, for who reads many; the usual cases in line. */
uint64_t feat_get_key_rest(struct cursor *c);
static inline uint64_t feat_get_key_step(struct cursor *c) {
    uint64_t eight;
    if (c->bad || c->end - c->p < 9 || c->p[0] == 0x7E || c->p[0] == 0x7F)
        return feat_get_key_rest(c);
    const uint32_t first = c->p[0];
    memcpy(&eight, c->p + 1, sizeof eight);
    eight = __builtin_bswap64(eight);
    if (first >= 0x80) {
        c->p += 8;
        return (uint64_t)(first & 0x7F) << 56 | eight >> 8;
    }
    const int n = __builtin_clz(~(first << 25)); /* bytes that follow, at most 5 */
    c->p += n + 1;
    return (uint64_t)(first & (0x3Fu >> n)) << (8 * n) | (eight >> 1) >> (63 - 8 * n);
}

/* A whole number that is small, about 2^15 or about 2^30, as the times between events of one list
 * are: 1 byte below 16, 2 below 2^15, 3 below 2^20, 4 below 2^30, 5, 6 or 9. */
void feat_put_step(struct buf *b, uint64_t step);
uint64_t feat_get_step(struct cursor *c);

/* The order in which "last" is judged of a field, whatever the order of arrival. */
struct feat_stamp {
    int64_t time_us;
    int32_t partition;
    int64_t offset;
};
int feat_stamp_compare(struct feat_stamp a, struct feat_stamp b); /* <0, 0, >0 */
void feat_put_stamp(struct buf *b, struct feat_stamp s);
struct feat_stamp feat_get_stamp(struct cursor *c);
void feat_skip_stamp(struct cursor *c);

/* Of a cell of `n` varints (empty: all 0): feat_kind.merge's contract. Never below 0. */
void feat_merge_varints(struct slice cell, struct slice other, int sign, int n, struct buf *out);
