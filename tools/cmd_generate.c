/* cmd_generate.c: a synthetic stream to a file, to stdout or into Kafka (tools/synth.h draws it).
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "ranker/config.h"
#include "ranker/kafka.h"
#include "tools/options.h"
#include "tools/report.h"
#include "tools/synth.h"
#include "tools/verbs.h"

enum { FORMAT_JSON, FORMAT_PROTOBUF };

struct options {
    struct option_config config;
    int shape, format;
    const char *to;
    bool kafka;
    int64_t events, users, items, seed, slate, pool;
    int64_t start_us, span_us, late_by_us;
    double malformed, late, bias, epsilon, temperature;
};

static const struct conf_item items[] = {
    CONF_ENUM(struct options, shape, "shape", "rankings", "rankings|ratings",
              "lists with clicks, likes and orders; or ratings of one to five stars"),
    CONF_INT(struct options, events, "events", "0", 0, 1e12, "N",
             "good events in all, item and user events first; 0: 100000, of ratings as many as "
             "MovieLens-100K makes (102625)"),
    CONF_INT(struct options, users, "users", "0", 0, 1e9, "N", "0: 1000, of ratings 943"),
    CONF_INT(struct options, items, "items", "0", 0, 1e9, "N", "0: 500, of ratings 1682"),
    CONF_INT(struct options, seed, "seed", "1", 0, 9e15, "N", "equal seeds give equal bytes"),
    CONF_INT(struct options, slate, "slate", "10", 1, SYNTH_POOL_MAX, "N",
             "items shown in a ranking; ratings given in a visit, about"),
    CONF_INT(
        struct options, pool, "pool", "0", 0, SYNTH_POOL_MAX, "N",
        "items retrieved to choose the slate from; 0: the slate itself, only its order is chosen"),
    CONF_FLOAT(struct options, bias, "bias", "0.5", 0, 5, "N",
               "a place k is looked at with probability k^-N"),
    CONF_FLOAT(struct options, epsilon, "epsilon", "0.1", 0, 1, "SHARE",
               "of uniform choices in the logging policy"),
    CONF_FLOAT(struct options, temperature, "temperature", "1", 0.01, 100, "N",
               "of the logging policy's softmax"),
    CONF_FLOAT(struct options, malformed, "malformed", "0", 0, 10, "SHARE",
               "undecodable or invalid lines per good event, beside them"),
    CONF_FLOAT(struct options, late, "late", "0", 0, 1, "SHARE",
               "of events that reach the log late and out of order"),
    CONF_TIME(struct options, late_by_us, "late-by", "10m", 1, 30 * 86400e6,
              "... by at most so much"),
    CONF_INT(struct options, start_us, "start", "1767225600000000", 1e12, 9e15, "MICROSECONDS",
             "event time of the first visit, since 1970"),
    CONF_TIME(struct options, span_us, "span", "7d", 1e6, 3650 * 86400e6,
              "event time the stream covers, about"),
    OPTION_TEXT(struct options, to, "to", "-", "FILE", "where to; - is stdout"),
    CONF_BOOL(struct options, kafka, "kafka", "false",
              "into the topic of --config instead, keyed by user or item"),
    CONF_ENUM(struct options, format, "format", "json", "json|protobuf",
              "one JSON line an event; protobuf only into Kafka"),
    OPTION_CONFIG_OR(struct options, config, ""),
    CONF_END};

/* ---- where it goes ----------------------------------------------------------------------------
 */

struct target {
    const char *path;
    FILE *file;
    struct rk_config *config;
    struct rk_producer *producer;
};

static enum status to_file(void *context, const struct synth_message *m) {
    struct target *t = context;
    if (fwrite(m->bytes.p, 1, m->bytes.n, t->file) != m->bytes.n || putc('\n', t->file) == EOF)
        return fail(STATUS_RESOURCE_EXHAUSTED, "%s: %s", t->path, strerror(errno));
    return STATUS_OK;
}

static enum status to_kafka(void *context, const struct synth_message *m) {
    struct target *t = context;
    return rk_producer_send(t->producer, t->config->kafka.topic, m->key, m->bytes);
}

static enum status open_target(const struct options *o, struct target *t) {
    if (o->kafka) {
        TRY(option_config_load(&o->config, &t->config));
        return rk_producer_open(&t->config->kafka, &t->producer);
    }
    if (o->format == FORMAT_PROTOBUF)
        return fail(STATUS_INVALID_ARGUMENT,
                    "--format protobuf needs --kafka: in a file, messages have no ends");
    t->path = o->to;
    t->file = strcmp(o->to, "-") == 0 ? stdout : fopen(o->to, "wb");
    if (!t->file)
        return fail(STATUS_NOT_FOUND, "%s: %s", o->to, strerror(errno));
    setvbuf(t->file, NULL, _IOFBF, 1 << 20);
    return STATUS_OK;
}

static enum status finish_target(struct target *t) {
    if (t->producer)
        return rk_producer_flush(t->producer, 60000);
    if (fflush(t->file) != 0 || ferror(t->file))
        return fail(STATUS_RESOURCE_EXHAUSTED, "%s: %s", t->path, strerror(errno));
    return STATUS_OK;
}

static void close_target(struct target *t) {
    rk_producer_close(t->producer);
    rk_config_free(t->config);
    if (t->file && t->file != stdout)
        fclose(t->file);
}

/* ---- what came of it --------------------------------------------------------------------------
 */

static void report_counts(struct report *r, const struct synth_result *s) {
    report_group(r, "by_kind");
    report_int(r, "item", s->items);
    report_int(r, "user", s->users);
    report_int(r, "ranking", s->rankings);
    report_int(r, "click", s->clicks);
    report_int(r, "like", s->likes);
    report_int(r, "order", s->orders);
    report_int(r, "rating", s->ratings);
    report_group_end(r);
}

static enum status print_result(const struct options *o, const struct synth_result *s, bool as_json,
                                double seconds, FILE *file) {
    struct report r;
    int64_t events =
        s->items + s->users + s->rankings + s->clicks + s->likes + s->orders + s->ratings;
    report_begin(&r, as_json);
    report_int(&r, "events", events);
    report_int(&r, "malformed", s->malformed);
    report_int(&r, "late", s->late);
    report_counts(&r, s);
    report_time(&r, "first_us", s->first_us);
    report_time(&r, "last_us", s->last_us);
    if (o->shape == SYNTH_RANKINGS)
        report_num(&r, "click_rate", s->shown_click_rate, 4);
    report_group(&r, "ceiling_auc");
    for (int k = 0; k < SYNTH_AUCS; k++)
        if (!isnan(s->auc[k]))
            report_num(&r, synth_auc_words[k], s->auc[k], 4);
    report_group_end(&r);
    if (o->shape == SYNTH_RANKINGS) {
        report_group(&r, "click_ndcg10");
        report_num(&r, "truth", s->ndcg10_truth, 4);
        report_num(&r, "shown", s->ndcg10_shown, 4);
        report_group_end(&r);
    }
    report_num(&r, "seconds", seconds, 2);
    report_num(&r, "events_per_s", seconds > 0 ? (double)events / seconds : NAN, 0);
    return report_end(&r, file);
}

static struct synth_conf conf_of(const struct options *o) {
    bool ratings = o->shape == SYNTH_RATINGS;
    struct synth_conf c = {.shape = o->shape == SYNTH_RATINGS ? SYNTH_RATINGS : SYNTH_RANKINGS,
                           .slate = o->slate,
                           .pool = o->pool,
                           .start_us = o->start_us,
                           .span_us = o->span_us,
                           .malformed = o->malformed,
                           .late = o->late,
                           .late_by_us = o->late_by_us,
                           .protobuf = o->format == FORMAT_PROTOBUF};
    c.events = o->events ? o->events : ratings ? 102625 : 100000;
    c.world = (struct world_conf){.users = o->users  ? o->users
                                           : ratings ? 943
                                                     : 1000,
                                  .items = o->items  ? o->items
                                           : ratings ? 1682
                                                     : 500,
                                  .seed = o->seed,
                                  .bias = o->bias,
                                  .epsilon = o->epsilon,
                                  .temperature = o->temperature};
    return c;
}

static enum status run(const struct verb_call *call, void *options) {
    const struct options *o = options;
    struct target t = {0};
    struct synth_conf conf = conf_of(o);
    struct synth_sink sink = {&t, o->kafka ? to_kafka : to_file};
    struct synth_result result;
    int64_t start_us = clock_mono_us();
    enum status status = open_target(o, &t);
    if (status == STATUS_OK)
        status = synth_run(&conf, &sink, call->quiet, &result);
    if (status == STATUS_OK)
        status = finish_target(&t);
    double seconds = (double)(clock_mono_us() - start_us) * 1e-6;
    bool to_stdout = t.file == stdout;
    close_target(&t);
    TRY(status);
    if (to_stdout && call->quiet && !call->json)
        return STATUS_OK;
    return print_result(o, &result, call->json, seconds, to_stdout ? stderr : stdout);
}

static const struct verb verb = {
    .name = "generate",
    .about =
        "Draws events from a made-up shop whose truth is known: users with segments, items with "
        "quality, genres and a price, three conflicting tasks, position bias and logged "
        "propensities; docs/generate.md has the formulas. Any number of events in constant "
        "memory, equal bytes for equal options. Beside the counts it prints the AUC that the "
        "true probabilities reach: no model can do better. With the events on stdout, these go "
        "to stderr.",
    .example = "moerank generate --events 1000000 --users 50000 --items 2000 --to events.jsonl\n"
               "moerank generate --kafka --config docs/examples/synthetic.yaml --malformed 0.01",
    .items = items,
    .bytes = sizeof(struct options),
    .run = run,
};

enum status cmd_generate(int argc, char **argv) { return verb_main(&verb, argc, argv); }
