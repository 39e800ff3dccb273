/* arena.c: a bump allocator over a list of chunks.
 *
 * Each new chunk is as large as all before it together, so a request of any size settles in few
 * chunks. Under AddressSanitizer the unused part of every chunk is poisoned, so a pointer kept
 * over a reset is caught. Deliberately no freeing of single objects and no locks. */
#include "base/arena.h"
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include "base/heap.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_POISONS 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define ARENA_POISONS 1
#endif
#ifdef ARENA_POISONS
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

struct arena_chunk {
    _Alignas(64) struct arena_chunk *next;
    size_t cap, used;
    _Alignas(64) char bytes[];
};

enum { CHUNK_BYTES_DEFAULT = 64 * 1024 };

void arena_init(struct arena *a, size_t chunk_bytes) {
    *a = (struct arena){.chunk_bytes = chunk_bytes ? chunk_bytes : CHUNK_BYTES_DEFAULT};
}

void arena_deinit(struct arena *a) {
    for (struct arena_chunk *c = a->first, *next; c; c = next) {
        next = c->next;
        ASAN_UNPOISON_MEMORY_REGION(c->bytes, c->cap);
        heap_free(c);
    }
    a->first = a->now = NULL;
}

void arena_reset(struct arena *a) {
    for (struct arena_chunk *c = a->first; c; c = c->next) {
        c->used = 0;
        ASAN_POISON_MEMORY_REGION(c->bytes, c->cap);
    }
    a->now = a->first;
}

size_t arena_used(const struct arena *a) {
    size_t n = 0;
    for (const struct arena_chunk *c = a->first; c; c = c->next)
        n += c->used;
    return n;
}

size_t arena_reserved(const struct arena *a) {
    size_t n = 0;
    for (const struct arena_chunk *c = a->first; c; c = c->next)
        n += sizeof *c + c->cap;
    return n;
}

static void *chunk_take(struct arena_chunk *c, size_t bytes, size_t align) {
    size_t at = (c->used + align - 1) & ~(align - 1);
    if (at > c->cap || bytes > c->cap - at)
        return NULL;
    c->used = at + bytes;
    ASAN_UNPOISON_MEMORY_REGION(c->bytes + at, bytes);
    return c->bytes + at;
}

static struct arena_chunk *chunk_new(struct arena *a, size_t bytes) {
    size_t cap = arena_reserved(a);
    if (cap < a->chunk_bytes)
        cap = a->chunk_bytes;
    if (cap < bytes)
        cap = bytes;
    if (cap > SIZE_MAX / 2)
        cap = bytes; /* heap_alloc_aligned will say no */
    struct arena_chunk *c = heap_alloc_aligned(sizeof *c + cap);
    c->cap = cap;
    ASAN_POISON_MEMORY_REGION(c->bytes, c->cap);
    return c;
}

static void *take(struct arena *a, size_t bytes, size_t align) {
    assert(a->chunk_bytes && "arena_init first");
    if (bytes == 0)
        bytes = 1; /* distinct, non-NULL pointers */
    struct arena_chunk *last = NULL;
    for (struct arena_chunk *c = a->now; c; last = c, c = c->next) {
        void *p = chunk_take(c, bytes, align);
        if (p) {
            a->now = c;
            return p;
        }
    }
    struct arena_chunk *c = chunk_new(a, bytes);
    if (last)
        last->next = c;
    else
        a->first = c;
    a->now = c;
    return chunk_take(c, bytes, align);
}

void *arena_alloc(struct arena *a, size_t bytes) { return take(a, bytes, 16); }
void *arena_alloc_aligned(struct arena *a, size_t bytes) { return take(a, bytes, 64); }
void *arena_zalloc(struct arena *a, size_t bytes) { return memset(take(a, bytes, 16), 0, bytes); }

char *arena_strdup(struct arena *a, struct slice s) {
    char *p = take(a, s.n + 1, 1);
    if (s.n)
        memcpy(p, s.p, s.n);
    p[s.n] = '\0';
    return p;
}

struct slice arena_dup(struct arena *a, struct slice s) {
    return (struct slice){arena_strdup(a, s), s.n};
}

char *arena_printf(struct arena *a, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    assert(n >= 0);
    char *p = take(a, (size_t)n + 1, 1);
    va_start(args, format);
    vsnprintf(p, (size_t)n + 1, format, args);
    va_end(args);
    return p;
}
