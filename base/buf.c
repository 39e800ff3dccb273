/* buf.c: growable bytes, and a cursor that survives hostile ones.
 *
 * Integers are written byte by byte, low end first: the same file on every machine, and compilers
 * turn it into one store. */
#include "base/buf.h"
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "base/heap.h"

void buf_deinit(struct buf *b) {
    heap_free(b->p);
    *b = (struct buf){0};
}

void buf_reserve(struct buf *b, size_t more) {
    if (b->p && more <= b->cap - b->n)
        return;
    size_t cap = b->cap < 64 ? 64 : b->cap;
    while (cap - b->n < more) {
        assert(cap <= SIZE_MAX / 2);
        cap *= 2;
    }
    b->p = heap_grow(b->p, cap);
    b->cap = cap;
}

void buf_add(struct buf *b, const void *p, size_t n) {
    if (n == 0)
        return;
    buf_reserve(b, n);
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

void buf_add_byte(struct buf *b, uint8_t c) {
    buf_reserve(b, 1);
    b->p[b->n++] = (char)c;
}

void buf_add_str(struct buf *b, const char *s) { buf_add(b, s, strlen(s)); }

void buf_add_varint(struct buf *b, uint64_t v) {
    buf_reserve(b, 10);
    for (; v >= 0x80; v >>= 7)
        b->p[b->n++] = (char)(v | 0x80);
    b->p[b->n++] = (char)v;
}

static void add_little(struct buf *b, uint64_t v, int bytes) {
    buf_reserve(b, 8);
    for (int i = 0; i < bytes; i++)
        b->p[b->n++] = (char)(v >> (8 * i));
}

void buf_add_u32(struct buf *b, uint32_t v) { add_little(b, v, 4); }
void buf_add_u64(struct buf *b, uint64_t v) { add_little(b, v, 8); }

void buf_printf(struct buf *b, const char *format, ...) {
    va_list args;
    va_start(args, format);
    buf_reserve(b, 64);
    int n = vsnprintf(b->p + b->n, b->cap - b->n, format, args);
    va_end(args);
    assert(n >= 0);
    if ((size_t)n >= b->cap - b->n) {
        buf_reserve(b, (size_t)n + 1);
        va_start(args, format);
        vsnprintf(b->p + b->n, (size_t)n + 1, format, args);
        va_end(args);
    }
    b->n += (size_t)n;
}

struct slice cursor_bytes(struct cursor *c, size_t n) {
    if (c->bad || n > (size_t)(c->end - c->p)) {
        c->bad = 1;
        return (struct slice){NULL, 0};
    }
    struct slice s = {(const char *)c->p, n};
    c->p += n;
    return s;
}

uint8_t cursor_u8(struct cursor *c) {
    struct slice s = cursor_bytes(c, 1);
    return s.n ? (uint8_t)*s.p : 0;
}

/* Rows are made of these. Compilers make one load of the four bytes; a loop they leave a loop. */
static uint32_t little(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint32_t cursor_u32(struct cursor *c) {
    struct slice s = cursor_bytes(c, sizeof(uint32_t));
    return s.n ? little((const uint8_t *)s.p) : 0;
}

uint64_t cursor_u64(struct cursor *c) {
    struct slice s = cursor_bytes(c, sizeof(uint64_t));
    const uint8_t *p = (const uint8_t *)s.p;
    return s.n ? (uint64_t)little(p) | (uint64_t)little(p + 4) << 32 : 0;
}

uint64_t cursor_varint(struct cursor *c) {
    uint64_t v = 0;
    const uint8_t *p = c->p;
    for (int shift = 0; !c->bad && shift < 64 && p < c->end; shift += 7) {
        uint8_t byte = *p++;
        if (shift == 63 && byte > 1)
            break; /* more than 64 bits */
        v |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) {
            c->p = p;
            return v;
        }
    }
    c->bad = 1;
    return 0;
}
