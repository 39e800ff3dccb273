/* queue.h: a bounded blocking queue of pointers between threads. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct queue;
struct queue *queue_new(size_t capacity);
void queue_free(struct queue *q);
bool queue_try_push(struct queue *q, void *item); /* false when full or closed */
bool queue_push(struct queue *q, void *item);     /* waits for room; false when closed */
void *queue_pop(struct queue *q,
                int timeout_ms);   /* -1 waits; NULL on time-out, or closed and empty */
void queue_close(struct queue *q); /* wakes all; what is inside can still be popped */
size_t queue_depth(struct queue *q);
