/* ranker_item_cache: ranking with kept item halves: the same answers, whatever is kept; items that
 * change under it, at the worst moment too; a new model begins with nothing; and it is counted. */
#define LAB_CROSS ""
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include "base/heap.h"
#include "base/metric.h"
#include "moe/math/cpu.h"
#include "tests/support/ranker_lab.h"

struct answer {
    struct rk_worker w;
    struct rpc_rank_response r;
    struct rk_seen seen;
};

static bool ask_of(struct lab *l, const struct rk_bundle *b, const char *user, struct answer *a) {
    struct rpc_rank_request q = lab_request(l);
    q.user = slice_of(user);
    rk_worker_init(&a->w);
    return CHECK_OK(rk_rank(b, l->state, &a->w, &q, &a->r, &a->seen));
}

/* Another bundle of the lab's model, with nothing kept. NULL after a failed check. */
static struct rk_bundle *open_again(struct lab *l) {
    const char *path = "/tmp/ranker_item_cache.safetensors";
    struct rk_bundle *b = NULL;
    if (CHECK_OK(moe_model_save(l->bundle->model, path)))
        CHECK_OK(rk_bundle_open(path, l->conf->plan, l->conf, &b));
    remove(path);
    return b;
}

static bool same(const struct rpc_rank_response *a, const struct rpc_rank_response *b) {
    return a->n == b->n && memcmp(a->order, b->order, (size_t)a->n * sizeof *a->order) == 0 &&
           memcmp(a->scores, b->scores, (size_t)a->n * sizeof *a->scores) == 0;
}

/* All users, ranked with what is kept and with nothing kept. */
static int differences(struct lab *l, const struct rk_bundle *warm) {
    int n = 0;
    struct rk_bundle *cold = open_again(l);
    for (int u = 0; u < 6 && cold; u++) {
        struct answer a, b;
        if (ask_of(l, warm, lab_users[u], &a) && ask_of(l, cold, lab_users[u], &b))
            n += !same(&a.r, &b.r);
        rk_worker_deinit(&a.w);
        rk_worker_deinit(&b.w);
    }
    rk_bundle_release(cold);
    return n;
}

static void apply(struct lab *l, int i) {
    struct ev_field value;
    char id[16];
    struct ev_event e = lab_event(l, i, &value, id, lab_users[i % 6]);
    feat_state_apply(l->state, &e, 1, NULL);
}

static struct moe_item_cache_stats stats_of(const struct rk_bundle *b) {
    return moe_item_cache_read(moe_scorer_cache(b->scorer));
}

static void test_as_without_at_each_precision(void) {
    static const struct {
        const char *precision;
        enum moe_precision p;
        double bound;
    } forms[] = {{"serving.precision=fp32", MOE_FP32, 1e-6},
                 {"serving.precision=bf16", MOE_BF16, 0.02}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        const char *const with[] = {forms[i].precision}, *const without[] = {
                                                             forms[i].precision,
                                                             "serving.item_cache=0"};
        struct lab l, plain;
        if (!moe_cpu_has(moe_cpu(), forms[i].p) || !lab_init(&l, with, 1))
            continue;
        if (lab_init(&plain, without, 2)) {
            CU_ASSERT_PTR_NOT_NULL(moe_scorer_cache(l.bundle->scorer));
            CU_ASSERT_PTR_NULL(moe_scorer_cache(plain.bundle->scorer));
            /* answers of two precisions are never taken for each other's */
            CU_ASSERT_EQUAL(strcmp(l.bundle->version, moe_model_version(l.bundle->model)) == 0,
                            forms[i].p == MOE_FP32);
            struct answer a, b;
            ask_of(&l, l.bundle, "u1", &a);
            ask_of(&plain, plain.bundle, "u1", &b);
            for (int k = 0; k < LAB_ITEMS; k++) {
                int j = 0;
                while (b.r.order[j] != a.r.order[k])
                    j++;
                CU_ASSERT_DOUBLE_EQUAL(a.r.scores[k], b.r.scores[j], forms[i].bound);
            }
            rk_worker_deinit(&a.w);
            rk_worker_deinit(&b.w);
            lab_deinit(&plain);
        }
        lab_deinit(&l);
    }
}

/* Counts and answers: the second request finds what the first made, and gets the same bits. */
static void test_counts_and_keeps_bits(void) {
    struct lab l;
    struct answer first, second;
    if (!lab_init(&l, NULL, 0))
        return;
    rk_bundle_tell(l.bundle);
    uint64_t hits = metric_value(METRIC_ITEM_CACHE_HITS),
             misses = metric_value(METRIC_ITEM_CACHE_MISSES);
    ask_of(&l, l.bundle, "u1", &first);
    const struct moe_item_cache_stats once = stats_of(l.bundle);
    ask_of(&l, l.bundle, "u1", &second);
    CU_ASSERT(same(&first.r, &second.r));
    const struct moe_item_cache_stats s = stats_of(l.bundle);
    CU_ASSERT_EQUAL(once.hits + once.misses, LAB_ITEMS);
    CU_ASSERT_EQUAL(s.hits - once.hits, LAB_ITEMS);
    CU_ASSERT_EQUAL(s.misses, once.misses);
    CU_ASSERT(s.kept > LAB_ITEMS / 2 && s.kept <= once.misses); /* items of one hash are one row */
    rk_bundle_tell(l.bundle);
    rk_bundle_tell(l.bundle); /* nothing twice */
    CU_ASSERT_EQUAL(metric_value(METRIC_ITEM_CACHE_HITS) - hits, s.hits);
    CU_ASSERT_EQUAL(metric_value(METRIC_ITEM_CACHE_MISSES) - misses, s.misses);
    CU_ASSERT_EQUAL(metric_value(METRIC_ITEM_CACHE_BYTES), s.kept * s.row_bytes);
    rk_worker_deinit(&first.w);
    rk_worker_deinit(&second.w);
    lab_deinit(&l);
}

/* A model that is swapped in has kept nothing of the one before. */
static void test_a_new_model_begins_with_nothing(void) {
    struct lab l;
    struct answer a;
    if (!lab_init(&l, NULL, 0))
        return;
    ask_of(&l, l.bundle, "u1", &a);
    struct rk_bundle *next = open_again(&l);
    if (next)
        CU_ASSERT_EQUAL(stats_of(next).kept, 0);
    rk_bundle_release(next);
    rk_worker_deinit(&a.w);
    lab_deinit(&l);
}

static void test_items_that_change(void) {
    struct lab l;
    if (!lab_init(&l, NULL, 0))
        return;
    CU_ASSERT_EQUAL(differences(&l, l.bundle), 0);
    for (int i = LAB_EVENTS; i < LAB_EVENTS + 200; i += 10) {
        for (int k = 0; k < 10; k++)
            apply(&l, i + k);
        CU_ASSERT_EQUAL(differences(&l, l.bundle), 0);
    }
    CU_ASSERT(stats_of(l.bundle).hits > 0);
    lab_deinit(&l);
}

/* The worst moment: rows are read, the items change, and only then are their halves made and kept
 * (of the rows as they were read). */
static void test_an_item_changes_between_reading_and_keeping(void) {
    struct lab l;
    struct arena a;
    struct feat_rows rows;
    if (!lab_init(&l, NULL, 0))
        return;
    arena_init(&a, 0);
    const struct feat_request q = {.user = SLICE_LIT("u1"), .items = l.items, .n_items = LAB_ITEMS};
    feat_state_read_begin(l.state);
    feat_state_extract(l.state, &a, &q, LAB_NOW, &rows);
    feat_state_read_end(l.state);
    for (int i = 0; i < 200; i++)
        apply(&l, LAB_EVENTS + i);
    const struct moe_batch batch = {.n_groups = 1,
                                    .n_rows = rows.n_rows,
                                    .query = rows.query,
                                    .query_ids = rows.query_ids,
                                    .cand = rows.cand,
                                    .cand_ids = rows.cand_ids};
    struct rk_worker w;
    rk_worker_init(&w);
    w.scratch = heap_alloc_aligned(moe_scorer_scratch_bytes(l.bundle->scorer));
    float *p = arena_alloc_aligned(&a, LAB_ITEMS * 2 * sizeof *p);
    moe_scorer_score(l.bundle->scorer, &batch, w.scratch, p);
    CU_ASSERT(stats_of(l.bundle).kept > LAB_ITEMS / 2);
    CU_ASSERT_EQUAL(differences(&l, l.bundle), 0);
    rk_worker_deinit(&w);
    arena_deinit(&a);
    lab_deinit(&l);
}

struct ranker {
    struct lab *l;
    int number;
    atomic_bool *stop;
    atomic_int *done;
};

static void *rank_on(void *arg) {
    struct ranker *t = arg;
    while (!atomic_load(t->stop)) {
        struct answer a;
        ask_of(t->l, t->l->bundle, lab_users[t->number], &a);
        rk_worker_deinit(&a.w);
        atomic_fetch_add(t->done, 1);
    }
    return NULL;
}

/* Rankings and events at once; then everything kept is still right. */
static void test_items_change_while_others_rank(void) {
    enum { THREADS = 3 };
    struct lab l;
    struct ranker rankers[THREADS];
    pthread_t threads[THREADS];
    static atomic_bool stop;
    static atomic_int done;
    if (!lab_init(&l, NULL, 0))
        return;
    for (int i = 0; i < THREADS; i++) {
        rankers[i] = (struct ranker){&l, i, &stop, &done};
        pthread_create(&threads[i], NULL, rank_on, &rankers[i]);
    }
    for (int i = 0; i < 1500; i++) {
        apply(&l, LAB_EVENTS + i);
        while (atomic_load(&done) < i / 30) /* both go on, whatever the scheduler does */
            sched_yield();
    }
    atomic_store(&stop, true);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CU_ASSERT(stats_of(l.bundle).misses > LAB_ITEMS);
    CU_ASSERT_EQUAL(differences(&l, l.bundle), 0);
    lab_deinit(&l);
}

SUITE("ranker_item_cache", TEST(test_as_without_at_each_precision),
      TEST(test_counts_and_keeps_bits), TEST(test_a_new_model_begins_with_nothing),
      TEST(test_items_that_change), TEST(test_an_item_changes_between_reading_and_keeping),
      TEST(test_items_change_while_others_rank))
