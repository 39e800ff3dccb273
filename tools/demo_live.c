/* demo_live.c: the live part: each rating is scored over gRPC just before it is sent to Kafka, and
 * the next one waits until it is applied (the `after` token: read your writes), so no score has
 * seen its own answer. In between users open their list, ranked among all films.
 *
 * The rivals are computed here from the same stream: a film's ratings so far, its smoothed share of
 * likes and loves so far, and a random order. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/heap.h"
#include "base/map.h"
#include "base/hash.h"
#include "base/progress.h"
#include "base/rng.h"
#include "moe/report/eval.h"
#include "tools/demo.h"

#define OPEN_EVERY      10 /* a user opens the list at the first rating and then at each tenth */
#define LIST_K          10
#define PRIOR_WEIGHT    10.0 /* of a film's smoothed rates, towards the rate over all films */
#define CALL_TIMEOUT_MS 10000

/* What the rivals know of the films so far. */
struct tally {
    double *ratings, *good[DEMO_TASKS]; /* [n_films] */
    double all, all_good[DEMO_TASKS];
};
static const int good_from[DEMO_TASKS] = {4, 5};

static void tally_init(struct tally *t, int n_films) {
    t->ratings = HEAP_ARRAY(double, n_films);
    for (int k = 0; k < DEMO_TASKS; k++) {
        t->good[k] = HEAP_ARRAY(double, n_films);
    }
}
static void tally_deinit(struct tally *t) {
    heap_free(t->ratings);
    for (int k = 0; k < DEMO_TASKS; k++) {
        heap_free(t->good[k]);
    }
}
static void tally_add(struct tally *t, const struct demo_rating *r) {
    t->ratings[r->film]++;
    t->all++;
    for (int k = 0; k < DEMO_TASKS; k++) {
        int good = r->value >= good_from[k];
        t->good[k][r->film] += good;
        t->all_good[k] += good;
    }
}
static double tally_rate(const struct tally *t, int film, int task) {
    double prior = t->all > 0 ? t->all_good[task] / t->all : 0.5;
    return (t->good[task][film] + PRIOR_WEIGHT * prior) / (t->ratings[film] + PRIOR_WEIGHT);
}

/* Who rated what, by user: for candidates (not rated before) and for what is relevant (liked
 * later). */
struct people {
    struct map index; /* hash of user -> row */
    int n;
    uint8_t *before; /* [n x n_films] rated in the first part */
    uint8_t *liked;  /* [n x n_films] liked in the live part */
    int *seen_live;  /* [n] live ratings so far */
    int n_films;
};

static int person_of(struct people *p, struct slice user) {
    uint64_t row;
    return map_get(&p->index, hash_bytes(user, 0), &row) ? (int)row : -1;
}

static void people_init(struct people *p, const struct demo_run *r) {
    const struct demo_data *d = r->data;
    *p = (struct people){.n_films = d->n_films};
    for (int i = r->first_live; i < r->first_live + r->n_live; i++) {
        if (person_of(p, d->ratings[i].user) < 0) {
            map_put(&p->index, hash_bytes(d->ratings[i].user, 0), (uint64_t)p->n++);
        }
    }
    size_t cells = (size_t)p->n * (size_t)p->n_films;
    p->before = HEAP_ARRAY(uint8_t, cells);
    p->liked = HEAP_ARRAY(uint8_t, cells);
    p->seen_live = HEAP_ARRAY(int, p->n);
    for (int i = 0; i < r->first_live + r->n_live; i++) {
        int row = person_of(p, d->ratings[i].user);
        if (row < 0) {
            continue;
        }
        size_t cell = (size_t)row * (size_t)p->n_films + (size_t)d->ratings[i].film;
        if (i < r->first_live) {
            p->before[cell] = 1;
        } else if (d->ratings[i].value >= good_from[DEMO_LIKE]) {
            p->liked[cell] = 1;
        }
    }
}
static void people_deinit(struct people *p) {
    map_deinit(&p->index);
    heap_free(p->before);
    heap_free(p->liked);
    heap_free(p->seen_live);
}

enum status demo_rank(struct demo_run *r, struct slice user, const struct slice *items, int n,
                      int64_t now_us, bool explain, int top_n, bool no_cache,
                      struct rpc_rank_response *out) {
    struct rpc_rank_request request = {
        .user = user,
        .items = items,
        .n_items = n,
        .now_us = now_us,
        .top_n = top_n,
        .explain = explain,
        .no_cache = no_cache,
        .after = r->last,
    };
    struct buf bytes = {0};
    rpc_encode_rank_request(&request, &bytes);
    arena_reset(&r->scratch);
    struct slice reply;
    enum status status =
        rk_client_call(r->client, &r->scratch, "Rank", buf_slice(&bytes), CALL_TIMEOUT_MS, &reply);
    buf_deinit(&bytes);
    TRY(status);
    return rpc_decode_rank_response(&r->scratch, reply, out);
}

/* Sends one event and remembers where it went. */
static enum status send_event(struct demo_run *r, const struct ev_event *event) {
    struct buf bytes = {0};
    rpc_encode_feedback_request(event, 1, (struct slice){0}, &bytes);
    arena_reset(&r->scratch);
    struct slice reply;
    enum status status = rk_client_call(r->client, &r->scratch, "Feedback", buf_slice(&bytes),
                                        CALL_TIMEOUT_MS, &reply);
    buf_deinit(&bytes);
    TRY(status);
    struct rpc_feedback_response response;
    TRY(rpc_decode_feedback_response(&r->scratch, reply, &response));
    if (response.n != 1) {
        return fail(STATUS_INTERNAL, "event %.*s was refused: %.*s", SLICE_ARG(event->id),
                    SLICE_ARG(response.n_rejected ? response.rejected[0].reason : SLICE_LIT("?")));
    }
    r->last = response.tokens[0];
    r->last.given = true;
    return STATUS_OK;
}

/* A rival's order of the candidates; ties by a shuffle, the same for all rivals. */
struct keyed {
    double score;
    int at;
};
static int by_score(const void *pa, const void *pb) {
    const struct keyed *a = pa, *b = pb;
    if (a->score != b->score) {
        return a->score > b->score ? -1 : 1;
    }
    return a->at - b->at;
}

struct list {
    struct slice *items; /* [n] candidate ids, in shuffled order */
    int *film;           /* [n] */
    float *gain;         /* [n] 1: liked in the live part */
    int n;
};

static double ndcg_by(const struct list *l, const struct tally *t, int task) {
    struct keyed *order = HEAP_ARRAY(struct keyed, l->n);
    float *gains = HEAP_ARRAY(float, l->n);
    for (int i = 0; i < l->n; i++) {
        double score = task < 0 ? t->ratings[l->film[i]] : tally_rate(t, l->film[i], task);
        order[i] = (struct keyed){score, i};
    }
    qsort(order, (size_t)l->n, sizeof *order, by_score);
    for (int i = 0; i < l->n; i++) {
        gains[i] = l->gain[order[i].at];
    }
    double ndcg = moe_ndcg(gains, l->n, LIST_K);
    heap_free(order);
    heap_free(gains);
    return ndcg;
}

static double ndcg_model(const struct list *l, const struct rpc_rank_response *response) {
    float *gains = HEAP_ARRAY(float, l->n);
    uint8_t *shown = HEAP_ARRAY(uint8_t, l->n);
    int n = 0;
    for (; n < response->n; n++) {
        gains[n] = l->gain[response->order[n]];
        shown[response->order[n]] = 1;
    }
    for (int i = 0; i < l->n; i++) { /* the rest counts for the ideal order only */
        if (!shown[i]) {
            gains[n++] = l->gain[i];
        }
    }
    double ndcg = moe_ndcg(gains, l->n, LIST_K);
    heap_free(gains);
    heap_free(shown);
    return ndcg;
}

/* All films the user had not rated before the live part, shuffled. */
static void make_list(const struct demo_run *r, const struct people *p, int row, struct rng *rng,
                      struct list *l) {
    const struct demo_data *d = r->data;
    uint32_t *films = HEAP_ARRAY(uint32_t, d->n_films);
    l->n = 0;
    size_t base = (size_t)row * (size_t)d->n_films;
    for (int f = 0; f < d->n_films; f++) {
        if (!p->before[base + (size_t)f]) {
            films[l->n++] = (uint32_t)f;
        }
    }
    rng_shuffle_u32(rng, films, (uint32_t)l->n);
    for (int i = 0; i < l->n; i++) {
        l->film[i] = (int)films[i];
        l->items[i] = d->films[films[i]].id;
        l->gain[i] = p->liked[base + films[i]];
    }
    heap_free(films);
}

struct desk { /* what one live run works with */
    struct tally tally;
    struct people people;
    struct list list;
    struct rng rng;
    float *wait_us; /* [n] of uncached list calls */
    int n_wait;
};

static int by_float(const void *pa, const void *pb) {
    float a = *(const float *)pa, b = *(const float *)pb;
    return (a > b) - (a < b);
}

/* The user opens the list of all films, and once more without having done anything in between. */
static enum status open_list(struct demo_run *r, struct desk *k, const struct demo_rating *rating,
                             int64_t now_us, int row) {
    struct demo_live *live = &r->live;
    bool first = k->people.seen_live[row] == 0;
    make_list(r, &k->people, row, &k->rng, &k->list);
    for (int again = 0; again < 2; again++) {
        struct rpc_rank_response response;
        int64_t start_us = clock_mono_us();
        TRY(demo_rank(r, rating->user, k->list.items, k->list.n, now_us, false, LIST_K, false,
                      &response));
        float spent_us = (float)(clock_mono_us() - start_us);
        live->n_cache_asked++;
        live->n_cached += response.cached;
        if (!response.cached) {
            k->wait_us[k->n_wait++] = spent_us;
        }
        double ndcg = first && !again ? ndcg_model(&k->list, &response) : 0;
        if (first && !again && ndcg == ndcg) { /* not NaN: the user likes something */
            live->ndcg_model += ndcg;
            live->ndcg_popularity += ndcg_by(&k->list, &k->tally, -1);
            live->ndcg_item_rate += ndcg_by(&k->list, &k->tally, DEMO_LIKE);
            live->ndcg_random += moe_ndcg(k->list.gain, k->list.n, LIST_K);
            live->n_lists++;
        }
    }
    return STATUS_OK;
}

/* Scores one live rating, before it is sent. */
static enum status score_one(struct demo_run *r, struct desk *k, int i, int64_t now_us) {
    struct demo_live *live = &r->live;
    const struct demo_rating *rating = &r->data->ratings[i];
    struct rpc_rank_response response;
    TRY(demo_rank(r, rating->user, &r->data->films[rating->film].id, 1, now_us, false, 0, true,
                  &response));
    int at = live->n++;
    for (int t = 0; t < DEMO_TASKS; t++) {
        static const char *const names[DEMO_TASKS] = {"like", "love"};
        live->score[t][at] = 0;
        for (int task = 0; task < response.n_tasks; task++) {
            if (slice_is(response.tasks[task], names[t])) {
                live->score[t][at] = response.probabilities[task][0];
            }
        }
        live->item_rate[t][at] = (float)tally_rate(&k->tally, rating->film, t);
        live->label[t][at] = rating->value >= good_from[t];
    }
    live->popularity[at] = (float)k->tally.ratings[rating->film];
    live->user[at] = hash_bytes(rating->user, 0);
    return STATUS_OK;
}

static void live_init(struct demo_live *l, int n) {
    for (int t = 0; t < DEMO_TASKS; t++) {
        l->score[t] = HEAP_ARRAY(float, n);
        l->item_rate[t] = HEAP_ARRAY(float, n);
        l->label[t] = HEAP_ARRAY(float, n);
    }
    l->popularity = HEAP_ARRAY(float, n);
    l->user = HEAP_ARRAY(uint64_t, n);
}
void demo_live_deinit(struct demo_live *l) {
    for (int t = 0; t < DEMO_TASKS; t++) {
        heap_free(l->score[t]);
        heap_free(l->item_rate[t]);
        heap_free(l->label[t]);
    }
    heap_free(l->popularity);
    heap_free(l->user);
    *l = (struct demo_live){0};
}

static void summarise(struct demo_live *l, struct desk *k) {
    double lists = l->n_lists ? l->n_lists : 1;
    l->ndcg_model /= lists;
    l->ndcg_popularity /= lists;
    l->ndcg_item_rate /= lists;
    l->ndcg_random /= lists;
    l->n_rank = k->n_wait;
    if (k->n_wait) {
        qsort(k->wait_us, (size_t)k->n_wait, sizeof *k->wait_us, by_float);
        l->rank_p50_ms = k->wait_us[k->n_wait / 2] / 1e3;
        l->rank_p99_ms = k->wait_us[(int)(0.99 * (k->n_wait - 1))] / 1e3;
    }
}

static enum status run_all(struct demo_run *r, struct desk *k, struct progress *bar) {
    const struct demo_data *d = r->data;
    for (int i = 0; i < r->n_live; i++) {
        int index = r->first_live + i;
        const struct demo_rating *rating = &d->ratings[index];
        const struct ev_event *event = &d->events[rating->event];
        int row = person_of(&k->people, rating->user);
        TRY(demo_story_step(r->story, r, index));
        if (k->people.seen_live[row] % OPEN_EVERY == 0) {
            TRY(open_list(r, k, rating, event->event_time_us, row));
        }
        TRY(score_one(r, k, index, event->event_time_us));
        TRY(send_event(r, event));
        k->people.seen_live[row]++;
        tally_add(&k->tally, rating);
        progress_at(bar, i + 1);
    }
    return demo_story_step(r->story, r, r->first_live + r->n_live);
}

enum status demo_live_run(struct demo_run *r) {
    const struct demo_data *d = r->data;
    struct desk k = {0};
    int64_t start_us = clock_mono_us();
    rng_init(&k.rng, 7);
    tally_init(&k.tally, d->n_films);
    for (int i = 0; i < r->first_live; i++) {
        tally_add(&k.tally, &d->ratings[i]);
    }
    people_init(&k.people, r);
    k.list = (struct list){HEAP_ARRAY(struct slice, d->n_films), HEAP_ARRAY(int, d->n_films),
                           HEAP_ARRAY(float, d->n_films), 0};
    k.wait_us = HEAP_ARRAY(float, 2 * r->n_live + 2);
    live_init(&r->live, r->n_live);

    struct progress bar;
    progress_start(&bar, "live", "ratings", r->n_live, 0);
    enum status status = run_all(r, &k, &bar);
    progress_end(&bar);
    summarise(&r->live, &k);
    r->live.seconds = (double)(clock_mono_us() - start_us) / 1e6;

    tally_deinit(&k.tally);
    people_deinit(&k.people);
    heap_free(k.list.items);
    heap_free(k.list.film);
    heap_free(k.list.gain);
    heap_free(k.wait_us);
    return status;
}
