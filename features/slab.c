/* slab.c: size-class free lists over 1 MiB chunks (the idea of Bonwick's slab allocator, without
 * objects). Chunks are never given back before the end; large runs are. */
#include "features/slab.h"
#include "base/heap.h"
#include <assert.h>
#include <string.h>

enum {
    UNIT = 8,
    SMALL_MAX = 256,
    CHUNK_BYTES = UNIT << SLAB_CHUNK_BITS,
    LARGE = 64 * 1024, /* above: a chunk of its own */
};

/* Class of a size, and the size of the class. */
static int class_of(size_t bytes, size_t *rounded) {
    if (bytes <= SMALL_MAX) {
        size_t units = bytes == 0 ? 1 : (bytes + UNIT - 1) / UNIT;
        *rounded = units * UNIT;
        return (int)units - 1;
    }
    int log = 63 - __builtin_clzll((unsigned long long)bytes - 1); /* 2^log < bytes <= 2^(log+1) */
    size_t step = (size_t)1 << (log - 4);
    size_t steps = (bytes - ((size_t)1 << log) + step - 1) / step; /* 1..16 */
    *rounded = ((size_t)1 << log) + steps * step;
    return SMALL_MAX / UNIT + (log - 8) * 16 + (int)steps - 1;
}

void slab_deinit(struct slab *s) {
    for (uint32_t i = 0; i < s->n_chunks; i++)
        heap_free(s->chunks[i]);
    heap_free(s->chunks);
    *s = (struct slab){0};
}

/* A slot for a new chunk: one that a large run left, or the next. */
static uint32_t free_slot(struct slab *s) {
    if (s->n_holes > 0) {
        s->n_holes--;
        for (uint32_t i = 0;; i++)
            if (s->chunks[i] == NULL)
                return i;
    }
    if (s->n_chunks == s->cap_chunks) {
        s->cap_chunks = s->cap_chunks == 0 ? 16 : s->cap_chunks * 2;
        s->chunks = heap_grow(s->chunks, s->cap_chunks * sizeof *s->chunks);
    }
    assert(s->n_chunks < 1u << 23);
    return s->n_chunks++;
}

/* A reference to the first run of a new chunk; unit 0 stays unused, so that it is never 0. */
static uint64_t add_chunk(struct slab *s, size_t bytes) {
    uint32_t slot = free_slot(s);
    s->chunks[slot] = heap_alloc(bytes);
    s->bytes += bytes;
    return ((uint64_t)slot << SLAB_CHUNK_BITS) + 1;
}

static void push_free(struct slab *s, int class, uint64_t ref) {
    memcpy(slab_at(s, ref), &s->free_runs[class], sizeof ref);
    s->free_runs[class] = ref;
}

/* What is left of the chunk being cut goes to the free lists, so that it is not lost. */
static void retire_open(struct slab *s) {
    while (s->open_units > 0) {
        uint32_t units = s->open_units < SMALL_MAX / UNIT ? s->open_units : SMALL_MAX / UNIT;
        push_free(s, (int)units - 1, s->open);
        s->open += units;
        s->open_units -= units;
    }
}

uint64_t slab_alloc(struct slab *s, size_t bytes) {
    size_t rounded;
    int class = class_of(bytes, &rounded);
    if (rounded > LARGE)
        return add_chunk(s, UNIT + rounded);
    uint64_t ref = s->free_runs[class];
    if (ref != 0) {
        memcpy(&s->free_runs[class], slab_at(s, ref), sizeof ref);
        return ref;
    }
    uint32_t units = (uint32_t)(rounded / UNIT);
    if (units > s->open_units) {
        retire_open(s);
        s->open = add_chunk(s, CHUNK_BYTES);
        s->open_units = CHUNK_BYTES / UNIT - 1;
    }
    ref = s->open;
    s->open += units;
    s->open_units -= units;
    return ref;
}

void slab_free(struct slab *s, uint64_t ref, size_t bytes) {
    size_t rounded;
    int class = class_of(bytes, &rounded);
    if (rounded <= LARGE) {
        push_free(s, class, ref);
        return;
    }
    uint32_t index = (uint32_t)(ref >> SLAB_CHUNK_BITS);
    heap_free(s->chunks[index]);
    s->bytes -= UNIT + rounded;
    s->chunks[index] = NULL;
    s->n_holes++;
}

int slab_fits(size_t old_bytes, size_t new_bytes) {
    size_t old_rounded, new_rounded;
    class_of(old_bytes, &old_rounded);
    class_of(new_bytes, &new_rounded);
    return old_rounded == new_rounded;
}
