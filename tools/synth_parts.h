/* synth_parts.h: what the parts of tools/synth*.c share. */
#pragma once
#include "base/progress.h"
#include "tools/synth.h"
#include "tools/truth_auc.h"

enum { WAITING_MAX = 1 << 16 };

/* An event on its way to the log. */
struct waiting {
    int64_t leaves_us;
    uint64_t number; /* ties leave in the order made */
    enum ev_kind kind;
    char type; /* of an interaction: its first letter */
    int64_t event_time_us;
    size_t key_n, bytes_n;
    char *memory; /* key, then bytes */
};

struct synth {
    struct synth_conf conf;
    const struct synth_sink *sink;
    struct world world;
    struct rng rng;
    struct progress progress;
    struct buf buf;
    struct waiting *heap; /* [n_heap], earliest first */
    int n_heap;
    uint64_t n_made; /* events */
    int64_t n_visits, n_out;
    struct synth_result result;
    struct truth_auc *auc; /* [SYNTH_AUCS] */
    double ndcg_truth, ndcg_shown;
    int64_t n_ndcg, n_shown_total, n_clicked_total;
    /* one visit's work space */
    int64_t items[2 * SYNTH_POOL_MAX];
    struct world_item facts[SYNTH_POOL_MAX];
    double score[SYNTH_POOL_MAX], scratch[SYNTH_POOL_MAX], propensity[SYNTH_POOL_MAX];
    int shown[SYNTH_POOL_MAX];
    char names[SYNTH_POOL_MAX][24];
};

/* synth_log.c: takes an event; what the log does to it is drawn here. */
enum status synth_push(struct synth *s, const struct ev_event *e, bool may_be_late);
/* Lets go what leaves at or before `now_us`. */
enum status synth_release(struct synth *s, int64_t now_us);

/* synth_catalogue.c: all items, then all users, a millisecond apart, before the first visit. */
enum status synth_catalogue(struct synth *s);
struct slice synth_name(char *out, size_t bytes, char letter, int64_t number);
struct ev_field synth_text(const char *name, const char *text);
struct ev_field synth_number(const char *name, double v);

/* synth_visit.c, synth_rating.c: a visit at `time_us`, all its events pushed. */
enum status synth_visit(struct synth *s, int64_t time_us);
enum status synth_rating(struct synth *s, int64_t time_us);
