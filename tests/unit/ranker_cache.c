/* ranker_cache: the result cache and its Redis connection against a server made here, which can
 * answer, refuse, say nothing, or hang up: whatever it does, calls return soon and say what is. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/metric.h"
#include "ranker/lists.h"
#include "ranker/result_cache.h"
#include "tests/support/suite.h"

/* ---- a Redis of one key, as far as GET and SET go ------------------------------------------ */

enum mood { ANSWERS, SILENT, HANGS_UP, ERRS };
struct fake {
    struct sockaddr_un at;
    int listener;
    pthread_t thread;
    _Atomic(enum mood) mood;
    atomic_int sets, ttl_ms;
    char key[256], value[4096];
    size_t key_bytes, value_bytes;
};

struct word {
    char bytes[4096];
    size_t n;
};

static bool read_line(FILE *f, char mark, long *out) {
    char line[64];
    if (!fgets(line, sizeof line, f) || line[0] != mark)
        return false;
    *out = atol(line + 1);
    return true;
}

static int read_command(FILE *f, struct word *words) {
    long n, bytes;
    if (!read_line(f, '*', &n) || n > 5)
        return 0;
    for (long i = 0; i < n; i++) {
        if (!read_line(f, '$', &bytes) || bytes >= 4096 ||
            fread(words[i].bytes, 1, (size_t)bytes + 2, f) != (size_t)bytes + 2)
            return 0;
        words[i].n = (size_t)bytes;
    }
    return (int)n;
}

static void answer(struct fake *k, const struct word *w, FILE *f) {
    bool set = memcmp(w[0].bytes, "SET", 3) == 0;
    if (atomic_load(&k->mood) == ERRS) {
        fputs("-OOM no memory\r\n", f);
    } else if (set) {
        memcpy(k->key, w[1].bytes, k->key_bytes = w[1].n);
        memcpy(k->value, w[2].bytes, k->value_bytes = w[2].n);
        atomic_store(&k->ttl_ms, atoi(w[4].bytes));
        atomic_fetch_add(&k->sets, 1);
        fputs("+OK\r\n", f);
    } else if (w[1].n == k->key_bytes && memcmp(w[1].bytes, k->key, w[1].n) == 0) {
        fprintf(f, "$%zu\r\n", k->value_bytes);
        fwrite(k->value, 1, k->value_bytes, f);
        fputs("\r\n", f);
    } else {
        fputs("$-1\r\n", f);
    }
    fflush(f);
}

static void *serve(void *arg) {
    struct fake *k = arg;
    static struct word words[5];
    for (int fd; (fd = accept(k->listener, NULL, NULL)) >= 0;) {
        FILE *in = fdopen(fd, "r"), *out = fdopen(dup(fd), "w");
        while (read_command(in, words) > 0) {
            if (atomic_load(&k->mood) == HANGS_UP)
                break;
            if (atomic_load(&k->mood) != SILENT)
                answer(k, words, out);
        }
        fclose(in);
        fclose(out);
    }
    return NULL;
}

static void fake_start(struct fake *k) {
    static int n;
    *k = (struct fake){.at = {.sun_family = AF_UNIX}};
    snprintf(k->at.sun_path, sizeof k->at.sun_path, "/tmp/ranker_cache.%d.%d", (int)getpid(), n++);
    unlink(k->at.sun_path);
    k->listener = socket(AF_UNIX, SOCK_STREAM, 0);
    CU_ASSERT_EQUAL_FATAL(bind(k->listener, (struct sockaddr *)&k->at, sizeof k->at), 0);
    CU_ASSERT_EQUAL_FATAL(listen(k->listener, 5), 0);
    pthread_create(&k->thread, NULL, serve, k);
}

static void fake_stop(struct fake *k) {
    shutdown(k->listener, SHUT_RDWR);
    close(k->listener);
    pthread_join(k->thread, NULL);
    unlink(k->at.sun_path);
}

static struct rk_config conf_of(const struct fake *k) {
    return (struct rk_config){.redis = {k->at.sun_path, "", "p:", 6379, 100000},
                              .cache = {true, 5000000}};
}

/* ---- tests --------------------------------------------------------------------------------- */

static void test_keeps_and_finds(void) {
    struct fake k;
    fake_start(&k);
    struct rk_config conf = conf_of(&k);
    struct rk_cache *c = rk_cache_new(&conf);
    struct arena a;
    arena_init(&a, 0);
    struct slice value;
    metric_reset(METRIC_CACHE_HITS);
    metric_reset(METRIC_CACHE_MISSES);
    CU_ASSERT_FALSE(rk_cache_get(c, &a, SLICE_LIT("k1"), &value));
    rk_cache_put_begin(c, SLICE_LIT("k1"), SLICE_LIT("v\0v"));
    rk_cache_put_end(c);
    CU_ASSERT_TRUE(rk_cache_get(c, &a, SLICE_LIT("k1"), &value));
    CU_ASSERT(slice_equal(value, SLICE_LIT("v\0v")));
    CU_ASSERT_FALSE(rk_cache_get(c, &a, SLICE_LIT("k2"), &value));
    CU_ASSERT_EQUAL(atomic_load(&k.ttl_ms), 5000);
    CU_ASSERT_EQUAL(metric_value(METRIC_CACHE_HITS), 1);
    CU_ASSERT_EQUAL(metric_value(METRIC_CACHE_MISSES), 2);
    rk_cache_free(c);
    arena_deinit(&a);
    fake_stop(&k);
}

/* Everything a ranking depends on moves the key; what it does not depend on leaves it. */
static void test_keys(void) {
    const struct rk_config conf = {.redis = {"/s", "", "p:", 6379, 100000}, .cache = {true, 1}};
    struct rk_cache *c = rk_cache_new(&conf);
    struct arena a;
    struct buf scratch = {0};
    arena_init(&a, 0);
    const struct slice items[] = {SLICE_LIT("a"), SLICE_LIT("b")}, other[] = {SLICE_LIT("ab"), {0}};
    const float column[] = {1, 2}, column2[] = {1, 3};
    const struct rpc_column columns[] = {{SLICE_LIT("x"), column}, {SLICE_LIT("x"), column2}};
    const struct ev_field field = {SLICE_LIT("device"),
                                   {.type = EV_STRING, .string = SLICE_LIT("tv")}};
    const struct rpc_rank_request base = {.user = SLICE_LIT("u"), .items = items, .n_items = 2};
    struct slice key = rk_cache_key(c, &a, &scratch, "v1", 7, &base);
    CU_ASSERT_EQUAL(strncmp(key.p, "p:rank:v1:7:", 12), 0);
    struct rpc_rank_request r[10];
    for (int i = 0; i < 10; i++)
        r[i] = base;
    r[0].user = SLICE_LIT("w");
    r[1].session = SLICE_LIT("s");
    r[2].items = other;
    r[3].n_items = 1;
    r[4].columns = &columns[0], r[4].n_columns = 1;
    r[5].columns = &columns[1], r[5].n_columns = 1;
    r[6].context = &field, r[6].n_context = 1;
    r[7].now_us = 5;
    r[8].top_n = 1;
    r[9].tenant = SLICE_LIT("u");
    struct slice keys[13] = {key, rk_cache_key(c, &a, &scratch, "v2", 7, &base),
                             rk_cache_key(c, &a, &scratch, "v1", 8, &base)};
    for (int i = 0; i < 10; i++)
        keys[3 + i] = rk_cache_key(c, &a, &scratch, "v1", 7, &r[i]);
    for (int i = 0; i < 13; i++)
        for (int j = 0; j < i; j++)
            CU_ASSERT_FALSE(slice_equal(keys[i], keys[j]));
    struct rpc_rank_request same = base;
    same.request_id = SLICE_LIT("another");
    same.after = (struct rpc_token){true, 1, 2};
    CU_ASSERT(slice_equal(key, rk_cache_key(c, &a, &scratch, "v1", 7, &same)));
    CU_ASSERT_TRUE(rk_cache_takes(&base));
    struct rpc_rank_request not_taken[3] = {base, base, base};
    not_taken[0].no_cache = true;
    not_taken[1].explain = true;
    not_taken[2].user = (struct slice){0}, not_taken[2].session = SLICE_LIT("s");
    for (int i = 0; i < 3; i++)
        CU_ASSERT_FALSE(rk_cache_takes(&not_taken[i]));
    rk_cache_free(c);
    buf_deinit(&scratch);
    arena_deinit(&a);
}

static void test_off_without_redis(void) {
    struct rk_config conf = {.redis = {"", "", "p:", 6379, 1000}, .cache = {true, 1}};
    CU_ASSERT_PTR_NULL(rk_cache_new(&conf));
    conf.redis.socket = "/s";
    conf.cache.enabled = false;
    CU_ASSERT_PTR_NULL(rk_cache_new(&conf));
}

/* Each trouble makes a call fail, never hang; the calls after it fail at once, and when the server
 * is well again so are the calls. */
static void test_trouble_passes(void) {
    struct fake k;
    fake_start(&k);
    struct rk_config conf = conf_of(&k);
    struct rk_redis *r = rk_redis_new(&conf.redis);
    struct arena a;
    arena_init(&a, 0);
    struct slice value;
    CHECK_OK(rk_redis_set(r, SLICE_LIT("k"), SLICE_LIT("v"), 1000));
    static const enum mood moods[] = {SILENT, HANGS_UP};
    for (int i = 0; i < 2; i++) {
        atomic_store(&k.mood, moods[i]);
        CHECK_FAILS(rk_redis_get(r, &a, SLICE_LIT("k"), &value), STATUS_UNAVAILABLE, k.at.sun_path);
        CHECK_FAILS(rk_redis_get(r, &a, SLICE_LIT("k"), &value), STATUS_UNAVAILABLE,
                    "is away"); /* without trying to connect */
        atomic_store(&k.mood, ANSWERS);
        enum status status = STATUS_UNAVAILABLE;
        int64_t until_us = clock_mono_us() + 20000000;
        while (status == STATUS_UNAVAILABLE && clock_mono_us() < until_us) {
            status = rk_redis_get(r, &a, SLICE_LIT("k"), &value);
            clock_sleep_ms(10);
        }
        CHECK_OK(status);
    }
    atomic_store(&k.mood, ERRS);
    CHECK_FAILS(rk_redis_set(r, SLICE_LIT("k"), SLICE_LIT("v"), 1000), STATUS_UNAVAILABLE, "OOM");
    atomic_store(&k.mood, ANSWERS);
    CHECK_OK(rk_redis_get(r, &a, SLICE_LIT("k"), &value)); /* an error is no reason to hang up */
    CHECK_FAILS(rk_redis_get(r, &a, SLICE_LIT("q"), &value), STATUS_NOT_FOUND, "");
    rk_redis_free(r);
    arena_deinit(&a);
    fake_stop(&k);
}

static void test_no_server(void) {
    struct rk_config conf = {.redis = {"/tmp/ranker_cache.none", "", "", 6379, 50000},
                             .cache = {true, 1000}};
    struct rk_cache *c = rk_cache_new(&conf);
    struct arena a;
    arena_init(&a, 0);
    struct slice value;
    metric_reset(METRIC_CACHE_ERRORS);
    CU_ASSERT_FALSE(rk_cache_get(c, &a, SLICE_LIT("k"), &value));
    rk_cache_put_begin(c, SLICE_LIT("k"), SLICE_LIT("v"));
    rk_cache_put_end(c);
    CU_ASSERT_EQUAL(metric_value(METRIC_CACHE_ERRORS), 2);
    rk_cache_free(c);
    arena_deinit(&a);
}

static void test_lists_in_memory_are_bounded(void) {
    struct rk_lists *l = rk_lists_new(3);
    struct arena a;
    arena_init(&a, 0);
    struct slice value;
    rk_lists_put(l, SLICE_LIT("a"), SLICE_LIT("1"));
    rk_lists_put(l, SLICE_LIT("b"), SLICE_LIT("2"));
    rk_lists_put(l, SLICE_LIT("a"), SLICE_LIT("3")); /* in place */
    rk_lists_put(l, SLICE_LIT("c"), SLICE_LIT("4"));
    CU_ASSERT_TRUE(rk_lists_get(l, &a, SLICE_LIT("a"), &value));
    CU_ASSERT(slice_is(value, "3"));
    rk_lists_put(l, SLICE_LIT("d"), SLICE_LIT("5")); /* the oldest goes */
    CU_ASSERT_FALSE(rk_lists_get(l, &a, SLICE_LIT("a"), &value));
    CU_ASSERT_TRUE(rk_lists_get(l, &a, SLICE_LIT("b"), &value));
    CU_ASSERT_TRUE(rk_lists_get(l, &a, SLICE_LIT("d"), &value));
    rk_lists_free(l);
    arena_deinit(&a);
}

SUITE("ranker_cache", TEST(test_keeps_and_finds), TEST(test_keys), TEST(test_off_without_redis),
      TEST(test_trouble_passes), TEST(test_no_server), TEST(test_lists_in_memory_are_bounded))
