/* methods.h: the four methods of moerank.v1.Ranking, from bytes to bytes. What is shared is
 * borrowed; each worker of a pool has its own memory and connections. */
#pragma once
#include "ranker/kafka.h"
#include "ranker/nearline.h"
#include "ranker/request_log.h"
#include "ranker/rpc_server.h"

struct rk_methods_conf {
    const struct rk_config *conf;
    struct feat_state *state;
    struct rk_model_slot *slot;
    struct rk_nearline *nearline;
    struct rk_producer *producer; /* NULL: Feedback is refused */
    struct rk_request_log *log;   /* NULL: none */
    int workers[RK_POOLS];
};
struct rk_methods;
struct rk_methods *rk_methods_new(const struct rk_methods_conf *c);
void rk_methods_free(struct rk_methods *m); /* after the server has stopped */
/* For rk_rpc_server_start; valid as long as the methods. */
struct rk_rpc_handler rk_methods_handler(struct rk_methods *m);
