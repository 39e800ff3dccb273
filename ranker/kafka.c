/* kafka.c: what the consumer and the producer share of librdkafka: settings, logs, what a broker's
 * error means to us, and topics.
 *
 * The files kafka*.c are the only ones that see librdkafka. Deliberately not here: transactions,
 * and schema registries. */
#include "ranker/kafka_parts.h"
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include "base/clock.h"
#include "base/log.h"

/* FAIL and ERROR come again through on_error. */
static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text) {
    (void)rk;
    if (level <= 3 && strcmp(facility, "FAIL") != 0 && strcmp(facility, "ERROR") != 0)
        log_warn("kafka", "%s: %s", facility, text);
    else
        log_debug("kafka", "%s: %s", facility, text);
}

/* Broker trouble passes by itself; it is said, and the next call tells the caller if it lasts. */
static void on_error(rd_kafka_t *rk, int err, const char *reason, void *opaque) {
    (void)rk, (void)opaque;
    log_warn("kafka", "%s: %s", rd_kafka_err2str((rd_kafka_resp_err_t)err), reason);
}

static enum status set(rd_kafka_conf_t *conf, const char *name, const char *value) {
    char text[RK_KAFKA_TEXT];
    if (rd_kafka_conf_set(conf, name, value, text, sizeof text) != RD_KAFKA_CONF_OK)
        return fail(STATUS_INVALID_ARGUMENT, "kafka.properties: %s=%s: %s", name, value, text);
    return STATUS_OK;
}

static enum status set_property(rd_kafka_conf_t *conf, const char *text) {
    const char *eq = strchr(text, '=');
    if (!eq || eq == text || eq - text >= RK_KAFKA_TEXT)
        return fail(STATUS_INVALID_ARGUMENT, "kafka.properties: '%s' is not name=value", text);
    char name[RK_KAFKA_TEXT];
    snprintf(name, sizeof name, "%.*s", (int)(eq - text), text);
    return set(conf, name, eq + 1);
}

/* `before` may be overridden by the settings' properties, `after` may not: correctness hangs on it.
 */
enum status rk_kafka_fill(rd_kafka_conf_t *conf, const struct rk_kafka_conf *c,
                          const struct rk_kafka_property *before,
                          const struct rk_kafka_property *after) {
    if (!*c->brokers)
        return fail(STATUS_FAILED_PRECONDITION, "kafka.brokers is empty; give host:port");
    TRY(set(conf, "bootstrap.servers", c->brokers));
    TRY(set(conf, "client.id", "moerank"));
    TRY(set(conf, "log.queue", "true")); /* logs are served where we poll, not on their threads */
    TRY(set(conf, "reconnect.backoff.max.ms", "2000")); /* back soon after a broker is */
    for (; before->name; before++)
        TRY(set(conf, before->name, before->value));
    for (int i = 0; i < c->properties.n; i++)
        TRY(set_property(conf, c->properties.v[i]));
    for (; after->name; after++)
        TRY(set(conf, after->name, after->value));
    rd_kafka_conf_set_log_cb(conf, on_log);
    rd_kafka_conf_set_error_cb(conf, on_error);
    return STATUS_OK;
}

enum status rk_kafka_start(bool producer, rd_kafka_conf_t *conf, rd_kafka_t **out) {
    char text[RK_KAFKA_TEXT];
    rd_kafka_t *rk =
        rd_kafka_new(producer ? RD_KAFKA_PRODUCER : RD_KAFKA_CONSUMER, conf, text, sizeof text);
    if (!rk) {
        rd_kafka_conf_destroy(conf);
        return fail(STATUS_INVALID_ARGUMENT, "kafka: %s", text);
    }
    rd_kafka_set_log_queue(rk, NULL);
    *out = rk;
    return STATUS_OK;
}

enum status rk_kafka_fail(const char *brokers, int code) {
    rd_kafka_resp_err_t err = (rd_kafka_resp_err_t)code;
    bool denied = err == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED ||
                  err == RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED ||
                  err == RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    return fail(denied ? STATUS_PERMISSION_DENIED : STATUS_UNAVAILABLE, "Kafka at %s: %s; %s",
                brokers, rd_kafka_err2str(err),
                denied ? "grant it, or set kafka.properties" : "is it running? (kafka.brokers)");
}

enum status rk_kafka_fail_topic(const char *brokers, const char *topic) {
    return fail(STATUS_NOT_FOUND, "Kafka at %s has no topic '%s'; create it, or set kafka.topic",
                brokers, topic);
}

/* The topic's number of partitions. A topic just made may have no leader yet. */
enum status rk_kafka_ask_topic(rd_kafka_t *rk, const char *brokers, const char *topic, int *n) {
    int64_t until = clock_mono_us() + RK_KAFKA_WAIT_MS * 1000;
    for (;;) {
        rd_kafka_topic_t *t = rd_kafka_topic_new(rk, topic, NULL);
        const struct rd_kafka_metadata *md = NULL;
        rd_kafka_resp_err_t err = rd_kafka_metadata(rk, 0, t, &md, RK_KAFKA_WAIT_MS);
        rd_kafka_resp_err_t topic_err = err ? err
                                        : md->topic_cnt == 1
                                            ? md->topics[0].err
                                            : RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
        int partitions = err || topic_err ? 0 : md->topics[0].partition_cnt;
        if (md)
            rd_kafka_metadata_destroy(md);
        rd_kafka_topic_destroy(t);
        if (err)
            return rk_kafka_fail(brokers, err);
        if (partitions > 0) {
            *n = partitions;
            return STATUS_OK;
        }
        bool wait = !topic_err || topic_err == RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
        if (!wait && topic_err != RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
            return rk_kafka_fail(brokers, topic_err);
        if (!wait || clock_mono_us() > until)
            return rk_kafka_fail_topic(brokers, topic);
        clock_sleep_ms(100);
    }
}

static enum status create_topic(rd_kafka_t *rk, const char *brokers, const char *topic,
                                int partitions) {
    char text[RK_KAFKA_TEXT];
    rd_kafka_NewTopic_t *t = rd_kafka_NewTopic_new(topic, partitions, -1, text, sizeof text);
    if (!t)
        return fail(STATUS_INVALID_ARGUMENT, "topic '%s': %s", topic, text);
    rd_kafka_queue_t *q = rd_kafka_queue_new(rk);
    rd_kafka_CreateTopics(rk, &t, 1, NULL, q);
    rd_kafka_NewTopic_destroy(t);
    rd_kafka_event_t *e = rd_kafka_queue_poll(q, 2 * RK_KAFKA_WAIT_MS);
    rd_kafka_resp_err_t err = e ? rd_kafka_event_error(e) : RD_KAFKA_RESP_ERR__TIMED_OUT;
    size_t n = 0;
    const rd_kafka_topic_result_t **results =
        err ? NULL : rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(e), &n);
    if (n == 1)
        err = rd_kafka_topic_result_error(results[0]);
    if (e)
        rd_kafka_event_destroy(e);
    rd_kafka_queue_destroy(q);
    if (err == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
        return fail(STATUS_ALREADY_EXISTS, "Kafka at %s has the topic '%s' already", brokers,
                    topic);
    return err ? rk_kafka_fail(brokers, err) : STATUS_OK;
}

enum status rk_kafka_create_topic(const char *brokers, const char *topic, int partitions) {
    static const struct rk_kafka_property none[] = {{NULL, NULL}};
    const struct rk_kafka_conf c = {.brokers = brokers};
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    enum status status = rk_kafka_fill(conf, &c, none, none);
    if (status != STATUS_OK) {
        rd_kafka_conf_destroy(conf);
        return status;
    }
    rd_kafka_t *rk = NULL;
    TRY(rk_kafka_start(true, conf, &rk));
    int n = 0;
    status = create_topic(rk, brokers, topic, partitions);
    if (status == STATUS_OK)
        status = rk_kafka_ask_topic(rk, brokers, topic, &n); /* it has leaders */
    rd_kafka_destroy(rk);
    return status;
}

/* ---- ThreadSanitizer -----------------------------------------------------------------------
 * It knows pthreads but not the C11 threads and locks that librdkafka uses: the threads crash in
 * its allocator, and what the locks order looks like races. In builds with it, C11 threads are made
 * of pthreads; glibc's types are the same underneath. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WITH_TSAN 1
#endif
#elif defined(__SANITIZE_THREAD__)
#define WITH_TSAN 1
#endif
#ifdef WITH_TSAN
#include <errno.h>
#include <pthread.h>
#include <threads.h>
#include "base/heap.h"

struct beginning {
    thrd_start_t run;
    void *arg;
};

static void *run_thread(void *arg) {
    struct beginning b = *(struct beginning *)arg;
    heap_free(arg);
    return (void *)(intptr_t)b.run(b.arg);
}

int thrd_create(thrd_t *out, thrd_start_t run, void *arg) {
    struct beginning *b = HEAP_NEW(struct beginning);
    *b = (struct beginning){run, arg};
    return pthread_create(out, NULL, run_thread, b) == 0 ? thrd_success : thrd_error;
}

int thrd_join(thrd_t thread, int *result) {
    void *value = NULL;
    if (pthread_join(thread, &value) != 0)
        return thrd_error;
    if (result)
        *result = (int)(intptr_t)value;
    return thrd_success;
}

int mtx_init(mtx_t *m, int type) {
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    if (type & mtx_recursive)
        pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    int rc = pthread_mutex_init((pthread_mutex_t *)m, &attr);
    pthread_mutexattr_destroy(&attr);
    return rc ? thrd_error : thrd_success;
}
void mtx_destroy(mtx_t *m) { pthread_mutex_destroy((pthread_mutex_t *)m); }
int mtx_lock(mtx_t *m) { return pthread_mutex_lock((pthread_mutex_t *)m) ? thrd_error : 0; }
int mtx_unlock(mtx_t *m) { return pthread_mutex_unlock((pthread_mutex_t *)m) ? thrd_error : 0; }
int cnd_init(cnd_t *c) { return pthread_cond_init((pthread_cond_t *)c, NULL) ? thrd_error : 0; }
void cnd_destroy(cnd_t *c) { pthread_cond_destroy((pthread_cond_t *)c); }
int cnd_signal(cnd_t *c) { return pthread_cond_signal((pthread_cond_t *)c) ? thrd_error : 0; }
int cnd_broadcast(cnd_t *c) { return pthread_cond_broadcast((pthread_cond_t *)c) ? thrd_error : 0; }
int cnd_wait(cnd_t *c, mtx_t *m) {
    return pthread_cond_wait((pthread_cond_t *)c, (pthread_mutex_t *)m) ? thrd_error : 0;
}
int cnd_timedwait(cnd_t *c, mtx_t *m, const struct timespec *until) {
    int rc = pthread_cond_timedwait((pthread_cond_t *)c, (pthread_mutex_t *)m, until);
    return rc == ETIMEDOUT ? thrd_timedout : rc ? thrd_error : thrd_success;
}
#endif
