/* demo.h: the parts of `moerank demo`: data, processes, the live run, the summary. */
#pragma once
#include "base/arena.h"
#include "base/status.h"
#include "proto/ev.h"
#include "ranker/kafka.h"
#include "ranker/rpc_client.h"

/* ---- data (demo_data.c) ------------------------------------------------------------------- */

struct demo_film {
    struct slice id, title;
};
struct demo_rating {
    int film;  /* index into films */
    int event; /* index into events */
    int value; /* 1..5 */
    struct slice user;
};
/* Events in time order: what films and users are like, then the ratings. */
struct demo_data {
    struct arena arena;
    const char *name; /* "MovieLens-100K", "synthetic" */
    bool real;
    struct ev_event *events; /* [n_events] */
    int n_events;
    struct demo_film *films; /* [n_films] */
    int n_films;
    struct demo_rating *ratings; /* [n_ratings] in time order */
    int n_ratings;
};
/* From the folder with ml-100k.inter, .item and .user (RecBole's form). NOT_FOUND names the file.
 */
enum status demo_data_movielens(const char *folder, struct demo_data *out);
/* A stream of the same shape from `moerank generate --shape ratings`, for when MovieLens cannot be
 * fetched. `lines`: its output. */
enum status demo_data_lines(const char *path, struct demo_data *out);
void demo_data_deinit(struct demo_data *d);

/* ---- processes (demo_parts.c) ------------------------------------------------------------- */

struct demo_part {
    int pid;
    const char *name, *log;
};
/* Starts argv with stdout and stderr to `log`; it dies with this process. */
enum status demo_part_start(const char *name, const char *const *argv, const char *log,
                            struct demo_part *out);
/* Runs to the end, stdout to `out_file`, stderr to ours; UNAVAILABLE when it fails. */
enum status demo_part_run(const char *name, const char *const *argv, const char *out_file);
void demo_part_stop(struct demo_part *p);
bool demo_part_alive(struct demo_part *p);
/* Waits for a file to appear, or for the part to die. */
enum status demo_part_wait_file(struct demo_part *p, const char *path, int timeout_ms);

/* A port of the loopback interface that nobody listens on now. */
int demo_free_port(void);
/* Value of a metric of the process that serves http://127.0.0.1:port/metrics; NOT_FOUND. */
enum status demo_metric(int port, const char *name, double *out);

/* ---- the live run (demo_live.c) ----------------------------------------------------------- */

enum { DEMO_LIKE, DEMO_LOVE, DEMO_TASKS };

struct demo_live {
    /* one row a live rating, scored just before it was applied */
    int n;
    float *score[DEMO_TASKS];     /* the model's */
    float *popularity;            /* ratings of the film so far */
    float *item_rate[DEMO_TASKS]; /* the film's smoothed rate so far */
    float *label[DEMO_TASKS];
    uint64_t *user;
    /* NDCG@10 of liked films over all films, one list a user */
    double ndcg_model, ndcg_popularity, ndcg_item_rate, ndcg_random;
    int n_lists;
    double rank_p50_ms, rank_p99_ms;
    int n_rank, n_cached, n_cache_asked;
    double seconds;
};
struct demo_run {
    const struct demo_data *data;
    int first_live; /* rating index */
    int n_live;
    struct rk_client *client;
    struct arena scratch; /* reset per call */
    struct rpc_token last;
    struct demo_live live;
    struct demo_story *story;
};
enum status demo_live_run(struct demo_run *r);
void demo_live_deinit(struct demo_live *l);
/* One Rank call; the response lives in r->scratch. */
enum status demo_rank(struct demo_run *r, struct slice user, const struct slice *items, int n,
                      int64_t now_us, bool explain, int top_n, bool no_cache,
                      struct rpc_rank_response *out);

/* ---- one user's top ten, before and after (demo_story.c) ---------------------------------- */

struct demo_story; /* opaque */
struct demo_story *demo_story_new(const struct demo_data *data, int first_live);
void demo_story_free(struct demo_story *s);
/* Called before live rating `index` is applied, and once at the end. */
enum status demo_story_step(struct demo_story *s, struct demo_run *r, int index);
void demo_story_print(const struct demo_story *s);
void demo_story_json(const struct demo_story *s, struct json *j); /* "top10" */
