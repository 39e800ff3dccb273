/* turns.h: whose turn it is to take calls, and who ranks. One thread at a time leads; so many have
 * a place to rank at a time; there should be one thread more than places, so that one is always
 * left to lead. */
#pragma once
#include <pthread.h>
#include <stdbool.h>

struct rk_turns {
    pthread_mutex_t lock;
    pthread_cond_t unled;
    bool led, over;
    int *free; /* [n_free] places; the last one left is taken first: its memory is warm */
    int n_free;
};
void rk_turns_init(struct rk_turns *t, int places); /* numbered 0.. */
void rk_turns_deinit(struct rk_turns *t);
/* Waits until nobody leads, and leads. False once all is over. Any thread, as the others. */
bool rk_turns_lead(struct rk_turns *t);
void rk_turns_step_aside(struct rk_turns *t); /* who leads: another may, and is woken */
void rk_turns_end(struct rk_turns *t);        /* nobody leads any more, nobody waits */
int rk_turns_take_place(struct rk_turns *t);  /* -1: all are taken */
void rk_turns_give_place(struct rk_turns *t, int place);
