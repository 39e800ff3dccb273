/* arena.h: a bump allocator for things that die together (a request, a plan, a parsed file).
 *
 *     first ->[chunk........used|free]->[chunk...]->NULL
 *
 * arena_reset keeps the chunks, so a worker that has seen its largest request never allocates
 * again. One thread at a time. Memory is valid until reset or deinit. */
#pragma once
#include <stdarg.h>
#include <stddef.h>
#include "base/slice.h"

struct arena_chunk;
struct arena {
    struct arena_chunk *first, *now;
    size_t chunk_bytes; /* size of a new chunk, at least */
};

void arena_init(struct arena *a, size_t chunk_bytes); /* 0: 64 KiB */
void arena_deinit(struct arena *a);
void arena_reset(struct arena *a);
size_t arena_used(const struct arena *a);     /* bytes handed out since reset */
size_t arena_reserved(const struct arena *a); /* bytes held from the heap */

void *arena_alloc(struct arena *a, size_t bytes);         /* 16-byte aligned, not zeroed */
void *arena_alloc_aligned(struct arena *a, size_t bytes); /* 64-byte aligned, not zeroed */
void *arena_zalloc(struct arena *a, size_t bytes);        /* zeroed */
char *arena_strdup(struct arena *a, struct slice s);      /* NUL-terminated copy */
struct slice arena_dup(struct arena *a, struct slice s);  /* copy, also NUL-terminated */
char *arena_printf(struct arena *a, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define ARENA_NEW(a, type)      ((type *)arena_zalloc((a), sizeof(type)))
#define ARENA_ARRAY(a, type, n) ((type *)arena_zalloc((a), (size_t)(n) * sizeof(type)))
