/* Losses: gradients against central differences, values against their formulas, what they ignore.
 */
#include <math.h>
#include "moe/train/loss.h"
#include "tests/support/suite.h"

enum { ROWS = 8, TASKS = 2 };
static const int group[ROWS] = {0, 0, 0, 1, 1, 2, 2, 2};
static const float weight[ROWS] = {1, 1, 1, 0.5f, 0.5f, 2, 2, 2}, scale[TASKS] = {0.7f, 1.3f};
static float z[ROWS * TASKS] = {0.3f, -1, 1.2f, 0.1f, -0.4f, 2, 0, 0,
                                3,    -3, 0.5f, 0.5f, -2,    1, 1, 4};
static const float y[ROWS * TASKS] = {1, 0, 0, 1, 1, 0.5f, 1, 0, 0, NAN, 0, 0, 1, 1, NAN, 0};

static double loss_of(const struct moe_loss_conf *c, float *d) {
    const struct moe_loss_conf both[TASKS] = {*c, *c};
    return moe_loss_tasks(ROWS, TASKS, both, z, y, weight, group, scale, d, NULL);
}

static void check_slope(const struct moe_loss_conf *c) {
    float d[ROWS * TASKS];
    loss_of(c, d);
    int moved = 0;
    for (int i = 0; i < ROWS * TASKS; i++) {
        float kept = z[i], step = 1e-2f;
        z[i] = kept + step;
        double up = loss_of(c, NULL);
        z[i] = kept - step;
        double down = loss_of(c, NULL);
        z[i] = kept;
        double slope = (up - down) / (2 * (double)step);
        CU_ASSERT_DOUBLE_EQUAL((double)d[i], slope, 1e-4 * (1 + fabs(slope)));
        moved += fabs(slope) > 1e-3;
        if (isnan(y[i]))
            CU_ASSERT(d[i] == 0);
    }
    CU_ASSERT(moved >= 10); /* else this test proves nothing */
}
static void test_slopes(void) {
    for (int kind = MOE_LOSS_BCE; kind <= MOE_LOSS_LISTWISE; kind++)
        check_slope(&(struct moe_loss_conf){.kind = kind, .gamma = 1.7, .delta = 0.8});
    check_slope(&(struct moe_loss_conf){.kind = MOE_LOSS_BCE, .smooth = 0.1});
    check_slope(&(struct moe_loss_conf){.kind = MOE_LOSS_FOCAL, .gamma = 0.5, .smooth = 0.1});
}

/* The first task, then the second after it: slopes, and the plain formula where it does not
 * overflow.
 */
static void test_one_after_another(void) {
    static const float label[ROWS * TASKS] = {1, 1,   1,   0, 0,    NAN, 0, 1,
                                              1, NAN, NAN, 1, 0.5f, 1,   1, 1};
    const struct moe_loss_conf both[TASKS] = {{.kind = MOE_LOSS_BCE},
                                              {.kind = MOE_LOSS_BCE, .after = 1}};
    float d[ROWS * TASKS];
    double each[TASKS], want = 0;
    moe_loss_tasks(ROWS, TASKS, both, z, label, weight, group, scale, d, each);
    for (int i = 0; i < ROWS * TASKS; i++) {
        float kept = z[i], step = 1e-2f;
        z[i] = kept + step;
        double up = moe_loss_tasks(ROWS, TASKS, both, z, label, weight, group, scale, NULL, NULL);
        z[i] = kept - step;
        double down = moe_loss_tasks(ROWS, TASKS, both, z, label, weight, group, scale, NULL, NULL);
        z[i] = kept;
        CU_ASSERT_DOUBLE_EQUAL((double)d[i], (up - down) / (2 * (double)step), 2e-4);
    }
    for (int r = 0; r < ROWS; r++) {
        float y2 = label[2 * r] == 0 ? 0 : label[2 * r] * label[2 * r + 1];
        double p = 1 / (1 + exp(-(double)z[2 * r])) / (1 + exp(-(double)z[2 * r + 1]));
        if (!isnan(y2))
            want -= (double)weight[r] * ((double)y2 * log(p) + (1 - (double)y2) * log1p(-p));
    }
    CU_ASSERT_DOUBLE_EQUAL(each[1], want, 1e-5);
    CU_ASSERT(d[2 * 2 + 1] != 0); /* no click: still teaches the second */
    CU_ASSERT(d[4 * 2 + 1] == 0 && d[5 * 2] == 0 && d[5 * 2 + 1] == 0); /* unknown: does not */
}
static void test_one_after_another_far_from_zero(void) {
    const struct moe_loss_conf both[TASKS] = {{.kind = MOE_LOSS_BCE},
                                              {.kind = MOE_LOSS_BCE, .after = 1}};
    static const float far[] = {-800, -90, 0, 90, 800}, one_each[TASKS] = {0, 1};
    for (int a = 0; a < 5; a++)
        for (int b = 0; b < 5; b++)
            for (int y2 = 0; y2 < 2; y2++) {
                const float at[TASKS] = {far[a], far[b]}, label[TASKS] = {1, (float)y2};
                float d[TASKS];
                double loss =
                    moe_loss_tasks(1, TASKS, both, at, label, NULL, NULL, one_each, d, NULL);
                CU_ASSERT(isfinite(loss) && loss >= -1e-9 && isfinite(d[0]) && isfinite(d[1]));
                CU_ASSERT(fabsf(d[0]) <= 1.0001f && fabsf(d[1]) <= 1.0001f);
            }
}

static double one(struct moe_loss_conf c, float logit, float label) {
    const float s[1] = {1};
    return moe_loss_tasks(1, 1, &c, &logit, &label, NULL, NULL, s, NULL, NULL);
}
static void test_values(void) {
    double p = 1 / (1 + exp(-0.7));
    CU_ASSERT_DOUBLE_EQUAL(one((struct moe_loss_conf){.kind = MOE_LOSS_BCE}, 0.7f, 1), -log(p),
                           1e-6);
    CU_ASSERT_DOUBLE_EQUAL(one((struct moe_loss_conf){.kind = MOE_LOSS_FOCAL, .gamma = 2}, 0.7f, 1),
                           -(1 - p) * (1 - p) * log(p), 1e-6);
    CU_ASSERT_DOUBLE_EQUAL(one((struct moe_loss_conf){.kind = MOE_LOSS_MSE}, 3, 1), 2, 1e-6);
    CU_ASSERT_DOUBLE_EQUAL(one((struct moe_loss_conf){.kind = MOE_LOSS_HUBER, .delta = 0.5}, 3, 1),
                           0.5 * (2 - 0.25), 1e-6);
    /* far from zero nothing overflows */
    CU_ASSERT_DOUBLE_EQUAL(one((struct moe_loss_conf){.kind = MOE_LOSS_BCE}, -300, 1), 300, 1e-3);
    CU_ASSERT_DOUBLE_EQUAL(one((struct moe_loss_conf){.kind = MOE_LOSS_FOCAL, .gamma = 2}, -90, 1),
                           90, 1e-3);
    CU_ASSERT(isnan(one((struct moe_loss_conf){.kind = MOE_LOSS_BCE}, NAN, 1)));
    CU_ASSERT(isnan(one((struct moe_loss_conf){.kind = MOE_LOSS_MSE}, NAN, 1)));
}

static void test_a_slate(void) {
    const struct moe_loss_conf c = {.kind = MOE_LOSS_LISTWISE};
    const float logits[5] = {1, 2, 0, 5, 5}, labels[5] = {0, 3, 1, 0, 0}, s[1] = {1};
    const int g[5] = {0, 0, 0, 1, 1};
    double sum = exp(1) + exp(2) + exp(0);
    double want = 3 * (log(sum) - 0.75 * 2 - 0.25 * 0);
    double each[1];
    /* the second slate has no positive label and adds nothing */
    CU_ASSERT_DOUBLE_EQUAL(moe_loss_tasks(5, 1, &c, logits, labels, NULL, g, s, NULL, each), want,
                           1e-5);
    CU_ASSERT_DOUBLE_EQUAL(each[0], want, 1e-5);
}

static void test_labels(void) {
    double low, high;
    moe_loss_labels(&(struct moe_loss_conf){.kind = MOE_LOSS_BCE}, &low, &high);
    CU_ASSERT(low == 0 && high == 1);
    moe_loss_labels(&(struct moe_loss_conf){.kind = MOE_LOSS_MSE}, &low, &high);
    CU_ASSERT(isinf(low) && isinf(high));
    moe_loss_labels(&(struct moe_loss_conf){.kind = MOE_LOSS_LISTWISE}, &low, &high);
    CU_ASSERT(low == 0 && isinf(high));
}

SUITE("moe_loss", TEST(test_slopes), TEST(test_one_after_another),
      TEST(test_one_after_another_far_from_zero), TEST(test_values), TEST(test_a_slate),
      TEST(test_labels))
