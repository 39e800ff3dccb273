/* buf.h: growable bytes: the output side of codecs, JSON and dumps. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "base/slice.h"

struct buf {
    char *p;
    size_t n, cap;
};

void buf_deinit(struct buf *b); /* a zeroed struct is a valid empty buffer */
static inline void buf_clear(struct buf *b) { b->n = 0; }
void buf_reserve(struct buf *b, size_t more);
void buf_add(struct buf *b, const void *p, size_t n);
void buf_add_byte(struct buf *b, uint8_t c);
void buf_add_str(struct buf *b, const char *s);
void buf_add_varint(struct buf *b, uint64_t v); /* LEB128, 1-10 bytes */
void buf_add_u32(struct buf *b, uint32_t v);    /* little-endian */
void buf_add_u64(struct buf *b, uint64_t v);
void buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
static inline struct slice buf_slice(const struct buf *b) { return (struct slice){b->p, b->n}; }

/* A cursor over bytes that may be hostile: reads past the end set `bad`, return 0 and stay put. */
struct cursor {
    const uint8_t *p, *end;
    int bad;
};
static inline struct cursor cursor_of(const void *p, size_t n) {
    return (struct cursor){(const uint8_t *)p, (const uint8_t *)p + n, 0};
}
uint8_t cursor_u8(struct cursor *c);
uint32_t cursor_u32(struct cursor *c);
uint64_t cursor_u64(struct cursor *c);
uint64_t cursor_varint(struct cursor *c);
struct slice cursor_bytes(struct cursor *c, size_t n);

/* zig-zag, so that small negative numbers are short varints */
static inline uint64_t zigzag(int64_t v) { return ((uint64_t)v << 1) ^ (uint64_t)(v >> 63); }
static inline int64_t unzigzag(uint64_t v) { return (int64_t)(v >> 1) ^ -(int64_t)(v & 1); }
