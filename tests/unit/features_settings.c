/* Settings of single kinds: what is refused and how it is said; sides; what mixes rows. */
#include "features/kind.h"
#include "tests/unit/features_make.h"

#define HEAD  "features:\n"
#define LAST  "  - {name: l, kind: last_n, on: x, value_field: v}\n"
#define USERS "  - {name: u, kind: last_n, scope: item, on: x, n: 50}\n"
#define FAST  "  - {name: fast, kind: decayed_count, scope: item, on: x, half_life: 1h}\n"

static const struct {
    const char *text, *part;
} bad[] = {
    {"  - {name: a, kind: count, scope: [], on: x}\n", "scope: names nothing"},
    {"  - {name: a, kind: count, scope: [user, user], on: x}\n", "'user' stands there twice"},
    {"  - {name: a, kind: count, scope: [user, global], on: x}\n", "stands alone"},
    {"  - {name: a, kind: count, scope: [user, item.f], on: x}\n", "event.f is the field as"},
    {"  - {name: a, kind: count, scope: item., on: x}\n", "'item.' is none of"},
    {"  - {name: a, kind: count, scope: evnt.f, on: x}\n", "did you mean 'event'?"},
    {"  - {name: a, kind: count, scope: [user, item, session, context.x], on: x}\n", "at most 3"},
    {"  - {name: a, kind: time_since, scope: item.f, on: x}\n", "does not add up"},
    {"  - {name: a, kind: number, source: candidate.x or itm.x}\n", "did you mean 'item.'?"},
    {"  - {name: a, kind: boolean, source: user.id}\n", "is a name"},
    {"  - {name: a, kind: vector, source: item.x, reduce: [mix]}\n", "'mix' is none of"},
    {"  - {name: a, kind: vector, source: item.x, reduce: []}\n", "0 columns"},
    {"  - {name: a, kind: time_diff, from: item.x}\n", "features.a.to"},
    {"  - {name: a, kind: local_time, parts: [hours]}\n", "did you mean 'hour'?"},
    {"  - {name: a, kind: local_time, utc_offset: 25h}\n", "utc_offset"},
    {"  - {name: a, kind: user_agent, source: context.ua, parts: [os, os]}\n", "twice"},
    {"  - {name: a, kind: user_agent, source: context.ua, parts: [device]}\n", "'device'"},
    {"  - {name: a, kind: referer, source: item.r}\n", "neither context.FIELD nor"},
    {"  - {name: a, kind: referer, source: user.r, remember: user}\n", "only with context.FIELD"},
    {FAST "  - {name: a, kind: trending, fast: fast, slow: slow}\n", "'slow' is no earlier"},
    {FAST "  - {name: a, kind: trending, fast: fast, slow: fast}\n", "not the shorter"},
    {FAST "  - {name: s, kind: decayed_count, scope: user, on: x, half_life: 2h}\n"
          "  - {name: a, kind: trending, fast: fast, slow: s}\n",
     "not of one scope"},
    {"  - {name: a, kind: rate, scope: item, top: x, bottom: y, bucket: 1h, window: 2h,\n"
     "     windows: [3h]}\n",
     "either window or windows"},
    {"  - {name: a, kind: rate, scope: item, top: x, bottom: y, windows: [3h]}\n", "together"},
    {"  - {name: a, kind: last_n, scope: item, on: x, times: true}\n", "only serve cooccur"},
    {USERS "  - {name: a, kind: match, of: u, field: x}\n", "is of scope item"},
    {LAST "  - {name: a, kind: match, of: l}\n", "either field or fields"},
    {LAST "  - {name: a, kind: match, of: l, field: x, fields: [y]}\n", "either field or fields"},
    {LAST "  - {name: a, kind: match, of: l, fields: [id, y]}\n", "id stands alone"},
    {LAST "  - {name: a, kind: match, of: l, field: x, columns: [shares]}\n", "'shares'"},
    {LAST "  - {name: a, kind: match, of: l, field: id, columns: [age]}\n", "seen and age"},
    {LAST "  - {name: a, kind: cooccur, of: l, users: l}\n", "is not of scope item"},
    {USERS "  - {name: a, kind: cooccur, of: u, users: u}\n", "is not of scope user"},
    {LAST USERS "  - {name: a, kind: cooccur, of: l, users: u, last: 100}\n", "at most 4096"},
    {"  - {name: a, kind: relative}\n", "either source or of"},
    {"  - {name: a, kind: relative, source: user.x}\n", "the same for all"},
    {"  - {name: a, kind: relative, of: b}\n  - {name: b, kind: number, source: item.x}\n",
     "'b' is no earlier"},
    {"  - {name: b, kind: number, source: context.x}\n  - {name: a, kind: relative, of: b}\n",
     "no number of each candidate"},
    {"  - {name: b, kind: number, source: item.x}\n"
     "  - {name: a, kind: relative, of: b, column: 7d}\n",
     "no column '7d'"},
    {"  - {name: a, kind: relative, source: item.x, columns: [mean]}\n", "'mean'"},
    {"  - {name: a, kind: diversity, source: context.x}\n", "the same for all"},
    {"  - {name: a, kind: text_match, query: item.q, source: item.t}\n", "not of the request"},
    {"  - {name: a, kind: text_match, query: context.q, source: user.t}\n", "not item.FIELD"},
    {"  - {name: a, kind: text_match, query: context.q, source: item.t, method: bert}\n", "bert"},
};

static void test_messages(void) {
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct feat_plan *p = NULL;
        struct buf text = {0};
        buf_printf(&text, HEAD "%s", bad[i].text);
        buf_add_byte(&text, 0);
        CHECK_FAILS(parse_plan(text.p, &p), STATUS_INVALID_ARGUMENT, bad[i].part);
        buf_deinit(&text);
    }
}

static void test_sides(void) {
    static const struct {
        const char *feature;
        enum feat_side side;
        bool mixes;
    } cases[] = {{"kind: number, source: candidate.x or item.x", FEAT_CROSS, false},
                 {"kind: number, source: user.x or context.x", FEAT_CONTEXT, false},
                 {"kind: time_diff, from: item.x, to: item.y", FEAT_ITEM, false},
                 {"kind: time_diff, from: item.x, to: user.y", FEAT_CROSS, false},
                 {"kind: local_time", FEAT_CONTEXT, false},
                 {"kind: count, on: x, scope: user", FEAT_USER, false},
                 {"kind: count, on: x, scope: [user]", FEAT_USER, false},
                 {"kind: count, on: x, scope: item.f", FEAT_ITEM, false},
                 {"kind: count, on: x, scope: [item, event.f]", FEAT_ITEM, false},
                 {"kind: count, on: x, scope: [user, event.f]", FEAT_CROSS, false},
                 {"kind: count, on: x, scope: [item, context.q]", FEAT_CROSS, false},
                 {"kind: count, on: x, scope: [user, context.q]", FEAT_CONTEXT, false},
                 {"kind: referer, source: context.r, remember: user", FEAT_CONTEXT, false},
                 {"kind: position", FEAT_CROSS, false},
                 {"kind: relative, source: item.x", FEAT_CROSS, true},
                 {"kind: diversity, source: item.x", FEAT_CROSS, true},
                 {"kind: text_match, query: context.q, source: item.t", FEAT_CROSS, false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf text = {0};
        buf_printf(&text, HEAD "  - {name: a, %s}\n", cases[i].feature);
        buf_add_byte(&text, 0);
        struct feat_plan *p = plan_of(text.p);
        CU_ASSERT_EQUAL(p->features[0]->side, cases[i].side);
        CU_ASSERT_EQUAL(p->mixes_rows, cases[i].mixes);
        feat_plan_free(p);
        buf_deinit(&text);
    }
}

/* Equal scopes are one place, however they are written. */
static void test_places(void) {
    struct feat_plan *p = plan_of(HEAD "  - {name: a, kind: count, on: x, scope: item.f}\n"
                                       "  - {name: b, kind: count, on: y, scope: [item.f]}\n"
                                       "  - {name: c, kind: count, on: y, scope: [event.f]}\n"
                                       "  - {name: d, kind: count, on: y, scope: item}\n");
    CU_ASSERT_EQUAL(p->n_places, 2);
    CU_ASSERT_EQUAL(p->features[0]->place, p->features[1]->place);
    CU_ASSERT_EQUAL(p->features[3]->place, -1);
    CU_ASSERT(p->sums_items);
    CU_ASSERT_EQUAL(p->n_cells[FEAT_SCOPE_VALUE], 4);
    CU_ASSERT_EQUAL(p->n_cells[FEAT_SCOPE_ITEM], 4); /* fields, two items' own, d */
    feat_plan_free(p);
}

SUITE("features_settings", TEST(test_messages), TEST(test_sides), TEST(test_places))
