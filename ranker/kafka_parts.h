/* kafka_parts.h: what kafka.c, kafka_consumer.c and kafka_producer.c share; nobody else includes
 * it. librdkafka's types are named here, not seen. */
#pragma once
#include "ranker/kafka.h"

struct rd_kafka_s;
struct rd_kafka_conf_s;

enum {
    RK_KAFKA_WAIT_MS = 10000,  /* for one answer of a broker */
    RK_KAFKA_CLOSE_MS = 10000, /* for a close */
    RK_KAFKA_TEXT = 512
};

struct rk_kafka_property {
    const char *name, *value;
};
/* Settings of a client. `before` may be overridden by the settings' properties, `after` may not:
 * correctness hangs on it. Both end with {NULL, NULL}. */
enum status rk_kafka_fill(struct rd_kafka_conf_s *conf, const struct rk_kafka_conf *c,
                          const struct rk_kafka_property *before,
                          const struct rk_kafka_property *after);
/* Owns `conf`. */
enum status rk_kafka_start(bool producer, struct rd_kafka_conf_s *conf, struct rd_kafka_s **out);
/* A librdkafka error as ours: names the broker and the remedy. */
enum status rk_kafka_fail(const char *brokers, int code);
enum status rk_kafka_fail_topic(const char *brokers, const char *topic);
/* The topic's number of partitions; waits while a topic just made has no leader yet. */
enum status rk_kafka_ask_topic(struct rd_kafka_s *rk, const char *brokers, const char *topic,
                               int *n);
