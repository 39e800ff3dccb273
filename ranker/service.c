/* service.c: what is started after what, and stopped in the reverse order.
 *
 * Threads: the ingester (the state's one writer), gRPC's queue and its two pools, near-line, and a
 * ticker for what happens each second. The state is shared by its own lock, the model by the slot.
 * Deliberately no signal handling: the verb does that. */
#include "ranker/service.h"
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/io.h"
#include "base/log.h"
#include "base/metric.h"
#include "ranker/admin.h"
#include "ranker/ingest.h"
#include "ranker/methods.h"

enum { SEND_WORKERS = 2, TICK_MS = 200, RETRY_MS = 1000 };

struct rk_service {
    struct rk_config *conf;
    struct feat_state *state;
    struct rk_model_slot slot;
    struct rk_producer *producer;
    struct rk_request_log *log;
    struct rk_nearline *nearline;
    struct rk_ingest *ingest;
    struct rk_methods *methods;
    struct rk_rpc_server *server;
    struct rk_admin *admin;
    pthread_t ingest_thread, ticker_thread;
    bool ingesting, ticking;
    atomic_bool stopping, ingest_stopping;
    atomic_bool ready;      /* caught up once */
    struct stat model_stat; /* of the published file; the ticker's */
};

/* ---- model --------------------------------------------------------------------------------- */

static bool same_file(const struct stat *a, const struct stat *b) {
    return a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

enum status rk_service_reload(struct rk_service *s) {
    struct rk_bundle *b = NULL;
    const char *path = s->conf->serving.path;
    if (!*path)
        return fail(STATUS_FAILED_PRECONDITION, "serving.path is empty: there is no model to load");
    TRY(rk_bundle_open(path, s->conf->plan, s->conf, &b));
    const struct moe_item_cache *cache = moe_scorer_cache(b->scorer);
    log_info("serve", "model %s of %s, scored by %s, keeping at most %llu items", b->version, path,
             moe_scorer_path(b->scorer),
             cache ? (unsigned long long)moe_item_cache_read(cache).rows : 0);
    rk_model_publish(&s->slot, b);
    return STATUS_OK;
}

/* A new file is tried once; one that does not fit is left until it changes again. */
static void watch_model(struct rk_service *s) {
    struct stat now;
    if (!s->conf->serving.watch || !*s->conf->serving.path ||
        stat(s->conf->serving.path, &now) != 0 || same_file(&now, &s->model_stat))
        return;
    s->model_stat = now;
    if (rk_service_reload(s) != STATUS_OK)
        log_error("serve", "the model stays as it was: %s", status_message());
}

/* ---- threads ------------------------------------------------------------------------------- */

static void on_applied(void *context, const struct ev_event *events, const enum feat_verdict *v,
                       int n) {
    struct rk_service *s = context;
    rk_nearline_events(s->nearline, events, v, n);
}

static bool is_ready(void *context) {
    struct rk_service *s = context;
    return atomic_load(&s->ready) && !atomic_load(&s->stopping);
}

static void set_ready(struct rk_service *s, bool ready) {
    if (atomic_exchange(&s->ready, ready) != ready)
        log_info("serve", ready ? "serving" : "not serving any more");
    rk_rpc_server_serving(s->server, ready);
}

/* Trouble that may pass is tried again; a state that belongs to another topic is not. */
static void *ingest(void *arg) {
    struct rk_service *s = arg;
    while (!atomic_load(&s->ingest_stopping)) {
        bool at_end = false;
        enum status status = rk_ingest_step(s->ingest, &at_end);
        if (status == STATUS_OK) {
            if (!atomic_load(&s->ready) && (at_end || rk_ingest_caught_up(s->ingest)))
                set_ready(s, true);
            continue;
        }
        log_error("ingest", "%s", status_message());
        if (status == STATUS_FAILED_PRECONDITION || status == STATUS_PERMISSION_DENIED) {
            set_ready(s, false);
            return NULL;
        }
        clock_sleep_ms(RETRY_MS);
    }
    return NULL;
}

static void tell_cache(struct rk_service *s) {
    struct rk_bundle *b = rk_model_acquire(&s->slot);
    if (!b)
        return;
    rk_bundle_tell(b);
    rk_bundle_release(b);
}

static void *tick(void *arg) {
    struct rk_service *s = arg;
    for (int i = 0; !atomic_load(&s->stopping); i++) {
        metric_set(METRIC_QUEUE_DEPTH, (int64_t)rk_rpc_server_depth(s->server));
        tell_cache(s);
        if (i % (1000 / TICK_MS) == 0)
            watch_model(s);
        clock_sleep_ms(TICK_MS);
    }
    return NULL;
}

/* ---- start --------------------------------------------------------------------------------- */

static enum status start_model(struct rk_service *s) {
    if (!*s->conf->serving.path) {
        log_warn("serve", "no model (serving.path): Rank and Recommend are refused");
        return STATUS_OK;
    }
    if (stat(s->conf->serving.path, &s->model_stat) != 0)
        return fail(STATUS_NOT_FOUND, "serving.path: %s: %s", s->conf->serving.path,
                    strerror(errno));
    return rk_service_reload(s);
}

static enum status start_kafka(struct rk_service *s) {
    const struct rk_ingest_hooks hooks = {.context = s, .applied = on_applied};
    if (!*s->conf->kafka.brokers) {
        log_warn("serve", "no Kafka (kafka.brokers): the state stays as it is");
        return STATUS_OK;
    }
    TRY(rk_producer_open(&s->conf->kafka, &s->producer));
    return rk_ingest_open(s->conf, s->state, &hooks, &s->ingest);
}

static bool is_loopback(const char *listen) {
    return strncmp(listen, "127.", 4) == 0 || strncmp(listen, "localhost:", 10) == 0 ||
           strncmp(listen, "[::1]:", 6) == 0 || strncmp(listen, "unix:", 5) == 0;
}

static enum status start_server(struct rk_service *s) {
    const struct rk_grpc_conf *c = &s->conf->grpc;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    const struct rk_methods_conf m = {
        .conf = s->conf,
        .state = s->state,
        .slot = &s->slot,
        .nearline = s->nearline,
        .producer = s->producer,
        .log = s->log,
        .workers = {(int)(c->workers > 0 ? c->workers : cores), SEND_WORKERS}};
    s->methods = rk_methods_new(&m);
    const struct rk_rpc_handler handler = rk_methods_handler(s->methods);
    if (!is_loopback(c->listen))
        log_warn("serve", "%s is not loopback, and there is no authentication here", c->listen);
    TRY(rk_rpc_server_start(c, &handler, &s->server));
    rk_rpc_server_serving(s->server, false);
    return STATUS_OK;
}

static enum status start_threads(struct rk_service *s) {
    s->ticking = pthread_create(&s->ticker_thread, NULL, tick, s) == 0;
    if (s->ingest)
        s->ingesting = pthread_create(&s->ingest_thread, NULL, ingest, s) == 0;
    else
        set_ready(s, true);
    if (!s->ticking || (s->ingest && !s->ingesting))
        return fail(STATUS_RESOURCE_EXHAUSTED, "no thread to be had");
    return STATUS_OK;
}

static enum status write_port(struct rk_service *s) {
    char text[16];
    int n = snprintf(text, sizeof text, "%d\n", rk_rpc_server_port(s->server));
    if (!*s->conf->grpc.port_file)
        return STATUS_OK;
    return io_write_file(s->conf->grpc.port_file, (struct slice){text, (size_t)n});
}

static enum status start(struct rk_service *s) {
    TRY(rk_state_open(s->conf, &s->state));
    TRY(start_model(s));
    TRY(rk_request_log_start(s->conf, &s->log));
    s->nearline = rk_nearline_start(s->conf, s->state, &s->slot);
    TRY(start_kafka(s));
    TRY(start_server(s));
    TRY(start_threads(s));
    if (*s->conf->admin.listen)
        TRY(rk_admin_start(s->conf->admin.listen, is_ready, s, &s->admin));
    return write_port(s);
}

enum status rk_service_start(struct rk_config *c, struct rk_service **out) {
    struct rk_service *s = HEAP_NEW(struct rk_service);
    s->conf = c;
    enum status status = start(s);
    if (status != STATUS_OK) {
        char message[1024];
        snprintf(message, sizeof message, "%s", status_message());
        rk_service_stop(s, 0);
        return fail(status, "%s", message);
    }
    *out = s;
    return STATUS_OK;
}

int rk_service_port(const struct rk_service *s) { return rk_rpc_server_port(s->server); }

/* The ingester runs until the last call is answered: some may wait for an event to be applied. */
void rk_service_stop(struct rk_service *s, int grace_ms) {
    rk_admin_stop(s->admin);
    atomic_store(&s->stopping, true);
    if (s->ticking)
        pthread_join(s->ticker_thread, NULL);
    if (s->server)
        rk_rpc_server_stop(s->server, grace_ms);
    atomic_store(&s->ingest_stopping, true);
    if (s->state)
        feat_state_interrupt(s->state);
    if (s->ingesting)
        pthread_join(s->ingest_thread, NULL);
    rk_ingest_close(s->ingest);
    rk_methods_free(s->methods);
    rk_nearline_stop(s->nearline);
    rk_producer_close(s->producer);
    rk_request_log_close(s->log);
    rk_model_slot_deinit(&s->slot);
    feat_state_free(s->state);
    heap_free(s);
}
