/* request_log.h: served requests in a file, enough to rank them again bit for bit (`moerank
 * replay`): RequestLog messages, each after its length in four bytes,
 * little-endian. Appending copies into memory;
 * a thread of the log's own writes each second. */
#pragma once
#include "ranker/rank.h"

struct rk_request_log;
/* Appends to the file; one cut short by a crash is first cut to its last whole message. */
enum status rk_request_log_open(const char *path, struct rk_request_log **out);
void rk_request_log_close(struct rk_request_log *l); /* writes what is left; NULL is fine */
/* Any thread; `scratch` is overwritten. `request` with now_us filled in. Left out, and counted in
 * the log's last line, when the disk is so slow that 64 MiB wait. */
void rk_request_log_add(struct rk_request_log *l, struct arena *a, struct buf *scratch,
                        const struct rpc_rank_request *request,
                        const struct rpc_rank_response *response, const struct rk_seen *seen,
                        int64_t served_at_us);

struct rk_request_log_reader;
enum status rk_request_log_read_open(const char *path, struct rk_request_log_reader **out);
void rk_request_log_read_close(struct rk_request_log_reader *r); /* NULL is fine */
/* The next message; it borrows from the reader, until it is closed. OUT_OF_RANGE at the end;
 * DATA_LOSS names the byte. */
enum status rk_request_log_next(struct rk_request_log_reader *r, struct arena *a,
                                struct rpc_request_log *out);
