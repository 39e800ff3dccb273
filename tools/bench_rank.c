/* bench_rank.c: callers that each wait for their answer and ask again at once. The requests are
 * encoded before the clock starts, and answers are counted, not decoded, so that the service has
 * the CPUs. Every request is another one: nothing is answered from a result cache.
 *
 * Prepared requests are sent by one caller, one at a time, each once: how long one takes when
 * nothing else is going on. The first of them are sent for a while before, until the scheduler has
 * given both processes their CPUs: of equal real-time priority (chrt) that takes 100 ms. */
#include "tools/bench_rank.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/io.h"
#include "base/rng.h"
#include "ranker/rpc_client.h"
#include "tools/report.h"

enum {
    DEALT = 64,
    CALLS_MAX = 1 << 20,
    WARM = 50,
    WARM_US = 300 * 1000,
    FILE_MAX = 1 << 30,
    TIMEOUT_MS = 20000
};

struct load {
    const struct bench_rank_options *o;
    int rows;
    struct buf requests[DEALT];
    struct buf file; /* of prepared requests */
    int64_t until_us;
    int64_t *us; /* [CALLS_MAX] of each call */
    atomic_int calls;
};
struct caller {
    struct load *load;
    int number;
    enum status status;
    char message[256];
};

static void deal(struct load *l) {
    struct rng r;
    struct arena a;
    rng_init(&r, 1);
    arena_init(&a, 0);
    for (int i = 0; i < DEALT; i++) {
        struct slice *items = ARENA_ARRAY(&a, struct slice, l->rows);
        for (int k = 0; k < l->rows; k++)
            items[k] = slice_of(arena_printf(&a, "i%u", rng_below(&r, (uint32_t)l->o->catalogue)));
        const struct rpc_rank_request q = {
            .user = slice_of(arena_printf(&a, "u%u", rng_below(&r, (uint32_t)l->o->users))),
            .items = items,
            .n_items = l->rows,
            .top_n = 50,
            .no_cache = true};
        rpc_encode_rank_request(&q, &l->requests[i]);
    }
    arena_deinit(&a);
}

static enum status call_on(struct caller *c, struct rk_client *client, struct arena *a) {
    struct load *l = c->load;
    for (int i = c->number; clock_mono_us() < l->until_us; i++) {
        struct slice reply;
        const int64_t from_us = clock_mono_us();
        arena_reset(a);
        TRY(rk_client_call(client, a, "Rank", buf_slice(&l->requests[i % DEALT]), TIMEOUT_MS,
                           &reply));
        const int n = atomic_fetch_add(&l->calls, 1);
        l->us[n % CALLS_MAX] = clock_mono_us() - from_us;
    }
    return STATUS_OK;
}

static void *run_caller(void *arg) {
    struct caller *c = arg;
    struct rk_client *client;
    struct arena a;
    arena_init(&a, 0);
    c->status = rk_client_open(c->load->o->target, &client);
    if (c->status == STATUS_OK) {
        rk_client_spin(client, c->load->o->spin_us);
        c->status = call_on(c, client, &a);
        if (c->status != STATUS_OK)
            snprintf(c->message, sizeof c->message, "%s", status_message());
        rk_client_close(client);
    }
    arena_deinit(&a);
    return NULL;
}

/* ---- prepared requests ----------------------------------------------------------------------- */

/* The request at `*at`, which then is the next one's. False at the end. */
static bool next_request(struct slice file, size_t *at, struct slice *out) {
    uint32_t n;
    if (file.n - *at < sizeof n)
        return false;
    memcpy(&n, file.p + *at, sizeof n);
    if (file.n - *at - sizeof n < n)
        return false;
    *out = (struct slice){file.p + *at + sizeof n, n};
    *at += sizeof n + n;
    return true;
}

static enum status send_file(struct load *l, struct rk_client *client, struct arena *a,
                             int calls_max, size_t *end) {
    struct slice request, reply;
    int n = 0;
    size_t at = 0;
    while (n < calls_max && next_request(buf_slice(&l->file), &at, &request)) {
        arena_reset(a);
        const int64_t from_us = clock_mono_us();
        TRY(rk_client_call(client, a, l->o->method, request, TIMEOUT_MS, &reply));
        l->us[n++] = clock_mono_us() - from_us;
    }
    atomic_store(&l->calls, n);
    *end = at;
    return STATUS_OK;
}

static enum status replay(struct load *l, struct arena *a) {
    struct rk_client *client;
    size_t end = 0;
    TRY(rk_client_open(l->o->target, &client));
    rk_client_spin(client, l->o->spin_us);
    const int64_t until_us = clock_mono_us() + WARM_US;
    enum status status = STATUS_OK;
    while (status == STATUS_OK && clock_mono_us() < until_us)
        status = send_file(l, client, a, WARM, &end);
    if (status == STATUS_OK)
        status = send_file(l, client, a, CALLS_MAX, &end);
    rk_client_close(client);
    if (status == STATUS_OK && end < l->file.n)
        return fail(STATUS_DATA_LOSS, "%s: ends within a request", l->o->requests);
    return status;
}

static int ascending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static enum status print_result(const struct verb_call *call, struct load *l, double seconds,
                                double cpu_s) {
    struct report r;
    const int n = atomic_load(&l->calls) < CALLS_MAX ? atomic_load(&l->calls) : CALLS_MAX;
    if (n == 0)
        return fail(STATUS_UNAVAILABLE, "%s: no call was answered in time", l->o->target);
    qsort(l->us, (size_t)n, sizeof *l->us, ascending);
    report_begin(&r, call->json);
    report_int(&r, "calls", atomic_load(&l->calls));
    if (l->rows)
        report_int(&r, "candidates_per_call", l->rows);
    report_num(&r, "seconds", seconds, 3);
    report_num(&r, "calls_per_s", n / seconds, 1);
    if (l->rows)
        report_num(&r, "candidates_per_s", (double)n * l->rows / seconds, 0);
    report_num(&r, "p50_us", (double)l->us[n / 2], 0);
    report_num(&r, "p99_us", (double)l->us[n - 1 - n / 100], 0);
    report_num(&r, "load_cpu_s", cpu_s, 3); /* of this process */
    return report_end(&r, stdout);
}

static enum status run_load(const struct verb_call *call, struct load *l) {
    const int n = (int)l->o->concurrency;
    struct caller *callers = HEAP_ARRAY(struct caller, n);
    pthread_t *threads = HEAP_ARRAY(pthread_t, n);
    const int64_t from_us = clock_mono_us();
    const double cpu_s = clock_cpu_s();
    int started = 0;
    enum status status = STATUS_OK;
    l->until_us = from_us + l->o->seconds * 1000000;
    for (; started < n; started++) {
        callers[started] = (struct caller){.load = l, .number = started * DEALT / n};
        if (pthread_create(&threads[started], NULL, run_caller, &callers[started]) != 0)
            break;
    }
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    const double seconds = (double)(clock_mono_us() - from_us) * 1e-6;
    for (int i = 0; i < started && status == STATUS_OK; i++)
        if (callers[i].status != STATUS_OK)
            status = fail(callers[i].status, "%s: %s", l->o->target, callers[i].message);
    heap_free(callers);
    heap_free(threads);
    return status == STATUS_OK ? print_result(call, l, seconds, clock_cpu_s() - cpu_s) : status;
}

static enum status run_file(const struct verb_call *call, struct load *l) {
    struct arena a;
    TRY(io_read_file(l->o->requests, FILE_MAX, &l->file));
    arena_init(&a, 0);
    const int64_t from_us = clock_mono_us();
    const double cpu_s = clock_cpu_s();
    enum status status = replay(l, &a);
    arena_deinit(&a);
    TRY(status);
    const double seconds = (double)(clock_mono_us() - from_us) * 1e-6;
    return print_result(call, l, seconds, clock_cpu_s() - cpu_s);
}

enum status bench_rank(const struct verb_call *call, const struct bench_rank_options *o) {
    struct load *l = HEAP_NEW(struct load);
    l->o = o;
    l->us = HEAP_ARRAY(int64_t, CALLS_MAX);
    enum status status;
    if (*o->requests) {
        status = run_file(call, l);
    } else {
        l->rows = (int)o->k->v[0];
        deal(l);
        status = run_load(call, l);
    }
    buf_deinit(&l->file);
    for (int i = 0; i < DEALT; i++)
        buf_deinit(&l->requests[i]);
    heap_free(l->us);
    heap_free(l);
    return status;
}
