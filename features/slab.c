/* slab.c: dense size classes over pages (the idea of Bonwick's slab allocator, with the compaction
 * that references instead of pointers allow). */
#include "features/slab.h"
#include "base/heap.h"
#include <assert.h>
#include <string.h>

enum {
    UNIT = 8,
    SMALL_MAX = 256,
    PAGE_BYTES = UNIT << SLAB_UNIT_BITS,
    LARGE = 2048, /* above: memory of its own */
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

void feat_slab_deinit(struct feat_slab *s) {
    for (uint32_t i = 0; i < s->n_pages; i++)
        heap_free(s->pages[i]);
    for (int i = 0; i < SLAB_CLASSES; i++)
        heap_free(s->classes[i].pages);
    heap_free(s->pages);
    heap_free(s->free_slots);
    *s = (struct feat_slab){0};
}

/* Room for one more in an array. */
static void make_room(struct feat_slab *s, void **array, uint32_t n, uint32_t *cap,
                      size_t element) {
    if (n < *cap)
        return;
    uint32_t more = *cap == 0 ? 16 : *cap;
    *cap += more;
    *array = heap_grow(*array, *cap * element);
    s->bytes += more * element;
}

static uint32_t add_page(struct feat_slab *s, size_t bytes) {
    if (s->n_pages == 0) {
        make_room(s, (void **)&s->pages, 0, &s->cap_pages, sizeof *s->pages);
        s->pages[s->n_pages++] = NULL; /* so that no reference is 0 */
    }
    uint32_t slot = s->n_free > 0 ? s->free_slots[--s->n_free] : s->n_pages++;
    assert(slot < 1u << (40 - SLAB_UNIT_BITS));
    make_room(s, (void **)&s->pages, slot, &s->cap_pages, sizeof *s->pages);
    s->pages[slot] = heap_alloc(bytes);
    s->bytes += bytes;
    return slot;
}

static void drop_page(struct feat_slab *s, uint32_t slot, size_t bytes) {
    heap_free(s->pages[slot]);
    s->pages[slot] = NULL;
    s->bytes -= bytes;
    make_room(s, (void **)&s->free_slots, s->n_free, &s->cap_free, sizeof *s->free_slots);
    s->free_slots[s->n_free++] = slot;
}

/* Reference of the class's run number i. */
static uint64_t run_ref(const struct feat_slab_class *c, size_t rounded, uint64_t i) {
    uint64_t per_page = PAGE_BYTES / rounded;
    return (uint64_t)c->pages[i / per_page] << SLAB_UNIT_BITS | i % per_page * (rounded / UNIT);
}

uint64_t feat_slab_alloc(struct feat_slab *s, size_t bytes) {
    size_t rounded;
    int class = class_of(bytes, &rounded);
    if (rounded > LARGE)
        return (uint64_t)add_page(s, rounded) << SLAB_UNIT_BITS;
    struct feat_slab_class *c = &s->classes[class];
    if (c->n_runs == c->n_pages * (PAGE_BYTES / rounded)) {
        make_room(s, (void **)&c->pages, c->n_pages, &c->cap_pages, sizeof *c->pages);
        c->pages[c->n_pages++] = add_page(s, PAGE_BYTES);
    }
    return run_ref(c, rounded, c->n_runs++);
}

uint64_t feat_slab_last(const struct feat_slab *s, size_t bytes) {
    size_t rounded;
    int class = class_of(bytes, &rounded);
    if (rounded > LARGE || s->classes[class].n_runs == 0)
        return 0;
    return run_ref(&s->classes[class], rounded, s->classes[class].n_runs - 1);
}

void feat_slab_free(struct feat_slab *s, uint64_t ref, size_t bytes) {
    size_t rounded;
    int class = class_of(bytes, &rounded);
    if (rounded > LARGE) {
        drop_page(s, (uint32_t)(ref >> SLAB_UNIT_BITS), rounded);
        return;
    }
    struct feat_slab_class *c = &s->classes[class];
    assert(c->n_runs > 0);
    uint64_t last = run_ref(c, rounded, c->n_runs - 1);
    if (last != ref)
        memcpy(feat_slab_at(s, ref), feat_slab_at(s, last), rounded);
    c->n_runs--;
    /* one page may stay empty, or a run that comes and goes would cost a page each time */
    if (c->n_pages * (PAGE_BYTES / rounded) - c->n_runs >= 2 * (PAGE_BYTES / rounded))
        drop_page(s, c->pages[--c->n_pages], PAGE_BYTES);
}

size_t feat_slab_rounded(size_t bytes) {
    size_t rounded;
    class_of(bytes, &rounded);
    return rounded;
}

int feat_slab_fits(size_t old_bytes, size_t new_bytes) {
    size_t old_rounded, new_rounded;
    class_of(old_bytes, &old_rounded);
    class_of(new_bytes, &new_rounded);
    return old_rounded == new_rounded;
}
