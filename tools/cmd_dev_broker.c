/* cmd_dev_broker.c: librdkafka's mock cluster as a process of its own: Kafka's protocol over
 * loopback TCP without Java, for demo, tests and first steps. Deliberately nothing more: no disk,
 * no choice of port, no authentication; see the notice. */
#include <errno.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
#include "base/io.h"
#include "tools/options.h"
#include "tools/verbs.h"

struct options {
    int64_t brokers, partitions;
    const char *topics, *address_file;
    bool with_parent;
};
static const struct conf_item items[] = {
    CONF_INT(struct options, brokers, "brokers", "1", 1, 16, "N", "brokers of the cluster"),
    CONF_INT(struct options, partitions, "partitions", "16", 1, 1024, "N", "of each topic"),
    OPTION_TEXT(struct options, topics, "topics", "events,events-dead", "A,B", "topics to create"),
    OPTION_TEXT(struct options, address_file, "address-file", "", "FILE",
                "the address is written here once it can be connected to"),
    CONF_BOOL(struct options, with_parent, "with-parent", "false",
              "ends when the process that started it ends"),
    CONF_END};

static const char notice[] =
    "nothing is kept: all events are gone when it ends, and of each partition only the newest\n"
    "5 MiB or 100000 batches are held, older ones vanish silently. For trying things out only.";

struct cluster {
    rd_kafka_t *rk; /* the mock lives inside a client */
    rd_kafka_mock_cluster_t *mock;
};

static enum status start(const struct options *o, struct cluster *c) {
    char reason[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "log_level", "4", NULL, 0); /* it need not say that it has no brokers */
    c->rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, reason, sizeof reason);
    if (!c->rk)
        return fail(STATUS_UNAVAILABLE, "librdkafka: %s", reason);
    c->mock = rd_kafka_mock_cluster_new(c->rk, (int)o->brokers);
    if (!c->mock)
        return fail(STATUS_UNAVAILABLE, "librdkafka's mock cluster did not start");
    return STATUS_OK;
}

static enum status create_topics(const struct options *o, struct cluster *c, struct arena *a) {
    for (const char *p = o->topics; *p;) {
        size_t n = strcspn(p, ",");
        const char *topic = arena_strdup(a, (struct slice){p, n});
        p += n + (p[n] == ',');
        if (n == 0)
            continue;
        rd_kafka_resp_err_t err = rd_kafka_mock_topic_create(c->mock, topic, (int)o->partitions, 1);
        if (err)
            return fail(STATUS_INVALID_ARGUMENT, "topic '%s': %s", topic, rd_kafka_err2str(err));
    }
    return STATUS_OK;
}

static enum status announce(const struct options *o, const struct cluster *c, bool json,
                            bool quiet) {
    const char *address = rd_kafka_mock_cluster_bootstraps(c->mock);
    if (json)
        printf("{\"brokers\":\"%s\",\"pid\":%d}\n", address, (int)getpid());
    else
        printf("%s\n", address);
    fflush(stdout);
    if (!quiet)
        fprintf(stderr, "moerank dev-broker: listening on %s\n%s\n", address, notice);
    return *o->address_file ? io_write_file(o->address_file, slice_of(address)) : STATUS_OK;
}

static enum status run(const struct verb_call *call, void *options) {
    const struct options *o = options;
    struct cluster c = {0};
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL); /* before librdkafka's threads, which inherit it */
    pid_t parent = getppid();
    if (o->with_parent && prctl(PR_SET_PDEATHSIG, SIGTERM) != 0)
        return fail(STATUS_UNIMPLEMENTED, "--with-parent: %s", strerror(errno));
    if (o->with_parent && getppid() != parent)
        return STATUS_OK; /* it ended before we asked */
    enum status status = start(o, &c);
    if (status == STATUS_OK)
        status = create_topics(o, &c, call->arena);
    if (status == STATUS_OK)
        status = announce(o, &c, call->json, call->quiet);
    int got;
    if (status == STATUS_OK)
        sigwait(&ends, &got);
    if (*o->address_file)
        unlink(o->address_file); /* nobody answers there any more */
    if (c.mock)
        rd_kafka_mock_cluster_destroy(c.mock);
    if (c.rk)
        rd_kafka_destroy(c.rk);
    return status;
}

static const struct verb verb = {
    .name = "dev-broker",
    .about =
        "Runs a Kafka broker in memory (librdkafka's mock cluster) on a free loopback port, prints "
        "its address and runs until SIGTERM or SIGINT. Producers, consumer groups and offsets "
        "work; nothing is kept when it ends, and of each partition only the newest 5 MiB or "
        "100000 batches are held. A group whose last member has left can be joined again only "
        "after its session time-out (45 s; kafka.properties: session.timeout.ms=6000), so give "
        "each process a group of its own. For trying things out and for tests, never for data.",
    .example = "moerank dev-broker --address-file /tmp/kafka &\n"
               "moerank serve --config moerank.yaml --set kafka.brokers=$(cat /tmp/kafka)",
    .items = items,
    .bytes = sizeof(struct options),
    .run = run,
};

enum status cmd_dev_broker(int argc, char **argv) { return verb_main(&verb, argc, argv); }
