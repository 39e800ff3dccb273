/* stream.h: recorded events for verbs: a file of JSON lines, or a Kafka topic from its beginning to
 * its end as of now. They come one at a time, in an order in which they may be applied:
 *
 *   file:  line by line; partition 0, offset = line number - 1. A line that does not say when it
 *          arrived did so at the latest when the file was opened: what bears a time further ahead
 *          of that than `ahead` has a wrong clock, and must not make all after it late;
 *   topic: each partition in its own order, partitions interleaved by event time, so that equal
 *          topics give equal streams however the broker hands them out. All messages are held in
 *          memory until then. No consumer group is joined and nothing is committed. */
#pragma once
#include "ranker/kafka.h"

struct stream_source {
    const char *path;                  /* a file; or NULL */
    const struct rk_kafka_conf *kafka; /* the topic, without path */
};

enum { STREAM_RUN_MAX = 2000 };
/* Called for each message, `m` being its bytes (timestamp: in a file, when it was opened). Failures
 * end the stream. */
struct stream_handler {
    void *context;
    enum status (*event)(void *context, const struct ev_event *e, const struct rk_message *m);
    enum status (*bad)(void *context, const char *reason, const struct rk_message *m);
    /* of a file, in place of `event`: good lines that stand together, at most
     * STREAM_RUN_MAX. Optional. */
    enum status (*events)(void *context, const struct ev_event *events, int n);
};

/* `what` stands in the progress line. Events borrow from memory that lives until the handler
 * returns. The handler runs on the caller's thread. */
enum status stream_read(const struct stream_source *source, const char *what, int quiet,
                        const struct stream_handler *handler);

/* Decodes one message into `a` (reset before) and calls one of the two. json: a line of a file,
 * which is never protobuf. */
enum status stream_hand_over(const struct stream_handler *h, struct arena *a,
                             const struct rk_message *m, bool json);
