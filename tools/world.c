/* world.c: the made-up shop.
 *
 * Clicks follow the examination hypothesis (Richardson et al. 2007; Craswell et al. 2008): clicked
 * = examined and relevant, the first a function of the place, the second of user and item. Likes
 * and orders follow a click with other weights than the click's own, in some segments against it,
 * so that tasks conflict. The policy is a Plackett-Luce draw mixed with uniform ones, logged with
 * its propensities.
 *
 * Deliberately not a model of any real shop: it is the simplest one in which user history,
 * item quality, context, position and task conflict each matter. */
#include "tools/world.h"
#include <math.h>
#include "base/hash.h"

const char *const world_genre_words[WORLD_GENRES] = {"art",     "books", "camping", "drinks",
                                                     "fashion", "games", "garden",  "kitchen",
                                                     "music",   "sport", "toys",    "travel"};
const char *const world_segment_words[WORLD_SEGMENTS] = {"students", "parents", "seniors",
                                                         "gamers",   "makers",  "nomads"};
const char *const world_device_words[WORLD_DEVICES] = {"phone", "tablet", "desktop"};

enum { STREAM_WORLD = 1, STREAM_ITEM, STREAM_USER, STREAM_MOMENT, STREAM_BELIEF };
static const int64_t day_us = 86400000000;

static void seeded(const struct world *w, int stream, int64_t index, struct rng *out) {
    rng_init(out, hash_mix(hash_mix((uint64_t)w->conf.seed, (uint64_t)stream), (uint64_t)index));
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

void world_init(struct world *w, const struct world_conf *conf) {
    struct rng r;
    w->conf = *conf;
    seeded(w, STREAM_WORLD, 0, &r);
    for (int s = 0; s < WORLD_SEGMENTS; s++) {
        for (int g = 0; g < WORLD_GENRES; g++) {
            w->taste[s][g] = 1.2 * rng_normal(&r);
            w->order_taste[s][g] = 0.3 * w->taste[s][g] + 0.9 * rng_normal(&r);
        }
        w->price_click[s] = s % 2 ? 0.5 : -0.5; /* window-shoppers click on what is dear */
        w->price_order[s] = -0.6 - 0.6 * rng_double(&r);
    }
}

void world_item(const struct world *w, int64_t item, struct world_item *out) {
    struct rng r;
    seeded(w, STREAM_ITEM, item, &r);
    out->n_genres = 1 + (int)rng_below(&r, WORLD_ITEM_GENRES);
    for (int i = 0; i < out->n_genres; i++) {
        int g = (int)rng_below(&r, WORLD_GENRES);
        for (int k = 0; k < i; k++) /* few genres: a second draw of one becomes its neighbour */
            if (out->genres[k] == g)
                g = (g + 1) % WORLD_GENRES, k = -1;
        out->genres[i] = g;
    }
    out->quality = rng_normal(&r);
    out->price = round(100 * exp(3 + 0.8 * rng_normal(&r))) / 100;
}

void world_user(const struct world *w, int64_t user, struct world_user *out) {
    struct rng r;
    seeded(w, STREAM_USER, user, &r);
    out->segment = (int)rng_below(&r, WORLD_SEGMENTS);
    out->age = 16 + 10 * out->segment + (int)rng_below(&r, 15);
    out->frugal = 0.5 + rng_double(&r);
    out->generous = rng_normal(&r);
    for (int g = 0; g < WORLD_GENRES; g++)
        out->own[g] = 0.7 * rng_normal(&r);
}

struct world_moment world_moment(const struct world *w, int64_t user, int64_t time_us) {
    struct rng r;
    seeded(w, STREAM_MOMENT, (int64_t)hash_mix((uint64_t)user, (uint64_t)(time_us / day_us)), &r);
    struct world_moment m = {.mood_genre = (int)rng_below(&r, WORLD_GENRES)};
    m.device = (int)rng_below(&r, WORLD_DEVICES);
    return m;
}

/* A taste over an item's genres: the first counts most, all weights sum to one. */
static double over_genres(const struct world_item *i, const double *taste, const double *own) {
    double sum = 0, total = 0;
    for (int k = 0; k < i->n_genres; k++) {
        double weight = 1.0 / (k + 1);
        sum += weight * (taste[i->genres[k]] + (own ? own[i->genres[k]] : 0));
        total += weight;
    }
    return sum / total;
}

static double mood_of(const struct world_item *i, struct world_moment m) {
    double mood = 0;
    for (int k = 0; k < i->n_genres; k++)
        mood += i->genres[k] == m.mood_genre ? 1.0 : 0;
    return mood;
}

struct world_truth world_truth(const struct world *w, const struct world_user *u,
                               const struct world_item *i, struct world_moment m, int rank) {
    double dear = log(i->price) - 3; /* about N(0, 0.8) */
    double mood = mood_of(i, m), fit = over_genres(i, w->taste[u->segment], u->own);
    double click =
        -1.6 + fit + 0.6 * i->quality + mood + u->frugal * w->price_click[u->segment] * dear;
    double like = -0.6 + 0.5 * fit + 1.3 * i->quality - 0.5 * mood;
    double order = -2.2 + over_genres(i, w->order_taste[u->segment], u->own) +
                   u->frugal * w->price_order[u->segment] * dear + 0.5 * i->quality +
                   (m.device == WORLD_DEVICES - 1 ? 0.5 : 0);
    return (struct world_truth){.examined = pow(rank, -w->conf.bias),
                                .click = sigmoid(click),
                                .like = sigmoid(like),
                                .order = sigmoid(order)};
}

/* Ordered probit: shares of 1..5 stars about as in MovieLens-100K. */
static const double star_noise = 1.5;
static const double star_cuts[] = {-2.95, -1.8, -0.24, 1.53}; /* 2, 3, 4, 5 stars */

double world_liking(const struct world *w, const struct world_user *u, const struct world_item *i,
                    struct world_moment m) {
    return 0.6 * over_genres(i, w->taste[u->segment], u->own) + 0.8 * i->quality +
           0.5 * u->generous + 0.3 * mood_of(i, m);
}

double world_at_least(double liking, int stars) {
    return stars < 2 ? 1 : erfc((star_cuts[stars - 2] - liking) / (star_noise * sqrt(2))) / 2;
}

int world_rating(double liking, struct rng *r) {
    double latent = liking + star_noise * rng_normal(r);
    int stars = 1;
    while (stars < 5 && latent >= star_cuts[stars - 1])
        stars++;
    return stars;
}

static int64_t skewed(struct rng *r, int64_t n, double power) {
    int64_t k = (int64_t)((double)n * pow(rng_double(r), power));
    return k < n ? k : n - 1;
}

int64_t world_draw_user(const struct world *w, struct rng *r) {
    return skewed(r, w->conf.users, 2);
}
int64_t world_draw_item(const struct world *w, struct rng *r) {
    return skewed(r, w->conf.items, 1.5);
}

double world_policy_score(const struct world *w, const struct world_user *u, int64_t item,
                          const struct world_item *i) {
    struct rng r;
    seeded(w, STREAM_BELIEF, item, &r);
    return 0.4 * i->quality + 0.6 * over_genres(i, w->taste[u->segment], NULL) +
           0.6 * rng_normal(&r);
}

/* The draw with which `u` in [0, 1) lands among the open candidates; weight < 0: taken. */
static int land(const double *weight, int n, double sum, double epsilon, int open, double u,
                double *propensity) {
    int last = -1;
    for (int k = 0; k < n; k++) {
        if (weight[k] < 0)
            continue;
        double p = epsilon / open + (1 - epsilon) * weight[k] / sum;
        *propensity = p;
        last = k;
        if (u < p)
            return k;
        u -= p;
    }
    return last; /* rounding */
}

void world_policy_draw(const struct world *w, const double *scores, int n, int n_shown,
                       struct rng *r, double *scratch, int *order, double *propensity) {
    double top = -INFINITY;
    for (int k = 0; k < n; k++)
        top = scores[k] > top ? scores[k] : top;
    for (int k = 0; k < n; k++)
        scratch[k] = exp((scores[k] - top) / w->conf.temperature);
    for (int s = 0; s < n_shown; s++) {
        double sum = 0;
        for (int k = 0; k < n; k++)
            sum += scratch[k] > 0 ? scratch[k] : 0;
        /* all weights left may have vanished at a low temperature: then every draw is uniform */
        double epsilon = sum > 0 ? w->conf.epsilon : 1;
        order[s] =
            land(scratch, n, sum > 0 ? sum : 1, epsilon, n - s, rng_double(r), &propensity[s]);
        scratch[order[s]] = -1;
    }
}
