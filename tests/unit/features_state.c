/* State and rows: the kinds end to end on a handful of events, with values worked out by hand. */
#include "features/state.h"
#include <math.h>
#include <stdlib.h>
#include "tests/support/suite.h"

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

static struct feat_plan *plan_of(const char *text) {
    struct node *map = NULL;
    struct feat_plan *p = NULL;
    CHECK_OK(node_parse_yaml(&arena, slice_of(text), "plan.yaml", &map));
    CHECK_OK(feat_plan_parse(map, "plan.yaml", &p));
    return p;
}

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

SUITE("features_state", TEST(test_rows))
