/* Every rule an event can break, with the message it gives. */
#include "tests/unit/proto_samples.h"

static struct arena arena, *const a = &arena;
static struct buf out;

static void begin(void) {
    if (!a->chunk_bytes)
        arena_init(a, 0);
    arena_reset(a);
    buf_clear(&out);
}

/* The check itself, and the same through protobuf: both must say so, or the decoder has let through
 * what the check would not. */
static void refused(const struct ev_event *e, const char *message) {
    struct ev_event got;
    begin();
    CHECK_FAILS(ev_check(e), STATUS_INVALID_ARGUMENT, message);
    ev_encode_proto(e, &out);
    CHECK_FAILS(ev_decode_proto(a, buf_slice(&out), &got), STATUS_INVALID_ARGUMENT, message);
}

static char long_id[EV_ID_BYTES_MAX + 2];

static void test_samples_are_valid(void) {
    for (int i = 0; i < N_OF(sample_events); i++)
        CHECK_OK(ev_check(&sample_events[i]));
}

/* ---- ids and times ---- */

static void test_required(void) {
    static const struct slice none;
    struct ev_event e = sample_events[3];
    e.id = none;
    refused(&e, "id is empty");
    e = sample_events[3], e.user = none; /* anonymous */
    CHECK_OK(ev_check(&e));
    e = sample_events[3], e.item = none;
    refused(&e, "item is empty");
    e = sample_events[3], e.type = none;
    refused(&e, "type is empty");
    e = sample_events[0], e.item = none;
    refused(&e, "item is empty");
    e = sample_events[1], e.user = none;
    refused(&e, "user is empty");
    e = sample_events[2], e.n_shown = 0;
    refused(&e, "items is empty");
}

static void test_optional(void) {
    static const struct slice none;
    struct ev_event e = sample_events[3];
    e.session = e.ranking = e.tenant = none;
    CHECK_OK(ev_check(&e));
    e = sample_events[2], e.user = e.session = none; /* an anonymous ranking */
    CHECK_OK(ev_check(&e));
}

static void test_times(void) {
    struct ev_event e = sample_events[3];
    e.event_time_us = 0;
    refused(&e, "event_time_us must be > 0 (got 0)");
    e.event_time_us = -5;
    refused(&e, "event_time_us must be > 0 (got -5)");
    e = sample_events[3], e.arrival_time_us = -1;
    refused(&e, "arrival_time_us must be >= 0 (got -1)");
}

static void test_kind(void) {
    struct ev_event e = sample_events[3], got;
    e.kind = 0;
    CHECK_FAILS(ev_check(&e), STATUS_INVALID_ARGUMENT,
                "no kind: an event is one of item, user, ranking, interaction");
    e.kind = 5;
    CHECK_FAILS(ev_check(&e), STATUS_INVALID_ARGUMENT, "no kind");
    begin();
    CHECK_FAILS(ev_decode_proto(a, unhex(a, "0a026b31108080f9c0c1c48203"), &got),
                STATUS_INVALID_ARGUMENT, "no kind");
}

static void test_id_too_long(void) {
    memset(long_id, 'x', sizeof long_id);
    struct ev_event e = sample_events[3];
    e.id = (struct slice){long_id, EV_ID_BYTES_MAX};
    CHECK_OK(ev_check(&e));
    e.id.n++;
    refused(&e, "id is 257 bytes long (at most 256)");
    struct slice ev_id = e.id;
    e = sample_events[3], e.session = ev_id;
    refused(&e, "session is 257 bytes long");
    e = sample_events[3], e.tenant = ev_id;
    refused(&e, "tenant is 257 bytes long");
    e = sample_events[3], e.ranking = ev_id;
    refused(&e, "ranking is 257 bytes long");
    e = sample_events[3], e.type = ev_id;
    refused(&e, "type is 257 bytes long");
}

static void test_utf8(void) {
    static const struct {
        struct slice text;
        int bad_at; /* -1: good */
    } cases[] = {
        {{"plain ascii, longer than eight", 30}, -1},
        {{"\x7F", 1}, -1},
        {{"\xC2\x80 \xDF\xBF", 5}, -1},
        {{"\xE0\xA0\x80\xED\x9F\xBF\xEE\x80\x80", 9}, -1},
        {{"\xF0\x90\x80\x80\xF4\x8F\xBF\xBF", 8}, -1},
        {{"12345678\xC3\xBC", 10}, -1},
        {{"12345678\xC3", 9}, 8},     /* cut short */
        {{"\x80", 1}, 0},             /* a tail alone */
        {{"ab\xC0\xAF", 4}, 2},       /* overlong '/' */
        {{"\xE0\x9F\xBF", 3}, 0},     /* overlong */
        {{"\xF0\x8F\xBF\xBF", 4}, 0}, /* overlong */
        {{"\xED\xA0\x80", 3}, 0},     /* surrogate */
        {{"\xF4\x90\x80\x80", 4}, 0}, /* beyond U+10FFFF */
        {{"\xF5\x80\x80\x80", 4}, 0},
        {{"\xFF", 1}, 0},
        {{"\xE2\x82x", 3}, 0}, /* a tail that is none */
        {{"1234567\xE2\x82", 9}, 7},
    };
    for (int i = 0; i < N_OF(cases); i++) {
        struct ev_event e = sample_events[3];
        e.user = cases[i].text;
        if (cases[i].bad_at < 0) {
            CHECK_OK(ev_check(&e));
            continue;
        }
        char message[64];
        snprintf(message, sizeof message, "user is not valid UTF-8 (byte %d)", cases[i].bad_at);
        refused(&e, message);
    }
}

/* protobuf-c's own strings would have made "k1" of it */
static void test_nul_in_id(void) {
    struct ev_event e = sample_events[3];
    e.id = (struct slice){"k1\0x", 4};
    refused(&e, "id holds a NUL (byte 2)");
    e.id = (struct slice){"12345678\0", 9};
    refused(&e, "id holds a NUL (byte 8)");
    struct ev_event got;
    CHECK_FAILS(ev_decode_json(a, S("{\"event\":\"user\",\"id\":\"a\\u0000b\"}"), &got),
                STATUS_DATA_LOSS, "u0000");
}

/* ---- fields ---- */

static void refused_field(struct ev_field f, const char *message) {
    struct ev_field fields[3] = {sample_item_fields[0], sample_item_fields[1], f};
    struct ev_event e = sample_events[0];
    e.fields = fields;
    e.n_fields = 3;
    refused(&e, message);
}

static void test_field_numbers(void) {
    refused_field((struct ev_field){S("price"), {.type = EV_NUMBER, .number = NAN}},
                  "fields[2] 'price': NaN is not a number");
    refused_field((struct ev_field){S("price"), {.type = EV_NUMBER, .number = INFINITY}},
                  "fields[2] 'price': inf is not a number");
    refused_field((struct ev_field){S("price"), {.type = EV_NUMBER, .number = -INFINITY}},
                  "fields[2] 'price': -inf is not a number");
    const double v[] = {1, 2, NAN};
    refused_field((struct ev_field){S("v"), {.type = EV_NUMBERS, .numbers = {v, 3}}},
                  "fields[2] 'v': value[2]: NaN is not a number");
}

static void test_field_texts(void) {
    memset(long_id, 'x', sizeof long_id);
    refused_field((struct ev_field){S(""), {.type = EV_BOOL}}, "fields[2]: name is empty");
    refused_field((struct ev_field){{long_id, 257}, {.type = EV_BOOL}},
                  "fields[2]: name is 257 bytes long");
    refused_field((struct ev_field){S("\xFF"), {.type = EV_BOOL}},
                  "fields[2]: name is not valid UTF-8 (byte 0)");
    refused_field((struct ev_field){S("title"), {.type = EV_STRING, .string = S("ab\xFF")}},
                  "fields[2] 'title': value is not valid UTF-8 (byte 2)");
    const struct slice tags[] = {S("a"), S("\xFF")};
    refused_field((struct ev_field){S("tags"), {.type = EV_STRINGS, .strings = {tags, 2}}},
                  "fields[2] 'tags': value[1] is not valid UTF-8 (byte 0)");
    refused_field((struct ev_field){S("x"), {0}}, "fields[2] 'x': has no value");
}

static void test_limits(void) {
    static struct ev_field fields[EV_FIELDS_MAX + 1];
    static struct ev_shown shown[EV_SHOWN_MAX + 1];
    static double numbers[EV_LIST_MAX + 1];
    static struct slice texts[EV_LIST_MAX + 1];
    for (int i = 0; i <= EV_FIELDS_MAX; i++)
        fields[i] = (struct ev_field){S("x"), {.type = EV_BOOL}};
    for (int i = 0; i <= EV_SHOWN_MAX; i++)
        shown[i] = sample_shown[1];
    struct ev_event e = sample_events[2];
    e.fields = fields, e.n_fields = EV_FIELDS_MAX;
    e.shown = shown, e.n_shown = EV_SHOWN_MAX;
    CHECK_OK(ev_check(&e));
    e.n_fields++;
    refused(&e, "fields: 257 entries (at most 256)");
    e.n_fields--, e.n_shown++;
    refused(&e, "items: 5001 entries (at most 5000)");
    refused_field(
        (struct ev_field){S("v"), {.type = EV_NUMBERS, .numbers = {numbers, EV_LIST_MAX + 1}}},
        "fields[2] 'v': value: 1025 entries (at most 1024)");
    refused_field(
        (struct ev_field){S("t"), {.type = EV_STRINGS, .strings = {texts, EV_LIST_MAX + 1}}},
        "fields[2] 't': value: 1025 entries (at most 1024)");
    shown[7].fields = fields, shown[7].n_fields = EV_FIELDS_MAX + 1;
    e.n_shown = 8;
    refused(&e, "items[7].fields: 257 entries (at most 256)");
}

static void test_event_too_large(void) {
    static char text[EV_BYTES_MAX + 1];
    struct ev_event got;
    begin();
    memset(text, ' ', sizeof text);
    CHECK_FAILS(ev_decode_proto(a, (struct slice){text, sizeof text}, &got),
                STATUS_INVALID_ARGUMENT, "event is 1048577 bytes long (at most 1048576)");
    text[0] = '{';
    CHECK_FAILS(ev_decode(a, (struct slice){text, sizeof text}, &got), STATUS_INVALID_ARGUMENT,
                "event is 1048577 bytes long (at most 1048576)");
}

/* ---- rankings ---- */

static void test_shown(void) {
    struct ev_shown shown[3];
    struct ev_event e = sample_events[2];
    e.shown = shown;
    memcpy(shown, sample_shown, sizeof shown), shown[2].item = S("");
    refused(&e, "items[2].item is empty");
    memcpy(shown, sample_shown, sizeof shown), shown[1].propensity = 1.5f;
    refused(&e, "items[1].propensity must be in 0..1 (got 1.5)");
    memcpy(shown, sample_shown, sizeof shown), shown[1].propensity = -0.5f;
    refused(&e, "items[1].propensity must be in 0..1 (got -0.5)");
    memcpy(shown, sample_shown, sizeof shown), shown[1].propensity = NAN;
    refused(&e, "items[1].propensity must be in 0..1 (got nan)");
    const struct ev_field bad = {S("score"), {.type = EV_NUMBER, .number = NAN}};
    memcpy(shown, sample_shown, sizeof shown), shown[1].fields = &bad, shown[1].n_fields = 1;
    refused(&e, "items[1].fields[0] 'score': NaN is not a number");
}

/* ---- what only JSON can get wrong ---- */

static void refused_json(const char *text, enum status code, const char *message) {
    struct ev_event got = {.n_fields = 77};
    begin();
    CHECK_FAILS(ev_decode_json(a, slice_of(text), &got), code, message);
    CU_ASSERT_EQUAL(got.n_fields, 77);
}

/* the inside of a user event that is otherwise fine */
static void refused_user(const char *more, const char *message) {
    char text[1000];
    snprintf(text, sizeof text, "{\"event\":\"user\",\"id\":\"x\",\"user\":\"u\",%s}", more);
    refused_json(text, STATUS_INVALID_ARGUMENT, message);
}

static void test_json_syntax(void) {
    refused_json("", STATUS_DATA_LOSS, "not JSON");
    refused_json("{\"id\":\"x\"", STATUS_DATA_LOSS, "byte");
    refused_json("{\"id\":\"x\"} {}", STATUS_DATA_LOSS, "more text");
    refused_json("{\"id\":\"x\",\"id\":\"y\"}", STATUS_DATA_LOSS, "'id' is given twice");
    refused_json("{\"id\":\"x\",\"a\":1e999}", STATUS_DATA_LOSS, "number too large");
    refused_json("[1]", STATUS_INVALID_ARGUMENT, "event must be a map (got list)");
    refused_json("{}", STATUS_INVALID_ARGUMENT, "no kind");
}

static void test_json_types(void) {
    refused_user("\"timestamp\":true", "timestamp must be a number (got bool)");
    refused_user("\"timestamp\":\"yesterday\"",
                 "timestamp must be a whole number of milliseconds or ISO 8601 (got 'yesterday')");
    refused_user("\"timestamp\":1e300",
                 "timestamp must be a whole number of milliseconds or ISO 8601 (got '1e300')");
    refused_user("\"timestamp\":999999999999999999", "timestamp is out of range");
    refused_user("\"event_time_us\":9223372036854775808", "must be a whole number");
    refused_user("\"event_time_us\":-9223372036854775808",
                 "event_time_us must be > 0 (got -9223372036854775808)");
    refused_user("\"timestamp\":\"\"",
                 "timestamp must be a whole number of milliseconds or ISO 8601 (got '')");
    refused_user("\"timestamp\":\"-\"",
                 "timestamp must be a whole number of milliseconds or ISO 8601 (got '-')");
    refused_user("\"timestamp\":\"-1\"", "event_time_us must be > 0 (got -1000)");
    refused_user("\"event_time_us\":1.5", "event_time_us must be a whole number (got '1.5')");
    refused_user("\"event_time_us\":1,\"arrival_time_us\":\"x\"",
                 "arrival_time_us must be a whole");
    refused_user("\"tenant\":7", "tenant must be a string (got number)");
    refused_user("\"fields\":{}", "fields must be a list (got map)");
    refused_user("\"session\":[]", "session must be a string (got list)");
    refused_user("\"items\":{}", "items must be a list (got map)");
    refused_user("\"items\":[7]", "items[0]: item must be a map (got number)");
    refused_user("\"items\":[{\"id\":1}]", "items[0]: item must be a string (got number)");
    refused_user("\"items\":[{},{\"propensity\":\"a\"}]",
                 "items[1]: propensity must be a number (got string)");
    refused_user("\"items\":[{\"fields\":[{\"name\":1}]}]",
                 "items[0]: fields[0]: name must be a string (got number)");
    refused_user("\"interaction\":\"x\"", "interaction must be a map (got string)");
    refused_json("{\"event\":7}", STATUS_INVALID_ARGUMENT, "event must be a string (got number)");
    refused_json("{\"event\":\"visit\"}", STATUS_INVALID_ARGUMENT,
                 "event must be item, user, ranking or interaction (got 'visit')");
}

static void test_json_given_twice(void) {
    refused_user("\"timestamp\":1,\"event_time_us\":1000", "event_time_us is given twice");
    refused_user("\"event_time_us\":1,\"eventTimeUs\":1", "eventTimeUs is given twice");
    refused_user("\"interaction\":{\"item\":\"i\"}", "two kinds: user and interaction");
    refused_json("{\"item\":{\"item\":\"i\"},\"user\":{\"user\":\"u\"}}", STATUS_INVALID_ARGUMENT,
                 "two kinds: item and user");
    refused_json("{\"user\":\"u\",\"interaction\":{\"user\":\"u\"}}", STATUS_INVALID_ARGUMENT,
                 "user is given twice");
    refused_user("\"items\":[{\"id\":\"a\",\"item\":\"a\"}]",
                 "items[0]: both id and item are given");
}

static void test_json_fields(void) {
    refused_user("\"fields\":[3]", "fields[0]: must be a map (got number)");
    refused_user("\"fields\":[{\"name\":\"p\",\"value\":{}}]",
                 "fields[0] 'p': value must be bool, number, string or list (got map)");
    refused_user("\"event_time_us\":1,\"fields\":[{\"name\":\"p\"}]",
                 "fields[0] 'p': has no value");
    refused_user("\"event_time_us\":1,\"fields\":[{\"name\":\"p\",\"value\":null}]",
                 "fields[0] 'p': has no value");
    refused_user("\"event_time_us\":1,\"fields\":[{\"value\":1}]", "fields[0]: name is empty");
    refused_user("\"fields\":[{\"name\":\"p\",\"value\":1,\"number\":2}]",
                 "fields[0] 'p': more than one value");
    refused_user("\"fields\":[{\"name\":\"p\",\"value\":[1,\"a\"]}]",
                 "fields[0] 'p': value[1] is a string in a list of numbers");
    refused_user("\"fields\":[{\"name\":\"p\",\"value\":[\"a\",1]}]",
                 "fields[0] 'p': value[1] is a number in a list of strings");
    refused_user("\"fields\":[{\"name\":\"p\",\"value\":[true]}]",
                 "fields[0] 'p': value[0] is a bool in a list of strings");
    refused_user("\"fields\":[{\"name\":\"p\",\"number\":\"1\"}]",
                 "fields[0] 'p': value is not of the type its key says");
    refused_user("\"fields\":[{\"name\":\"p\",\"numbers\":{\"values\":[\"a\"]}}]",
                 "fields[0] 'p': value is not of the type its key says");
    refused_user("\"fields\":[{\"name\":\"p\",\"texts\":{\"values\":7}}]",
                 "fields[0] 'p': value is not of the type its key says");
}

static void test_json_limits(void) {
    begin();
    buf_add_str(&out, "{\"event\":\"user\",\"id\":\"x\",\"user\":\"u\",\"fields\":[");
    for (int i = 0; i <= EV_FIELDS_MAX; i++)
        buf_printf(&out, "%s{}", i ? "," : "");
    buf_add_str(&out, "]}");
    struct ev_event got;
    CHECK_FAILS(ev_decode_json(a, buf_slice(&out), &got), STATUS_INVALID_ARGUMENT,
                "fields: 257 entries (at most 256)");
    buf_clear(&out);
    buf_add_str(&out, "{\"event\":\"ranking\",\"id\":\"x\",\"user\":\"u\",\"items\":[");
    for (int i = 0; i <= EV_SHOWN_MAX; i++)
        buf_printf(&out, "%s{}", i ? "," : "");
    buf_add_str(&out, "]}");
    CHECK_FAILS(ev_decode_json(a, buf_slice(&out), &got), STATUS_INVALID_ARGUMENT,
                "items: 5001 entries (at most 5000)");
}

SUITE("proto_check", TEST(test_samples_are_valid), TEST(test_required), TEST(test_optional),
      TEST(test_times), TEST(test_kind), TEST(test_id_too_long), TEST(test_utf8),
      TEST(test_nul_in_id), TEST(test_field_numbers), TEST(test_field_texts), TEST(test_limits),
      TEST(test_event_too_large), TEST(test_shown), TEST(test_json_syntax), TEST(test_json_types),
      TEST(test_json_given_twice), TEST(test_json_fields), TEST(test_json_limits))
