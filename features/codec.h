/* codec.h: how times, numbers and stamps are packed inside cells. All readers take a cursor, so
 * hostile bytes end in `bad`, never past the end. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "base/buf.h"

/* cursor_varint with the one-byte case in line: most of a cell is counts below 128. */
static inline uint64_t feat_get_varint(struct cursor *c) {
    if (!c->bad && c->p < c->end && *c->p < 0x80)
        return *c->p++;
    return cursor_varint(c);
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

/* A number: whole ones as varints, float-exact ones as 4 bytes, the rest as 8. NaN is "missing". */
void feat_put_number(struct buf *b, double v);
double feat_get_number(struct cursor *c);

/* One of a list of keys, `last` being the one before it, 0 at first: 1 to 7 bytes where their plain
 * forms differ in the low bits only, as those of packed names with one prefix do; 8 or 9 else. */
void feat_put_key(struct buf *b, uint64_t last, uint64_t key);
uint64_t feat_get_key(struct cursor *c, uint64_t last);

/* The order in which "last" is judged of a field, whatever the order of arrival. */
struct feat_stamp {
    int64_t time_us;
    int32_t partition;
    int64_t offset;
};
int feat_stamp_compare(struct feat_stamp a, struct feat_stamp b); /* <0, 0, >0 */
void feat_put_stamp(struct buf *b, struct feat_stamp s);
struct feat_stamp feat_get_stamp(struct cursor *c);

/* Of a cell of `n` varints (empty: all 0): feat_kind.merge's contract. Never below 0. */
void feat_merge_varints(struct slice cell, struct slice other, int sign, int n, struct buf *out);
