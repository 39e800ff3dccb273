/* queue.c: a ring of pointers under one mutex with two conditions.
 *
 * A queue here carries work worth far more than a lock (a request, a batch), so a lock-free ring
 * would buy nothing. Waits use the monotonic clock: setting the wall clock wakes nobody. */
#include "base/queue.h"
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <time.h>
#include "base/heap.h"

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t has_item, has_room;
    size_t first, n, cap;
    bool closed;
    void *items[];
};

struct queue *queue_new(size_t capacity) {
    assert(capacity > 0);
    struct queue *q = heap_alloc(sizeof *q + capacity * sizeof q->items[0]);
    q->cap = capacity;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->has_item, &attr);
    pthread_cond_init(&q->has_room, &attr);
    pthread_condattr_destroy(&attr);
    return q;
}

void queue_free(struct queue *q) {
    if (!q)
        return;
    pthread_cond_destroy(&q->has_item);
    pthread_cond_destroy(&q->has_room);
    pthread_mutex_destroy(&q->lock);
    heap_free(q);
}

static bool push(struct queue *q, void *item, bool wait) {
    assert(item && "NULL is what an empty queue gives");
    pthread_mutex_lock(&q->lock);
    while (wait && q->n == q->cap && !q->closed)
        pthread_cond_wait(&q->has_room, &q->lock);
    bool room = !q->closed && q->n < q->cap;
    if (room) {
        q->items[(q->first + q->n++) % q->cap] = item;
        pthread_cond_signal(&q->has_item);
    }
    pthread_mutex_unlock(&q->lock);
    return room;
}

bool queue_try_push(struct queue *q, void *item) { return push(q, item, false); }
bool queue_push(struct queue *q, void *item) { return push(q, item, true); }

static struct timespec deadline_in(int timeout_ms) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += timeout_ms / 1000;
    t.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

/* Under the lock: waits until there is an item, the queue is closed, or time is up. */
static void wait_item(struct queue *q, int timeout_ms) {
    if (timeout_ms < 0) {
        while (q->n == 0 && !q->closed)
            pthread_cond_wait(&q->has_item, &q->lock);
        return;
    }
    if (timeout_ms == 0 || q->n > 0)
        return;
    struct timespec deadline = deadline_in(timeout_ms);
    while (q->n == 0 && !q->closed)
        if (pthread_cond_timedwait(&q->has_item, &q->lock, &deadline) == ETIMEDOUT)
            return;
}

void *queue_pop(struct queue *q, int timeout_ms) {
    pthread_mutex_lock(&q->lock);
    wait_item(q, timeout_ms);
    void *item = NULL;
    if (q->n > 0) {
        item = q->items[q->first];
        q->first = (q->first + 1) % q->cap;
        q->n--;
        pthread_cond_signal(&q->has_room);
    }
    pthread_mutex_unlock(&q->lock);
    return item;
}

void queue_close(struct queue *q) {
    pthread_mutex_lock(&q->lock);
    q->closed = true;
    pthread_cond_broadcast(&q->has_item);
    pthread_cond_broadcast(&q->has_room);
    pthread_mutex_unlock(&q->lock);
}

size_t queue_depth(struct queue *q) {
    pthread_mutex_lock(&q->lock);
    size_t n = q->n;
    pthread_mutex_unlock(&q->lock);
    return n;
}
