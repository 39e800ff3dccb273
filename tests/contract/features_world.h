/* A small random world: users, items and sessions of two tenants, events on several partitions,
 * out of order, late, repeated. Everything comes from one seed. */
#pragma once
#include "base/rng.h"
#include "features/state.h"
#include "tests/support/suite.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { PARTITIONS = 4, PER_PARTITION = 150, EVENTS = PARTITIONS * PER_PARTITION, SHOWN = 5 };
#define T0_US       1700000000000000ll
#define LATENESS_US 60000000ll
#define VISIT_US    100000000ll /* how long interactions answer a ranking */

struct world {
    struct arena arena;
    struct rng rng;
    struct ev_event events[EVENTS]; /* by partition, then offset */
    bool accepted[EVENTS];
    /* An interaction answers some ranking; an item of a ranking, or one below it, was answered. */
    bool joined[EVENTS][SHOWN];
    int64_t newest_us;
};

static struct slice name_of(struct world *w, const char *prefix, uint32_t n) {
    const char *s = arena_printf(&w->arena, "%s%u", prefix, n);
    return slice_of(s);
}

static struct ev_value number_value(double v) { return (struct ev_value){EV_NUMBER, .number = v}; }

static struct ev_value genres_value(struct world *w) {
    static const char *const words[] = {"drama", "war", "comedy", "noir", "sport", "music"};
    int n = (int)rng_below(&w->rng, 4);
    struct slice *v = ARENA_ARRAY(&w->arena, struct slice, n + 1);
    for (int i = 0; i < n; i++)
        v[i] = slice_of(words[rng_below(&w->rng, 6)]);
    return (struct ev_value){EV_STRINGS, .strings = {v, n}};
}

static struct ev_value text_value(const char *text) {
    return (struct ev_value){EV_STRING, .string = slice_of(text)};
}

static struct ev_value pick_text(struct world *w, const char *const *texts, uint32_t n) {
    return text_value(texts[rng_below(&w->rng, n)]);
}

static struct ev_value brand_value(struct world *w) {
    return (struct ev_value){EV_STRING, .string = name_of(w, "b", rng_below(&w->rng, 4))};
}

static struct ev_value title_value(struct world *w) {
    static const char *const words[] = {"Red", "socks", "blue-CAR", "the", "sock,", "(car)"};
    char *text = arena_printf(&w->arena, "%s", "");
    for (int n = (int)rng_below(&w->rng, 6); n > 0; n--)
        text = arena_printf(&w->arena, "%s %s", text, words[rng_below(&w->rng, 6)]);
    return text_value(text);
}

static struct ev_value sizes_value(struct world *w) {
    int n = (int)rng_below(&w->rng, 5);
    double *v = ARENA_ARRAY(&w->arena, double, n + 1);
    for (int i = 0; i < n; i++)
        v[i] = (double)rng_below(&w->rng, 50) / 4 - 5;
    return (struct ev_value){EV_NUMBERS, .numbers = {v, n}};
}

static struct ev_value adult_value(struct world *w) {
    static const char *const texts[] = {"yes", "no", "true", "perhaps"};
    return rng_below(&w->rng, 2) == 0
               ? (struct ev_value){EV_BOOL, .boolean = rng_below(&w->rng, 2) == 0}
               : pick_text(w, texts, 4);
}

/* T0_US is 2023-11-14T22:13:20Z */
static struct ev_value released_value(struct world *w) {
    static const char *const texts[] = {"2023-11-14T23:13:20+01:00", "2023-11-14T22:13:21.5Z",
                                        "2023-11-14", "soon"};
    return pick_text(w, texts, 4);
}

static const char *const clocks[] = {"2023-11-14T23:13:20+01:00", "2020-02-29T00:30:00-05:00",
                                     "1999-12-31", "soon"};
static const double clocks_s[] = {T0_US / 1000000 + 3600, 1582936200, 946598400, NAN};
static const char *const agents[] = {
    "Mozilla/5.0 (iPhone; CPU iPhone OS 15_3_1 like Mac OS X) AppleWebKit/605.1.15 Version/15.2 "
    "Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/99.0 Safari/537.36 "
    "Edg/98.0",
    "Googlebot/2.1 (+http://www.google.com/bot.html)"};
static const char *const referers[] = {"https://www.google.co.uk/search?q=x", "https://t.co/abc",
                                       "http://shop.example/cart", "https://nowhere.test/"};
static const char *const queries[] = {"red sock", "CAR", "the the blue", "x"};

/* Each field is there three times in four. */
static void add_field(struct world *w, struct ev_field *fields, int *n, const char *name,
                      struct ev_value v) {
    if (rng_below(&w->rng, 4) > 0)
        fields[(*n)++] = (struct ev_field){slice_of(name), v};
}

static void item_event(struct world *w, struct ev_event *e, struct ev_field *fields) {
    e->kind = EV_ITEM;
    e->item = name_of(w, "i", rng_below(&w->rng, 10));
    /* numbers come as numbers and as text */
    struct ev_value year = number_value(1990 + rng_below(&w->rng, 5));
    if (rng_below(&w->rng, 3) == 0)
        year = (struct ev_value){EV_STRING, .string = name_of(w, "", 1990 + rng_below(&w->rng, 5))};
    if (rng_below(&w->rng, 9) == 0)
        year = (struct ev_value){EV_STRING, .string = SLICE_LIT("unknown")};
    add_field(w, fields, &e->n_fields, "year", year);
    add_field(w, fields, &e->n_fields, "genres", genres_value(w));
    add_field(w, fields, &e->n_fields, "created_at",
              number_value((double)(T0_US / 1000000) - (double)rng_below(&w->rng, 5000) / 8));
    add_field(w, fields, &e->n_fields, "brand", brand_value(w));
    add_field(w, fields, &e->n_fields, "title", title_value(w));
    add_field(w, fields, &e->n_fields, "sizes", sizes_value(w));
    add_field(w, fields, &e->n_fields, "adult", adult_value(w));
    add_field(w, fields, &e->n_fields, "released", released_value(w));
}

/* What rankings and interactions carry. */
static void moment_fields(struct world *w, struct ev_event *e, struct ev_field *fields) {
    add_field(w, fields, &e->n_fields, "query", pick_text(w, queries, 4));
    add_field(w, fields, &e->n_fields, "referer", pick_text(w, referers, 4));
    if (rng_below(&w->rng, 2) == 0)
        add_field(w, fields, &e->n_fields, "brand", brand_value(w));
}

static void ranking_event(struct world *w, struct ev_event *e, struct ev_field *fields) {
    static const char *const pages[] = {"home", "search"};
    e->kind = EV_RANKING;
    if (rng_below(&w->rng, 5) == 0)
        e->user = (struct slice){NULL, 0};
    add_field(w, fields, &e->n_fields, "page",
              (struct ev_value){EV_STRING, .string = slice_of(pages[rng_below(&w->rng, 2)])});
    moment_fields(w, e, fields);
    e->n_shown = (int)rng_below(&w->rng, SHOWN + 1);
    struct ev_shown *shown = ARENA_ARRAY(&w->arena, struct ev_shown, SHOWN);
    for (int i = 0; i < e->n_shown; i++) { /* now and then an item is shown twice */
        struct ev_field *own = ARENA_ARRAY(&w->arena, struct ev_field, 2);
        shown[i].item = name_of(w, "i", rng_below(&w->rng, 12));
        add_field(w, own, &shown[i].n_fields, "value", number_value(rng_below(&w->rng, 3)));
        if (rng_below(&w->rng, 2) == 0)
            add_field(w, own, &shown[i].n_fields, "brand", brand_value(w));
        shown[i].fields = own;
    }
    e->shown = shown;
}

static void random_event(struct world *w, struct ev_event *e) {
    static const double values[] = {1, 2, 3, 4, 5, 0.1, 4.5};
    struct ev_field *fields = ARENA_ARRAY(&w->arena, struct ev_field, 12);
    e->tenant = rng_below(&w->rng, 4) == 0 ? SLICE_LIT("other") : (struct slice){NULL, 0};
    e->user = name_of(w, "u", rng_below(&w->rng, 6));
    if (rng_below(&w->rng, 3) > 0)
        e->session = name_of(w, "s", rng_below(&w->rng, 5));
    uint32_t kind = rng_below(&w->rng, 10);
    if (kind == 0) {
        item_event(w, e, fields);
    } else if (kind == 1) {
        e->kind = EV_USER;
        add_field(w, fields, &e->n_fields, "age", number_value(18 + rng_below(&w->rng, 40)));
        add_field(w, fields, &e->n_fields, "country",
                  (struct ev_value){EV_STRING, .string = name_of(w, "c", rng_below(&w->rng, 3))});
        add_field(w, fields, &e->n_fields, "agent", pick_text(w, agents, 3));
    } else if (kind < 4) {
        ranking_event(w, e, fields);
    } else {
        e->kind = EV_INTERACTION;
        e->item = name_of(w, "i", rng_below(&w->rng, 12));
        e->type = rng_below(&w->rng, 3) == 0 ? SLICE_LIT("click") : SLICE_LIT("rating");
        add_field(w, fields, &e->n_fields, "value", number_value(values[rng_below(&w->rng, 7)]));
        moment_fields(w, e, fields);
    }
    e->fields = fields;
    e->id = SLICE_LIT("x");
}

/* Rankings have ids, some of them the same one, and most interactions name one: of a ranking before
 * them, after them, of another tenant, or of none at all. */
static void join_ids(struct world *w, struct rng *rng, int64_t second, struct ev_event *e) {
    if (e->kind == EV_INTERACTION)
        second += 40 - (int64_t)rng_below(rng, 160);
    if (e->kind == EV_RANKING || (e->kind == EV_INTERACTION && rng_below(rng, 8) > 0)) {
        struct slice id = slice_of(
            arena_printf(&w->arena, "r%lld.%u", (long long)(second / 40), rng_below(rng, 2)));
        *(e->kind == EV_RANKING ? &e->id : &e->ranking) = id;
    }
}

/* The last place at which the interaction's item stood in the ranking that it answers; -1. */
static int answered_at(const struct ev_event *i, const struct ev_event *r) {
    int at = -1;
    if (i->kind != EV_INTERACTION || r->kind != EV_RANKING || i->ranking.n == 0 ||
        i->source.partition != r->source.partition || !slice_equal(i->ranking, r->id) ||
        !slice_equal(i->tenant, r->tenant) || i->event_time_us < r->event_time_us ||
        i->event_time_us > r->event_time_us + VISIT_US)
        return -1;
    for (int k = 0; k < r->n_shown; k++)
        if (slice_equal(r->shown[k].item, i->item))
            at = k;
    return at;
}

/* Every pair of events. */
static void join_all(struct world *w) {
    for (int i = 0; i < EVENTS; i++)
        for (int r = 0; r < EVENTS; r++) {
            int at =
                w->accepted[i] && w->accepted[r] ? answered_at(&w->events[i], &w->events[r]) : -1;
            for (int k = 0; k <= at; k++)
                w->joined[r][k] = true;
            w->joined[i][0] |= at >= 0;
        }
}

/* Partitions lag behind each other; within one, events come up to 40 s late, and a few far beyond
 * the lateness. Whole seconds, so that many events tie. */
static void world_init(struct world *w, uint64_t seed) {
    memset(w, 0, sizeof *w);
    arena_init(&w->arena, 0);
    rng_init(&w->rng, seed);
    struct rng ids;
    rng_init(&ids, seed + 1000);
    for (int p = 0; p < PARTITIONS; p++) {
        int64_t clock_us = 0, offset = 0;
        for (int i = 0; i < PER_PARTITION; i++) {
            int at = p * PER_PARTITION + i;
            struct ev_event *e = &w->events[at];
            random_event(w, e);
            int64_t second = 1000 + 5 * i - 150 * p - rng_below(&w->rng, 40);
            if (rng_below(&w->rng, 15) == 0)
                second -= 100 + rng_below(&w->rng, 200);
            e->event_time_us = T0_US + second * 1000000;
            join_ids(w, &ids, second, e);
            offset += 1 + rng_below(&w->rng, 3); /* logs have gaps */
            e->source = (struct ev_source){p * 7, offset};
            w->accepted[at] = e->event_time_us >= clock_us - LATENESS_US;
            clock_us = e->event_time_us > clock_us ? e->event_time_us : clock_us;
        }
        w->newest_us = clock_us > w->newest_us ? clock_us : w->newest_us;
    }
    join_all(w);
}

static void world_deinit(struct world *w) { arena_deinit(&w->arena); }

/* A random interleaving of the partitions; with `repeats`, a partition is now and then read again
 * from an earlier offset. order [at most max]. */
static int world_order(struct world *w, struct rng *rng, bool repeats, int *order, int max) {
    int next[PARTITIONS] = {0}, n = 0, left = PARTITIONS;
    while (left > 0 && n < max) {
        int p = (int)rng_below(rng, PARTITIONS);
        int run = 1 + (int)rng_below(rng, 30);
        if (repeats && rng_below(rng, 4) == 0)
            next[p] -= next[p] < 20 ? next[p] : (int)rng_below(rng, 20);
        for (; run > 0 && next[p] < PER_PARTITION && n < max; run--)
            order[n++] = p * PER_PARTITION + next[p]++;
        left = 0;
        for (int i = 0; i < PARTITIONS; i++)
            left += next[i] < PER_PARTITION;
    }
    CU_ASSERT_EQUAL(left, 0);
    (void)w;
    return n;
}

/* Applies order [n] in micro-batches of random size. */
static void world_apply(const struct world *w, struct rng *rng, struct feat_state *s,
                        const int *order, int n) {
    struct ev_event batch[64];
    for (int i = 0; i < n;) {
        int size = 1 + (int)rng_below(rng, 64), k = 0;
        for (; k < size && i < n; k++)
            batch[k] = w->events[order[i++]];
        feat_state_apply(s, batch, k, NULL);
    }
}
