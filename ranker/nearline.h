/* nearline.h: lists kept ready. An event that moves a user's epoch puts the user on a queue, once;
 * a thread ranks the user's pool as of the event's time and keeps the list, in Redis or, without
 * Redis, in memory. A list is good as long as its epoch and model are the user's and the slot's. */
#pragma once
#include "ranker/model_slot.h"

struct rk_nearline;
/* All arguments must outlive it. Starts its thread unless nearline.enabled is false: then there are
 * no lists, and rk_nearline_recommend ranks each time. */
struct rk_nearline *rk_nearline_start(const struct rk_config *c, struct feat_state *state,
                                      struct rk_model_slot *slot);
void rk_nearline_stop(struct rk_nearline *n); /* leaves the queue undone; NULL is fine */
/* Called by the ingester after a micro-batch; never blocks. */
void rk_nearline_events(struct rk_nearline *n, const struct ev_event *events,
                        const enum feat_verdict *verdicts, int n_events);

/* What one thread needs to rank or look lists up. */
struct rk_list_worker;
struct rk_list_worker *rk_list_worker_new(struct rk_nearline *n);
void rk_list_worker_free(struct rk_list_worker *w);
/* The list when it is good, else ranked here and now, and kept. The response lives in `a` and the
 * worker, until the worker's next call.
 * FAILED_PRECONDITION: no model; NOT_FOUND: no known items. */
enum status rk_nearline_recommend(struct rk_list_worker *w, struct arena *a,
                                  const struct rpc_recommend_request *request, int64_t now_us,
                                  struct rpc_recommend_response *out);
