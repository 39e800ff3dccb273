/* harvest.h: recorded events -> state and labelled rows, as `train` and `replay --evaluate` need
 * them: each event is looked at by the labels and then applied, one after another, so a row holds
 * what serving would have known just before. */
#pragma once
#include "ranker/config.h"
#include "ranker/labels.h"
#include "ranker/request_log.h"
#include "tools/stream.h"

struct harvest {
    const struct rk_config *config; /* borrowed */
    struct rk_tasks tasks;
    struct moe_inputs inputs;
    struct feat_state *state;
    struct rk_labels *labels;
    bool dead_letters; /* bad and late messages of a topic go to its dead-letter topic */
    struct rk_producer *dead;
    /* called with each event before it is applied; NULL: not */
    void (*before)(void *context, const struct ev_event *e);
    void *context;
    /* requests that make the examples, in the order of their times; NULL: events make them */
    struct rk_request_log_reader *log;
    struct arena log_arena;
    struct rpc_request_log *served; /* [n_served] */
    int64_t n_served, next_served;
    int64_t left_out; /* of the log: from the cache, without rows, or with another plan's */
    int64_t applied, repeated, late, bad;
    int64_t last_event_us; /* greatest event time applied */
    double seconds;
};

/* FAILED_PRECONDITION: the settings have no features, tasks or model. `a` must outlive it. */
enum status harvest_init(struct harvest *h, const struct rk_config *c, uint64_t seed,
                         struct arena *a);
void harvest_deinit(struct harvest *h);
/* Examples are what was served: the log of requests in this file, NULL: in the settings' topic,
 * with the rows that were logged; events only label them. Before harvest_read. FAILED_PRECONDITION:
 * the settings' examples are not made from rankings, or have negatives; the log has no rows of this
 * plan. */
enum status harvest_served(struct harvest *h, const char *path);
/* Whether `path` is given or not: a file, or the settings' topic. */
enum status harvest_read(struct harvest *h, const char *path, int quiet);
/* What making examples held is given back, the state too unless it is kept. */
void harvest_close(struct harvest *h, bool keep_state);
/* The rows, groups in time order. The caller frees. FAILED_PRECONDITION: there are none. */
enum status harvest_examples(struct harvest *h, struct moe_examples **out);
