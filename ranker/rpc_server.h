/* rpc_server.h: gRPC in, bytes out: it knows methods by name and messages as bytes. So many calls
 * rank at a time, each on the thread that received it; health and reflection are answered beside
 * them, so a probe never waits behind a ranking. */
#pragma once
#include "ranker/config.h"

/* Feedback waits for Kafka, so it has threads of its own: an outage there stalls no ranking. */
enum rk_rpc_pool { RK_POOL_RANK, RK_POOL_SEND, RK_POOLS };

struct rk_rpc_method {
    const char *path; /* "/moerank.v1.Ranking/Rank"; NULL ends a list */
    enum rk_rpc_pool pool;
};

struct rk_rpc_call;
int rk_rpc_method_index(const struct rk_rpc_call *call); /* in the list of methods */
/* Valid until the handler returns, also after the reply. */
struct slice rk_rpc_request(const struct rk_rpc_call *call);
int64_t rk_rpc_arrived_us(const struct rk_rpc_call *call); /* clock_mono_us */
int64_t
rk_rpc_left_us(const struct rk_rpc_call *call); /* until the caller's deadline; may be < 0 */
/* To be said in a handler of RK_POOL_RANK before anything that may take longer than waking a thread
 * twice (100 us): until then, or the handler's return, no other call may be taken. */
void rk_rpc_may_take_long(const struct rk_rpc_call *call);
/* Sends the answer; exactly once in a handler, which may go on working afterwards. `reply` is
 * copied. Not OK: `message` goes out instead. */
void rk_rpc_reply(struct rk_rpc_call *call, enum status status, const char *message,
                  struct slice reply);

struct rk_rpc_handler {
    void *context;
    const struct rk_rpc_method *methods;
    int workers[RK_POOLS]; /* of each pool at a time; numbered 0.. per pool */
    /* On each thread of a pool, numbered 0..; may be NULL. Of RK_POOL_RANK there is one more than
     * workers, and a worker's number goes from thread to thread. */
    void (*start)(void *context, enum rk_rpc_pool pool, int thread);
    void (*handle)(void *context, int worker, struct rk_rpc_call *call);
};

struct rk_rpc_server;
/* UNAVAILABLE: the address cannot be listened on. SIGTERM and SIGINT should be blocked before, so
 * that gRPC's threads inherit that. */
enum status rk_rpc_server_start(const struct rk_grpc_conf *c, const struct rk_rpc_handler *h,
                                struct rk_rpc_server **out);
int rk_rpc_server_port(const struct rk_rpc_server *s);             /* 0 for unix: */
void rk_rpc_server_serving(struct rk_rpc_server *s, bool serving); /* what Health.Check says */
size_t rk_rpc_server_depth(struct rk_rpc_server *s); /* calls waiting for a rank worker */
/* No new calls; those in flight may take grace_ms, then they are cancelled. */
void rk_rpc_server_stop(struct rk_rpc_server *s, int grace_ms);
