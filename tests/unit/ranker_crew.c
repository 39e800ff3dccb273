/* ranker_crew: slates that idle workers help with: the bits of one piece, whatever helps; only
 * while workers are idle; never models that mix rows. */
#include <pthread.h>
#include "base/heap.h"
#include "base/metric.h"
#include "ranker/crew.h"
#include "tests/support/ranker_lab.h"

enum { MOST = 2000, WORKERS = 4 };
#define MIXES                                                                                      \
    "model.layers=[{kind: mmoe, experts: 3, expert: {kind: mlp, hidden: [8], out: 4}, "            \
    "gate: {kind: expert_choice}}]"

/* `n` items of the lab's forty, again and again, and a column that tells them apart. */
struct slate {
    struct slice items[MOST];
    float scores[MOST];
    struct rpc_column column;
    struct rpc_rank_request q;
};
static void make(const struct lab *l, int n, struct slate *s) {
    for (int i = 0; i < n; i++) {
        s->items[i] = l->items[(i * 11) % LAB_ITEMS];
        s->scores[i] = (float)((i * 37) % 101) / 50 - 1;
    }
    s->column = (struct rpc_column){SLICE_LIT("score"), s->scores};
    s->q = lab_request(l);
    s->q.items = s->items;
    s->q.n_items = n;
    s->q.columns = &s->column;
    s->q.n_columns = 1;
}

struct answer {
    struct rk_worker w;
    struct rpc_rank_response r;
    struct rk_seen seen;
};
static void ask(const struct lab *l, const struct slate *s, struct rk_crew *crew,
                struct answer *a) {
    rk_worker_init(&a->w);
    a->w.crew = crew;
    rk_crew_busy(crew, 1);
    CHECK_OK(rk_rank(l->bundle, l->state, &a->w, &s->q, &a->r, &a->seen));
    rk_crew_busy(crew, -1);
}

static bool same(const struct rpc_rank_response *a, const struct rpc_rank_response *b) {
    bool is = a->n == b->n && memcmp(a->order, b->order, (size_t)a->n * sizeof *a->order) == 0 &&
              memcmp(a->scores, b->scores, (size_t)a->n * sizeof *a->scores) == 0;
    for (int t = 0; is && t < a->n_tasks; t++)
        is = memcmp(a->probabilities[t], b->probabilities[t], (size_t)a->n * sizeof(float)) == 0;
    return is;
}

/* How many rankings were split. */
static int compare(const struct lab *l, struct rk_crew *crew, int n) {
    struct slate *s = HEAP_NEW(struct slate);
    struct answer alone, helped;
    uint64_t before = metric_value(METRIC_RANK_SPLIT);
    make(l, n, s);
    ask(l, s, NULL, &alone);
    ask(l, s, crew, &helped);
    CU_ASSERT(same(&alone.r, &helped.r));
    rk_worker_deinit(&alone.w);
    rk_worker_deinit(&helped.w);
    heap_free(s);
    return (int)(metric_value(METRIC_RANK_SPLIT) - before);
}

static void test_a_split_slate_has_the_bits_of_a_whole_one(void) {
    static const int sizes[] = {1, 55, 449, 560, 999, 1000, 1337, 2000};
    struct lab l;
    if (!lab_init(&l, NULL, 0))
        return;
    struct rk_crew *crew = rk_crew_new(WORKERS, 500, 50);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        CU_ASSERT_EQUAL(compare(&l, crew, sizes[i]), sizes[i] >= 500);
    rk_crew_free(crew);
    lab_deinit(&l);
}

/* From half a block of the kernels on there is something to share. */
static void test_small_slates_are_split_where_asked_for(void) {
    static const int sizes[] = {1, 28, 29, 56, 57, 100, 113, 200, 448};
    struct lab l;
    if (!lab_init(&l, NULL, 0))
        return;
    struct rk_crew *crew = rk_crew_new(WORKERS, 20, 50);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        CU_ASSERT_EQUAL(compare(&l, crew, sizes[i]), sizes[i] > 28);
    rk_crew_free(crew);
    lab_deinit(&l);
}

static void test_only_while_workers_are_idle(void) {
    struct lab l;
    if (!lab_init(&l, NULL, 0))
        return;
    CU_ASSERT_PTR_NULL(rk_crew_new(1, 500, 50));
    CU_ASSERT_PTR_NULL(rk_crew_new(WORKERS, 0, 50));
    rk_crew_free(NULL);
    struct rk_crew *crew = rk_crew_new(WORKERS, 500, 50);
    rk_crew_busy(crew, WORKERS - 1); /* and the one that asks */
    CU_ASSERT_EQUAL(compare(&l, crew, MOST), 0);
    rk_crew_busy(crew, -1);
    CU_ASSERT_EQUAL(compare(&l, crew, MOST), 1);
    rk_crew_free(crew);
    lab_deinit(&l);
}

static void test_rows_that_mix_are_not_parted(void) {
    const char *const sets[] = {MIXES};
    struct lab l;
    if (!lab_init(&l, sets, 1))
        return;
    CU_ASSERT_FATAL(moe_model_mixes_rows(l.bundle->model));
    struct rk_crew *crew = rk_crew_new(WORKERS, 500, 50);
    CU_ASSERT_EQUAL(compare(&l, crew, MOST), 0);
    rk_crew_free(crew);
    lab_deinit(&l);
}

struct asking {
    const struct lab *l;
    struct rk_crew *crew;
    const struct slate *s;
    const struct rpc_rank_response *want;
    int wrong;
};
static void *ask_again(void *arg) {
    struct asking *t = arg;
    for (int i = 0; i < 30; i++) {
        struct answer a;
        ask(t->l, t->s, t->crew, &a);
        t->wrong += !same(&a.r, t->want);
        rk_worker_deinit(&a.w);
    }
    return NULL;
}

/* Workers with large slates of their own, helping each other as they become idle. */
static void test_many_at_once(void) {
    struct lab l;
    struct answer want;
    struct asking asking[WORKERS];
    pthread_t threads[WORKERS];
    if (!lab_init(&l, NULL, 0))
        return;
    struct slate *s = HEAP_NEW(struct slate);
    struct rk_crew *crew = rk_crew_new(WORKERS, 500, 50);
    make(&l, 1200, s);
    ask(&l, s, NULL, &want);
    for (int i = 0; i < WORKERS; i++) {
        asking[i] = (struct asking){&l, crew, s, &want.r, 0};
        pthread_create(&threads[i], NULL, ask_again, &asking[i]);
    }
    for (int i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
        CU_ASSERT_EQUAL(asking[i].wrong, 0);
    }
    rk_worker_deinit(&want.w);
    rk_crew_free(crew);
    heap_free(s);
    lab_deinit(&l);
}

SUITE("ranker_crew", TEST(test_a_split_slate_has_the_bits_of_a_whole_one),
      TEST(test_small_slates_are_split_where_asked_for), TEST(test_only_while_workers_are_idle),
      TEST(test_rows_that_mix_are_not_parted), TEST(test_many_at_once))
