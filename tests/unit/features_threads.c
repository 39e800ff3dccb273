/* One writer, three readers: a reader sees whole micro-batches only, and the offsets it reads say
 * which. Run under ThreadSanitizer to be worth its name. */
#include "tests/unit/features_make.h"
#include <pthread.h>
#include <stdatomic.h>

enum { BATCHES = 400, PER_BATCH = 16, READERS = 3 };

static struct feat_plan *plan;
static struct feat_state *state;
static atomic_int done, wrong, reads;

static void *write_all(void *unused) {
    (void)unused;
    for (int b = 0; b < BATCHES; b++) {
        struct ev_event events[PER_BATCH];
        for (int i = 0; i < PER_BATCH; i++)
            events[i] = interaction(i % 2 ? "u" : "v", i % 3 ? "a" : "b", "click", 1000000 + b, 0,
                                    b * PER_BATCH + i);
        feat_state_apply(state, events, PER_BATCH, NULL);
    }
    atomic_store(&done, 1);
    return NULL;
}

/* The count of everything equals the offset read in the same section, and is a multiple of the
 * batch. */
static void read_once(struct arena *a) {
    static const struct slice items[] = {SLICE_LIT("a"), SLICE_LIT("b"), SLICE_LIT("z")};
    struct feat_request request = {.user = SLICE_LIT("u"), .items = items, .n_items = 3};
    struct feat_rows rows;
    const struct feat_applied *applied;
    arena_reset(a);
    feat_state_read_begin(state);
    feat_state_extract(state, a, &request, 2000000, &rows);
    int n = feat_state_applied(state, a, &applied);
    feat_state_read_end(state);
    int64_t seen = n == 0 ? 0 : applied[0].offset + 1;
    bool good = (int64_t)rows.query[0] == seen && seen % PER_BATCH == 0 &&
                (int64_t)(rows.cand[0] + rows.cand[2]) == seen && rows.cand[4] == 0;
    if (!good)
        atomic_fetch_add(&wrong, 1);
    atomic_fetch_add(&reads, 1);
}

static void *read_on(void *unused) {
    (void)unused;
    struct arena a;
    arena_init(&a, 0);
    do
        read_once(&a);
    while (!atomic_load(&done));
    arena_deinit(&a);
    return NULL;
}

static void *wait_for_the_end(void *unused) {
    (void)unused;
    enum status s = feat_state_wait(state, (struct ev_source){0, BATCHES * PER_BATCH - 1}, 120000);
    if (s != STATUS_OK)
        atomic_fetch_add(&wrong, 1);
    return NULL;
}

static void test_readers_see_whole_batches(void) {
    plan = plan_of("features:\n"
                   "  - {name: all, kind: count, scope: global, on: any}\n"
                   "  - {name: of_item, kind: count, scope: item, on: any}\n"
                   "  - {name: seen, kind: last_n, on: any, n: 20}\n"
                   "  - {name: again, kind: time_since, of: seen}\n");
    state = feat_state_new(plan);
    CU_ASSERT_EQUAL(plan->cand_columns, 2);
    pthread_t writer, waiter, readers[READERS];
    pthread_create(&waiter, NULL, wait_for_the_end, NULL);
    for (int i = 0; i < READERS; i++)
        pthread_create(&readers[i], NULL, read_on, NULL);
    pthread_create(&writer, NULL, write_all, NULL);
    pthread_join(writer, NULL);
    pthread_join(waiter, NULL);
    for (int i = 0; i < READERS; i++)
        pthread_join(readers[i], NULL);
    CU_ASSERT_EQUAL(atomic_load(&wrong), 0);
    CU_ASSERT(atomic_load(&reads) >= READERS);
    feat_state_free(state);
    feat_plan_free(plan);
}

SUITE("features_threads", TEST(test_readers_see_whole_batches))
