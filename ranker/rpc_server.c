/* rpc_server.c: gRPC's C core, the surface API in plain C.
 *
 * One thread serves the completion queue and never scores: it takes calls off it, answers health
 * and reflection, and puts the rest on a pool's bounded queue. Every method has calls requested
 * beforehand, requested again before a call is handled. The one last batch of a call (metadata,
 * message, status, close) may be started from any thread.
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
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/queue.h"
#include "proto/rpc.h"

enum { REQUESTED = 64, METHODS_MAX = 16, INLINE_REQUESTED = 8 };

/* What the completion queue's thread does itself. */
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
struct worker {
    struct rk_rpc_server *server;
    enum rk_rpc_pool pool;
    int index;
};
struct rk_rpc_server {
    struct rk_rpc_handler handler;
    int n_methods;
    void *registered[METHODS_MAX + INLINE_METHODS];
    grpc_server *server;
    grpc_completion_queue *cq;
    pthread_t cq_thread;
    struct pool pools[RK_POOLS];
    struct worker *workers;
    struct arena arena; /* the completion queue thread's */
    struct buf buf;
    atomic_bool serving, shut, stopping;
    atomic_int live; /* calls delivered and not yet freed */
    int port;
};

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
    finish(call, status, message, false);
}

/* ---- answered on the completion queue's thread --------------------------------------------- */

static void answer_health(struct rk_rpc_server *s, struct rk_rpc_call *c) {
    struct slice service = {NULL, 0};
    enum status status = rpc_decode_health_request(&s->arena, rk_rpc_request(c), &service);
    if (status == STATUS_OK && service.n > 0 && !slice_is(service, "moerank.v1.Ranking"))
        status = fail(STATUS_NOT_FOUND, "no service '%.*s' here", SLICE_ARG(service));
    buf_clear(&s->buf);
    if (status == STATUS_OK)
        rpc_encode_health_response(atomic_load(&s->serving), &s->buf);
    rk_rpc_reply(c, status, status_message(), buf_slice(&s->buf));
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

static void stream_answer(struct rk_rpc_server *s, struct rk_rpc_call *c) {
    if (!flatten(c->payload, &c->request)) { /* the caller is done */
        finish(c, STATUS_OK, "", true);
        return;
    }
    grpc_byte_buffer_destroy(c->payload);
    c->payload = NULL;
    buf_clear(&s->buf);
    enum status status = rpc_reflect(&s->arena, rk_rpc_request(c), &s->buf);
    if (status != STATUS_OK) {
        finish(c, status, status_message(), true);
        return;
    }
    if (c->reply)
        grpc_byte_buffer_destroy(c->reply);
    c->reply = bytes_of(buf_slice(&s->buf));
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

/* ---- the completion queue ------------------------------------------------------------------ */

static void dispatch(struct rk_rpc_server *s, struct rk_rpc_call *c) {
    c->arrived_us = clock_mono_us();
    if (c->method == s->n_methods + UNKNOWN) {
        rk_rpc_reply(c, STATUS_UNIMPLEMENTED, "no such method here", (struct slice){NULL, 0});
    } else if (c->method == s->n_methods + REFLECTION) {
        stream_read(c, true);
    } else if (!flatten(c->payload, &c->request)) {
        rk_rpc_reply(c, STATUS_INVALID_ARGUMENT, "no message", (struct slice){NULL, 0});
    } else if (c->method == s->n_methods + HEALTH_CHECK) {
        answer_health(s, c);
    } else {
        enum rk_rpc_pool pool = s->handler.methods[c->method].pool;
        atomic_fetch_add(&c->refs, 1); /* the worker's */
        if (queue_try_push(s->pools[pool].queue, c))
            return;
        rk_rpc_reply(c, STATUS_RESOURCE_EXHAUSTED,
                     "the queue is full; try later, or raise grpc.queue_max or grpc.workers",
                     (struct slice){NULL, 0});
        release(c);
    }
}

static void on_new_call(struct rk_rpc_server *s, struct rk_rpc_call *c, bool ok) {
    if (ok) {
        atomic_fetch_add(&s->live, 1);
        request_call(s, c->method); /* before this one is handled */
        dispatch(s, c);
    }
    release(c);
}

static void on_step(struct rk_rpc_server *s, struct rk_rpc_call *c, bool ok) {
    switch (atomic_load(&c->step)) {
    case STEP_NEW:
        on_new_call(s, c, ok);
        return;
    case STEP_STREAM_READ:
        stream_answer(s, c);
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

static void *serve_queue(void *arg) {
    struct rk_rpc_server *s = arg;
    for (;;) {
        grpc_event e = grpc_completion_queue_next(s->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        if (e.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
        if (e.type != GRPC_OP_COMPLETE)
            continue;
        if (e.tag == s)
            atomic_store(&s->shut, true);
        else
            on_step(s, e.tag, e.success != 0);
        arena_reset(&s->arena);
    }
}

static void *serve_pool(void *arg) {
    struct worker *w = arg;
    struct rk_rpc_server *s = w->server;
    if (s->handler.start)
        s->handler.start(s->handler.context, w->pool, w->index);
    struct rk_rpc_call *c;
    while ((c = queue_pop(s->pools[w->pool].queue, -1)) != NULL) {
        if (rk_rpc_left_us(c) <= 0)
            rk_rpc_reply(c, STATUS_DEADLINE_EXCEEDED,
                         "the deadline passed before a worker was free", (struct slice){NULL, 0});
        else
            s->handler.handle(s->handler.context, w->index, c);
        assert(c->replied);
        release(c);
    }
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
    int n = s->handler.workers[RK_POOL_RANK] + s->handler.workers[RK_POOL_SEND], k = 0;
    s->workers = HEAP_ARRAY(struct worker, n);
    for (int p = 0; p < RK_POOLS; p++) {
        struct pool *pool = &s->pools[p];
        pool->queue = queue_new((size_t)c->queue_max);
        pool->n_threads = s->handler.workers[p];
        pool->threads = HEAP_ARRAY(pthread_t, pool->n_threads);
        for (int i = 0; i < pool->n_threads; i++) {
            s->workers[k] = (struct worker){s, (enum rk_rpc_pool)p, i};
            int rc = pthread_create(&pool->threads[i], NULL, serve_pool, &s->workers[k++]);
            assert(rc == 0 && "no thread to be had");
            (void)rc;
        }
    }
    int rc = pthread_create(&s->cq_thread, NULL, serve_queue, s);
    assert(rc == 0 && "no thread to be had");
    (void)rc;
}

static void destroy(struct rk_rpc_server *s) {
    if (s->server)
        grpc_server_destroy(s->server);
    if (s->cq)
        grpc_completion_queue_destroy(s->cq);
    grpc_shutdown_blocking();
    arena_deinit(&s->arena);
    buf_deinit(&s->buf);
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
    arena_init(&s->arena, 0);
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
    for (int p = 0; p < RK_POOLS; p++) {
        struct pool *pool = &s->pools[p];
        queue_close(pool->queue);
        for (int i = 0; i < pool->n_threads; i++)
            pthread_join(pool->threads[i], NULL);
        queue_free(pool->queue);
        heap_free(pool->threads);
    }
    grpc_completion_queue_shutdown(s->cq);
    pthread_join(s->cq_thread, NULL);
    destroy(s);
}
