/* base_map.c: the map against a naive list, and hashing that must never change. */
#include "base/hash.h"
#include "base/map.h"
#include "base/rng.h"
#include "tests/support/suite.h"

static void an_empty_map_answers(void) {
    struct map m = {0};
    uint64_t v = 7, k;
    size_t i = 0;
    CU_ASSERT(!map_get(&m, 0, &v));
    CU_ASSERT(!map_remove(&m, 0));
    CU_ASSERT(!map_next(&m, &i, &k, &v));
    CU_ASSERT_EQUAL(v, 7);
    CU_ASSERT_EQUAL(map_bytes(&m), 0);
    map_deinit(&m);
}

static void every_key_is_allowed(void) {
    static const uint64_t keys[] = {0, UINT64_MAX, 1, 1ull << 63};
    struct map m = {0};
    uint64_t v = 0;
    for (uint64_t i = 0; i < 4; i++)
        map_put(&m, keys[i], i + 10);
    for (uint64_t i = 0; i < 4; i++)
        CU_ASSERT(map_get(&m, keys[i], &v) && v == i + 10);
    CU_ASSERT(!map_get(&m, 2, &v));
    map_put(&m, 0, 99);
    CU_ASSERT(map_get(&m, 0, &v) && v == 99);
    CU_ASSERT_EQUAL(m.n, 4);
    map_deinit(&m);
}

/* A small key range, so that keys meet, are removed and come back; full state compared. */
enum { KEYS = 300, STEPS = 60000 };
static void compare(const struct map *m, const int64_t *want) {
    size_t n = 0, i = 0;
    uint64_t k, v;
    for (; map_next(m, &i, &k, &v); n++)
        if (k >= KEYS || want[k] != (int64_t)v)
            CU_FAIL("iteration gives what was not put");
    CU_ASSERT_EQUAL(n, m->n);
    for (uint64_t key = 0; key < KEYS; key++) {
        bool found = map_get(m, key, &v);
        if (found != (want[key] >= 0) || (found && (int64_t)v != want[key]))
            CU_FAIL("look-up disagrees with the list");
    }
}

static void random_operations_agree_with_a_list(void) {
    struct map m = {0};
    struct rng r;
    rng_init(&r, 3);
    static int64_t want[KEYS];
    for (int i = 0; i < KEYS; i++)
        want[i] = -1;
    for (int step = 0; step < STEPS; step++) {
        uint64_t key = rng_below(&r, KEYS);
        if (rng_below(&r, 2)) {
            map_put(&m, key, (uint64_t)step);
            want[key] = step;
        } else {
            if (map_remove(&m, key) != (want[key] >= 0))
                CU_FAIL("remove disagrees with the list");
            want[key] = -1;
        }
        if (step % 5000 == 0)
            compare(&m, want);
    }
    compare(&m, want);
    CU_ASSERT(m.cap <= 1024); /* removal leaves nothing behind that would make it grow */
    map_deinit(&m);
}

static void hashes_stand_in_files_and_never_change(void) {
    CU_ASSERT_EQUAL(hash_bytes((struct slice){NULL, 0}, 0), 0x2D06800538D394C2ull);
    uint64_t user = hash_bytes(SLICE_LIT("user-1"), 0);
    CU_ASSERT_EQUAL(user, hash_bytes(slice_of("user-1"), 0));
    CU_ASSERT_NOT_EQUAL(user, hash_bytes(SLICE_LIT("user-1"), 1));
    CU_ASSERT_NOT_EQUAL(user, hash_bytes(SLICE_LIT("user-2"), 0));
    CU_ASSERT_NOT_EQUAL(hash_mix(1, 2), hash_mix(2, 1));
    CU_ASSERT_EQUAL(hash_mix(1, 2), 0xC8B7F534790F4C6Eull);
}

SUITE("base_map", TEST(an_empty_map_answers), TEST(every_key_is_allowed),
      TEST(random_operations_agree_with_a_list), TEST(hashes_stand_in_files_and_never_change))
