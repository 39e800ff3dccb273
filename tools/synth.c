/* synth.c: days at the made-up shop, visit by visit: the clock, the stop, the sums. */
#include "tools/synth.h"
#include <math.h>
#include "base/heap.h"
#include "tools/synth_parts.h"

const char *const synth_auc_words[SYNTH_AUCS] = {"click", "click_place", "like", "order", "love"};

static enum status check(const struct synth_conf *c) {
    int64_t front = c->world.items + c->world.users;
    if (c->events < front)
        return fail(STATUS_INVALID_ARGUMENT,
                    "%lld events are fewer than the %lld items and users that come first",
                    (long long)c->events, (long long)front);
    if (c->slate < 1 || c->pool < c->slate || c->pool > SYNTH_POOL_MAX)
        return fail(STATUS_INVALID_ARGUMENT,
                    "a pool of %lld must hold the slate of %lld, at most %d", (long long)c->pool,
                    (long long)c->slate, SYNTH_POOL_MAX);
    if (c->pool > c->world.items)
        return fail(STATUS_INVALID_ARGUMENT, "a pool of %lld from %lld items", (long long)c->pool,
                    (long long)c->world.items);
    return STATUS_OK;
}

static enum status run(struct synth *s) {
    const struct synth_conf *c = &s->conf;
    bool rankings = c->shape == SYNTH_RANKINGS;
    /* a visit makes about three events, or as many ratings as the slate; gaps are exponential */
    double per_visit = rankings ? 3 : (double)c->slate;
    int64_t rest = c->events - c->world.items - c->world.users;
    double gap_us = per_visit * (double)c->span_us / (double)(rest + 1);
    double time_us = (double)c->start_us;
    TRY(synth_catalogue(s));
    while (s->n_out < c->events) {
        TRY(synth_release(s, (int64_t)time_us));
        /* enough made: what waits leaves in its order, nothing new comes between */
        if (s->n_out + s->n_heap >= c->events)
            TRY(synth_release(s, INT64_MAX));
        else if (rankings)
            TRY(synth_visit(s, (int64_t)time_us));
        else
            TRY(synth_rating(s, (int64_t)time_us));
        time_us += gap_us * -log(1 - rng_double(&s->rng));
    }
    return STATUS_OK;
}

static void conclude(struct synth *s) {
    struct synth_result *r = &s->result;
    double n = (double)s->n_ndcg, shown = (double)s->n_shown_total;
    for (int k = 0; k < SYNTH_AUCS; k++)
        r->auc[k] = truth_auc_value(&s->auc[k]);
    r->ndcg10_truth = n > 0 ? s->ndcg_truth / n : NAN;
    r->ndcg10_shown = n > 0 ? s->ndcg_shown / n : NAN;
    r->shown_click_rate = shown > 0 ? (double)s->n_clicked_total / shown : NAN;
}

static void synth_free(struct synth *s) {
    while (s->n_heap)
        heap_free(s->heap[--s->n_heap].memory);
    heap_free(s->auc);
    heap_free(s->heap);
    buf_deinit(&s->buf);
    heap_free(s);
}

enum status synth_run(const struct synth_conf *conf, const struct synth_sink *sink, int quiet,
                      struct synth_result *out) {
    struct synth_conf c = *conf;
    c.pool = c.pool ? c.pool : c.slate;
    TRY(check(&c));
    struct synth *s = HEAP_NEW(struct synth);
    s->conf = c;
    s->sink = sink;
    world_init(&s->world, &c.world);
    rng_init(&s->rng, (uint64_t)c.world.seed);
    s->heap = HEAP_ARRAY(struct waiting, WAITING_MAX);
    s->auc = HEAP_ARRAY(struct truth_auc, SYNTH_AUCS);
    progress_start(&s->progress, "generate", "events", c.events, quiet);
    enum status status = run(s);
    if (status == STATUS_OK) {
        progress_end(&s->progress);
        conclude(s);
        *out = s->result;
    }
    synth_free(s);
    return status;
}
