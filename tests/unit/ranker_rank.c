/* ranker_rank: the heart: order, ties, limits, bits that stay equal, explanations, models that do
 * not fit their plan, and a slot whose models come and go under readers. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include "base/heap.h"
#include "ranker/model_slot.h"
#include "tests/support/ranker_lab.h"

struct answer {
    struct rk_worker w;
    struct rpc_rank_response r;
    struct rk_seen seen;
};

static bool ask(const struct lab *l, const struct rpc_rank_request *request, struct answer *a) {
    rk_worker_init(&a->w);
    return CHECK_OK(rk_rank(l->bundle, l->state, &a->w, request, &a->r, &a->seen));
}

static bool same_bits(const struct rpc_rank_response *a, const struct rpc_rank_response *b) {
    bool same = a->n == b->n && a->n_tasks == b->n_tasks && a->user_epoch == b->user_epoch &&
                memcmp(a->order, b->order, (size_t)a->n * sizeof *a->order) == 0 &&
                memcmp(a->scores, b->scores, (size_t)a->n * sizeof *a->scores) == 0;
    for (int t = 0; same && t < a->n_tasks; t++)
        same = memcmp(a->probabilities[t], b->probabilities[t], (size_t)a->n * sizeof(float)) == 0;
    return same;
}

static void test_ranks_by_the_weighted_sum(void) {
    struct lab l;
    struct answer a;
    if (!lab_init(&l, NULL, 0))
        return;
    struct rpc_rank_request q = lab_request(&l);
    ask(&l, &q, &a);
    CU_ASSERT_EQUAL_FATAL(a.r.n, LAB_ITEMS);
    CU_ASSERT_EQUAL_FATAL(a.r.n_tasks, 2);
    CU_ASSERT(slice_is(a.r.tasks[0], "like") && slice_is(a.r.tasks[1], "love"));
    CU_ASSERT(slice_is(a.r.request_id, "r"));
    CU_ASSERT(slice_is(a.r.model_version, moe_model_version(l.bundle->model)));
    CU_ASSERT_EQUAL(a.r.user_epoch, LAB_EVENTS / 6);
    CU_ASSERT_EQUAL(a.seen.n_applied, 1);
    CU_ASSERT_EQUAL(a.seen.applied[0].offset, LAB_EVENTS - 1);
    bool seen[LAB_ITEMS] = {false};
    for (int i = 0; i < a.r.n; i++) {
        float p = a.r.probabilities[0][i], sum = p + 0.5f * a.r.probabilities[1][i];
        CU_ASSERT(p > 0 && p < 1);
        CU_ASSERT_DOUBLE_EQUAL(a.r.scores[i], sum, 1e-6);
        CU_ASSERT(i == 0 || a.r.scores[i] <= a.r.scores[i - 1]);
        CU_ASSERT_FALSE(seen[a.r.order[i]]);
        seen[a.r.order[i]] = true;
    }
    rk_worker_deinit(&a.w);
    lab_deinit(&l);
}

/* The same ids of another tenant are other users and items. */
static void test_tenants_are_apart(void) {
    struct lab l;
    struct answer ours, theirs, later, again;
    if (!lab_init(&l, NULL, 0))
        return;
    struct rpc_rank_request q = lab_request(&l), other = q;
    other.tenant = SLICE_LIT("other");
    ask(&l, &q, &ours);
    ask(&l, &other, &theirs);
    CU_ASSERT(ours.r.user_epoch > 0 && theirs.r.user_epoch == 0);
    CU_ASSERT_FALSE(same_bits(&ours.r, &theirs.r));
    for (int i = 0; i < LAB_EVENTS; i++) {
        struct ev_field value;
        char id[16];
        struct ev_event e = lab_event(&l, i, &value, id, lab_users[i % 6]);
        e.tenant = other.tenant;
        e.source.partition = 1;
        feat_state_apply(l.state, &e, 1, NULL);
    }
    ask(&l, &other, &later);
    CU_ASSERT(later.r.user_epoch == ours.r.user_epoch);
    CU_ASSERT_FALSE(same_bits(&theirs.r, &later.r));
    ask(&l, &q, &again);
    CU_ASSERT(same_bits(&ours.r, &again.r));
    rk_worker_deinit(&ours.w);
    rk_worker_deinit(&theirs.w);
    rk_worker_deinit(&later.w);
    rk_worker_deinit(&again.w);
    lab_deinit(&l);
}

static void test_product_and_weights(void) {
    const char *const sets[] = {"score.combine=product", "score.like=2", "score.love=1"};
    struct lab l;
    struct answer a;
    if (!lab_init(&l, sets, 3))
        return;
    struct rpc_rank_request q = lab_request(&l);
    ask(&l, &q, &a);
    for (int i = 0; i < a.r.n; i++) {
        float p = a.r.probabilities[0][i];
        CU_ASSERT_DOUBLE_EQUAL(a.r.scores[i], p * p * a.r.probabilities[1][i], 1e-6);
    }
    rk_worker_deinit(&a.w);
    lab_deinit(&l);
}

static void test_equal_rows_keep_the_requests_order(void) {
    struct lab l;
    struct answer a;
    if (!lab_init(&l, NULL, 0))
        return;
    struct slice items[300];
    for (int i = 0; i < 300; i++)
        items[i] = l.items[i % 3];
    struct rpc_rank_request q = lab_request(&l);
    q.items = items;
    q.n_items = 300;
    ask(&l, &q, &a);
    for (int i = 1; i < 300; i++)
        CU_ASSERT(a.r.scores[i] < a.r.scores[i - 1] || a.r.order[i] > a.r.order[i - 1]);
    rk_worker_deinit(&a.w);
    lab_deinit(&l);
}

/* A candidate's score does not hang on the others, on top_n, on explain or on the worker. */
static void test_bits_do_not_depend_on_company(void) {
    struct lab l;
    struct answer all, again, few, one;
    if (!lab_init(&l, NULL, 0))
        return;
    struct rpc_rank_request q = lab_request(&l);
    ask(&l, &q, &all);
    q.explain = true;
    ask(&l, &q, &again);
    CU_ASSERT(same_bits(&all.r, &again.r));
    q.top_n = 5;
    ask(&l, &q, &few);
    CU_ASSERT_EQUAL(few.r.n, 5);
    CU_ASSERT_EQUAL(memcmp(few.r.order, all.r.order, 5 * sizeof(uint32_t)), 0);
    CU_ASSERT_EQUAL(memcmp(few.r.scores, all.r.scores, 5 * sizeof(float)), 0);
    uint32_t best = all.r.order[0];
    q.items = &l.items[best];
    q.n_items = 1;
    ask(&l, &q, &one);
    CU_ASSERT_EQUAL(one.r.scores[0], all.r.scores[0]);
    rk_worker_deinit(&all.w);
    rk_worker_deinit(&again.w);
    rk_worker_deinit(&few.w);
    rk_worker_deinit(&one.w);
    lab_deinit(&l);
}

static void test_context_columns_and_strangers(void) {
    struct lab l;
    struct answer plain, late, boosted;
    if (!lab_init(&l, NULL, 0))
        return;
    struct rpc_rank_request q = lab_request(&l);
    q.user = SLICE_LIT("nobody");
    q.explain = true;
    ask(&l, &q, &plain);
    CU_ASSERT_EQUAL(plain.r.user_epoch, 0);
    const struct ev_field hour = {SLICE_LIT("hour"), {.type = EV_NUMBER, .number = 23}};
    q.context = &hour;
    q.n_context = 1;
    ask(&l, &q, &late);
    float scores[LAB_ITEMS];
    for (int i = 0; i < LAB_ITEMS; i++)
        scores[i] = (float)i;
    const struct rpc_column column = {SLICE_LIT("score"), scores};
    q.columns = &column;
    q.n_columns = 1;
    ask(&l, &q, &boosted);
    int found = 0;
    for (int f = 0; f < boosted.r.explanations[0].n_features; f++) {
        const struct rpc_feature_value *v = &boosted.r.explanations[0].features[f];
        if (slice_is(v->name, "score"))
            found += v->values[0] == (float)boosted.r.order[0];
        if (slice_is(v->name, "hour"))
            found += v->values[0] == 23;
    }
    CU_ASSERT_EQUAL(found, 2); /* what explain shows is what the rows held */
    rk_worker_deinit(&plain.w);
    rk_worker_deinit(&late.w);
    rk_worker_deinit(&boosted.w);
    lab_deinit(&l);
}

static void test_explanations(void) {
    struct lab l;
    struct answer a;
    if (!lab_init(&l, NULL, 0))
        return;
    struct rpc_rank_request q = lab_request(&l);
    q.explain = true;
    ask(&l, &q, &a);
    CU_ASSERT_EQUAL_FATAL(a.r.n_explanations, 10);
    for (int i = 0; i < 10; i++) {
        const struct rpc_explanation *x = &a.r.explanations[i];
        CU_ASSERT(slice_equal(x->item, l.items[a.r.order[i]]));
        CU_ASSERT(x->n_features > 0 && x->n_gates > 0);
        for (int g = 0; g < x->n_gates; g++) {
            float sum = 0;
            for (int e = 0; e < x->gates[g].n; e++)
                sum += x->gates[g].weights[e];
            CU_ASSERT_DOUBLE_EQUAL(sum, 1, 1e-5); /* a softmax gate */
        }
    }
    rk_worker_deinit(&a.w);
    lab_deinit(&l);
}

static void test_limits(void) {
    const char *const sets[] = {"grpc.items_max=30", "nearline.pool_max=20"};
    struct lab l;
    if (!lab_init(&l, sets, 2))
        return;
    struct rk_worker w;
    struct rpc_rank_response r;
    struct rk_seen seen;
    rk_worker_init(&w);
    struct rpc_rank_request q = lab_request(&l);
    CHECK_FAILS(rk_rank(l.bundle, l.state, &w, &q, &r, &seen), STATUS_INVALID_ARGUMENT,
                "at most 30");
    q.n_items = 0;
    CHECK_FAILS(rk_rank(l.bundle, l.state, &w, &q, &r, &seen), STATUS_INVALID_ARGUMENT,
                "none given");
    q.n_items = 30;
    CHECK_OK(rk_rank(l.bundle, l.state, &w, &q, &r, &seen));
    rk_worker_deinit(&w);
    lab_deinit(&l);
}

static void test_no_allocation_once_warm(void) {
    struct lab l;
    if (!lab_init(&l, NULL, 0))
        return;
    struct rk_worker w;
    struct rpc_rank_response r;
    struct rk_seen seen;
    rk_worker_init(&w);
    struct rpc_rank_request q = lab_request(&l);
    unsigned long long before = 0;
    for (int i = 0; i < 20; i++) {
        if (i == 2)
            before = heap_count();
        arena_reset(&w.arena);
        q.user = slice_of(lab_users[i % 6]);
        CHECK_OK(rk_rank(l.bundle, l.state, &w, &q, &r, &seen));
    }
    CU_ASSERT_EQUAL(heap_count(), before);
    rk_worker_deinit(&w);
    lab_deinit(&l);
}

/* ---- models that do not fit ---------------------------------------------------------------- */

static void test_a_model_of_another_plan_is_refused(void) {
    static const struct {
        const char *from, *to, *says;
    } changes[] = {
        {"name: active", "name: actief", "'active' in the model and 'actief'"},
        {"name: score,", "name: skore,", "'score' in the model"},
        {"hash: 64", "hash: 128", "table 'item'"},
        {"n: 5,", "n: 6,", "'rated'"},
        {"prior_weight: 5", "prior_weight: 6", "the plans differ"},
    };
    struct lab l;
    if (!lab_init(&l, NULL, 0))
        return;
    const char *path = "/tmp/ranker_rank.safetensors";
    CHECK_OK(moe_model_save(l.bundle->model, path));
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        char yaml[sizeof lab_yaml + 16];
        const char *at = strstr(lab_yaml, changes[i].from);
        CU_ASSERT_PTR_NOT_NULL_FATAL(at);
        snprintf(yaml, sizeof yaml, "%.*s%s%s", (int)(at - lab_yaml), lab_yaml, changes[i].to,
                 at + strlen(changes[i].from));
        struct rk_config *c = NULL;
        struct rk_bundle *b = NULL;
        if (!CHECK_OK(rk_config_parse(slice_of(yaml), "other.yaml", NULL, 0, &c)))
            continue;
        CHECK_FAILS(rk_bundle_open(path, c->plan, c, &b), STATUS_FAILED_PRECONDITION,
                    changes[i].says);
        rk_config_free(c);
    }
    struct rk_bundle *same = NULL;
    if (CHECK_OK(rk_bundle_open(path, l.conf->plan, l.conf, &same)))
        CU_ASSERT_STRING_EQUAL(moe_model_version(same->model), moe_model_version(l.bundle->model));
    rk_bundle_release(same);
    CHECK_FAILS(rk_bundle_open("/nonexistent", l.conf->plan, l.conf, &same), STATUS_NOT_FOUND,
                "/nonexistent");
    CHECK_FAILS(rk_bundle_open(path, NULL, l.conf, &same), STATUS_FAILED_PRECONDITION, "features");
    remove(path);
    lab_deinit(&l);
}

/* ---- the slot ------------------------------------------------------------------------------ */

struct swap_test {
    struct rk_model_slot slot;
    atomic_bool stop;
    atomic_long reads, wrong;
};

static void *read_models(void *arg) {
    struct swap_test *t = arg;
    while (!atomic_load(&t->stop)) {
        struct rk_bundle *b = rk_model_acquire(&t->slot);
        if (!b)
            continue;
        if (moe_model_tasks(b->model) != 2) /* freed under us: ASan would say so too */
            atomic_fetch_add(&t->wrong, 1);
        rk_bundle_release(b);
        atomic_fetch_add(&t->reads, 1);
    }
    return NULL;
}

static void test_models_are_swapped_under_readers(void) {
    struct lab l;
    static struct swap_test t;
    const char *path = "/tmp/ranker_rank.swap.safetensors";
    if (!lab_init(&l, NULL, 0))
        return;
    CHECK_OK(moe_model_save(l.bundle->model, path));
    CU_ASSERT_PTR_NULL(rk_model_acquire(&t.slot));
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, read_models, &t);
    for (int i = 0; i < 50; i++) {
        struct rk_bundle *b = NULL;
        if (CHECK_OK(rk_bundle_open(path, l.conf->plan, l.conf, &b)))
            rk_model_publish(&t.slot, b);
    }
    while (atomic_load(&t.reads) < 100)
        ;
    rk_model_publish(&t.slot, NULL);
    CU_ASSERT_PTR_NULL(rk_model_acquire(&t.slot));
    atomic_store(&t.stop, true);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    CU_ASSERT_EQUAL(atomic_load(&t.wrong), 0);
    rk_model_slot_deinit(&t.slot);
    remove(path);
    lab_deinit(&l);
}

SUITE("ranker_rank", TEST(test_ranks_by_the_weighted_sum), TEST(test_tenants_are_apart),
      TEST(test_product_and_weights), TEST(test_equal_rows_keep_the_requests_order),
      TEST(test_bits_do_not_depend_on_company), TEST(test_context_columns_and_strangers),
      TEST(test_explanations), TEST(test_limits), TEST(test_no_allocation_once_warm),
      TEST(test_a_model_of_another_plan_is_refused), TEST(test_models_are_swapped_under_readers))
