/* request_log.h: served requests, enough to make their rows and scores again bit for bit (`moerank
 * replay`) and to train on what was served: RequestLog messages (proto/moerank.proto), in a file,
 * each after its length in four bytes, little-endian; in a file whose name ends in .zst, in a frame
 * for each second; in a Kafka topic, a message each. Appending copies into memory; a thread of the
 * log's own writes each second. */
#pragma once
#include "ranker/kafka.h"
#include "ranker/rank.h"

struct rk_request_log;
/* Where the settings' section log says; *out is NULL where it says nowhere. A file cut short by a
 * crash is first cut to its last whole message. UNAVAILABLE: the file, or Kafka. */
enum status rk_request_log_start(const struct rk_config *c, struct rk_request_log **out);
/* Into one file, of any length, without rows. */
enum status rk_request_log_open(const char *path, struct rk_request_log **out);
void rk_request_log_close(struct rk_request_log *l); /* writes what is left; NULL is fine */
/* Any thread; `scratch` is overwritten. `request` with now_us filled in. Left out, and counted in
 * the log's last line, when disk or Kafka are so slow that 64 MiB wait. */
void rk_request_log_add(struct rk_request_log *l, struct arena *a, struct buf *scratch,
                        const struct rpc_rank_request *request,
                        const struct rpc_rank_response *response, const struct rk_seen *seen,
                        int64_t served_at_us);

struct rk_request_log_reader;
/* A file; what was moved away from it (PATH.1, PATH.2, ...) is read first, the oldest first. */
enum status rk_request_log_read_open(const char *path, struct rk_request_log_reader **out);
/* All of a topic up to its end as of now, in the order of its partitions. */
enum status rk_request_log_read_topic(const struct rk_kafka_conf *kafka, const char *topic,
                                      struct rk_request_log_reader **out);
void rk_request_log_read_close(struct rk_request_log_reader *r); /* NULL is fine */
/* The next message; it borrows from the reader, until it is closed. OUT_OF_RANGE at the end;
 * DATA_LOSS names the byte, of what is unpacked. */
enum status rk_request_log_next(struct rk_request_log_reader *r, struct arena *a,
                                struct rpc_request_log *out);
