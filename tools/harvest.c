/* harvest.c: one pass over recorded events. What ingest would have dead-lettered (wrong or late) is
 * dead-lettered here too when a snapshot is wanted, because it stands behind those
 * offsets and nobody will read them again. */
#include "tools/harvest.h"
#include "base/clock.h"

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
    return STATUS_OK;
}

void harvest_deinit(struct harvest *h) {
    rk_labels_free(h->labels);
    feat_state_free(h->state);
    rk_producer_close(h->dead);
    *h = (struct harvest){0};
}

static enum status on_bad(void *context, const char *reason, const struct rk_message *m) {
    struct harvest *h = context;
    h->bad++;
    feat_state_skip(h->state, m->source);
    if (!h->dead)
        return STATUS_OK;
    const struct rk_kafka_conf *k = &h->config->kafka;
    return rk_producer_dead_letter(h->dead, k->dead_letter_topic, m, k->topic, reason);
}

static enum status on_event(void *context, const struct ev_event *e, const struct rk_message *m) {
    struct harvest *h = context;
    enum feat_verdict verdict;
    if (h->before)
        h->before(h->context, e);
    rk_labels_event(h->labels, e);
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
    return rk_producer_dead_letter(h->dead, k->dead_letter_topic, m, k->topic, "late");
}

enum status harvest_read(struct harvest *h, const char *path, int quiet) {
    struct stream_handler handler = {h, on_event, on_bad};
    struct stream_source source = {path, path ? NULL : &h->config->kafka};
    int64_t start_us = clock_mono_us();
    if (!path && h->dead_letters)
        TRY(rk_producer_open(&h->config->kafka, &h->dead));
    TRY(stream_read(&source, "apply", quiet, &handler));
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
                    "%lld events make no example; see 'examples' in %s, and moerank validate",
                    (long long)h->applied, h->config->file);
    }
    moe_examples_sort(x);
    *out = x;
    return STATUS_OK;
}
