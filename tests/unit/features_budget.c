/* features_budget: a state under a byte budget that is halved and doubled again while events come
 * in and rows are made: it stays under its budget after every micro-batch, what it forgets is
 * counted, and readers go on, with rows that somebody who was forgotten has, too. */
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include "base/rng.h"
#include "features/state_parts.h"
#include "tests/unit/features_make.h"

static const char plan_text[] =
    "features:\n"
    "  - {name: clicks, kind: count, scope: item, on: any}\n"
    "  - {name: lately, kind: window_count, scope: user, on: any, bucket: 10s, windows: [5m]}\n"
    "  - {name: seen, kind: last_n, on: any, n: 20}\n"
    "  - {name: fit, kind: match, of: seen, field: id}\n";

enum { USERS = 40000, ITEMS = 2000, BATCHES = 900, BATCH = 200, READERS = 2 };

static struct feat_plan *plan;
static struct feat_state *state;
static atomic_int stopping;
static atomic_llong calls, bad;

static const char *name_of(struct arena *a, char letter, uint64_t number) {
    return arena_printf(a, "%c%d", letter, (int)number);
}

static void *read_rows(void *seed) {
    struct arena a;
    struct rng rng;
    arena_init(&a, 0);
    rng_init(&rng, (uint64_t)(uintptr_t)seed);
    while (!atomic_load(&stopping)) {
        struct slice items[8];
        struct feat_rows rows;
        arena_reset(&a);
        for (int i = 0; i < 8; i++)
            items[i] = slice_of(name_of(&a, 'i', rng_below(&rng, ITEMS)));
        struct feat_request request = {.user = slice_of(name_of(&a, 'u', rng_below(&rng, USERS))),
                                       .items = items,
                                       .n_items = 8};
        feat_state_read_begin(state);
        feat_state_extract(state, &a, &request, INT64_C(2000000000), &rows);
        feat_state_read_end(state);
        for (int i = 0; i < 8; i++) /* the first column counts: never missing, never negative */
            if (!(rows.cand[i * plan->cand_columns] >= 0))
                atomic_fetch_add(&bad, 1);
        atomic_fetch_add(&calls, 1);
    }
    arena_deinit(&a);
    return NULL;
}

static void write_batch(struct arena *a, struct rng *rng, int number) {
    struct ev_event events[BATCH];
    arena_reset(a);
    for (int i = 0; i < BATCH; i++) {
        int64_t offset = (int64_t)number * BATCH + i;
        events[i] = interaction(name_of(a, 'u', rng_below(rng, USERS)),
                                name_of(a, 'i', rng_below(rng, ITEMS)), "click",
                                1000000000 + offset * 1000, 0, offset);
    }
    CHECK_OK(feat_state_apply(state, events, BATCH, NULL));
}

/* Batches [from, to) under a budget; returns how many entities were forgotten for it. */
static uint64_t write_under(uint64_t budget, struct rng *rng, int from, int to) {
    struct arena a;
    uint64_t before = feat_state_size(state).evicted;
    long long calls_before = atomic_load(&calls);
    arena_init(&a, 0);
    feat_state_limit(state, (int64_t)budget, 0);
    CU_ASSERT_TRUE(feat_state_size(state).bytes <= budget); /* at once */
    for (int i = from; i < to; i++) {
        write_batch(&a, rng, i);
        CU_ASSERT_TRUE(feat_state_size(state).bytes <= budget);
    }
    while (atomic_load(&calls) < calls_before + 20) /* ranking goes on */
        sched_yield();
    arena_deinit(&a);
    return feat_state_size(state).evicted - before;
}

static void test_halved_under_load(void) {
    const uint64_t budget = 3 << 20;
    pthread_t readers[READERS];
    struct rng rng;
    rng_init(&rng, 5);
    plan = plan_of(plan_text);
    state = feat_state_new(plan);
    for (int i = 0; i < READERS; i++)
        pthread_create(&readers[i], NULL, read_rows, (void *)(uintptr_t)(i + 1));
    write_under(budget, &rng, 0, BATCHES / 3);
    CU_ASSERT_TRUE(feat_state_size(state).bytes > budget / 2); /* or halving proves nothing */
    uint64_t forgotten = write_under(budget / 2, &rng, BATCHES / 3, 2 * BATCHES / 3);
    CU_ASSERT_TRUE(forgotten > 1000);
    uint64_t entities = feat_state_size(state).entities[FEAT_SCOPE_USER];
    write_under(budget, &rng, 2 * BATCHES / 3, BATCHES);
    CU_ASSERT_TRUE(feat_state_size(state).entities[FEAT_SCOPE_USER] > entities); /* room again */
    atomic_store(&stopping, 1);
    for (int i = 0; i < READERS; i++)
        pthread_join(readers[i], NULL);
    CU_ASSERT_EQUAL(atomic_load(&bad), 0);
    feat_state_free(state);
    feat_plan_free(plan);
}

SUITE("features_budget", TEST(test_halved_under_load))
