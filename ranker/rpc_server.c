/* rpc_server.c: gRPC's C core, the surface API in plain C.
 *
 * One thread at a time leads: it takes calls off the completion queue. It ranks a short list itself
 * and then looks for the next, since waking another costs more than the list does. Before what may
 * take long, or when calls came while it was ranking, it steps aside and wakes a thread that leads
 * from then on. There is one thread more than may rank at a time, so that one is always left to
 * lead; calls that find every place taken wait in a bounded queue, which whoever has a place
 * empties before giving it back. Health and reflection are answered at once.
 *
 * Every method has calls requested beforehand, requested again before a call is handled. The one
 * last batch of a call (metadata, message, status, close) may be started from any thread; its
 * completion is taken back on the spot (gRPC's thread-local cache), which spares waking the leader.
 *
 * The traps, each met here: a batch on a completion queue already shut down aborts, so calls are
 * counted and the queue is shut down at zero only; expired calls are delivered all the same, so the
 * deadline is compared before scoring; the message and the `cancelled` flag must live until the
 * batch completes, so a call is counted by its thread and by its batch.
 *
 * Upstream calls this API private: all of it stands in this file and in rpc_client.c. Deliberately
 * no TLS and no authentication: put a proxy in front (docs/operations.md). */
#include "ranker/rpc_server.h"
#include <assert.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/queue.h"
#include "proto/rpc.h"
#include "ranker/spin.h"
#include "ranker/turns.h"

enum { REQUESTED = 64, METHODS_MAX = 16, INLINE_REQUESTED = 8 };

/* Answered without a place. */
enum inline_method { HEALTH_CHECK, REFLECTION, UNKNOWN, INLINE_METHODS };
static const char *const inline_paths[] = {
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"};

enum step { STEP_NEW, STEP_STREAM_READ, STEP_STREAM_WROTE, STEP_DONE };

struct rk_rpc_call {
    struct rk_rpc_server *server;
    int method; /* the handler's, or n_methods + enum inline_method */
    _Atomic(enum step) step;
    atomic_int refs;
    grpc_call *call;
    gpr_timespec deadline;
    int64_t arrived_us;
    grpc_metadata_array metadata;
    grpc_call_details details; /* of unknown methods */
    grpc_byte_buffer *payload, *reply;
    grpc_slice request, message;
    int cancelled;
    bool replied;
};

struct pool {
    struct queue *queue;
    pthread_t *threads;
    int n_threads;
};
/* A thread: of the completion queue, or of the other pool. */
struct worker {
    struct rk_rpc_server *server;
    enum rk_rpc_pool pool;
    int index;
    bool leading, ranking; /* ranking: it has a place */
    bool busy;             /* calls came while it was ranking */
    struct rk_spin spin;
    struct arena arena; /* for health and reflection */
    struct buf buf;
};
struct rk_rpc_server {
    struct rk_rpc_handler handler;
    int n_methods;
    void *registered[METHODS_MAX + INLINE_METHODS];
    grpc_server *server;
    grpc_completion_queue *cq;
    struct pool pools[RK_POOLS];
    struct worker *workers;
    struct rk_turns turns;
    atomic_bool serving, shut, stopping;
    atomic_int live; /* calls delivered and not yet freed */
    int port;
};

static _Thread_local struct worker *self; /* of a thread of the completion queue */

static void on_event(struct worker *w, void *tag, bool ok);
static void look_around(struct worker *w);

/* ---- calls --------------------------------------------------------------------------------- */

static void request_call(struct rk_rpc_server *s, int method) {
    if (atomic_load(&s->stopping))
        return;
    struct rk_rpc_call *c = HEAP_NEW(struct rk_rpc_call);
    c->server = s;
    c->method = method;
    atomic_store(&c->step, STEP_NEW);
    atomic_store(&c->refs, 1);
    c->request = grpc_empty_slice();
    c->message = grpc_empty_slice();
    grpc_metadata_array_init(&c->metadata);
    grpc_call_details_init(&c->details);
    if (method == s->n_methods + UNKNOWN)
        grpc_server_request_call(s->server, &c->call, &c->details, &c->metadata, s->cq, s->cq, c);
    else
        grpc_server_request_registered_call(
            s->server, s->registered[method], &c->call, &c->deadline, &c->metadata,
            method == s->n_methods + REFLECTION ? NULL : &c->payload, s->cq, s->cq, c);
}

/* Frees at the last reference. Only a call that was delivered counts as live. */
static void release(struct rk_rpc_call *c) {
    if (atomic_fetch_sub(&c->refs, 1) > 1)
        return;
    struct rk_rpc_server *s = c->server;
    bool delivered = c->call != NULL;
    if (c->payload)
        grpc_byte_buffer_destroy(c->payload);
    if (c->reply)
        grpc_byte_buffer_destroy(c->reply);
    grpc_slice_unref(c->request);
    grpc_slice_unref(c->message);
    grpc_metadata_array_destroy(&c->metadata);
    grpc_call_details_destroy(&c->details);
    if (delivered)
        grpc_call_unref(c->call);
    heap_free(c);
    if (delivered)
        atomic_fetch_sub(&s->live, 1);
}

static grpc_byte_buffer *bytes_of(struct slice s) {
    grpc_slice copy = grpc_slice_from_copied_buffer(s.n ? s.p : "", s.n);
    grpc_byte_buffer *b = grpc_raw_byte_buffer_create(&copy, 1);
    grpc_slice_unref(copy);
    return b;
}

/* The whole payload as one run of bytes. */
static bool flatten(grpc_byte_buffer *from, grpc_slice *out) {
    grpc_byte_buffer_reader reader;
    if (!from || !grpc_byte_buffer_reader_init(&reader, from))
        return false;
    grpc_slice_unref(*out);
    *out = grpc_byte_buffer_reader_readall(&reader);
    grpc_byte_buffer_reader_destroy(&reader);
    return true;
}

static struct slice slice_bytes(const grpc_slice *s) {
    return (struct slice){(const char *)GRPC_SLICE_START_PTR(*s), GRPC_SLICE_LENGTH(*s)};
}

/* The last batch. `metadata_sent`: a stream's was sent before. Never fails but by misuse. */
static void finish(struct rk_rpc_call *c, enum status status, const char *message,
                   bool metadata_sent) {
    grpc_op ops[4];
    memset(ops, 0, sizeof ops);
    size_t n = 0;
    if (!metadata_sent)
        ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
    if (c->reply && status == STATUS_OK) {
        ops[n].op = GRPC_OP_SEND_MESSAGE;
        ops[n++].data.send_message.send_message = c->reply;
    }
    if (status != STATUS_OK)
        c->message = grpc_slice_from_copied_string(message);
    ops[n].op = GRPC_OP_SEND_STATUS_FROM_SERVER;
    ops[n].data.send_status_from_server.status = (grpc_status_code)status;
    ops[n++].data.send_status_from_server.status_details = status == STATUS_OK ? NULL : &c->message;
    ops[n].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
    ops[n++].data.recv_close_on_server.cancelled = &c->cancelled;
    atomic_store(&c->step, STEP_DONE);
    atomic_fetch_add(&c->refs, 1); /* the batch's */
    grpc_call_error error = grpc_call_start_batch(c->call, ops, n, c, NULL);
    assert(error == GRPC_CALL_OK);
    (void)error;
}

int rk_rpc_method_index(const struct rk_rpc_call *call) { return call->method; }
struct slice rk_rpc_request(const struct rk_rpc_call *call) {
    return slice_bytes(&call->request);
}
int64_t rk_rpc_arrived_us(const struct rk_rpc_call *call) { return call->arrived_us; }

int64_t rk_rpc_left_us(const struct rk_rpc_call *call) {
    if (gpr_time_cmp(call->deadline, gpr_inf_future(call->deadline.clock_type)) == 0)
        return INT64_MAX;
    gpr_timespec left = gpr_time_sub(call->deadline, gpr_now(call->deadline.clock_type));
    return left.tv_sec * INT64_C(1000000) + left.tv_nsec / 1000;
}

void rk_rpc_reply(struct rk_rpc_call *call, enum status status, const char *message,
                  struct slice reply) {
    assert(!call->replied && "one answer a call");
    call->replied = true;
    if (status == STATUS_OK)
        call->reply = bytes_of(reply);
    if (!self) {
        finish(call, status, message, false);
        return;
    }
    if (self->leading && self->ranking)
        look_around(self);
    void *tag;
    int ok;
    grpc_completion_queue_thread_local_cache_init(call->server->cq);
    finish(call, status, message, false);
    if (grpc_completion_queue_thread_local_cache_flush(call->server->cq, &tag, &ok))
        on_event(self, tag, ok != 0);
}

/* ---- answered without a place --------------------------------------------------------------- */

static void answer_health(struct worker *w, struct rk_rpc_call *c) {
    const struct rk_rpc_server *s = w->server;
    struct slice service = {NULL, 0};
    enum status status = rpc_decode_health_request(&w->arena, rk_rpc_request(c), &service);
    if (status == STATUS_OK && service.n > 0 && !slice_is(service, "moerank.v1.Ranking"))
        status = fail(STATUS_NOT_FOUND, "no service '%.*s' here", SLICE_ARG(service));
    buf_clear(&w->buf);
    if (status == STATUS_OK)
        rpc_encode_health_response(atomic_load(&s->serving), &w->buf);
    rk_rpc_reply(c, status, status_message(), buf_slice(&w->buf));
}

/* Reads the next message of a stream; the first time, sends the metadata as well. */
static void stream_read(struct rk_rpc_call *c, bool first) {
    grpc_op ops[2];
    memset(ops, 0, sizeof ops);
    size_t n = 0;
    if (first)
        ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[n].op = GRPC_OP_RECV_MESSAGE;
    ops[n++].data.recv_message.recv_message = &c->payload;
    atomic_store(&c->step, STEP_STREAM_READ);
    atomic_fetch_add(&c->refs, 1);
    grpc_call_error error = grpc_call_start_batch(c->call, ops, n, c, NULL);
    assert(error == GRPC_CALL_OK);
    (void)error;
}

static void stream_answer(struct worker *w, struct rk_rpc_call *c) {
    if (!flatten(c->payload, &c->request)) { /* the caller is done */
        finish(c, STATUS_OK, "", true);
        return;
    }
    grpc_byte_buffer_destroy(c->payload);
    c->payload = NULL;
    buf_clear(&w->buf);
    enum status status = rpc_reflect(&w->arena, rk_rpc_request(c), &w->buf);
    if (status != STATUS_OK) {
        finish(c, status, status_message(), true);
        return;
    }
    if (c->reply)
        grpc_byte_buffer_destroy(c->reply);
    c->reply = bytes_of(buf_slice(&w->buf));
    grpc_op op;
    memset(&op, 0, sizeof op);
    op.op = GRPC_OP_SEND_MESSAGE;
    op.data.send_message.send_message = c->reply;
    atomic_store(&c->step, STEP_STREAM_WROTE);
    atomic_fetch_add(&c->refs, 1);
    grpc_call_error error = grpc_call_start_batch(c->call, &op, 1, c, NULL);
    assert(error == GRPC_CALL_OK);
    (void)error;
}

/* ---- ranking ------------------------------------------------------------------------------- */

static void step_aside(struct worker *w) {
    if (w->leading)
        rk_turns_step_aside(&w->server->turns);
    w->leading = false;
}

void rk_rpc_may_take_long(const struct rk_rpc_call *call) {
    (void)call;
    if (self)
        step_aside(self);
}

static void answer(struct rk_rpc_server *s, int place, struct rk_rpc_call *c) {
    if (rk_rpc_left_us(c) <= 0)
        rk_rpc_reply(c, STATUS_DEADLINE_EXCEEDED, "the deadline passed before a worker was free",
                     (struct slice){NULL, 0});
    else
        s->handler.handle(s->handler.context, place, c);
    assert(c->replied);
    release(c);
}

/* Who found no place has put its call into the queue before, so that whoever gives one back sees
 * the call here. */
static void rank_waiting(struct worker *w) {
    struct rk_rpc_server *s = w->server;
    struct queue *q = s->pools[RK_POOL_RANK].queue;
    int place;
    while (!w->ranking && queue_depth(q) > 0 && (place = rk_turns_take_place(&s->turns)) >= 0) {
        struct rk_rpc_call *c;
        w->ranking = true;
        while ((c = queue_pop(q, 0)) != NULL) {
            if (w->busy || queue_depth(q) > 0)
                step_aside(w);
            answer(s, place, c);
        }
        w->ranking = false;
        rk_turns_give_place(&s->turns, place);
    }
}

/* ---- the completion queue ------------------------------------------------------------------ */

static void dispatch(struct worker *w, struct rk_rpc_call *c) {
    struct rk_rpc_server *s = w->server;
    c->arrived_us = clock_mono_us();
    if (c->method == s->n_methods + UNKNOWN) {
        rk_rpc_reply(c, STATUS_UNIMPLEMENTED, "no such method here", (struct slice){NULL, 0});
    } else if (c->method == s->n_methods + REFLECTION) {
        stream_read(c, true);
    } else if (!flatten(c->payload, &c->request)) {
        rk_rpc_reply(c, STATUS_INVALID_ARGUMENT, "no message", (struct slice){NULL, 0});
    } else if (c->method == s->n_methods + HEALTH_CHECK) {
        answer_health(w, c);
    } else {
        enum rk_rpc_pool pool = s->handler.methods[c->method].pool;
        atomic_fetch_add(&c->refs, 1); /* the worker's */
        if (queue_try_push(s->pools[pool].queue, c)) {
            rank_waiting(w);
            return;
        }
        rk_rpc_reply(c, STATUS_RESOURCE_EXHAUSTED,
                     "the queue is full; try later, or raise grpc.queue_max or grpc.workers",
                     (struct slice){NULL, 0});
        release(c);
    }
}

static void on_new_call(struct worker *w, struct rk_rpc_call *c, bool ok) {
    if (ok) {
        atomic_fetch_add(&w->server->live, 1);
        request_call(w->server, c->method); /* before this one is handled */
        dispatch(w, c);
    }
    release(c);
}

/* Before an answer goes out, since the call after it may come at once from who got it: what is here
 * now came from others. */
static void look_around(struct worker *w) {
    const grpc_event e =
        grpc_completion_queue_next(w->server->cq, gpr_inf_past(GPR_CLOCK_MONOTONIC), NULL);
    if (e.type == GRPC_OP_COMPLETE)
        on_event(w, e.tag, e.success != 0);
    w->busy = queue_depth(w->server->pools[RK_POOL_RANK].queue) > 0;
}

/* Also from within an answer: then a new call waits in the queue until that is done. */
static void on_event(struct worker *w, void *tag, bool ok) {
    if (tag == w->server) {
        atomic_store(&w->server->shut, true);
        return;
    }
    struct rk_rpc_call *c = tag;
    switch (atomic_load(&c->step)) {
    case STEP_NEW:
        on_new_call(w, c, ok);
        return;
    case STEP_STREAM_READ:
        stream_answer(w, c);
        break;
    case STEP_STREAM_WROTE:
        if (ok)
            stream_read(c, false);
        else
            finish(c, STATUS_CANCELLED, "", true);
        break;
    case STEP_DONE:
        break;
    }
    release(c); /* the batch's */
}

static void start_thread(struct worker *w) {
    const struct rk_rpc_handler *h = &w->server->handler;
    if (h->start)
        h->start(h->context, w->pool, w->index);
}

/* Looked for is a caller's next call: while others are being ranked, theirs are answered later, and
 * the CPU has something better to do. */
static grpc_event next_event(struct worker *w) {
    grpc_completion_queue *cq = w->server->cq;
    const gpr_timespec now = gpr_inf_past(GPR_CLOCK_MONOTONIC);
    grpc_event e = grpc_completion_queue_next(cq, now, NULL);
    if (e.type != GRPC_QUEUE_TIMEOUT)
        return e;
    bool look = rk_spin_begin(&w->spin, clock_mono_us(), atomic_load(&w->server->live) == 0);
    while (look && e.type == GRPC_QUEUE_TIMEOUT) {
        sched_yield();
        e = grpc_completion_queue_next(cq, now, NULL);
        look = e.type == GRPC_QUEUE_TIMEOUT && rk_spin_again(&w->spin, clock_mono_us());
    }
    if (e.type == GRPC_QUEUE_TIMEOUT)
        e = grpc_completion_queue_next(cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    rk_spin_end(&w->spin, clock_mono_us());
    return e;
}

static void *serve_queue(void *arg) {
    struct worker *w = self = arg;
    start_thread(w);
    arena_init(&w->arena, 0);
    while (w->leading || rk_turns_lead(&w->server->turns)) {
        w->leading = true;
        const grpc_event e = next_event(w);
        if (e.type == GRPC_QUEUE_SHUTDOWN)
            break;
        if (e.type == GRPC_OP_COMPLETE)
            on_event(w, e.tag, e.success != 0);
        arena_reset(&w->arena);
    }
    rk_turns_end(&w->server->turns);
    arena_deinit(&w->arena);
    buf_deinit(&w->buf);
    return NULL;
}

static void *serve_pool(void *arg) {
    struct worker *w = arg;
    struct rk_rpc_call *c;
    start_thread(w);
    while ((c = queue_pop(w->server->pools[w->pool].queue, -1)) != NULL)
        answer(w->server, w->index, c);
    return NULL;
}

/* ---- start and stop ------------------------------------------------------------------------ */

static enum status register_methods(struct rk_rpc_server *s) {
    while (s->handler.methods[s->n_methods].path)
        s->n_methods++;
    assert(s->n_methods <= METHODS_MAX);
    for (int i = 0; i < s->n_methods + UNKNOWN; i++) {
        bool stream = i == s->n_methods + REFLECTION;
        const char *path =
            i < s->n_methods ? s->handler.methods[i].path : inline_paths[i - s->n_methods];
        s->registered[i] = grpc_server_register_method(
            s->server, path, NULL,
            stream ? GRPC_SRM_PAYLOAD_NONE : GRPC_SRM_PAYLOAD_READ_INITIAL_BYTE_BUFFER, 0);
        if (!s->registered[i])
            return fail(STATUS_INTERNAL, "gRPC: %s cannot be registered", path);
    }
    return STATUS_OK;
}

static enum status listen_on(struct rk_rpc_server *s, const char *address) {
    grpc_server_credentials *plain = grpc_insecure_server_credentials_create();
    s->port = grpc_server_add_http2_port(s->server, address, plain);
    grpc_server_credentials_release(plain);
    if (s->port == 0)
        return fail(STATUS_UNAVAILABLE,
                    "cannot listen on %s: in use, or no such address (grpc.listen)", address);
    if (strncmp(address, "unix:", 5) == 0)
        s->port = 0;
    return STATUS_OK;
}

static enum status create(struct rk_rpc_server *s, const struct rk_grpc_conf *c) {
    grpc_arg args[] = {{.type = GRPC_ARG_INTEGER,
                        .key = (char *)(uintptr_t)GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH,
                        .value.integer = (int)c->message_bytes_max},
                       {.type = GRPC_ARG_INTEGER,
                        .key = (char *)(uintptr_t)GRPC_ARG_ALLOW_REUSEPORT,
                        .value.integer = 0}};
    grpc_channel_args channel_args = {sizeof args / sizeof args[0], args};
    s->cq = grpc_completion_queue_create_for_next(NULL);
    s->server = grpc_server_create(&channel_args, NULL);
    grpc_server_register_completion_queue(s->server, s->cq, NULL);
    TRY(register_methods(s));
    return listen_on(s, c->listen);
}

static void start_threads(struct rk_rpc_server *s, const struct rk_grpc_conf *c) {
    int n = 0, ranking = s->handler.workers[RK_POOL_RANK];
    s->workers = HEAP_ARRAY(struct worker, ranking + 1 + s->handler.workers[RK_POOL_SEND]);
    rk_turns_init(&s->turns, ranking);
    for (int p = 0; p < RK_POOLS; p++)
        s->pools[p].queue = queue_new((size_t)c->queue_max);
    for (int p = 0; p < RK_POOLS; p++) {
        struct pool *pool = &s->pools[p];
        pool->n_threads = s->handler.workers[p] + (p == RK_POOL_RANK); /* one more takes calls */
        pool->threads = HEAP_ARRAY(pthread_t, pool->n_threads);
        for (int i = 0; i < pool->n_threads; i++, n++) {
            s->workers[n] = (struct worker){.server = s, .pool = (enum rk_rpc_pool)p, .index = i};
            rk_spin_init(&s->workers[n].spin, c->spin_us);
            int rc = pthread_create(&pool->threads[i], NULL,
                                    p == RK_POOL_RANK ? serve_queue : serve_pool, &s->workers[n]);
            assert(rc == 0 && "no thread to be had");
            (void)rc;
        }
    }
}

static void destroy(struct rk_rpc_server *s) {
    if (s->server)
        grpc_server_destroy(s->server);
    if (s->cq)
        grpc_completion_queue_destroy(s->cq);
    grpc_shutdown_blocking();
    heap_free(s->workers);
    heap_free(s);
}

/* A server that never started must be shut down all the same before it is destroyed. */
static void destroy_unstarted(struct rk_rpc_server *s) {
    grpc_server_start(s->server);
    grpc_server_shutdown_and_notify(s->server, s->cq, s);
    grpc_completion_queue_next(s->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    grpc_completion_queue_shutdown(s->cq);
    while (grpc_completion_queue_next(s->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
           GRPC_QUEUE_SHUTDOWN)
        ;
    destroy(s);
}

enum status rk_rpc_server_start(const struct rk_grpc_conf *c, const struct rk_rpc_handler *h,
                                struct rk_rpc_server **out) {
    grpc_init();
    struct rk_rpc_server *s = HEAP_NEW(struct rk_rpc_server);
    s->handler = *h;
    atomic_store(&s->serving, true);
    enum status status = create(s, c);
    if (status != STATUS_OK) {
        destroy_unstarted(s);
        return status;
    }
    grpc_server_start(s->server);
    for (int m = 0; m <= s->n_methods + UNKNOWN; m++)
        for (int i = 0; i < (m < s->n_methods ? REQUESTED : INLINE_REQUESTED); i++)
            request_call(s, m);
    start_threads(s, c);
    *out = s;
    return STATUS_OK;
}

int rk_rpc_server_port(const struct rk_rpc_server *s) { return s->port; }
void rk_rpc_server_serving(struct rk_rpc_server *s, bool serving) {
    atomic_store(&s->serving, serving);
}
size_t rk_rpc_server_depth(struct rk_rpc_server *s) {
    return queue_depth(s->pools[RK_POOL_RANK].queue);
}

static bool wait_idle(struct rk_rpc_server *s, int64_t until_us) {
    while (atomic_load(&s->live) > 0 || !atomic_load(&s->shut)) {
        if (clock_mono_us() > until_us)
            return false;
        clock_sleep_ms(2);
    }
    return true;
}

void rk_rpc_server_stop(struct rk_rpc_server *s, int grace_ms) {
    atomic_store(&s->serving, false);
    atomic_store(&s->stopping, true);
    grpc_server_shutdown_and_notify(s->server, s->cq, s);
    if (!wait_idle(s, clock_mono_us() + (int64_t)grace_ms * 1000)) {
        grpc_server_cancel_all_calls(s->server);
        wait_idle(s, INT64_MAX); /* handlers end by themselves: their waits are bounded */
    }
    grpc_completion_queue_shutdown(s->cq);
    for (int p = 0; p < RK_POOLS; p++) {
        struct pool *pool = &s->pools[p];
        queue_close(pool->queue);
        for (int i = 0; i < pool->n_threads; i++)
            pthread_join(pool->threads[i], NULL);
        queue_free(pool->queue);
        heap_free(pool->threads);
    }
    rk_turns_deinit(&s->turns);
    destroy(s);
}
