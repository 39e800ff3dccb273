/* nearline.c: the queue of users whose epoch moved, the thread that ranks for them, and lookups.
 * Tenants are not served: a RankRequest names none.
 *
 * A user stands in the queue once, with the newest event's time: ten events in a burst cost one
 * ranking. The queue is bounded; a user left out is ranked when asked for. Deliberately no ranking
 * of users who did nothing: a new model makes lists stale, and Recommend ranks on the spot. */
#include "ranker/nearline.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/log.h"
#include "base/map.h"
#include "base/metric.h"
#include "ranker/lists.h"

static const struct slice no_tenant = {NULL, 0};

enum { MEMORY_LISTS_MAX = 100000, POOL_SHARE = 20, USUAL_ITEMS = 10 };

struct job {
    struct job *next;
    uint64_t key;
    int64_t now_us;
    struct slice user; /* behind the struct */
};
struct rk_nearline {
    const struct rk_config *conf;
    struct feat_state *state;
    struct rk_model_slot *slot;
    struct rk_lists *lists; /* NULL: Redis */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct job *first, **end; /* under the lock, as all below */
    struct map queued;        /* user key -> struct job * */
    bool started, closing;
};

/* The pool is made again when making it takes at most a twentieth of the time since: new items come
 * in at once where there are few, and a walk over millions is not made for each user. */
struct pool {
    struct arena arena;
    const struct slice *items; /* [n] */
    uint64_t *keys;            /* [n] */
    int n;
    int64_t made_us, cost_us;
};
struct rk_list_worker {
    struct rk_nearline *nearline;
    struct rk_worker worker;
    struct rk_redis *redis; /* NULL: lists are in memory */
    struct pool pool;
    struct buf buf;
};

/* ---- the queue ----------------------------------------------------------------------------- */

static struct job *job_new(const struct ev_event *e, uint64_t key) {
    struct job *j = heap_alloc(sizeof *j + e->user.n);
    char *bytes = (char *)(j + 1);
    memcpy(bytes, e->user.p, e->user.n);
    j->key = key;
    j->now_us = e->event_time_us;
    j->user = (struct slice){bytes, e->user.n};
    return j;
}

/* Under the lock. */
static void enqueue(struct rk_nearline *n, const struct ev_event *e) {
    uint64_t key = feat_user_key(e->tenant, e->user), found;
    if (map_get(&n->queued, key, &found)) {
        struct job *j = (struct job *)(uintptr_t)found;
        if (e->event_time_us > j->now_us)
            j->now_us = e->event_time_us;
        return;
    }
    if (n->queued.n >= (size_t)n->conf->nearline.queue_max) {
        metric_add(METRIC_NEARLINE_DROPPED, 1);
        return;
    }
    struct job *j = job_new(e, key);
    *n->end = j;
    n->end = &j->next;
    map_put(&n->queued, key, (uint64_t)(uintptr_t)j);
}

void rk_nearline_events(struct rk_nearline *n, const struct ev_event *events,
                        const enum feat_verdict *verdicts, int n_events) {
    if (!n->started)
        return;
    pthread_mutex_lock(&n->lock);
    for (int i = 0; i < n_events; i++)
        if (verdicts[i] == FEAT_APPLIED && events[i].user.n > 0 && events[i].tenant.n == 0)
            enqueue(n, &events[i]);
    pthread_cond_signal(&n->wake);
    pthread_mutex_unlock(&n->lock);
}

static struct job *dequeue(struct rk_nearline *n) {
    pthread_mutex_lock(&n->lock);
    while (!n->first && !n->closing)
        pthread_cond_wait(&n->wake, &n->lock);
    struct job *j = n->closing ? NULL : n->first;
    if (j) {
        n->first = j->next;
        if (!n->first)
            n->end = &n->first;
        map_remove(&n->queued, j->key);
    }
    pthread_mutex_unlock(&n->lock);
    return j;
}

/* ---- ranking a user's pool ----------------------------------------------------------------- */

static const struct pool *pool_of(struct rk_list_worker *w) {
    struct pool *p = &w->pool;
    const struct rk_nearline *n = w->nearline;
    int64_t start_us = clock_mono_us();
    if (p->n > 0 && start_us - p->made_us < POOL_SHARE * p->cost_us)
        return p;
    arena_reset(&p->arena);
    feat_state_read_begin(n->state);
    p->n = feat_state_items(n->state, &p->arena, no_tenant, (int)n->conf->nearline.pool_max,
                            &p->items);
    feat_state_read_end(n->state);
    p->keys = ARENA_ARRAY(&p->arena, uint64_t, p->n);
    for (int i = 0; i < p->n; i++)
        p->keys[i] = feat_item_key(no_tenant, p->items[i]);
    p->made_us = clock_mono_us();
    p->cost_us = p->made_us - start_us;
    return p;
}

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The pool without the items in the user's last_n features, unless nothing would be left. */
static int candidates_of(struct rk_list_worker *w, struct slice user, struct arena *a,
                         const struct slice **out) {
    const struct rk_nearline *n = w->nearline;
    const struct pool *p = pool_of(w);
    *out = p->items;
    if (!n->conf->nearline.exclude_seen)
        return p->n;
    const uint64_t *known = NULL;
    feat_state_read_begin(n->state);
    int n_seen = feat_state_user_items(n->state, a, no_tenant, user, &known);
    feat_state_read_end(n->state);
    uint64_t *seen = arena_alloc(a, (size_t)(n_seen + 1) * sizeof *seen);
    if (n_seen > 0)
        memcpy(seen, known, (size_t)n_seen * sizeof *seen);
    qsort(seen, (size_t)n_seen, sizeof *seen, by_value);
    struct slice *left = ARENA_ARRAY(a, struct slice, p->n);
    int n_left = 0;
    for (int i = 0; i < p->n; i++)
        if (!bsearch(&p->keys[i], seen, (size_t)n_seen, sizeof *seen, by_value))
            left[n_left++] = p->items[i];
    if (n_left == 0)
        return p->n;
    *out = left;
    return n_left;
}

/* Memory: the worker's arena, which is reset here. */
static enum status rank_list(struct rk_list_worker *w, const struct rk_bundle *b, struct slice user,
                             int top, int64_t now_us, struct rpc_recommend_response *out) {
    struct arena *a = &w->worker.arena;
    arena_reset(a);
    const struct slice *items;
    int n = candidates_of(w, user, a, &items);
    if (n == 0)
        return fail(STATUS_NOT_FOUND, "no items are known yet; send item events or interactions");
    const struct rpc_rank_request request = {
        .user = user, .items = items, .n_items = n, .now_us = now_us, .top_n = top};
    struct rpc_rank_response ranked;
    struct rk_seen seen;
    TRY(rk_rank(b, w->nearline->state, &w->worker, &request, &ranked, &seen));
    struct slice *best = ARENA_ARRAY(a, struct slice, ranked.n);
    for (int i = 0; i < ranked.n; i++)
        best[i] = items[ranked.order[i]];
    *out = (struct rpc_recommend_response){.items = best,
                                           .scores = ranked.scores,
                                           .n = ranked.n,
                                           .model_version = ranked.model_version,
                                           .origin = SLICE_LIT("list"),
                                           .user_epoch = ranked.user_epoch,
                                           .made_at_us = clock_wall_us()};
    return STATUS_OK;
}

/* ---- keeping and finding lists ------------------------------------------------------------- */

static struct slice key_of(const struct rk_nearline *n, struct arena *a, struct slice user) {
    return slice_of(arena_printf(a, "%slist:%.*s", n->conf->redis.prefix, SLICE_ARG(user)));
}

static void keep(struct rk_list_worker *w, struct slice user,
                 const struct rpc_recommend_response *list) {
    const struct rk_nearline *n = w->nearline;
    struct slice key = key_of(n, &w->worker.arena, user);
    buf_clear(&w->buf);
    rpc_encode_recommend_response(list, &w->buf);
    if (!w->redis)
        rk_lists_put(n->lists, key, buf_slice(&w->buf));
    else if (rk_redis_set(w->redis, key, buf_slice(&w->buf), n->conf->nearline.ttl_us) != STATUS_OK)
        metric_add(METRIC_CACHE_ERRORS, 1);
}

/* The kept list, if it was made of what the user's state is now, by the model that is published. */
static bool find(struct rk_list_worker *w, const struct rk_bundle *b, struct arena *a,
                 struct slice user, int wanted, struct rpc_recommend_response *out) {
    const struct rk_nearline *n = w->nearline;
    struct slice key = key_of(n, a, user), value;
    if (!n->started || wanted > n->conf->nearline.list_n)
        return false;
    bool found = w->redis ? rk_redis_get(w->redis, a, key, &value) == STATUS_OK
                          : rk_lists_get(n->lists, a, key, &value);
    if (!found || rpc_decode_recommend_response(a, value, out) != STATUS_OK)
        return false;
    feat_state_read_begin(n->state);
    uint64_t epoch = feat_state_user_epoch(n->state, no_tenant, user);
    feat_state_read_end(n->state);
    return out->user_epoch == epoch && slice_is(out->model_version, b->version);
}

static enum status recommend(struct rk_list_worker *w, const struct rk_bundle *b, struct arena *a,
                             const struct rpc_recommend_request *request, int64_t now_us,
                             struct rpc_recommend_response *out) {
    const struct rk_nearline_conf *c = &w->nearline->conf->nearline;
    int usual = c->list_n < USUAL_ITEMS ? (int)c->list_n : USUAL_ITEMS;
    int wanted = request->n > 0 ? request->n : usual;
    if (!find(w, b, a, request->user, wanted, out)) {
        int top = wanted > c->list_n ? wanted : (int)c->list_n;
        TRY(rank_list(w, b, request->user, top, now_us, out));
        if (w->nearline->started && request->user.n > 0)
            keep(w, request->user, out);
        out->origin = SLICE_LIT("ranked");
    }
    if (out->n > wanted)
        out->n = wanted;
    return STATUS_OK;
}

enum status rk_nearline_recommend(struct rk_list_worker *w, struct arena *a,
                                  const struct rpc_recommend_request *request, int64_t now_us,
                                  struct rpc_recommend_response *out) {
    struct rk_bundle *b = rk_model_acquire(w->nearline->slot);
    if (!b)
        return fail(STATUS_FAILED_PRECONDITION, "no model is loaded (serving.path)");
    enum status status = recommend(w, b, a, request, now_us, out);
    out->model_version =
        status == STATUS_OK ? arena_dup(a, out->model_version) : out->model_version;
    rk_bundle_release(b);
    return status;
}

/* ---- the thread ---------------------------------------------------------------------------- */

static void serve_job(struct rk_list_worker *w, const struct job *j) {
    struct rk_nearline *n = w->nearline;
    struct rk_bundle *b = rk_model_acquire(n->slot);
    if (!b)
        return;
    struct rpc_recommend_response list;
    enum status status = rank_list(w, b, j->user, (int)n->conf->nearline.list_n, j->now_us, &list);
    if (status == STATUS_OK) {
        keep(w, j->user, &list);
        metric_add(METRIC_NEARLINE_LISTS, 1);
    } else {
        log_warn("nearline", "%s", status_message());
    }
    rk_bundle_release(b);
}

static void *serve_jobs(void *arg) {
    struct rk_nearline *n = arg;
    struct rk_list_worker *w = rk_list_worker_new(n);
    for (struct job *j; (j = dequeue(n)) != NULL; heap_free(j))
        serve_job(w, j);
    rk_list_worker_free(w);
    return NULL;
}

struct rk_list_worker *rk_list_worker_new(struct rk_nearline *n) {
    struct rk_list_worker *w = HEAP_NEW(struct rk_list_worker);
    w->nearline = n;
    rk_worker_init(&w->worker);
    arena_init(&w->pool.arena, 0);
    if (rk_redis_wanted(&n->conf->redis))
        w->redis = rk_redis_new(&n->conf->redis);
    return w;
}

void rk_list_worker_free(struct rk_list_worker *w) {
    if (!w)
        return;
    rk_worker_deinit(&w->worker);
    arena_deinit(&w->pool.arena);
    rk_redis_free(w->redis);
    buf_deinit(&w->buf);
    heap_free(w);
}

struct rk_nearline *rk_nearline_start(const struct rk_config *c, struct feat_state *state,
                                      struct rk_model_slot *slot) {
    struct rk_nearline *n = HEAP_NEW(struct rk_nearline);
    n->conf = c;
    n->state = state;
    n->slot = slot;
    n->end = &n->first;
    if (!rk_redis_wanted(&c->redis))
        n->lists = rk_lists_new(MEMORY_LISTS_MAX);
    pthread_mutex_init(&n->lock, NULL);
    pthread_cond_init(&n->wake, NULL);
    n->started = c->nearline.enabled;
    if (n->started && pthread_create(&n->thread, NULL, serve_jobs, n) != 0) {
        log_error("nearline", "no thread to be had; lists are made when asked for");
        n->started = false;
    }
    return n;
}

void rk_nearline_stop(struct rk_nearline *n) {
    if (!n)
        return;
    pthread_mutex_lock(&n->lock);
    n->closing = true;
    pthread_cond_signal(&n->wake);
    pthread_mutex_unlock(&n->lock);
    if (n->started)
        pthread_join(n->thread, NULL);
    for (struct job *j = n->first, *next; j; j = next) {
        next = j->next;
        heap_free(j);
    }
    map_deinit(&n->queued);
    rk_lists_free(n->lists);
    pthread_mutex_destroy(&n->lock);
    pthread_cond_destroy(&n->wake);
    heap_free(n);
}
