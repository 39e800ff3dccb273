/* cmd_size.c: how much state a plan makes: a sample of users and items is filled, by recorded
 * events or by made-up ones (tools/fill.h), and what they take is counted, record by record. */
#include <math.h>
#include <stdio.h>
#include "base/heap.h"
#include "base/log.h"
#include "features/kind.h"
#include "ranker/config.h"
#include "tools/fill.h"
#include "tools/options.h"
#include "tools/report.h"
#include "tools/stream.h"
#include "tools/verbs.h"

struct options {
    struct option_config config;
    const char *events;
    int64_t users, items, actions, impressions, span_us;
};
static const struct conf_item items[] = {
    OPTION_CONFIG_OR(struct options, config, ""),
    CONF_INT(struct options, users, "users", "1000000", 0, 1e12, "N", "users there will be"),
    CONF_INT(struct options, items, "items", "100000", 0, 1e12, "N", "items there will be"),
    OPTION_TEXT(struct options, events, "events", "", "FILE",
                "recorded events fill the sample, instead of made-up ones"),
    CONF_INT(struct options, actions, "actions", "20", 0, 100000, "N",
             "without --events: interactions of a user, of each type the plan counts"),
    CONF_INT(struct options, impressions, "impressions", "200", 0, 10000000, "N",
             "without --events: items shown to a user"),
    CONF_TIME(struct options, span_us, "span", "30d", 1e6, 3650 * 86400e6,
              "without --events: the time they are spread over"),
    CONF_END};

enum {
    SAMPLE_USERS = 1000,
    SLATE = 10,
    /* Redis 7, of each entity: key and its header, the table's entry, the value's header, and what
     * jemalloc rounds up, half of an eighth */
    REDIS_ENTITY = 96
};

struct sample {
    struct feat_state *state;
    int64_t events, bad;
    char first_bad[300];
};

static enum status on_events(void *context, const struct ev_event *events, int n) {
    struct sample *s = context;
    s->events += n;
    return feat_state_apply(s->state, events, n, NULL);
}
static enum status on_event(void *context, const struct ev_event *e, const struct rk_message *m) {
    (void)m;
    return on_events(context, e, 1);
}
static enum status on_bad(void *context, const char *reason, const struct rk_message *m) {
    struct sample *s = context;
    if (s->bad++ == 0)
        snprintf(s->first_bad, sizeof s->first_bad, "line %lld: %s",
                 (long long)m->source.offset + 1, reason);
    return feat_state_skip(s->state, m->source);
}

static enum status read_sample(const char *path, int quiet, struct feat_state *state) {
    struct sample s = {.state = state};
    struct stream_source source = {.path = path};
    struct stream_handler handler = {
        .context = &s, .event = on_event, .bad = on_bad, .events = on_events};
    TRY(stream_read(&source, "size", quiet, &handler));
    if (s.events == 0)
        return fail(STATUS_FAILED_PRECONDITION, "%s: none of %lld lines is an event%s%s", path,
                    (long long)s.bad, s.bad > 0 ? "; " : "", s.first_bad);
    if (s.bad > 0)
        log_warn("size", "%s: %lld lines are no events and left out; %s", path, (long long)s.bad,
                 s.first_bad);
    return STATUS_OK;
}

/* Items in the sample as many per user as there will be, so that each gets its part of events. */
static void make_up(const struct options *o, const struct feat_plan *p, struct feat_state *s) {
    double per_user = o->users > 0 ? (double)o->items / (double)o->users : 1;
    int64_t n = llround(per_user * SAMPLE_USERS);
    struct fill f = {.plan = p,
                     .users = SAMPLE_USERS,
                     .items = n < 20      ? 20
                              : n > 20000 ? 20000
                                          : n,
                     .actions = o->actions,
                     .impressions = o->impressions,
                     .span_us = o->span_us,
                     .slate = SLATE};
    fill_state(&f, s);
}

static double mean(uint64_t sum, uint64_t n) { return n > 0 ? (double)sum / (double)n : NAN; }

static void report_scopes(const struct options *o, struct feat_state *s, struct report *r) {
    double memory = 0, redis = 0;
    struct feat_scope_bytes users = feat_state_scope_bytes(s, FEAT_SCOPE_USER);
    report_table(r, "scopes",
                 (const char *const[]){"scope", "sample", "record_bytes", "memory_bytes",
                                       "redis_bytes", "entities", NULL});
    for (int scope = 0; scope < FEAT_SCOPES; scope++) {
        struct feat_scope_bytes b = feat_state_scope_bytes(s, (enum feat_scope)scope);
        /* sessions grow with users; values and what is global do not */
        double n = scope == FEAT_SCOPE_USER   ? (double)o->users
                   : scope == FEAT_SCOPE_ITEM ? (double)o->items
                   : scope == FEAT_SCOPE_SESSION
                       ? mean(b.entities, users.entities) * (double)o->users
                       : (double)b.entities;
        if (b.entities == 0)
            continue;
        double in_redis = mean(b.records, b.entities) + REDIS_ENTITY;
        report_cstr(r, NULL, feat_scope_words[scope]);
        report_int(r, NULL, (int64_t)b.entities);
        report_num(r, NULL, mean(b.records, b.entities), 1);
        report_num(r, NULL, mean(b.memory, b.entities), 1);
        report_num(r, NULL, in_redis, 1);
        report_num(r, NULL, n, 0);
        memory += n * mean(b.memory, b.entities);
        redis += n * in_redis;
    }
    report_table_end(r);
    report_num(r, "memory_mb", memory / 1e6, 1);
    report_num(r, "redis_mb", redis / 1e6, 1);
}

static void report_features(struct feat_state *s, const struct feat_plan *p, struct report *r) {
    uint64_t *cells = HEAP_ARRAY(uint64_t, p->n_features + 1);
    feat_state_cell_bytes(s, cells);
    report_table(r, "features", (const char *const[]){"feature", "kind", "scope", "bytes", NULL});
    for (int i = 0; i < p->n_features; i++) {
        const struct feat *f = p->features[i];
        enum feat_scope scope = f->n_cells > 0 ? f->cells[0].scope : FEAT_SCOPE_GLOBAL;
        if (f->n_cells == 0)
            continue;
        report_cstr(r, NULL, f->name);
        report_cstr(r, NULL, f->kind->name);
        report_cstr(r, NULL, feat_scope_words[scope]);
        report_num(r, NULL, mean(cells[i], feat_state_scope_bytes(s, scope).entities), 1);
    }
    report_table_end(r);
    heap_free(cells);
}

static enum status size(const struct verb_call *call, const struct options *o,
                        const struct feat_plan *p) {
    struct report r;
    struct feat_state *s = feat_state_new(p);
    enum status status = STATUS_OK;
    if (*o->events != '\0')
        status = read_sample(o->events, call->quiet, s);
    else
        make_up(o, p, s);
    if (status == STATUS_OK) {
        report_begin(&r, call->json);
        report_scopes(o, s, &r);
        report_features(s, p, &r);
        status = report_end(&r, stdout);
    }
    feat_state_free(s);
    return status;
}

static enum status run(const struct verb_call *call, void *options) {
    const struct options *o = options;
    struct option_config config = o->config;
    struct rk_config *c;
    if (call->n_operands == 1)
        config.path = call->operands[0];
    if (*config.path == '\0')
        return fail(STATUS_INVALID_ARGUMENT, "which plan? moerank size --help");
    TRY(option_config_load(&config, &c));
    enum status status =
        c->plan != NULL ? size(call, o, c->plan)
                        : fail(STATUS_FAILED_PRECONDITION, "%s: no section 'features'", c->file);
    rk_config_free(c);
    return status;
}

static const struct verb verb = {
    .name = "size",
    .operands = "PLAN",
    .operands_max = 1,
    .about =
        "Bytes that a user, an item and a session take with a plan, what each feature adds, and "
        "what so many users and items need, in memory and in Redis. A sample of a thousand users "
        "is filled with made-up events, or with recorded ones, and its records are counted: with "
        "the events of a system the figures are that system's. A feature's bytes are those of one "
        "of its scope; a value is that of an item's field, or a combination.",
    .example = "moerank size moerank.yaml --users 10000000 --items 200000\n"
               "moerank size moerank.yaml --events events.jsonl.gz --users 10000000 --items 200000",
    .items = items,
    .bytes = sizeof(struct options),
    .run = run,
};

enum status cmd_size(int argc, char **argv) { return verb_main(&verb, argc, argv); }
