/* Plans: layout, sharing, the fingerprint, and messages that say where and what instead. */
#include "features/kind.h"
#include "tests/unit/features_make.h"

#define HEAD "features:\n"
#define ITEM_ID                                                                                    \
    "  - {name: item_id, kind: category, source: item.id, hash: 64, embed: 4, table: item}\n"

static void test_layout(void) {
    struct feat_plan *p = plan_of(
        HEAD ITEM_ID
        "  - {name: fresh, kind: number, source: candidate.fresh}\n"
        "  - {name: year, kind: number, source: item.year}\n"
        "  - {name: hour, kind: number, source: context.hour}\n"
        "  - {name: age, kind: number, source: user.age}\n"
        "  - {name: w, kind: window_count, scope: user, on: any, bucket: 1h, windows: [1h, 7d]}\n"
        "  - {name: seen, kind: last_n, on: any, n: 9, embed: true, table: item, slots: 3}\n");
    CU_ASSERT_EQUAL(p->lateness_us, 3600000000); /* the default, 1h */
    CU_ASSERT_EQUAL(p->query_columns, 4);
    CU_ASSERT_EQUAL(p->cand_columns, 2);
    CU_ASSERT_EQUAL(p->side_columns[FEAT_USER], 3);
    CU_ASSERT_EQUAL(p->side_columns[FEAT_CONTEXT], 1);
    CU_ASSERT_EQUAL(p->side_columns[FEAT_ITEM], 1);
    CU_ASSERT_EQUAL(p->side_columns[FEAT_CROSS], 1);
    static const char *const query[] = {"age", "w.1h", "w.7d", "hour"};
    static const char *const cand[] = {"year", "fresh"};
    for (int i = 0; i < 4; i++)
        CU_ASSERT_STRING_EQUAL(p->query_names[i], query[i]);
    for (int i = 0; i < 2; i++)
        CU_ASSERT_STRING_EQUAL(p->cand_names[i], cand[i]);
    CU_ASSERT_EQUAL(p->query_slots, 3);
    CU_ASSERT_EQUAL(p->cand_slots, 1);
    CU_ASSERT_EQUAL(p->n_tables, 1);
    CU_ASSERT_EQUAL(p->tables[0].rows, 64);
    CU_ASSERT_EQUAL(feat_plan_find(p, "seen")->table, 0);
    CU_ASSERT_PTR_NULL(feat_plan_find(p, "nothing"));
    feat_plan_free(p);
    feat_plan_free(NULL);
}

/* A table may be named above the feature that makes it; a feature may not. */
static void test_tables_may_come_later(void) {
    struct feat_plan *p = plan_of(
        HEAD "  - {name: seen, kind: last_n, on: any, n: 9, embed: true, table: item}\n" ITEM_ID);
    CU_ASSERT_STRING_EQUAL(p->features[0]->name, "seen");
    CU_ASSERT_EQUAL(p->features[0]->number, 0);
    CU_ASSERT_EQUAL(p->features[1]->number, 1);
    CU_ASSERT_EQUAL(p->features[0]->table, p->features[1]->table);
    CU_ASSERT_EQUAL(p->tables[0].rows, 64);
    feat_plan_free(p);
    CHECK_FAILS(parse_plan(HEAD "  - {name: fit, kind: match, of: seen, field: x}\n"
                                "  - {name: seen, kind: last_n, on: any}\n",
                           &p),
                STATUS_INVALID_ARGUMENT, "'seen' is no earlier feature");
}

static void test_fields_are_kept_once(void) {
    struct feat_plan *p =
        plan_of(HEAD "  - {name: a, kind: number, source: item.year}\n"
                     "  - {name: b, kind: category, source: item.year, hash: 9, encode: index}\n"
                     "  - {name: c, kind: number, source: user.year}\n");
    CU_ASSERT_EQUAL(p->n_fields[FEAT_SCOPE_ITEM], 1);
    CU_ASSERT_EQUAL(p->n_fields[FEAT_SCOPE_USER], 1);
    CU_ASSERT(feat_field_has(&p->fields[FEAT_SCOPE_ITEM][0], FEAT_AS_NUMBER) &&
              feat_field_has(&p->fields[FEAT_SCOPE_ITEM][0], FEAT_AS_IDS));
    CU_ASSERT(!feat_field_has(&p->fields[FEAT_SCOPE_USER][0], FEAT_AS_IDS));
    feat_plan_free(p);
}

/* The same plan in other words has the same fingerprint; any other plan another one. */
static void test_fingerprint(void) {
    static const char *const same[] = {
        "lateness: 1h\n" HEAD "  - {name: a, kind: count, scope: item, on: click}\n",
        HEAD "  - on: click\n    scope: item\n    scale: raw\n    kind: count\n    name: a\n"};
    static const char *const other[] = {
        "lateness: 2h\n" HEAD "  - {name: a, kind: count, scope: item, on: click}\n",
        HEAD "  - {name: b, kind: count, scope: item, on: click}\n",
        HEAD "  - {name: a, kind: count, scope: user, on: click}\n",
        HEAD "  - {name: a, kind: count, scope: item, on: click, scale: log}\n"};
    struct feat_plan *a = plan_of(same[0]), *b = plan_of(same[1]);
    CU_ASSERT_EQUAL(a->fingerprint, b->fingerprint);
    CU_ASSERT_STRING_EQUAL(a->json, b->json);
    feat_plan_free(b);
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++) {
        b = plan_of(other[i]);
        CU_ASSERT_NOT_EQUAL(a->fingerprint, b->fingerprint);
        feat_plan_free(b);
    }
    feat_plan_free(a);
}

static const struct {
    const char *text, *part;
} bad[] = {
    {"[]", "a plan is a map"},
    {"lateness: 1h\n", "features"},
    {"features: []\n", "plan.yaml:1: features"},
    {"featurs: []\n", "did you mean 'features'?"},
    {HEAD "  - 7\n", "plan.yaml:2: features[0]"},
    {HEAD "  - {kind: count}\n", "plan.yaml:2: features[0].name"},
    {HEAD "  - {name: a b, kind: count}\n", "features.a b.name: only letters"},
    {HEAD "  - {name: a}\n", "features.a.kind: missing"},
    {HEAD "  - {name: a, kind: cuont}\n", "no kind 'cuont'; did you mean 'count'?"},
    {HEAD "  - {name: a, kind: count, scope: item}\n", "features.a.on"},
    {HEAD "  - {name: a, kind: count, scope: itm, on: x}\n", "features.a: scope: 'itm'"},
    {HEAD "  - {name: a, kind: count, scope: [global, user], on: x}\n", "stands alone"},
    {HEAD "  - {name: a, kind: count, scope: user.country, on: x}\n", "context.country"},
    {HEAD "  - {name: a, kind: vector, source: item.v, reduce: [min, min]}\n", "called 'min'"},
    {HEAD "  - {name: a, kind: window_count, scope: item, on: x, bucket: 1s, windows: [60s, 1m]}\n",
     "features.a: two columns are called '1m'"},
    {HEAD "  - {name: a, kind: rate, scope: item, top: x, bottom: y, prior: -1}\n", "below 0"},
    {HEAD "  - {name: a, kind: number, source: item.x or}\n", "nothing after its 'or'"},
    {HEAD "  - {name: a, kind: count, scop: item, on: x}\n", "did you mean 'scope'?"},
    {HEAD
     "  - {name: a, kind: number, source: item.x}\n  - {name: a, kind: number, source: item.y}\n",
     "plan.yaml:3: features.a.name: line 2"},
    {HEAD "  - {name: a, kind: number, source: itm.x}\n", "did you mean 'item.'?"},
    {HEAD "  - {name: a, kind: number, source: item}\n", "write item.FIELD"},
    {HEAD "  - {name: a, kind: number, source: item.id}\n", "use kind category"},
    {HEAD "  - {name: a, kind: category, source: item.x, embed: 2}\n", "either values or hash"},
    {HEAD "  - {name: a, kind: category, source: item.x, hash: 2, embed: 2}\n", "at least 3 rows"},
    {HEAD "  - {name: a, kind: category, source: item.x, hash: 9}\n", "either encode or embed"},
    {HEAD "  - {name: a, kind: category, source: item.x, hash: 9, encode: onehot}\n",
     "needs values"},
    {HEAD "  - {name: a, kind: category, source: item.x, values: [u, v, u], embed: 2}\n",
     "'u' stands"},
    {HEAD ITEM_ID
     "  - {name: a, kind: category, source: item.x, hash: 65, embed: 4, table: item}\n",
     "table 'item' has 64 rows of 4"},
    {HEAD ITEM_ID "  - {name: a, kind: last_n, on: x, embed: true, table: itme}\n", "into 'itme'"},
    {HEAD "  - {name: a, kind: last_n, on: x, slots: 3}\n", "slots: has a meaning only with embed"},
    {HEAD "  - {name: a, kind: last_n, on: x, n: 1001}\n", "1001"},
    {HEAD "  - {name: a, kind: match, of: b, field: x}\n",
     "'b' is no earlier feature of kind last_n"},
    {HEAD
     "  - {name: b, kind: last_n, on: x}\n  - {name: a, kind: match, of: b, field: x, at_least: 4}\n",
     "keeps no value_field"},
    {HEAD "  - {name: a, kind: time_since}\n", "exactly one of on, source and of"},
    {HEAD "  - {name: a, kind: rate, scope: item, top: x, bottom: y, prior: gobal}\n", "'gobal'"},
    {HEAD "  - {name: a, kind: rate, scope: item, top: x, bottom: y, window: 1h}\n", "together"},
    {HEAD "  - {name: a, kind: window_count, scope: item, on: x, bucket: 1h, windows: [1m]}\n",
     "windows: must be a bucket or longer"},
    {HEAD "  - {name: a, kind: window_count, scope: item, on: x, bucket: 1s, windows: [7d]}\n",
     "at most 10000"},
    {HEAD "  - {name: a, kind: window_count, scope: item, on: x, bucket: 1s, windows: []}\n",
     "0 windows"},
    {HEAD "  - {name: a, kind: count, scope: item, on: ''}\n", "features.a: on: no event type"},
    {HEAD "  - {name: a, kind: count, scope: item, on: x if y}\n", "'if' stands where 'where'"},
    {HEAD "  - {name: a, kind: count, scope: item, on: x where y}\n", "no field and operator"},
    {HEAD "  - {name: a, kind: count, scope: item, on: x where y ==}\n", "no value after"},
    {HEAD "  - {name: a, kind: count, scope: item, on: x where y >= z}\n", "'z' is no number"},
};

static void test_messages(void) {
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct feat_plan *p = NULL;
        CHECK_FAILS(parse_plan(bad[i].text, &p), STATUS_INVALID_ARGUMENT, bad[i].part);
        CU_ASSERT_PTR_NULL(p); /* written only on success */
        feat_plan_free(p);
    }
    struct feat_plan *p = NULL;
    CHECK_FAILS(feat_plan_load("/nonexistent/plan.yaml", &p), STATUS_NOT_FOUND, "plan.yaml");
}

static struct ev_field field(const char *name, struct ev_value v) {
    return (struct ev_field){slice_of(name), v};
}

static bool matches(const char *text, const struct ev_event *e, const struct ev_shown *shown) {
    struct arena a;
    struct feat_match m;
    arena_init(&a, 0);
    CHECK_OK(feat_match_parse(&a, slice_of(text), &m));
    bool yes = feat_match_event(&m, e, shown);
    arena_deinit(&a);
    return yes;
}

static void test_match(void) {
    static const struct slice tags[] = {SLICE_LIT("x"), SLICE_LIT("y")};
    const struct ev_field fields[] = {
        field("value", (struct ev_value){EV_NUMBER, .number = 4}),
        field("text", (struct ev_value){EV_STRING, .string = SLICE_LIT("4.0")}),
        field("word", (struct ev_value){EV_STRING, .string = SLICE_LIT("two words")}),
        field("flag", (struct ev_value){EV_BOOL, .boolean = true}),
        field("tags", (struct ev_value){EV_STRINGS, .strings = {tags, 2}})};
    struct ev_event e = interaction("u", "i", "rating", 1, 0, 0);
    e.fields = fields;
    e.n_fields = 5;
    static const char *const yes[] = {"rating",
                                      "any",
                                      " rating ",
                                      "rating where value >= 4",
                                      "rating where value>=4",
                                      "rating where value == 4.0",
                                      "rating where text == 4",
                                      "any where value < 5",
                                      "rating where value != 3",
                                      "rating where word == two words",
                                      "rating where word == 'two words'",
                                      "rating where word != two",
                                      "rating where flag == true",
                                      "rating where flag == 1",
                                      "rating where tags == y",
                                      "rating where tags != z",
                                      "rating where text == \"4.0\""};
    static const char *const no[] = {"click",
                                     "impression",
                                     "rating where value > 4",
                                     "rating where value <= 3.5",
                                     "rating where value != 4",
                                     "rating where word >= 4",
                                     "rating where tags == xy",
                                     "rating where absent == 4",
                                     "rating where absent != 4",
                                     "rating where tags != x",
                                     "rating where text == \"4\""};
    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++)
        CU_ASSERT(matches(yes[i], &e, NULL));
    for (size_t i = 0; i < sizeof no / sizeof no[0]; i++)
        CU_ASSERT_FALSE(matches(no[i], &e, NULL));
    const struct ev_shown shown = {.item = SLICE_LIT("i"), .fields = fields, .n_fields = 1};
    struct ev_event ranking = {
        .kind = EV_RANKING, .shown = &shown, .n_shown = 1, .fields = fields + 2, .n_fields = 1};
    CU_ASSERT(matches("impression where value == 4", &ranking, &shown));
    CU_ASSERT(matches("impression where word == two words", &ranking, &shown));
    CU_ASSERT_FALSE(matches("any", &ranking, &shown));
    CU_ASSERT_FALSE(matches("impression", &ranking, NULL));
    struct ev_event item = {.kind = EV_ITEM, .item = SLICE_LIT("i")};
    CU_ASSERT_FALSE(matches("any", &item, NULL));
}

SUITE("features_plan", TEST(test_layout), TEST(test_tables_may_come_later),
      TEST(test_fields_are_kept_once), TEST(test_fingerprint), TEST(test_messages),
      TEST(test_match))
