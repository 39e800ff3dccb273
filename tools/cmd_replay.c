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
    bool evaluate;
    int64_t since_us, seed;
};
static const struct conf_item items[] = {
    OPTION_CONFIG(struct options, config),
    OPTION_TEXT(struct options, requests, "requests", "", "FILE",
                "served requests (log.requests of the server), to be made again"),
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

static enum status compare(const struct verb_call *call, const struct options *o,
                           const struct rk_config *c, const struct rk_bundle *b) {
    struct replay_result result;
    struct report r;
    struct stream_source source = {*o->events ? o->events : NULL, &c->kafka};
    TRY(replay_requests(b, c->plan, o->requests, &source, *o->state ? o->state : NULL, call->quiet,
                        &result));
    report_begin(&r, call->json);
    report_cstr(&r, "model_version", moe_model_version(b->model));
    report_int(&r, "requests", result.requests);
    report_int(&r, "compared", result.compared);
    report_int(&r, "equal", result.equal);
    report_int(&r, "different", result.compared - result.equal);
    report_int(&r, "cached", result.cached);
    report_int(&r, "other_model", result.other_model);
    report_num(&r, "greatest_difference", result.greatest_difference, 9);
    TRY(report_end(&r, stdout));
    if (result.compared > result.equal)
        return fail(STATUS_DATA_LOSS, "%lld of %lld requests differ; the first: %s",
                    (long long)(result.compared - result.equal), (long long)result.compared,
                    result.first_difference);
    if (result.compared == 0)
        return fail(STATUS_FAILED_PRECONDITION,
                    "%s: of %lld requests none could be compared (%lld "
                    "from the cache, %lld by another model)",
                    o->requests, (long long)result.requests, (long long)result.cached,
                    (long long)result.other_model);
    return STATUS_OK;
}

static enum status replay(const struct verb_call *call, const struct options *o,
                          const struct rk_config *c) {
    struct rk_bundle *b;
    const char *model = *o->model ? o->model : c->serving.path;
    if (o->evaluate == (*o->requests != 0))
        return fail(STATUS_INVALID_ARGUMENT, "give either --requests or --evaluate");
    if (!c->plan)
        return fail(STATUS_FAILED_PRECONDITION, "%s: no section 'features'", c->file);
    if (!*model)
        return fail(STATUS_INVALID_ARGUMENT, "which model? give --model, or set serving.path");
    TRY(rk_bundle_open(model, c->plan, c, &b));
    enum status status = o->evaluate ? judge(call, o, c, b) : compare(call, o, c, b);
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
        "from the result cache are left out). With --evaluate: every example of recorded events is "
        "scored by what was known just before it; AUC per task, over all and within users, "
        "calibration, and NDCG@10 per list, against the item's rate so far, its popularity, chance "
        "and the order shown.",
    .example =
        "moerank replay --config moerank.yaml --requests requests.log\n"
        "moerank replay --config moerank.yaml --evaluate --events events.jsonl --model model.safetensors",
    .exits = "1: some requests differ",
    .items = items,
    .bytes = sizeof(struct options),
    .run = run,
};

enum status cmd_replay(int argc, char **argv) { return verb_main(&verb, argc, argv); }
