/* base_conf.c: settings tables: defaults, every type, bounds, messages, and the way back to JSON.
 */
#include <stdlib.h>
#include "base/conf.h"
#include "tests/support/suite.h"

struct all {
    bool on;
    int64_t count;
    double rate;
    const char *name;
    int mode;
    int64_t ttl_us;
    int64_t memory_bytes;
    struct conf_strings topics;
    struct conf_numbers cuts;
    struct conf_times windows_us;
};
static const struct conf_item items[] = {
    CONF_BOOL(struct all, on, "on", "true", "Whether"),
    CONF_INT(struct all, count, "count", "10", 1, 1000, "rows", "How many"),
    CONF_FLOAT(struct all, rate, "rate", "0.5", 0, 1, NULL, "How fast"),
    CONF_STRING(struct all, name, "name", "x", "Its name"),
    CONF_ENUM(struct all, mode, "mode", "fast", "slow|fast|off", "Which way"),
    CONF_TIME(struct all, ttl_us, "ttl", "30s", 1000, 86400000000.0, "How long"),
    CONF_BYTES(struct all, memory_bytes, "memory", "64MiB", 1024, 1099511627776.0, "How much"),
    CONF_STRINGS(struct all, topics, "topics", "a,b", "Which"),
    CONF_NUMBERS(struct all, cuts, "cuts", "0.5, 2", 0, 10, "Where"),
    CONF_TIMES(struct all, windows_us, "windows", "1h, 24h", 1, 1e15, "Windows"),
    CONF_END};

struct must {
    const char *path;
    int64_t free_number;
};
static const struct conf_item must_items[] = {
    CONF_STRING(struct must, path, "path", NULL, "Where"),
    CONF_INT(struct must, free_number, "number", "0", 0, 0, NULL, "Any"), CONF_END};

static struct arena arena;
static const struct conf_place place = {"t.yaml", "ingest"};

static struct node *tree(const char *text) {
    struct node *n = NULL;
    CHECK_OK(node_parse_yaml(&arena, slice_of(text), "t.yaml", &n));
    return n;
}
static enum status read_text(const char *text, struct all *v) {
    return conf_read(items, tree(text), place, NULL, v, &arena);
}
static enum status set(const char *key, const char *value, struct all *v) {
    return conf_set(items, slice_of(key), slice_of(value), (struct conf_place){"--set", "ingest"},
                    v, &arena);
}

static void defaults_fill_every_type(void) {
    struct all v = {0};
    conf_defaults(items, &v, &arena);
    CU_ASSERT(v.on && v.count == 10 && v.rate == 0.5 && v.mode == 1);
    CU_ASSERT_STRING_EQUAL(v.name, "x");
    CU_ASSERT_EQUAL(v.ttl_us, 30000000);
    CU_ASSERT_EQUAL(v.memory_bytes, 64 << 20);
    CU_ASSERT(v.topics.n == 2 && strcmp(v.topics.v[1], "b") == 0);
    CU_ASSERT(v.cuts.n == 2 && v.cuts.v[1] == 2);
    CU_ASSERT(v.windows_us.n == 2 && v.windows_us.v[1] == 86400000000);
}

static void a_map_sets_every_type_and_leaves_the_rest(void) {
    struct all v = {0};
    CHECK_OK(read_text("on: false\ncount: 1_000\nrate: 1e-3\nname: 007\nmode: off\nttl: 1.5s\n"
                       "memory: 2KiB\ntopics: [x, 1, true]\ncuts: [1]\nwindows: []\n",
                       &v));
    CU_ASSERT(!v.on && v.count == 1000 && v.rate == 0.001 && v.mode == 2);
    CU_ASSERT_STRING_EQUAL(v.name, "007"); /* as written, not as a number */
    CU_ASSERT(v.ttl_us == 1500000 && v.memory_bytes == 2048);
    CU_ASSERT(v.topics.n == 3 && strcmp(v.topics.v[1], "1") == 0);
    CU_ASSERT(v.cuts.n == 1 && v.windows_us.n == 0);
    CHECK_OK(read_text("count: 7\n", &v));
    CU_ASSERT(v.count == 7 && v.on && v.windows_us.n == 2);
    CHECK_OK(conf_read(items, NULL, place, NULL, &v, &arena));
    CHECK_OK(read_text("", &v));
    CU_ASSERT_EQUAL(v.count, 10);
}

static void an_unknown_key_names_file_line_key_and_the_nearest(void) {
    struct all v;
    CHECK_FAILS(read_text("on: true\n\ncuont: 3\n", &v), STATUS_INVALID_ARGUMENT,
                "t.yaml:3: ingest.cuont: unknown key; did you mean 'count'?");
    CHECK_FAILS(read_text("window: [1h]\n", &v), STATUS_INVALID_ARGUMENT,
                "did you mean 'windows'?");
    CHECK_FAILS(read_text("zzzzzzz: 3\n", &v), STATUS_INVALID_ARGUMENT,
                "t.yaml:1: ingest.zzzzzzz: unknown key");
    CU_ASSERT_PTR_NULL(strstr(status_message(), "mean"));
}

static void keys_of_the_caller_are_skipped_and_suggested(void) {
    struct all v;
    static const char *const also[] = {"kind", NULL};
    CHECK_OK(conf_read(items, tree("kind: count\ncount: 3\n"), place, also, &v, &arena));
    CU_ASSERT_EQUAL(v.count, 3);
    CHECK_FAILS(conf_read(items, tree("kidn: count\n"), place, also, &v, &arena),
                STATUS_INVALID_ARGUMENT, "did you mean 'kind'?");
}

static void wrong_forms_are_refused_with_line_and_key(void) {
    static const struct {
        const char *text, *part;
    } cases[] = {{"on: yes", "t.yaml:1: ingest.on: 'yes' is not true or false"},
                 {"on: 'true'", "ingest.on"},
                 {"count: 1.5", "ingest.count: '1.5' is not a whole number"},
                 {"count: 10k", "whole number"},
                 {"count: 99999999999999999999", "whole number"},
                 {"count: [1]", "must be a whole number, not a list"},
                 {"count:", "must be a whole number, not nothing"},
                 {"rate: fast", "ingest.rate: 'fast' is not a number"},
                 {"rate: 1e999", "not a number"},
                 {"mode: quick", "'quick' is not one of slow|fast|off"},
                 {"mode: fas", "not one of"},
                 {"ttl: 30", "not a time with its unit"},
                 {"ttl: 30sec", "not a time"},
                 {"ttl: s", "not a time"},
                 {"ttl: 1e30d", "not a time"},
                 {"ttl: 99999999999999d", "not a time"},
                 {"memory: 64MB", "not a size"},
                 {"memory: 1.0001B", "not a size"},
                 {"topics: {a: 1}", "must be a list"},
                 {"topics: [[a]]", "element 1 is a list"},
                 {"cuts: [1, x]", "'x' is not a number"},
                 {"windows: [1h, 2]", "'2' is not a time"},
                 {"name: {a: 1}", "must be a string, not a map"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct all v;
        CHECK_FAILS(read_text(cases[i].text, &v), STATUS_INVALID_ARGUMENT, cases[i].part);
    }
    struct all v;
    CHECK_FAILS(read_text("[1]", &v), STATUS_INVALID_ARGUMENT, "must be a map");
}

static void bounds_are_kept_and_shown_as_written(void) {
    struct all v;
    CHECK_OK(read_text("count: 1\nrate: 1\n", &v));
    CHECK_FAILS(read_text("count: 0\n", &v), STATUS_INVALID_ARGUMENT,
                "ingest.count: 0 is not between 1 and 1000");
    CHECK_FAILS(read_text("rate: 1.01\n", &v), STATUS_INVALID_ARGUMENT, "between 0 and 1");
    CHECK_FAILS(read_text("ttl: 2d\n", &v), STATUS_INVALID_ARGUMENT, "between 1ms and 1d");
    CHECK_FAILS(read_text("memory: 1\n", &v), STATUS_INVALID_ARGUMENT, "between 1KiB and 1TiB");
    CHECK_FAILS(read_text("cuts: [1, 11]\n", &v), STATUS_INVALID_ARGUMENT, "11 is not between");
}

static void required_keys_must_be_given(void) {
    struct must v;
    CHECK_FAILS(conf_read(must_items, NULL, place, NULL, &v, &arena), STATUS_INVALID_ARGUMENT,
                "t.yaml: ingest.path: must be given");
    CHECK_FAILS(conf_read(must_items, tree("\nnumber: 3\n"), place, NULL, &v, &arena),
                STATUS_INVALID_ARGUMENT, "t.yaml:2: ingest.path: must be given");
    CHECK_OK(conf_read(must_items, tree("path: /x\nnumber: -9223372036854775808\n"), place, NULL,
                       &v, &arena));
    CU_ASSERT_EQUAL(v.free_number, INT64_MIN); /* no bounds */
}

static void text_sets_one_item(void) {
    struct all v;
    conf_defaults(items, &v, &arena);
    CHECK_OK(set("on", "false", &v));
    CHECK_OK(set("ttl", "250ms", &v));
    CHECK_OK(set("topics", "x, y ,z", &v));
    CHECK_OK(set("cuts", "[1, 2]", &v));
    CHECK_OK(set("windows", "", &v));
    CHECK_OK(set("memory", "4096", &v));
    CHECK_OK(set("name", "a b", &v));
    CU_ASSERT(!v.on && v.ttl_us == 250000 && v.cuts.n == 2 && v.windows_us.n == 0);
    CU_ASSERT(v.topics.n == 3 && strcmp(v.topics.v[1], "y") == 0);
    CU_ASSERT(v.memory_bytes == 4096 && strcmp(v.name, "a b") == 0);
    CHECK_FAILS(set("coutn", "1", &v), STATUS_INVALID_ARGUMENT,
                "--set: ingest.coutn: unknown key; did you mean 'count'?");
    CHECK_FAILS(set("count", "5000", &v), STATUS_INVALID_ARGUMENT, "--set: ingest.count: 5000");
    CU_ASSERT_EQUAL(v.count, 10); /* a refused value changes nothing */
}

static void what_is_written_as_json_reads_back_the_same(void) {
    struct all v, w;
    CHECK_OK(read_text("on: false\ncount: 999\nrate: 0.1\nname: 'a \"b\"'\nmode: slow\nttl: 90s\n"
                       "memory: 1536KiB\ntopics: [x, 'y,z']\ncuts: [0.1, 3]\nwindows: [90m, 1us]\n",
                       &v));
    struct buf first = {0}, second = {0};
    struct json j;
    json_begin(&j, &first);
    json_object(&j);
    conf_write_json(items, &v, &j);
    json_object_end(&j);
    struct node *n = NULL;
    CHECK_OK(node_parse_json(&arena, buf_slice(&first), "dump", &n));
    CHECK_OK(conf_read(items, n, place, NULL, &w, &arena));
    json_begin(&j, &second);
    json_object(&j);
    conf_write_json(items, &w, &j);
    json_object_end(&j);
    CU_ASSERT(slice_equal(buf_slice(&first), buf_slice(&second)));
    CU_ASSERT(w.ttl_us == 90000000 && w.memory_bytes == 1536 * 1024 && w.mode == 0);
    buf_add_byte(&first, 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(first.p, "\"ttl\":\"90s\""));
    CU_ASSERT_PTR_NOT_NULL(strstr(first.p, "\"windows\":[\"90m\",\"1us\"]"));
    buf_deinit(&first);
    buf_deinit(&second);
}

static void the_reference_shows_defaults_bounds_and_meaning(void) {
    struct buf b = {0};
    conf_write_markdown(items, &b);
    conf_write_markdown(must_items, &b);
    buf_add_byte(&b, 0);
    static const char *const rows[] = {
        "| `count` | int (rows) | `10` | 1 .. 1000 | How many |\n",
        "| `mode` | choice | `fast` | slow\\|fast\\|off | Which way |\n",
        "| `ttl` | time | `30s` | 1ms .. 1d | How long |\n",
        "| `memory` | bytes | `64MiB` | 1KiB .. 1TiB | How much |\n",
        "| `path` | string | required |  | Where |\n"};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CU_ASSERT_PTR_NOT_NULL(strstr(b.p, rows[i]));
    buf_deinit(&b);
}

static void nearest_finds_slips_and_refuses_strangers(void) {
    static const char *const words[] = {"ttl_ms", "group_id", "bootstrap", "on", NULL};
    static const struct {
        const char *word, *want;
    } cases[] = {{"tll_ms", "ttl_ms"}, {"ttl", "ttl_ms"},         {"groupid", "group_id"},
                 {"no", "on"},         {"completely", NULL},      {"x", NULL},
                 {"", NULL},           {"bootsrtap", "bootstrap"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *got = conf_nearest(slice_of(cases[i].word), words);
        CU_ASSERT(got == cases[i].want || (got && cases[i].want && !strcmp(got, cases[i].want)));
    }
    char long_word[300];
    memset(long_word, 'a', sizeof long_word);
    CU_ASSERT_PTR_NULL(conf_nearest((struct slice){long_word, sizeof long_word}, words));
}

static void first(void) { arena_init(&arena, 0); }
static void last(void) { arena_deinit(&arena); }

SUITE("base_conf", TEST(first), TEST(defaults_fill_every_type),
      TEST(a_map_sets_every_type_and_leaves_the_rest),
      TEST(an_unknown_key_names_file_line_key_and_the_nearest),
      TEST(keys_of_the_caller_are_skipped_and_suggested),
      TEST(wrong_forms_are_refused_with_line_and_key), TEST(bounds_are_kept_and_shown_as_written),
      TEST(required_keys_must_be_given), TEST(text_sets_one_item),
      TEST(what_is_written_as_json_reads_back_the_same),
      TEST(the_reference_shows_defaults_bounds_and_meaning),
      TEST(nearest_finds_slips_and_refuses_strangers), TEST(last))
