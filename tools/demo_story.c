/* demo_story.c: one user's top ten before and after three of their events, and why films moved: the
 * feature of each film that changed most, in units of its spread over all films. Everything shown
 * comes from Rank calls with `explain`; nothing is looked up behind the service's back. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/heap.h"
#include "base/node.h"
#include "tools/demo.h"

#define TOP         10
#define EVENTS      3
#define CHUNK       10 /* a Rank call explains its first ten */
#define VALUES_MAX  256
#define HISTORY_MIN 20

struct film_view {
    int place; /* 0-based among the candidates; -1 not one */
    float score;
    float *values; /* [n_values] features as explained */
};
struct view {
    struct film_view *films; /* [n_films] */
    int *top;                /* [TOP] film indices */
    int n_top;
};
struct demo_story {
    const struct demo_data *data;
    struct slice user;
    int at[EVENTS + 1]; /* rating indices: the three events, and where "after" is looked at */
    int n_rated;
    struct slice *candidates; /* [n] films not rated before and not among the three events' */
    int *film;
    int n;
    struct arena arena;
    const char **names; /* [n_values] */
    int n_values;
    struct view before, after;
    bool told;
};

/* The first live user with a history and three live events. */
static bool choose_user(struct demo_story *s, int first_live) {
    const struct demo_data *d = s->data;
    for (int i = first_live; i < d->n_ratings; i++) {
        int history = 0, found = 0;
        for (int j = 0; j < first_live; j++) {
            history += slice_equal(d->ratings[j].user, d->ratings[i].user);
        }
        for (int j = i; j < d->n_ratings && found < EVENTS && history >= HISTORY_MIN; j++) {
            if (slice_equal(d->ratings[j].user, d->ratings[i].user)) {
                s->at[found++] = j;
            }
        }
        if (found == EVENTS) {
            s->user = d->ratings[i].user;
            s->at[EVENTS] = s->at[EVENTS - 1] + 1;
            return true;
        }
    }
    return false;
}

struct demo_story *demo_story_new(const struct demo_data *data, int first_live) {
    struct demo_story *s = HEAP_NEW(struct demo_story);
    s->data = data;
    arena_init(&s->arena, 1 << 20);
    s->candidates = HEAP_ARRAY(struct slice, data->n_films);
    s->film = HEAP_ARRAY(int, data->n_films);
    s->names = HEAP_ARRAY(const char *, VALUES_MAX);
    if (!choose_user(s, first_live)) {
        s->at[0] = s->at[EVENTS] = -1;
        return s;
    }
    uint8_t *rated = HEAP_ARRAY(uint8_t, data->n_films);
    for (int i = 0; i < s->at[EVENTS]; i++) {
        if (slice_equal(data->ratings[i].user, s->user)) {
            rated[data->ratings[i].film] = 1;
        }
    }
    for (int f = 0; f < data->n_films; f++) {
        if (!rated[f]) {
            s->film[s->n] = f;
            s->candidates[s->n++] = data->films[f].id;
        }
    }
    heap_free(rated);
    return s;
}

void demo_story_free(struct demo_story *s) {
    if (!s) {
        return;
    }
    heap_free(s->candidates);
    heap_free(s->film);
    heap_free(s->names);
    heap_free(s->before.films);
    heap_free(s->before.top);
    heap_free(s->after.films);
    heap_free(s->after.top);
    arena_deinit(&s->arena);
    heap_free(s);
}

/* Keeps the values of one explained film. */
static void keep_values(struct demo_story *s, const struct rpc_explanation *x,
                        struct film_view *film) {
    film->values = ARENA_ARRAY(&s->arena, float, VALUES_MAX);
    int n = 0;
    for (int f = 0; f < x->n_features; f++) {
        for (int v = 0; v < x->features[f].n && n < VALUES_MAX; v++) {
            if (n >= s->n_values) {
                s->names[s->n_values++] = arena_strdup(&s->arena, x->features[f].name);
            }
            film->values[n++] = x->features[f].values[v];
        }
    }
}

static enum status look(struct demo_story *s, struct demo_run *r, int64_t now_us,
                        struct view *view) {
    struct rpc_rank_response response;
    view->films = HEAP_ARRAY(struct film_view, s->data->n_films);
    view->top = HEAP_ARRAY(int, TOP);
    for (int f = 0; f < s->data->n_films; f++) {
        view->films[f].place = -1;
    }
    TRY(demo_rank(r, s->user, s->candidates, s->n, now_us, false, 0, true, &response));
    for (int i = 0; i < response.n; i++) {
        int film = s->film[response.order[i]];
        view->films[film].place = i;
        view->films[film].score = response.scores[i];
        if (i < TOP) {
            view->top[view->n_top++] = film;
        }
    }
    for (int first = 0; first < s->n; first += CHUNK) {
        int n = s->n - first < CHUNK ? s->n - first : CHUNK;
        TRY(demo_rank(r, s->user, s->candidates + first, n, now_us, true, 0, true, &response));
        for (int i = 0; i < response.n_explanations; i++) {
            int film = s->film[first + (int)response.order[i]];
            keep_values(s, &response.explanations[i], &view->films[film]);
        }
    }
    return STATUS_OK;
}

enum status demo_story_step(struct demo_story *s, struct demo_run *r, int index) {
    const struct demo_data *d = s->data;
    if (index == s->at[0]) {
        return look(s, r, d->events[d->ratings[index].event].event_time_us, &s->before);
    }
    if (index == s->at[EVENTS]) {
        int last = s->at[EVENTS - 1];
        TRY(look(s, r, d->events[d->ratings[last].event].event_time_us, &s->after));
        s->told = true;
    }
    return STATUS_OK;
}

/* Which feature of the film changed most, in units of its spread over all films before. */
static int most_changed(const struct demo_story *s, int film) {
    const float *was = s->before.films[film].values, *is = s->after.films[film].values;
    int best = -1;
    double most = 0;
    for (int v = 0; was && is && v < s->n_values; v++) {
        double sum = 0, squares = 0;
        int n = 0;
        for (int i = 0; i < s->n; i++) {
            const float *values = s->before.films[s->film[i]].values;
            if (values && isfinite(values[v])) {
                sum += values[v];
                squares += (double)values[v] * values[v];
                n++;
            }
        }
        double spread = n > 1 ? sqrt(fmax(squares / n - sum / n * (sum / n), 0)) : 0;
        double change = isfinite(was[v]) && isfinite(is[v]) ? fabs((double)is[v] - was[v]) : 0;
        if (spread > 1e-6 && change / spread > most) {
            most = change / spread;
            best = v;
        }
    }
    return best;
}

static void print_film(const struct demo_story *s, int place, int film) {
    int was = s->before.films[film].place, moved = was - place;
    printf("  %2d  %-42.*s ", place + 1, SLICE_ARG(s->data->films[film].title));
    if (moved == 0) {
        printf("   =    ");
    } else {
        printf("%s%-5d ", moved > 0 ? " +" : " -", abs(moved));
    }
    int v = most_changed(s, film);
    if (v >= 0) {
        printf(" %s %.3g -> %.3g", s->names[v], (double)s->before.films[film].values[v],
               (double)s->after.films[film].values[v]);
    }
    printf("\n");
}

void demo_story_print(const struct demo_story *s) {
    if (!s->told) {
        printf("  no user with a history and three live events\n");
        return;
    }
    const struct demo_data *d = s->data;
    printf("\nUser %.*s before:\n", SLICE_ARG(s->user));
    for (int i = 0; i < s->before.n_top; i++) {
        printf("  %2d  %.*s\n", i + 1, SLICE_ARG(d->films[s->before.top[i]].title));
    }
    printf("then rated:");
    for (int i = 0; i < EVENTS; i++) {
        const struct demo_rating *rating = &d->ratings[s->at[i]];
        printf("%s %.*s %d/5", i ? "," : "", SLICE_ARG(d->films[rating->film].title),
               rating->value);
    }
    printf("\nafter (places moved, and the feature that changed most):\n");
    for (int i = 0; i < s->after.n_top; i++) {
        print_film(s, i, s->after.top[i]);
    }
}

static void json_titles(const struct demo_story *s, struct json *j, const char *key,
                        const struct view *v) {
    json_key(j, key);
    json_array(j);
    for (int i = 0; i < v->n_top; i++) {
        json_str(j, s->data->films[v->top[i]].title);
    }
    json_array_end(j);
}

void demo_story_json(const struct demo_story *s, struct json *j) {
    json_object(j);
    json_key(j, "user");
    json_str(j, s->user);
    json_titles(s, j, "before", &s->before);
    json_titles(s, j, "after", &s->after);
    json_object_end(j);
}
