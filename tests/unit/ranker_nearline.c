/* ranker_nearline: lists are made after events of their user, served while they are good, leave out
 * what was seen, and are ranked on the spot otherwise. Lists are kept in memory here. */
#include <stdlib.h>
#include "base/clock.h"
#include "base/metric.h"
#include "ranker/nearline.h"
#include "tests/support/ranker_lab.h"

struct near {
    struct lab lab;
    struct rk_model_slot slot;
    struct rk_nearline *nearline;
    struct rk_list_worker *worker;
    struct arena arena;
    int n_events;
};

static bool near_init(struct near *n, const char *const *sets, int n_sets) {
    *n = (struct near){.n_events = LAB_EVENTS};
    if (!lab_init(&n->lab, sets, n_sets))
        return false;
    rk_model_publish(&n->slot, n->lab.bundle);
    n->lab.bundle = NULL; /* the slot's now */
    n->nearline = rk_nearline_start(n->lab.conf, n->lab.state, &n->slot);
    n->worker = rk_list_worker_new(n->nearline);
    arena_init(&n->arena, 0);
    metric_reset(METRIC_NEARLINE_LISTS);
    return true;
}

static void near_deinit(struct near *n) {
    rk_list_worker_free(n->worker);
    rk_nearline_stop(n->nearline);
    rk_model_slot_deinit(&n->slot);
    arena_deinit(&n->arena);
    lab_deinit(&n->lab);
}

static struct rpc_recommend_response recommend(struct near *n, const char *user, int wanted) {
    const struct rpc_recommend_request q = {.user = slice_of(user), .n = wanted};
    struct rpc_recommend_response r = {0};
    CHECK_OK(rk_nearline_recommend(n->worker, &n->arena, &q, LAB_NOW, &r));
    return r;
}

/* As the ingester does: apply, then tell. */
static void happens(struct near *n, const char *user) {
    struct ev_field value;
    char id[16];
    int i = n->n_events++;
    struct ev_event e = lab_event(&n->lab, i, &value, id, user);
    enum feat_verdict verdict;
    feat_state_apply(n->lab.state, &e, 1, &verdict);
    rk_nearline_events(n->nearline, &e, &verdict, 1);
}

static void wait_lists(uint64_t n) {
    while (metric_value(METRIC_NEARLINE_LISTS) < n)
        clock_sleep_ms(1);
}

static bool has(const struct rpc_recommend_response *r, struct slice item) {
    for (int i = 0; i < r->n; i++)
        if (slice_equal(r->items[i], item))
            return true;
    return false;
}

static void test_ranked_once_then_kept(void) {
    struct near n;
    if (!near_init(&n, NULL, 0))
        return;
    struct rpc_recommend_response first = recommend(&n, "u1", 5);
    CU_ASSERT(slice_is(first.origin, "ranked"));
    CU_ASSERT_EQUAL(first.n, 5);
    CU_ASSERT_EQUAL(first.user_epoch, LAB_EVENTS / 6);
    struct slice best = arena_dup(&n.arena, first.items[0]);
    struct rpc_recommend_response again = recommend(&n, "u1", 8);
    CU_ASSERT(slice_is(again.origin, "list"));
    CU_ASSERT_EQUAL(again.n, 8);
    CU_ASSERT(slice_equal(again.items[0], best));
    for (int i = 1; i < again.n; i++)
        CU_ASSERT(again.scores[i] <= again.scores[i - 1]);
    struct rpc_recommend_response longer = recommend(&n, "u1", 20); /* longer than what is kept */
    CU_ASSERT(slice_is(longer.origin, "ranked"));
    CU_ASSERT_EQUAL(longer.n, 20);
    CU_ASSERT_EQUAL(recommend(&n, "u1", 0).n, 8); /* ten by default; eight are kept */
    near_deinit(&n);
}

static void test_an_event_remakes_the_list(void) {
    struct near n;
    if (!near_init(&n, NULL, 0))
        return;
    struct rpc_recommend_response before = recommend(&n, "u1", 8);
    uint64_t epoch = before.user_epoch;
    happens(&n, "u1");
    wait_lists(1);
    struct rpc_recommend_response after = recommend(&n, "u1", 8);
    CU_ASSERT(slice_is(after.origin, "list"));
    CU_ASSERT_EQUAL(after.user_epoch, epoch + 1);
    int i = n.n_events - 1;
    CU_ASSERT_FALSE(has(&after, n.lab.items[lab_item(i)])); /* what was just rated */
    happens(&n, "u2"); /* another user's event leaves u1's list good */
    wait_lists(2);
    CU_ASSERT(slice_is(recommend(&n, "u1", 8).origin, "list"));
    near_deinit(&n);
}

/* Not told of the event (a full queue, a restart): the epoch shows that the list is old. */
static void test_an_old_list_is_not_served(void) {
    struct near n;
    if (!near_init(&n, NULL, 0))
        return;
    recommend(&n, "u1", 8);
    struct ev_field value;
    char id[16];
    struct ev_event e = lab_event(&n.lab, n.n_events, &value, id, "u1");
    feat_state_apply(n.lab.state, &e, 1, NULL);
    CU_ASSERT(slice_is(recommend(&n, "u1", 8).origin, "ranked"));
    CU_ASSERT(slice_is(recommend(&n, "u1", 8).origin, "list"));
    near_deinit(&n);
}

static void test_seen_items_stay_when_asked_to(void) {
    const char *const sets[] = {"nearline.exclude_seen=false", "nearline.list_n=40"};
    struct near n;
    if (!near_init(&n, sets, 2))
        return;
    struct rpc_recommend_response all = recommend(&n, "u1", 40);
    int i = n.n_events - 5; /* the last of u1 */
    CU_ASSERT(has(&all, n.lab.items[lab_item(i)]));
    near_deinit(&n);
}

static void test_strangers_and_disabled_lists(void) {
    const char *const sets[] = {"nearline.enabled=false"};
    struct near n;
    if (!near_init(&n, sets, 1))
        return;
    CU_ASSERT_EQUAL(recommend(&n, "nobody", 3).n, 3);
    CU_ASSERT_EQUAL(recommend(&n, "", 3).n, 3);
    recommend(&n, "u1", 3);
    happens(&n, "u1");
    CU_ASSERT(slice_is(recommend(&n, "u1", 3).origin, "ranked"));
    CU_ASSERT_EQUAL(metric_value(METRIC_NEARLINE_LISTS), 0);
    rk_model_publish(&n.slot, NULL);
    const struct rpc_recommend_request q = {.user = SLICE_LIT("u1")};
    struct rpc_recommend_response r;
    CHECK_FAILS(rk_nearline_recommend(n.worker, &n.arena, &q, LAB_NOW, &r),
                STATUS_FAILED_PRECONDITION, "serving.path");
    near_deinit(&n);
}

static void test_no_items_known(void) {
    struct near n;
    if (!near_init(&n, NULL, 0))
        return;
    struct feat_state *empty = feat_state_new(n.lab.conf->plan);
    struct rk_nearline *other = rk_nearline_start(n.lab.conf, empty, &n.slot);
    struct rk_list_worker *w = rk_list_worker_new(other);
    const struct rpc_recommend_request q = {.user = SLICE_LIT("u1")};
    struct rpc_recommend_response r;
    CHECK_FAILS(rk_nearline_recommend(w, &n.arena, &q, LAB_NOW, &r), STATUS_NOT_FOUND, "no items");
    rk_list_worker_free(w);
    rk_nearline_stop(other);
    feat_state_free(empty);
    near_deinit(&n);
}

SUITE("ranker_nearline", TEST(test_ranked_once_then_kept), TEST(test_an_event_remakes_the_list),
      TEST(test_an_old_list_is_not_served), TEST(test_seen_items_stay_when_asked_to),
      TEST(test_strangers_and_disabled_lists), TEST(test_no_items_known))
