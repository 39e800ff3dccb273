/* rpc_client.c: a blocking client on gRPC's C core: one channel, one completion queue, one call at
 * a time. Deliberately no streams, no retries and no load balancing. */
#include "ranker/rpc_client.h"
#include <assert.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <sched.h>
#include <stdio.h>
#include "base/clock.h"
#include "base/heap.h"

enum { METHOD_BYTES_MAX = 256, OPS = 6 };

struct rk_client {
    char *target;
    grpc_channel *channel;
    grpc_completion_queue *cq;
    int64_t spin_us;
};

void rk_client_spin(struct rk_client *c, int64_t most_us) { c->spin_us = most_us; }

enum status rk_client_open(const char *target, struct rk_client **out) {
    grpc_init();
    struct rk_client *c = HEAP_NEW(struct rk_client);
    c->target = heap_strdup(target);
    static const struct {
        const char *key;
        int value;
    } settings[] = {{GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, -1},
                    {GRPC_ARG_ENABLE_RETRIES, 0}, /* what is left out makes a call 2 us shorter */
                    {GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0},
                    {GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0}};
    enum { SETTINGS = sizeof settings / sizeof *settings };
    grpc_arg args[SETTINGS];
    for (int i = 0; i < SETTINGS; i++)
        args[i] = (grpc_arg){.type = GRPC_ARG_INTEGER,
                             .key = (char *)(uintptr_t)settings[i].key,
                             .value.integer = settings[i].value};
    grpc_channel_args channel_args = {SETTINGS, args};
    grpc_channel_credentials *plain = grpc_insecure_credentials_create();
    c->channel = grpc_channel_create(target, plain, &channel_args);
    grpc_channel_credentials_release(plain);
    c->cq = grpc_completion_queue_create_for_next(NULL);
    *out = c;
    return STATUS_OK;
}

void rk_client_close(struct rk_client *c) {
    if (!c)
        return;
    grpc_channel_destroy(c->channel);
    grpc_completion_queue_shutdown(c->cq);
    while (grpc_completion_queue_next(c->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
           GRPC_QUEUE_SHUTDOWN)
        ;
    grpc_completion_queue_destroy(c->cq);
    heap_free(c->target);
    heap_free(c);
    grpc_shutdown_blocking();
}

/* What one call owns. */
struct exchange {
    grpc_call *call;
    grpc_byte_buffer *request, *reply;
    grpc_metadata_array first, last;
    grpc_status_code code;
    grpc_slice details;
};

static void exchange_start(struct rk_client *c, struct exchange *x, const char *method,
                           struct slice request, gpr_timespec deadline, bool wait_for_ready) {
    grpc_slice path = grpc_slice_from_copied_string(method);
    x->call = grpc_channel_create_call(c->channel, NULL, GRPC_PROPAGATE_DEFAULTS, c->cq, path, NULL,
                                       deadline, NULL);
    grpc_slice_unref(path);
    grpc_slice bytes = grpc_slice_from_copied_buffer(request.n ? request.p : "", request.n);
    x->request = grpc_raw_byte_buffer_create(&bytes, 1);
    grpc_slice_unref(bytes);
    grpc_metadata_array_init(&x->first);
    grpc_metadata_array_init(&x->last);
    x->details = grpc_empty_slice();
    grpc_op ops[OPS];
    memset(ops, 0, sizeof ops);
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[0].flags = wait_for_ready ? GRPC_INITIAL_METADATA_WAIT_FOR_READY |
                                        GRPC_INITIAL_METADATA_WAIT_FOR_READY_EXPLICITLY_SET
                                  : 0;
    ops[1].op = GRPC_OP_SEND_MESSAGE;
    ops[1].data.send_message.send_message = x->request;
    ops[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    ops[3].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[3].data.recv_initial_metadata.recv_initial_metadata = &x->first;
    ops[4].op = GRPC_OP_RECV_MESSAGE;
    ops[4].data.recv_message.recv_message = &x->reply;
    ops[5].op = GRPC_OP_RECV_STATUS_ON_CLIENT;
    ops[5].data.recv_status_on_client.trailing_metadata = &x->last;
    ops[5].data.recv_status_on_client.status = &x->code;
    ops[5].data.recv_status_on_client.status_details = &x->details;
    grpc_call_error error = grpc_call_start_batch(x->call, ops, OPS, x, NULL);
    assert(error == GRPC_CALL_OK);
    (void)error;
}

static void exchange_deinit(struct exchange *x) {
    grpc_call_unref(x->call);
    grpc_byte_buffer_destroy(x->request);
    if (x->reply)
        grpc_byte_buffer_destroy(x->reply);
    grpc_metadata_array_destroy(&x->first);
    grpc_metadata_array_destroy(&x->last);
    grpc_slice_unref(x->details);
}

static enum status take_reply(const struct exchange *x, struct arena *a, struct slice *reply) {
    grpc_byte_buffer_reader reader;
    if (!x->reply || !grpc_byte_buffer_reader_init(&reader, x->reply))
        return fail(STATUS_INTERNAL, "an answer without a message");
    grpc_slice all = grpc_byte_buffer_reader_readall(&reader);
    *reply = arena_dup(
        a, (struct slice){(const char *)GRPC_SLICE_START_PTR(all), GRPC_SLICE_LENGTH(all)});
    grpc_slice_unref(all);
    grpc_byte_buffer_reader_destroy(&reader);
    return STATUS_OK;
}

static enum status exchange_end(const struct exchange *x, const struct rk_client *c,
                                struct arena *a, struct slice *reply) {
    if (x->code == GRPC_STATUS_OK)
        return take_reply(x, a, reply);
    bool known = x->code >= GRPC_STATUS_CANCELLED && x->code <= GRPC_STATUS_UNAUTHENTICATED;
    enum status status = known ? (enum status)x->code : STATUS_UNKNOWN;
    return fail(status, "%s: %.*s", c->target, (int)GRPC_SLICE_LENGTH(x->details),
                (const char *)GRPC_SLICE_START_PTR(x->details));
}

/* There is one call, so the next event is its answer. */
static void await_answer(struct rk_client *c) {
    grpc_event e = {.type = GRPC_QUEUE_TIMEOUT};
    const int64_t until_us = clock_mono_us() + c->spin_us;
    while (e.type == GRPC_QUEUE_TIMEOUT && clock_mono_us() < until_us) {
        e = grpc_completion_queue_next(c->cq, gpr_inf_past(GPR_CLOCK_MONOTONIC), NULL);
        if (e.type == GRPC_QUEUE_TIMEOUT)
            sched_yield();
    }
    if (e.type == GRPC_QUEUE_TIMEOUT)
        grpc_completion_queue_next(c->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
}

static enum status call(struct rk_client *c, struct arena *a, const char *method,
                        struct slice request, int timeout_ms, bool wait_for_ready,
                        struct slice *reply) {
    char path[METHOD_BYTES_MAX];
    int n =
        snprintf(path, sizeof path, "%s%s", *method == '/' ? "" : "/moerank.v1.Ranking/", method);
    if (n >= METHOD_BYTES_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "a method's name of %d bytes", n);
    gpr_timespec deadline =
        gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(timeout_ms, GPR_TIMESPAN));
    struct exchange x = {0};
    exchange_start(c, &x, path, request, deadline, wait_for_ready);
    await_answer(c);
    enum status status = exchange_end(&x, c, a, reply);
    exchange_deinit(&x);
    return status;
}

enum status rk_client_call(struct rk_client *c, struct arena *a, const char *method,
                           struct slice request, int timeout_ms, struct slice *reply) {
    return call(c, a, method, request, timeout_ms, false, reply);
}

enum status rk_client_wait_serving(struct rk_client *c, int timeout_ms) {
    static const char serving[] = {0x08, 0x01}; /* HealthCheckResponse{status: SERVING} */
    int64_t until_us = clock_mono_us() + (int64_t)timeout_ms * 1000;
    struct arena a;
    arena_init(&a, 0);
    enum status status;
    for (bool up = false;;) {
        struct slice reply;
        int64_t left_ms = (until_us - clock_mono_us()) / 1000;
        status = call(c, &a, "/grpc.health.v1.Health/Check", (struct slice){NULL, 0},
                      left_ms > 1 ? (int)left_ms : 1, true, &reply);
        if (status == STATUS_OK && slice_equal(reply, (struct slice){serving, sizeof serving}))
            break;
        up |= status == STATUS_OK;
        if (up && (status == STATUS_OK || status == STATUS_DEADLINE_EXCEEDED))
            status = fail(STATUS_UNAVAILABLE, "%s: up, but not serving yet", c->target);
        if (!up || clock_mono_us() > until_us)
            break;
        clock_sleep_ms(20);
    }
    arena_deinit(&a);
    return status;
}
