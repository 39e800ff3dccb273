/* features_past: a state in which some records have more events than the rest. Each record of the
 * past equals, byte for byte, that of a state which has applied of every partition just what the
 * record had; all others are the base's; the base stays as it was. */
#include "base/rng.h"
#include "features/keys.h"
#include "features/past.h"
#include "features/shares.h"
#include "features/state_parts.h"
#include "tests/unit/features_make.h"

static const char plan_text[] =
    "lateness: 20s\n"
    "features:\n"
    "  - {name: clicks, kind: count, scope: item, on: click}\n"
    "  - {name: lately, kind: window_count, scope: item, on: any, bucket: 10s, windows: [1m, 5m]}\n"
    "  - {name: rate, kind: rate, scope: item, top: click, bottom: any, prior_weight: 2}\n"
    "  - {name: active, kind: decayed_count, scope: user, on: any, half_life: 1m}\n"
    "  - {name: seen, kind: last_n, on: any, n: 5}\n"
    "  - {name: all, kind: count, scope: global, on: any}\n"
    "  - {name: both, kind: count, scope: [user, event.kind], on: any}\n";

static const char sums_text[] =
    "lateness: 20s\n"
    "features:\n"
    "  - {name: clicks, kind: count, scope: item.kind, on: click}\n"
    "  - {name: rate, kind: rate, scope: item.kind, top: click, bottom: any, prior_weight: 2}\n"
    "  - {name: active, kind: decayed_count, scope: item.kind, on: any, half_life: 1m}\n"
    "  - {name: seen, kind: last_n, on: any, n: 5}\n";

enum { PARTITIONS = 3, EACH = 120, USERS = 6, ITEMS = 8, ROUNDS = 60, BUCKETS = 3, KINDS = 2 };

static struct arena arena;
static struct ev_event events[PARTITIONS][EACH];
static struct ev_field kinds[2];

static const char *name_of(char letter, uint64_t number) {
    return arena_printf(&arena, "%c%d", letter, (int)number);
}

static void make_events(struct rng *rng) {
    kinds[0] = (struct ev_field){SLICE_LIT("kind"), {EV_STRING, .string = SLICE_LIT("red")}};
    kinds[1] = (struct ev_field){SLICE_LIT("kind"), {EV_STRING, .string = SLICE_LIT("blue")}};
    for (int p = 0; p < PARTITIONS; p++)
        for (int i = 0; i < EACH; i++) {
            int64_t late_us = rng_below(rng, 10) == 0 ? 40000000 : 0; /* some too late */
            int64_t time_us = 1000000000 + (int64_t)i * 2000000 - late_us;
            struct ev_event *e = &events[p][i];
            *e = interaction(name_of('u', rng_below(rng, USERS)),
                             name_of('i', rng_below(rng, ITEMS)),
                             rng_below(rng, 2) ? "click" : "view", time_us, p, i);
            e->fields = &kinds[rng_below(rng, 2)];
            e->n_fields = 1;
        }
}

/* A state that has applied events [0, to[p]] of each partition. */
static struct feat_state *state_at(const struct feat_plan *plan, const int64_t *to) {
    struct feat_state *s = feat_state_new(plan);
    for (int p = 0; p < PARTITIONS; p++)
        feat_state_apply(s, events[p], (int)to[p] + 1, NULL);
    return s;
}

static bool same(struct feat_state *a, struct feat_state *b, struct feat_entity e) {
    return slice_equal(feat_state_bytes(a, e.scope, e.key), feat_state_bytes(b, e.scope, e.key));
}

/* Users, items, and one for everybody. */
static struct feat_entity entity(int number) {
    struct slice none = {NULL, 0};
    if (number < USERS)
        return (struct feat_entity){FEAT_SCOPE_USER,
                                    feat_user_key(none, slice_of(name_of('u', (uint64_t)number)))};
    if (number < USERS + ITEMS)
        return (struct feat_entity){
            FEAT_SCOPE_ITEM,
            feat_item_key(none, slice_of(name_of('i', (uint64_t)(number - USERS))))};
    return (struct feat_entity){FEAT_SCOPE_GLOBAL, feat_global_key(feat_tenant_hash(none))};
}
enum { ENTITIES = USERS + ITEMS + 1 };

static void feed(struct feat_past *past) {
    const struct feat_applied *wanted;
    int n = feat_past_wanted(past, &arena, &wanted);
    for (int i = 0; i < n; i++)
        for (int64_t k = 0; k <= wanted[i].offset; k++) /* from the start: repeats are left out */
            feat_past_event(past, &events[wanted[i].partition][k]);
}

static void one_round(const struct feat_plan *plan, struct rng *rng, int *differ) {
    int64_t at[PARTITIONS], to[ENTITIES][PARTITIONS];
    struct feat_ahead ahead[ENTITIES * PARTITIONS];
    int n = 0;
    for (int p = 0; p < PARTITIONS; p++)
        at[p] = (int64_t)rng_below(rng, EACH - 20) - 1;
    for (int i = 0; i < ENTITIES; i++)
        for (int p = 0; p < PARTITIONS; p++) {
            bool more = rng_below(rng, 4) == 0;
            to[i][p] = at[p] + (more ? 1 + (int64_t)rng_below(rng, 20) : 0);
            if (more)
                ahead[n++] = (struct feat_ahead){entity(i).scope, entity(i).key, p, to[i][p]};
        }
    struct feat_state *base = state_at(plan, at), *untouched = state_at(plan, at);
    struct feat_past *past = feat_past_new(plan, base, 0);
    feat_past_begin(past, ahead, n);
    feed(past);
    for (int i = 0; i < ENTITIES; i++) {
        struct feat_state *expected = state_at(plan, to[i]);
        CU_ASSERT_TRUE(same(feat_past_state(past), expected, entity(i)));
        CU_ASSERT_TRUE(same(base, untouched, entity(i)));
        *differ += !same(expected, base, entity(i));
        feat_state_free(expected);
    }
    feat_past_begin(past, NULL, 0); /* and nothing is ahead any more */
    for (int i = 0; i < ENTITIES; i++)
        CU_ASSERT_TRUE(same(feat_past_state(past), base, entity(i)));
    feat_past_free(past);
    feat_state_free(base);
    feat_state_free(untouched);
}

static void test_records_ahead_have_just_what_they_had(void) {
    struct rng rng;
    int differ = 0;
    rng_init(&rng, 7);
    arena_init(&arena, 0);
    make_events(&rng);
    struct feat_plan *plan = plan_of(plan_text);
    for (int i = 0; i < ROUNDS; i++)
        one_round(plan, &rng, &differ);
    CU_ASSERT_TRUE(differ > ROUNDS); /* being ahead was not for nothing */
    feat_plan_free(plan);
    arena_deinit(&arena);
}

/* ---- sums over items: a share knows the items of its bucket as they were when it was read ---- */

static uint64_t kind_key(const struct feat_plan *plan, int kind) {
    return feat_place_value_key(&plan->places[0], 0, feat_text_key(kinds[kind].value.string));
}

/* Some of the events give items another kind instead. */
static void make_moves(struct rng *rng) {
    for (int p = 0; p < PARTITIONS; p++)
        for (int i = 0; i < EACH; i++)
            if (rng_below(rng, 4) == 0) {
                events[p][i].kind = EV_ITEM;
                events[p][i].user = events[p][i].type = (struct slice){NULL, 0};
            }
}

/* Of items in bucket b the events up to to[b], of each by itself. */
static struct feat_state *state_by_bucket(const struct feat_plan *plan,
                                          int64_t to[BUCKETS][PARTITIONS]) {
    struct feat_state *s = feat_state_new(plan);
    for (int p = 0; p < PARTITIONS; p++) {
        struct feat_applied from = {p, -1, 0};
        for (int i = 0; i < EACH; i++) {
            uint64_t key = feat_item_key((struct slice){NULL, 0}, events[p][i].item);
            if (feat_state_judge(plan, &from, &events[p][i]) == FEAT_APPLIED &&
                i <= to[feat_bucket_of(FEAT_SCOPE_ITEM, key, BUCKETS)][p])
                feat_state_apply_event(s, &events[p][i]);
        }
    }
    return s;
}

static void one_round_of_sums(const struct feat_plan *plan, struct rng *rng, int *differ) {
    int64_t at[PARTITIONS], to[KINDS][BUCKETS][PARTITIONS];
    struct feat_ahead ahead[KINDS * BUCKETS * PARTITIONS];
    int n = 0;
    for (int p = 0; p < PARTITIONS; p++)
        at[p] = (int64_t)rng_below(rng, EACH - 20) - 1;
    for (int k = 0; k < KINDS; k++)
        for (int b = 0; b < BUCKETS; b++)
            for (int p = 0; p < PARTITIONS; p++) {
                bool more = rng_below(rng, 3) == 0;
                to[k][b][p] = at[p] + (more ? 1 + (int64_t)rng_below(rng, 20) : 0);
                if (more)
                    ahead[n++] = (struct feat_ahead){FEAT_SCOPE_VALUE,
                                                     feat_share_key(kind_key(plan, k), b, BUCKETS),
                                                     p, to[k][b][p]};
            }
    struct feat_state *base = state_at(plan, at);
    struct feat_past *past = feat_past_new(plan, base, BUCKETS);
    for (int again = 0; again < 2; again++) {
        feat_past_begin(past, ahead, n);
        feed(past);
        for (int k = 0; k < KINDS; k++) {
            const struct feat_entity value = {FEAT_SCOPE_VALUE, kind_key(plan, k)};
            struct feat_state *expected = state_by_bucket(plan, to[k]);
            CU_ASSERT_TRUE(same(feat_past_state(past), expected, value));
            *differ += !same(expected, base, value);
            feat_state_free(expected);
        }
    }
    feat_past_free(past);
    feat_state_free(base);
}

static void test_shares_ahead_have_just_what_they_had(void) {
    struct rng rng;
    int differ = 0;
    rng_init(&rng, 11);
    arena_init(&arena, 0);
    make_events(&rng);
    make_moves(&rng);
    struct feat_plan *plan = plan_of(sums_text);
    for (int i = 0; i < ROUNDS; i++)
        one_round_of_sums(plan, &rng, &differ);
    CU_ASSERT_TRUE(differ > ROUNDS);
    feat_plan_free(plan);
    arena_deinit(&arena);
}

SUITE("features_past", TEST(test_records_ahead_have_just_what_they_had),
      TEST(test_shares_ahead_have_just_what_they_had))
