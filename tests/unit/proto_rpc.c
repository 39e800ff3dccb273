/* The ranking service's messages: held against protoc's bytes, there and back. */
#include "base/heap.h"
#include "tests/unit/proto_samples.h"

static struct arena arena, *const a = &arena;
static struct buf out;

static void begin(void) {
    if (!a->chunk_bytes)
        arena_init(a, 0);
    arena_reset(a);
    buf_clear(&out);
}

static bool wrote(const char *hex) { return slice_equal(buf_slice(&out), unhex(a, hex)); }

static bool same_floats(const float *x, const float *y, int n) {
    return memcmp(x, y, sizeof *x * (size_t)n) == 0;
}

/* ---- Rank ---- */

#define GOLDEN_REQUEST                                                                             \
    "0a027131120275311a02733122100a0664657669636522067461626c65742a0269312a0269322a02693332150a05" \
    "73636f7265120c0000003f000080bf00000000388080f9c0c1c482034002480150015a040803106362027431"
#define GOLDEN_EXPLANATION                                                                         \
    "0a02693312110a05707269636512080000803f000000401a190a05636c69636b12026530120265311a080000403f" \
    "0000803e"
#define GOLDEN_RESPONSE_TAIL                                                                       \
    "220c0000403f0000003f0000803e2a150a05636c69636b120c0000003f0000803e0000003e2a130a03627579120c" \
    "0000803f0000004000004040300138cb89ec8ff7234232" GOLDEN_EXPLANATION

static const struct slice items[] = {{"i1", 2}, {"i2", 2}, {"i3", 2}};
static const float column_values[] = {0.5f, -1, 0};
static const struct rpc_column columns[] = {{{"score", 5}, column_values}};
static const struct ev_field context[] = {
    {{"device", 6}, {.type = EV_STRING, .string = {"tablet", 6}}}};

static struct rpc_rank_request request(void) {
    return (struct rpc_rank_request){
        .request_id = S("q1"),
        .tenant = S("t1"),
        .user = S("u1"),
        .session = S("s1"),
        .context = context,
        .n_context = 1,
        .items = items,
        .n_items = 3,
        .columns = columns,
        .n_columns = 1,
        .now_us = 1700000000000000,
        .top_n = 2,
        .explain = true,
        .no_cache = true,
        .after = {true, 3, 99},
    };
}

static const uint32_t order[] = {2, 0, 300};
static const uint32_t order_in_log[] = {2, 0, 1};
static const float scores[] = {0.75f, 0.5f, 0.25f};
static const float click[] = {0.5f, 0.25f, 0.125f}, buy[] = {1, 2, 3}, pair[] = {1, 2};
static const float weights[] = {0.75f, 0.25f};
static const float *const probabilities[] = {click, buy};
static const struct slice tasks[] = {{"click", 5}, {"buy", 3}}, experts[] = {{"e0", 2}, {"e1", 2}};
static const struct rpc_feature_value features[] = {{{"price", 5}, pair, 2}};
static const struct rpc_gate_weights gates[] = {{{"click", 5}, experts, weights, 2}};
static const struct rpc_explanation explanations[] = {{{"i3", 2}, features, 1, gates, 1}};

static struct rpc_rank_response response(void) {
    return (struct rpc_rank_response){
        .request_id = S("q1"),
        .model_version = S("v7"),
        .order = order,
        .scores = scores,
        .n = 3,
        .tasks = tasks,
        .probabilities = probabilities,
        .n_tasks = 2,
        .cached = true,
        .user_epoch = 1234567890123,
        .explanations = explanations,
        .n_explanations = 1,
    };
}

static void check_request(const struct rpc_rank_request *r) {
    CU_ASSERT_TRUE(slice_is(r->request_id, "q1") && slice_is(r->user, "u1"));
    CU_ASSERT_TRUE(slice_is(r->session, "s1") && slice_is(r->tenant, "t1"));
    CU_ASSERT_TRUE(same_fields(r->context, r->n_context, context, 1));
    CU_ASSERT_EQUAL_FATAL(r->n_items, 3);
    for (int i = 0; i < 3; i++)
        CU_ASSERT_TRUE(slice_equal(r->items[i], items[i]));
    CU_ASSERT_EQUAL_FATAL(r->n_columns, 1);
    CU_ASSERT_TRUE(slice_is(r->columns[0].name, "score"));
    CU_ASSERT_TRUE(same_floats(r->columns[0].values, column_values, 3));
    CU_ASSERT_EQUAL(r->now_us, 1700000000000000);
    CU_ASSERT_EQUAL(r->top_n, 2);
    CU_ASSERT_TRUE(r->explain && r->no_cache);
    CU_ASSERT_TRUE(r->after.given && r->after.partition == 3 && r->after.offset == 99);
}

static void check_response(const struct rpc_rank_response *r, const uint32_t *want_order) {
    CU_ASSERT_TRUE(slice_is(r->request_id, "q1") && slice_is(r->model_version, "v7"));
    CU_ASSERT_EQUAL_FATAL(r->n, 3);
    CU_ASSERT_TRUE(memcmp(r->order, want_order, sizeof order) == 0);
    CU_ASSERT_TRUE(same_floats(r->scores, scores, 3));
    CU_ASSERT_EQUAL_FATAL(r->n_tasks, 2);
    CU_ASSERT_TRUE(slice_is(r->tasks[1], "buy") && same_floats(r->probabilities[1], buy, 3));
    CU_ASSERT_TRUE(slice_is(r->tasks[0], "click") && same_floats(r->probabilities[0], click, 3));
    CU_ASSERT_TRUE(r->cached);
    CU_ASSERT_EQUAL(r->user_epoch, 1234567890123u);
    CU_ASSERT_EQUAL_FATAL(r->n_explanations, 1);
    const struct rpc_explanation *e = r->explanations;
    CU_ASSERT_TRUE(slice_is(e->item, "i3"));
    CU_ASSERT_EQUAL_FATAL(e->n_features, 1);
    CU_ASSERT_TRUE(slice_is(e->features->name, "price") && e->features->n == 2);
    CU_ASSERT_TRUE(same_floats(e->features->values, pair, 2));
    CU_ASSERT_EQUAL_FATAL(e->n_gates, 1);
    CU_ASSERT_TRUE(slice_is(e->gates->gate, "click") && e->gates->n == 2);
    CU_ASSERT_TRUE(slice_is(e->gates->experts[1], "e1"));
    CU_ASSERT_TRUE(same_floats(e->gates->weights, weights, 2));
}

static void test_rank_golden(void) {
    begin();
    struct rpc_rank_request r = request(), got = {0};
    rpc_encode_rank_request(&r, &out);
    CU_ASSERT_TRUE(wrote(GOLDEN_REQUEST));
    if (CHECK_OK(rpc_decode_rank_request(a, unhex(a, GOLDEN_REQUEST), &got)))
        check_request(&got);
    buf_clear(&out);
    struct rpc_rank_response s = response(), back = {0};
    rpc_encode_rank_response(&s, &out);
    CU_ASSERT_TRUE(wrote("0a027131120276371a040200ac02" GOLDEN_RESPONSE_TAIL));
    if (CHECK_OK(rpc_decode_rank_response(a, buf_slice(&out), &back)))
        check_response(&back, order);
}

static void test_rank_smallest(void) {
    begin();
    struct rpc_rank_request r = {.items = items, .n_items = 1}, got;
    rpc_encode_rank_request(&r, &out);
    CU_ASSERT_TRUE(wrote("2a026931"));
    if (CHECK_OK(rpc_decode_rank_request(a, buf_slice(&out), &got))) {
        CU_ASSERT_EQUAL(got.n_items, 1);
        CU_ASSERT_EQUAL(got.n_columns + got.n_context + got.top_n, 0);
        CU_ASSERT_FALSE(got.after.given || got.explain || got.no_cache);
        CU_ASSERT_EQUAL(got.user.n, 0);
    }
    struct rpc_rank_response none = {0}, back;
    buf_clear(&out);
    rpc_encode_rank_response(&none, &out);
    CU_ASSERT_EQUAL(out.n, 0);
    CHECK_OK(rpc_decode_rank_response(a, buf_slice(&out), &back));
    CU_ASSERT_EQUAL(back.n + back.n_tasks + back.n_explanations, 0);
}

/* A reading of what another writer may send: unpacked floats, and a packed list in two pieces. */
static void test_rank_unpacked(void) {
    begin();
    struct rpc_rank_request got = {0};
    struct slice two = unhex(a, "2a0269312a026932320e0a0173150000003f12040000803f");
    CHECK_OK(rpc_decode_rank_request(a, two, &got));
    CU_ASSERT_EQUAL_FATAL(got.n_columns, 1);
    CU_ASSERT_TRUE(got.columns[0].values[0] == 0.5f && got.columns[0].values[1] == 1);
    struct rpc_rank_response back = {0};
    CHECK_OK(rpc_decode_rank_response(a, unhex(a, "18021a020001220400000000250000803f2500000040"),
                                      &back));
    CU_ASSERT_EQUAL_FATAL(back.n, 3);
    CU_ASSERT_TRUE(back.order[0] == 2 && back.order[2] == 1 && back.scores[2] == 2);
}

static void refused_request(const struct rpc_rank_request *r, const char *message) {
    struct rpc_rank_request got = {.top_n = 77};
    begin();
    rpc_encode_rank_request(r, &out);
    CHECK_FAILS(rpc_decode_rank_request(a, buf_slice(&out), &got), STATUS_INVALID_ARGUMENT,
                message);
    CU_ASSERT_EQUAL(got.top_n, 77);
}

static void test_rank_request_refused(void) {
    struct rpc_rank_request r = request();
    r.n_items = 0, r.n_columns = 0;
    refused_request(&r, "items is empty");
    static struct slice many[RPC_ITEMS_MAX + 1];
    for (int i = 0; i <= RPC_ITEMS_MAX; i++)
        many[i] = S("i");
    r = request(), r.items = many, r.n_items = RPC_ITEMS_MAX + 1, r.n_columns = 0;
    refused_request(&r, "items: 20001 entries (at most 20000)");
    struct slice bad[] = {S("i1"), S("")};
    r = request(), r.items = bad, r.n_items = 2;
    refused_request(&r, "items[1] is empty");
    bad[1] = S("\xFF");
    refused_request(&r, "items[1] is not valid UTF-8");
    bad[1] = (struct slice){"a\0", 2};
    refused_request(&r, "items[1] holds a NUL (byte 1)");
    r = request(), r.user = S("\xFF");
    refused_request(&r, "user is not valid UTF-8");
    r = request(), r.now_us = -1;
    refused_request(&r, "now_us must be >= 0 (got -1)");
    r = request(), r.after.offset = -2;
    refused_request(&r, "after: partition and offset must be >= 0 (got 3, -2)");
    r = request(), r.after.partition = -1;
    refused_request(&r, "after: partition and offset must be >= 0 (got -1, 99)");
    struct ev_field nan_field = {S("hour"), {.type = EV_NUMBER, .number = NAN}};
    r = request(), r.context = &nan_field;
    refused_request(&r, "context[0] 'hour': NaN is not a number");
}

static void test_rank_columns_refused(void) {
    static const float v[] = {1, NAN, INFINITY};
    struct rpc_column c[] = {columns[0], {S("x"), v}};
    struct rpc_rank_request r = request(), got;
    r.columns = c, r.n_columns = 2;
    refused_request(&r, "columns[1] 'x': values[1]: NaN is not a number");
    c[1].values = v + 2, r.n_items = 1;
    refused_request(&r, "columns[1] 'x': values[0]: inf is not a number");
    c[1].name = S(""), r = request(), r.columns = c, r.n_columns = 2;
    c[1].values = column_values;
    refused_request(&r, "columns[1].name is empty");
    begin(); /* 1 value for 2 items, then 3 */
    CHECK_FAILS(
        rpc_decode_rank_request(a, unhex(a, "2a0269312a02693232090a017312040000003f"), &got),
        STATUS_INVALID_ARGUMENT, "columns[0] 's': 1 values for 2 items");
    CHECK_FAILS(rpc_decode_rank_request(
                    a, unhex(a, "2a0269312a02693232110a0173120c0000003f0000003f0000003f"), &got),
                STATUS_INVALID_ARGUMENT, "columns[0] 's': 3 values for 2 items");
}

static void test_rank_response_refused(void) {
    struct rpc_rank_response got;
    begin();
    CHECK_FAILS(rpc_decode_rank_response(a, unhex(a, "1a0200012204000000002a00"), &got),
                STATUS_INVALID_ARGUMENT, "scores: 1 values for 2 in order");
    CHECK_FAILS(rpc_decode_rank_response(a, unhex(a, "1a01002204000000002a030a0174"), &got),
                STATUS_INVALID_ARGUMENT, "tasks[0] 't': probabilities: 0 values for 1 in order");
    CHECK_FAILS(rpc_decode_rank_response(a, unhex(a, "42051a03120165"), &got),
                STATUS_INVALID_ARGUMENT, "explanations[0]: gates[0]: 0 weights for 1 experts");
    CHECK_FAILS(rpc_decode_rank_response(a,
                                         unhex(a, "1a020001"
                                                  "2203000000"),
                                         &got),
                STATUS_DATA_LOSS, "scores: packed numbers cut short at byte 4");
}

/* ---- Recommend ---- */

static void test_recommend(void) {
    begin();
    struct rpc_recommend_request r = {.user = S("u1"), .n = 5, .after = {true, 0, 0}}, got = {0};
    rpc_encode_recommend_request(&r, &out);
    CU_ASSERT_TRUE(wrote("0a02753110051a00"));
    CHECK_OK(rpc_decode_recommend_request(a, buf_slice(&out), &got));
    CU_ASSERT_TRUE(slice_is(got.user, "u1") && got.n == 5 && got.after.given);
    CHECK_FAILS(rpc_decode_recommend_request(a, unhex(a, "1005"), &got), STATUS_INVALID_ARGUMENT,
                "user is empty");
    CHECK_FAILS(rpc_decode_recommend_request(a,
                                             unhex(a, "0a027531"
                                                      "10ffffffff0f"),
                                             &got),
                STATUS_INVALID_ARGUMENT, "n must be at most 20000 (got 4294967295)");
    CHECK_FAILS(rpc_decode_recommend_request(a,
                                             unhex(a, "0a0275311a0b"
                                                      "10ffffffffffffffffff01"),
                                             &got),
                STATUS_INVALID_ARGUMENT, "after: partition and offset must be >= 0 (got 0, -1)");
    static const float two[] = {2, 1};
    struct rpc_recommend_response s = {.items = items,
                                       .scores = two,
                                       .n = 2,
                                       .model_version = S("v7"),
                                       .origin = S("list"),
                                       .user_epoch = 9,
                                       .made_at_us = 1700000000000000},
                                  back = {0};
    buf_clear(&out);
    rpc_encode_recommend_response(&s, &out);
    CU_ASSERT_TRUE(
        wrote("0a0269310a0269321208000000400000803f1a0276372009288080f9c0c1c4820332046c69"
              "7374"));
    CHECK_OK(rpc_decode_recommend_response(a, buf_slice(&out), &back));
    CU_ASSERT_EQUAL_FATAL(back.n, 2);
    CU_ASSERT_TRUE(slice_is(back.items[1], "i2") && same_floats(back.scores, two, 2));
    CU_ASSERT_TRUE(slice_is(back.model_version, "v7") && slice_is(back.origin, "list"));
    CU_ASSERT_TRUE(back.user_epoch == 9 && back.made_at_us == 1700000000000000);
    CHECK_FAILS(rpc_decode_recommend_response(a, unhex(a, "0a0269310a026932120400000040"), &back),
                STATUS_INVALID_ARGUMENT, "scores: 1 values for 2 items");
}

/* ---- Feedback ---- */

#define LINE_GOOD "{\"event\":\"user\",\"id\":\"j1\",\"timestamp\":1,\"user\":\"u\"}"
#define LINE_BAD  "{\"event\":\"user\",\"id\":\"j2\",\"user\":\"u\"}"

/* Good and bad in both encodings; a broken event does not take the others along. */
static void test_feedback_sorted(void) {
    begin();
    struct ev_event events[] = {sample_events[3], sample_events[1]};
    events[1].event_time_us = 0;
    rpc_encode_feedback_request(events, 2,
                                S(LINE_GOOD "\r\n\n \t\n" LINE_BAD "\nnonsense\n" LINE_GOOD), &out);
    struct slice broken = unhex(a, "0a03"
                                   "0a0561"
                                   "0a00"); /* two more: cut short, and empty */
    buf_add(&out, broken.p, broken.n);
    struct rpc_feedback_request r;
    if (!CHECK_OK(rpc_decode_feedback_request(a, buf_slice(&out), &r)))
        return;
    static const int good[] = {0, 4, 7}, bad[] = {1, 2, 3, 5, 6};
    static const char *const reasons[] = {"event_time_us must be > 0", "id: runs past the end",
                                          "no kind", "event_time_us must be > 0", "not JSON"};
    CU_ASSERT_EQUAL_FATAL(r.n, 3);
    CU_ASSERT_EQUAL_FATAL(r.n_rejected, 5);
    for (int i = 0; i < 3; i++)
        CU_ASSERT_EQUAL(r.index[i], good[i]);
    for (int i = 0; i < 5; i++) {
        CU_ASSERT_EQUAL(r.rejected[i].index, bad[i]);
        CU_ASSERT_PTR_NOT_NULL(strstr(r.rejected[i].reason.p, reasons[i]));
    }
    CU_ASSERT_TRUE(slice_equal(r.payloads[0], unhex(a, GOLDEN_INTERACTION)));
    CU_ASSERT_TRUE(same_event(&r.events[0], &sample_events[3]));
    CU_ASSERT_TRUE(slice_is(r.payloads[2], LINE_GOOD));
    CU_ASSERT_TRUE(slice_is(r.events[1].id, "j1") && r.events[1].event_time_us == 1000);
    for (int i = 0; i < 3; i++) { /* what goes to the log reads back as the event */
        struct ev_event e;
        CHECK_OK(ev_decode(a, r.payloads[i], &e));
        CU_ASSERT_TRUE(same_event(&e, &r.events[i]));
    }
}

/* A newer client's fields reach the log. */
static void test_feedback_keeps_unknown_fields(void) {
    begin();
    struct slice event = unhex(a, GOLDEN_INTERACTION "a00601");
    buf_add_byte(&out, 0x0a);
    buf_add_varint(&out, event.n);
    buf_add(&out, event.p, event.n);
    struct rpc_feedback_request r;
    CHECK_OK(rpc_decode_feedback_request(a, buf_slice(&out), &r));
    CU_ASSERT_EQUAL_FATAL(r.n, 1);
    CU_ASSERT_TRUE(slice_equal(r.payloads[0], event));
}

static void test_feedback_empty_and_full(void) {
    begin();
    struct rpc_feedback_request r;
    CHECK_OK(rpc_decode_feedback_request(a, S(""), &r));
    CU_ASSERT_EQUAL(r.n + r.n_rejected, 0);
    struct buf lines = {0};
    for (int i = 0; i < 100000; i++)
        buf_add_str(&lines, "\n");
    rpc_encode_feedback_request(NULL, 0, buf_slice(&lines), &out);
    CHECK_OK(rpc_decode_feedback_request(a, buf_slice(&out), &r));
    CU_ASSERT_EQUAL(r.n + r.n_rejected, 0);
    for (int i = 0; i <= RPC_EVENTS_MAX; i++)
        buf_add_str(&lines, "x\n");
    buf_clear(&out);
    rpc_encode_feedback_request(NULL, 0, buf_slice(&lines), &out);
    CHECK_FAILS(rpc_decode_feedback_request(a, buf_slice(&out), &r), STATUS_INVALID_ARGUMENT,
                "events: 10001 entries (at most 10000)");
    buf_deinit(&lines);
}

static void test_feedback_response(void) {
    begin();
    const struct rpc_token tokens[] = {{true, 1, 2}, {true, 0, 0}};
    const struct rpc_rejected rejected[] = {{2, S("no")}, {0, S("")}};
    struct rpc_feedback_response r = {tokens, 2, rejected, 2}, got = {0};
    rpc_encode_feedback_response(&r, &out);
    CU_ASSERT_TRUE(wrote("0a04080110020a001206080212026e6f1200"));
    CHECK_OK(rpc_decode_feedback_response(a, buf_slice(&out), &got));
    CU_ASSERT_EQUAL_FATAL(got.n, 2);
    CU_ASSERT_EQUAL_FATAL(got.n_rejected, 2);
    CU_ASSERT_TRUE(got.tokens[0].given && got.tokens[0].partition == 1 &&
                   got.tokens[0].offset == 2);
    CU_ASSERT_TRUE(got.rejected[0].index == 2 && slice_is(got.rejected[0].reason, "no"));
    CHECK_FAILS(rpc_decode_feedback_response(a, unhex(a, "120608ffffffff0f"), &got),
                STATUS_INVALID_ARGUMENT, "rejected[0].index is out of range");
}

/* ---- GetModel, RequestLog ---- */

static void test_model(void) {
    begin();
    const struct rpc_applied applied[] = {{1, -2}};
    struct rpc_model_response m = {.version = S("v7"),
                                   .spec_json = S("{}"),
                                   .plan_json = S("[]"),
                                   .tasks = tasks,
                                   .n_tasks = 2,
                                   .trained_at_us = -1,
                                   .applied = applied,
                                   .n_applied = 1},
                              got = {0};
    rpc_encode_model_response(&m, &out);
    CU_ASSERT_TRUE(
        wrote("0a0276371205636c69636b12036275791a027b7d22025b5d28ffffffffffffffffff01320d"
              "080110feffffffffffffffff01"));
    CHECK_OK(rpc_decode_model_response(a, buf_slice(&out), &got));
    CU_ASSERT_TRUE(slice_is(got.version, "v7") && slice_is(got.spec_json, "{}"));
    CU_ASSERT_TRUE(slice_is(got.plan_json, "[]") && got.trained_at_us == -1);
    CU_ASSERT_TRUE(got.n_tasks == 2 && slice_is(got.tasks[1], "buy"));
    CU_ASSERT_TRUE(got.n_applied == 1 && got.applied[0].partition == 1 &&
                   got.applied[0].offset == -2);
}

static void test_request_log_with_rows(void) {
    begin();
    const struct rpc_applied applied[] = {{0, 5}, {2, 7}};
    const int64_t clock_us[] = {300, -1};
    const uint32_t bits[] = {0x7fc00123, 0x80000000}; /* a NaN with a payload, and -0 */
    float query[2];
    memcpy(query, bits, sizeof query);
    const float cand[] = {1, 2, 3};
    const uint32_t query_ids[] = {4294967295u}, cand_ids[] = {0, 300, 1};
    const struct rpc_ahead ahead[] = {{3, UINT64_MAX, 2, 9}, {0, 1, 0, 6}};
    struct rpc_request_log got = {0}, m = {.request = request(),
                                           .response = response(),
                                           .applied = applied,
                                           .n_applied = 2,
                                           .clock_us = clock_us,
                                           .config_version = S("v1"),
                                           .rows = {query, query_ids, cand, cand_ids, 2, 1, 3, 3},
                                           .ahead = ahead,
                                           .n_ahead = 2,
                                           .without_store = true};
    m.response.order = order_in_log;
    rpc_encode_request_log(&m, &out);
    if (!CHECK_OK(rpc_decode_request_log(a, buf_slice(&out), &got)))
        return;
    CU_ASSERT_TRUE(slice_is(got.config_version, "v1") && got.without_store);
    CU_ASSERT_PTR_NOT_NULL_FATAL(got.clock_us);
    CU_ASSERT_TRUE(got.clock_us[0] == 300 && got.clock_us[1] == -1);
    CU_ASSERT_TRUE(got.rows.n_query == 2 && got.rows.n_query_ids == 1 && got.rows.n_cand == 3 &&
                   got.rows.n_cand_ids == 3);
    CU_ASSERT_EQUAL(memcmp(got.rows.query, query, sizeof query), 0);
    CU_ASSERT_EQUAL(memcmp(got.rows.cand, cand, sizeof cand), 0);
    CU_ASSERT_EQUAL(got.rows.query_ids[0], 4294967295u);
    CU_ASSERT_EQUAL(memcmp(got.rows.cand_ids, cand_ids, sizeof cand_ids), 0);
    CU_ASSERT_EQUAL_FATAL(got.n_ahead, 2);
    CU_ASSERT_TRUE(got.ahead[0].scope == 3 && got.ahead[0].key == UINT64_MAX &&
                   got.ahead[0].partition == 2 && got.ahead[0].offset == 9);
    CU_ASSERT_TRUE(got.ahead[1].scope == 0 && got.ahead[1].offset == 6);
}

static void test_request_log(void) {
    begin();
    const struct rpc_applied applied[] = {{0, 5}, {2, 7}};
    struct rpc_request_log got = {0}, m = {.request = request(),
                                           .response = response(),
                                           .applied = applied,
                                           .n_applied = 2,
                                           .served_at_us = 1700000000000001};
    m.response.order = order_in_log;
    rpc_encode_request_log(&m, &out);
    CU_ASSERT_TRUE(wrote("0a5a" GOLDEN_REQUEST
                         "1284010a027131120276371a03020001" GOLDEN_RESPONSE_TAIL
                         "1a0210051a0408021007208180f9c0c1c48203"));
    if (CHECK_OK(rpc_decode_request_log(a, buf_slice(&out), &got))) {
        check_request(&got.request);
        check_response(&got.response, order_in_log);
        CU_ASSERT_EQUAL(got.n_applied, 2);
        CU_ASSERT_TRUE(got.applied[1].partition == 2 && got.applied[1].offset == 7);
        CU_ASSERT_EQUAL(got.served_at_us, 1700000000000001);
    }
    m.response.order = order;
    buf_clear(&out);
    rpc_encode_request_log(&m, &out);
    CHECK_FAILS(rpc_decode_request_log(a, buf_slice(&out), &got), STATUS_INVALID_ARGUMENT,
                "response.order[2] is 300 with 3 items");
    CHECK_FAILS(rpc_decode_request_log(a, S(""), &got), STATUS_INVALID_ARGUMENT,
                "request is missing");
    CHECK_FAILS(rpc_decode_request_log(a, unhex(a, "0a042a026931"), &got), STATUS_INVALID_ARGUMENT,
                "response is missing");
    CHECK_FAILS(rpc_decode_request_log(a, unhex(a, "0a001200"), &got), STATUS_INVALID_ARGUMENT,
                "request: items is empty");
    CHECK_FAILS(rpc_decode_request_log(a,
                                       unhex(a, "0a042a0269311200"
                                                "1a0208021a020801"),
                                       &got),
                STATUS_INVALID_ARGUMENT, "applied[1]: partitions must ascend");
}

/* Logged before there were any; as logged; and what cannot be. */
static void test_request_log_propensities(void) {
    begin();
    float p[] = {1, 0.25f, 0.5f};
    struct rpc_request_log got = {0}, m = {.request = request(), .response = response()};
    m.response.order = order_in_log;
    rpc_encode_request_log(&m, &out);
    if (!CHECK_OK(rpc_decode_request_log(a, buf_slice(&out), &got)))
        return;
    CU_ASSERT(got.propensities == NULL && got.policy.n == 0);
    m.policy = S("shuffle");
    m.propensities = p;
    buf_clear(&out);
    rpc_encode_request_log(&m, &out);
    if (!CHECK_OK(rpc_decode_request_log(a, buf_slice(&out), &got)))
        return;
    CU_ASSERT(slice_is(got.policy, "shuffle"));
    CU_ASSERT_PTR_NOT_NULL_FATAL(got.propensities);
    CU_ASSERT_EQUAL(memcmp(got.propensities, p, sizeof p), 0);
    static const float bad[] = {0, -1, 1.5f, NAN};
    for (int i = 0; i < 4; i++) {
        p[1] = bad[i];
        buf_clear(&out);
        rpc_encode_request_log(&m, &out);
        CHECK_FAILS(rpc_decode_request_log(a, buf_slice(&out), &got), STATUS_INVALID_ARGUMENT,
                    "propensities[1] must be in ]0, 1]");
    }
    buf_add(&out, "\x5d\x00\x00\x80\x3f", 5); /* one more, alone: parts of a field are one list */
    CHECK_FAILS(rpc_decode_request_log(a, buf_slice(&out), &got), STATUS_INVALID_ARGUMENT,
                "4 propensities of 3 places");
}

/* ---- no malloc ---- */

/* After the first request an arena and a buf have all they need. */
static void test_rank_allocates_nothing(void) {
    begin();
    struct buf in = {0};
    struct rpc_rank_request r = request(), got;
    struct rpc_rank_response s = response();
    rpc_encode_rank_request(&r, &in);
    unsigned long long before = 0;
    for (int i = 0; i < 10; i++) {
        if (i == 1)
            before = heap_count();
        arena_reset(a);
        buf_clear(&out);
        CHECK_OK(rpc_decode_rank_request(a, buf_slice(&in), &got));
        rpc_encode_rank_response(&s, &out);
    }
    CU_ASSERT_EQUAL(heap_count(), before);
    buf_deinit(&in);
}

SUITE("proto_rpc", TEST(test_rank_golden), TEST(test_rank_smallest), TEST(test_rank_unpacked),
      TEST(test_rank_request_refused), TEST(test_rank_columns_refused),
      TEST(test_rank_response_refused), TEST(test_recommend), TEST(test_feedback_sorted),
      TEST(test_feedback_keeps_unknown_fields), TEST(test_feedback_empty_and_full),
      TEST(test_feedback_response), TEST(test_model), TEST(test_request_log),
      TEST(test_request_log_with_rows), TEST(test_request_log_propensities),
      TEST(test_rank_allocates_nothing))
