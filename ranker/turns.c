/* turns.c: leader and followers (Schmidt et al., 2000): who has taken a call handles it, after
 * another has been let to wait for the next. What is not like there: the leader decides whether
 * anybody is woken, since for a short call that costs more than the call.
 *
 * Deliberately no fairness: which follower leads next does not matter. */
#include "ranker/turns.h"
#include "base/heap.h"

void rk_turns_init(struct rk_turns *t, int places) {
    *t = (struct rk_turns){.free = HEAP_ARRAY(int, places)};
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->unled, NULL);
    while (t->n_free < places)
        rk_turns_give_place(t, places - 1 - t->n_free);
}

void rk_turns_deinit(struct rk_turns *t) {
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->unled);
    heap_free(t->free);
}

bool rk_turns_lead(struct rk_turns *t) {
    pthread_mutex_lock(&t->lock);
    while (t->led && !t->over)
        pthread_cond_wait(&t->unled, &t->lock);
    const bool mine = !t->over;
    t->led |= mine;
    pthread_mutex_unlock(&t->lock);
    return mine;
}

void rk_turns_step_aside(struct rk_turns *t) {
    pthread_mutex_lock(&t->lock);
    t->led = false;
    pthread_cond_signal(&t->unled);
    pthread_mutex_unlock(&t->lock);
}

void rk_turns_end(struct rk_turns *t) {
    pthread_mutex_lock(&t->lock);
    t->over = true;
    pthread_cond_broadcast(&t->unled);
    pthread_mutex_unlock(&t->lock);
}

int rk_turns_take_place(struct rk_turns *t) {
    pthread_mutex_lock(&t->lock);
    const int place = t->n_free > 0 ? t->free[--t->n_free] : -1;
    pthread_mutex_unlock(&t->lock);
    return place;
}

void rk_turns_give_place(struct rk_turns *t, int place) {
    pthread_mutex_lock(&t->lock);
    t->free[t->n_free++] = place;
    pthread_mutex_unlock(&t->lock);
}
