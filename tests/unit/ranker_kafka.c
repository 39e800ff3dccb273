/* label: slow: the mock broker takes seconds to let a member join.
 *
 * ranker_kafka: consumer and producer against librdkafka's mock cluster: where reading starts,
 * ends and goes on after a restart, hand-over inside a group, dead letters, and what is said when
 * something is wrong. */
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include "base/clock.h"
#include "ranker/kafka.h"
#include "tests/support/suite.h"

enum { PARTITIONS = 4, NUMBERS = 400 };

struct cluster {
    rd_kafka_t *rk;
    rd_kafka_mock_cluster_t *mock;
    struct rk_kafka_conf conf;
};

/* The mock broker makes the next member wait for a session time, less a second; and at least three
 * seconds, so shorter sessions never join. */
static const char *quick[] = {"session.timeout.ms=6000", "heartbeat.interval.ms=200"};

static void cluster_init(struct cluster *c) {
    char text[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "client.id", "mock", text, sizeof text);
    c->rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, text, sizeof text);
    c->mock = rd_kafka_mock_cluster_new(c->rk, 1);
    rd_kafka_mock_topic_create(c->mock, "events", PARTITIONS, 1);
    rd_kafka_mock_topic_create(c->mock, "dead", 1, 1);
    c->conf = (struct rk_kafka_conf){.brokers = rd_kafka_mock_cluster_bootstraps(c->mock),
                                     .topic = "events",
                                     .dead_letter_topic = "dead",
                                     .group = "g",
                                     .properties = {quick, 2}};
}

static void cluster_deinit(struct cluster *c) {
    rd_kafka_mock_cluster_destroy(c->mock);
    rd_kafka_destroy(c->rk);
}

/* Sends the numbers [first, first + n), each as its own key and value; `where` [n] may be NULL. */
static void send_numbers(const struct cluster *c, int first, int n, struct ev_source *where) {
    static struct ev_source nowhere[NUMBERS];
    static int numbers[NUMBERS];
    static struct slice values[NUMBERS];
    for (int i = 0; i < n; i++) {
        numbers[i] = first + i;
        values[i] = (struct slice){(const char *)&numbers[i], sizeof numbers[i]};
    }
    struct rk_producer *p = NULL;
    if (!CHECK_OK(rk_producer_open(&c->conf, &p)))
        return;
    CHECK_OK(rk_producer_send_wait(p, "events", values, values, n, 20000, where ? where : nowhere));
    rk_producer_close(p);
}

struct reading {
    int seen[NUMBERS]; /* how often each number came */
    struct feat_applied last[PARTITIONS];
    bool at_end;
};

static struct reading reading_new(void) {
    struct reading r = {0};
    for (int i = 0; i < PARTITIONS; i++)
        r.last[i] = (struct feat_applied){i, -1, 0};
    return r;
}

static void note(struct reading *r, const struct rk_message *m) {
    int number = -1;
    CU_ASSERT_EQUAL(m->value.n, sizeof number);
    memcpy(&number, m->value.p, sizeof number);
    CU_ASSERT_FATAL(number >= 0 && number < NUMBERS);
    CU_ASSERT(slice_equal(m->value, m->key));
    CU_ASSERT(m->timestamp_us > 0);
    CU_ASSERT(m->source.offset > r->last[m->source.partition].offset);
    r->seen[number]++;
    r->last[m->source.partition].offset = m->source.offset;
}

/* Reads until the end, or until at least `most` came. */
static int read_numbers(struct rk_consumer *k, int most, struct reading *r) {
    int got = 0;
    int64_t until = clock_mono_us() + 30000000;
    r->at_end = false;
    while (got < most && !r->at_end && clock_mono_us() < until) {
        struct rk_message m[16];
        int n = 0;
        if (!CHECK_OK(rk_consumer_poll(k, m, 16, 200000, &n, &r->at_end)))
            break;
        for (int i = 0; i < n; i++)
            note(r, &m[i]);
        rk_consumer_release(k, m, n);
        got += n;
    }
    return got;
}

static int count_seen(const struct reading *r, int first, int n, int times) {
    int matching = 0;
    for (int i = first; i < first + n; i++)
        matching += r->seen[i] == times;
    return matching;
}

static void test_all_arrive_and_the_end_is_told(void) {
    struct cluster c;
    cluster_init(&c);
    static struct ev_source where[100];
    send_numbers(&c, 0, 100, where);
    for (int i = 0; i < 100; i++)
        CU_ASSERT(where[i].partition >= 0 && where[i].partition < PARTITIONS &&
                  where[i].offset >= 0);
    struct rk_consumer *k = NULL;
    struct reading r = reading_new();
    if (CHECK_OK(rk_consumer_open(&c.conf, NULL, 0, &k))) {
        CU_ASSERT_EQUAL(read_numbers(k, 1000, &r), 100);
        CU_ASSERT(r.at_end);
        CU_ASSERT_EQUAL(rk_consumer_lag(k), 0);
        for (int i = 0; i < 100; i++)
            CU_ASSERT(r.last[where[i].partition].offset >= where[i].offset);
    }
    rk_consumer_close(k);
    CU_ASSERT_EQUAL(count_seen(&r, 0, 100, 1), 100);
    cluster_deinit(&c);
}

/* The snapshot decides, even when the group has committed more or less. */
static void test_resumes_where_the_state_is(void) {
    struct cluster c;
    cluster_init(&c);
    send_numbers(&c, 0, 200, NULL);
    struct rk_consumer *k = NULL;
    struct reading r = reading_new();
    if (!CHECK_OK(rk_consumer_open(&c.conf, NULL, 0, &k)))
        return;
    int first = read_numbers(k, 60, &r);
    struct reading snapshot = r;
    read_numbers(k, 1000, &r);
    CHECK_OK(rk_consumer_commit(k, r.last, PARTITIONS)); /* everything is committed ... */
    rk_consumer_close(k);
    CU_ASSERT_EQUAL(count_seen(&r, 0, 200, 1), 200);
    if (!CHECK_OK(rk_consumer_open(&c.conf, snapshot.last, PARTITIONS, &k)))
        return;
    CU_ASSERT_EQUAL(read_numbers(k, 1000, &snapshot), 200 - first); /* ... and read all the same */
    rk_consumer_close(k);
    CU_ASSERT_EQUAL(count_seen(&snapshot, 0, 200, 1), 200);
    struct reading fresh = reading_new();
    if (!CHECK_OK(rk_consumer_open(&c.conf, NULL, 0, &k)))
        return;
    CU_ASSERT_EQUAL(read_numbers(k, 1000, &fresh), 200); /* no state: from the beginning */
    rk_consumer_close(k);
    cluster_deinit(&c);
}

static int64_t committed_sum(const struct cluster *c) {
    char text[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", c->conf.brokers, text, sizeof text);
    rd_kafka_conf_set(conf, "group.id", c->conf.group, text, sizeof text);
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, text, sizeof text);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(PARTITIONS);
    rd_kafka_topic_partition_list_add_range(list, c->conf.topic, 0, PARTITIONS - 1);
    CU_ASSERT_EQUAL(rd_kafka_committed(rk, list, 10000), RD_KAFKA_RESP_ERR_NO_ERROR);
    int64_t sum = 0;
    for (int i = 0; i < list->cnt; i++)
        sum += list->elems[i].offset > 0 ? list->elems[i].offset : 0;
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_destroy(rk);
    return sum;
}

static void test_commits_only_what_is_safe(void) {
    struct cluster c;
    cluster_init(&c);
    send_numbers(&c, 0, 100, NULL);
    struct rk_consumer *k = NULL;
    struct reading r = reading_new();
    if (!CHECK_OK(rk_consumer_open(&c.conf, NULL, 0, &k)))
        return;
    read_numbers(k, 1000, &r);
    rk_consumer_close(k); /* read but not safe */
    CU_ASSERT_EQUAL(committed_sum(&c), 0);
    if (!CHECK_OK(rk_consumer_open(&c.conf, NULL, 0, &k)))
        return;
    r = reading_new();
    read_numbers(k, 1000, &r);
    CHECK_OK(rk_consumer_commit(k, r.last, PARTITIONS));
    rk_consumer_close(k);
    CU_ASSERT_EQUAL(committed_sum(&c), 100); /* the next offset of each partition */
    cluster_deinit(&c);
}

/* Two in a group, then one leaves: between them they read everything. */
static void test_partitions_are_handed_over(void) {
    struct cluster c;
    cluster_init(&c);
    send_numbers(&c, 0, 100, NULL);
    struct rk_consumer *a = NULL, *b = NULL;
    struct reading ra = reading_new(), rb = reading_new();
    if (!CHECK_OK(rk_consumer_open(&c.conf, NULL, 0, &a)))
        return;
    CU_ASSERT_EQUAL(read_numbers(a, 1000, &ra), 100);
    if (!CHECK_OK(rk_consumer_open(&c.conf, NULL, 0, &b)))
        return;
    int64_t until = clock_mono_us() + 30000000;
    while (count_seen(&rb, 0, 100, 0) == 100 && clock_mono_us() < until) {
        struct rk_message m[16];
        int n;
        bool at_end;
        CHECK_OK(rk_consumer_poll(a, m, 16, 20000, &n, &at_end)); /* a must poll to give back */
        CU_ASSERT_EQUAL(n, 0);
        CHECK_OK(rk_consumer_poll(b, m, 16, 20000, &n, &at_end));
        for (int i = 0; i < n; i++)
            note(&rb, &m[i]);
        rk_consumer_release(b, m, n);
    }
    int by_b = 100 - count_seen(&rb, 0, 100, 0);
    CU_ASSERT(by_b > 0 &&
              by_b < 100); /* b's state is empty: it reads its partitions from the start */
    rk_consumer_close(b);
    send_numbers(&c, 100, 100, NULL);
    until = clock_mono_us() + 30000000;
    while (count_seen(&ra, 100, 100, 0) > 0 && clock_mono_us() < until)
        read_numbers(a, 1000, &ra);
    CU_ASSERT_EQUAL(count_seen(&ra, 0, 200, 1), 200); /* a went on where it was, nothing twice */
    rk_consumer_close(a);
    cluster_deinit(&c);
}

static void test_latest_tells_what_it_leaves_out(void) {
    struct cluster c;
    cluster_init(&c);
    send_numbers(&c, 0, 100, NULL);
    c.conf.start = 1;
    struct rk_consumer *k = NULL;
    struct reading r = reading_new();
    if (!CHECK_OK(rk_consumer_open(&c.conf, NULL, 0, &k)))
        return;
    CU_ASSERT_EQUAL(read_numbers(k, 1000, &r), 0);
    int64_t left_out = 0;
    for (struct ev_source s; rk_consumer_skipped(k, &s);)
        left_out += s.offset + 1;
    CU_ASSERT_EQUAL(left_out, 100);
    send_numbers(&c, 100, 50, NULL);
    int64_t until = clock_mono_us() + 30000000;
    while (count_seen(&r, 100, 50, 0) > 0 && clock_mono_us() < until)
        read_numbers(k, 1000, &r);
    CU_ASSERT_EQUAL(count_seen(&r, 0, 100, 0), 100);
    CU_ASSERT_EQUAL(count_seen(&r, 100, 50, 1), 50);
    rk_consumer_close(k);
    cluster_deinit(&c);
}

static void test_a_state_of_another_topic_is_refused(void) {
    struct cluster c;
    cluster_init(&c);
    send_numbers(&c, 0, 10, NULL);
    const struct feat_applied beyond[] = {{0, 5000, 0}};
    struct rk_consumer *k = NULL;
    if (!CHECK_OK(rk_consumer_open(&c.conf, beyond, 1, &k)))
        return;
    enum status status = STATUS_OK;
    int64_t until = clock_mono_us() + 30000000;
    while (status == STATUS_OK && clock_mono_us() < until) {
        struct rk_message m[16];
        int n;
        bool at_end;
        status = rk_consumer_poll(k, m, 16, 200000, &n, &at_end);
        if (status == STATUS_OK)
            rk_consumer_release(k, m, n);
    }
    CHECK_FAILS(status, STATUS_FAILED_PRECONDITION, "partition 0");
    CHECK_FAILS(status, STATUS_FAILED_PRECONDITION, "state.snapshot");
    rk_consumer_close(k);
    cluster_deinit(&c);
}

static void test_reads_all_without_a_group(void) {
    struct cluster c;
    cluster_init(&c);
    send_numbers(&c, 0, 100, NULL);
    for (int round = 0; round < 2; round++) {
        struct rk_consumer *k = NULL;
        struct reading r = reading_new();
        if (!CHECK_OK(rk_consumer_open_all(&c.conf, &k)))
            break;
        CU_ASSERT_EQUAL(read_numbers(k, 1000, &r), 100);
        CHECK_OK(rk_consumer_commit(k, r.last, PARTITIONS)); /* does nothing */
        rk_consumer_close(k);
    }
    cluster_deinit(&c);
}

static const char *header(rd_kafka_headers_t *h, const char *name) {
    const void *value = NULL;
    size_t n = 0;
    return rd_kafka_header_get_last(h, name, &value, &n) ? "" : value; /* rdkafka adds a NUL */
}

static void test_dead_letters_say_where_and_why(void) {
    struct cluster c;
    cluster_init(&c);
    struct rk_producer *p = NULL;
    if (!CHECK_OK(rk_producer_open(&c.conf, &p)))
        return;
    const struct rk_message m = {
        .value = SLICE_LIT("\x01 junk"), .key = SLICE_LIT("u1"), .source = {3, 77}};
    CHECK_OK(rk_producer_dead_letter(p, "dead", &m, "events", "not an Event: broken tag"));
    CHECK_OK(rk_producer_flush(p, 10000));
    rk_producer_close(p);
    struct rk_kafka_conf dead = c.conf;
    dead.topic = "dead";
    struct rk_consumer *k = NULL;
    if (!CHECK_OK(rk_consumer_open_all(&dead, &k)))
        return;
    struct rk_message got[2];
    int n = 0;
    bool at_end = false;
    while (n == 0 && !at_end)
        CHECK_OK(rk_consumer_poll(k, got, 2, 1000000, &n, &at_end));
    CU_ASSERT_EQUAL_FATAL(n, 1);
    CU_ASSERT(slice_equal(got[0].value, m.value));
    CU_ASSERT(slice_equal(got[0].key, m.key));
    rd_kafka_headers_t *h = NULL;
    CU_ASSERT_EQUAL_FATAL(rd_kafka_message_headers(got[0].handle, &h), RD_KAFKA_RESP_ERR_NO_ERROR);
    CU_ASSERT_STRING_EQUAL(header(h, "x-topic"), "events");
    CU_ASSERT_STRING_EQUAL(header(h, "x-partition"), "3");
    CU_ASSERT_STRING_EQUAL(header(h, "x-offset"), "77");
    CU_ASSERT_STRING_EQUAL(header(h, "x-reason"), "not an Event: broken tag");
    rk_consumer_release(k, got, n);
    rk_consumer_close(k);
    cluster_deinit(&c);
}

static void test_bad_settings_and_absent_brokers(void) {
    struct rk_producer *p = NULL;
    struct rk_consumer *k = NULL;
    const char *wrong[] = {"compresion.type=lz4"};
    struct rk_kafka_conf conf = {
        .brokers = "127.0.0.1:1", .topic = "t", .group = "g", .properties = {wrong, 1}};
    CHECK_FAILS(rk_producer_open(&conf, &p), STATUS_INVALID_ARGUMENT, "compresion.type");
    CHECK_FAILS(rk_consumer_open(&conf, NULL, 0, &k), STATUS_INVALID_ARGUMENT, "compresion.type");
    wrong[0] = "novalue";
    CHECK_FAILS(rk_producer_open(&conf, &p), STATUS_INVALID_ARGUMENT, "name=value");
    conf.properties.n = 0;
    if (CHECK_OK(rk_producer_open(&conf, &p))) { /* a producer connects when it has to */
        struct slice v = SLICE_LIT("v");
        struct ev_source s = {-7, -7};
        CHECK_FAILS(rk_producer_send_wait(p, "t", &v, &v, 1, 50, &s), STATUS_DEADLINE_EXCEEDED,
                    "127.0.0.1:1");
        CU_ASSERT_EQUAL(s.partition, -7); /* outputs are written on success only */
        CHECK_OK(rk_producer_send(p, "t", v, v));
        CHECK_FAILS(rk_producer_flush(p, 50), STATUS_UNAVAILABLE, "127.0.0.1:1");
    }
    rk_producer_close(p);
    CHECK_FAILS(rk_consumer_open(&conf, NULL, 0, &k), STATUS_UNAVAILABLE, "127.0.0.1:1");
    conf.brokers = "";
    CHECK_FAILS(rk_consumer_open(&conf, NULL, 0, &k), STATUS_FAILED_PRECONDITION, "kafka.brokers");
}

SUITE("ranker_kafka", TEST(test_all_arrive_and_the_end_is_told),
      TEST(test_resumes_where_the_state_is), TEST(test_commits_only_what_is_safe),
      TEST(test_partitions_are_handed_over), TEST(test_latest_tells_what_it_leaves_out),
      TEST(test_a_state_of_another_topic_is_refused), TEST(test_reads_all_without_a_group),
      TEST(test_dead_letters_say_where_and_why), TEST(test_bad_settings_and_absent_brokers))
