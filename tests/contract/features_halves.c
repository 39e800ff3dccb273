/* Batches that were half written: after a micro-batch some buckets of the Redis store are put back
 * to what they were before it, as if its writer had died in the middle, and another one goes on
 * from there with batches of its own. Rows and dump at the end are those of the memory store, bit
 * for bit: with joins, whose events change records of other buckets than those they are worked out
 * from; once where buckets are written as a whole (sums over items), once record by record. */
#pragma GCC diagnostic ignored "-Wunused-function" /* the oracle is not needed here */
#include "base/heap.h"
#include "tests/support/features_dump.h"
#include "tests/contract/features_expect.h"
#include "tests/contract/features_same.h"
#include "tests/support/redis_store.h"

enum { WORLDS = 8, QUERIES = 40, BATCH_MAX = 60, PLANS = 2 };

static struct redis_server server;

/* No sums: everything but the rate by brand. */
static const char plan_records[] =
    "lateness: 60s\n"
    "features:\n"
    "  - {name: visit, kind: join, window: 100s}\n"
    "  - {name: brief, kind: join, window: 30s}\n"
    "  - {name: shown, kind: count, scope: item, on: impression}\n"
    "  - {name: seen, kind: count, scope: item, on: impression, cascade: visit}\n"
    "  - {name: seen_home, kind: count, scope: user, on: 'impression where page != \"search\"',\n"
    "     cascade: visit}\n"
    "  - {name: ctr, kind: rate, scope: item, top: click, bottom: impression, cascade: visit,\n"
    "     attribution: brief, bucket: 20s, windows: [200s, 400s], prior_weight: 2}\n"
    "  - {name: answers, kind: window_count, scope: item, on: any, attribution: visit,\n"
    "     bucket: 10s, windows: [100s, 300s]}\n"
    "  - {name: answered, kind: count, scope: session, on: any, attribution: brief}\n"
    "  - {name: all, kind: count, scope: global, on: any, attribution: visit}\n"
    "  - {name: by_brand, kind: count, scope: event.brand, on: any, attribution: visit}\n"
    "  - {name: last, kind: last_n, on: rating, n: 3, attribution: visit}\n"
    "  - {name: fit, kind: match, of: last, field: genres}\n";

static struct feat_plan *plan_number(int number) {
    return number == 0 ? plan_of_parts(plan_head, plan_more, plan_joins) : plan_of(plan_records);
}

static struct feat_state *opened(const struct feat_plan *p) {
    struct feat_store_conf c = redis_store_conf(&server, "h:", 7);
    return redis_store_open(p, &c);
}

/* ---- half a batch ---- */

static void say(const char *line) {
    char reply[256];
    CU_ASSERT_TRUE(redis_server_say(&server, line, reply, sizeof reply) && reply[0] == '$');
}

static void keep_copy(void) {
    say("EVAL \"for _,k in ipairs(redis.call('KEYS','b:*')) do redis.call('DEL',k) end "
        "for _,k in ipairs(redis.call('KEYS','h:*')) do redis.call('COPY',k,'b:'..k) end\" 0");
}

/* Each bucket with chance 1/2; of a plan that writes record by record, of half of those only some
 * records, and the marker. */
static void put_back(uint64_t seed, bool records) {
    char line[1600];
    snprintf(line, sizeof line,
             "EVAL \"local all,half={},{} "
             "local function goes(k) "
             "local tag=string.match(k,'{(.-)}') if not tag then return k=='h:applied' end "
             "if all[tag]==nil then local n=0 for i=1,#tag do n=n*256+string.byte(tag,i) end "
             "math.randomseed(n+%u) all[tag]=math.random(2)==1 half[tag]=math.random(2)==1 end "
             "if not all[tag] then return false end "
             "if %d==0 or not half[tag] or string.sub(k,-2)=='}m' then return true end "
             "local n=%u for i=1,#k do n=(n*31+string.byte(k,i))%%1000003 end return n%%2==0 end "
             "local new=redis.call('KEYS','h:*') "
             "for _,k in ipairs(new) do if goes(k) then redis.call('DEL',k) end end "
             "for _,b in ipairs(redis.call('KEYS','b:*')) do local k=string.sub(b,3) "
             "if goes(k) then redis.call('COPY',b,k,'REPLACE') end end\" 0",
             (unsigned)seed, records, (unsigned)seed);
    say(line);
}

/* ---- writing ---- */

/* Where reading goes on: by number of events. */
static void take_positions(const struct world *w, struct feat_state *s, int *next) {
    const struct feat_applied *at;
    int n;
    CHECK_OK(feat_state_resume(s, &at, &n));
    for (int i = 0; i < PARTITIONS; i++) {
        next[i] = 0;
        for (int k = 0; k < n; k++)
            while (at[k].partition == i * 7 && next[i] < PER_PARTITION &&
                   w->events[i * PER_PARTITION + next[i]].source.offset <= at[k].offset)
                next[i]++;
    }
}

static int make_batch(const struct world *w, struct rng *rng, int *next, struct ev_event *batch) {
    int n = 0, most = 1 + (int)rng_below(rng, BATCH_MAX);
    int parts = rng_below(rng, 2) == 0 ? 1 : PARTITIONS, first = (int)rng_below(rng, PARTITIONS);
    for (int tries = 0; n < most && tries < 4 * BATCH_MAX; tries++) {
        int i = tries > 2 * BATCH_MAX ? (int)rng_below(rng, PARTITIONS) /* that one has ended */
                                      : (first + (int)rng_below(rng, (uint32_t)parts)) % PARTITIONS;
        if (next[i] < PER_PARTITION)
            batch[n++] = w->events[i * PER_PARTITION + next[i]++];
    }
    return n;
}

/* Returns the state of the last writer, and how often one died. */
static struct feat_state *write_halves(const struct world *w, const struct feat_plan *p,
                                       struct rng *rng, int *deaths) {
    struct feat_state *s = opened(p);
    int next[PARTITIONS] = {0};
    for (;;) {
        struct ev_event batch[BATCH_MAX];
        int n = make_batch(w, rng, next, batch);
        if (n == 0)
            return s;
        keep_copy();
        CHECK_OK(feat_state_apply(s, batch, n, NULL));
        if (rng_below(rng, 3) == 0)
            continue;
        put_back(rng_u64(rng), !p->sums_items);
        feat_state_free(s);
        s = opened(p);
        take_positions(w, s, next);
        ++*deaths;
    }
}

/* Three ids for everything: records that never go, of which parts do, and which are full. */
static void use_few_ids(struct world *w) {
    for (int i = 0; i < EVENTS; i++) {
        struct ev_event *e = &w->events[i];
        struct slice *id = e->kind == EV_RANKING ? &e->id : &e->ranking;
        if (id->n > 0)
            *id = name_of(w, "r", (uint32_t)(id->p[id->n - 1] + e->event_time_us / 400000000) % 3);
    }
}

static struct feat_state *in_memory(struct world *w, const struct feat_plan *p) {
    static int order[EVENTS];
    struct rng rng;
    rng_init(&rng, 1);
    int n = world_order(w, &rng, false, order, EVENTS);
    struct feat_state *s = feat_state_new(p);
    world_apply(w, &rng, s, order, n);
    return s;
}

static void one_world(const struct feat_plan *p, uint64_t seed, int *deaths) {
    struct world *w = HEAP_NEW(struct world);
    struct rng rng;
    rng_init(&rng, seed);
    world_init(w, seed);
    if (seed % 2 == 1)
        use_few_ids(w);
    server = (struct redis_server){.keep = NULL};
    redis_server_start(&server);
    struct feat_state *s = write_halves(w, p, &rng, deaths), *want = in_memory(w, p), *copy = NULL;
    CU_ASSERT(same_dump(s, want));
    CU_ASSERT_EQUAL(other_rows(w, p, s, want, 5, QUERIES, NULL), 0);
    CHECK_OK(feat_state_copy(s, &copy));
    if (copy != NULL && seed % 2 == 0) /* what waits is deleted: no week has passed */
        CU_ASSERT(feat_state_size(copy).entities[FEAT_SCOPE_RANKING] <
                  feat_state_size(s).entities[FEAT_SCOPE_RANKING]);
    feat_state_free(copy);
    feat_state_free(want);
    feat_state_free(s);
    redis_server_remove(&server);
    world_deinit(w);
    heap_free(w);
}

static void test_half_written_batches(void) {
    for (int number = 0; number < PLANS; number++) {
        struct feat_plan *p = plan_number(number);
        int deaths = 0;
        for (uint64_t seed = 200; seed < 200 + WORLDS; seed++)
            one_world(p, seed, &deaths);
        CU_ASSERT(deaths > 20 * WORLDS);
        feat_plan_free(p);
    }
}

/* ---- what a dead writer leaves ---- */

static uint64_t waiting_in(struct feat_state *s) {
    struct feat_state *copy = NULL;
    CHECK_OK(feat_state_copy(s, &copy));
    uint64_t n = copy == NULL ? 0 : feat_state_size(copy).entities[FEAT_SCOPE_RANKING];
    feat_state_free(copy);
    return n;
}

/* Somebody else has the partitions now, and time goes on. */
static void test_orphans_are_found(void) {
    struct feat_plan *p = plan_number(1);
    struct world *w = HEAP_NEW(struct world);
    world_init(w, 300);
    server = (struct redis_server){.keep = NULL};
    redis_server_start(&server);
    struct feat_state *s = opened(p);
    for (int i = 0; i < EVENTS; i++)
        CHECK_OK(feat_state_apply(s, &w->events[i], 1, NULL));
    uint64_t left = waiting_in(s);
    CU_ASSERT(left > 20);
    CU_ASSERT(feat_state_size(s).unjoined > 0);
    long long ttl_ms = redis_server_number(
        &server,
        "EVAL \"local t=-2 for _,k in ipairs(redis.call('KEYS','h:{*')) do "
        "if string.sub(k,-9,-9)=='r' then t=redis.call('PTTL',k) end end return t\" 0",
        NULL);
    CU_ASSERT(ttl_ms > 7 * 86400000ll && ttl_ms <= 7 * 86400000ll + 100000); /* and a window */
    feat_state_free(s);
    s = opened(p);
    struct ev_event e = {
        .kind = EV_INTERACTION, .item = SLICE_LIT("i1"), .type = SLICE_LIT("view")};
    int rounds = 0;
    for (; waiting_in(s) > 0 && rounds < 2000; rounds++) {
        for (int i = 0; i < PARTITIONS; i++) {
            const struct ev_event *last = &w->events[(i + 1) * PER_PARTITION - 1];
            e.source = (struct ev_source){i * 7, last->source.offset + 1 + rounds};
            e.event_time_us = w->newest_us + 1000 * 1000000ll + rounds;
            CHECK_OK(feat_state_apply(s, &e, 1, NULL));
        }
        clock_sleep_ms(5);
    }
    CU_ASSERT_EQUAL(waiting_in(s), 0);
    CU_ASSERT_EQUAL(feat_state_size(s).waiting, 0);
    CU_ASSERT(rounds > 1);
    feat_state_free(s);
    redis_server_remove(&server);
    world_deinit(w);
    heap_free(w);
    feat_plan_free(p);
}

SUITE("features_halves", TEST(test_half_written_batches), TEST(test_orphans_are_found))
