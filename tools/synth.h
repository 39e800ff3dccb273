/* synth.h: events drawn from a made-up world (tools/world.h), one after another, in the order a log
 * would hold them. Equal settings give equal bytes, wherever they go. Memory does not grow with the
 * number of events.
 *
 * Two shapes: SYNTH_RANKINGS are lists shown by a logging policy and the clicks, likes and orders
 * that answer them; SYNTH_RATINGS are ratings of one to five stars, with items and users described
 * as MovieLens describes them. */
#pragma once
#include "proto/ev.h"
#include "tools/world.h"

enum { SYNTH_POOL_MAX = 1000 };
enum synth_shape { SYNTH_RANKINGS, SYNTH_RATINGS };

struct synth_conf {
    struct world_conf world;
    enum synth_shape shape;
    int64_t events; /* good ones, the item and user events in front included */
    int64_t slate;  /* items shown in a ranking; ratings given in one visit, about */
    int64_t pool;   /* retrieved to choose the slate from; 0: the slate, only its order is chosen */
    int64_t start_us;   /* event time of the first visit */
    int64_t span_us;    /* event time from the first visit to the last, about */
    double malformed;   /* undecodable or invalid messages among the good ones, per good one */
    double late;        /* share of the visits' events that are held back on their way to the log */
    int64_t late_by_us; /* ... for at most so long */
    bool protobuf;      /* bytes are protobuf instead of JSON lines */
};

struct synth_message {
    struct slice bytes;
    struct slice key; /* the user, or of an item event the item; empty when malformed */
    bool malformed;
};
struct synth_sink {
    void *context;
    enum status (*message)(void *context, const struct synth_message *m);
};

/* What ordering by the true probabilities reaches: the ceiling of every model. */
enum synth_auc {
    SYNTH_AUC_CLICK,       /* the place not known */
    SYNTH_AUC_CLICK_PLACE, /* the place known */
    SYNTH_AUC_LIKE,        /* among clicked items; of ratings: four stars and more */
    SYNTH_AUC_ORDER,       /* among clicked items */
    SYNTH_AUC_LOVE,        /* five stars */
    SYNTH_AUCS
};
extern const char *const synth_auc_words[SYNTH_AUCS];

struct synth_result {
    int64_t items, users, rankings, clicks, likes, orders, ratings; /* events handed out */
    int64_t malformed, late;
    int64_t first_us, last_us;         /* event times handed out */
    double auc[SYNTH_AUCS];            /* NaN: not of this shape */
    double ndcg10_truth, ndcg10_shown; /* of clicks, per ranking that has one */
    double shown_click_rate;
};

/* INVALID_ARGUMENT: fewer events than items and users, a pool smaller than the slate, ...; the
 * sink's failures end the run. */
enum status synth_run(const struct synth_conf *conf, const struct synth_sink *sink, int quiet,
                      struct synth_result *out);
