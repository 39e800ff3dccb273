/* ingest.h: messages -> events -> state, in micro-batches; bad ones to the dead-letter topic with
 * the reason; snapshot and offsets together. One thread. */
#pragma once
#include "ranker/kafka.h"
#include "ranker/labels.h"

/* The state as the snapshot has it, or an empty one when there is no snapshot (yet). */
enum status rk_state_open(const struct rk_config *c, struct feat_state **out);

struct rk_ingest_hooks {
    void *context;
    /* Before it is applied; events are then applied one by one. May be NULL. */
    void (*before)(void *context, const struct ev_event *e);
    /* After a micro-batch was applied; the events live until it returns. May be NULL. */
    void (*applied)(void *context, const struct ev_event *events, const enum feat_verdict *v,
                    int n);
};
struct rk_ingest_counts {
    uint64_t received, applied, repeated, dead_lettered;
};
struct rk_ingest;
/* Goes on after what `state` has applied. `hooks` may be NULL. */
enum status rk_ingest_open(const struct rk_config *c, struct feat_state *state,
                           const struct rk_ingest_hooks *hooks, struct rk_ingest **out);
void rk_ingest_close(struct rk_ingest *g); /* last snapshot, commit; NULL is fine */
/* One micro-batch: poll, decode, apply, snapshot when due. at_end as in kafka.h. */
enum status rk_ingest_step(struct rk_ingest *g, bool *at_end);
/* At most a micro-batch behind the end of the topic. */
bool rk_ingest_caught_up(struct rk_ingest *g);
struct rk_ingest_counts rk_ingest_counts(const struct rk_ingest *g);

/* One message as an event: decoded, its source set, and the log's time as arrival time where the
 * event has none. Replay does the same. Not OK: a dead letter, and the message says why. */
enum status rk_ingest_decode(struct arena *a, const struct rk_message *m, struct ev_event *out);
