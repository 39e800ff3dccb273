/* heap.c: malloc that cannot return NULL, and counts.
 *
 * Exhaustion writes one line and aborts: no caller could do better, and the checks would be code
 * that never runs. Deliberately not a pool: arenas (arena.h) do that job. */
#include "base/heap.h"
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Where the system gives huge pages to who asks. Blocks that large are walked by products, whose
 * rows lie pages apart: with 4 KB pages they wait for the table of pages. */
#define HUGE_PAGE (2u << 20)

static atomic_ullong count;

static void *checked(void *p, size_t bytes) {
    if (p)
        return p;
    fprintf(stderr, "moerank: out of memory: %zu bytes refused\n", bytes);
    abort();
}

void *heap_alloc(size_t bytes) {
    atomic_fetch_add_explicit(&count, 1, memory_order_relaxed);
    return checked(calloc(bytes ? bytes : 1, 1), bytes);
}

void *heap_alloc_aligned(size_t bytes) {
    atomic_fetch_add_explicit(&count, 1, memory_order_relaxed);
    if (bytes > SIZE_MAX - 64)
        checked(NULL, bytes);
    size_t rounded = bytes ? (bytes + 63) & ~(size_t)63 : 64;
    if (rounded < HUGE_PAGE)
        return memset(checked(aligned_alloc(64, rounded), bytes), 0, rounded);
    void *p = NULL;
    if (posix_memalign(&p, HUGE_PAGE, rounded) != 0)
        p = NULL;
    checked(p, bytes);
    madvise(p, rounded & ~(size_t)(HUGE_PAGE - 1), MADV_HUGEPAGE); /* a wish: no failure */
    return memset(p, 0, rounded);
}

void *heap_grow(void *p, size_t bytes) {
    atomic_fetch_add_explicit(&count, 1, memory_order_relaxed);
    return checked(realloc(p, bytes ? bytes : 1), bytes);
}

char *heap_strdup(const char *s) {
    size_t n = strlen(s) + 1;
    return memcpy(heap_alloc(n), s, n);
}

void heap_free(void *p) { free(p); }

unsigned long long heap_count(void) { return atomic_load_explicit(&count, memory_order_relaxed); }
