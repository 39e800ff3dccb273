/* Balancing of tasks: where the factors settle, what they ignore; in training, that large losses do
 * not drown small ones. */
#include <math.h>
#include "moe/train/task_balance.h"
#include "tests/support/suite.h"

static double mean(const struct moe_task_balance *b) {
    double sum = 0;
    for (int t = 0; t < b->n; t++)
        sum += b->factor[t];
    return sum / b->n;
}

static void test_fixed(void) {
    struct moe_task_balance b;
    moe_task_balance_init(&b, MOE_BALANCE_FIXED, 2, 1.5);
    moe_task_balance_step(&b, (const double[]){5, 1}, (const double[]){1, 9});
    CU_ASSERT(b.factor[0] == 1 && b.factor[1] == 1);
}

/* e^-s L + s / 2 is least at e^-s = 1 / (2 L): factors are inverse to losses */
static void test_uncertainty(void) {
    struct moe_task_balance b;
    const double loss[] = {0.1, 0.4, NAN};
    moe_task_balance_init(&b, MOE_BALANCE_UNCERTAINTY, 3, 0);
    for (int i = 0; i < 5000; i++)
        moe_task_balance_step(&b, loss, NULL);
    CU_ASSERT_DOUBLE_EQUAL(b.factor[0] / b.factor[1], 4, 0.01);
    CU_ASSERT_DOUBLE_EQUAL(mean(&b), 1, 1e-9);
    CU_ASSERT(b.s[2] == 0); /* a task without rows has learnt nothing */
}

/* Norms are proportional to factors: 3 : 1 for equal factors, so 1 : 3 makes them equal; a task
 * that has come half as far pushes harder. */
static void test_gradnorm(void) {
    struct moe_task_balance b;
    double loss[] = {1, 1}, norm[2];
    for (int slow = 0; slow < 2; slow++) {
        moe_task_balance_init(&b, MOE_BALANCE_GRADNORM, 2, 1);
        loss[0] = loss[1] = 1;
        for (int i = 0; i < 5000; i++) {
            norm[0] = 3 * b.factor[0];
            norm[1] = b.factor[1];
            moe_task_balance_step(&b, loss, norm);
            loss[0] = slow ? 0.5 : 1;
        }
        CU_ASSERT_DOUBLE_EQUAL(norm[1] / norm[0], slow ? 2 : 1, 0.01);
        CU_ASSERT_DOUBLE_EQUAL(mean(&b), 1, 1e-9);
    }
    moe_task_balance_step(&b, (const double[]){NAN, 1}, (const double[]){0, INFINITY});
    CU_ASSERT(isfinite(b.factor[0]) && isfinite(b.factor[1]));
}

SUITE("moe_task_balance", TEST(test_fixed), TEST(test_uncertainty), TEST(test_gradnorm))
