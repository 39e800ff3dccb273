/* Events in protobuf and in JSON: equal events give equal structs, whatever they came as. */
#include "tests/unit/proto_samples.h"

static struct arena arena, *const a = &arena;
static struct buf out;

static void begin(void) {
    if (!a->chunk_bytes)
        arena_init(a, 0);
    arena_reset(a);
    buf_clear(&out);
}

/* ---- protobuf ---- */

static void test_protobuf_golden(void) {
    for (int i = 0; i < N_OF(sample_events); i++) {
        begin();
        struct slice golden = unhex(a, sample_golden[i]);
        struct ev_event e;
        if (!CHECK_OK(ev_decode_proto(a, golden, &e)))
            continue;
        CU_ASSERT_TRUE(same_event(&e, &sample_events[i]));
        ev_encode_proto(&sample_events[i], &out);
        CU_ASSERT_TRUE(slice_equal(buf_slice(&out), golden));
    }
}

static void test_json_round_trip(void) {
    for (int i = 0; i < N_OF(sample_events); i++) {
        begin();
        ev_encode_json(&sample_events[i], &out);
        CU_ASSERT_PTR_NULL(memchr(out.p, '\n', out.n));
        struct ev_event e;
        if (CHECK_OK(ev_decode_json(a, buf_slice(&out), &e)))
            CU_ASSERT_TRUE(same_event(&e, &sample_events[i]));
    }
}

static void test_json_canonical(void) {
    static const char *const want[] = {
        "{\"event\":\"item\",\"id\":\"m1\",\"event_time_us\":1700000000000000,"
        "\"arrival_time_us\":1700000000000001,\"tenant\":\"t\",\"item\":\"i1\",\"fields\":["
        "{\"name\":\"price\",\"value\":12.5},{\"name\":\"new\",\"value\":true},"
        "{\"name\":\"old\",\"value\":false},"
        "{\"name\":\"title\",\"value\":\"Zw\xC3\xB6lf \\\"St\xC3\xBChle\\\"\"},"
        "{\"name\":\"genres\",\"value\":[\"drama\",\"\",\"comedy\"]},"
        "{\"name\":\"vec\",\"value\":[1,-2.5,1e-300]},{\"name\":\"none\",\"value\":[]},"
        "{\"name\":\"empty\",\"numbers\":[]},{\"name\":\"blank\",\"value\":\"\"},"
        "{\"name\":\"zero\",\"value\":0}]}",
        "{\"event\":\"user\",\"id\":\"um1\",\"event_time_us\":1700000000000000,\"user\":\"u1\","
        "\"fields\":[{\"name\":\"age\",\"value\":33}]}",
        "{\"event\":\"ranking\",\"id\":\"r1\",\"event_time_us\":1700000000000000,\"user\":\"u1\","
        "\"session\":\"s1\",\"fields\":[{\"name\":\"device\",\"value\":\"mobile\"}],\"items\":["
        "{\"id\":\"i1\",\"propensity\":0.25,\"fields\":[{\"name\":\"relevancy\",\"value\":-0.5}]},"
        "{\"id\":\"i2\"},{\"id\":\"i3\",\"propensity\":1}]}",
        "{\"event\":\"interaction\",\"id\":\"k1\",\"event_time_us\":1700000000000000,"
        "\"user\":\"u1\",\"session\":\"s1\",\"item\":\"i2\",\"type\":\"click\",\"ranking\":\"r1\"}",
    };
    for (int i = 0; i < N_OF(sample_events); i++) {
        begin();
        ev_encode_json(&sample_events[i], &out);
        CU_ASSERT_TRUE(slice_is(buf_slice(&out), want[i]));
    }
}

/* Fields beyond what this version knows: skipped, in every message. */
static void test_protobuf_unknown_fields(void) {
    begin();
    struct slice known = unhex(a, GOLDEN_INTERACTION);
    buf_add(&out, known.p, known.n);
    struct slice unknown = unhex(a, "a00601"
                                    "a906"
                                    "0102030405060708"
                                    "b20602ffff"
                                    "bd0601020304");
    buf_add(&out, unknown.p, unknown.n);
    struct ev_event e;
    CHECK_OK(ev_decode_proto(a, buf_slice(&out), &e));
    CU_ASSERT_TRUE(same_event(&e, &sample_events[3]));
}

/* protobuf: the last scalar wins, the last body wins, lists add up */
static void test_protobuf_last_wins(void) {
    begin();
    struct slice known = unhex(a, GOLDEN_USER);
    buf_add(&out, known.p, known.n);
    struct slice more = unhex(a, "0a0178"
                                 "2a050a01622a00"
                                 "6a0f0a0275311a0269322205636c69636b");
    buf_add(&out, more.p, more.n);
    struct ev_event e = {0};
    CHECK_OK(ev_decode_proto(a, buf_slice(&out), &e));
    CU_ASSERT_EQUAL(e.kind, EV_INTERACTION);
    CU_ASSERT_TRUE(slice_is(e.id, "x"));
    CU_ASSERT_TRUE(slice_is(e.user, "u1"));
    CU_ASSERT_TRUE(slice_is(e.type, "click"));
    CU_ASSERT_EQUAL(e.n_fields, 2);
}

static void test_protobuf_broken(void) {
    static const struct {
        const char *hex, *message;
    } cases[] = {
        {"0a05", "id: runs past the end at byte 0"},
        {"0a026b3110", "event_time_us: number cut short at byte 4"},
        {"0a026b31"
         "12016b",
         "event_time_us: wrong wire type 2 at byte 4"},
        {"0a026b31"
         "7b",
         "unknown wire type at byte 4"},
        {"0a026b31"
         "ff",
         "broken tag at byte 4"},
        {"0a026b31"
         "0001",
         "broken tag at byte 4"},
        {"08"
         "01",
         "id: wrong wire type at byte 0"},
        {"2a04"
         "0a03"
         "6162",
         "name: runs past the end at byte 2"},
        {"0affffffffffffffffff01", "id: runs past the end at byte 0"},
        {"0affffffff07", "id: runs past the end at byte 0"},
        {"2a09"
         "0a0161"
         "2a04"
         "0a020101",
         "values: packed numbers cut short"},
    };
    for (int i = 0; i < N_OF(cases); i++) {
        begin();
        struct ev_event e = {.n_fields = 77};
        CHECK_FAILS(ev_decode_proto(a, unhex(a, cases[i].hex), &e), STATUS_DATA_LOSS,
                    cases[i].message);
        CU_ASSERT_EQUAL(e.n_fields, 77);
    }
}

/* ---- JSON ---- */

static void check_json(const char *text, const struct ev_event *want) {
    struct ev_event e;
    begin();
    if (CHECK_OK(ev_decode_json(a, slice_of(text), &e)) && !same_event(&e, want)) {
        printf("  differs: %s\n", text);
        CU_FAIL("another event");
    }
}

static void test_json_forms_of_interaction(void) {
    static const char *const forms[] = {
        /* Metarank: milliseconds, as text or number, unknown and null keys */
        "{\"event\":\"interaction\",\"id\":\"k1\",\"ranking\":\"r1\",\"user\":\"u1\","
        "\"session\":\"s1\",\"type\":\"click\",\"item\":\"i2\",\"fields\":[],"
        "\"timestamp\":\"1700000000000\"}",
        "{\"type\":\"click\",\"event\":\"interaction\",\"id\":\"k1\",\"timestamp\":1700000000000,"
        "\"ranking\":\"r1\",\"user\":\"u1\",\"session\":\"s1\",\"item\":\"i2\",\"tenant\":null,"
        "\"colour\":{\"a\":[1]}}",
        " {\"event\":\"interaction\",\"id\":\"k1\",\"timestamp\":1.7e12,\"ranking\":\"r1\","
        "\"user\":\"u1\",\"session\":\"s1\",\"item\":\"i2\",\"type\":\"click\"} \r\n",
        /* protobuf's JSON: nested body, either spelling, int64 as text */
        "{\"id\":\"k1\",\"event_time_us\":1700000000000000,\"interaction\":{\"user\":\"u1\","
        "\"session\":\"s1\",\"item\":\"i2\",\"type\":\"click\",\"ranking\":\"r1\"}}",
        "{\"interaction\":{\"user\":\"u1\",\"session\":\"s1\",\"item\":\"i2\",\"type\":\"click\","
        "\"ranking\":\"r1\",\"colour\":1},\"eventTimeUs\":\"1700000000000000\",\"id\":\"k1\"}",
        /* both at once, agreeing */
        "{\"event\":\"interaction\",\"id\":\"k1\",\"event_time_us\":1700000000000000,"
        "\"user\":\"u1\",\"interaction\":{\"session\":\"s1\",\"item\":\"i2\",\"type\":\"click\","
        "\"ranking\":\"r1\"}}",
    };
    for (int i = 0; i < N_OF(forms); i++)
        check_json(forms[i], &sample_events[3]);
}

static void test_json_forms_of_others(void) {
    check_json(
        "{\"id\":\"r1\",\"eventTimeUs\":1700000000000000,"
        "\"fields\":[{\"name\":\"device\",\"text\":\"mobile\"}],\"ranking\":{\"user\":\"u1\","
        "\"session\":\"s1\",\"items\":[{\"item\":\"i1\",\"propensity\":0.25,\"fields\":["
        "{\"name\":\"relevancy\",\"number\":-0.5}]},{\"item\":\"i2\"},"
        "{\"item\":\"i3\",\"propensity\":1}]}}",
        &sample_events[2]);
    /* Metarank's explicit judgements have a label; keys that a kind has no place for are unknown */
    check_json("{\"event\":\"ranking\",\"id\":\"r1\",\"timestamp\":1700000000000,\"user\":\"u1\","
               "\"session\":\"s1\",\"item\":\"i9\",\"type\":\"x\",\"ranking\":\"r9\","
               "\"fields\":[{\"name\":\"device\",\"value\":\"mobile\"}],\"items\":["
               "{\"id\":\"i1\",\"label\":1,\"propensity\":0.25,\"fields\":["
               "{\"name\":\"relevancy\",\"value\":-0.5}]},{\"id\":\"i2\",\"label\":0},"
               "{\"id\":\"i3\",\"propensity\":1}]}",
               &sample_events[2]);
    check_json("{\"id\":\"um1\",\"event_time_us\":1700000000000000,\"user\":{\"user\":\"u1\"},"
               "\"fields\":[{\"name\":\"age\",\"value\":33,\"unit\":\"years\"}]}",
               &sample_events[1]);
    check_json("{\"event\":\"user\",\"id\":\"um1\",\"event_time_us\":1700000000000000,"
               "\"user\":\"u1\",\"session\":\"s\",\"item\":\"i\",\"items\":[],"
               "\"fields\":[{\"name\":\"age\",\"value\":33,\"number\":null}]}",
               &sample_events[1]);
}

static void test_json_typed_values(void) {
    begin();
    struct ev_event e;
    CHECK_OK(ev_decode_json(
        a,
        S("{\"id\":\"m1\",\"event_time_us\":1700000000000000,\"arrivalTimeUs\":"
          "1700000000000001,\"tenant\":\"t\",\"item\":{\"item\":\"i1\"},\"fields\":["
          "{\"name\":\"price\",\"number\":12.5},{\"name\":\"new\",\"boolean\":true},"
          "{\"name\":\"old\",\"boolean\":false},"
          "{\"name\":\"title\",\"text\":\"Zw\\u00f6lf \\\"St\xC3\xBChle\\\"\"},"
          "{\"name\":\"genres\",\"texts\":{\"values\":[\"drama\",\"\",\"comedy\"]}},"
          "{\"name\":\"vec\",\"numbers\":{\"values\":[1,-2.5,1e-300]}},"
          "{\"name\":\"none\",\"texts\":{}},{\"name\":\"empty\",\"numbers\":{\"values\":[]}},"
          "{\"name\":\"blank\",\"text\":\"\"},{\"name\":\"zero\",\"number\":0}]}"),
        &e));
    CU_ASSERT_TRUE(same_event(&e, &sample_events[0]));
}

static void test_json_times(void) {
    static const struct {
        const char *time;
        int64_t us;
    } cases[] = {
        {"\"timestamp\":1", 1000},
        {"\"timestamp\":1.5", 1500},
        {"\"timestamp\":1700000000000.25", 1700000000000250},
        {"\"event_time_us\":9007199254740993", 9007199254740993}, /* 2^53 + 1 */
        {"\"event_time_us\":\"9007199254740993\"", 9007199254740993},
        {"\"event_time_us\":1e6", 1000000},
        {"\"event_time_us\":9223372036854775807", INT64_MAX},
    };
    for (int i = 0; i < N_OF(cases); i++) {
        begin();
        struct ev_event e;
        char text[200];
        snprintf(text, sizeof text, "{\"event\":\"user\",\"id\":\"x\",\"user\":\"u\",%s}",
                 cases[i].time);
        CHECK_OK(ev_decode_json(a, slice_of(text), &e));
        CU_ASSERT_EQUAL(e.event_time_us, cases[i].us);
    }
}

/* ---- either ---- */

static void test_encoding_told_apart(void) {
    struct ev_event e;
    for (int i = 0; i < N_OF(sample_events); i++) {
        begin();
        CHECK_OK(ev_decode(a, unhex(a, sample_golden[i]), &e));
        CU_ASSERT_TRUE(same_event(&e, &sample_events[i]));
        buf_add_str(&out, " \t\r\n");
        ev_encode_json(&sample_events[i], &out);
        for (size_t skip = 0; skip <= 4; skip++) {
            CHECK_OK(ev_decode(a, (struct slice){out.p + skip, out.n - skip}, &e));
            CU_ASSERT_TRUE(same_event(&e, &sample_events[i]));
        }
    }
    CHECK_FAILS(ev_decode(a, S(""), &e), STATUS_INVALID_ARGUMENT, "no kind");
    CHECK_FAILS(ev_decode(a, S("\n {\"id\":"), &e), STATUS_DATA_LOSS, "not a moerank.v1.Event");
    CHECK_FAILS(ev_decode(a, S("{\"id\":"), &e), STATUS_DATA_LOSS, "not JSON");
    CHECK_OK(ev_decode(a,
                       S("\xEF\xBB\xBF{\"event\":\"user\",\"id\":\"x\",\"timestamp\":5,"
                         "\"user\":\"u\"}"),
                       &e));
    CHECK_FAILS(ev_decode(a, S("[]"), &e), STATUS_DATA_LOSS, "not a moerank.v1.Event");
}

/* "\n{" also begins a protobuf event whose id is 123 bytes long; "\n\r{" one of 13 bytes. */
static void test_protobuf_that_looks_like_json(void) {
    for (size_t n = 1; n <= EV_ID_BYTES_MAX; n++) {
        begin();
        char id[EV_ID_BYTES_MAX];
        memset(id, '{', sizeof id);
        struct ev_event e = sample_events[3], got;
        e.id = (struct slice){id, n};
        ev_encode_proto(&e, &out);
        CHECK_OK(ev_decode(a, buf_slice(&out), &got));
        CU_ASSERT_TRUE(same_event(&e, &got));
    }
}

static void test_fields(void) {
    const struct ev_field fields[] = {
        {S("x"), {.type = EV_NUMBER, .number = 1}},
        {S("y"), {.type = EV_STRING, .string = S("-2.5e1")}},
        {S("x"), {.type = EV_BOOL, .boolean = true}},
        {S("xy"), {.type = EV_NUMBERS}},
    };
    double v = -1;
    CU_ASSERT_PTR_EQUAL(ev_field_get(fields, 4, "x"), &fields[2].value); /* the last one */
    CU_ASSERT_PTR_NULL(ev_field_get(fields, 4, "z"));
    CU_ASSERT_PTR_NULL(ev_field_get(NULL, 0, "z"));
    CU_ASSERT_TRUE(ev_value_number(&fields[0].value, &v) && v == 1);
    CU_ASSERT_TRUE(ev_value_number(&fields[1].value, &v) && v == -25);
    CU_ASSERT_TRUE(ev_value_number(&fields[2].value, &v) && v == 1);
    CU_ASSERT_FALSE(ev_value_number(&fields[3].value, &v));
    static const char *const bad[] = {"", "abc", "1x", "nan", "inf", "0x10", "1e", "1e999", " 1"};
    for (int i = 0; i < N_OF(bad); i++) {
        struct ev_value s = {.type = EV_STRING, .string = slice_of(bad[i])};
        CU_ASSERT_FALSE(ev_value_number(&s, &v));
    }
    CU_ASSERT_EQUAL(v, 1);
    CU_ASSERT_STRING_EQUAL(ev_kind_word(EV_RANKING), "ranking");
}

/* A ranking and what answers it have the same key, whatever they say of who it was. */
static void test_keys(void) {
    struct ev_event r = {.kind = EV_RANKING, .id = SLICE_LIT("r1")};
    struct ev_event i = {.kind = EV_INTERACTION,
                         .id = SLICE_LIT("x"),
                         .item = SLICE_LIT("a"),
                         .ranking = SLICE_LIT("r1")};
    CU_ASSERT(slice_is(ev_key(&r), "r1") && slice_is(ev_key(&i), "r1"));
    r.session = i.session = SLICE_LIT("s");
    CU_ASSERT(slice_is(ev_key(&r), "s") && slice_is(ev_key(&i), "s"));
    r.user = i.user = SLICE_LIT("u");
    CU_ASSERT(slice_is(ev_key(&r), "u") && slice_is(ev_key(&i), "u"));
    struct ev_event item = {.kind = EV_ITEM, .id = SLICE_LIT("y"), .item = SLICE_LIT("a")};
    CU_ASSERT(slice_is(ev_key(&item), "a"));
    i = (struct ev_event){.kind = EV_INTERACTION, .id = SLICE_LIT("x"), .item = SLICE_LIT("a")};
    CU_ASSERT(slice_is(ev_key(&i), "a"));
}

SUITE("proto_event", TEST(test_keys), TEST(test_protobuf_golden), TEST(test_json_round_trip),
      TEST(test_json_canonical), TEST(test_protobuf_unknown_fields), TEST(test_protobuf_last_wins),
      TEST(test_protobuf_broken), TEST(test_json_forms_of_interaction),
      TEST(test_json_forms_of_others), TEST(test_json_typed_values), TEST(test_json_times),
      TEST(test_encoding_told_apart), TEST(test_protobuf_that_looks_like_json), TEST(test_fields))
