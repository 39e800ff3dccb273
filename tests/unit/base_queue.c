/* base_queue.c: order, bounds, closing, time-outs, and many threads at once. */
#include <pthread.h>
#include <stdint.h>
#include "base/clock.h"
#include "base/queue.h"
#include "tests/support/suite.h"

static void items_come_out_in_order_and_the_bound_holds(void) {
    struct queue *q = queue_new(3);
    int items[4];
    for (int round = 0; round < 5; round++) { /* past the ring's end */
        CU_ASSERT(queue_try_push(q, &items[0]) && queue_try_push(q, &items[1]));
        CU_ASSERT(queue_try_push(q, &items[2]));
        CU_ASSERT(!queue_try_push(q, &items[3]));
        CU_ASSERT_EQUAL(queue_depth(q), 3);
        CU_ASSERT_PTR_EQUAL(queue_pop(q, 0), &items[0]);
        CU_ASSERT_PTR_EQUAL(queue_pop(q, -1), &items[1]);
        CU_ASSERT_PTR_EQUAL(queue_pop(q, 1000), &items[2]);
    }
    queue_free(q);
    queue_free(NULL);
}

static void an_empty_queue_times_out(void) {
    struct queue *q = queue_new(1);
    CU_ASSERT_PTR_NULL(queue_pop(q, 0));
    CU_ASSERT_PTR_NULL(queue_pop(q, 2));
    queue_free(q);
}

static void a_closed_queue_gives_out_what_is_inside_then_null(void) {
    struct queue *q = queue_new(2);
    int item;
    queue_push(q, &item);
    queue_close(q);
    CU_ASSERT(!queue_push(q, &item));
    CU_ASSERT(!queue_try_push(q, &item));
    CU_ASSERT_PTR_EQUAL(queue_pop(q, -1), &item);
    CU_ASSERT_PTR_NULL(queue_pop(q, -1));
    queue_free(q);
}

static void *pops_one(void *q) { return queue_pop(q, -1); }
static void *pushes_one(void *q) { return queue_push(q, q) ? q : NULL; }

static void closing_wakes_those_who_wait(void) {
    struct queue *empty = queue_new(1), *full = queue_new(1);
    queue_push(full, full);
    pthread_t popper, pusher;
    pthread_create(&popper, NULL, pops_one, empty);
    pthread_create(&pusher, NULL, pushes_one, full);
    clock_sleep_ms(20); /* nothing tells that they wait; without this they mostly find it closed */
    queue_close(empty);
    queue_close(full);
    void *popped = empty, *pushed = full;
    pthread_join(popper, &popped);
    pthread_join(pusher, &pushed);
    CU_ASSERT_PTR_NULL(popped);
    CU_ASSERT_PTR_NULL(pushed);
    queue_free(empty);
    queue_free(full);
}

enum { ITEMS = 20000, THREADS = 3 };
static void *produce(void *q) {
    for (uintptr_t i = 1; i <= ITEMS; i++)
        queue_push(q, (void *)i);
    return NULL;
}
static void *consume(void *q) {
    uintptr_t sum = 0;
    for (void *item; (item = queue_pop(q, -1));)
        sum += (uintptr_t)item;
    return (void *)sum;
}

static void every_item_reaches_exactly_one_of_many_threads(void) {
    struct queue *q = queue_new(16);
    pthread_t in[THREADS], out[THREADS];
    for (int i = 0; i < THREADS; i++) {
        pthread_create(&in[i], NULL, produce, q);
        pthread_create(&out[i], NULL, consume, q);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(in[i], NULL);
    queue_close(q);
    uintptr_t sum = 0;
    for (int i = 0; i < THREADS; i++) {
        void *part;
        pthread_join(out[i], &part);
        sum += (uintptr_t)part;
    }
    CU_ASSERT_EQUAL(sum, (uintptr_t)THREADS * ITEMS * (ITEMS + 1) / 2);
    queue_free(q);
}

SUITE("base_queue", TEST(items_come_out_in_order_and_the_bound_holds),
      TEST(an_empty_queue_times_out), TEST(a_closed_queue_gives_out_what_is_inside_then_null),
      TEST(closing_wakes_those_who_wait), TEST(every_item_reaches_exactly_one_of_many_threads))
