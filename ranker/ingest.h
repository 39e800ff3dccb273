/* ingest.h: messages -> events -> state, in micro-batches; bad ones to the dead-letter topic with
 * the reason; snapshot and offsets together. One thread. */
#pragma once
#include "ranker/kafka.h"
#include "ranker/labels.h"

struct rk_ingest_hooks {
    void *context;
    void (*before)(void *context, const struct ev_event *e); /* before it is applied; may be NULL */
    void (*applied)(void *context, const struct ev_event *events, const enum feat_verdict *v,
                    int n);
};
struct rk_ingest_counts {
    uint64_t received, applied, repeated, dead_lettered;
};
struct rk_ingest;
enum status rk_ingest_open(const struct rk_config *c, struct feat_state *state,
                           const struct rk_ingest_hooks *hooks, struct rk_ingest **out);
void rk_ingest_close(struct rk_ingest *g); /* last snapshot, commit */
/* One micro-batch: poll, decode, apply, snapshot when due. at_end as in kafka.h. */
enum status rk_ingest_step(struct rk_ingest *g, bool *at_end);
struct rk_ingest_counts rk_ingest_counts(const struct rk_ingest *g);
