/* moe_examples: sorting by time moves whole groups with all that is theirs, in place, and keeps the
 * order of equal times. */
#include "moe/data/examples.h"
#include "base/heap.h"
#include "base/rng.h"
#include "tests/support/suite.h"

enum { GROUPS = 300, TASKS = 2, MOST_ROWS = 6 };

/* Every value tells whose it is: group g, row k of it, column c. */
static float value(int g, int k, int c) { return (float)(g * 64 + k * 8 + c); }

static void add(struct moe_examples *x, int g, int rows, int64_t time_us) {
    float query[2], cand[MOST_ROWS * 3], labels[MOST_ROWS * TASKS], weight[MOST_ROWS];
    uint32_t query_ids[1], cand_ids[MOST_ROWS];
    const struct moe_batch b = {.n_groups = 1,
                                .n_rows = rows,
                                .query = query,
                                .query_ids = query_ids,
                                .cand = cand,
                                .cand_ids = cand_ids};
    for (int c = 0; c < 2; c++)
        query[c] = value(g, 0, c);
    query_ids[0] = (uint32_t)g;
    for (int k = 0; k < rows; k++) {
        for (int c = 0; c < 3; c++)
            cand[k * 3 + c] = value(g, k, c);
        for (int t = 0; t < TASKS; t++)
            labels[k * TASKS + t] = value(g, k, 3 + t);
        cand_ids[k] = (uint32_t)(g * 8 + k);
        weight[k] = value(g, k, 5);
    }
    moe_examples_add(x, &b, labels, weight, time_us, (uint64_t)g + 7);
}

/* The rows from `r` on are those of what was group g, and stand as group `at`. */
static int check_rows(const struct moe_examples *x, int r, int at, int g, int rows, int ids) {
    int wrong = 0;
    for (int k = 0; k < rows; k++, r++) {
        wrong += x->group[r] != at || x->weight[r] != value(g, k, 5);
        wrong += ids > 0 && x->cand_ids[r] != (uint32_t)(g * 8 + k);
        for (int c = 0; c < 3; c++)
            wrong += x->cand[r * 3 + c] != value(g, k, c);
        for (int t = 0; t < TASKS; t++)
            wrong += x->labels[r * TASKS + t] != value(g, k, 3 + t);
    }
    return wrong;
}

static int check(const struct moe_examples *x, const int *rows, const int64_t *time_us, int ids) {
    int wrong = 0, r = 0, before = -1;
    for (int at = 0; at < x->n_groups; at++) {
        const int g = (int)x->group_key[at] - 7;
        wrong += x->time_us[at] != time_us[g] || x->query[at * 2 + 1] != value(g, 0, 1);
        wrong += ids > 0 && x->query_ids[at] != (uint32_t)g;
        if (at > 0)
            wrong += x->time_us[at] < x->time_us[at - 1] ||
                     (x->time_us[at] == x->time_us[at - 1] && g < before);
        wrong += check_rows(x, r, at, g, rows[g], ids);
        r += rows[g];
        before = g;
    }
    return wrong + (r != x->n_rows);
}

static void sort_and_check(uint64_t seed, uint32_t times, int ids) {
    const struct moe_inputs in = {
        .query_columns = 2, .query_slots = ids, .cand_columns = 3, .cand_slots = ids};
    struct moe_examples *x = moe_examples_new(&in, TASKS);
    int rows[GROUPS];
    int64_t time_us[GROUPS];
    struct rng rng;
    rng_init(&rng, seed);
    for (int g = 0; g < GROUPS; g++) {
        rows[g] = (int)rng_below(&rng, MOST_ROWS + 1);
        time_us[g] = rng_below(&rng, times);
        add(x, g, rows[g], time_us[g]);
    }
    if (times > 1)
        CU_ASSERT_NOT_EQUAL(check(x, rows, time_us, ids), 0); /* the check can fail */
    moe_examples_sort(x);
    CU_ASSERT_EQUAL(check(x, rows, time_us, ids), 0);
    moe_examples_sort(x); /* what is sorted stays */
    CU_ASSERT_EQUAL(check(x, rows, time_us, ids), 0);
    moe_examples_free(x);
}

static void test_groups_move_whole(void) {
    for (uint64_t seed = 1; seed <= 20; seed++)
        for (int ids = 0; ids < 2; ids++) {
            sort_and_check(seed, 1000000, ids);
            sort_and_check(seed, 5, ids);
            sort_and_check(seed, 1, ids);
        }
}

static void test_nothing_to_sort(void) {
    const struct moe_inputs in = {.query_columns = 2, .cand_columns = 3};
    struct moe_examples *x = moe_examples_new(&in, TASKS);
    moe_examples_sort(x);
    CU_ASSERT_EQUAL(x->n_groups, 0);
    add(x, 0, 0, 5);
    moe_examples_sort(x);
    CU_ASSERT_EQUAL(x->n_groups, 1);
    CU_ASSERT_EQUAL(x->n_rows, 0);
    moe_examples_free(x);
}

SUITE("moe_examples", TEST(test_groups_move_whole), TEST(test_nothing_to_sort))
