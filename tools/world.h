/* world.h: a made-up shop whose truth is known: users with segments, items with quality, genres and
 * a price, and the probabilities of what a user does with an item shown at a place. `generate`
 * writes events drawn from it; docs/generate.md has the formulas.
 *
 * Everything is a function of (seed, index): nothing is stored per user or item, so a world of any
 * size costs no memory. Immutable after init; threads may share it. */
#pragma once
#include <stdint.h>
#include "base/rng.h"

enum { WORLD_GENRES = 12, WORLD_SEGMENTS = 6, WORLD_ITEM_GENRES = 3, WORLD_DEVICES = 3 };

struct world_conf {
    int64_t users, items, seed;
    double bias;        /* examination at rank k (from 1) is k^-bias; 0: every place is seen */
    double epsilon;     /* share of uniform choices in the logging policy */
    double temperature; /* of its softmax */
};

struct world {
    struct world_conf conf;
    double taste[WORLD_SEGMENTS][WORLD_GENRES];       /* what makes a segment click */
    double order_taste[WORLD_SEGMENTS][WORLD_GENRES]; /* ... and buy: related, not the same */
    double price_click[WORLD_SEGMENTS];               /* effect of price; signs differ by segment */
    double price_order[WORLD_SEGMENTS];
};

struct world_item {
    int genres[WORLD_ITEM_GENRES], n_genres; /* the first counts most */
    double quality;                          /* N(0, 1); never in an event */
    double price;                            /* about 2 .. 200, log-normal */
};
struct world_user {
    int segment, age;
    double own[WORLD_GENRES]; /* the user's own taste beside the segment's */
    double frugal;            /* scales the effect of price; never in an event */
    double generous;          /* N(0, 1): rates all higher; never in an event */
};
/* What the user is after just now: drawn anew each day of event time. */
struct world_moment {
    int mood_genre, device;
};
/* True probabilities; like and order are given a click. */
struct world_truth {
    double examined, click /* given examined */, like, order;
};

void world_init(struct world *w, const struct world_conf *conf);
void world_item(const struct world *w, int64_t item, struct world_item *out);
void world_user(const struct world *w, int64_t user, struct world_user *out);
struct world_moment world_moment(const struct world *w, int64_t user, int64_t time_us);
struct world_truth world_truth(const struct world *w, const struct world_user *u,
                               const struct world_item *i, struct world_moment m, int rank);

/* Ratings: the mean of the latent liking that world_rating cuts into 1..5 after adding noise, and
 * the probability that the rating is at least `stars`. */
double world_liking(const struct world *w, const struct world_user *u, const struct world_item *i,
                    struct world_moment m);
double world_at_least(double liking, int stars);
int world_rating(double liking, struct rng *r);

/* Who comes next, and what is retrieved: both skewed to small indices. */
int64_t world_draw_user(const struct world *w, struct rng *r);
int64_t world_draw_item(const struct world *w, struct rng *r);
/* What the logging policy believes: quality and segment taste, seen through noise that is fixed
 * per item; it knows no mood and no own taste. */
double world_policy_score(const struct world *w, const struct world_user *u, int64_t item,
                          const struct world_item *i);
/* Orders `n` candidates by drawing without replacement from epsilon * uniform + (1 - epsilon) *
 * softmax(score / temperature): order [n_shown] indices, propensity [n_shown] of each draw given
 * the draws before it. scores [n], scratch [n]. n_shown <= n. */
void world_policy_draw(const struct world *w, const double *scores, int n, int n_shown,
                       struct rng *r, double *scratch, int *order, double *propensity);

extern const char *const world_genre_words[WORLD_GENRES];
extern const char *const world_segment_words[WORLD_SEGMENTS];
extern const char *const world_device_words[WORLD_DEVICES];
