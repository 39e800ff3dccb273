/* ranker_spin: who waits looks for so long, not where what it waits for never comes soon, and not
 * for a while after somebody else wanted the CPU, the longer the more often. Time is an argument.
 */
#include "ranker/spin.h"
#include "tests/support/suite.h"

enum { MOST_US = 100, ROUNDS_MAX = 10000 };

/* A wait from `*now_us` on, of which a look takes round_us; what is waited for comes after soon_us.
 * How many looks there were. */
static int wait_once(struct rk_spin *s, int64_t *now_us, int64_t round_us, int64_t soon_us) {
    const int64_t come_us = *now_us + soon_us;
    int looks = 0;
    bool look = rk_spin_begin(s, *now_us, true);
    while (look && looks < ROUNDS_MAX) {
        looks++;
        *now_us += round_us;
        if (*now_us >= come_us)
            break;
        look = rk_spin_again(s, *now_us);
    }
    if (*now_us < come_us)
        *now_us = come_us;
    rk_spin_end(s, *now_us);
    return looks;
}

static void test_looks_so_long_and_no_longer(void) {
    struct rk_spin s;
    int64_t now_us = 1000000;
    rk_spin_init(&s, MOST_US);
    CU_ASSERT_EQUAL(wait_once(&s, &now_us, 10, 30), 3);
    CU_ASSERT_EQUAL(wait_once(&s, &now_us, 10, 5000), MOST_US / 10);
    rk_spin_init(&s, 0);
    CU_ASSERT_EQUAL(wait_once(&s, &now_us, 10, 30), 0);
    rk_spin_init(&s, MOST_US);
    CU_ASSERT_FALSE(rk_spin_begin(&s, now_us, false));
    rk_spin_end(&s, now_us + 10);
    CU_ASSERT(rk_spin_begin(&s, now_us + 20, true));
}

/* Long waits end the looking; short ones, slept through, bring it back. */
static void test_luck(void) {
    struct rk_spin s;
    int64_t now_us = 1000000;
    int looked = 0, first = -1;
    rk_spin_init(&s, MOST_US);
    for (int i = 0; i < 100; i++)
        looked += wait_once(&s, &now_us, 10, 5000) > 0;
    CU_ASSERT(looked > 0 && looked < 10);
    for (int i = 0; i < 100 && first < 0; i++)
        first = wait_once(&s, &now_us, 10, 50) > 0 ? i : -1;
    CU_ASSERT(first > 0 && first < 10);
}

static void test_a_crowd_is_left_alone(void) {
    struct rk_spin s;
    int64_t now_us = 1000000, from_us = now_us;
    int looked = 0;
    rk_spin_init(&s, MOST_US);
    for (int i = 0; i < 100; i++) /* who is a caller on the same CPU is no crowd */
        looked += wait_once(&s, &now_us, 40, 70) > 0;
    CU_ASSERT_EQUAL(looked, 100);
    CU_ASSERT_EQUAL(wait_once(&s, &now_us, 200, 250), 1);
    CU_ASSERT_EQUAL(wait_once(&s, &now_us, 10, 50), 0);
    from_us = now_us;
    while (wait_once(&s, &now_us, 10, 50) == 0)
        ;
    CU_ASSERT(now_us - from_us < 2000);
    looked = 0;
    for (from_us = now_us; now_us - from_us < 10000000;)
        looked += wait_once(&s, &now_us, 3000, 90) > 0; /* the CPU comes back 3 ms later */
    CU_ASSERT(looked > 0 && looked < 30);               /* four pauses, then one each second */
}

SUITE("ranker_spin", TEST(test_looks_so_long_and_no_longer), TEST(test_luck),
      TEST(test_a_crowd_is_left_alone))
