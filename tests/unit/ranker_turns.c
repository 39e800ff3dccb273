/* ranker_turns: one leads at a time, stepping aside lets the next, the end lets all go; places are
 * given once each, the warm one first. */
#include "ranker/turns.h"
#include <stdatomic.h>
#include "base/clock.h"
#include "tests/support/suite.h"

enum { THREADS = 4, ROUNDS = 2000 };

struct lab {
    struct rk_turns turns;
    atomic_int leading, most, rounds, gone;
};

static void *follow(void *arg) {
    struct lab *l = arg;
    while (rk_turns_lead(&l->turns)) {
        const int now = atomic_fetch_add(&l->leading, 1) + 1;
        if (now > atomic_load(&l->most))
            atomic_store(&l->most, now);
        const bool last = atomic_fetch_add(&l->rounds, 1) + 1 == ROUNDS;
        atomic_fetch_sub(&l->leading, 1);
        if (last)
            break; /* still leading: nobody else may */
        rk_turns_step_aside(&l->turns);
    }
    atomic_fetch_add(&l->gone, 1);
    return NULL;
}

static void test_one_leads_at_a_time(void) {
    struct lab l = {0};
    pthread_t threads[THREADS];
    rk_turns_init(&l.turns, 1);
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, follow, &l);
    while (atomic_load(&l.gone) < 1)
        clock_sleep_ms(1);
    clock_sleep_ms(5);
    CU_ASSERT_EQUAL(atomic_load(&l.gone), 1); /* the others wait */
    CU_ASSERT_EQUAL(atomic_load(&l.rounds), ROUNDS);
    CU_ASSERT_EQUAL(atomic_load(&l.most), 1);
    rk_turns_end(&l.turns);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CU_ASSERT_FALSE(rk_turns_lead(&l.turns));
    rk_turns_deinit(&l.turns);
}

static void test_places(void) {
    struct rk_turns t;
    rk_turns_init(&t, 2);
    CU_ASSERT_EQUAL(rk_turns_take_place(&t), 0);
    CU_ASSERT_EQUAL(rk_turns_take_place(&t), 1);
    CU_ASSERT_EQUAL(rk_turns_take_place(&t), -1);
    rk_turns_give_place(&t, 0);
    rk_turns_give_place(&t, 1);
    CU_ASSERT_EQUAL(rk_turns_take_place(&t), 1);
    CU_ASSERT_EQUAL(rk_turns_take_place(&t), 0);
    rk_turns_deinit(&t);
}

SUITE("ranker_turns", TEST(test_one_leads_at_a_time), TEST(test_places))
