/* rpc_client.h: a blocking gRPC client of our own service, for verbs, demo, load and tests. One
 * thread per client. */
#pragma once
#include "proto/rpc.h"

struct rk_client;
enum status rk_client_open(const char *target /* "127.0.0.1:7070" */, struct rk_client **out);
void rk_client_close(struct rk_client *c);
/* From here on it looks for an answer so long before it sleeps; 0, as at first: not. */
void rk_client_spin(struct rk_client *c, int64_t most_us);
/* method: "Rank", "Recommend", "Feedback", "GetModel" or a full "/pkg.Service/Method". The reply's
 * bytes live in the arena. The server's status and message come back as ours. */
enum status rk_client_call(struct rk_client *c, struct arena *a, const char *method,
                           struct slice request, int timeout_ms, struct slice *reply);
enum status rk_client_wait_serving(struct rk_client *c, int timeout_ms);
