/* What a reader of the Redis store says it has seen is what it has seen. Two writers take turns;
 * now and then what is said to be applied everywhere is put back by some batches, as a reader finds
 * it that comes while many are being written: then most records are ahead. The rows of such a
 * reader, with sums over items whose fields change all the while, are made again from the events
 * alone, the offsets and the list of records that were ahead, bit for bit. */
#pragma GCC diagnostic ignored "-Wunused-function" /* the oracle is not needed here */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/metric.h"
#include "features/past.h"
#include "tests/contract/features_expect.h"
#include "tests/contract/features_same.h"
#include "tests/support/redis_store.h"

enum { NEAR = 3, WORLDS = 3, BUCKETS = 5, BACK_MAX = 10, BATCH_MAX = 12, HISTORY_MAX = EVENTS };
/* Writers leave out of headers what was applied everywhere 10 s ago, however slow this machine is.
 */
enum { TOLD_US = 5 * 1000 * 1000 };

static struct redis_server server;

static struct feat_state *opened(const struct feat_plan *p, int64_t near_bytes, int64_t near_us) {
    struct feat_store_conf c = redis_store_conf(&server, "r:", BUCKETS);
    c.near_bytes = near_bytes;
    c.near_us = near_us;
    return redis_store_open(p, &c);
}

static struct feat_plan *plan_of_all(void) {
    return plan_of_parts(plan_head, plan_more, plan_joins);
}

/* How far the partitions are, by number of events. */
struct progress_of {
    int n[PARTITIONS];
};

static const struct ev_event *event_at(const struct world *w, int partition, int i) {
    return &w->events[partition * PER_PARTITION + i];
}

/* What readers are told is applied everywhere. */
static void tell(const struct world *w, struct progress_of at) {
    char line[128], reply[64];
    for (int p = 0; p < PARTITIONS; p++) {
        int64_t clock_us = 0;
        for (int i = 0; i < at.n[p]; i++) {
            const struct ev_event *e = event_at(w, p, i);
            clock_us = e->event_time_us > clock_us ? e->event_time_us : clock_us;
        }
        if (at.n[p] == 0)
            snprintf(line, sizeof line, "HDEL r:applied %d", p * 7);
        else
            snprintf(line, sizeof line, "HSET r:applied %d \"%lld %lld\"", p * 7,
                     (long long)event_at(w, p, at.n[p] - 1)->source.offset, (long long)clock_us);
        CU_ASSERT_TRUE(redis_server_say(&server, line, reply, sizeof reply) && reply[0] == ':');
    }
}

/* The rows again, in memory, of what `applied` and `ahead` say. */
static void make_again(const struct world *w, const struct feat_plan *p, struct arena *a,
                       const struct feat_request *q, int64_t now_us,
                       const struct feat_applied *applied, int n, const struct feat_ahead *ahead,
                       int n_ahead, struct feat_rows *out) {
    struct feat_state *base = feat_state_new(p);
    const struct feat_applied *wanted;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < PER_PARTITION; k++)
            if (event_at(w, applied[i].partition / 7, k)->source.offset <= applied[i].offset)
                feat_state_apply(base, event_at(w, applied[i].partition / 7, k), 1, NULL);
    struct feat_past *past = feat_past_new(p, base, BUCKETS);
    feat_past_begin(past, ahead, n_ahead);
    int n_wanted = feat_past_wanted(past, a, &wanted);
    for (int i = 0; i < n_wanted; i++)
        for (int k = 0; k < PER_PARTITION; k++)
            if (event_at(w, wanted[i].partition / 7, k)->source.offset <= wanted[i].offset)
                feat_past_event(past, event_at(w, wanted[i].partition / 7, k));
    struct feat_state *s = feat_past_state(past);
    feat_state_read_begin(s);
    feat_state_extract(s, a, q, now_us, out);
    CHECK_OK(feat_state_read_end(s));
    feat_past_free(past);
    feat_state_free(base);
}

static struct filled filled;

/* One read, and the same from the events. *shares: how many shares of sums were ahead. */
static bool read_again(struct world *w, const struct feat_plan *p, struct feat_state *s,
                       struct rng *rng, int *shares) {
    struct arena a;
    struct query query;
    struct asked room;
    struct feat_rows rows, again;
    const struct feat_applied *applied;
    const struct feat_ahead *ahead;
    arena_init(&a, 0);
    random_query(w, rng, &query);
    struct feat_request q = request_of(&query, false, &room);
    feat_state_read_begin(s);
    feat_state_extract(s, &a, &q, query.now_us, &rows);
    int n = feat_state_applied(s, &a, &applied), n_ahead = feat_state_ahead(s, &a, &ahead);
    CHECK_OK(feat_state_read_end(s));
    make_again(w, p, &a, &q, query.now_us, applied, n, ahead, n_ahead, &again);
    for (int i = 0; i < n_ahead; i++)
        *shares += ahead[i].scope == FEAT_SCOPE_VALUE;
    bool same = same_rows(p, &rows, &again);
    note_filled(p, &rows, &filled);
    arena_deinit(&a);
    return same;
}

/* The next events of a writer's partitions: those with the parity of its number. */
static void write_some(const struct world *w, struct feat_state *s, struct rng *rng, int writer,
                       struct progress_of *at) {
    struct ev_event batch[BATCH_MAX];
    int n = 0, most = 1 + (int)rng_below(rng, BATCH_MAX);
    for (int tries = 0; n < most && tries < 50; tries++) {
        int p = writer + 2 * (int)rng_below(rng, PARTITIONS / 2);
        if (at->n[p] < PER_PARTITION)
            batch[n++] = *event_at(w, p, at->n[p]++);
    }
    CHECK_OK(feat_state_apply(s, batch, n, NULL));
}

/* How many keys the server was asked for. */
static long long asked_for(void) {
    return redis_server_number(&server, "INFO stats", "keyspace_hits:") +
           redis_server_number(&server, "INFO stats", "keyspace_misses:");
}

static void one_world(const struct feat_plan *p, uint64_t seed, int *shares, int *differ,
                      long long *keys) {
    static struct progress_of history[HISTORY_MAX];
    static int64_t when_us[HISTORY_MAX];
    struct world *w = HEAP_NEW(struct world);
    struct rng rng;
    struct progress_of at = {{0}};
    int n = 0;
    rng_init(&rng, seed);
    world_init(w, seed);
    server = (struct redis_server){.keep = NULL};
    redis_server_start(&server);
    struct feat_state *writers[2] = {opened(p, 0, 0), opened(p, 0, 0)}, *reader = opened(p, 0, 0);
    struct feat_state *near[NEAR] = {opened(p, 1 << 20, 20000), opened(p, 1 << 20, 0),
                                     opened(p, 3000, 5000000)};
    while (n < HISTORY_MAX && n < 2 * EVENTS / BATCH_MAX) {
        when_us[n] = clock_mono_us();
        history[n++] = at;
        write_some(w, writers[n % 2], &rng, n % 2, &at);
        int back = (int)rng_below(&rng, BACK_MAX);
        while (back > 0 && n > back && when_us[n - 1] - when_us[n - 1 - back] > TOLD_US)
            back--;
        tell(w, history[n > back ? n - 1 - back : 0]);
        *differ += !read_again(w, p, reader, &rng, shares);
        tell(w, at);
        for (int i = 0; i < NEAR; i++) {
            long long before = asked_for();
            *differ += !read_again(w, p, near[i], &rng, shares);
            keys[i] += asked_for() - before;
        }
    }
    feat_state_free(writers[0]);
    feat_state_free(writers[1]);
    feat_state_free(reader);
    for (int i = 0; i < NEAR; i++)
        feat_state_free(near[i]);
    redis_server_remove(&server);
    world_deinit(w);
    heap_free(w);
}

static void test_what_was_read_is_what_is_said(void) {
    struct feat_plan *p = plan_of_all();
    int shares = 0, differ = 0;
    long long keys[NEAR] = {0};
    for (uint64_t seed = 1; seed <= WORLDS; seed++)
        one_world(p, seed, &shares, &differ, keys);
    CU_ASSERT_EQUAL(differ, 0);
    CU_ASSERT_TRUE(keys[0] < keys[2] / 2 && keys[1] < keys[2] / 2); /* the last has no room */
    CU_ASSERT_TRUE(shares > 1000);
    CU_ASSERT_EQUAL(n_never_filled(p, &filled), 0);
    feat_plan_free(p);
}

/* ---- while others write ---- */

struct writer {
    const struct feat_plan *p;
    const struct world *w;
    int number;
    _Atomic int *left;
};

static void *write_all(void *context) {
    struct writer *me = context;
    struct progress_of at = {{0}};
    struct rng rng;
    rng_init(&rng, (uint64_t)me->number);
    struct feat_state *s = opened(me->p, 0, 0);
    for (int i = 0; i < 2 * EVENTS / BATCH_MAX; i++)
        write_some(me->w, s, &rng, me->number, &at);
    feat_state_free(s);
    atomic_fetch_sub(me->left, 1);
    return NULL;
}

/* What changes while it is on its way, and while a section goes on. */
static void test_while_others_write(void) {
    struct feat_plan *p = plan_of_all();
    struct world *w = HEAP_NEW(struct world);
    pthread_t threads[2];
    _Atomic int left = 2;
    struct rng rng;
    int shares = 0, differ = 0;
    rng_init(&rng, 99);
    world_init(w, 99);
    server = (struct redis_server){.keep = NULL};
    redis_server_start(&server);
    struct feat_state *near[2] = {opened(p, 1 << 20, 20000), opened(p, 1 << 20, 0)};
    struct writer writers[2] = {{p, w, 0, &left}, {p, w, 1, &left}};
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, write_all, &writers[i]);
    for (int i = 0; atomic_load(&left) > 0; i++)
        differ += !read_again(w, p, near[i % 2], &rng, &shares);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    CU_ASSERT_EQUAL(differ, 0);
    for (int i = 0; i < 2; i++)
        feat_state_free(near[i]);
    redis_server_remove(&server);
    world_deinit(w);
    heap_free(w);
    feat_plan_free(p);
}

/* ---- who waited for an event sees it ---- */

struct holder {
    struct feat_state *s;
    struct ev_source until;
    _Atomic int step;
};

static void count(void *context) { ++*(int *)context; }

static int64_t offset_of(struct feat_state *s, int32_t partition) {
    struct arena a;
    const struct feat_applied *applied;
    int64_t offset = -1;
    arena_init(&a, 0);
    feat_state_read_begin(s);
    feat_state_user_epoch(s, SLICE_LIT(""), SLICE_LIT("u1"));
    int n = feat_state_applied(s, &a, &applied);
    for (int i = 0; i < n; i++)
        offset = applied[i].partition == partition ? applied[i].offset : offset;
    CHECK_OK(feat_state_read_end(s));
    arena_deinit(&a);
    return offset;
}

static void step_to(_Atomic int *step, int from, int to) {
    while (atomic_load(step) != from)
        sched_yield();
    atomic_store(step, to);
}

/* A section that has the first reader, which the pool then gives out again. */
static void *hold_reader(void *context) {
    struct holder *h = context;
    feat_state_read_begin(h->s);
    feat_state_user_epoch(h->s, SLICE_LIT(""), SLICE_LIT("u1"));
    step_to(&h->step, 0, 1);
    step_to(&h->step, 2, 3);
    CHECK_OK(feat_state_read_end(h->s));
    return NULL;
}

static void test_who_waited_sees(void) {
    struct feat_plan *p = plan_of_all();
    struct world *w = HEAP_NEW(struct world);
    pthread_t thread;
    world_init(w, 5);
    server = (struct redis_server){.keep = NULL};
    redis_server_start(&server);
    struct feat_state *writer = opened(p, 0, 0), *s = opened(p, 1 << 20, 5000000);
    const struct ev_event *first = event_at(w, 0, 0), *last = event_at(w, 0, 1);
    CHECK_OK(feat_state_claim_log(writer, "views"));
    CHECK_OK(feat_state_claim_log(s, "views")); /* shared by all processes */
    CHECK_FAILS(feat_state_claim_log(s, FEAT_LOG_FILE), STATUS_FAILED_PRECONDITION, "views");
    CHECK_OK(feat_state_apply(writer, first, 1, NULL));
    int waits = 0;
    feat_state_tell_waits(count, &waits);
    CU_ASSERT_EQUAL(offset_of(s, first->source.partition), first->source.offset);
    CU_ASSERT_TRUE(waits > 0);
    waits = 0;
    uint64_t near = metric_value(METRIC_STATE_NEAR), asked = metric_value(METRIC_STATE_ASKED);
    CU_ASSERT_EQUAL(offset_of(s, first->source.partition), first->source.offset);
    CU_ASSERT_EQUAL(waits, 0); /* all is near */
    CU_ASSERT_EQUAL(metric_value(METRIC_STATE_NEAR), near + 1);
    CU_ASSERT_EQUAL(metric_value(METRIC_STATE_ASKED), asked);
    feat_state_tell_waits(NULL, NULL);
    struct holder h = {.s = s, .until = last->source};
    pthread_create(&thread, NULL, hold_reader, &h);
    step_to(&h.step, 1, 1);
    CHECK_OK(feat_state_apply(writer, last, 1, NULL));
    CHECK_OK(feat_state_wait(s, last->source, 20000));
    step_to(&h.step, 1, 2);
    pthread_join(thread, NULL);
    CU_ASSERT_EQUAL(offset_of(s, last->source.partition), last->source.offset);
    feat_state_free(writer);
    feat_state_free(s);
    redis_server_remove(&server);
    world_deinit(w);
    heap_free(w);
    feat_plan_free(p);
}

SUITE("features_reads", TEST(test_what_was_read_is_what_is_said), TEST(test_while_others_write),
      TEST(test_who_waited_sees))
