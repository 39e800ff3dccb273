/* heap.h: the allocator. Exhaustion aborts with one line, so no caller checks. */
#pragma once
#include <stddef.h>

void *heap_alloc(size_t bytes);         /* zeroed; never NULL */
void *heap_alloc_aligned(size_t bytes); /* zeroed, 64-byte aligned; free with heap_free */
void *heap_grow(void *p, size_t bytes); /* realloc; new bytes are not zeroed */
char *heap_strdup(const char *s);
void heap_free(void *p); /* NULL is fine */

/* Allocations since the start of the process, by this module. A test asserts that the read path
 * does not move it. */
unsigned long long heap_count(void);

#define HEAP_NEW(type)      ((type *)heap_alloc(sizeof(type)))
#define HEAP_ARRAY(type, n) ((type *)heap_alloc((size_t)(n) * sizeof(type)))
