/* harvest.c: one pass over recorded events. What ingest would have dead-lettered (wrong or late) is
 * dead-lettered here too when a snapshot is wanted, because it stands behind those
 * offsets and nobody will read them again. */
#include "tools/harvest.h"
#include <stdlib.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/log.h"
#include "tools/skew.h"

enum status harvest_init(struct harvest *h, const struct rk_config *c, uint64_t seed,
                         struct arena *a) {
    *h = (struct harvest){.config = c};
    if (!c->plan)
        return fail(STATUS_FAILED_PRECONDITION, "%s: no section 'features'", c->file);
    TRY(rk_tasks_read(c->root, c->file, a, &h->tasks));
    if (c->plan->mixes_rows && h->tasks.examples.negatives > 0)
        return fail(STATUS_FAILED_PRECONDITION,
                    "%s: examples.negatives: sampled items would change what the plan's relative "
                    "and diversity features compare with; they need negatives: 0",
                    c->file);
    rk_inputs_from_plan(c->plan, a, &h->inputs);
    h->state = feat_state_new(c->plan);
    h->labels = rk_labels_new(&h->tasks, h->state, &h->inputs, seed);
    rk_labels_lateness(h->labels, c->plan->lateness_us);
    arena_init(&h->log_arena, 0);
    return STATUS_OK;
}

void harvest_close(struct harvest *h, bool keep_state) {
    rk_labels_free(h->labels);
    rk_producer_close(h->dead);
    rk_request_log_read_close(h->log);
    heap_free(h->served);
    arena_deinit(&h->log_arena);
    h->labels = NULL;
    h->dead = NULL;
    h->log = NULL;
    h->served = NULL;
    if (keep_state)
        return;
    feat_state_free(h->state);
    h->state = NULL;
}

void harvest_deinit(struct harvest *h) {
    harvest_close(h, false);
    *h = (struct harvest){0};
}

/* ---- examples from the log of requests ---- */

static int by_time(const void *a, const void *b) {
    const struct rpc_request_log *x = a, *y = b;
    if (x->request.now_us != y->request.now_us)
        return x->request.now_us < y->request.now_us ? -1 : 1;
    if (x->served_at_us != y->served_at_us)
        return x->served_at_us < y->served_at_us ? -1 : 1;
    struct slice i = x->request.request_id, k = y->request.request_id;
    int order = memcmp(i.p ? i.p : "", k.p ? k.p : "", i.n < k.n ? i.n : k.n);
    return order != 0 ? order : (i.n > k.n) - (i.n < k.n);
}

static enum status read_served(struct harvest *h) {
    int64_t cap = 0;
    for (;;) {
        struct rpc_request_log q;
        enum status status = rk_request_log_next(h->log, &h->log_arena, &q);
        if (status == STATUS_OUT_OF_RANGE)
            break;
        if (status == STATUS_DATA_LOSS && h->n_served > 0) { /* a server that died */
            log_warn("train", "%s; the %lld requests before it are used", status_message(),
                     (long long)h->n_served);
            break;
        }
        TRY(status);
        if (q.response.cached || q.without_store || !skew_fits(h->config->plan, &q)) {
            h->left_out++;
            continue;
        }
        if (h->n_served == cap) {
            cap = cap > 0 ? 2 * cap : 1024;
            h->served = heap_grow(h->served, (size_t)cap * sizeof *h->served);
        }
        h->served[h->n_served++] = q;
    }
    if (h->n_served == 0)
        return fail(STATUS_FAILED_PRECONDITION,
                    "of %lld served requests none has rows of these features (log.rows; those from "
                    "the cache have none)",
                    (long long)h->left_out);
    qsort(h->served, (size_t)h->n_served, sizeof *h->served, by_time);
    return STATUS_OK;
}

enum status harvest_served(struct harvest *h, const char *path) {
    const struct rk_config *c = h->config;
    if (strcmp(h->tasks.examples.from, "ranking") != 0 || h->tasks.examples.negatives > 0)
        return fail(STATUS_FAILED_PRECONDITION,
                    "%s: examples of served requests need examples.from: ranking, and no negatives",
                    c->file);
    if (!path && !*c->log.requests_topic)
        return fail(STATUS_INVALID_ARGUMENT, "%s: no log.requests_topic", c->file);
    TRY(path ? rk_request_log_read_open(path, &h->log)
             : rk_request_log_read_topic(&c->kafka, c->log.requests_topic, &h->log));
    TRY(read_served(h));
    rk_labels_from_log(h->labels);
    return STATUS_OK;
}

/* What was served up to then. */
static void open_served(struct harvest *h, int64_t time_us) {
    while (h->next_served < h->n_served && h->served[h->next_served].request.now_us <= time_us)
        rk_labels_served(h->labels, h->config->plan, &h->served[h->next_served++]);
}

/* ---- events ---- */

static enum status on_bad(void *context, const char *reason, const struct rk_message *m) {
    struct harvest *h = context;
    h->bad++;
    feat_state_skip(h->state, m->source);
    if (!h->dead)
        return STATUS_OK;
    const struct rk_kafka_conf *k = &h->config->kafka;
    return rk_producer_dead_letter(h->dead, k->dead_letter_topic, m, k->topic, reason);
}

static void make_examples(struct harvest *h, const struct ev_event *e) {
    if (h->before)
        h->before(h->context, e);
    open_served(h, e->event_time_us);
    rk_labels_event(h->labels, e);
}

static enum status on_event(void *context, const struct ev_event *e, const struct rk_message *m) {
    struct harvest *h = context;
    enum feat_verdict verdict;
    if (!feat_state_is_ahead(h->config->plan, e)) /* a wrong clock closes no examples */
        make_examples(h, e);
    feat_state_apply(h->state, e, 1, &verdict);
    h->applied += verdict == FEAT_APPLIED;
    h->repeated += verdict == FEAT_REPEATED;
    if (verdict == FEAT_APPLIED && e->event_time_us > h->last_event_us)
        h->last_event_us = e->event_time_us;
    if (verdict != FEAT_LATE)
        return STATUS_OK;
    h->late++;
    if (!h->dead)
        return STATUS_OK;
    const struct rk_kafka_conf *k = &h->config->kafka;
    const char *reason =
        feat_state_is_ahead(h->config->plan, e) ? "its time is after its arrival (ahead)" : "late";
    return rk_producer_dead_letter(h->dead, k->dead_letter_topic, m, k->topic, reason);
}

enum status harvest_read(struct harvest *h, const char *path, int quiet) {
    struct stream_handler handler = {h, on_event, on_bad};
    struct stream_source source = {path, path ? NULL : &h->config->kafka};
    int64_t start_us = clock_mono_us();
    TRY(feat_state_claim_log(h->state, path ? FEAT_LOG_FILE : h->config->kafka.topic));
    if (!path && h->dead_letters)
        TRY(rk_producer_open(&h->config->kafka, &h->dead));
    TRY(stream_read(&source, "apply", quiet, &handler));
    open_served(h, INT64_MAX);
    if (h->dead)
        TRY(rk_producer_flush(h->dead, 30000));
    h->seconds = (double)(clock_mono_us() - start_us) * 1e-6;
    return STATUS_OK;
}

enum status harvest_examples(struct harvest *h, struct moe_examples **out) {
    struct moe_examples *x = rk_labels_finish(h->labels);
    if (x->n_rows == 0) {
        moe_examples_free(x);
        return fail(STATUS_FAILED_PRECONDITION,
                    "%lld events make no example (%lld lines or messages are no events); see "
                    "'examples' in %s, and moerank validate",
                    (long long)h->applied, (long long)h->bad, h->config->file);
    }
    moe_examples_sort(x);
    *out = x;
    return STATUS_OK;
}
