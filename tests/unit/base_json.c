/* base_json.c: the JSON writer: commas, escapes, numbers that read back equal. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include "base/node.h"
#include "base/rng.h"
#include "tests/support/suite.h"

static struct buf out;
static struct json writer;

static struct json *begin(void) {
    buf_clear(&out);
    json_begin(&writer, &out);
    return &writer;
}
static const char *written(void) {
    buf_add_byte(&out, 0);
    return out.p;
}

static void commas_stand_where_they_belong(void) {
    struct json *j = begin();
    json_object(j);
    json_key(j, "a");
    json_int(j, -1);
    json_key(j, "b");
    json_array(j);
    json_bool(j, true);
    json_null(j);
    json_object(j);
    json_object_end(j);
    json_array(j);
    json_array_end(j);
    json_array_end(j);
    json_key(j, "c");
    json_cstr(j, "x");
    json_object_end(j);
    CU_ASSERT_STRING_EQUAL(written(), "{\"a\":-1,\"b\":[true,null,{},[]],\"c\":\"x\"}");
}

static void strings_are_escaped_and_bad_utf8_replaced(void) {
    static const struct {
        struct slice in;
        const char *want;
    } cases[] = {
        {SLICE_LIT("plain"), "\"plain\""},
        {SLICE_LIT("a\"b\\c\n\r\t\b\f\x01\x1f"), "\"a\\\"b\\\\c\\n\\r\\t\\b\\f\\u0001\\u001f\""},
        {SLICE_LIT("nul\0!"), "\"nul\\u0000!\""},
        {SLICE_LIT("\x7f"), "\"\\u007f\""},
        {SLICE_LIT("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"),
         "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\""},
        {SLICE_LIT("a\xff"
                   "b"),
         "\"a\xEF\xBF\xBD"
         "b\""},
        {SLICE_LIT("\xc3"), "\"\xEF\xBF\xBD\""},
        {SLICE_LIT("\xc0\xaf"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\""},
        {SLICE_LIT("\xed\xa0\x80"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""},
        {SLICE_LIT("\xe2\x82"), "\"\xEF\xBF\xBD\xEF\xBF\xBD\""},
        {{NULL, 0}, "\"\""}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_str(begin(), cases[i].in);
        CU_ASSERT_STRING_EQUAL(written(), cases[i].want);
    }
}

static void numbers_take_their_shortest_form(void) {
    static const struct {
        double in;
        const char *want;
    } cases[] = {{0, "0"},
                 {-3, "-3"},
                 {0.1, "0.1"},
                 {1e15, "1e+15"},
                 {123456, "123456"},
                 {1.5, "1.5"},
                 {1.0 / 3, "0.3333333333333333"},
                 {1e300, "1e+300"},
                 {NAN, "null"},
                 {INFINITY, "null"},
                 {-INFINITY, "null"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_num(begin(), cases[i].in);
        CU_ASSERT_STRING_EQUAL(written(), cases[i].want);
    }
    json_int(begin(), INT64_MIN);
    CU_ASSERT_STRING_EQUAL(written(), "-9223372036854775808");
}

static void random_numbers_read_back_equal(void) {
    struct rng r;
    rng_init(&r, 4);
    int bad = 0;
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = rng_u64(&r);
        double v, back;
        memcpy(&v, &bits, sizeof v);
        if (!isfinite(v))
            continue;
        json_num(begin(), v);
        back = strtod(written(), NULL);
        bad += back != v;
    }
    CU_ASSERT_EQUAL(bad, 0);
}

static void a_tree_written_and_read_is_the_same_tree(void) {
    static const char text[] = "{\"a\":[1,2.5,\"x\\n\",null,true],\"id\":9223372036854775807,"
                               "\"b\":{\"c\":{}}}";
    struct arena a;
    arena_init(&a, 0);
    struct node *n = NULL;
    CHECK_OK(node_parse_json(&a, SLICE_LIT(text), "t", &n));
    json_tree(begin(), n);
    CU_ASSERT_STRING_EQUAL(written(), text);
    CHECK_OK(node_parse_yaml(&a, SLICE_LIT("a: 1_000\nb: 012\nc: .5\n"), "t", &n));
    json_tree(begin(), n);
    CU_ASSERT_STRING_EQUAL(written(), "{\"a\":1000,\"b\":12,\"c\":0.5}");
    json_tree(begin(), NULL);
    CU_ASSERT_STRING_EQUAL(written(), "null");
    arena_deinit(&a);
}

static void last(void) { buf_deinit(&out); }

SUITE("base_json", TEST(commas_stand_where_they_belong),
      TEST(strings_are_escaped_and_bad_utf8_replaced), TEST(numbers_take_their_shortest_form),
      TEST(random_numbers_read_back_equal), TEST(a_tree_written_and_read_is_the_same_tree),
      TEST(last))
