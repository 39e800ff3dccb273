/* kafka.h: librdkafka behind plain calls; only kafka*.c see it. Consumer group,
 * cooperative-sticky, at-least-once: offsets are committed only when the caller says that what they
 * stand for is safe (a snapshot). Dead letters and feedback go out by an idempotent producer. */
#pragma once
#include "features/state.h"
#include "proto/ev.h"
#include "ranker/config.h"

struct rk_message {
    struct slice value, key;
    struct ev_source source;
    int64_t timestamp_us; /* the log's */
    void *handle;
};
struct rk_consumer;
/* `resume` [n]: per-partition applied offsets of a restored snapshot. An assigned partition starts
 * right after what the state has: after its entry, or after what this consumer handed out before.
 * A partition the state has nothing of starts at kafka.start, whatever the group has committed:
 * state and offsets are one thing, and the group's commits only say how far snapshots got.
 * NOT_FOUND: no such topic; UNAVAILABLE: no broker. One thread. */
enum status rk_consumer_open(const struct rk_kafka_conf *c, const struct feat_applied *resume,
                             int n, struct rk_consumer **out);
/* All partitions from the beginning, without the group; never commits. For replay and training. */
enum status rk_consumer_open_all(const struct rk_kafka_conf *c, struct rk_consumer **out);
/* Where partitions stand is asked for at each assignment, because other processes write the same
 * state. `ask` is called within rk_consumer_poll. */
void rk_consumer_on_assign(struct rk_consumer *k,
                           enum status (*ask)(void *context, const struct feat_applied **out,
                                              int *n),
                           void *context);
void rk_consumer_close(struct rk_consumer *k); /* bounded in time; NULL is fine */
/* Up to `max` messages, waiting at most `wait_us` for the first. *n may be 0. `at_end`: every
 * assigned partition has been read to its end as of now. FAILED_PRECONDITION: the topic ends before
 * what the state has applied, so it is another topic. */
enum status rk_consumer_poll(struct rk_consumer *k, struct rk_message *out, int max,
                             int64_t wait_us, int *n, bool *at_end);
void rk_consumer_release(struct rk_consumer *k, struct rk_message *messages, int n);
/* The next partition whose reading starts later than its state ends (kafka.start: latest, or the
 * log is cut off before): up to *out nothing will come. False when there is none. */
bool rk_consumer_skipped(struct rk_consumer *k, struct ev_source *out);
/* The state up to these offsets is safe: commit. Does not wait. */
enum status rk_consumer_commit(struct rk_consumer *k, const struct feat_applied *safe, int n);
/* Events not yet handed out, all assigned partitions; -1: not known yet. */
int64_t rk_consumer_lag(struct rk_consumer *k);

/* Any thread may send. */
struct rk_producer;
enum status rk_producer_open(const struct rk_kafka_conf *c, struct rk_producer **out);
void rk_producer_close(struct rk_producer *p); /* flushes, bounded; NULL is fine */
/* Copies and returns at once, unless the queue is full; failures are counted and reported by
 * flush. */
enum status rk_producer_send(struct rk_producer *p, const char *topic, struct slice key,
                             struct slice value);
/* A dead letter carries headers: topic, partition, offset, reason. */
enum status rk_producer_dead_letter(struct rk_producer *p, const char *topic,
                                    const struct rk_message *m, const char *from_topic,
                                    const char *reason);
/* UNAVAILABLE: so many undelivered. */
enum status rk_producer_flush(struct rk_producer *p, int timeout_ms);
/* Sends all and waits; sources [n] say where each went. DEADLINE_EXCEEDED: some may still arrive.
 */
enum status rk_producer_send_wait(struct rk_producer *p, const char *topic,
                                  const struct slice *keys, const struct slice *values, int n,
                                  int timeout_ms, struct ev_source *sources);
/* ALREADY_EXISTS when it is there. */
enum status rk_kafka_create_topic(const char *brokers, const char *topic, int partitions);
