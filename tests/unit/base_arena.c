/* base_arena.c: the heap's promises, and the arena's: alignment, reuse, no allocation once warm. */
#include <signal.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/arena.h"
#include "base/heap.h"
#include "base/rng.h"
#include "tests/support/suite.h"

static bool all_zero(const void *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (((const char *)p)[i])
            return false;
    return true;
}

static void heap_memory_is_zeroed_aligned_and_counted(void) {
    unsigned long long before = heap_count();
    char *p = heap_alloc(100), *q = heap_alloc_aligned(100), *r = heap_alloc(0);
    CU_ASSERT(all_zero(p, 100));
    CU_ASSERT(all_zero(q, 100));
    CU_ASSERT_EQUAL((uintptr_t)q % 64, 0);
    CU_ASSERT_PTR_NOT_NULL(r);
    CU_ASSERT_EQUAL(heap_count() - before, 3);
    heap_free(p);
    heap_free(q);
    heap_free(r);
    heap_free(NULL);
}

static void heap_grow_keeps_the_bytes(void) {
    char *p = heap_strdup("four");
    p = heap_grow(p, 100000);
    CU_ASSERT_STRING_EQUAL(p, "four");
    heap_free(p);
}

/* In a child, since the answer to exhaustion is abort. */
static void heap_exhaustion_aborts(void) {
    pid_t child = fork();
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        close(STDERR_FILENO);
        heap_alloc_aligned(SIZE_MAX - 10);
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    CU_ASSERT(!WIFEXITED(status) || WEXITSTATUS(status) != 0);
}

static void allocations_are_aligned_and_do_not_overlap(void) {
    struct arena a;
    struct rng r;
    arena_init(&a, 256);
    rng_init(&r, 1);
    unsigned char *p[200];
    size_t n[200];
    for (int i = 0; i < 200; i++) {
        n[i] = rng_below(&r, 300);
        bool wide = i % 3 == 0;
        p[i] = wide ? arena_alloc_aligned(&a, n[i]) : arena_alloc(&a, n[i]);
        CU_ASSERT_EQUAL((uintptr_t)p[i] % (wide ? 64 : 16), 0);
        memset(p[i], i, n[i]);
    }
    int damaged = 0;
    for (int i = 0; i < 200; i++)
        for (size_t j = 0; j < n[i]; j++)
            damaged += p[i][j] != i;
    CU_ASSERT_EQUAL(damaged, 0);
    arena_deinit(&a);
}

static void a_warm_arena_does_not_allocate(void) {
    struct arena a;
    arena_init(&a, 1024);
    unsigned long long warm = 0;
    for (int round = 0; round < 5; round++) {
        for (size_t i = 0; i < 50; i++)
            arena_alloc(&a, i * 97);
        arena_reset(&a);
        CU_ASSERT_EQUAL(arena_used(&a), 0);
        if (round == 0)
            warm = heap_count();
    }
    CU_ASSERT_EQUAL(heap_count(), warm);
    arena_deinit(&a);
}

static void chunks_grow_with_the_arena(void) {
    struct arena a;
    arena_init(&a, 64);
    unsigned long long before = heap_count();
    for (int i = 0; i < 100000; i++)
        arena_alloc(&a, 16);
    CU_ASSERT(heap_count() - before < 20);
    CU_ASSERT(arena_used(&a) >= 1600000);
    CU_ASSERT(arena_reserved(&a) >= arena_used(&a));
    arena_deinit(&a);
}

static void zalloc_zeroes_what_a_reset_left_behind(void) {
    struct arena a;
    arena_init(&a, 0);
    memset(arena_alloc(&a, 500), 0xFF, 500);
    arena_reset(&a);
    CU_ASSERT(all_zero(arena_zalloc(&a, 500), 500));
    CU_ASSERT(all_zero(ARENA_ARRAY(&a, int, 10), 40));
    arena_deinit(&a);
}

static void an_object_larger_than_a_chunk_fits(void) {
    struct arena a;
    arena_init(&a, 64);
    char *p = arena_alloc(&a, 1 << 20);
    memset(p, 1, 1 << 20);
    CU_ASSERT_EQUAL((uintptr_t)arena_alloc_aligned(&a, 1) % 64, 0);
    arena_deinit(&a);
}

static void strings_are_copied_and_terminated(void) {
    struct arena a;
    arena_init(&a, 0);
    CU_ASSERT_STRING_EQUAL(arena_strdup(&a, (struct slice){"abcdef", 3}), "abc");
    CU_ASSERT_STRING_EQUAL(arena_strdup(&a, (struct slice){NULL, 0}), "");
    struct slice s = arena_dup(&a, SLICE_LIT("a\0b"));
    CU_ASSERT_EQUAL(s.n, 3);
    CU_ASSERT_EQUAL(s.p[3], '\0');
    CU_ASSERT_STRING_EQUAL(arena_printf(&a, "%s-%05d", "x", 42), "x-00042");
    arena_deinit(&a);
}

SUITE("base_arena", TEST(heap_memory_is_zeroed_aligned_and_counted),
      TEST(heap_grow_keeps_the_bytes), TEST(heap_exhaustion_aborts),
      TEST(allocations_are_aligned_and_do_not_overlap), TEST(a_warm_arena_does_not_allocate),
      TEST(chunks_grow_with_the_arena), TEST(zalloc_zeroes_what_a_reset_left_behind),
      TEST(an_object_larger_than_a_chunk_fits), TEST(strings_are_copied_and_terminated))
