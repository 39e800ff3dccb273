/* slice.h: borrowed bytes, {pointer, length}. Not NUL-terminated. Never owns. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct slice {
    const char *p;
    size_t n;
};

/* for printf("%.*s", SLICE_ARG(s)) */
#define SLICE_ARG(s)       (int)(s).n, (s).p
#define SLICE_LIT(literal) ((struct slice){(literal), sizeof(literal) - 1})

static inline struct slice slice_of(const char *cstr) {
    return (struct slice){cstr, cstr ? strlen(cstr) : 0};
}
static inline bool slice_equal(struct slice a, struct slice b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}
static inline bool slice_is(struct slice a, const char *cstr) {
    return slice_equal(a, slice_of(cstr));
}
