/* replay.h: logged requests, their rows made once more by the state as it was when they were
 * served, and ranked once more. */
#pragma once
#include "ranker/rank.h"
#include "tools/skew.h"
#include "tools/stream.h"

struct replay_options {
    const struct rk_bundle *bundle; /* NULL: rows only */
    const struct feat_plan *plan;
    const char *log;                    /* the server's file of requests; or NULL and */
    const char *topic;                  /* its topic, by source->kafka */
    const struct stream_source *source; /* of the events; all are held in memory */
    const char *state;                  /* a snapshot to start from; NULL: nothing known */
    int buckets;                        /* state.redis_buckets */
    int quiet;
};
struct replay_result {
    int64_t requests, compared, equal; /* ranked again */
    int64_t cached;      /* answered from the result cache: an older state's answer; not compared */
    int64_t other_model; /* served by another model version; not ranked again */
    int64_t other_plan;  /* logged without rows, or with another plan's; rows not compared */
    int64_t without_store; /* served while the store was away; not compared */
    int64_t ahead;         /* requests some records of which had more than was applied everywhere */
    int64_t rows_requests, rows_equal; /* requests with rows compared; of these all bits equal */
    int64_t passes;             /* over the events: of several servers, or after lost writes */
    double greatest_difference; /* of two scores of one item */
    char first_difference[256];
};

/* FAILED_PRECONDITION: the events do not reach what a request had seen, or begin after it;
 * DATA_LOSS: the log is damaged. */
enum status replay_requests(const struct replay_options *o, struct skew *skew,
                            struct replay_result *out);
