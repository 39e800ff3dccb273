/* cmd_replay.c: the past once more. Logged requests are ranked again by the state as it was then
 * and must give the same bits; or (--evaluate) a model is judged on recorded events. */
#include <stdio.h>
#include <string.h>
#include "ranker/rank.h"
#include "tools/evaluate.h"
#include "tools/options.h"
#include "tools/replay.h"
#include "tools/report.h"
#include "tools/verbs.h"

struct options {
    struct option_config config;
    const char *requests, *events, *model, *state;
    bool evaluate, check_skew;
    int64_t since_us, seed;
};
static const struct conf_item items[] = {
    OPTION_CONFIG(struct options, config),
    OPTION_TEXT(struct options, requests, "requests", "", "FILE",
                "served requests (log.requests of the server), to be made again"),
    CONF_BOOL(struct options, check_skew, "check-skew", "false",
              "makes the rows of served requests again from the events and counts, for each "
              "feature, the bits that differ; without --requests those of the settings' "
              "log.requests_topic, or log.requests; scores are compared where there is a model"),
    OPTION_TEXT(struct options, events, "events", "", "FILE",
                "JSON lines instead of the settings' Kafka topic"),
    OPTION_TEXT(struct options, model, "model", "", "FILE",
                "instead of the settings' serving.path"),
    OPTION_TEXT(struct options, state, "state", "", "FILE",
                "a snapshot to start from, where the topic no longer holds all"),
    CONF_BOOL(
        struct options, evaluate, "evaluate", "false",
        "judges the model on the events instead: each example by what was known just before it"),
    CONF_INT(
        struct options, since_us, "since", "-1", -1, 9e18, "MICROSECONDS",
        "of --evaluate: only examples after that time; -1: after the model's last event, if any"),
    CONF_INT(struct options, seed, "seed", "1", 0, 9e15, "N",
             "of --evaluate: of sampled negatives and of the random order"),
    CONF_END};

static enum status judge(const struct verb_call *call, const struct options *o,
                         const struct rk_config *c, const struct rk_bundle *b) {
    struct report r;
    struct evaluate_options how = {.events = *o->events ? o->events : NULL,
                                   .since_us = o->since_us,
                                   .seed = o->seed,
                                   .quiet = call->quiet};
    report_begin(&r, call->json);
    report_cstr(&r, "model_version", moe_model_version(b->model));
    enum status status = evaluate(b, c, &how, call->arena, &r);
    if (status == STATUS_OK)
        return report_end(&r, stdout);
    report_drop(&r);
    return status;
}

static void report_rows(const struct replay_result *result, const struct skew *skew,
                        struct report *r) {
    report_group(r, "rows");
    report_int(r, "requests", result->rows_requests);
    report_int(r, "equal", result->rows_equal);
    report_int(r, "candidates", skew->rows);
    report_int(r, "differing_bits", skew->bits);
    report_int(r, "ahead", result->ahead);
    report_int(r, "other_plan", result->other_plan);
    report_int(r, "without_store", result->without_store);
    report_int(r, "passes", result->passes);
    skew_report(skew, r);
    report_group_end(r);
}

static enum status report_requests(const struct verb_call *call, const struct options *o,
                                   const struct rk_bundle *b, const struct replay_result *result,
                                   const struct skew *skew) {
    struct report r;
    report_begin(&r, call->json);
    report_int(&r, "requests", result->requests);
    if (b) {
        report_cstr(&r, "model_version", moe_model_version(b->model));
        report_int(&r, "compared", result->compared);
        report_int(&r, "equal", result->equal);
        report_int(&r, "different", result->compared - result->equal);
    }
    report_int(&r, "cached", result->cached);
    if (b) {
        report_int(&r, "other_model", result->other_model);
        report_num(&r, "greatest_difference", result->greatest_difference, 9);
    }
    if (o->check_skew)
        report_rows(result, skew, &r);
    return report_end(&r, stdout);
}

static enum status judge_skew(const struct replay_result *result, const struct skew *skew) {
    if (result->rows_requests > result->rows_equal)
        return fail(STATUS_DATA_LOSS,
                    "rows of %lld of %lld requests differ, in %lld bits; the first: %s",
                    (long long)(result->rows_requests - result->rows_equal),
                    (long long)result->rows_requests, (long long)skew->bits, skew->first);
    if (result->rows_requests == 0)
        return fail(STATUS_FAILED_PRECONDITION,
                    "of %lld requests no rows could be compared (%lld from the cache, %lld without "
                    "rows of this plan: log.rows, %lld served without the store)",
                    (long long)result->requests, (long long)result->cached,
                    (long long)result->other_plan, (long long)result->without_store);
    return STATUS_OK;
}

static enum status judge_scores(const char *log, const struct replay_result *result) {
    if (result->compared > result->equal)
        return fail(STATUS_DATA_LOSS, "%lld of %lld requests differ; the first: %s",
                    (long long)(result->compared - result->equal), (long long)result->compared,
                    result->first_difference);
    if (result->compared == 0)
        return fail(STATUS_FAILED_PRECONDITION,
                    "%s: of %lld requests none could be compared (%lld "
                    "from the cache, %lld by another model)",
                    log, (long long)result->requests, (long long)result->cached,
                    (long long)result->other_model);
    return STATUS_OK;
}

static enum status compare(const struct verb_call *call, const struct options *o,
                           const struct rk_config *c, const struct rk_bundle *b) {
    struct replay_result result;
    struct skew skew;
    struct stream_source source = {*o->events ? o->events : NULL, &c->kafka};
    struct replay_options how = {.bundle = b,
                                 .plan = c->plan,
                                 .log = *o->requests ? o->requests : NULL,
                                 .source = &source,
                                 .state = *o->state ? o->state : NULL,
                                 .buckets = (int)c->state.store.buckets,
                                 .quiet = call->quiet};
    if (!how.log && *c->log.requests_topic)
        how.topic = c->log.requests_topic;
    else if (!how.log)
        how.log = c->log.requests;
    skew_init(&skew, c->plan);
    enum status status = replay_requests(&how, &skew, &result);
    if (status == STATUS_OK)
        status = report_requests(call, o, b, &result, &skew);
    if (status == STATUS_OK && o->check_skew)
        status = judge_skew(&result, &skew);
    if (status == STATUS_OK && b && !(o->check_skew && result.compared == 0))
        status = judge_scores(how.log ? how.log : how.topic, &result);
    skew_deinit(&skew);
    return status;
}

static enum status replay(const struct verb_call *call, const struct options *o,
                          const struct rk_config *c) {
    struct rk_bundle *b = NULL;
    const char *model = *o->model ? o->model : c->serving.path;
    bool served = *o->requests || o->check_skew;
    if (o->evaluate == served)
        return fail(STATUS_INVALID_ARGUMENT, "give one of --requests, --check-skew and --evaluate");
    if (!c->plan)
        return fail(STATUS_FAILED_PRECONDITION, "%s: no section 'features'", c->file);
    if (!*model && !o->check_skew)
        return fail(STATUS_INVALID_ARGUMENT, "which model? give --model, or set serving.path");
    if (o->check_skew && !*o->requests && !*c->log.requests && !*c->log.requests_topic)
        return fail(STATUS_INVALID_ARGUMENT,
                    "which requests? give --requests, or set log.requests or log.requests_topic");
    if (*model)
        TRY(rk_bundle_open(model, c->plan, c, &b));
    enum status status = o->evaluate ? judge(call, o, c, b) : compare(call, o, c, b);
    if (b)
        rk_bundle_release(b);
    return status;
}
static enum status run(const struct verb_call *call, void *options) {
    const struct options *o = options;
    struct rk_config *c;
    TRY(option_config_load(&o->config, &c));
    enum status status = replay(call, o, c);
    rk_config_free(c);
    return status;
}

static const struct verb verb = {
    .name = "replay",
    .about =
        "Makes the past again. With --requests: each request that a server logged is ranked again "
        "by the state as it was then, made from the same events, and compared bit for bit (answers "
        "from the result cache are left out). With --check-skew: the rows that were served are made "
        "again, too, and compared feature by feature. With --evaluate: every example of recorded events is "
        "scored by what was known just before it; AUC per task, over all and within users, "
        "calibration, and NDCG@10 per list, against the item's rate so far, its popularity, chance "
        "and the order shown.",
    .example =
        "moerank replay --config moerank.yaml --requests requests.log\n"
        "moerank replay --config moerank.yaml --check-skew\n"
        "moerank replay --config moerank.yaml --evaluate --events events.jsonl --model model.safetensors",
    .exits = "1: some requests or rows differ",
    .items = items,
    .bytes = sizeof(struct options),
    .run = run,
};

enum status cmd_replay(int argc, char **argv) { return verb_main(&verb, argc, argv); }
