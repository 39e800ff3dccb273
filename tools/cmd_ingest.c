/* cmd_ingest.c: state without serving: events from Kafka (or a file) are applied and snapshots
 * written, until a signal or the end. For catching up, for tests of recovery, for another process
 * to start from the snapshot. */
#include <signal.h>
#include <stdio.h>
#include "base/clock.h"
#include "base/log.h"
#include "base/progress.h"
#include "ranker/ingest.h"
#include "tools/options.h"
#include "tools/report.h"
#include "tools/stream.h"
#include "tools/verbs.h"

struct options {
    struct option_config config;
    const char *file, *state, *dump;
    bool until_end;
};
static const struct conf_item items[] = {
    OPTION_CONFIG(struct options, config),
    OPTION_TEXT(
        struct options, file, "file", "", "EVENTS",
        "JSON lines, plain or compressed, instead of Kafka; partition 0, offset = line - 1"),
    CONF_BOOL(struct options, until_end, "until-end", "false",
              "ends when every partition has been read to its end"),
    OPTION_TEXT(struct options, state, "state", "", "FILE",
                "instead of the settings' state.snapshot"),
    OPTION_TEXT(struct options, dump, "dump", "", "FILE",
                "at the end, writes the state as canonical text (moerank dump)"),
    CONF_END};

static volatile sig_atomic_t ended;
static struct feat_state *volatile at_work; /* a writer that may be waiting for its store */
static void on_signal(int number) {
    (void)number;
    ended = 1;
    if (at_work)
        feat_state_interrupt(at_work);
}

struct ingest {
    struct rk_config *config;
    struct feat_state *state;
    struct rk_ingest_counts counts;
    int64_t late, first_late_line;
    double seconds;
    enum feat_verdict verdicts[STREAM_RUN_MAX];
};

/* ---- from Kafka -------------------------------------------------------------------------------
 */

static enum status follow(struct ingest *g, bool until_end, int quiet) {
    struct rk_ingest *ingest;
    struct progress p;
    bool at_end = false;
    enum status status = STATUS_OK;
    TRY(rk_ingest_open(g->config, g->state, NULL, &ingest));
    progress_start(&p, "ingest", "events", 0, quiet);
    while (status == STATUS_OK && !ended && !(until_end && at_end)) {
        status = rk_ingest_step(ingest, &at_end);
        g->counts = rk_ingest_counts(ingest);
        progress_at(&p, (int64_t)g->counts.received);
    }
    if (status == STATUS_CANCELLED && ended)
        status = STATUS_OK;
    if (status == STATUS_OK)
        progress_end(&p);
    rk_ingest_close(ingest); /* last snapshot, commit */
    return status;
}

/* ---- from a file ------------------------------------------------------------------------------
 */

static void count(struct ingest *g, enum feat_verdict verdict, int64_t line) {
    if (verdict == FEAT_LATE && g->late == 0)
        g->first_late_line = line;
    g->counts.received++;
    g->counts.applied += verdict == FEAT_APPLIED;
    g->counts.repeated += verdict == FEAT_REPEATED;
    g->counts.dead_lettered += verdict == FEAT_LATE;
    g->late += verdict == FEAT_LATE;
}

/* Once, at the end: thousands of lines alike would say no more. */
static void say_late(const struct ingest *g) {
    const struct feat_plan *p = g->config->plan;
    if (g->late > 0)
        log_warn("ingest",
                 "%lld events came later than %.0f s (lateness) or bear a time further ahead than "
                 "%.0f s (ahead), and are left out; the first: line %lld",
                 (long long)g->late, (double)p->lateness_us / 1e6, (double)p->ahead_us / 1e6,
                 (long long)g->first_late_line);
}

static enum status on_events(void *context, const struct ev_event *events, int n) {
    struct ingest *g = context;
    if (ended)
        return fail(STATUS_CANCELLED, "stopped by a signal after %llu events",
                    (unsigned long long)g->counts.received);
    TRY(feat_state_apply(g->state, events, n, g->verdicts));
    for (int i = 0; i < n; i++)
        count(g, g->verdicts[i], events[i].source.offset + 1);
    return STATUS_OK;
}

static enum status on_bad(void *context, const char *reason, const struct rk_message *m) {
    struct ingest *g = context;
    log_warn("ingest", "line %lld: %s", (long long)m->source.offset + 1, reason);
    TRY(feat_state_skip(g->state, m->source));
    g->counts.received++;
    g->counts.dead_lettered++;
    return STATUS_OK;
}

static enum status read_file(struct ingest *g, const char *path, int quiet) {
    struct stream_source source = {.path = path};
    struct stream_handler handler = {.context = g, .events = on_events, .bad = on_bad};
    TRY(fail_in(feat_state_claim_log(g->state, FEAT_LOG_FILE), "state"));
    TRY(stream_read(&source, "ingest", quiet, &handler));
    say_late(g);
    const char *snapshot = g->config->state.snapshot;
    return *snapshot ? feat_state_save(g->state, snapshot) : STATUS_OK;
}

/* ---- the verb ---------------------------------------------------------------------------------
 */

static enum status print_result(const struct ingest *g, bool json) {
    struct report r;
    struct feat_state_size size = feat_state_size(g->state);
    double per_s = g->seconds > 0 ? (double)g->counts.received / g->seconds : 0;
    report_begin(&r, json);
    report_int(&r, "received", (int64_t)g->counts.received);
    report_int(&r, "applied", (int64_t)g->counts.applied);
    report_int(&r, "repeated", (int64_t)g->counts.repeated);
    report_int(&r, "dead_lettered", (int64_t)g->counts.dead_lettered);
    report_int(&r, "users", (int64_t)size.entities[FEAT_SCOPE_USER]);
    report_int(&r, "items", (int64_t)size.entities[FEAT_SCOPE_ITEM]);
    report_int(&r, "sessions", (int64_t)size.entities[FEAT_SCOPE_SESSION]);
    report_int(&r, "state_bytes", (int64_t)size.bytes);
    report_num(&r, "seconds", g->seconds, 2);
    report_num(&r, "events_per_s", per_s, 0);
    return report_end(&r, stdout);
}

static enum status ingest(const struct verb_call *call, const struct options *o, struct ingest *g) {
    struct rk_config *c = g->config;
    log_setup((enum log_level)c->log.level, c->log.json);
    if (*o->state)
        c->state.snapshot = o->state;
    TRY(rk_state_open(c, &g->state));
    at_work = g->state;
    int64_t start_us = clock_mono_us();
    if (*o->file)
        TRY(read_file(g, o->file, call->quiet));
    else
        TRY(follow(g, o->until_end, call->quiet));
    g->seconds = (double)(clock_mono_us() - start_us) * 1e-6;
    if (*o->dump)
        TRY(feat_state_dump(g->state, 0, o->dump));
    return print_result(g, call->json);
}

static enum status run(const struct verb_call *call, void *options) {
    const struct options *o = options;
    static struct ingest g;
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    TRY(option_config_load(&o->config, &g.config));
    enum status status = ingest(call, o, &g);
    at_work = NULL;
    feat_state_free(g.state);
    rk_config_free(g.config);
    return status;
}

static const struct verb verb = {
    .name = "ingest",
    .about =
        "Applies events from the settings' Kafka topic, or from a file, to the state and writes "
        "snapshots, without serving. It goes on from the snapshot if there is one. Bad and late "
        "events go to the dead-letter topic (of a file: they are logged and counted). Runs until "
        "SIGTERM, SIGINT or, with --until-end, the end of the topic.",
    .example = "moerank ingest --config moerank.yaml --until-end --dump state.jsonl\n"
               "moerank ingest --config moerank.yaml --file events.jsonl.zst --state state.snap",
    .items = items,
    .bytes = sizeof(struct options),
    .run = run,
};

enum status cmd_ingest(int argc, char **argv) { return verb_main(&verb, argc, argv); }
