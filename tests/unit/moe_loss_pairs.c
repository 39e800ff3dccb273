/* The pairwise loss: its gradient against central differences, what it ignores, what it weighs. */
#include <math.h>
#include "moe/train/loss.h"
#include "tests/support/suite.h"

enum { ROWS = 7, TASKS = 2 };
static const uint64_t key[ROWS] = {5, 5, 5, 9, 9, 5, 5};
static const float scale[TASKS] = {1, 0.5f};
static float z[ROWS * TASKS] = {0.3f, -1, 1.2f, 0.1f, -0.4f, 2, 0, 0, 3, -3, 0.5f, 0.5f, -2, 1};
static float y[ROWS * TASKS] = {1, 0, 0, 1, 1, 1, 1, 0, 1, NAN, 0, 0, 1, 1};

static void test_gradient_is_the_slope(void) {
    float d[ROWS * TASKS] = {0};
    moe_loss_pairs(ROWS, TASKS, z, y, key, scale, d);
    int moved = 0;
    for (int i = 0; i < ROWS * TASKS; i++) {
        float kept = z[i], step = 1e-2f;
        z[i] = kept + step;
        double up = moe_loss_pairs(ROWS, TASKS, z, y, key, scale, NULL);
        z[i] = kept - step;
        double down = moe_loss_pairs(ROWS, TASKS, z, y, key, scale, NULL);
        z[i] = kept;
        double slope = (up - down) / (2 * (double)step);
        CU_ASSERT_DOUBLE_EQUAL((double)d[i], slope, 1e-4);
        moved += fabs(slope) > 1e-3;
    }
    CU_ASSERT(moved >= 6); /* else this test proves nothing */
}

static void test_pairs_stay_within_a_run(void) {
    const uint64_t apart[2] = {1, 2};
    const float two[2] = {0, 5}, labels[2] = {1, 0}, one[1] = {1};
    CU_ASSERT_EQUAL(moe_loss_pairs(2, 1, two, labels, apart, one, NULL), 0);
    const uint64_t together[2] = {1, 1};
    /* two rows, one pair: weighs 2 x log(1 + e^5) */
    CU_ASSERT_DOUBLE_EQUAL(moe_loss_pairs(2, 1, two, labels, together, one, NULL),
                           2 * log1p(exp(5)), 1e-5);
}

static void test_equal_labels_and_missing_ones_add_nothing(void) {
    const uint64_t same[3] = {1, 1, 1};
    const float logits[3] = {1, 2, 3}, labels[3] = {1, 1, NAN}, one[1] = {1};
    float d[3] = {0};
    CU_ASSERT_EQUAL(moe_loss_pairs(3, 1, logits, labels, same, one, d), 0);
    CU_ASSERT(d[0] == 0 && d[1] == 0 && d[2] == 0);
}

SUITE("moe_loss_pairs", TEST(test_gradient_is_the_slope), TEST(test_pairs_stay_within_a_run),
      TEST(test_equal_labels_and_missing_ones_add_nothing))
