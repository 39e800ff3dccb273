/* replay.h: logged requests, ranked once more by the state as it was when they were served. */
#pragma once
#include "ranker/rank.h"
#include "tools/stream.h"

struct replay_result {
    int64_t requests, compared, equal;
    int64_t cached;      /* answered from the result cache: an older state's answer; not compared */
    int64_t other_model; /* served by another model version; not compared */
    double greatest_difference; /* of two scores of one item */
    char first_difference[256];
};

/* `log`: the server's file of requests. `state`: a snapshot to start from, NULL: nothing known.
 * All messages of `source` are held in memory. FAILED_PRECONDITION: the events do not reach what a
 * request had seen; DATA_LOSS: the log is damaged. */
enum status replay_requests(const struct rk_bundle *b, const struct feat_plan *plan,
                            const char *log, const struct stream_source *source, const char *state,
                            int quiet, struct replay_result *out);
