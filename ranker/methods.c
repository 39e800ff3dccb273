/* methods.c: Rank, Recommend, Feedback, GetModel. The edge of the process: here the clock is read
 * and a request without a time gets it, so that what lies below is a function of its arguments.
 *
 * What Redis and the request log cost comes after the reply, as far as it can. Deliberately no
 * batching across calls: a slate of hundreds of rows fills the kernels by itself. */
#define _GNU_SOURCE /* pthread_setaffinity_np */
#include "ranker/methods.h"
#include <assert.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/metric.h"
#include "ranker/crew.h"
#include "ranker/lap.h"
#include "ranker/result_cache.h"

enum {
    SEND_MAX_US = 30 * 1000 * 1000,
    SHORT_US = 500 /* another call may wait so long; to wake a thread for it costs some 20 us */
};

/* In the order of their handlers below. */
static const struct rk_rpc_method methods[] = {{"/moerank.v1.Ranking/Rank", RK_POOL_RANK},
                                               {"/moerank.v1.Ranking/Recommend", RK_POOL_RANK},
                                               {"/moerank.v1.Ranking/Feedback", RK_POOL_SEND},
                                               {"/moerank.v1.Ranking/GetModel", RK_POOL_RANK},
                                               {NULL, RK_POOL_RANK}};

struct worker {
    struct rk_worker rank; /* its arena is the call's */
    struct rk_cache *cache;
    struct rk_list_worker *lists;
    struct buf reply, scratch;
    double item_us; /* what a candidate took in the last call; 0: there was none */
};
struct rk_methods {
    struct rk_methods_conf c;
    struct worker *workers[RK_POOLS];
    struct rk_crew *crew;
};

/* A call being answered. */
struct call {
    struct rk_methods *m;
    struct worker *w;
    struct arena *a;
    struct rk_rpc_call *rpc;
    struct slice bytes;
};

static void reply(const struct call *c) {
    rk_rpc_reply(c->rpc, STATUS_OK, "", buf_slice(&c->w->reply));
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Read your writes: until the token's event is applied, the deadline, or grpc.wait_max. */
static enum status wait_after(const struct call *c, struct rpc_token after) {
    if (!after.given)
        return STATUS_OK;
    int64_t wait_us = least(rk_rpc_left_us(c->rpc), c->m->c.conf->grpc.wait_max_us);
    return fail_in(feat_state_wait(c->m->c.state, (struct ev_source){after.partition, after.offset},
                                   wait_us > 0 ? (int)least(wait_us / 1000, INT_MAX) : 0),
                   "after");
}

static enum status acquire(const struct call *c, struct rk_bundle **out) {
    *out = rk_model_acquire(c->m->c.slot);
    return *out ? STATUS_OK : fail(STATUS_FAILED_PRECONDITION, "no model is loaded (serving.path)");
}

/* ---- Rank ---------------------------------------------------------------------------------- */

static uint64_t user_epoch(const struct call *c, const struct rpc_rank_request *request) {
    feat_state_read_begin(c->m->c.state);
    uint64_t epoch = feat_state_user_epoch(c->m->c.state, request->tenant, request->user);
    feat_state_read_end(c->m->c.state);
    return epoch;
}

/* A kept answer says "cached" and bears no request's id: this request's is put behind it, and in
 * protobuf the last value of a field counts. */
static bool answer_from_cache(const struct call *c, const struct rpc_rank_request *request,
                              struct slice key) {
    struct slice value;
    if (!rk_cache_get(c->w->cache, c->a, key, &value))
        return false;
    const struct rpc_rank_response id = {.request_id = request->request_id};
    buf_clear(&c->w->reply);
    buf_add(&c->w->reply, value.p, value.n);
    rpc_encode_rank_response(&id, &c->w->reply);
    reply(c);
    return true;
}

static void log_cached(const struct call *c, const struct rpc_rank_request *request) {
    struct rpc_rank_response response;
    const struct rk_seen nothing = {0};
    if (!c->m->c.log ||
        rpc_decode_rank_response(c->a, buf_slice(&c->w->reply), &response) != STATUS_OK)
        return;
    rk_request_log_add(c->m->c.log, c->a, &c->w->scratch, request, &response, &nothing,
                       clock_wall_us());
}

static void cache_begin(const struct call *c, const struct rpc_rank_response *response,
                        struct slice key) {
    struct rpc_rank_response kept = *response;
    kept.request_id = (struct slice){NULL, 0};
    kept.cached = true;
    buf_clear(&c->w->scratch);
    rpc_encode_rank_response(&kept, &c->w->scratch);
    rk_cache_put_begin(c->w->cache, key, buf_slice(&c->w->scratch));
}

static enum status rank_with(const struct call *c, const struct rk_bundle *b,
                             struct rpc_rank_request *request) {
    struct slice key = {NULL, 0};
    bool cached = c->w->cache && rk_cache_takes(request);
    int64_t now_us = request->now_us;
    rk_lap(&c->w->rank, METRIC_CPU_DECODE);
    if (cached)
        key = rk_cache_key(c->w->cache, c->a, &c->w->scratch, b->version, user_epoch(c, request),
                           request);
    request->now_us = now_us > 0 ? now_us : clock_wall_us();
    bool found = cached && answer_from_cache(c, request, key);
    if (cached) /* a lap is a system call */
        rk_lap(&c->w->rank, METRIC_CPU_CACHE);
    if (found) {
        log_cached(c, request);
        return STATUS_OK;
    }
    struct rpc_rank_response response;
    struct rk_seen seen;
    TRY(rk_rank(b, c->m->c.state, &c->w->rank, request, &response, &seen));
    if (cached) {
        cache_begin(c, &response, key);
        rk_lap(&c->w->rank, METRIC_CPU_CACHE);
    }
    buf_clear(&c->w->reply);
    rpc_encode_rank_response(&response, &c->w->reply);
    reply(c);
    rk_lap(&c->w->rank, METRIC_CPU_ANSWER);
    if (cached) {
        rk_cache_put_end(c->w->cache);
        rk_lap(&c->w->rank, METRIC_CPU_CACHE);
    }
    if (c->m->c.log) {
        rk_request_log_add(c->m->c.log, c->a, &c->w->scratch, request, &response, &seen,
                           clock_wall_us());
        rk_lap(&c->w->rank, METRIC_CPU_LOG);
    }
    return STATUS_OK;
}

static enum status check_rank(const struct call *c, const struct rpc_rank_request *r) {
    int64_t most = c->m->c.conf->grpc.items_max;
    if (r->n_items > most)
        return fail(STATUS_INVALID_ARGUMENT, "items: %d given, at most %lld (grpc.items_max)",
                    r->n_items, (long long)most);
    if (r->now_us < 0)
        return fail(STATUS_INVALID_ARGUMENT, "now_us: %lld", (long long)r->now_us);
    return STATUS_OK;
}

/* Whether others should take the calls that come meanwhile: what waits for someone, and a list
 * that will take its time. A shared state says by itself when it waits. */
static bool may_take_long(const struct call *c, const struct rpc_rank_request *r) {
    return r->after.given || c->w->cache || c->w->item_us == 0 ||
           c->w->item_us * r->n_items > SHORT_US;
}

static void state_waits(void *context) { rk_rpc_may_take_long(context); }

static enum status rank(const struct call *c) {
    struct rpc_rank_request request;
    struct rk_bundle *b;
    rk_lap_call(&c->w->rank, c->bytes.n);
    rk_lap_begin(&c->w->rank);
    TRY(rpc_decode_rank_request(c->a, c->bytes, &request));
    TRY(check_rank(c, &request));
    if (may_take_long(c, &request))
        rk_rpc_may_take_long(c->rpc);
    TRY(wait_after(c, request.after));
    TRY(acquire(c, &b));
    const int64_t from_us = clock_mono_us();
    feat_state_tell_waits(state_waits, c->rpc);
    enum status status = rank_with(c, b, &request);
    feat_state_tell_waits(NULL, NULL);
    if (status == STATUS_OK)
        c->w->item_us = (double)(clock_mono_us() - from_us) / request.n_items;
    rk_bundle_release(b);
    return status;
}

static enum status rank_counted(const struct call *c) {
    int64_t arrived_us = rk_rpc_arrived_us(c->rpc);
    enum status status = rank(c);
    metric_observe_us(METRIC_RANK_US, clock_mono_us() - arrived_us);
    metric_add(status == STATUS_OK ? METRIC_RANK_CALLS : METRIC_RANK_FAILED, 1);
    return status;
}

/* ---- Recommend ----------------------------------------------------------------------------- */

static enum status recommend(const struct call *c) {
    struct rpc_recommend_request request;
    struct rpc_recommend_response response;
    TRY(rpc_decode_recommend_request(c->a, c->bytes, &request));
    TRY(wait_after(c, request.after));
    TRY(rk_nearline_recommend(c->w->lists, c->a, &request, clock_wall_us(), &response));
    buf_clear(&c->w->reply);
    rpc_encode_recommend_response(&response, &c->w->reply);
    reply(c);
    return STATUS_OK;
}

/* ---- Feedback ------------------------------------------------------------------------------ */

static enum status send_all(const struct call *c, const struct rpc_feedback_request *request,
                            struct rpc_token *tokens) {
    const struct rk_methods_conf *m = &c->m->c;
    struct slice *keys = ARENA_ARRAY(c->a, struct slice, request->n);
    struct ev_source *sources = ARENA_ARRAY(c->a, struct ev_source, request->n);
    int64_t wait_us = least(rk_rpc_left_us(c->rpc), SEND_MAX_US);
    for (int i = 0; i < request->n; i++)
        keys[i] = ev_key(&request->events[i]);
    TRY(rk_producer_send_wait(m->producer, m->conf->kafka.topic, keys, request->payloads,
                              request->n, (int)(wait_us / 1000), sources));
    for (int i = 0; i < request->n; i++)
        tokens[i] = (struct rpc_token){true, sources[i].partition, sources[i].offset};
    return STATUS_OK;
}

static enum status feedback(const struct call *c) {
    struct rpc_feedback_request request;
    TRY(rpc_decode_feedback_request(c->a, c->bytes, &request));
    struct rpc_token *tokens = ARENA_ARRAY(c->a, struct rpc_token, request.n);
    if (!c->m->c.producer)
        return fail(STATUS_FAILED_PRECONDITION,
                    "feedback has nowhere to go: no Kafka is configured (kafka.brokers)");
    if (request.n > 0)
        TRY(send_all(c, &request, tokens));
    const struct rpc_feedback_response response = {tokens, request.n, request.rejected,
                                                   request.n_rejected};
    buf_clear(&c->w->reply);
    rpc_encode_feedback_response(&response, &c->w->reply);
    reply(c);
    return STATUS_OK;
}

/* ---- GetModel ------------------------------------------------------------------------------ */

static int applied_now(const struct call *c, const struct rpc_applied **out) {
    const struct feat_applied *applied = NULL;
    feat_state_read_begin(c->m->c.state);
    int n = feat_state_applied(c->m->c.state, c->a, &applied);
    feat_state_read_end(c->m->c.state);
    struct rpc_applied *list = ARENA_ARRAY(c->a, struct rpc_applied, n);
    for (int i = 0; i < n; i++)
        list[i] = (struct rpc_applied){applied[i].partition, applied[i].offset};
    *out = list;
    return n;
}

static enum status get_model(const struct call *c) {
    struct rk_bundle *b;
    TRY(acquire(c, &b));
    const char *trained = moe_model_meta(b->model, "trained_at_us");
    struct slice *tasks = ARENA_ARRAY(c->a, struct slice, b->n_tasks);
    for (int t = 0; t < b->n_tasks; t++)
        tasks[t] = slice_of(moe_model_task(b->model, t));
    struct rpc_model_response response = {.version = slice_of(b->version),
                                          .spec_json = slice_of(moe_model_spec_json(b->model)),
                                          .plan_json = slice_of(b->plan->json),
                                          .tasks = tasks,
                                          .n_tasks = b->n_tasks,
                                          .trained_at_us =
                                              trained ? strtoll(trained, NULL, 10) : 0};
    response.n_applied = applied_now(c, &response.applied);
    buf_clear(&c->w->reply);
    rpc_encode_model_response(&response, &c->w->reply);
    rk_bundle_release(b);
    reply(c);
    return STATUS_OK;
}

/* ---- the handler --------------------------------------------------------------------------- */

static void handle(void *context, int worker, struct rk_rpc_call *rpc) {
    static enum status (*const handlers[])(const struct call *) = {rank_counted, recommend,
                                                                   feedback, get_model};
    struct rk_methods *m = context;
    int method = rk_rpc_method_index(rpc);
    struct worker *w = &m->workers[methods[method].pool][worker];
    arena_reset(&w->rank.arena);
    if (handlers[method] != rank_counted)
        rk_rpc_may_take_long(rpc);
    const struct call c = {m, w, &w->rank.arena, rpc, rk_rpc_request(rpc)};
    struct rk_crew *crew = w->rank.crew;
    rk_crew_busy(crew, 1);
    enum status status = handlers[method](&c);
    rk_crew_busy(crew, -1);
    if (status != STATUS_OK) /* then it has not replied */
        rk_rpc_reply(rpc, status, status_message(), (struct slice){NULL, 0});
}

/* A ranking worker has a core of its own where there are enough for the others too. */
static void on_start(void *context, enum rk_rpc_pool pool, int worker) {
    struct rk_methods *m = context;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (pool != RK_POOL_RANK || m->c.workers[RK_POOL_RANK] + 2 > cores)
        return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((unsigned)(cores - 1 - worker), &set);
    pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

struct rk_methods *rk_methods_new(const struct rk_methods_conf *c) {
    struct rk_methods *m = HEAP_NEW(struct rk_methods);
    m->c = *c;
    m->crew = rk_crew_new(c->workers[RK_POOL_RANK], c->conf->grpc.split_min, c->conf->grpc.spin_us);
    for (int p = 0; p < RK_POOLS; p++) {
        m->workers[p] = HEAP_ARRAY(struct worker, c->workers[p]);
        for (int i = 0; i < c->workers[p]; i++) {
            struct worker *w = &m->workers[p][i];
            rk_worker_init(&w->rank);
            w->rank.crew = p == RK_POOL_RANK ? m->crew : NULL;
            w->cache = p == RK_POOL_RANK ? rk_cache_new(c->conf) : NULL;
            w->lists = p == RK_POOL_RANK ? rk_list_worker_new(c->nearline) : NULL;
        }
    }
    return m;
}

void rk_methods_free(struct rk_methods *m) {
    if (!m)
        return;
    for (int p = 0; p < RK_POOLS; p++) {
        for (int i = 0; i < m->c.workers[p]; i++) {
            struct worker *w = &m->workers[p][i];
            rk_worker_deinit(&w->rank);
            rk_cache_free(w->cache);
            rk_list_worker_free(w->lists);
            buf_deinit(&w->reply);
            buf_deinit(&w->scratch);
        }
        heap_free(m->workers[p]);
    }
    rk_crew_free(m->crew);
    heap_free(m);
}

struct rk_rpc_handler rk_methods_handler(struct rk_methods *m) {
    return (struct rk_rpc_handler){
        .context = m,
        .methods = methods,
        .workers = {m->c.workers[RK_POOL_RANK], m->c.workers[RK_POOL_SEND]},
        .start = on_start,
        .handle = handle};
}
