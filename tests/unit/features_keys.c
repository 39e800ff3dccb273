/* Keys of names: which are the name itself, which are hashes, there and back; and lists of them. */
#include "base/heap.h"
#include "base/rng.h"
#include "features/codec.h"
#include "features/keys.h"
#include "tests/support/suite.h"

static uint64_t key_of(const char *name) { return feat_text_key(slice_of(name)); }
static bool is_packed(const char *name) {
    return (feat_key_plain(key_of(name)) & FEAT_KEY_PACKED) != 0;
}

static void test_names_are_keys(void) {
    static const char *const packed[] = {"0",          "7",
                                         "i0",         "i1",
                                         "I1",         "i10",
                                         "ii0",        "u_77",
                                         "item-5",     "movie_2097151",
                                         "abcdefgh7",  "-5",
                                         "user:1995",  "/9",
                                         "a134217727", "144115188075855871"};
    static const char *const hashed[] = {"",
                                         "i",
                                         "i01",
                                         "00",
                                         "i1a",
                                         "i 1",
                                         "1.5",
                                         "1e3",
                                         "movie_2097152",
                                         "abcdefghij7",
                                         "\303\2511",
                                         "144115188075855872",
                                         "99999999999999999999"};
    size_t n_packed = sizeof packed / sizeof packed[0], n_hashed = sizeof hashed / sizeof hashed[0];
    uint64_t tenant = feat_tenant_hash(SLICE_LIT("acme"));
    for (size_t i = 0; i < n_packed; i++) {
        CU_ASSERT(is_packed(packed[i]));
        for (size_t k = 0; k < i; k++)
            CU_ASSERT_NOT_EQUAL(key_of(packed[i]), key_of(packed[k]));
    }
    for (size_t i = 0; i < n_hashed; i++) {
        uint64_t key = feat_entity_key(tenant, slice_of(hashed[i]));
        CU_ASSERT(!is_packed(hashed[i]));
        CU_ASSERT_EQUAL(feat_key_plain(key) >> 63, 0);
        CU_ASSERT(i == 0 ? key == 0 : feat_entity_text_key(tenant, key) == key_of(hashed[i]));
    }
    uint64_t key = feat_entity_key(tenant, SLICE_LIT("i1"));
    CU_ASSERT(key != key_of("i1") && feat_key_plain(key) >> 63 == 1);
    CU_ASSERT_EQUAL(feat_entity_text_key(tenant, key), key_of("i1"));
    CU_ASSERT_EQUAL(feat_number_key(1995), key_of("1995"));
    struct rng rng;
    rng_init(&rng, 5);
    for (int i = 0; i < 1000; i++) {
        uint64_t any = rng_u64(&rng);
        CU_ASSERT_EQUAL(feat_key_plain(feat_key_spread(any)), any);
    }
}

/* Every width of a difference, in both directions; one encoding, of the length promised. */
static void test_lists_of_keys(void) {
    struct buf b = {0};
    for (int bits = 0; bits <= 64; bits++) {
        uint64_t last = bits == 0 ? 0 : key_of("i5"), v = bits == 0 ? 0 : ~0ull >> (64 - bits);
        uint64_t key = feat_key_spread(feat_key_plain(last) ^ v);
        buf_clear(&b);
        feat_put_key(&b, last, key);
        size_t want = bits <= 6 ? 1 : bits <= 41 ? (size_t)(bits + 7) / 7 : bits <= 63 ? 8 : 9;
        CU_ASSERT_EQUAL(b.n, want);
        struct cursor c = cursor_of(b.p, b.n);
        CU_ASSERT_EQUAL(feat_get_key(&c, last), key);
        CU_ASSERT(!c.bad && c.p == c.end);
        c = cursor_of(b.p, b.n - 1);
        feat_get_key(&c, last);
        CU_ASSERT(c.bad);
    }
    buf_clear(&b);
    feat_put_key(&b, key_of("i1234"), key_of("i4321")); /* two items of a catalogue */
    CU_ASSERT_EQUAL(b.n, 2);
    feat_put_key(&b, 0, key_of("i1234")); /* the first of a list */
    CU_ASSERT_EQUAL(b.n, 7);
    buf_deinit(&b);
}

/* Bits at both ends, few and many, are told; whatever bytes come, none is read beyond the end, and
 * what is taken for a key or a step is written back no longer. */
static void test_keys_of_any_bits(void) {
    struct buf b = {0};
    struct rng rng;
    rng_init(&rng, 17);
    for (int i = 0; i < 20000; i++) {
        const int upper = (int)rng_below(&rng, 9), lower = (int)rng_below(&rng, 9);
        uint64_t v = (upper ? rng_u64(&rng) >> (64 - 8 * upper) << (64 - 8 * upper) : 0) ^
                     (lower ? rng_u64(&rng) >> (64 - 8 * lower) : 0);
        buf_clear(&b);
        feat_put_key(&b, 0, feat_key_spread(v));
        CU_ASSERT(b.n <= 9 && (v == 0 || upper + lower > 6 || b.n <= 2u + (size_t)(upper + lower)));
        struct cursor c = cursor_of(b.p, b.n);
        CU_ASSERT_EQUAL(feat_key_plain(feat_get_key(&c, 0)), v);
        CU_ASSERT(!c.bad && c.p == c.end);
    }
    for (int i = 0; i < 20000; i++) {
        uint8_t *bytes = heap_alloc(12); /* so that a sanitizer sees the end */
        const size_t n = rng_below(&rng, 12);
        uint8_t *at = bytes + 12 - n;
        for (size_t k = 0; k < n; k++)
            at[k] = (uint8_t)rng_below(&rng, 256);
        for (int step = 0; step < 2; step++) {
            struct cursor c = cursor_of(at, n);
            uint64_t v = step ? feat_get_step(&c) : feat_get_key(&c, 0);
            CU_ASSERT(c.p <= c.end && c.p >= at && (n > 0 || c.bad));
            buf_clear(&b);
            if (step)
                feat_put_step(&b, v);
            else
                feat_put_key(&b, 0, v);
            CU_ASSERT(c.bad || b.n <= (size_t)(c.p - at));
        }
        heap_free(bytes);
    }
    buf_deinit(&b);
}

static void test_steps(void) {
    static const struct {
        uint64_t step;
        size_t n;
    } rows[] = {{0, 1},           {15, 1},
                {16, 2},          {32767, 2},
                {32768, 3},       {(1 << 20) - 1, 3},
                {1 << 20, 4},     {(1u << 30) - 1, 4},
                {1u << 30, 5},    {(1ull << 36) - 1, 5},
                {1ull << 36, 6},  {(15ull << 40) - 1, 6},
                {15ull << 40, 9}, {UINT64_MAX, 9}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buf b = {0};
        feat_put_step(&b, rows[i].step);
        CU_ASSERT_EQUAL(b.n, rows[i].n);
        struct cursor c = cursor_of(b.p, b.n);
        CU_ASSERT_EQUAL(feat_get_step(&c), rows[i].step);
        CU_ASSERT(!c.bad && c.p == c.end);
        c = cursor_of(b.p, b.n - 1);
        feat_get_step(&c);
        CU_ASSERT(c.bad);
        buf_deinit(&b);
    }
}

SUITE("features_keys", TEST(test_names_are_keys), TEST(test_lists_of_keys),
      TEST(test_keys_of_any_bits), TEST(test_steps))
