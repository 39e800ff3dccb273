/* The memory store and its slab against plain arrays; codecs there and back. */
#include "base/hash.h"
#include "base/heap.h"
#include "base/rng.h"
#include "features/codec.h"
#include "features/forms.h"
#include "features/record.h"
#include "features/slab.h"
#include "features/store.h"
#include "tests/support/suite.h"
#include <math.h>

enum { RUNS = 3000 };
struct run {
    uint64_t ref;
    size_t bytes;
};

/* Frees run i; whoever owns the run that moves is told. A run's first bytes name its owner. */
static void free_run(struct feat_slab *s, struct run *runs, uint32_t i) {
    uint64_t last = feat_slab_last(s, runs[i].bytes);
    uint32_t owner = i;
    if (last != 0)
        memcpy(&owner, feat_slab_at(s, last), sizeof owner);
    feat_slab_free(s, runs[i].ref, runs[i].bytes);
    runs[owner].ref = runs[i].ref;
    runs[i].ref = 0;
}

static void check_run(const struct feat_slab *s, const struct run *r, uint32_t i) {
    const uint8_t *p = feat_slab_at(s, r->ref);
    CU_ASSERT_FATAL(memcmp(p, &i, sizeof i) == 0);
    CU_ASSERT_EQUAL_FATAL(p[r->bytes - 1], r->bytes == 4 ? i >> 24 : (uint8_t)i);
}

static void test_slab_runs_do_not_overlap(void) {
    struct run *runs = HEAP_ARRAY(struct run, RUNS);
    struct feat_slab s = {0};
    struct rng rng;
    rng_init(&rng, 1);
    for (int step = 0; step < 100000; step++) {
        uint32_t i = rng_below(&rng, RUNS), size = rng_below(&rng, 100);
        struct run *r = &runs[i];
        if (r->ref != 0) {
            check_run(&s, r, i);
            free_run(&s, runs, i);
            if (rng_below(&rng, 3) == 0)
                continue;
        }
        r->bytes = 4 + rng_below(&rng, size < 90 ? 300 : size < 99 ? 3000 : 100000);
        r->ref = feat_slab_alloc(&s, r->bytes);
        CU_ASSERT_NOT_EQUAL_FATAL(r->ref, 0);
        memset(feat_slab_at(&s, r->ref), (uint8_t)i, r->bytes);
        memcpy(feat_slab_at(&s, r->ref), &i, sizeof i);
    }
    for (uint32_t i = 0; i < RUNS; i++)
        if (runs[i].ref != 0)
            check_run(&s, &runs[i], i);
    feat_slab_deinit(&s);
    heap_free(runs);
}

/* Runs that all grow together leave no holes: the memory held stays near the memory used. */
static void test_slab_stays_dense(void) {
    struct run *runs = HEAP_ARRAY(struct run, RUNS);
    struct feat_slab s = {0};
    for (size_t bytes = 8; bytes <= 1024; bytes += 8) {
        for (uint32_t i = 0; i < RUNS; i++) {
            if (runs[i].ref != 0 && feat_slab_fits(runs[i].bytes, bytes))
                continue;
            uint64_t ref = feat_slab_alloc(&s, bytes);
            memcpy(feat_slab_at(&s, ref), &i, sizeof i);
            if (runs[i].ref != 0)
                free_run(&s, runs, i);
            runs[i] = (struct run){ref, bytes};
        }
        CU_ASSERT(s.bytes < RUNS * (bytes + bytes / 8) + 80 * 2 * 16384 + 65536);
    }
    for (uint32_t i = 0; i < RUNS; i++)
        free_run(&s, runs, i);
    CU_ASSERT(s.bytes < 80 * 2 * 16384 + 65536);
    feat_slab_deinit(&s);
    heap_free(runs);
}

static void record_of(struct buf *b, enum feat_scope scope, uint64_t key, uint32_t more) {
    buf_clear(b);
    feat_record_put_head(b, scope, key, more, SLICE_LIT(""), SLICE_LIT("id"));
    for (uint32_t i = 0; i < more; i++)
        buf_add_byte(b, (uint8_t)(key + i));
}

static struct feat_store *opened(const struct feat_store_ops *ops) {
    static const struct feat_store_conf conf = {.kind = FEAT_STORE_MEMORY};
    struct feat_store *s = NULL;
    CHECK_OK(ops->open(NULL, &conf, &s));
    return s;
}

static void test_store_against_an_array(void) {
    enum { KEYS = 5000 };
    const struct feat_store_ops *ops = &feat_store_memory;
    struct feat_store *s = opened(ops);
    uint32_t *sizes = HEAP_ARRAY(uint32_t, KEYS); /* 0: absent, else 1 + bytes */
    struct rng rng;
    struct buf b = {0};
    rng_init(&rng, 2);
    uint64_t n = 0;
    for (int step = 0; step < 50000; step++) {
        uint32_t i = rng_below(&rng, KEYS);
        uint32_t more = rng_below(&rng, 50) == 0 ? rng_below(&rng, 70000) : rng_below(&rng, 200);
        uint64_t key = hash_mix(7, i);
        record_of(&b, FEAT_SCOPE_USER, key, more);
        ops->put(s, FEAT_SCOPE_USER, key, buf_slice(&b));
        n += sizes[i] == 0;
        sizes[i] = 1 + more;
    }
    CU_ASSERT_EQUAL(ops->count(s, FEAT_SCOPE_USER), n);
    CU_ASSERT_EQUAL(ops->count(s, FEAT_SCOPE_ITEM), 0);
    uint64_t keys[KEYS];
    struct slice *got = HEAP_ARRAY(struct slice, KEYS);
    for (uint32_t i = 0; i < KEYS; i++)
        keys[i] = hash_mix(7, i);
    ops->fetch(s, FEAT_SCOPE_USER, keys, KEYS, got);
    for (uint32_t i = 0; i < KEYS; i++) {
        record_of(&b, FEAT_SCOPE_USER, keys[i], sizes[i] == 0 ? 0 : sizes[i] - 1);
        CU_ASSERT_FATAL(
            slice_equal(got[i], sizes[i] == 0 ? (struct slice){NULL, 0} : buf_slice(&b)));
    }
    uint64_t seen = 0;
    struct slice bytes;
    for (uint64_t at = 0; ops->next(s, FEAT_SCOPE_USER, &at, &bytes); seen++)
        CU_ASSERT_FATAL(bytes.n >= 10);
    CU_ASSERT_EQUAL(seen, n);
    ops->fetch(s, FEAT_SCOPE_ITEM, keys, 3, got);
    CU_ASSERT_EQUAL(got[0].n, 0);
    heap_free(got);
    heap_free(sizes);
    buf_deinit(&b);
    ops->close(s);
    ops->close(NULL);
}

/* Keys that agree in table, tag and slot still are two. */
static void test_store_tells_near_keys_apart(void) {
    const struct feat_store_ops *ops = &feat_store_memory;
    struct feat_store *s = opened(ops);
    struct buf b = {0};
    for (uint64_t i = 0; i < 9; i++) {
        uint64_t key = 5 + (i << 20); /* bits of neither slot, tag nor table */
        record_of(&b, FEAT_SCOPE_ITEM, key, (uint32_t)i);
        ops->put(s, FEAT_SCOPE_ITEM, key, buf_slice(&b));
    }
    CU_ASSERT_EQUAL(ops->count(s, FEAT_SCOPE_ITEM), 9);
    for (uint64_t i = 0; i < 9; i++) {
        uint64_t key = 5 + (i << 20);
        struct slice got;
        record_of(&b, FEAT_SCOPE_ITEM, key, (uint32_t)i);
        ops->fetch(s, FEAT_SCOPE_ITEM, &key, 1, &got);
        CU_ASSERT(slice_equal(got, buf_slice(&b)));
    }
    buf_deinit(&b);
    ops->close(s);
}

/* ---- limits ---- */

static uint64_t key_of(uint32_t i) { return hash_mix(11, i); }

static void put_number(const struct feat_store_ops *ops, struct feat_store *s, uint32_t i,
                       struct buf *b) {
    record_of(b, FEAT_SCOPE_USER, key_of(i), i % 300);
    ops->put(s, FEAT_SCOPE_USER, key_of(i), buf_slice(b));
}

/* Is it there, with the right bytes? Anything else than those or nothing fails. */
static bool has_number(const struct feat_store_ops *ops, struct feat_store *s, uint32_t i,
                       struct buf *b) {
    struct slice got;
    uint64_t key = key_of(i);
    ops->fetch(s, FEAT_SCOPE_USER, &key, 1, &got);
    record_of(b, FEAT_SCOPE_USER, key, i % 300);
    CU_ASSERT_FATAL(got.n == 0 || slice_equal(got, buf_slice(b)));
    return got.n > 0;
}

/* Random users under a budget that is halved half-way: memory stays under it, those in use stay,
 * and what is found is right. */
static void test_budget(void) {
    enum { KEYS = 40000, STEPS = 300000, OFTEN = 100 };
    const struct feat_store_ops *ops = &feat_store_memory;
    struct feat_store *s = opened(ops);
    struct buf b = {0};
    struct rng rng;
    uint64_t budget = 6 << 20;
    rng_init(&rng, 4);
    feat_store_memory_limit(s, (int64_t)budget, 0);
    for (int step = 0; step < STEPS; step++) {
        if (step == STEPS / 2) {
            budget /= 2;
            feat_store_memory_limit(s, (int64_t)budget, 0);
            CU_ASSERT(ops->bytes(s) <= budget);
        }
        put_number(ops, s, step % 4 == 0 ? rng_below(&rng, OFTEN) : rng_below(&rng, KEYS), &b);
        CU_ASSERT_FATAL(ops->bytes(s) <= budget);
    }
    CU_ASSERT(feat_store_memory_evicted(s) > 10000);
    uint64_t seen = 0;
    uint32_t often = 0;
    for (uint32_t i = 0; i < KEYS; i++) {
        bool there = has_number(ops, s, i, &b);
        seen += there;
        often += there && i < OFTEN;
    }
    CU_ASSERT_EQUAL(seen, ops->count(s, FEAT_SCOPE_USER));
    CU_ASSERT(seen > 5000 && seen < KEYS / 2);
    CU_ASSERT(often > OFTEN * 9 / 10);
    struct slice bytes;
    for (uint64_t at = 0; ops->next(s, FEAT_SCOPE_USER, &at, &bytes);)
        seen--;
    CU_ASSERT_EQUAL(seen, 0);
    feat_store_memory_limit(s, 1, 0); /* all goes that can go */
    CU_ASSERT_EQUAL(ops->count(s, FEAT_SCOPE_USER), 0);
    CU_ASSERT(ops->bytes(s) < 3 << 20);
    buf_deinit(&b);
    ops->close(s);
}

/* A first micro-batch is put before the store knows any time. */
static void test_ttl_counts_from_the_first_batch(void) {
    enum { KEYS = 300, TTL = 1000, NOW = 1000000 };
    const struct feat_store_ops *ops = &feat_store_memory;
    struct feat_store *s = opened(ops);
    struct buf b = {0};
    feat_store_memory_limit(s, 0, TTL);
    for (uint32_t i = 0; i < KEYS; i++)
        put_number(ops, s, i, &b);
    for (int64_t now = NOW; now < NOW + TTL; now++)
        feat_store_memory_advance(s, now);
    CU_ASSERT_EQUAL(ops->count(s, FEAT_SCOPE_USER), KEYS);
    for (int64_t now = NOW + TTL; now < NOW + 2 * TTL; now++)
        feat_store_memory_advance(s, now);
    CU_ASSERT_EQUAL(ops->count(s, FEAT_SCOPE_USER), 0);
    buf_deinit(&b);
    ops->close(s);
}

/* Kept for the ttl at least and for 5/4 of it at most; a put makes young; global records stay. */
static void test_ttl(void) {
    enum { KEYS = 2000, TTL = 1000 };
    const struct feat_store_ops *ops = &feat_store_memory;
    struct feat_store *s = opened(ops);
    struct buf b = {0};
    int64_t put_at[KEYS] = {0};
    struct rng rng;
    rng_init(&rng, 6);
    feat_store_memory_limit(s, 0, TTL);
    record_of(&b, FEAT_SCOPE_GLOBAL, 1, 9);
    ops->put(s, FEAT_SCOPE_GLOBAL, 1, buf_slice(&b));
    int64_t now = 100000;
    for (int step = 0; step < 40000; step++, now += rng_below(&rng, 2)) {
        uint32_t i = rng_below(&rng, KEYS), k = rng_below(&rng, KEYS);
        feat_store_memory_advance(s, now);
        if (i % 2 == 0 || step < 10000) {
            put_number(ops, s, i, &b);
            put_at[i] = now;
        }
        bool there = has_number(ops, s, k, &b);
        CU_ASSERT_FATAL(put_at[k] > 0 || !there);
        CU_ASSERT_FATAL(there || put_at[k] == 0 || now - put_at[k] >= TTL);
        CU_ASSERT_FATAL(!there || now - put_at[k] <= TTL + TTL / 4 + 64);
    }
    CU_ASSERT(feat_store_memory_evicted(s) > 900);
    CU_ASSERT_EQUAL(ops->count(s, FEAT_SCOPE_GLOBAL), 1);
    uint64_t left = ops->count(s, FEAT_SCOPE_USER);
    feat_store_memory_limit(s, 0, 0); /* no ttl any more: nothing ages */
    feat_store_memory_advance(s, now + 100 * TTL);
    CU_ASSERT_EQUAL(ops->count(s, FEAT_SCOPE_USER), left);
    buf_deinit(&b);
    ops->close(s);
}

/* Numbers behind `n_times` times are gone by as they are read, also where they are cut off. */
static void skips_as_it_reads(const struct buf *b, size_t n_times, size_t n_numbers) {
    int apart = 0;
    for (size_t n = 0; n <= b->n; n++) {
        struct cursor read = cursor_of(b->p, n), skip;
        for (size_t i = 0; i < n_times; i++)
            feat_get_time(&read);
        for (size_t i = 0; i < n_numbers && !read.bad; i++) {
            skip = read;
            feat_skip_number(&skip);
            feat_get_number(&read);
            apart += skip.bad != read.bad || (!read.bad && skip.p != read.p);
        }
    }
    CU_ASSERT_EQUAL(apart, 0);
}

/* A list of ids is gone by when it is as long as one may be, and no longer. */
static void test_ids_have_a_length(void) {
    enum { MOST = FEAT_IDS_MAX * FEAT_KEY_BYTES_MAX };
    for (uint64_t bytes = MOST - 1; bytes <= MOST + 1; bytes++) {
        struct buf b = {0};
        buf_add_varint(&b, bytes);
        for (uint64_t i = 0; i < bytes; i++)
            buf_add_byte(&b, 0);
        struct cursor c = cursor_of(b.p, b.n);
        feat_form_skip(FEAT_AS_IDS, &c);
        CU_ASSERT_EQUAL(c.bad, bytes > MOST);
        CU_ASSERT(c.bad || c.p == c.end);
        buf_deinit(&b);
    }
}

static void test_codecs(void) {
    static const int64_t times[] = {0,
                                    1,
                                    999,
                                    1000,
                                    999999,
                                    1000000,
                                    1700000000000000,
                                    1700000000123000,
                                    1700000000123456,
                                    INT64_MAX};
    static const double numbers[] = {
        0,       1,     -1,         5,          1995,       0.5,        0.1,          1e300,
        -1e-300, 12.34, -7.389,     6.3,        1073741823, 1073741824, 4294967296.0, 1e15,
        1e-6,    1e-7,  134.217727, 134.217728, 0.1f,       1.0 / 3,    19.990001,    1e22};
    struct buf b = {0};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++)
        feat_put_time(&b, times[i]);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        feat_put_number(&b, numbers[i]);
    feat_put_number(&b, NAN);
    feat_put_number(&b, INFINITY);
    struct feat_stamp stamp = {7, -3, INT64_MAX};
    feat_put_stamp(&b, stamp);
    struct cursor c = cursor_of(b.p, b.n);
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++)
        CU_ASSERT_EQUAL(feat_get_time(&c), times[i]);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        CU_ASSERT_EQUAL(feat_get_number(&c), numbers[i]);
    CU_ASSERT(isnan(feat_get_number(&c)) && isnan(feat_get_number(&c)));
    struct cursor d = c;
    CU_ASSERT_EQUAL(feat_stamp_compare(feat_get_stamp(&c), stamp), 0);
    CU_ASSERT(!c.bad && c.p == c.end);
    feat_skip_stamp(&d);
    CU_ASSERT(!d.bad && d.p == d.end);
    skips_as_it_reads(&b, sizeof times / sizeof times[0], sizeof numbers / sizeof numbers[0] + 2);
    feat_get_stamp(&c);
    CU_ASSERT(c.bad);
    feat_skip_stamp(&d);
    CU_ASSERT(d.bad);
    buf_clear(&b);
    feat_put_number(&b, 5); /* a rating is one byte */
    CU_ASSERT_EQUAL(b.n, 1);
    feat_put_number(&b, 12.34); /* a price is three */
    CU_ASSERT_EQUAL(b.n, 4);
    buf_deinit(&b);
}

SUITE("features_store", TEST(test_slab_runs_do_not_overlap), TEST(test_slab_stays_dense),
      TEST(test_store_against_an_array), TEST(test_store_tells_near_keys_apart), TEST(test_budget),
      TEST(test_ttl), TEST(test_ttl_counts_from_the_first_batch), TEST(test_codecs),
      TEST(test_ids_have_a_length))
