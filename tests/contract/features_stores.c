/* The Redis store against the memory store: the same events give the same rows, bit for bit, and
 * the same dump, byte for byte: from one writer or three at once, from two that believe to own the
 * same partition, over kill -9 of a writer, over a Redis that is away and one that lost writes. */
#pragma GCC diagnostic ignored "-Wunused-function" /* the oracle is not needed here */
#include "base/heap.h"
#include "base/io.h"
#include "tests/support/features_dump.h"
#include "tests/contract/features_expect.h"
#include "tests/contract/features_same.h"
#include "tests/support/redis_store.h"
#include <pthread.h>
#include <stdatomic.h>

enum { WORLDS = 4, QUERIES = 40, WRITERS = 3, TROUBLES = 6 };

static struct redis_server server;

static struct feat_store_conf conf_of(const char *prefix) {
    struct feat_store_conf c = redis_store_conf(&server, prefix, 16);
    c.redis.timeout_us = 2000000;
    c.ttl_us = 3600 * 1000000ll;
    return c;
}

static struct feat_plan *shared_plan(void) {
    struct buf joins = {0};
    buf_printf(&joins, "%s%s", plan_joins,
               "  - {name: pair, kind: count, scope: [user, item], on: rating}\n"
               "  - {name: valued, kind: window_count, scope: [item, event.brand],\n"
               "     on: any, bucket: 10s, windows: [60s, 300s]}\n");
    buf_add_byte(&joins, 0);
    struct feat_plan *p = plan_of_parts(plan_head, plan_more, (const char *)joins.p);
    buf_deinit(&joins);
    return p;
}

static void begin(void) {
    server = (struct redis_server){.keep = NULL};
    redis_server_start(&server);
}
static void end(void) { redis_server_remove(&server); }

static struct feat_state *opened(const struct feat_plan *p, const char *prefix) {
    struct feat_store_conf c = conf_of(prefix);
    return redis_store_open(p, &c);
}

/* ---- comparing ---- */

static struct filled filled;

static struct feat_state *in_memory(struct world *w, const struct feat_plan *p) {
    static int order[EVENTS];
    struct rng rng;
    rng_init(&rng, 1);
    int n = world_order(w, &rng, false, order, EVENTS);
    struct feat_state *s = feat_state_new(p);
    world_apply(w, &rng, s, order, n);
    return s;
}

/* ---- one writer ---- */

static void test_rows_and_dump_are_equal(void) {
    static int order[EVENTS * 8];
    struct world *w = HEAP_NEW(struct world);
    struct feat_plan *p = shared_plan();
    begin();
    for (uint64_t seed = 0; seed < WORLDS; seed++) {
        char prefix[16];
        struct rng rng;
        rng_init(&rng, seed);
        snprintf(prefix, sizeof prefix, "t%d:", (int)seed);
        world_init(w, seed);
        struct feat_state *s = opened(p, prefix), *want = in_memory(w, p);
        int n = world_order(w, &rng, true, order, EVENTS * 8);
        world_apply(w, &rng, s, order, n);
        CU_ASSERT_EQUAL(other_rows(w, p, s, want, seed, QUERIES, &filled), 0);
        CU_ASSERT(same_dump(s, want));
        feat_state_free(s);
        feat_state_free(want);
        world_deinit(w);
    }
    CU_ASSERT_EQUAL(n_never_filled(p, &filled), 0);
    end();
    heap_free(w);
    feat_plan_free(p);
}

/* What a reader can ask besides rows, and what a writer is told. */
static void test_other_questions(void) {
    struct world *w = HEAP_NEW(struct world);
    struct feat_plan *p = shared_plan();
    struct arena a;
    arena_init(&a, 0);
    begin();
    world_init(w, 20);
    struct feat_state *s = opened(p, "q:"), *want = in_memory(w, p);
    enum feat_verdict verdicts[PER_PARTITION];
    int wrong = 0;
    for (int i = 0; i < PARTITIONS; i++) {
        CHECK_OK(feat_state_apply(s, &w->events[i * PER_PARTITION], PER_PARTITION, verdicts));
        for (int k = 0; k < PER_PARTITION; k++)
            wrong += (verdicts[k] == FEAT_APPLIED) != w->accepted[i * PER_PARTITION + k];
    }
    CU_ASSERT_EQUAL(wrong, 0);
    struct ev_source last = w->events[EVENTS - 1].source,
                     beyond = {last.partition, last.offset + 9};
    CHECK_OK(feat_state_wait(s, last, 0));
    CHECK_FAILS(feat_state_wait(s, beyond, 20), STATUS_DEADLINE_EXCEEDED, "partition");
    feat_state_read_begin(s);
    feat_state_read_begin(want);
    const struct feat_applied *x, *y;
    CU_ASSERT_EQUAL(feat_state_applied(s, &a, &x), PARTITIONS);
    CU_ASSERT_EQUAL(feat_state_applied(want, &a, &y), PARTITIONS);
    for (int i = 0; i < PARTITIONS; i++)
        CU_ASSERT(x[i].partition == y[i].partition && x[i].offset == y[i].offset &&
                  x[i].clock_us == y[i].clock_us);
    for (uint32_t i = 0; i < 8; i++) {
        struct slice user = name_of(w, "u", i), none = {NULL, 0};
        const uint64_t *k, *l;
        CU_ASSERT_EQUAL(feat_state_user_epoch(s, none, user),
                        feat_state_user_epoch(want, none, user));
        int n = feat_state_user_items(s, &a, none, user, &k);
        CU_ASSERT_EQUAL_FATAL(n, feat_state_user_items(want, &a, none, user, &l));
        CU_ASSERT(memcmp(k, l, (size_t)n * sizeof *k) == 0);
    }
    for (int max = 0; max < 20; max += 3) {
        const struct slice *k, *l;
        int n = feat_state_items(s, &a, SLICE_LIT(""), max, &k);
        CU_ASSERT_EQUAL_FATAL(n, feat_state_items(want, &a, SLICE_LIT(""), max, &l));
        for (int i = 0; i < n; i++)
            CU_ASSERT(slice_equal(k[i], l[i]));
    }
    const struct feat_ahead *ahead;
    CU_ASSERT_EQUAL(feat_state_ahead(s, &a, &ahead), 0);
    CHECK_OK(feat_state_read_end(s));
    CHECK_OK(feat_state_read_end(want));
    CHECK_OK(feat_state_skip(s, beyond)); /* a dead letter */
    CHECK_OK(feat_state_wait(s, beyond, 0));
    struct feat_state *other = opened(p, "q:"); /* another process */
    CHECK_OK(feat_state_wait(other, beyond, 0));
    struct feat_state_size size = feat_state_size(other), known = feat_state_size(want);
    for (int scope = 0; scope < FEAT_SCOPES; scope++)
        CU_ASSERT(scope >= FEAT_SCOPE_VALUE /* shares are more; of what waits, some has gone */
                      ? size.entities[scope] > known.entities[scope]
                      : size.entities[scope] == known.entities[scope]);
    CU_ASSERT(size.bytes > 100000);
    feat_state_free(other);
    feat_state_free(s);
    feat_state_free(want);
    end();
    arena_deinit(&a);
    world_deinit(w);
    heap_free(w);
    feat_plan_free(p);
}

/* ---- writers at once ---- */

static atomic_int stopping; /* no more trouble: writers may end when all is written */

struct writer {
    const struct world *w;
    const struct feat_plan *p;
    const char *prefix;
    bool mine[PARTITIONS];
    uint64_t seed;
    uint32_t batch_max; /* events */
    int aborted;        /* how often it had to go back */
    char failed[300];   /* "": it has not */
};

static struct writer writer_of(const struct world *w, const struct feat_plan *p, const char *prefix,
                               uint64_t seed) {
    return (struct writer){.w = w, .p = p, .prefix = prefix, .seed = seed, .batch_max = 64};
}

/* Reads its partitions on from where the state is, in small batches, partitions mixed. */
static void write_all(struct writer *me, struct feat_state *s) {
    int next[PARTITIONS];
    struct rng rng;
    rng_init(&rng, me->seed);
    bool reposition = true, left = true, asked = false;
    while (left && me->failed[0] == '\0') {
        const struct feat_applied *at = NULL;
        int n = 0, k = 0;
        if (reposition && feat_state_resume(s, &at, &n) != STATUS_OK) {
            clock_sleep_ms(5);
            continue;
        }
        for (int i = 0; reposition && i < PARTITIONS; i++) {
            next[i] = 0;
            for (int j = 0; j < n; j++)
                while (at[j].partition == i * 7 && next[i] < PER_PARTITION &&
                       me->w->events[i * PER_PARTITION + next[i]].source.offset <= at[j].offset)
                    next[i]++;
        }
        reposition = false;
        struct ev_event batch[64];
        int size = 1 + (int)rng_below(&rng, me->batch_max), tries = 0;
        while (k < size && tries++ < 200) {
            int i = (int)rng_below(&rng, PARTITIONS);
            if (me->mine[i] && next[i] < PER_PARTITION)
                batch[k++] = me->w->events[i * PER_PARTITION + next[i]++];
        }
        if (k == 0)
            clock_sleep_ms(5);
        bool last = k == 0 && atomic_load(&stopping);
        enum status status = feat_state_apply(s, batch, k, NULL);
        me->aborted += status == STATUS_ABORTED;
        /* an idle look may find the store away and say nothing: at the end the store itself is
         * asked, until it answers, and only then is there nothing left */
        left = !(last && asked);
        asked = last;
        reposition = status == STATUS_ABORTED || (last && left);
        if (status != STATUS_OK && status != STATUS_ABORTED)
            snprintf(me->failed, sizeof me->failed, "%s", status_message());
    }
}

static void *write_thread(void *arg) {
    struct writer *me = arg;
    struct feat_store_conf c = conf_of(me->prefix);
    struct feat_state *s = NULL;
    enum status status = STATUS_UNAVAILABLE;
    for (int i = 0; status == STATUS_UNAVAILABLE && i < 100; i++) {
        status = feat_state_open(me->p, &c, &s);
        clock_sleep_ms(status == STATUS_OK ? 0 : 20);
    }
    if (status != STATUS_OK)
        snprintf(me->failed, sizeof me->failed, "%s", status_message());
    else
        write_all(me, s);
    feat_state_free(s);
    return NULL;
}

/* Writers [n] run to their end, with `trouble` (or NULL) made again and again meanwhile; the state
 * must then be the one writer's. */
static void run_writers(struct writer *writers, int n, struct world *w, const struct feat_plan *p,
                        void (*trouble)(int number)) {
    pthread_t threads[8];
    atomic_store(&stopping, trouble == NULL);
    for (int i = 0; i < n; i++)
        pthread_create(&threads[i], NULL, write_thread, &writers[i]);
    for (int i = 0; trouble != NULL && i < TROUBLES; i++)
        trouble(i);
    atomic_store(&stopping, 1);
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < n; i++)
        CU_ASSERT_STRING_EQUAL(writers[i].failed, "");
    struct feat_state *got = opened(p, writers[0].prefix), *want = in_memory(w, p);
    CU_ASSERT(same_dump(got, want));
    CU_ASSERT_EQUAL(other_rows(w, p, got, want, 5, QUERIES, &filled), 0);
    feat_state_free(got);
    feat_state_free(want);
}

static void test_three_writers(void) {
    struct world *w = HEAP_NEW(struct world);
    struct feat_plan *p = shared_plan();
    begin();
    for (uint64_t seed = 30; seed < 30 + WORLDS; seed++) {
        struct writer writers[WRITERS];
        char prefix[16];
        snprintf(prefix, sizeof prefix, "w%d:", (int)seed);
        world_init(w, seed);
        for (int i = 0; i < WRITERS; i++) {
            writers[i] = writer_of(w, p, prefix, seed + (uint64_t)i);
            for (int k = 0; k < PARTITIONS; k++)
                writers[i].mine[k] = k % WRITERS == i;
        }
        run_writers(writers, WRITERS, w, p, NULL);
        world_deinit(w);
    }
    end();
    heap_free(w);
    feat_plan_free(p);
}

/* A rebalance that not everybody heard of: all write all partitions at once. */
static void test_writers_of_one_partition(void) {
    struct world *w = HEAP_NEW(struct world);
    struct feat_plan *p = shared_plan();
    begin();
    for (uint64_t seed = 40; seed < 40 + WORLDS; seed++) {
        struct writer writers[WRITERS];
        char prefix[16];
        snprintf(prefix, sizeof prefix, "z%d:", (int)seed);
        world_init(w, seed);
        for (int i = 0; i < WRITERS; i++) {
            writers[i] = writer_of(w, p, prefix, seed + (uint64_t)i);
            memset(writers[i].mine, true, sizeof writers[i].mine);
        }
        run_writers(writers, WRITERS, w, p, NULL);
        world_deinit(w);
    }
    end();
    heap_free(w);
    feat_plan_free(p);
}

/* ---- kill -9 ---- */

/* Position of the world's partition `i`: events of it that are applied. */
static int done_of(const struct world *w, struct feat_state *s, int i) {
    const struct feat_applied *at;
    int n, done = 0;
    CHECK_OK(feat_state_resume(s, &at, &n));
    for (int k = 0; k < n; k++)
        while (at[k].partition == i * 7 && done < PER_PARTITION &&
               w->events[i * PER_PARTITION + done].source.offset <= at[k].offset)
            done++;
    return done;
}

static void start_killable(struct writer *me, int number, struct rng *rng, pid_t *pid) {
    for (int k = 0; k < WRITERS; k++) {
        for (int j = 0; j < PARTITIONS; j++)
            me->mine[j] = (j + number) % WRITERS == k; /* partitions move, too */
        me->seed = rng_u64(rng);
        pid[k] = fork();
        if (pid[k] == 0) {
            write_thread(me);
            _exit(0);
        }
    }
}

/* Writers are processes; all are killed again and again after a random time, and started anew, each
 * with other partitions. Returns how often until all was written. */
static int write_with_kills(struct world *w, const struct feat_plan *p, const char *prefix,
                            struct rng *rng) {
    struct writer me = writer_of(w, p, prefix, 0);
    struct feat_state *s = opened(p, prefix);
    int kills = 0;
    me.batch_max = 1;
    for (int done = 0; done < EVENTS && kills < 10000; kills += WRITERS) {
        pid_t pid[WRITERS];
        start_killable(&me, kills, rng, pid);
        clock_sleep_ms(1 + (int)rng_below(rng, 6));
        for (int k = 0; k < WRITERS; k++) {
            kill(pid[k], SIGKILL);
            waitpid(pid[k], NULL, 0);
        }
        done = 0;
        for (int i = 0; i < PARTITIONS; i++)
            done += done_of(w, s, i);
    }
    feat_state_free(s);
    memset(me.mine, true, sizeof me.mine);
    run_writers(&me, 1, w, p, NULL);
    return kills;
}

static void test_killed_writers(void) {
    struct world *w = HEAP_NEW(struct world);
    struct feat_plan *p = shared_plan();
    struct rng rng;
    int kills = 0;
    begin();
    rng_init(&rng, 60);
    for (int i = 0; kills < 100; i++) {
        char prefix[16];
        snprintf(prefix, sizeof prefix, "k%d:", i);
        world_init(w, 60 + (uint64_t)i);
        kills += write_with_kills(w, p, prefix, &rng);
        world_deinit(w);
    }
    end();
    heap_free(w);
    feat_plan_free(p);
}

/* ---- a Redis that goes and comes ---- */

static void restart(int number) {
    clock_sleep_ms(15 + number % 20);
    redis_server_stop(&server, SIGKILL);
    redis_server_start(&server);
}

/* Back to what was saved a while ago. */
static void lose_writes(int number) {
    char reply[64];
    clock_sleep_ms(10 + number % 10);
    CU_ASSERT(redis_server_say(&server, "SAVE", reply, sizeof reply));
    clock_sleep_ms(5 + number % 20);
    redis_server_stop(&server, SIGKILL);
    redis_server_start(&server);
}

static void empty(int number) {
    char reply[64];
    clock_sleep_ms(20 + number);
    CU_ASSERT(redis_server_say(&server, "FLUSHALL", reply, sizeof reply));
}

static void hold(int number) {
    clock_sleep_ms(5 + number % 20);
    kill(server.pid, SIGSTOP);
    clock_sleep_ms(30);
    kill(server.pid, SIGCONT);
}

/* Returns how often a writer had to go back. */
static int write_in(const char *keep, void (*trouble)(int), uint64_t seed) {
    struct world *w = HEAP_NEW(struct world);
    struct feat_plan *p = shared_plan();
    struct writer writers[WRITERS];
    int aborted = 0;
    server = (struct redis_server){.keep = keep};
    redis_server_start(&server);
    world_init(w, seed);
    for (int i = 0; i < WRITERS; i++) {
        writers[i] = writer_of(w, p, "t:", seed + (uint64_t)i);
        writers[i].batch_max = 1;
        for (int k = 0; k < PARTITIONS; k++)
            writers[i].mine[k] = k % WRITERS == i;
    }
    run_writers(writers, WRITERS, w, p, trouble);
    for (int i = 0; i < WRITERS; i++)
        aborted += writers[i].aborted;
    end();
    world_deinit(w);
    heap_free(w);
    feat_plan_free(p);
    return aborted;
}

static void test_redis_restarts_with_all(void) {
    for (uint64_t seed = 70; seed < 73; seed++)
        CU_ASSERT_EQUAL(write_in("aof", restart, seed), 0);
}

static void test_redis_restarts_with_less(void) {
    int aborted = 0;
    for (uint64_t seed = 80; seed < 84; seed++)
        aborted += write_in("rdb", lose_writes, seed);
    CU_ASSERT(aborted > 0);
}

static void test_redis_is_emptied(void) {
    int aborted = 0;
    for (uint64_t seed = 90; seed < 93; seed++)
        aborted += write_in(NULL, empty, seed);
    CU_ASSERT(aborted > 0);
}

static void test_redis_is_slow(void) { CU_ASSERT_EQUAL(write_in(NULL, hold, 100), 0); }

SUITE("features_stores", TEST(test_rows_and_dump_are_equal), TEST(test_other_questions),
      TEST(test_three_writers), TEST(test_writers_of_one_partition), TEST(test_killed_writers),
      TEST(test_redis_restarts_with_all), TEST(test_redis_restarts_with_less),
      TEST(test_redis_is_emptied), TEST(test_redis_is_slow))
