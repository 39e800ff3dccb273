/* State and rows: the kinds end to end on a handful of events, with values worked out by hand. */
#include "base/heap.h"
#include "features/kind.h"
#include "tests/unit/features_make.h"
#include <math.h>

static const char plan_text[] =
    "lateness: 1h\n"
    "features:\n"
    "  - {name: item_id, kind: category, source: item.id, hash: 64, embed: 4, table: item}\n"
    "  - {name: year, kind: number, source: item.year}\n"
    "  - {name: device, kind: category, source: context.device, values: [phone, tv], encode: onehot}\n"
    "  - {name: ratings, kind: count, scope: item, on: rating}\n"
    "  - {name: like, kind: rate, scope: item, top: rating where value >= 4, bottom: rating,\n"
    "     prior_weight: 2, prior: global}\n"
    "  - {name: seen, kind: last_n, on: rating, n: 3, value_field: value, embed: true, table: item}\n"
    "  - {name: genre_fit, kind: match, of: seen, field: genres, prior_weight: 1}\n"
    "  - {name: again, kind: match, of: seen, field: id}\n"
    "  - {name: score, kind: number, source: candidate.retrieval}\n";

static struct arena arena;

static int64_t next_offset;
/* Applies one JSON event of partition 0. */
static enum feat_verdict put(struct feat_state *s, const char *json) {
    struct ev_event e;
    enum feat_verdict verdict = FEAT_LATE;
    CHECK_OK(ev_decode_json(&arena, slice_of(json), &e));
    e.source = (struct ev_source){0, next_offset++};
    feat_state_apply(s, &e, 1, &verdict);
    return verdict;
}

static int column(const char *const *names, int n, const char *name) {
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    CU_FAIL("no such column");
    return 0;
}

static float cand(const struct feat_plan *p, const struct feat_rows *rows, int row,
                  const char *name) {
    int at = column(p->cand_names, p->cand_columns, name);
    return rows->cand[row * p->cand_columns + at];
}

static void fill(struct feat_state *s) {
    next_offset = 0;
    put(s,
        "{\"id\":\"1\",\"event\":\"item\",\"event_time_us\":1000000,\"item\":\"a\",\"fields\":"
        "[{\"name\":\"year\",\"value\":1995},{\"name\":\"genres\",\"value\":[\"drama\",\"war\"]}]}");
    put(s, "{\"id\":\"2\",\"event\":\"item\",\"event_time_us\":1000000,\"item\":\"b\",\"fields\":"
           "[{\"name\":\"genres\",\"value\":[\"drama\"]}]}");
    put(s,
        "{\"id\":\"3\",\"event\":\"interaction\",\"event_time_us\":2000000,\"user\":\"u\",\"item\":"
        "\"a\",\"type\":\"rating\",\"fields\":[{\"name\":\"value\",\"value\":5}]}");
    put(s,
        "{\"id\":\"4\",\"event\":\"interaction\",\"event_time_us\":3000000,\"user\":\"u\",\"item\":"
        "\"c\",\"type\":\"rating\",\"fields\":[{\"name\":\"value\",\"value\":1}]}");
}

static void test_rows(void) {
    arena_init(&arena, 0);
    struct feat_plan *p = plan_of(plan_text);
    struct feat_state *s = feat_state_new(p);
    fill(s);
    const struct slice items[] = {SLICE_LIT("a"), SLICE_LIT("b"), SLICE_LIT("z")};
    const struct ev_field device = {SLICE_LIT("device"), {EV_STRING, .string = SLICE_LIT("tv")}};
    const struct slice columns[] = {SLICE_LIT("retrieval")};
    const float scores[] = {0.5f, 0.25f, 0.125f};
    const float *const values[] = {scores};
    struct feat_request request = {.user = SLICE_LIT("u"),
                                   .context = &device,
                                   .n_context = 1,
                                   .items = items,
                                   .n_items = 3,
                                   .column_names = columns,
                                   .column_values = values,
                                   .n_columns = 1};
    struct feat_rows rows;
    feat_state_read_begin(s);
    feat_state_extract(s, &arena, &request, 4000000, &rows);
    feat_state_read_end(s);
    CU_ASSERT_EQUAL(rows.n_unknown, 1);
    CU_ASSERT_EQUAL(rows.user_epoch, 2);
    CU_ASSERT_EQUAL(rows.query[column(p->query_names, p->query_columns, "device.tv")], 1);
    CU_ASSERT_EQUAL(rows.query[column(p->query_names, p->query_columns, "device.phone")], 0);
    CU_ASSERT_EQUAL(cand(p, &rows, 0, "year"), 1995);
    CU_ASSERT(isnan(cand(p, &rows, 1, "year")));
    CU_ASSERT_EQUAL(cand(p, &rows, 0, "ratings"), 1);
    CU_ASSERT_EQUAL(cand(p, &rows, 2, "ratings"), 0);
    CU_ASSERT_DOUBLE_EQUAL(cand(p, &rows, 0, "like"), (1 + 2 * 0.5) / 3, 1e-6);
    CU_ASSERT_DOUBLE_EQUAL(cand(p, &rows, 1, "like"), 0.5, 1e-6);
    CU_ASSERT_EQUAL(cand(p, &rows, 1, "genre_fit.share"), 0.5f);
    CU_ASSERT_EQUAL(cand(p, &rows, 1, "genre_fit.value"), 1.0f); /* (5 - 3) / (1 + 1) */
    CU_ASSERT(isnan(cand(p, &rows, 2, "genre_fit.share")));
    CU_ASSERT_EQUAL(cand(p, &rows, 0, "again.seen"), 1);
    CU_ASSERT_DOUBLE_EQUAL(cand(p, &rows, 0, "again.age"), log1p(2), 1e-6);
    CU_ASSERT_EQUAL(cand(p, &rows, 1, "again.seen"), 0);
    CU_ASSERT_EQUAL(cand(p, &rows, 2, "score"), 0.125f);
    CU_ASSERT_EQUAL(rows.query_ids[1], rows.cand_ids[0]); /* a: the older of two seen, row 0 */
    CU_ASSERT_EQUAL(rows.query_ids[2], 0);
    feat_state_free(s);
    feat_plan_free(p);
    arena_deinit(&arena);
}

/* ---- which events count ---- */

static const char count_text[] = "lateness: 10s\n"
                                 "features:\n"
                                 "  - {name: n, kind: count, scope: item, on: any}\n"
                                 "  - {name: seen, kind: last_n, on: any, n: 3}\n"
                                 "  - {name: page, kind: last_n, on: impression, n: 2}\n";

static enum feat_verdict apply_one(struct feat_state *s, struct ev_event e) {
    enum feat_verdict verdict;
    feat_state_apply(s, &e, 1, &verdict);
    return verdict;
}

static float count_of(struct feat_state *s, const char *tenant, const char *item) {
    const struct slice id = slice_of(item);
    struct feat_request request = {.tenant = slice_of(tenant), .items = &id, .n_items = 1};
    struct feat_rows rows;
    feat_state_read_begin(s);
    feat_state_extract(s, &arena, &request, 1, &rows);
    feat_state_read_end(s);
    return rows.cand[0];
}

static void test_repeats_and_lateness(void) {
    arena_init(&arena, 0);
    struct feat_plan *p = plan_of(count_text);
    struct feat_state *s = feat_state_new(p);
    const int64_t t = 100000000;
    CU_ASSERT_EQUAL(apply_one(s, interaction("u", "a", "x", t, 0, 5)), FEAT_APPLIED);
    CU_ASSERT_EQUAL(apply_one(s, interaction("u", "a", "x", t, 0, 5)), FEAT_REPEATED);
    CU_ASSERT_EQUAL(apply_one(s, interaction("u", "a", "x", t + 1, 0, 4)), FEAT_REPEATED);
    CU_ASSERT_EQUAL(apply_one(s, interaction("u", "a", "x", t, 1, 5)), FEAT_APPLIED);
    CU_ASSERT_EQUAL(apply_one(s, interaction("u", "a", "x", t - 10000000, 0, 6)), FEAT_APPLIED);
    CU_ASSERT_EQUAL(apply_one(s, interaction("u", "a", "x", t - 10000001, 0, 7)), FEAT_LATE);
    CU_ASSERT_EQUAL(apply_one(s, interaction("u", "a", "x", t, 0, 7)), FEAT_REPEATED);
    /* late is judged by the partition's own clock: a new partition has none */
    CU_ASSERT_EQUAL(apply_one(s, interaction("u", "a", "x", 1, 2, 0)), FEAT_APPLIED);
    CU_ASSERT_EQUAL(count_of(s, "", "a"), 4);
    feat_state_skip(s, (struct ev_source){0, 9});
    CU_ASSERT_EQUAL(apply_one(s, interaction("u", "a", "x", t, 0, 9)), FEAT_REPEATED);
    CU_ASSERT_EQUAL(apply_one(s, interaction("u", "a", "x", t, 0, 10)), FEAT_APPLIED);
    const struct feat_applied *applied;
    feat_state_read_begin(s);
    CU_ASSERT_EQUAL(feat_state_applied(s, &arena, &applied), 3);
    CU_ASSERT_EQUAL(feat_state_user_epoch(s, SLICE_LIT(""), SLICE_LIT("u")), 5);
    CU_ASSERT_EQUAL(feat_state_user_epoch(s, SLICE_LIT(""), SLICE_LIT("nobody")), 0);
    feat_state_read_end(s);
    CU_ASSERT(applied[0].partition == 0 && applied[0].offset == 10 && applied[0].clock_us == t);
    CU_ASSERT(applied[2].partition == 2 && applied[2].offset == 0 && applied[2].clock_us == 1);
    feat_state_free(s);
    feat_plan_free(p);
    arena_deinit(&arena);
}

static void test_wait(void) {
    struct feat_plan *p = plan_of(count_text);
    struct feat_state *s = feat_state_new(p);
    CHECK_FAILS(feat_state_wait(s, (struct ev_source){3, 0}, 0), STATUS_DEADLINE_EXCEEDED,
                "partition 3");
    apply_one(s, interaction("u", "a", "x", 1, 3, 7));
    CHECK_OK(feat_state_wait(s, (struct ev_source){3, 7}, 0));
    CHECK_FAILS(feat_state_wait(s, (struct ev_source){3, 8}, 1), STATUS_DEADLINE_EXCEEDED,
                "offset 8");
    feat_state_skip(s, (struct ev_source){3, 8});
    CHECK_OK(feat_state_wait(s, (struct ev_source){3, 8}, 0));
    feat_state_free(s);
    feat_plan_free(p);
}

/* ---- who is who ---- */

static void test_tenants_are_apart(void) {
    arena_init(&arena, 0);
    struct feat_plan *p = plan_of(count_text);
    struct feat_state *s = feat_state_new(p);
    for (int i = 0; i < 5; i++) {
        struct ev_event e = interaction("u", "a", "x", 1, 0, i);
        e.tenant = i < 2 ? SLICE_LIT("one") : SLICE_LIT("two");
        apply_one(s, e);
    }
    CU_ASSERT_EQUAL(count_of(s, "one", "a"), 2);
    CU_ASSERT_EQUAL(count_of(s, "two", "a"), 3);
    CU_ASSERT_EQUAL(count_of(s, "", "a"), 0);
    CU_ASSERT_NOT_EQUAL(feat_item_key(SLICE_LIT("one"), SLICE_LIT("a")),
                        feat_item_key(SLICE_LIT("two"), SLICE_LIT("a")));
    CU_ASSERT_EQUAL(feat_item_key(SLICE_LIT("one"), SLICE_LIT("")), 0);
    feat_state_free(s);
    feat_plan_free(p);
    arena_deinit(&arena);
}

static void test_known_items(void) {
    static const char *const want[] = {"d", "c", "b"};
    arena_init(&arena, 0);
    struct feat_plan *p = plan_of(count_text);
    struct feat_state *s = feat_state_new(p);
    static const char *const items[] = {"a", "b", "c", "d"};
    int64_t offset = 0;
    for (int i = 0; i < 4; i++)
        for (int n = 0; n <= i; n++)
            apply_one(s, interaction("u", items[i], "x", 1000 * i + n + 1, 0, offset++));
    const struct slice *known;
    feat_state_read_begin(s);
    CU_ASSERT_EQUAL(feat_state_items(s, &arena, SLICE_LIT(""), 3, &known), 3);
    for (int i = 0; i < 3; i++)
        CU_ASSERT(slice_is(known[i], want[i]));
    CU_ASSERT_EQUAL(feat_state_items(s, &arena, SLICE_LIT(""), 100, &known), 4);
    CU_ASSERT(slice_is(known[0], "d") && slice_is(known[3], "a"));
    CU_ASSERT_EQUAL(feat_state_items(s, &arena, SLICE_LIT(""), 0, &known), 0);
    CU_ASSERT_EQUAL(feat_state_items(s, &arena, SLICE_LIT("other"), 5, &known), 0);
    feat_state_read_end(s);
    feat_state_free(s);
    feat_plan_free(p);
    arena_deinit(&arena);
}

/* Both lists of the user, newest first, each item once. */
static void test_user_items(void) {
    arena_init(&arena, 0);
    struct feat_plan *p = plan_of(count_text);
    struct feat_state *s = feat_state_new(p);
    const struct ev_shown shown[] = {
        {.item = SLICE_LIT("a")}, {.item = SLICE_LIT("p")}, {.item = SLICE_LIT("q")}};
    struct ev_event ranking = {.kind = EV_RANKING,
                               .user = SLICE_LIT("u"),
                               .shown = shown,
                               .n_shown = 3,
                               .event_time_us = 50};
    apply_one(s, interaction("u", "a", "x", 10, 1, 0));
    apply_one(s, interaction("u", "b", "x", 30, 1, 1));
    apply_one(s, interaction("u", "a", "x", 20, 2, 0));
    apply_one(s, interaction("u", "q", "x", 40, 2, 1));
    apply_one(s, ranking);
    static const char *const want[] = {"q", "b", "a", "p"};
    const uint64_t *keys;
    feat_state_read_begin(s);
    int n = feat_state_user_items(s, &arena, SLICE_LIT(""), SLICE_LIT("u"), &keys);
    CU_ASSERT_EQUAL_FATAL(n, 4);
    for (int i = 0; i < n; i++)
        CU_ASSERT_EQUAL(keys[i], feat_item_key(SLICE_LIT(""), slice_of(want[i])));
    CU_ASSERT_EQUAL(feat_state_user_items(s, &arena, SLICE_LIT(""), SLICE_LIT("v"), &keys), 0);
    feat_state_read_end(s);
    feat_state_free(s);
    feat_plan_free(p);
    arena_deinit(&arena);
}

/* ---- the read path ---- */

static void test_reading_allocates_nothing(void) {
    arena_init(&arena, 0);
    struct feat_plan *p = plan_of(plan_text);
    struct feat_state *s = feat_state_new(p);
    fill(s);
    const struct slice items[] = {SLICE_LIT("a"), SLICE_LIT("b"), SLICE_LIT("z")};
    struct feat_request request = {.user = SLICE_LIT("u"), .items = items, .n_items = 3};
    unsigned long long before = 0;
    for (int i = 0; i < 5; i++) {
        struct feat_rows rows;
        arena_reset(&arena);
        feat_state_read_begin(s);
        feat_state_extract(s, &arena, &request, 4000000, &rows);
        feat_state_read_end(s);
        before = i == 0 ? heap_count() : before;
    }
    CU_ASSERT_EQUAL(heap_count(), before);
    feat_state_free(s);
    feat_plan_free(p);
    arena_deinit(&arena);
}

/* A request that names nothing and nobody. */
static void test_empty_request(void) {
    arena_init(&arena, 0);
    struct feat_plan *p = plan_of(plan_text);
    struct feat_state *s = feat_state_new(p);
    const struct slice nothing = {NULL, 0};
    struct feat_request request = {.items = &nothing, .n_items = 1};
    struct feat_rows rows;
    feat_state_read_begin(s);
    feat_state_extract(s, &arena, &request, 1, &rows);
    CU_ASSERT_EQUAL(rows.n_unknown, 1);
    for (int i = 0; i < p->cand_columns; i++)
        CU_ASSERT(isnan(rows.cand[i]));
    for (int i = 0; i < p->cand_slots; i++)
        CU_ASSERT_EQUAL(rows.cand_ids[i], 0);
    request.n_items = 0;
    feat_state_extract(s, &arena, &request, 1, &rows);
    CU_ASSERT_EQUAL(rows.n_rows, 0);
    feat_state_read_end(s);
    feat_state_free(NULL);
    feat_state_free(s);
    feat_plan_free(p);
    arena_deinit(&arena);
}

static struct ev_event shown_to(const char *user, const struct ev_shown *items, int n, int64_t t,
                                int64_t offset) {
    return (struct ev_event){.kind = EV_RANKING,
                             .id = SLICE_LIT("r"),
                             .user = slice_of(user),
                             .event_time_us = t,
                             .shown = items,
                             .n_shown = n,
                             .source = {0, offset}};
}

/* One list that was shown and clicked is one impression and one click, whatever else happens. */
static void test_counters_stand_still(void) {
    static const char text[] =
        "lateness: 1h\n"
        "features:\n"
        "  - {name: shown, kind: count, scope: item, on: impression}\n"
        "  - {name: shown_day, kind: window_count, scope: item, on: impression, bucket: 1h,\n"
        "     windows: [1d]}\n"
        "  - {name: ctr, kind: rate, scope: item, top: click, bottom: impression, prior: 0.5}\n"
        "  - {name: fast, kind: decayed_count, scope: item, on: impression, half_life: 1h}\n"
        "  - {name: mine, kind: count, scope: user, on: impression}\n";
    static const struct ev_shown ours[] = {{.item = {"a", 1}}, {.item = {"b", 1}}};
    static const struct ev_shown theirs[] = {{.item = {"c", 1}}, {.item = {"d", 1}}};
    static const struct slice items[] = {{"a", 1}, {"b", 1}};
    const struct feat_request request = {.user = SLICE_LIT("u"), .items = items, .n_items = 2};
    const int64_t t = 1700000000000000;
    struct feat_rows before, after;
    arena_init(&arena, 0);
    struct feat_plan *p = plan_of(text);
    struct feat_state *s = feat_state_new(p);
    apply_one(s, shown_to("u", ours, 2, t, 0));
    apply_one(s, interaction("u", "a", "click", t + 1, 0, 1));
    feat_state_extract(s, &arena, &request, t + 60000000, &before);
    CU_ASSERT_EQUAL(before.cand[column(p->cand_names, p->cand_columns, "shown")], 1);
    for (int i = 0; i < 20; i++) {
        apply_one(s, shown_to("v", theirs, 2, t + 2 + i, 2 + 2 * i));
        apply_one(s, interaction("v", "c", "click", t + 2 + i, 0, 3 + 2 * i));
    }
    feat_state_extract(s, &arena, &request, t + 60000000, &after);
    CU_ASSERT_EQUAL(memcmp(before.query, after.query, sizeof(float) * (size_t)p->query_columns), 0);
    CU_ASSERT_EQUAL(memcmp(before.cand, after.cand, 2 * sizeof(float) * (size_t)p->cand_columns),
                    0);
    feat_state_free(s);
    feat_plan_free(p);
    arena_deinit(&arena);
}

/* A wrong clock must not make everybody else late. */
static void test_ahead(void) {
    arena_init(&arena, 0);
    struct feat_plan *p = plan_of(count_text);
    struct feat_state *s = feat_state_new(p);
    const int64_t t = 100000000, day = 86400000000;
    struct ev_event e = interaction("u", "a", "x", t + day, 0, 1);
    e.arrival_time_us = t;
    CU_ASSERT_EQUAL(p->ahead_us, day);
    CU_ASSERT_EQUAL(apply_one(s, e), FEAT_APPLIED);
    e = interaction("u", "b", "x", t + 3 * day, 0, 2);
    e.arrival_time_us = t;
    CU_ASSERT_EQUAL(apply_one(s, e), FEAT_LATE);
    CU_ASSERT_EQUAL(apply_one(s, e), FEAT_REPEATED);
    CU_ASSERT_EQUAL(apply_one(s, interaction("u", "a", "x", t + day, 0, 3)), FEAT_APPLIED);
    e = interaction("u", "b", "x", t + 3 * day, 0, 4); /* of a file: no arrival to compare with */
    CU_ASSERT_EQUAL(apply_one(s, e), FEAT_APPLIED);
    CU_ASSERT_EQUAL(count_of(s, "", "a"), 2);
    CU_ASSERT_EQUAL(count_of(s, "", "b"), 1);
    feat_state_free(s);
    feat_plan_free(p);
    arena_deinit(&arena);
}

SUITE("features_state", TEST(test_rows), TEST(test_repeats_and_lateness), TEST(test_ahead),
      TEST(test_counters_stand_still), TEST(test_wait), TEST(test_tenants_are_apart),
      TEST(test_known_items), TEST(test_user_items), TEST(test_reading_allocates_nothing),
      TEST(test_empty_request))
