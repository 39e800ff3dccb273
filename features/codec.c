/* codec.c: packing of times, numbers, keys and stamps. Every value has exactly one encoding, since
 * equal states must be equal bytes. */
#include "features/codec.h"
#include "features/keys.h"
#include <math.h>

enum { TIME_S, TIME_MS, TIME_US, TIME_RAW };
enum { NUMBER_MISSING, NUMBER_F64, NUMBER_F32, NUMBER_WHOLE };

void feat_put_time(struct buf *b, int64_t time_us) {
    uint64_t t = (uint64_t)time_us;
    if (t % 1000000 == 0 && t / 1000000 < 1ull << 61) {
        buf_add_varint(b, (t / 1000000) << 2 | TIME_S);
    } else if (t % 1000 == 0 && t / 1000 < 1ull << 61) {
        buf_add_varint(b, (t / 1000) << 2 | TIME_MS);
    } else if (t < 1ull << 61) {
        buf_add_varint(b, t << 2 | TIME_US);
    } else {
        buf_add_varint(b, TIME_RAW);
        buf_add_u64(b, t);
    }
}

int64_t feat_get_time(struct cursor *c) {
    uint64_t v = feat_get_varint(c);
    switch (v & 3) {
    case TIME_S:
        return (int64_t)((v >> 2) * 1000000);
    case TIME_MS:
        return (int64_t)((v >> 2) * 1000);
    case TIME_US:
        return (int64_t)(v >> 2);
    default:
        return (int64_t)cursor_u64(c);
    }
}

static bool is_whole(double v) { return fabs(v) < (double)(1 << 30) && v == (double)(int64_t)v; }

void feat_put_number(struct buf *b, double v) {
    union {
        float f;
        uint32_t u;
    } f32 = {.f = (float)v};
    union {
        double f;
        uint64_t u;
    } f64 = {.f = v};
    if (!isfinite(v)) {
        buf_add_varint(b, NUMBER_MISSING);
    } else if (is_whole(v)) {
        buf_add_varint(b, NUMBER_WHOLE + zigzag((int64_t)v));
    } else if ((double)f32.f == v) {
        buf_add_varint(b, NUMBER_F32);
        buf_add_u32(b, f32.u);
    } else {
        buf_add_varint(b, NUMBER_F64);
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
    case NUMBER_MISSING:
        return NAN;
    case NUMBER_F64:
        f64.u = cursor_u64(c);
        return f64.f;
    case NUMBER_F32:
        f32.u = cursor_u32(c);
        return (double)f32.f;
    default:
        return (double)unzigzag(v - NUMBER_WHOLE);
    }
}

/* The bits in which two plain forms differ, greatest first. First byte 1xxxxxxx: 63 bits in 8
 * bytes, which is what two hashes take. Else after the 0 as many ones as bytes follow, at most six,
 * and another 0: 6 bits and 7 more a byte. 01111111: 64 bits follow. */
enum { KEY_STEPS_MAX = 6, KEY_WHOLE = 0x7F, KEY_HASHES = 0x80 };

static void put_bytes(struct buf *b, uint64_t v, int n) {
    for (int i = n - 1; i >= 0; i--)
        buf_add_byte(b, (uint8_t)(v >> (8 * i)));
}

static uint64_t get_bytes(struct cursor *c, int n, uint64_t v) {
    struct slice s = cursor_bytes(c, (size_t)n);
    for (size_t i = 0; i < s.n; i++)
        v = v << 8 | (uint8_t)s.p[i];
    return v;
}

void feat_put_key(struct buf *b, uint64_t last, uint64_t key) {
    uint64_t v = feat_key_plain(last) ^ feat_key_plain(key);
    int n = 0;
    while (n < KEY_STEPS_MAX && v >> (6 + 7 * n) != 0)
        n++;
    if (v >> (6 + 7 * n) == 0) {
        uint64_t ones = ((1ull << n) - 1) << (7 - n);
        put_bytes(b, ones << (8 * n) | v, n + 1);
    } else if (v >> 63 == 0) {
        put_bytes(b, 1ull << 63 | v, 8);
    } else {
        buf_add_byte(b, KEY_WHOLE);
        put_bytes(b, v, 8);
    }
}

uint64_t feat_get_key(struct cursor *c, uint64_t last) {
    uint64_t v, first = cursor_u8(c);
    if (first >= KEY_HASHES) {
        v = get_bytes(c, 7, first & 0x7F);
    } else if (first == KEY_WHOLE) {
        v = get_bytes(c, 8, 0);
    } else {
        int n = 0;
        while (first & (0x40u >> n))
            n++;
        v = get_bytes(c, n, first & (0x3Fu >> n));
    }
    return feat_key_spread(feat_key_plain(last) ^ v);
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
