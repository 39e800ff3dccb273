/* ingest.c: the write path. A snapshot holds state and offsets; it is written only once the dead
 * letters of what it covers are delivered, and Kafka's commits follow it. So after a crash the
 * topic is read again from the snapshot's offsets: events it has are repeats and change nothing,
 * dead letters may come twice but never not at all.
 *
 * Deliberately one thread: applying is a microsecond an event, and one writer needs no locks among
 * writers. A second one that decodes would find nothing to do: behind a broker on the same machine
 * this one computes a third of the time (tools/bench ingest --parts kafka). More throughput is more
 * processes in the group, each with its partitions. */
#include "ranker/ingest.h"
#include <stdio.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/io.h"
#include "base/log.h"
#include "base/metric.h"

enum { FLUSH_MS = 10000, LAG_EVERY_US = 200 * 1000, LOOK_BACK = 1000, REASON_BYTES = 400 };

struct rk_ingest {
    const struct rk_config *conf;
    struct feat_state *state;
    struct rk_ingest_hooks hooks;
    struct rk_consumer *consumer;
    struct rk_producer *producer; /* of dead letters; NULL: they are only counted */
    struct arena arena;           /* of the micro-batch */
    struct rk_message *messages;  /* [batch_events] */
    struct ev_event *events;      /* [batch_events] the good ones */
    enum feat_verdict *verdicts;  /* [batch_events] */
    int *from;                    /* [batch_events] an event's message */
    int *bad;                     /* [batch_events] messages that are no events */
    struct rk_ingest_counts counts;
    int64_t saved_us, lag_us;
    bool dirty;  /* the state is ahead of its snapshot */
    bool astray; /* the consumer is ahead of the state: it starts anew from where that is */
    bool unsafe; /* dead letters were lost: no snapshot may cover them */
};

enum status rk_state_open(const struct rk_config *c, struct feat_state **out) {
    if (!c->plan)
        return fail(STATUS_FAILED_PRECONDITION, "%s: no features; a state needs its plan", c->file);
    if (c->state.store.kind == FEAT_STORE_REDIS)
        return fail_in(feat_state_open(c->plan, &c->state.store, out), "state");
    if (!*c->state.snapshot || !io_exists(c->state.snapshot)) {
        log_info("ingest", "%s: the state starts empty",
                 *c->state.snapshot ? "no snapshot yet" : "no snapshot is kept (state.snapshot)");
        return feat_state_open(c->plan, &c->state.store, out);
    }
    TRY(fail_in(feat_state_load(c->plan, c->state.snapshot, out), "state.snapshot"));
    feat_state_limit(*out, c->state.store.budget_bytes, c->state.store.ttl_us);
    log_info("ingest", "state restored from %s", c->state.snapshot);
    return STATUS_OK;
}

/* ---- open and close ------------------------------------------------------------------------ */

/* Dead letters must not be given up: librdkafka tries for ever, and its queue is bounded. */
static enum status open_producer(struct rk_ingest *g) {
    struct rk_kafka_conf c = g->conf->kafka;
    if (!*c.dead_letter_topic)
        return STATUS_OK;
    struct arena a;
    arena_init(&a, 0);
    const char **properties = ARENA_ARRAY(&a, const char *, c.properties.n + 1);
    properties[0] = "message.timeout.ms=0";
    for (int i = 0; i < c.properties.n; i++)
        properties[i + 1] = c.properties.v[i];
    c.properties = (struct conf_strings){properties, c.properties.n + 1};
    enum status status = rk_producer_open(&c, &g->producer);
    arena_deinit(&a);
    return status;
}

static enum status ask_state(void *context, const struct feat_applied **out, int *n) {
    struct rk_ingest *g = context;
    return feat_state_resume(g->state, out, n);
}

static enum status open_consumer(struct rk_ingest *g) {
    const struct feat_applied *applied = NULL;
    int n = 0;
    TRY(fail_in(feat_state_claim_log(g->state, g->conf->kafka.topic), "state"));
    TRY(feat_state_resume(g->state, &applied, &n));
    TRY(rk_consumer_open(&g->conf->kafka, applied, n, &g->consumer));
    if (feat_state_is_shared(g->state))
        rk_consumer_on_assign(g->consumer, ask_state, g);
    return STATUS_OK;
}

/* After a micro-batch that a shared store did not take. */
static enum status find_back(struct rk_ingest *g) {
    if (!g->astray)
        return STATUS_OK;
    rk_consumer_close(g->consumer);
    g->consumer = NULL;
    TRY(open_consumer(g));
    g->astray = false;
    return STATUS_OK;
}

static void free_ingest(struct rk_ingest *g) {
    rk_consumer_close(g->consumer);
    rk_producer_close(g->producer);
    arena_deinit(&g->arena);
    heap_free(g->messages);
    heap_free(g->events);
    heap_free(g->verdicts);
    heap_free(g->from);
    heap_free(g->bad);
    heap_free(g);
}

enum status rk_ingest_open(const struct rk_config *c, struct feat_state *state,
                           const struct rk_ingest_hooks *hooks, struct rk_ingest **out) {
    struct rk_ingest *g = HEAP_NEW(struct rk_ingest);
    int64_t n = c->kafka.batch_events;
    g->conf = c;
    g->state = state;
    if (hooks)
        g->hooks = *hooks;
    arena_init(&g->arena, 0);
    g->messages = HEAP_ARRAY(struct rk_message, n);
    g->events = HEAP_ARRAY(struct ev_event, n);
    g->verdicts = HEAP_ARRAY(enum feat_verdict, n);
    g->from = HEAP_ARRAY(int, n);
    g->bad = HEAP_ARRAY(int, n);
    g->saved_us = clock_mono_us();
    enum status status = open_consumer(g);
    if (status == STATUS_OK)
        status = open_producer(g);
    if (status != STATUS_OK) {
        free_ingest(g);
        return status;
    }
    *out = g;
    return STATUS_OK;
}

/* ---- snapshots ----------------------------------------------------------------------------- */

static enum status save(struct rk_ingest *g) {
    if (g->unsafe)
        return fail(STATUS_FAILED_PRECONDITION,
                    "dead letters were lost; no snapshot until a restart sends them again");
    if (g->producer)
        TRY(rk_producer_flush(g->producer, FLUSH_MS));
    if (!feat_state_is_shared(g->state)) /* what is shared is safe where it is */
        TRY(feat_state_save(g->state, g->conf->state.snapshot));
    g->dirty = false;
    const struct feat_applied *applied = NULL;
    feat_state_read_begin(g->state);
    int n = feat_state_applied(g->state, &g->arena, &applied);
    feat_state_read_end(g->state);
    return rk_consumer_commit(g->consumer, applied, n);
}

/* A failed snapshot is tried again when the next is due; until then nothing is lost but time. */
static void save_or_say(struct rk_ingest *g) {
    bool kept = feat_state_is_shared(g->state) || *g->conf->state.snapshot;
    if (!kept || !g->dirty || !g->consumer)
        return;
    if (save(g) != STATUS_OK)
        log_error("ingest", "no snapshot: %s", status_message());
    g->saved_us = clock_mono_us();
}

void rk_ingest_close(struct rk_ingest *g) {
    if (!g)
        return;
    save_or_say(g);
    free_ingest(g);
}

/* ---- one micro-batch ----------------------------------------------------------------------- */

enum status rk_ingest_decode(struct arena *a, const struct rk_message *m, struct ev_event *out) {
    struct ev_event e;
    TRY(ev_decode(a, m->value, &e));
    e.source = m->source;
    if (e.arrival_time_us == 0)
        e.arrival_time_us = m->timestamp_us;
    *out = e;
    return STATUS_OK;
}

static enum status bury(struct rk_ingest *g, const struct rk_message *m, const char *reason) {
    g->counts.dead_lettered++;
    metric_add(METRIC_EVENTS_DEAD, 1);
    log_debug("ingest", "partition %d offset %lld: %s", m->source.partition,
              (long long)m->source.offset, reason);
    if (!g->producer)
        return STATUS_OK;
    enum status status = rk_producer_dead_letter(g->producer, g->conf->kafka.dead_letter_topic, m,
                                                 g->conf->kafka.topic, reason);
    g->unsafe |= status != STATUS_OK;
    return status;
}

/* Good messages become events [return value]; bad ones are buried and listed in g->bad. */
static enum status decode(struct rk_ingest *g, int n, int *n_events, int *n_bad) {
    enum status status = STATUS_OK;
    *n_events = *n_bad = 0;
    for (int i = 0; i < n; i++) {
        if (rk_ingest_decode(&g->arena, &g->messages[i], &g->events[*n_events]) == STATUS_OK) {
            g->from[(*n_events)++] = i;
            continue;
        }
        char reason[REASON_BYTES];
        snprintf(reason, sizeof reason, "%s", status_message());
        g->bad[(*n_bad)++] = i;
        enum status buried = bury(g, &g->messages[i], reason);
        status = status == STATUS_OK ? buried : status; /* the others are taken all the same */
    }
    return status;
}

static enum status apply(struct rk_ingest *g, int n) {
    if (g->hooks.before) {
        for (int i = 0; i < n; i++) {
            g->hooks.before(g->hooks.context, &g->events[i]);
            TRY(feat_state_apply(g->state, &g->events[i], 1, &g->verdicts[i]));
        }
    } else if (n > 0 || feat_state_is_shared(g->state)) {
        TRY(feat_state_apply(g->state, g->events, n, g->verdicts));
    }
    if (g->hooks.applied && n > 0)
        g->hooks.applied(g->hooks.context, g->events, g->verdicts, n);
    return STATUS_OK;
}

/* Of event i's partition, with what stands before it in the micro-batch: a shared store has not
 * applied that yet when what is late is foreseen. */
static int64_t partition_clock_us(struct rk_ingest *g, int i) {
    const struct feat_applied *applied = NULL;
    int32_t partition = g->events[i].source.partition;
    int64_t clock_us = 0;
    for (int k = i > LOOK_BACK ? i - LOOK_BACK : 0; k < i; k++)
        if (g->events[k].source.partition == partition && g->verdicts[k] == FEAT_APPLIED &&
            g->events[k].event_time_us > clock_us)
            clock_us = g->events[k].event_time_us;
    feat_state_read_begin(g->state);
    int n = feat_state_applied(g->state, &g->arena, &applied);
    feat_state_read_end(g->state);
    for (int k = 0; k < n; k++)
        if (applied[k].partition == partition && applied[k].clock_us > clock_us)
            clock_us = applied[k].clock_us;
    return clock_us;
}

static enum status bury_late(struct rk_ingest *g, int i) {
    const struct ev_event *e = &g->events[i];
    int64_t late_us = partition_clock_us(g, i) - e->event_time_us;
    char reason[REASON_BYTES];
    if (feat_state_is_ahead(g->conf->plan, e))
        snprintf(reason, sizeof reason,
                 "its time is %.3f s after its arrival; %.3f s are allowed (ahead)",
                 (double)(e->event_time_us - e->arrival_time_us) / 1e6,
                 (double)g->conf->plan->ahead_us / 1e6);
    else
        snprintf(reason, sizeof reason, "late by %.3f s; %.3f s are allowed (lateness)",
                 (double)late_us / 1e6, (double)g->conf->plan->lateness_us / 1e6);
    return bury(g, &g->messages[g->from[i]], reason);
}

/* A shared store keeps the offsets: once they have moved, no restart comes by these messages again.
 * So what is late is foreseen, and delivered with the undecodable ones before anything is applied.
 */
static enum status bury_first(struct rk_ingest *g, int n, int n_bad) {
    enum status status = STATUS_OK;
    feat_state_foresee(g->state, g->events, n, g->verdicts);
    for (int i = 0; i < n; i++) {
        if (g->verdicts[i] != FEAT_LATE)
            continue;
        n_bad++;
        enum status buried = bury_late(g, i);
        status = status == STATUS_OK ? buried : status;
    }
    TRY(status);
    return n_bad > 0 && g->producer ? rk_producer_flush(g->producer, FLUSH_MS) : STATUS_OK;
}

static enum status count(struct rk_ingest *g, int n) {
    uint64_t applied = 0, repeated = 0;
    int64_t newest_us = 0;
    enum status status = STATUS_OK;
    for (int i = 0; i < n; i++) {
        applied += g->verdicts[i] == FEAT_APPLIED;
        repeated += g->verdicts[i] == FEAT_REPEATED;
        if (g->verdicts[i] == FEAT_LATE && status == STATUS_OK && !feat_state_is_shared(g->state))
            status = bury_late(g, i);
        if (g->events[i].arrival_time_us > newest_us)
            newest_us = g->events[i].arrival_time_us;
    }
    g->counts.applied += applied;
    g->counts.repeated += repeated;
    metric_add(METRIC_EVENTS_APPLIED, applied);
    metric_add(METRIC_EVENTS_REPEATED, repeated);
    if (newest_us > 0)
        metric_set(METRIC_INGEST_LAG_US, clock_wall_us() - newest_us);
    return status;
}

static void measure(struct rk_ingest *g) {
    if (clock_mono_us() < g->lag_us + LAG_EVERY_US)
        return;
    g->lag_us = clock_mono_us();
    struct feat_state_size size = feat_state_size(g->state);
    uint64_t entities = 0;
    for (int scope = 0; scope < FEAT_SCOPES; scope++)
        entities += size.entities[scope];
    int64_t lag = rk_consumer_lag(g->consumer);
    metric_set(METRIC_INGEST_LAG, lag > 0 ? lag : 0);
    metric_set(METRIC_STATE_ENTITIES, (int64_t)entities);
    metric_set(METRIC_STATE_BYTES, (int64_t)size.bytes);
    metric_set(METRIC_STATE_EVICTED, (int64_t)size.evicted);
    metric_set(METRIC_STATE_WAITING, (int64_t)size.waiting);
    metric_set(METRIC_STATE_UNJOINED, (int64_t)size.unjoined);
}

/* The good ones are applied before the bad ones are marked as dealt with: the other way round, a
 * bad message's offset would make the good ones before it repeats. */
static enum status take(struct rk_ingest *g, int n) {
    int n_events, n_bad;
    enum status status = decode(g, n, &n_events, &n_bad);
    if (feat_state_is_shared(g->state)) {
        TRY(status);
        TRY(bury_first(g, n_events, n_bad));
    }
    TRY(apply(g, n_events));
    enum status counted = count(g, n_events);
    for (int i = 0; i < n_bad; i++)
        TRY(feat_state_skip(g->state, g->messages[g->bad[i]].source));
    g->counts.received += (uint64_t)n;
    g->dirty |= n > 0;
    return status != STATUS_OK ? status : counted;
}

enum status rk_ingest_step(struct rk_ingest *g, bool *at_end) {
    int n = 0;
    bool end = false;
    arena_reset(&g->arena);
    TRY(find_back(g));
    TRY(rk_consumer_poll(g->consumer, g->messages, (int)g->conf->kafka.batch_events,
                         g->conf->kafka.batch_time_us, &n, &end));
    for (struct ev_source s; rk_consumer_skipped(g->consumer, &s);) {
        g->astray |= feat_state_skip(g->state, s) != STATUS_OK;
        g->dirty = true;
    }
    enum status status = g->astray ? fail(STATUS_ABORTED, "ingest: to be read again") : take(g, n);
    g->astray |= status != STATUS_OK && feat_state_is_shared(g->state);
    rk_consumer_release(g->consumer, g->messages, n);
    if (status == STATUS_ABORTED) {
        log_warn("ingest", "%s", status_message());
        return STATUS_OK;
    }
    measure(g);
    if (clock_mono_us() > g->saved_us + g->conf->state.snapshot_every_us)
        save_or_say(g);
    if (status == STATUS_OK)
        *at_end = end;
    return status;
}

bool rk_ingest_caught_up(struct rk_ingest *g) {
    int64_t lag = rk_consumer_lag(g->consumer);
    return lag >= 0 && lag <= g->conf->kafka.batch_events;
}

struct rk_ingest_counts rk_ingest_counts(const struct rk_ingest *g) {
    return g->counts;
}
