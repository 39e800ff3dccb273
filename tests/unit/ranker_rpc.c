/* ranker_rpc: our server and our client over loopback, with a handler made here: what is answered
 * beside the pool, what is refused when, and how a drain ends. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/clock.h"
#include "base/heap.h"
#include "proto/rpc.h"
#include "ranker/rpc_client.h"
#include "ranker/rpc_server.h"
#include "tests/support/suite.h"

enum { ECHO, BLOCK, SEND, REFUSE };
static const struct rk_rpc_method methods[] = {{"/t.T/Echo", RK_POOL_RANK},
                                               {"/t.T/Block", RK_POOL_RANK},
                                               {"/t.T/Send", RK_POOL_SEND},
                                               {"/t.T/Refuse", RK_POOL_RANK},
                                               {NULL, RK_POOL_RANK}};

struct lab {
    struct rk_rpc_server *server;
    char target[32];
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool gate_open;
    atomic_int inside, started;
};

static void handle(void *context, int worker, struct rk_rpc_call *call) {
    struct lab *l = context;
    (void)worker;
    int method = rk_rpc_method_index(call);
    if (method == BLOCK) {
        rk_rpc_may_take_long(call);
        atomic_fetch_add(&l->inside, 1);
        pthread_mutex_lock(&l->lock);
        while (!l->gate_open)
            pthread_cond_wait(&l->changed, &l->lock);
        pthread_mutex_unlock(&l->lock);
        atomic_fetch_sub(&l->inside, 1);
    }
    if (method == REFUSE)
        rk_rpc_reply(call, STATUS_FAILED_PRECONDITION, "not today", (struct slice){NULL, 0});
    else
        rk_rpc_reply(call, STATUS_OK, "", rk_rpc_request(call));
}

static void on_start(void *context, enum rk_rpc_pool pool, int worker) {
    struct lab *l = context;
    (void)pool, (void)worker;
    atomic_fetch_add(&l->started, 1);
}

static struct rk_grpc_conf conf(const char *listen) {
    return (struct rk_grpc_conf){.listen = listen, .queue_max = 2, .message_bytes_max = 4096};
}

static bool lab_init(struct lab *l) {
    *l = (struct lab){0};
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, NULL);
    const struct rk_rpc_handler h = {l, methods, {1, 1}, on_start, handle};
    struct rk_grpc_conf c = conf("127.0.0.1:0");
    if (!CHECK_OK(rk_rpc_server_start(&c, &h, &l->server)))
        return false;
    snprintf(l->target, sizeof l->target, "127.0.0.1:%d", rk_rpc_server_port(l->server));
    return true;
}

static void open_gate(struct lab *l) {
    pthread_mutex_lock(&l->lock);
    l->gate_open = true;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
}

static void lab_deinit(struct lab *l, int grace_ms) {
    rk_rpc_server_stop(l->server, grace_ms);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->changed);
}

static void wait_for(const atomic_int *value, int wanted) {
    while (atomic_load(value) != wanted)
        clock_sleep_ms(1);
}

/* One call in a thread of its own. */
struct caller {
    pthread_t thread;
    const char *target, *method;
    int timeout_ms;
    enum status status;
    char message[256];
};

static void *make_call(void *arg) {
    struct caller *c = arg;
    struct rk_client *client = NULL;
    struct arena a;
    struct slice reply;
    arena_init(&a, 0);
    rk_client_open(c->target, &client);
    c->status = rk_client_call(client, &a, c->method, SLICE_LIT("hello"), c->timeout_ms, &reply);
    snprintf(c->message, sizeof c->message, "%s", c->status ? status_message() : "");
    rk_client_close(client);
    arena_deinit(&a);
    return NULL;
}

static void call_start(struct caller *c, const struct lab *l, const char *method, int timeout_ms) {
    *c = (struct caller){.target = l->target, .method = method, .timeout_ms = timeout_ms};
    pthread_create(&c->thread, NULL, make_call, c);
}

static enum status call_end(struct caller *c) {
    pthread_join(c->thread, NULL);
    return c->status;
}

static enum status call_once(const struct lab *l, const char *method, int timeout_ms) {
    struct caller c;
    call_start(&c, l, method, timeout_ms);
    enum status status = call_end(&c);
    return status ? fail(status, "%s", c.message) : status;
}

static void test_answers_and_errors_come_through(void) {
    struct lab l;
    struct arena a;
    struct rk_client *client = NULL;
    struct slice reply = {0}, large;
    arena_init(&a, 0);
    if (!lab_init(&l))
        return;
    CHECK_OK(rk_client_open(l.target, &client));
    CHECK_OK(rk_client_wait_serving(client, 10000));
    CHECK_OK(rk_client_call(client, &a, "/t.T/Echo", SLICE_LIT("a\0b"), 5000, &reply));
    CU_ASSERT(slice_equal(reply, SLICE_LIT("a\0b")));
    CHECK_OK(rk_client_call(client, &a, "/t.T/Echo", (struct slice){NULL, 0}, 5000, &reply));
    CU_ASSERT_EQUAL(reply.n, 0);
    CHECK_OK(rk_client_call(client, &a, "/t.T/Send", SLICE_LIT("x"), 5000, &reply));
    CHECK_FAILS(rk_client_call(client, &a, "/t.T/Refuse", SLICE_LIT("x"), 5000, &reply),
                STATUS_FAILED_PRECONDITION, "not today");
    CHECK_FAILS(rk_client_call(client, &a, "/t.T/Nope", SLICE_LIT("x"), 5000, &reply),
                STATUS_UNIMPLEMENTED, "no such method");
    CHECK_FAILS(
        rk_client_call(client, &a, "/grpc.health.v1.Health/Watch", SLICE_LIT(""), 5000, &reply),
        STATUS_UNIMPLEMENTED, "");
    large = (struct slice){arena_zalloc(&a, 5000), 5000};
    CHECK_FAILS(rk_client_call(client, &a, "/t.T/Echo", large, 5000, &reply),
                STATUS_RESOURCE_EXHAUSTED, "4096");
    large.n = 4000;
    CHECK_OK(rk_client_call(client, &a, "/t.T/Echo", large, 5000, &reply));
    wait_for(&l.started, 3); /* one more than rank and send takes calls */
    rk_client_close(client);
    arena_deinit(&a);
    lab_deinit(&l, 1000);
}

static void test_health(void) {
    struct lab l;
    struct arena a;
    struct rk_client *client = NULL;
    struct slice reply;
    arena_init(&a, 0);
    if (!lab_init(&l))
        return;
    CHECK_OK(rk_client_open(l.target, &client));
    const char *check = "/grpc.health.v1.Health/Check";
    CHECK_OK(
        rk_client_call(client, &a, check, SLICE_LIT("\x0a\x12moerank.v1.Ranking"), 5000, &reply));
    CHECK_FAILS(rk_client_call(client, &a, check,
                               SLICE_LIT("\x0a\x03"
                                         "abc"),
                               5000, &reply),
                STATUS_NOT_FOUND, "abc");
    CHECK_FAILS(rk_client_call(client, &a, check, SLICE_LIT("\x0a\x7f"), 5000, &reply),
                STATUS_DATA_LOSS, "");
    rk_rpc_server_serving(l.server, false);
    CHECK_FAILS(rk_client_wait_serving(client, 100), STATUS_UNAVAILABLE, "not serving yet");
    rk_rpc_server_serving(l.server, true);
    CHECK_OK(rk_client_wait_serving(client, 5000));
    rk_client_close(client);
    arena_deinit(&a);
    lab_deinit(&l, 1000);
}

/* One worker, two places in the queue: the fourth call is refused; health, and the other pool,
 * answer all the same; an expired call is not scored. */
static void test_a_full_queue_refuses_and_health_does_not_wait(void) {
    struct lab l;
    struct caller first, waiting, expired;
    if (!lab_init(&l))
        return;
    call_start(&first, &l, "/t.T/Block", 20000);
    wait_for(&l.inside, 1);
    call_start(&waiting, &l, "/t.T/Echo", 20000);
    while (rk_rpc_server_depth(l.server) < 1)
        clock_sleep_ms(1);
    call_start(&expired, &l, "/t.T/Block", 50);
    while (rk_rpc_server_depth(l.server) < 2)
        clock_sleep_ms(1);
    CHECK_FAILS(call_once(&l, "/t.T/Echo", 20000), STATUS_RESOURCE_EXHAUSTED, "grpc.queue_max");
    CHECK_OK(call_once(&l, "/t.T/Send", 20000));
    CHECK_OK(call_once(&l, "/grpc.health.v1.Health/Check", 20000) == STATUS_DATA_LOSS
                 ? STATUS_OK
                 : STATUS_INTERNAL);
    CU_ASSERT_EQUAL(call_end(&expired), STATUS_DEADLINE_EXCEEDED);
    open_gate(&l);
    CU_ASSERT_EQUAL(call_end(&first), STATUS_OK);
    CU_ASSERT_EQUAL(call_end(&waiting), STATUS_OK);
    lab_deinit(&l, 1000);
}

static void *stop_server(void *arg) {
    struct lab *l = arg;
    rk_rpc_server_stop(l->server, 20000);
    return NULL;
}

/* Those in flight finish; new ones are turned away; then the server is gone. */
static void test_a_drain_finishes_what_is_in_flight(void) {
    struct lab l;
    struct caller running, queued;
    pthread_t stopper;
    if (!lab_init(&l))
        return;
    call_start(&running, &l, "/t.T/Block", 20000);
    wait_for(&l.inside, 1);
    call_start(&queued, &l, "/t.T/Echo", 20000);
    while (rk_rpc_server_depth(l.server) < 1)
        clock_sleep_ms(1);
    pthread_create(&stopper, NULL, stop_server, &l);
    /* a call that meets the drain's first moment is CANCELLED, or, rarely, left by gRPC until the
     * drain's end */
    enum status status = STATUS_OK;
    for (int i = 0; i < 10000 && (status == STATUS_OK || status == STATUS_CANCELLED ||
                                  status == STATUS_DEADLINE_EXCEEDED);
         i++)
        status = call_once(&l, "/t.T/Send", 1000);
    CU_ASSERT_EQUAL(status, STATUS_UNAVAILABLE);
    open_gate(&l);
    CU_ASSERT_EQUAL(call_end(&running), STATUS_OK);
    CU_ASSERT_EQUAL(call_end(&queued), STATUS_OK);
    pthread_join(stopper, NULL);
    CU_ASSERT_EQUAL(call_once(&l, "/t.T/Echo", 2000), STATUS_UNAVAILABLE);
}

static void *open_gate_later(void *arg) {
    clock_sleep_ms(150);
    open_gate(arg);
    return NULL;
}

/* Grace over: the caller is told, and the handler may take its time. */
static void test_grace_ends(void) {
    struct lab l;
    struct caller running;
    pthread_t opener;
    if (!lab_init(&l))
        return;
    call_start(&running, &l, "/t.T/Block", 20000);
    wait_for(&l.inside, 1);
    pthread_create(&opener, NULL, open_gate_later, &l);
    lab_deinit(&l, 20);
    enum status status = call_end(&running);
    CU_ASSERT(status == STATUS_UNAVAILABLE || status == STATUS_CANCELLED);
    pthread_join(opener, NULL);
}

static void test_bad_addresses(void) {
    struct lab l;
    if (!lab_init(&l))
        return;
    struct rk_rpc_server *s = NULL;
    const struct rk_rpc_handler h = {&l, methods, {1, 1}, NULL, handle};
    struct rk_grpc_conf taken = conf(l.target), silly = conf("nowhere.invalid:1");
    CHECK_FAILS(rk_rpc_server_start(&taken, &h, &s), STATUS_UNAVAILABLE, l.target);
    CHECK_FAILS(rk_rpc_server_start(&silly, &h, &s), STATUS_UNAVAILABLE, "nowhere.invalid");
    lab_deinit(&l, 1000);
    struct caller c = {.target = "127.0.0.1:1", .method = "Rank", .timeout_ms = 2000};
    make_call(&c);
    CU_ASSERT_EQUAL(c.status, STATUS_UNAVAILABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(c.message, "127.0.0.1:1"));
}

SUITE("ranker_rpc", TEST(test_answers_and_errors_come_through), TEST(test_health),
      TEST(test_a_full_queue_refuses_and_health_does_not_wait),
      TEST(test_a_drain_finishes_what_is_in_flight), TEST(test_grace_ends),
      TEST(test_bad_addresses))
