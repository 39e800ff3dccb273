/* moe_eval.c: metrics against values counted by hand and against slow definitions. */
#include <math.h>
#include "base/rng.h"
#include "moe/report/eval.h"
#include "tests/support/suite.h"

static void test_auc(void) {
    float s[] = {0.1f, 0.4f, 0.35f, 0.8f}, y[] = {0, 0, 1, 1};
    CU_ASSERT_DOUBLE_EQUAL(moe_auc(s, y, 4), 0.75, 1e-12);
    float same[] = {1, 1, 1, 1};
    CU_ASSERT_DOUBLE_EQUAL(moe_auc(same, y, 4), 0.5, 1e-12);
    float ties[] = {0.2f, 0.5f, 0.5f, 0.9f}; /* pairs: 1, 1/2, 1, 1 of 4 */
    CU_ASSERT_DOUBLE_EQUAL(moe_auc(ties, y, 4), 3.5 / 4, 1e-12);
    float up[] = {1, 2, 3, 4}, down[] = {4, 3, 2, 1};
    CU_ASSERT_DOUBLE_EQUAL(moe_auc(up, y, 4), 1, 0);
    CU_ASSERT_DOUBLE_EQUAL(moe_auc(down, y, 4), 0, 0);
}
static void test_auc_undefined(void) {
    float s[] = {1, 2, 3}, ones[] = {1, 1, 1}, zeros[] = {0, 0, 0}, y[] = {0, NAN, 1};
    CU_ASSERT(isnan(moe_auc(s, ones, 3)));
    CU_ASSERT(isnan(moe_auc(s, zeros, 3)));
    CU_ASSERT(isnan(moe_auc(s, y, 0)));
    CU_ASSERT_DOUBLE_EQUAL(moe_auc(s, y, 3), 1, 0); /* the NaN label is left out */
    float bad[] = {1, 2, NAN};
    CU_ASSERT(isnan(moe_auc(bad, y, 3))); /* a NaN score is never hidden */
    float gap[] = {1, NAN, 3};
    CU_ASSERT_DOUBLE_EQUAL(moe_auc(gap, y, 3), 1, 0); /* unless its row is out anyway */
}
static void test_auc_by_pairs(void) {
    enum { N = 300 };
    float s[N], y[N];
    struct rng r;
    double won = 0, pairs = 0;
    rng_init(&r, 1);
    for (int i = 0; i < N; i++) {
        s[i] = (float)rng_below(&r, 40);
        y[i] = (float)rng_below(&r, 2);
    }
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            if (y[i] == 1 && y[j] == 0) {
                pairs++;
                won += s[i] > s[j] ? 1 : s[i] == s[j] ? 0.5 : 0;
            }
    CU_ASSERT_DOUBLE_EQUAL(moe_auc(s, y, N), won / pairs, 1e-12);
}

static void test_auc_grouped(void) {
    float s[] = {1, 2, 3, 4, 5, 6, 7}, y[] = {0, 1, 1, 0, 1, 1, 0};
    uint64_t g[] = {9, 9, 4, 4, 7, 7, 9}; /* 9: rows 0 1 6 -> 1/2; 4: 0; 7: one class */
    int used = -1;
    CU_ASSERT_DOUBLE_EQUAL(moe_auc_grouped(s, y, g, 7, &used), 0.25, 1e-12);
    CU_ASSERT_EQUAL(used, 2);
    CU_ASSERT(isnan(moe_auc_grouped(s, y, g, 1, &used)));
    CU_ASSERT_EQUAL(used, 0);
    CU_ASSERT(isnan(moe_auc_grouped(s, y, g, 0, NULL)));
    s[3] = NAN;
    CU_ASSERT(isnan(moe_auc_grouped(s, y, g, 7, NULL)));
}

static void test_logloss(void) {
    float p[] = {0.9f, 0.2f, 0.5f}, y[] = {1, 0, NAN}, sure[] = {0, 1, 1};
    CU_ASSERT_DOUBLE_EQUAL(moe_logloss(p, y, 3), -(log(0.9) + log(0.8)) / 2, 1e-6);
    CU_ASSERT(moe_logloss(sure, y, 3) > 10 && isfinite(moe_logloss(sure, y, 3)));
    CU_ASSERT(isnan(moe_logloss(p, y + 2, 1)));
    float bad[] = {NAN, 0.5f, 0.5f};
    CU_ASSERT(isnan(moe_logloss(bad, y, 3)));
    float soft[] = {0.25f}, half[] = {0.5f};
    CU_ASSERT_DOUBLE_EQUAL(moe_logloss(half, soft, 1), log(2), 1e-6);
}

static void test_calibration(void) {
    float p[] = {0.1f, 0.1f, 0.9f, 0.9f}, y[] = {0, 0, 1, 1}, none[] = {0, 0, 0, 0};
    CU_ASSERT_DOUBLE_EQUAL(moe_ece(p, y, 4, 2), 0.1, 1e-6);
    CU_ASSERT_DOUBLE_EQUAL(moe_ece(p, y, 4, 1), 0, 1e-6);
    CU_ASSERT_DOUBLE_EQUAL(moe_ece(p, y, 4, 10), 0.1, 1e-6); /* more bins than rows */
    CU_ASSERT_DOUBLE_EQUAL(moe_calibration_ratio(p, y, 4), 1, 1e-6);
    CU_ASSERT(isnan(moe_calibration_ratio(p, none, 4)));
    CU_ASSERT(isnan(moe_ece(p, y, 0, 2)) && isnan(moe_ece(p, y, 4, 0)));
}

static void test_ndcg(void) {
    float gains[] = {0, 1, 0, 1}, best[] = {1, 1, 0, 0}, none[] = {0, 0, 0};
    double ideal = 1 + 1 / log2(3);
    CU_ASSERT_DOUBLE_EQUAL(moe_ndcg(gains, 4, 4), (1 / log2(3) + 1 / log2(5)) / ideal, 1e-9);
    CU_ASSERT_DOUBLE_EQUAL(moe_ndcg(best, 4, 4), 1, 0);
    CU_ASSERT_DOUBLE_EQUAL(moe_ndcg(gains, 4, 1), 0, 0);
    CU_ASSERT_DOUBLE_EQUAL(moe_ndcg(gains, 4, 99), moe_ndcg(gains, 4, 4), 0);
    CU_ASSERT(isnan(moe_ndcg(none, 3, 3)) && isnan(moe_ndcg(gains, 0, 3)) &&
              isnan(moe_ndcg(gains, 4, 0)));
    float graded[] = {1, 3};
    CU_ASSERT_DOUBLE_EQUAL(moe_ndcg(graded, 2, 2), (1 + 3 / log2(3)) / (3 + 1 / log2(3)), 1e-9);
}

SUITE("moe_eval", TEST(test_auc), TEST(test_auc_undefined), TEST(test_auc_by_pairs),
      TEST(test_auc_grouped), TEST(test_logloss), TEST(test_calibration), TEST(test_ndcg))
