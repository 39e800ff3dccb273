/* kafka_consumer.c: the consumer group.
 *
 * A loop over rd_kafka_consumer_poll: the batch call of librdkafka 2.0.2 may lose or repeat
 * messages around a rebalance, and costs the same. Where a partition starts is decided here, by
 * what the state has, never by what the group committed; commits follow snapshots and only tell
 * others how far they got. A topic_partition_list is made anew each time: kept ones hold references
 * that make rd_kafka_destroy hang. Deliberately no offset store and no auto-commit. */
#include <assert.h>
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/log.h"
#include "ranker/kafka_parts.h"

struct position {
    int64_t next; /* offset after the last one handed out or restored; -1: the state has nothing */
    int64_t skipped; /* reading starts after this offset, to be told; -1: none */
    bool assigned, eof;
};
struct rk_consumer {
    rd_kafka_t *rk;
    char *topic, *brokers;
    struct position *at; /* [n_at], by partition */
    int n_at;
    bool latest, grouped;
    bool joined;      /* the group gave an assignment */
    int commits_open; /* sent, not answered; this thread only */
    enum status (*ask)(void *context, const struct feat_applied **out, int *n);
    void *ask_context;
    enum status failed;
    char failure[RK_KAFKA_TEXT];
};

static struct position *position_of(struct rk_consumer *k, int32_t partition) {
    assert(partition >= 0);
    if (partition >= k->n_at) {
        int n = partition + 16;
        k->at = heap_grow(k->at, (size_t)n * sizeof *k->at);
        for (int i = k->n_at; i < n; i++)
            k->at[i] = (struct position){.next = -1, .skipped = -1};
        k->n_at = n;
    }
    return &k->at[partition];
}

static void keep_failure(struct rk_consumer *k, enum status status) {
    k->failed = status;
    snprintf(k->failure, sizeof k->failure, "%s", status_message());
}

/* What the log still holds must overlap what the state has applied. */
static enum status check_overlap(struct rk_consumer *k, int32_t partition, struct position *at) {
    int64_t low = 0, high = 0;
    rd_kafka_resp_err_t err =
        rd_kafka_query_watermark_offsets(k->rk, k->topic, partition, &low, &high, RK_KAFKA_WAIT_MS);
    if (err)
        return rk_kafka_fail(k->brokers, err);
    if (at->next < 0 && !k->latest)
        return STATUS_OK;
    int64_t first = at->next < 0 ? high : at->next < low ? low : at->next;
    if (first > high)
        return fail(STATUS_FAILED_PRECONDITION,
                    "topic '%s' partition %d at %s ends at offset %lld, but the state has applied "
                    "up to %lld: it is another topic; move the snapshot (state.snapshot) away",
                    k->topic, partition, k->brokers, (long long)high, (long long)at->next - 1);
    if (at->next >= 0 && first > at->next)
        log_warn("kafka",
                 "partition %d: %lld events were deleted from the log before they were read",
                 partition, (long long)(first - at->next));
    if (first > 0 && first != at->next)
        at->skipped = first - 1;
    at->next = first;
    return STATUS_OK;
}

static void place(struct rk_consumer *k, rd_kafka_topic_partition_t *p) {
    struct position *at = position_of(k, p->partition);
    enum status status = check_overlap(k, p->partition, at);
    if (status != STATUS_OK)
        keep_failure(k, status);
    at->assigned = true;
    at->eof = false;
    p->offset = at->next >= 0 ? at->next : RD_KAFKA_OFFSET_BEGINNING;
    log_debug("kafka", "partition %d starts at %lld", p->partition, (long long)p->offset);
}

void rk_consumer_on_assign(struct rk_consumer *k,
                           enum status (*ask)(void *context, const struct feat_applied **out,
                                              int *n),
                           void *context) {
    k->ask = ask;
    k->ask_context = context;
}

/* Of the partitions in `list`. Where no answer can be had, what is known is older: then more is
 * read again, and nothing is missed. */
static void ask_positions(struct rk_consumer *k, const rd_kafka_topic_partition_list_t *list) {
    const struct feat_applied *applied;
    int n = 0;
    if (!k->ask || k->ask(k->ask_context, &applied, &n) != STATUS_OK)
        return;
    for (int i = 0; i < list->cnt; i++)
        for (int j = 0; j < n; j++)
            if (applied[j].partition == list->elems[i].partition)
                position_of(k, applied[j].partition)->next =
                    applied[j].offset < 0 ? -1 : applied[j].offset + 1;
}

static void on_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t err,
                         rd_kafka_topic_partition_list_t *list, void *opaque) {
    struct rk_consumer *k = opaque;
    bool incremental = strcmp(rd_kafka_rebalance_protocol(rk), "COOPERATIVE") == 0;
    bool assign = err == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
    k->joined |= assign;
    if (list->cnt > 0)
        log_info("kafka", "%d partitions %s", list->cnt, assign ? "assigned" : "given back");
    if (assign)
        ask_positions(k, list);
    for (int i = 0; i < list->cnt; i++) {
        if (assign)
            place(k, &list->elems[i]);
        else
            position_of(k, list->elems[i].partition)->assigned = false;
    }
    rd_kafka_error_t *error = NULL;
    rd_kafka_resp_err_t plain = RD_KAFKA_RESP_ERR_NO_ERROR;
    if (incremental)
        error = assign ? rd_kafka_incremental_assign(rk, list)
                       : rd_kafka_incremental_unassign(rk, list);
    else
        plain = rd_kafka_assign(rk, assign ? list : NULL);
    if (error || plain)
        log_warn("kafka", "rebalance: %s",
                 error ? rd_kafka_error_string(error) : rd_kafka_err2str(plain));
    if (error)
        rd_kafka_error_destroy(error);
}

static void on_commit(rd_kafka_t *rk, rd_kafka_resp_err_t err,
                      rd_kafka_topic_partition_list_t *list, void *opaque) {
    struct rk_consumer *k = opaque;
    (void)rk, (void)list;
    k->commits_open--;
    if (err && err != RD_KAFKA_RESP_ERR__NO_OFFSET)
        log_info("kafka", "commit put off to the next snapshot: %s", rd_kafka_err2str(err));
}

static enum status consumer_new(const struct rk_kafka_conf *c, const char *group,
                                struct rk_consumer *k) {
    static const struct rk_kafka_property before[] = {
        {"partition.assignment.strategy", "cooperative-sticky"},
        {"fetch.wait.max.ms", "50"},
        {"auto.offset.reset", "earliest"},
        {NULL, NULL}};
    const struct rk_kafka_property after[] = {{"group.id", group},
                                              {"enable.auto.commit", "false"},
                                              {"enable.auto.offset.store", "false"},
                                              {"enable.partition.eof", "true"},
                                              {NULL, NULL}};
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    enum status status = rk_kafka_fill(conf, c, before, after);
    if (status != STATUS_OK) {
        rd_kafka_conf_destroy(conf);
        return status;
    }
    rd_kafka_conf_set_opaque(conf, k);
    rd_kafka_conf_set_rebalance_cb(conf, on_rebalance);
    rd_kafka_conf_set_offset_commit_cb(conf, on_commit);
    TRY(rk_kafka_start(false, conf, &k->rk));
    rd_kafka_poll_set_consumer(k->rk);
    return STATUS_OK;
}

static enum status subscribe(struct rk_consumer *k) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, k->topic, RD_KAFKA_PARTITION_UA);
    rd_kafka_resp_err_t err = rd_kafka_subscribe(k->rk, list);
    rd_kafka_topic_partition_list_destroy(list);
    k->grouped = true;
    return err ? rk_kafka_fail(k->brokers, err) : STATUS_OK;
}

static enum status assign_all(struct rk_consumer *k, int n) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(n);
    for (int i = 0; i < n; i++) {
        rd_kafka_topic_partition_list_add(list, k->topic, i)->offset = RD_KAFKA_OFFSET_BEGINNING;
        position_of(k, i)->assigned = true;
    }
    rd_kafka_resp_err_t err = rd_kafka_assign(k->rk, list);
    rd_kafka_topic_partition_list_destroy(list);
    return err ? rk_kafka_fail(k->brokers, err) : STATUS_OK;
}

static enum status open_consumer(const struct rk_kafka_conf *c, const char *group, bool all,
                                 struct rk_consumer *k) {
    int partitions = 0;
    k->topic = heap_strdup(c->topic);
    k->brokers = heap_strdup(c->brokers);
    k->latest = c->start == 1;
    TRY(consumer_new(c, group, k));
    TRY(rk_kafka_ask_topic(k->rk, k->brokers, k->topic, &partitions));
    return all ? assign_all(k, partitions) : subscribe(k);
}

enum status rk_consumer_open(const struct rk_kafka_conf *c, const struct feat_applied *resume,
                             int n, struct rk_consumer **out) {
    struct rk_consumer *k = HEAP_NEW(struct rk_consumer);
    for (int i = 0; i < n; i++)
        position_of(k, resume[i].partition)->next = resume[i].offset + 1;
    enum status status = open_consumer(c, c->group, false, k);
    if (status != STATUS_OK) {
        rk_consumer_close(k);
        return status;
    }
    *out = k;
    return STATUS_OK;
}

enum status rk_consumer_open_all(const struct rk_kafka_conf *c, struct rk_consumer **out) {
    struct rk_consumer *k = HEAP_NEW(struct rk_consumer);
    char group[RK_KAFKA_TEXT]; /* never joined; librdkafka wants a name */
    snprintf(group, sizeof group, "%s-reader", c->group);
    enum status status = open_consumer(c, group, true, k);
    if (status != STATUS_OK) {
        rk_consumer_close(k);
        return status;
    }
    *out = k;
    return STATUS_OK;
}

/* Leaves the group, but never waits for ever: closing hangs at times with a group in motion. */
static bool leave(struct rk_consumer *k) {
    int64_t until = clock_mono_us() + RK_KAFKA_CLOSE_MS * 1000;
    while (k->commits_open > 0 && clock_mono_us() < until) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(k->rk, 50);
        if (m)
            rd_kafka_message_destroy(m);
    }
    rd_kafka_queue_t *q = rd_kafka_queue_get_consumer(k->rk);
    rd_kafka_error_t *error = rd_kafka_consumer_close_queue(k->rk, q);
    if (error)
        rd_kafka_error_destroy(error);
    while (!rd_kafka_consumer_closed(k->rk) && clock_mono_us() < until) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(k->rk, 50);
        if (m)
            rd_kafka_message_destroy(m);
    }
    rd_kafka_queue_destroy(q);
    return rd_kafka_consumer_closed(k->rk);
}

/* librdkafka 2.0.2 aborts when a cooperative-sticky member is destroyed that never had an
 * assignment (confluentinc/librdkafka #4312): such a handle has left the group and is left behind.
 */
void rk_consumer_close(struct rk_consumer *k) {
    if (!k)
        return;
    bool left = k->rk && leave(k);
    if (left && (k->joined || !k->grouped))
        rd_kafka_destroy_flags(k->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    else if (k->rk && !left)
        log_warn("kafka", "the consumer did not close in %d s; left behind",
                 RK_KAFKA_CLOSE_MS / 1000);
    heap_free(k->topic);
    heap_free(k->brokers);
    heap_free(k->at);
    heap_free(k);
}

/* An end of partition, or something wrong. Only what will not pass by itself is a failure. */
static void take_event(struct rk_consumer *k, const rd_kafka_message_t *m) {
    switch (m->err) {
    case RD_KAFKA_RESP_ERR__PARTITION_EOF:
        position_of(k, m->partition)->eof = true;
        return;
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
        keep_failure(k, rk_kafka_fail_topic(k->brokers, k->topic));
        return;
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR__FATAL:
        keep_failure(k, rk_kafka_fail(k->brokers, m->err));
        return;
    default:
        log_warn("kafka", "%s: %s", rd_kafka_err2name(m->err), rd_kafka_message_errstr(m));
    }
}

static void take_message(struct rk_consumer *k, rd_kafka_message_t *m, struct rk_message *out) {
    struct position *at = position_of(k, m->partition);
    at->next = m->offset + 1;
    at->eof = false;
    rd_kafka_timestamp_type_t type;
    int64_t ms = rd_kafka_message_timestamp(m, &type);
    *out = (struct rk_message){{m->payload, m->payload ? m->len : 0},
                               {m->key, m->key ? m->key_len : 0},
                               {m->partition, m->offset},
                               ms > 0 ? ms * 1000 : 0,
                               m};
}

static bool all_read(const struct rk_consumer *k) {
    int n = 0;
    for (int i = 0; i < k->n_at; i++) {
        if (!k->at[i].assigned)
            continue;
        if (!k->at[i].eof)
            return false;
        n++;
    }
    return n > 0;
}

enum status rk_consumer_poll(struct rk_consumer *k, struct rk_message *out, int max,
                             int64_t wait_us, int *n, bool *at_end) {
    int64_t until = clock_mono_us() + wait_us;
    int got = 0;
    while (got < max && k->failed == STATUS_OK) {
        int64_t left_us = got ? 0 : until - clock_mono_us();
        rd_kafka_message_t *m =
            rd_kafka_consumer_poll(k->rk, left_us > 0 ? (int)((left_us + 999) / 1000) : 0);
        if (!m)
            break;
        if (!m->err) {
            take_message(k, m, &out[got++]);
            continue;
        }
        take_event(k, m);
        rd_kafka_message_destroy(m);
        if (got == 0 && all_read(k))
            break;
    }
    if (got == 0 && k->failed != STATUS_OK) {
        enum status failed = k->failed;
        k->failed = STATUS_OK;
        return fail(failed, "%s", k->failure);
    }
    *n = got;
    *at_end = all_read(k);
    return STATUS_OK;
}

void rk_consumer_release(struct rk_consumer *k, struct rk_message *messages, int n) {
    (void)k;
    for (int i = 0; i < n; i++)
        rd_kafka_message_destroy(messages[i].handle);
}

bool rk_consumer_skipped(struct rk_consumer *k, struct ev_source *out) {
    for (int i = 0; i < k->n_at; i++) {
        if (k->at[i].skipped < 0)
            continue;
        *out = (struct ev_source){i, k->at[i].skipped};
        k->at[i].skipped = -1;
        return true;
    }
    return false;
}

enum status rk_consumer_commit(struct rk_consumer *k, const struct feat_applied *safe, int n) {
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(n + 1);
    for (int i = 0; i < n; i++)
        if (position_of(k, safe[i].partition)->assigned)
            rd_kafka_topic_partition_list_add(list, k->topic, safe[i].partition)->offset =
                safe[i].offset + 1;
    rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR_NO_ERROR;
    if (k->grouped && list->cnt > 0) {
        err = rd_kafka_commit(k->rk, list, 1);
        k->commits_open += !err;
    }
    rd_kafka_topic_partition_list_destroy(list);
    return err ? rk_kafka_fail(k->brokers, err) : STATUS_OK;
}

int64_t rk_consumer_lag(struct rk_consumer *k) {
    int64_t lag = 0;
    int assigned = 0;
    for (int i = 0; i < k->n_at; i++) {
        int64_t low, high;
        if (!k->at[i].assigned)
            continue;
        if (rd_kafka_get_watermark_offsets(k->rk, k->topic, i, &low, &high) || high < 0)
            return -1;
        int64_t next = k->at[i].next >= 0 ? k->at[i].next : low > 0 ? low : 0;
        lag += high > next ? high - next : 0;
        assigned++;
    }
    return assigned ? lag : -1;
}
