/* base_node.c: YAML and JSON trees: types, lines, and everything that must be refused. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/heap.h"
#include "base/io.h"
#include "base/node.h"
#include "tests/support/suite.h"

static struct arena arena;

static struct node *yaml(const char *text) {
    struct node *n = NULL;
    CHECK_OK(node_parse_yaml(&arena, slice_of(text), "t.yaml", &n));
    return n;
}
static enum status yaml_status(const char *text) {
    struct node *n = NULL;
    enum status s = node_parse_yaml(&arena, slice_of(text), "t.yaml", &n);
    if (s != STATUS_OK && n)
        CU_FAIL("output written on failure");
    return s;
}
static struct node *json(const char *text) {
    struct node *n = NULL;
    CHECK_OK(node_parse_json(&arena, slice_of(text), "t.json", &n));
    return n;
}
static enum status json_status(struct slice text) {
    struct node *n = NULL;
    enum status s = node_parse_json(&arena, text, "t.json", &n);
    if (s != STATUS_OK && n)
        CU_FAIL("output written on failure");
    return s;
}
#define YAML_FAILS(text, part) CHECK_FAILS(yaml_status(text), STATUS_INVALID_ARGUMENT, part)
#define JSON_FAILS(text, part)                                                                     \
    CHECK_FAILS(json_status(SLICE_LIT(text)), STATUS_INVALID_ARGUMENT, part)

static void yaml_scalars_have_the_types_they_look_like(void) {
    static const struct {
        const char *text;
        enum node_type type;
        double number;
    } cases[] = {{"7", NODE_NUMBER, 7},
                 {"-1.5e-3", NODE_NUMBER, -0.0015},
                 {"1_000", NODE_NUMBER, 1000},
                 {".5", NODE_NUMBER, 0.5},
                 {"+3.", NODE_NUMBER, 3},
                 {"true", NODE_BOOL, 0},
                 {"FALSE", NODE_BOOL, 0},
                 {"~", NODE_NULL, 0},
                 {"null", NODE_NULL, 0},
                 {"no", NODE_STRING, 0},
                 {"yes", NODE_STRING, 0},
                 {"'7'", NODE_STRING, 0},
                 {"\"true\"", NODE_STRING, 0},
                 {"30s", NODE_STRING, 0},
                 {"1.2.3", NODE_STRING, 0},
                 {"0x10", NODE_STRING, 0},
                 {"nan", NODE_STRING, 0},
                 {"inf", NODE_STRING, 0},
                 {".inf", NODE_STRING, 0},
                 {"1e999", NODE_STRING, 0},
                 {"1e", NODE_STRING, 0},
                 {"1e+", NODE_STRING, 0},
                 {"-", NODE_LIST, 0},
                 {"'-'", NODE_STRING, 0},
                 {"_1", NODE_STRING, 0},
                 {".", NODE_STRING, 0},
                 {"2024-01-01", NODE_STRING, 0},
                 {"1e5x", NODE_STRING, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct node *n = yaml(cases[i].text);
        if (n->type != cases[i].type || n->number != cases[i].number) {
            printf("%s is a %s, %g\n", cases[i].text, node_type_word(n->type), n->number);
            CU_FAIL("type or number differs");
        }
    }
    CU_ASSERT(yaml("true")->boolean && !yaml("false")->boolean);
    CU_ASSERT(slice_is(yaml("1_000")->text, "1_000"));
}

static void yaml_trees_keep_order_lines_and_counts(void) {
    struct node *n = yaml("a: 1\n"
                          "list:\n"
                          "  - x\n"
                          "  - {deep: [1, 2, 3]}\n"
                          "# remark\n"
                          "b: |\n"
                          "  two\n"
                          "  lines\n");
    CU_ASSERT_EQUAL(n->type, NODE_MAP);
    CU_ASSERT_EQUAL(n->n, 3);
    const struct node *list = node_get(n, "list"), *b = node_get(n, "b");
    CU_ASSERT_EQUAL(list->n, 2);
    CU_ASSERT_EQUAL(list->key_line, 2);
    CU_ASSERT_EQUAL(list->first->line, 3);
    CU_ASSERT_EQUAL(list->first->column, 5);
    CU_ASSERT_EQUAL(node_get(list->first->next, "deep")->n, 3);
    CU_ASSERT(slice_is(b->text, "two\nlines\n"));
    CU_ASSERT_EQUAL(b->key_line, 6);
    CU_ASSERT_PTR_NULL(node_get(n, "c"));
    CU_ASSERT_PTR_NULL(node_get(list, "c"));
    CU_ASSERT_PTR_NULL(node_get(NULL, "c"));
    CU_ASSERT_EQUAL(b->text.p[b->text.n], '\0');
}

static void empty_yaml_is_null(void) {
    CU_ASSERT_EQUAL(yaml("")->type, NODE_NULL);
    CU_ASSERT_EQUAL(yaml("# only a remark\n")->type, NODE_NULL);
    CU_ASSERT_EQUAL(yaml("a:\n")->first->type, NODE_NULL);
}

static void yaml_errors_carry_name_and_line(void) {
    YAML_FAILS("a: 1\nb: [1, 2\nc: 3\n", "t.yaml:3:");
    YAML_FAILS("a: 1\n\tb: 2\n", "t.yaml:2:");
    YAML_FAILS("a: 'open\n", "t.yaml:");
    YAML_FAILS("a: b: c\n", "t.yaml:1:");
    YAML_FAILS("a: \x01\n", "t.yaml");
    YAML_FAILS("a: \xff\xfe\n", "t.yaml");
}

static void yaml_anchors_aliases_tags_and_second_documents_are_refused(void) {
    YAML_FAILS("a: 1\nb: &x 2\n", "t.yaml:2:4: anchors");
    YAML_FAILS("a: &x [1]\n", "anchors");
    YAML_FAILS("a: &x {b: 1}\n", "anchors");
    YAML_FAILS("a: *x\n", "t.yaml:1:4: aliases");
    YAML_FAILS("a: !!str 1\n", "tags");
    YAML_FAILS("a: !x [1]\n", "tags");
    YAML_FAILS("&k a: 1\n", "anchors");
    YAML_FAILS("a: 1\n---\nb: 2\n", "t.yaml:2:1: a second document");
    YAML_FAILS("[1, 2]: x\n", "key");
}

static void repeated_keys_are_refused_in_small_and_large_maps(void) {
    YAML_FAILS("a: 1\nb: 2\na: 3\n", "t.yaml:3: key 'a' is given twice");
    JSON_FAILS("{\"a\":1,\n\"a\":2}", "t.json:2: key 'a' is given twice");
    struct buf b = {0};
    for (int i = 0; i < 500; i++)
        buf_printf(&b, "key%d: %d\n", i, i);
    buf_add_byte(&b, 0);
    CU_ASSERT_EQUAL(yaml(b.p)->n, 500);
    b.n--;
    buf_printf(&b, "key77: 1\n");
    buf_add_byte(&b, 0);
    YAML_FAILS(b.p, "t.yaml:501: key 'key77'");
    buf_deinit(&b);
}

static void depth_is_limited(void) {
    char deep[2100];
    for (int n = 64; n <= 65; n++) {
        memset(deep, '[', (size_t)n);
        memset(deep + n, ']', (size_t)n);
        deep[2 * n] = '\0';
        enum status want = n == 64 ? STATUS_OK : STATUS_INVALID_ARGUMENT;
        CU_ASSERT_EQUAL(yaml_status(deep), want);
        CU_ASSERT_EQUAL(json_status(slice_of(deep)), want);
    }
    memset(deep, '[', sizeof deep - 1); /* beyond cJSON's own limit */
    deep[sizeof deep - 1] = '\0';
    CU_ASSERT_EQUAL(json_status(slice_of(deep)), STATUS_INVALID_ARGUMENT);
    CU_ASSERT_EQUAL(yaml_status(deep), STATUS_INVALID_ARGUMENT);
}

static void a_missing_yaml_file_is_not_found(void) {
    struct node *n = NULL;
    CHECK_FAILS(node_load_yaml(&arena, "/nonexistent/x.yaml", &n), STATUS_NOT_FOUND,
                "/nonexistent/x.yaml");
}

static void a_yaml_file_is_named_in_its_errors(void) {
    char path[] = "/tmp/base_node_XXXXXX";
    close(mkstemp(path));
    struct node *n = NULL;
    CHECK_OK(io_write_file(path, SLICE_LIT("a: 1\n")));
    CHECK_OK(node_load_yaml(&arena, path, &n));
    CU_ASSERT_EQUAL(node_get(n, "a")->number, 1);
    CHECK_OK(io_write_file(path, SLICE_LIT("a: [\n")));
    CHECK_FAILS(node_load_yaml(&arena, path, &n), STATUS_INVALID_ARGUMENT, path);
    unlink(path);
}

static void json_values_have_types_lines_and_all_digits(void) {
    struct node *n = json(" {\"s\": \"a\\\"\\u00e9\\n\",\n"
                          "  \"i\": 9223372036854775807, \"f\": -1.5e-3,\n"
                          "  \"list\": [true, false, null, {}, [], \"x,]\"] } ");
    CU_ASSERT_EQUAL(n->n, 4);
    CU_ASSERT(slice_is(node_get(n, "s")->text, "a\"\xc3\xa9\n"));
    const struct node *i = node_get(n, "i");
    CU_ASSERT(slice_is(i->text, "9223372036854775807"));
    CU_ASSERT_EQUAL(i->line, 2);
    CU_ASSERT_EQUAL(i->column, 8);
    CU_ASSERT_DOUBLE_EQUAL(node_get(n, "f")->number, -0.0015, 1e-12);
    CU_ASSERT(slice_is(node_get(n, "f")->text, "-1.5e-3"));
    static const enum node_type types[] = {NODE_BOOL, NODE_BOOL, NODE_NULL,
                                           NODE_MAP,  NODE_LIST, NODE_STRING};
    const struct node *c = node_get(n, "list")->first;
    for (int k = 0; k < 6 && c; k++, c = c->next) {
        CU_ASSERT_EQUAL(c->type, types[k]);
        CU_ASSERT_EQUAL(c->line, 3);
    }
    CU_ASSERT_PTR_NULL(c);
    CU_ASSERT(node_get(n, "list")->first->boolean);
}

static void top_level_scalars_are_json(void) {
    CU_ASSERT_EQUAL(json("12")->number, 12);
    CU_ASSERT(slice_is(json("\"x\"")->text, "x"));
    CU_ASSERT_EQUAL(json(" null\n")->type, NODE_NULL);
    CU_ASSERT_EQUAL(json("\xEF\xBB\xBF[1]")->n, 1);
}

static void what_is_not_json_is_refused_with_its_place(void) {
    JSON_FAILS("", "not JSON");
    JSON_FAILS("   ", "not JSON");
    JSON_FAILS("{\"a\":1", "byte");
    JSON_FAILS("{\"a\":1}}", "byte 7: more text");
    JSON_FAILS("[1,]", "not JSON");
    JSON_FAILS("[1 2]", "not JSON");
    JSON_FAILS("{a:1}", "not JSON");
    JSON_FAILS("\"open", "not JSON");
    JSON_FAILS("\"half\\", "not JSON");
    JSON_FAILS("\"\\ud800\"", "not JSON");
    JSON_FAILS("[0x10]", "not JSON");
    JSON_FAILS("nul", "not JSON");
    JSON_FAILS("[1e999]", "byte 1: number too large");
    JSON_FAILS("1 2", "more text");
    JSON_FAILS("[\"a\\u0000b\"]", "u0000");
    JSON_FAILS("[\"a\0b\"]", "byte 3");
    CU_ASSERT_EQUAL(json_status((struct slice){NULL, 0}), STATUS_INVALID_ARGUMENT);
}

/* Every cut of a valid text is refused, without reading past its end (a sanitizer watches). */
static void every_prefix_of_json_is_refused(void) {
    static const char whole[] = "{\"a\": [1, -2.5e3, \"x\\u00e9\\\"\"], \"b\": {\"c\": null}}";
    for (size_t n = 0; n < sizeof whole - 1; n++) {
        char *cut = heap_alloc(n);
        memcpy(cut, whole, n);
        CU_ASSERT_EQUAL(json_status((struct slice){cut, n}), STATUS_INVALID_ARGUMENT);
        heap_free(cut);
    }
    json(whole);
}

static void a_warm_json_parse_makes_no_allocation(void) {
    static const char text[] = "{\"user\": \"u1\", \"items\": [1, 2, 3], \"at\": 1700000000000000}";
    struct arena a;
    arena_init(&a, 0);
    unsigned long long before = 0;
    for (int i = 0; i < 10; i++) {
        struct node *n = NULL;
        arena_reset(&a);
        CHECK_OK(node_parse_json(&a, SLICE_LIT(text), "t", &n));
        if (i == 0)
            before = heap_count();
    }
    CU_ASSERT_EQUAL(heap_count(), before);
    arena_deinit(&a);
}

static void *parses(void *unused) {
    long bad = 0;
    struct arena a;
    arena_init(&a, 0);
    for (int i = 0; i < 2000; i++) {
        struct node *n = NULL;
        arena_reset(&a);
        char text[64];
        int length = snprintf(text, sizeof text, "{\"i\": %d, \"s\": \"x%d\"}", i, i);
        bad += node_parse_json(&a, (struct slice){text, (size_t)length}, "t", &n) != STATUS_OK ||
               node_get(n, "i")->number != i;
    }
    arena_deinit(&a);
    (void)unused;
    return (void *)bad;
}

static void threads_parse_json_side_by_side(void) {
    pthread_t t[3];
    for (int i = 0; i < 3; i++)
        pthread_create(&t[i], NULL, parses, NULL);
    for (int i = 0; i < 3; i++) {
        void *bad;
        pthread_join(t[i], &bad);
        CU_ASSERT_PTR_NULL(bad);
    }
}

static void first(void) { arena_init(&arena, 0); }
static void last(void) { arena_deinit(&arena); }

SUITE("base_node", TEST(first), TEST(yaml_scalars_have_the_types_they_look_like),
      TEST(yaml_trees_keep_order_lines_and_counts), TEST(empty_yaml_is_null),
      TEST(yaml_errors_carry_name_and_line),
      TEST(yaml_anchors_aliases_tags_and_second_documents_are_refused),
      TEST(repeated_keys_are_refused_in_small_and_large_maps), TEST(depth_is_limited),
      TEST(a_missing_yaml_file_is_not_found), TEST(a_yaml_file_is_named_in_its_errors),
      TEST(json_values_have_types_lines_and_all_digits), TEST(top_level_scalars_are_json),
      TEST(what_is_not_json_is_refused_with_its_place), TEST(every_prefix_of_json_is_refused),
      TEST(a_warm_json_parse_makes_no_allocation), TEST(threads_parse_json_side_by_side),
      TEST(last))
