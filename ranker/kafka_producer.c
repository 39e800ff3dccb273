/* kafka_producer.c: the idempotent producer. A thread of its own serves delivery reports, so that
 * senders may wait on a condition and no sender serves another's reports. Deliberately no
 * transactions: a dead letter sent twice after a crash carries the same offset in its headers. */
#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/log.h"
#include "ranker/kafka_parts.h"

struct rk_producer {
    rd_kafka_t *rk;
    char *brokers;
    pthread_t poller; /* serves delivery reports */
    bool polling;
    atomic_bool closing;
    atomic_int lost;     /* undelivered since the last flush */
    atomic_int lost_err; /* of the last one */
};

/* Messages somebody waits for; the last reference frees. */
struct wait {
    pthread_mutex_t lock;
    pthread_cond_t done;
    int left, refs;
    rd_kafka_resp_err_t err;
    struct ev_source *sources; /* [n] */
    struct wait_slot {
        struct wait *wait;
        int index;
    } slots[];
};

static void wait_drop(struct wait *w, int refs) { /* under the lock, which it gives up */
    w->refs -= refs;
    bool last = w->refs == 0;
    pthread_mutex_unlock(&w->lock);
    if (!last)
        return;
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->done);
    heap_free(w->sources);
    heap_free(w);
}

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque) {
    struct rk_producer *p = opaque;
    struct wait_slot *slot = m->_private;
    (void)rk;
    if (!slot) {
        if (m->err) {
            atomic_store(&p->lost_err, (int)m->err);
            atomic_fetch_add(&p->lost, 1);
        }
        return;
    }
    struct wait *w = slot->wait;
    pthread_mutex_lock(&w->lock);
    if (m->err)
        w->err = m->err;
    w->sources[slot->index] = (struct ev_source){m->partition, m->offset};
    if (--w->left == 0)
        pthread_cond_signal(&w->done);
    wait_drop(w, 1);
}

static void *poll_reports(void *arg) {
    struct rk_producer *p = arg;
    while (!atomic_load(&p->closing))
        rd_kafka_poll(p->rk, 100);
    return NULL;
}

static enum status open_producer(const struct rk_kafka_conf *c, struct rk_producer *p) {
    static const struct rk_kafka_property before[] = {
        {"partitioner", "murmur2_random"}, /* as Java clients do: a user stays in one partition */
        {"linger.ms", "2"},
        {"compression.type", "lz4"},
        {"message.timeout.ms", "30000"},
        {NULL, NULL}};
    static const struct rk_kafka_property after[] = {{"enable.idempotence", "true"}, {NULL, NULL}};
    p->brokers = heap_strdup(c->brokers);
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    enum status status = rk_kafka_fill(conf, c, before, after);
    if (status != STATUS_OK) {
        rd_kafka_conf_destroy(conf);
        return status;
    }
    rd_kafka_conf_set_opaque(conf, p);
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    TRY(rk_kafka_start(true, conf, &p->rk));
    p->polling = pthread_create(&p->poller, NULL, poll_reports, p) == 0;
    return p->polling ? STATUS_OK : fail(STATUS_RESOURCE_EXHAUSTED, "kafka: no thread to be had");
}

enum status rk_producer_open(const struct rk_kafka_conf *c, struct rk_producer **out) {
    struct rk_producer *p = HEAP_NEW(struct rk_producer);
    enum status status = open_producer(c, p);
    if (status != STATUS_OK) {
        rk_producer_close(p);
        return status;
    }
    *out = p;
    return STATUS_OK;
}

void rk_producer_close(struct rk_producer *p) {
    if (!p)
        return;
    if (p->rk && rd_kafka_flush(p->rk, RK_KAFKA_CLOSE_MS))
        log_warn("kafka", "%d messages were not delivered to %s", rd_kafka_outq_len(p->rk),
                 p->brokers);
    if (p->rk && rd_kafka_outq_len(p->rk) > 0)
        rd_kafka_purge(p->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    atomic_store(&p->closing, true);
    if (p->polling)
        pthread_join(p->poller, NULL);
    if (p->rk) {
        rd_kafka_poll(p->rk, 0);
        rd_kafka_destroy(p->rk);
    }
    heap_free(p->brokers);
    heap_free(p);
}

/* Hands a message over, waiting while librdkafka's queue is full. Owns `headers`. */
static enum status produce(struct rk_producer *p, const char *topic, struct slice key,
                           struct slice value, rd_kafka_headers_t *headers, void *slot) {
    int64_t until = clock_mono_us() + RK_KAFKA_WAIT_MS * 1000;
    for (;;) {
        rd_kafka_resp_err_t err = rd_kafka_producev(
            p->rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
            RD_KAFKA_V_KEY(key.n ? key.p : NULL, key.n),
            RD_KAFKA_V_VALUE((void *)(uintptr_t)value.p, value.n), RD_KAFKA_V_HEADERS(headers),
            RD_KAFKA_V_OPAQUE(slot), RD_KAFKA_V_END);
        if (!err)
            return STATUS_OK;
        if (err == RD_KAFKA_RESP_ERR__QUEUE_FULL && clock_mono_us() < until) {
            clock_sleep_ms(5); /* the poll thread makes room */
            continue;
        }
        if (headers)
            rd_kafka_headers_destroy(headers);
        if (err == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE)
            return fail(STATUS_INVALID_ARGUMENT, "a message of %zu bytes is too large for Kafka",
                        value.n);
        return rk_kafka_fail(p->brokers, err);
    }
}

enum status rk_producer_send(struct rk_producer *p, const char *topic, struct slice key,
                             struct slice value) {
    return produce(p, topic, key, value, NULL, NULL);
}

enum status rk_producer_dead_letter(struct rk_producer *p, const char *topic,
                                    const struct rk_message *m, const char *from_topic,
                                    const char *reason) {
    char partition[16], offset[24];
    snprintf(partition, sizeof partition, "%d", m->source.partition);
    snprintf(offset, sizeof offset, "%lld", (long long)m->source.offset);
    rd_kafka_headers_t *h = rd_kafka_headers_new(4);
    rd_kafka_header_add(h, "x-topic", -1, from_topic, -1);
    rd_kafka_header_add(h, "x-partition", -1, partition, -1);
    rd_kafka_header_add(h, "x-offset", -1, offset, -1);
    rd_kafka_header_add(h, "x-reason", -1, reason, -1);
    return produce(p, topic, m->key, m->value, h, NULL);
}

enum status rk_producer_flush(struct rk_producer *p, int timeout_ms) {
    rd_kafka_resp_err_t err = rd_kafka_flush(p->rk, timeout_ms);
    int lost = atomic_exchange(&p->lost, 0), waiting = err ? rd_kafka_outq_len(p->rk) : 0;
    if (lost + waiting == 0)
        return STATUS_OK;
    return fail(STATUS_UNAVAILABLE, "Kafka at %s: %d messages undelivered: %s; is it running?",
                p->brokers, lost + waiting,
                rd_kafka_err2str(lost ? (rd_kafka_resp_err_t)atomic_load(&p->lost_err) : err));
}

static struct wait *wait_new(int n) {
    struct wait *w = heap_alloc(sizeof *w + (size_t)n * sizeof w->slots[0]);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->done, &attr);
    pthread_condattr_destroy(&attr);
    w->sources = HEAP_ARRAY(struct ev_source, n + 1);
    w->left = n;
    w->refs = n + 1;
    for (int i = 0; i < n; i++)
        w->slots[i] = (struct wait_slot){w, i};
    return w;
}

enum status rk_producer_send_wait(struct rk_producer *p, const char *topic,
                                  const struct slice *keys, const struct slice *values, int n,
                                  int timeout_ms, struct ev_source *sources) {
    struct wait *w = wait_new(n);
    enum status status = STATUS_OK;
    int sent = 0;
    while (sent < n && status == STATUS_OK) {
        status = produce(p, topic, keys[sent], values[sent], NULL, &w->slots[sent]);
        sent += status == STATUS_OK;
    }
    int64_t until_us = clock_mono_us() + (int64_t)timeout_ms * 1000;
    struct timespec until = {until_us / 1000000, until_us % 1000000 * 1000};
    pthread_mutex_lock(&w->lock);
    w->left -= n - sent;
    int rc = 0;
    while (w->left > 0 && rc == 0)
        rc = pthread_cond_timedwait(&w->done, &w->lock, &until);
    int left = w->left;
    rd_kafka_resp_err_t err = w->err;
    if (status == STATUS_OK && !left && !err)
        memcpy(sources, w->sources, (size_t)n * sizeof *sources);
    wait_drop(w, 1 + n - sent);
    if (status != STATUS_OK)
        return status;
    if (err)
        return rk_kafka_fail(p->brokers, err);
    return left ? fail(STATUS_DEADLINE_EXCEEDED,
                       "Kafka at %s did not confirm %d of %d messages in %d ms; they may still "
                       "arrive",
                       p->brokers, left, n, timeout_ms)
                : STATUS_OK;
}
