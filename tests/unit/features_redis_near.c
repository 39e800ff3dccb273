/* What a reader of the Redis store keeps: found while it is there, gone when it has changed,
 * bounded, and readable until it is swept. Whole readers are tests/contract/features_reads.c's. */
#include "base/heap.h"
#include "features/shares.h"
#include "features/store_redis_parts.h"
#include "tests/support/suite.h"

enum { BUCKETS = 4, MANY = 1000 };

static struct feat_store store_of(const char *prefix) {
    return (struct feat_store){.conf = {.prefix = prefix}, .n_buckets = BUCKETS};
}

static void keep(struct feat_redis_near *near, enum feat_scope scope, uint64_t key,
                 struct slice bytes) {
    const struct feat_applied seen[] = {{3, 17, 0}};
    feat_redis_near_keep(
        near,
        &(struct feat_redis_kept){.name = {scope, key}, .bytes = bytes, .seen = seen, .n_seen = 1});
}

static bool is_there(struct feat_redis_near *near, enum feat_scope scope, uint64_t key) {
    return feat_redis_near_find(near, (struct feat_entity){scope, key}) != NULL;
}

static void test_keeps_and_drops(void) {
    struct feat_redis_near *near = feat_redis_near_new(1 << 20);
    char bytes[] = "first";
    keep(near, FEAT_SCOPE_ITEM, 7, slice_of(bytes));
    keep(near, FEAT_SCOPE_USER, 7, SLICE_LIT(""));
    memset(bytes, 'x', 5); /* it has a copy */
    const struct feat_redis_kept *k =
        feat_redis_near_find(near, (struct feat_entity){FEAT_SCOPE_ITEM, 7});
    CU_ASSERT_PTR_NOT_NULL_FATAL(k);
    CU_ASSERT(slice_is(k->bytes, "first") && k->n_seen == 1 && k->seen[0].offset == 17);
    CU_ASSERT_TRUE(is_there(near, FEAT_SCOPE_USER, 7));
    CU_ASSERT_FALSE(is_there(near, FEAT_SCOPE_ITEM, 8));
    keep(near, FEAT_SCOPE_ITEM, 7, SLICE_LIT("second"));
    CU_ASSERT(slice_is(k->bytes, "first")); /* a section may still look at it */
    k = feat_redis_near_find(near, (struct feat_entity){FEAT_SCOPE_ITEM, 7});
    CU_ASSERT(slice_is(k->bytes, "second"));
    feat_redis_near_drop(near, k->name);
    CU_ASSERT_FALSE(is_there(near, FEAT_SCOPE_ITEM, 7));
    CU_ASSERT_TRUE(is_there(near, FEAT_SCOPE_USER, 7));
    CU_ASSERT(slice_is(k->bytes, "second"));
    feat_redis_near_sweep(near);
    feat_redis_near_clear(near);
    CU_ASSERT_FALSE(is_there(near, FEAT_SCOPE_USER, 7));
    feat_redis_near_free(near);
    feat_redis_near_free(NULL);
}

/* Those that are used stay. */
static void test_is_bounded(void) {
    char bytes[100] = {0};
    struct feat_redis_near *near = feat_redis_near_new(MANY * 100);
    for (uint64_t i = 0; i < MANY; i++) {
        keep(near, FEAT_SCOPE_ITEM, i, (struct slice){bytes, sizeof bytes});
        is_there(near, FEAT_SCOPE_ITEM, 0);
    }
    int n = 0;
    for (uint64_t i = 0; i < MANY; i++)
        n += is_there(near, FEAT_SCOPE_ITEM, i);
    CU_ASSERT(n > MANY / 10 && n < MANY);
    CU_ASSERT_TRUE(is_there(near, FEAT_SCOPE_ITEM, 0));
    feat_redis_near_free(near);
    near = feat_redis_near_new(10); /* no room for one */
    keep(near, FEAT_SCOPE_ITEM, 1, SLICE_LIT("longer than that"));
    CU_ASSERT_FALSE(is_there(near, FEAT_SCOPE_ITEM, 1));
    feat_redis_near_free(near);
}

static void test_keys(void) {
    static const char *const bad[] = {"",
                                      "p:",
                                      "p:applied",
                                      "p:{ab}m",
                                      "p:{ab}x12345678",
                                      "p:{ab}i1234567",
                                      "p:{ab}i123456789",
                                      "p:ab}i12345678",
                                      "p:{abi12345678",
                                      "q:{ab}i12345678",
                                      "{ab}i12345678"};
    struct feat_store s = store_of("p:");
    struct feat_redis_near *near = feat_redis_near_new(1 << 20);
    struct feat_entity e;
    uint64_t key;
    memcpy(&key, "1}345678", sizeof key);
    keep(near, FEAT_SCOPE_ITEM, key, SLICE_LIT("x"));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (i > 0)
            CU_ASSERT_FALSE(feat_redis_near_changed(near, &s, slice_of(bad[i]), &e));
    CU_ASSERT_TRUE(is_there(near, FEAT_SCOPE_ITEM, key));
    CU_ASSERT_TRUE(feat_redis_near_changed(near, &s, SLICE_LIT("p:{ab}i1}345678"), &e));
    CU_ASSERT(e.scope == FEAT_SCOPE_ITEM && e.key == key);
    CU_ASSERT_FALSE(is_there(near, FEAT_SCOPE_ITEM, key));
    for (int scope = 0; scope < FEAT_SCOPES; scope++) { /* there and back */
        struct feat_redis_tag tags[BUCKETS] = {{"{a}", 0}, {"{b}", 0}, {"{c}", 0}, {"{d}", 0}};
        char name[FEAT_REDIS_KEY_BYTES];
        s.tags = tags;
        struct slice text = feat_redis_entity_key(&s, (enum feat_scope)scope, key, 1, name);
        CU_ASSERT_TRUE(feat_redis_near_changed(near, &s, text, &e));
        CU_ASSERT((int)e.scope == scope && e.key == key);
    }
    keep(near, FEAT_SCOPE_ITEM, key, SLICE_LIT("x"));
    CU_ASSERT_FALSE(feat_redis_near_changed(near, &s, SLICE_LIT(""), &e)); /* all keys */
    CU_ASSERT_FALSE(is_there(near, FEAT_SCOPE_ITEM, key));
    feat_redis_near_free(near);
}

static void test_a_share_takes_its_sum_along(void) {
    struct feat_store s = store_of("p:");
    struct feat_redis_near *near = feat_redis_near_new(1 << 20);
    uint64_t whole = feat_sum_key(0x1234567), other = feat_sum_key(0x7654321);
    uint64_t share = feat_share_key(whole, 2, BUCKETS);
    char text[32] = "p:{ab}v";
    struct feat_entity e;
    keep(near, FEAT_REDIS_SUM, whole, SLICE_LIT("sum"));
    keep(near, FEAT_REDIS_SUM, other, SLICE_LIT("sum"));
    memcpy(text + 7, &share, sizeof share);
    CU_ASSERT_TRUE(feat_redis_near_changed(near, &s, (struct slice){text, 15}, &e));
    CU_ASSERT_FALSE(is_there(near, FEAT_REDIS_SUM, whole));
    CU_ASSERT_TRUE(is_there(near, FEAT_REDIS_SUM, other));
    feat_redis_near_free(near);
}

SUITE("features_redis_near", TEST(test_keeps_and_drops), TEST(test_is_bounded), TEST(test_keys),
      TEST(test_a_share_takes_its_sum_along))
