/* Events that nobody meant: numbers beyond floats, texts that spell them, lists of a thousand,
 * ids that are names of other things, tenants with the signs of Redis' keys, forty impressions of
 * one item. They are valid, so they are applied: under the sanitizers, in both stores, with every
 * kind. Rows are then equal in both, and after a snapshot, bit for bit. */
#pragma GCC diagnostic ignored "-Wunused-function" /* the oracle is not needed here */
#include "base/heap.h"
#include "tests/contract/features_expect.h"
#include "tests/contract/features_same.h"
#include "tests/support/redis_store.h"

static const char *const texts[] = {"",
                                    " ",
                                    "nan",
                                    "-inf",
                                    "1e400",
                                    "0x1p1000",
                                    "-0",
                                    "9999-12-31T23:59:59Z",
                                    "0000-00-00",
                                    "{x}:*\r\n$-1",
                                    "\xf0\x9f\x98\x80\xe6\x97\xa5",
                                    "http://[::1]:99999/?q=%00",
                                    "i1",
                                    "Mozilla/5.0 (((((((((",
                                    "a\tb\vc"};
static const double numbers[] = {1e308, -1e308, 5e-324, -0.0,  1e39, 9.3e18, -9.3e18,
                                 1e15,  -62e9,  253e9,  1e-30, 1.5,  -1};
static const char *const fields[] = {"year",  "genres",   "created_at", "brand",   "title", "sizes",
                                     "adult", "released", "age",        "country", "agent", "value",
                                     "query", "referer",  "page",       "local"};
enum {
    TEXTS = sizeof texts / sizeof texts[0],
    NUMBERS = sizeof numbers / sizeof numbers[0],
    FIELDS = sizeof fields / sizeof fields[0],
    LONG = 1024,
    SHAPES = TEXTS + NUMBERS + 4
};

static struct ev_value hostile_value(struct arena *a, int shape) {
    if (shape < TEXTS)
        return text_value(texts[shape]);
    if (shape < TEXTS + NUMBERS)
        return number_value(numbers[shape - TEXTS]);
    struct slice *words = ARENA_ARRAY(a, struct slice, LONG);
    double *v = ARENA_ARRAY(a, double, LONG);
    for (int i = 0; i < LONG; i++) {
        words[i] = slice_of(shape % 2 == 0 ? arena_printf(a, "w%d", i) : "same");
        v[i] = numbers[i % NUMBERS];
    }
    switch (shape - TEXTS - NUMBERS) {
    case 0:
        return (struct ev_value){EV_NUMBERS, .numbers = {v, LONG}};
    case 1:
        return (struct ev_value){EV_STRINGS, .strings = {words, LONG}};
    case 2:
        return (struct ev_value){EV_STRINGS, .strings = {words, 0}};
    default:
        memset(v, 'x', LONG * sizeof *v);
        return (struct ev_value){EV_STRING, .string = {(const char *)v, LONG * sizeof *v}};
    }
}

static struct slice odd_name(struct arena *a, struct rng *rng) {
    char *full = arena_printf(a, "%0256d", 7);
    uint32_t k = rng_below(rng, TEXTS + 3);
    return k == 0                             ? slice_of(full)
           : k < TEXTS && texts[k][0] != '\0' ? slice_of(texts[k])
                                              : SLICE_LIT("i1");
}

/* Of a tenant of their own, or of item and user "evil". */
static struct ev_event hostile_event(struct arena *a, struct rng *rng, int n) {
    struct ev_event e = {.kind = (enum ev_kind)(1 + n % 4),
                         .id = odd_name(a, rng),
                         .source = {500, n},
                         .event_time_us = T0_US + 1000000000};
    bool odd = rng_below(rng, 2) == 0;
    struct ev_field *f = ARENA_ARRAY(a, struct ev_field, FIELDS);
    for (int i = 0; i < FIELDS; i++)
        f[i] =
            (struct ev_field){slice_of(fields[i]), hostile_value(a, (int)rng_below(rng, SHAPES))};
    e.fields = f;
    e.n_fields = FIELDS;
    e.tenant = odd ? odd_name(a, rng) : (struct slice){NULL, 0};
    e.user = odd ? odd_name(a, rng) : SLICE_LIT("evil");
    e.session = e.user;
    e.item = odd ? odd_name(a, rng) : SLICE_LIT("evil");
    e.type = rng_below(rng, 2) == 0 ? SLICE_LIT("click") : SLICE_LIT("rating");
    if (e.kind == EV_RANKING) {
        struct ev_shown *shown = ARENA_ARRAY(a, struct ev_shown, 40);
        for (int i = 0; i < 40; i++) /* the same item again and again */
            shown[i] = (struct ev_shown){.item = e.item, .fields = f, .n_fields = FIELDS};
        e.shown = shown;
        e.n_shown = 40;
    }
    return e;
}

enum { HOSTILE = 400, QUESTIONS = 150 };

static void apply_all(const struct world *w, const struct ev_event *hostile, struct feat_state *s) {
    CHECK_OK(feat_state_apply(s, w->events, EVENTS, NULL));
    CHECK_OK(feat_state_apply(s, hostile, HOSTILE, NULL));
}

/* Asks for the hostile: as user and items, and with such a context. */
static void hostile_query(struct arena *a, struct rng *rng, const struct ev_event *hostile,
                          struct query *q) {
    const struct ev_event *e = &hostile[rng_below(rng, HOSTILE)];
    *q = (struct query){.tenant = e->tenant,
                        .user = e->user.n > 0 ? e->user : e->item,
                        .n_items = 15,
                        .now_us = e->event_time_us + (int64_t)rng_below(rng, 1000) * 1000000};
    q->session = q->user;
    for (int i = 0; i < q->n_items; i++) {
        q->items[i] = i % 3 == 0 ? odd_name(a, rng) : e->item.n > 0 ? e->item : SLICE_LIT("i1");
        q->scores[i] = i % 2 == 0 ? 3.4e38f : -3.4e38f;
    }
    for (int i = 0; i < 8; i++)
        q->context[q->n_context++] = (struct ev_field){
            slice_of(fields[FIELDS - 1 - i]), hostile_value(a, (int)rng_below(rng, SHAPES))};
}

static int other_hostile_rows(const struct feat_plan *p, struct feat_state *s, struct feat_state *t,
                              const struct ev_event *hostile) {
    struct rng rng;
    struct arena a;
    int wrong = 0;
    rng_init(&rng, 9);
    arena_init(&a, 0);
    for (int i = 0; i < QUESTIONS; i++) {
        struct query q;
        struct feat_rows x, y;
        arena_reset(&a);
        hostile_query(&a, &rng, hostile, &q);
        ask(s, &a, &q, false, &x);
        ask(t, &a, &q, false, &y);
        wrong += !same_rows(p, &x, &y);
    }
    arena_deinit(&a);
    return wrong;
}

static void test_applied_and_read(void) {
    static struct redis_server server;
    struct feat_plan *p = plan_of_parts(plan_head, plan_more, "");
    struct world *w = HEAP_NEW(struct world);
    struct ev_event *hostile = HEAP_ARRAY(struct ev_event, HOSTILE);
    struct rng rng;
    rng_init(&rng, 8);
    world_init(w, 500);
    for (int i = 0; i < HOSTILE; i++) {
        hostile[i] = hostile_event(&w->arena, &rng, i);
        CHECK_OK(ev_check(&hostile[i]));
    }
    redis_server_start(&server);
    struct feat_store_conf c = redis_store_conf(&server, "h:", 4);
    struct feat_state *memory = feat_state_new(p), *redis = redis_store_open(p, &c);
    apply_all(w, hostile, memory);
    apply_all(w, hostile, redis);
    CU_ASSERT_EQUAL(other_hostile_rows(p, memory, redis, hostile), 0);
    CU_ASSERT_EQUAL(other_rows(w, p, memory, redis, 9, QUESTIONS, NULL), 0);
    feat_state_free(redis);
    redis_server_remove(&server);

    char path[64];
    struct feat_state *loaded = NULL;
    snprintf(path, sizeof path, "/tmp/features_hostile.%ld", (long)getpid());
    CHECK_OK(feat_state_save(memory, path));
    CHECK_OK(feat_state_load(p, path, &loaded));
    unlink(path);
    CU_ASSERT_EQUAL(other_hostile_rows(p, memory, loaded, hostile), 0);
    feat_state_free(loaded);
    feat_state_free(memory);
    world_deinit(w);
    heap_free(hostile);
    heap_free(w);
    feat_plan_free(p);
}

SUITE("features_hostile", TEST(test_applied_and_read))
