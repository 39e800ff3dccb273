/* slab.h: memory for millions of small runs of bytes without malloc's overhead.
 *
 * Sizes are rounded to a class (steps of 8 bytes up to 256, then 1/16 of a power of two), runs are
 * cut from 1 MiB chunks, and freed runs are reused by their class. A run is named by a 40-bit
 * reference (chunk, 8-byte unit), never 0. Runs above 64 KiB get a chunk of their own. One thread.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#define SLAB_CLASSES 160
struct slab {
    uint8_t **chunks;
    uint32_t n_chunks, cap_chunks;
    uint64_t free_runs[SLAB_CLASSES]; /* 0: none; a free run starts with the next's reference */
    uint32_t n_holes;                 /* chunk slots that large runs left */
    uint64_t open;                    /* next unit of the chunk being cut, as a reference */
    uint32_t open_units;              /* left in it */
    uint64_t bytes;                   /* held from the heap */
};
void slab_deinit(struct slab *s); /* a zeroed struct is an empty slab */
uint64_t slab_alloc(struct slab *s, size_t bytes);
void slab_free(struct slab *s, uint64_t ref, size_t bytes); /* bytes as given to slab_alloc */
/* Do two sizes share a class, so that a run can be kept? */
int slab_fits(size_t old_bytes, size_t new_bytes);

#define SLAB_CHUNK_BITS 17 /* units per chunk: 1 MiB / 8 */
static inline void *slab_at(const struct slab *s, uint64_t ref) {
    return s->chunks[ref >> SLAB_CHUNK_BITS] + (ref & ((1u << SLAB_CHUNK_BITS) - 1)) * 8;
}
