/* slab.h: memory for millions of small runs of bytes without malloc's overhead and without holes.
 *
 * Sizes are rounded to a class (steps of 8 bytes up to 256, then 1/16 of a power of two). A class
 * is one dense array of equal runs over 16 KiB pages: where a run is freed, the class's last run
 * moves in, and an emptied page serves any other class. Records that all grow through the classes
 * together, as a young state's do, would otherwise leave more holes than records. A run is named by
 * a 40-bit reference (page, 8-byte unit), never 0. Runs above 2 KiB get memory of their own. One
 * thread. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#define SLAB_CLASSES   80
#define SLAB_UNIT_BITS 11 /* units per page: 16 KiB / 8 */

struct feat_slab_class {
    uint32_t *pages; /* [n_pages], filled in order */
    uint32_t n_pages, cap_pages;
    uint64_t n_runs;
};
struct feat_slab {
    uint8_t **pages; /* [n_pages]; 0 is not used */
    uint32_t n_pages, cap_pages;
    uint32_t *free_slots; /* [n_free] of `pages` */
    uint32_t n_free, cap_free;
    struct feat_slab_class classes[SLAB_CLASSES];
    uint64_t bytes; /* held from the heap */
};
void feat_slab_deinit(struct feat_slab *s); /* a zeroed struct is an empty slab */
uint64_t feat_slab_alloc(struct feat_slab *s, size_t bytes);
/* `bytes` as given to feat_slab_alloc. The run feat_slab_last names is moved to `ref`, unless it is
 * `ref`. */
void feat_slab_free(struct feat_slab *s, uint64_t ref, size_t bytes);
/* The run that would move if one of that size were freed; 0: none would. */
uint64_t feat_slab_last(const struct feat_slab *s, size_t bytes);
/* What a run of that size takes. */
size_t feat_slab_rounded(size_t bytes);
/* Do two sizes share a class, so that a run can be kept? */
int feat_slab_fits(size_t old_bytes, size_t new_bytes);

static inline void *feat_slab_at(const struct feat_slab *s, uint64_t ref) {
    return s->pages[ref >> SLAB_UNIT_BITS] + (ref & ((1u << SLAB_UNIT_BITS) - 1)) * 8;
}
