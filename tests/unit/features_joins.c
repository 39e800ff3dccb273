/* Joins of rankings and interactions: what a read sees and when, what is refused, what is
 * forgotten. That values equal brute force is contract/features_kinds.c's business. */
#include "base/heap.h"
#include "base/io.h"
#include "base/rng.h"
#include "tests/support/features_dump.h"
#include "tests/unit/features_make.h"
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#define T0_US  1700000000000000ll
#define SEC_US 1000000ll

static const char plan_text[] =
    "lateness: 10s\n"
    "features:\n"
    "  - {name: visit, kind: join, window: 60s}\n"
    "  - {name: shown, kind: count, scope: item, on: impression}\n"
    "  - {name: seen, kind: count, scope: item, on: impression, cascade: visit}\n"
    "  - {name: clicks, kind: count, scope: item, on: click}\n"
    "  - {name: answers, kind: count, scope: item, on: click, attribution: visit}\n";

/* ---- making ---- */

static const struct ev_shown abcd[] = {{.item = SLICE_LIT("a")},
                                       {.item = SLICE_LIT("b")},
                                       {.item = SLICE_LIT("c")},
                                       {.item = SLICE_LIT("d")}};

static struct ev_event ranking(const char *id, int second, int32_t partition, int64_t offset) {
    return (struct ev_event){.kind = EV_RANKING,
                             .id = slice_of(id),
                             .event_time_us = T0_US + second * SEC_US,
                             .user = SLICE_LIT("u"),
                             .shown = abcd,
                             .n_shown = 4,
                             .source = {partition, offset}};
}

static struct ev_event click(const char *id, const char *item, int second, int32_t partition,
                             int64_t offset) {
    struct ev_event e = interaction("u", item, "click", T0_US + second * SEC_US, partition, offset);
    e.ranking = slice_of(id);
    return e;
}

static void apply(struct feat_state *s, struct ev_event e) {
    enum feat_verdict verdict;
    CHECK_OK(feat_state_apply(s, &e, 1, &verdict));
    CU_ASSERT_EQUAL(verdict, FEAT_APPLIED);
}

/* A feature's column of a, b, c, d as four digits. */
static int digits(struct feat_state *s, const struct feat_plan *p, const char *name) {
    static const struct slice items[] = {SLICE_LIT("a"), SLICE_LIT("b"), SLICE_LIT("c"),
                                         SLICE_LIT("d")};
    struct feat_request q = {.user = SLICE_LIT("u"), .items = items, .n_items = 4};
    struct feat_rows rows;
    struct arena a;
    int n = 0;
    arena_init(&a, 0);
    feat_state_read_begin(s);
    feat_state_extract(s, &a, &q, T0_US + 1000 * SEC_US, &rows);
    CHECK_OK(feat_state_read_end(s));
    for (int i = 0; i < 4; i++)
        n = n * 10 + (int)rows.cand[i * p->cand_columns + feat_plan_find(p, name)->column];
    arena_deinit(&a);
    return n;
}

static uint64_t epoch(struct feat_state *s) {
    feat_state_read_begin(s);
    uint64_t n = feat_state_user_epoch(s, (struct slice){NULL, 0}, SLICE_LIT("u"));
    CHECK_OK(feat_state_read_end(s));
    return n;
}

/* ---- what a read sees ---- */

static void test_seen_down_to_the_last_answer(void) {
    struct feat_plan *p = plan_of(plan_text);
    struct feat_state *s = feat_state_new(p);
    apply(s, ranking("r", 0, 0, 0));
    CU_ASSERT_EQUAL(digits(s, p, "shown"), 1111);
    CU_ASSERT_EQUAL(digits(s, p, "seen"), 0); /* nobody knows yet */
    apply(s, click("r", "b", 1, 0, 1));
    CU_ASSERT_EQUAL(digits(s, p, "seen"), 1100);
    apply(s, click("r", "a", 2, 0, 2)); /* above: nothing new */
    CU_ASSERT_EQUAL(digits(s, p, "seen"), 1100);
    apply(s, click("r", "d", 3, 0, 3));
    apply(s, click("r", "d", 4, 0, 4));
    CU_ASSERT_EQUAL(digits(s, p, "seen"), 1111);
    CU_ASSERT_EQUAL(digits(s, p, "answers"), 1102);
    CU_ASSERT_EQUAL(digits(s, p, "clicks"), 1102);
    CU_ASSERT_EQUAL(epoch(s), 5); /* five events, whatever followed from them */
    feat_state_free(s);
    feat_plan_free(p);
}

static void test_what_does_not_answer(void) {
    struct feat_plan *p = plan_of(plan_text);
    struct feat_state *s = feat_state_new(p);
    apply(s, ranking("r", 50, 0, 0));
    struct ev_event other = click("r", "c", 51, 0, 3);
    other.tenant = SLICE_LIT("elsewhere");
    apply(s, other);
    apply(s, click("", "c", 52, 0, 4));   /* names none */
    apply(s, click("q", "c", 53, 0, 5));  /* another one */
    apply(s, click("r", "x", 54, 0, 6));  /* was not shown there */
    apply(s, click("r", "c", 49, 0, 7));  /* came before it */
    apply(s, click("r", "c", 111, 0, 8)); /* a second too late */
    apply(s, click("r", "c", 60, 1, 8));  /* in another partition */
    CU_ASSERT_EQUAL(digits(s, p, "seen"), 0);
    CU_ASSERT_EQUAL(digits(s, p, "answers"), 0);
    CU_ASSERT_EQUAL(digits(s, p, "clicks"), 50);
    apply(s, click("r", "c", 110, 0, 9)); /* the last moment */
    CU_ASSERT_EQUAL(digits(s, p, "seen"), 1110);
    CU_ASSERT_EQUAL(digits(s, p, "answers"), 10);
    feat_state_free(s);
    feat_plan_free(p);
}

/* The ranking was late: nothing is attributed until it is there, then all is. */
static void test_answers_before_the_ranking(void) {
    struct feat_plan *p = plan_of(plan_text);
    struct feat_state *s = feat_state_new(p);
    apply(s, click("r", "c", 5, 0, 0));
    apply(s, click("r", "a", 6, 0, 1));
    CU_ASSERT_EQUAL(digits(s, p, "seen"), 0);
    CU_ASSERT_EQUAL(digits(s, p, "answers"), 0);
    apply(s, ranking("r", 0, 0, 2));
    CU_ASSERT_EQUAL(digits(s, p, "seen"), 1110);
    CU_ASSERT_EQUAL(digits(s, p, "answers"), 1010);
    struct ev_event again = ranking("r", 0, 0, 2);
    enum feat_verdict verdict;
    CHECK_OK(feat_state_apply(s, &again, 1, &verdict));
    CU_ASSERT_EQUAL(verdict, FEAT_REPEATED);
    CU_ASSERT_EQUAL(digits(s, p, "seen"), 1110);
    apply(s, ranking("r", 1, 0, 3)); /* sent twice: shown twice, and so seen twice */
    CU_ASSERT_EQUAL(digits(s, p, "seen"), 2220);
    CU_ASSERT_EQUAL(digits(s, p, "answers"), 1010); /* but clicked once */
    feat_state_free(s);
    feat_plan_free(p);
}

/* The same counters after a hundred events that are about something else. */
static void test_unrelated_events_move_nothing(void) {
    struct feat_plan *p = plan_of(plan_text);
    struct feat_state *s = feat_state_new(p);
    apply(s, ranking("r", 0, 0, 0));
    apply(s, click("r", "b", 1, 0, 1));
    for (int i = 0; i < 100; i++) {
        char id[16];
        snprintf(id, sizeof id, "q%d", i);
        apply(s, click(id, "z", 1 + i / 4, 0, 2 + i));
    }
    CU_ASSERT_EQUAL(digits(s, p, "seen"), 1100);
    CU_ASSERT_EQUAL(digits(s, p, "answers"), 100);
    feat_state_free(s);
    feat_plan_free(p);
}

/* ---- forgetting ---- */

static void test_forgotten_after_the_window(void) {
    struct feat_plan *p = plan_of(plan_text);
    struct feat_state *s = feat_state_new(p);
    for (int i = 0; i < 1000; i++) {
        char id[16];
        snprintf(id, sizeof id, "r%d", i);
        apply(s, i % 10 == 0 ? click(id, "a", i, 0, i) : ranking(id, i, 0, i));
        CU_ASSERT_FATAL(feat_state_size(s).waiting <= 75); /* window, lateness, a little */
    }
    struct feat_state_size size = feat_state_size(s);
    CU_ASSERT_EQUAL(size.entities[FEAT_SCOPE_RANKING], size.waiting);
    CU_ASSERT_EQUAL(size.evicted, 0);
    CU_ASSERT(size.unjoined > 90 && size.unjoined <= 100);
    feat_state_free(s);
    feat_plan_free(p);
}

/* A partition that is far behind keeps its own rankings until its own clock has passed them. */
static void test_a_partition_far_behind(void) {
    struct feat_plan *p = plan_of(plan_text);
    struct feat_state *s = feat_state_new(p);
    apply(s, ranking("slow", 0, 1, 0));
    apply(s, ranking("fast", 900, 0, 0));
    apply(s, ranking("fast2", 990, 0, 1));
    apply(s, click("slow", "d", 30, 1, 1));
    CU_ASSERT_EQUAL(digits(s, p, "seen"), 1111);
    CU_ASSERT_EQUAL(feat_state_size(s).waiting, 2); /* "fast" has gone */
    apply(s, ranking("on", 990, 1, 2));
    apply(s, ranking("on2", 1200, 0, 2));
    apply(s, ranking("on3", 1400, 0, 3));
    apply(s, click("slow", "d", 1400, 1, 3));
    CU_ASSERT(feat_state_size(s).waiting <= 3);
    CU_ASSERT_EQUAL(digits(s, p, "seen"), 1111);
    feat_state_free(s);
    feat_plan_free(p);
}

enum { STREAM = 400, PARTS = 3 };

/* Records go by their partition's clock while others still wait. */
static void make_stream(struct ev_event *events, char (*ids)[16], uint64_t seed) {
    static const char *const items[] = {"a", "b", "c", "d", "e"};
    struct rng rng;
    rng_init(&rng, seed);
    for (int p = 0; p < PARTS; p++)
        for (int i = 0; i < STREAM; i++) {
            int k = p * STREAM + i, second = 2 * i + 100 * p - (int)rng_below(&rng, 12);
            snprintf(ids[k], sizeof ids[k], "p%d.%d", p, second / 20 - (int)rng_below(&rng, 3));
            events[k] = rng_below(&rng, 3) == 0
                            ? ranking(ids[k], second, p, i)
                            : click(ids[k], items[rng_below(&rng, 5)], second, p, i);
        }
}

/* Run after run of some partition; saved and loaded now and then. */
static struct feat_state *state_by(const struct feat_plan *p, const struct ev_event *events,
                                   uint64_t seed, uint32_t run_max) {
    struct feat_state *s = feat_state_new(p);
    int next[PARTS] = {0};
    struct rng rng;
    rng_init(&rng, seed);
    for (int left = PARTS * STREAM; left > 0;) {
        int part = (int)rng_below(&rng, PARTS), n = 1 + (int)rng_below(&rng, run_max);
        n = n < STREAM - next[part] ? n : STREAM - next[part];
        CHECK_OK(feat_state_apply(s, &events[part * STREAM + next[part]], n, NULL));
        next[part] += n;
        left -= n;
        if (rng_below(&rng, 20) > 0)
            continue;
        char path[64];
        snprintf(path, sizeof path, "/tmp/features_joins.%ld.snap", (long)getpid());
        CHECK_OK(feat_state_save(s, path));
        feat_state_free(s);
        CHECK_OK(feat_state_load(p, path, &s));
        unlink(path);
    }
    return s;
}

static void test_forgetting_depends_on_no_order(void) {
    struct feat_plan *p = plan_of(plan_text);
    struct ev_event *events = HEAP_ARRAY(struct ev_event, PARTS * STREAM);
    char(*ids)[16] = heap_alloc(PARTS * STREAM * sizeof *ids);
    for (uint64_t seed = 0; seed < 6; seed++) {
        struct buf want = {0};
        make_stream(events, ids, seed);
        for (uint64_t order = 0; order < 6; order++) {
            struct buf got = {0};
            struct feat_state *s = state_by(p, events, order, order % 2 == 0 ? 10 : STREAM);
            dump_of(s, order == 0 ? &want : &got);
            CU_ASSERT(order == 0 || slice_equal(buf_slice(&got), buf_slice(&want)));
            CU_ASSERT(digits(s, p, "seen") > 1111 && digits(s, p, "answers") > 1111);
            feat_state_free(s);
            buf_deinit(&got);
        }
        buf_deinit(&want);
    }
    heap_free(events);
    heap_free(ids);
    feat_plan_free(p);
}

/* One id for everything: it takes what it may, and no more. */
static void test_an_id_that_is_always_the_same(void) {
    struct feat_plan *p = plan_of(plan_text);
    struct feat_state *s = feat_state_new(p);
    int64_t offset = 0;
    for (int i = 0; i < 50; i++)
        apply(s, ranking("r", 0, 0, offset++));
    for (int i = 0; i < 1500; i++)
        apply(s, click("r", "b", 1, 0, offset++));
    CU_ASSERT_EQUAL(feat_state_size(s).waiting, 1);
    CU_ASSERT_EQUAL(digits(s, p, "seen"), 8800);
    feat_state_free(s);
    feat_plan_free(p);
}

/* Of what has no room, nothing follows: or the next would count it once more. */
static void test_beyond_the_most(void) {
    struct feat_plan *p = plan_of(plan_text);
    struct feat_state *s = feat_state_new(p);
    int64_t offset = 0;
    apply(s, ranking("r", 0, 0, offset++));
    for (int i = 0; i < 1024; i++)
        apply(s, click("r", "b", 1, 0, offset++));
    for (int i = 0; i < 3; i++)
        apply(s, click("r", "d", 2, 0, offset++));
    CU_ASSERT_EQUAL(digits(s, p, "seen"), 1100);
    feat_state_free(s);
    feat_plan_free(p);
}

/* An id in use for ever: what is past does not take the room of what comes. */
static void test_an_id_used_again_and_again(void) {
    struct feat_plan *p = plan_of(plan_text);
    struct feat_state *s = feat_state_new(p);
    for (int i = 0; i < 9; i++) {
        apply(s, ranking("r", 30 * i, 0, 2 * i));
        apply(s, click("r", "a", 30 * i + 1, 0, 2 * i + 1));
    }
    CU_ASSERT_EQUAL(digits(s, p, "seen"), 9000);
    CU_ASSERT_EQUAL(digits(s, p, "answers"), 9000);
    for (int i = 9; i < 100; i++)
        apply(s, ranking("r", 30 * i, 0, 2 * i));
    CU_ASSERT_EQUAL(digits(s, p, "shown") % 1000, 100 * 111 % 1000);
    CU_ASSERT_EQUAL(feat_state_size(s).waiting, 1);
    uint64_t cells[5];
    feat_state_read_begin(s);
    feat_state_cell_bytes(s, cells);
    CHECK_OK(feat_state_read_end(s));
    CU_ASSERT(cells[0] > 60 && cells[0] < 200); /* three rankings, of a hundred */
    feat_state_free(s);
    feat_plan_free(p);
}

/* The list of what is to be looked at counts against the budget, too. */
static void test_what_waits_has_a_budget(void) {
    struct feat_plan *p = plan_of(plan_text);
    struct feat_state *s = feat_state_new(p);
    feat_state_limit(s, 300000, 0); /* enough for the records alone */
    for (int i = 0; i < 4000; i++) {
        char id[16];
        snprintf(id, sizeof id, "r%d", i);
        apply(s, ranking(id, i / 1000, 0, i));
        CU_ASSERT_FATAL(feat_state_size(s).bytes <= 300000);
    }
    struct feat_state_size size = feat_state_size(s);
    CU_ASSERT_EQUAL(size.waiting, 4000);
    CU_ASSERT(size.evicted > 100 && size.entities[FEAT_SCOPE_RANKING] < 3900);
    feat_state_free(s);
    feat_plan_free(p);
}

/* ---- settings ---- */

static void check_refused(const char *features, const char *message) {
    struct arena a;
    struct feat_plan *p = NULL;
    arena_init(&a, 0);
    CHECK_FAILS(parse_plan(arena_printf(&a, "features:\n%s", features), &p),
                STATUS_INVALID_ARGUMENT, message);
    arena_deinit(&a);
}

static void test_settings(void) {
    check_refused("  - {name: n, kind: count, scope: item, on: impression, cascade: visit}\n",
                  "cascade: 'visit' is no earlier feature of kind join");
    check_refused("  - {name: v, kind: join}\n"
                  "  - {name: n, kind: count, scope: item, on: click, cascade: v}\n",
                  "cascade: no condition of this feature counts impressions");
    check_refused("  - {name: v, kind: join}\n"
                  "  - {name: n, kind: count, scope: item, on: impression, attribution: v}\n",
                  "attribution: no condition of this feature counts interactions");
    check_refused("  - {name: v, kind: join}\n"
                  "  - {name: n, kind: number, source: item.year, cascade: v}\n",
                  "cascade: no condition");
    check_refused("  - {name: v, kind: join}\n"
                  "  - {name: n, kind: count, scope: item, on: click, attribution: [v]}\n",
                  "attribution: the name of a feature");
    check_refused("  - {name: v, kind: join, cascade: v}\n", "cascade: no condition");
    check_refused("  - {name: v, kind: join, window: 0s}\n", "window");
    check_refused("  - {name: v, kind: join,\n     lag: 1h}\n",
                  "3: features.v.lag: there is no such setting any more");
}

/* What asks for no join has the plan it had. */
static void test_the_plan_says_so(void) {
    static const char *const texts[] = {
        "features: [{name: v, kind: join}, {name: n, kind: count, scope: item, on: click}]",
        "features: [{name: v, kind: join}, {name: n, kind: count, scope: item, on: click, "
        "attribution: v}]"};
    struct feat_plan *without = plan_of(texts[0]), *with = plan_of(texts[1]);
    CU_ASSERT_PTR_NULL(strstr(without->json, "attribution"));
    CU_ASSERT_PTR_NOT_NULL(strstr(with->json, "\"attribution\":\"v\""));
    CU_ASSERT_NOT_EQUAL(without->fingerprint, with->fingerprint);
    CU_ASSERT_EQUAL(with->cand_columns, 1);
    feat_plan_free(without);
    feat_plan_free(with);
}

SUITE("features_joins", TEST(test_seen_down_to_the_last_answer), TEST(test_what_does_not_answer),
      TEST(test_answers_before_the_ranking), TEST(test_unrelated_events_move_nothing),
      TEST(test_forgotten_after_the_window), TEST(test_a_partition_far_behind),
      TEST(test_forgetting_depends_on_no_order), TEST(test_an_id_that_is_always_the_same),
      TEST(test_beyond_the_most), TEST(test_an_id_used_again_and_again),
      TEST(test_what_waits_has_a_budget), TEST(test_settings), TEST(test_the_plan_says_so))
