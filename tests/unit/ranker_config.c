/* ranker_config: one file, four places a setting may come from, and what is said of mistakes. */
#include <stdlib.h>
#include "ranker/config.h"
#include "tests/support/suite.h"

static const char example[] = "kafka: {brokers: \"b:1\", batch_time: 20ms}\n"
                              "lateness: 30m\n"
                              "features:\n"
                              "  - {name: year, kind: number, source: item.year}\n"
                              "tasks:\n"
                              "  - {name: like, positive: rating where value >= 4}\n"
                              "model: {layers: []}\n"
                              "score: {combine: product, like: 2}\n";

static enum status parse(const char *yaml, const char *set, struct rk_config **out) {
    return rk_config_parse(slice_of(yaml), "m.yaml", &set, set != NULL, out);
}

static void test_defaults_are_safe(void) {
    struct rk_config *c = NULL;
    CU_ASSERT_FATAL(CHECK_OK(rk_config_load(NULL, NULL, 0, &c)));
    CU_ASSERT_STRING_EQUAL(c->kafka.brokers, "");
    CU_ASSERT_STRING_EQUAL(c->redis.socket, "");
    CU_ASSERT_STRING_EQUAL(c->redis.host, "");
    CU_ASSERT_STRING_EQUAL(c->admin.listen, "");
    CU_ASSERT_STRING_EQUAL(c->log.requests, "");
    CU_ASSERT_EQUAL(strncmp(c->grpc.listen, "127.0.0.1:", 10), 0);
    CU_ASSERT_PTR_NULL(c->plan);
    rk_config_free(c);
}

static void test_reads_tables_trees_and_the_plan(void) {
    struct rk_config *c = NULL;
    CU_ASSERT_FATAL(CHECK_OK(parse(example, NULL, &c)));
    CU_ASSERT_STRING_EQUAL(c->kafka.brokers, "b:1");
    CU_ASSERT_EQUAL(c->kafka.batch_time_us, 20000);
    CU_ASSERT_STRING_EQUAL(c->kafka.topic, "events");
    CU_ASSERT_EQUAL(c->score.combine, 1);
    CU_ASSERT_PTR_NOT_NULL_FATAL(c->plan);
    CU_ASSERT_EQUAL(c->plan->n_features, 1);
    CU_ASSERT_EQUAL(c->plan->lateness_us, INT64_C(30) * 60 * 1000000);
    CU_ASSERT_PTR_NOT_NULL(node_get(c->root, "model"));
    struct moe_inputs inputs;
    rk_inputs_from_plan(c->plan, &c->arena, &inputs);
    CU_ASSERT_EQUAL(inputs.cand_columns, 1);
    CU_ASSERT_STRING_EQUAL(inputs.cand_names[0], "year");
    CU_ASSERT_EQUAL(inputs.query_columns, 0);
    rk_config_free(c);
}

static void test_precedence(void) {
    struct rk_config *c = NULL;
    setenv("MOERANK_KAFKA_TOPIC", "from-env", 1);
    setenv("MOERANK_KAFKA_GROUP", "from-env", 1);
    enum status status = parse("kafka: {topic: from-file}\n", "kafka.group=from-set", &c);
    unsetenv("MOERANK_KAFKA_TOPIC");
    unsetenv("MOERANK_KAFKA_GROUP");
    CU_ASSERT_FATAL(CHECK_OK(status));
    CU_ASSERT_STRING_EQUAL(c->kafka.topic, "from-env");
    CU_ASSERT_STRING_EQUAL(c->kafka.group, "from-set");
    rk_config_free(c);
}

static void test_sets_reach_into_trees(void) {
    struct rk_config *c = NULL;
    CU_ASSERT_FATAL(CHECK_OK(parse(example, "model.expert.hidden=[8, 4]", &c)));
    const struct node *hidden = node_get(node_get(node_get(c->root, "model"), "expert"), "hidden");
    CU_ASSERT_PTR_NOT_NULL_FATAL(hidden);
    CU_ASSERT_EQUAL(hidden->type, NODE_LIST);
    CU_ASSERT_EQUAL(hidden->n, 2);
    CU_ASSERT_PTR_NOT_NULL(node_get(node_get(c->root, "model"), "layers"));
    rk_config_free(c);
    CU_ASSERT_FATAL(CHECK_OK(parse(example, "score.like=0.25", &c)));
    CU_ASSERT_EQUAL(node_get(node_get(c->root, "score"), "like")->number, 0.25);
    CU_ASSERT_EQUAL(c->score.combine, 1);
    rk_config_free(c);
    CU_ASSERT_FATAL(CHECK_OK(parse(example, "lateness=2h", &c)));
    CU_ASSERT_EQUAL(c->plan->lateness_us, INT64_C(7200) * 1000000);
    rk_config_free(c);
    CHECK_FAILS(parse(example, "tasks.like.weight=2", &c), STATUS_INVALID_ARGUMENT,
                "inside a list");
}

static void test_mistakes_name_file_line_key_and_the_nearest(void) {
    static const struct {
        const char *yaml, *set, *says;
    } wrong[] = {
        {"a: 1\n\nkafak: {}\n", NULL, "m.yaml:1: a"},
        {"kafak: {}\n", NULL, "m.yaml:1: kafak: unknown section; did you mean 'kafka'?"},
        {"redis:\n  sokcet: /x\n", NULL,
         "m.yaml:2: redis.sokcet: unknown key; did you mean 'socket'?"},
        {"grpc: {queue_max: 0}\n", NULL, "grpc.queue_max"},
        {"nearline: {list_n: many}\n", NULL, "nearline.list_n"},
        {"cache: {ttl: 5}\n", NULL, "250ms"},
        {"- kafka\n", NULL, "map of sections"},
        {"kafka: {properties: [novalue]}\n", NULL, "name=value"},
        {"score: {combine: max}\n", NULL, "sum|product"},
        {"score: {like: yes}\n", NULL, "m.yaml:1: score.like: a task's weight is a number"},
        {"tasks: [{name: like}]\nscore: {liek: 1}\n", NULL,
         "m.yaml:2: score.liek: no such task; did you mean 'like'?"},
        {"features: [{name: y, kind: numbr}]\n", NULL, "did you mean 'number'?"},
        {"", "kafka.topc=x", "--set: kafka.topc: unknown key; did you mean 'topic'?"},
        {"", "kafak.topic=x", "--set: kafak: unknown section; did you mean 'kafka'?"},
        {"", "kafka.topic", "section.key=value"},
        {"", "topic=x", "section.key=value"},
        {"", "grpc.workers=-1", "--set: grpc.workers"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct rk_config *c = NULL;
        CHECK_FAILS(parse(wrong[i].yaml, wrong[i].set, &c), STATUS_INVALID_ARGUMENT, wrong[i].says);
        CU_ASSERT_PTR_NULL(c);
    }
    struct rk_config *c = NULL;
    CHECK_FAILS(rk_config_load("/nonexistent.yaml", NULL, 0, &c), STATUS_NOT_FOUND,
                "/nonexistent.yaml");
    setenv("MOERANK_GRPC_WORKERS", "lots", 1);
    CHECK_FAILS(parse("", NULL, &c), STATUS_INVALID_ARGUMENT, "MOERANK_GRPC_WORKERS");
    unsetenv("MOERANK_GRPC_WORKERS");
}

static void test_the_page_names_every_setting(void) {
    struct buf page = {0};
    rk_config_write_markdown(&page);
    buf_add_byte(&page, 0);
    static const char *const words[] = {"## kafka", "`brokers`", "## grpc",   "`wait_max`",
                                        "## train", "## tasks",  "`positive`"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (!strstr(page.p, words[i]))
            CU_FAIL(words[i]);
    buf_deinit(&page);
}

SUITE("ranker_config", TEST(test_defaults_are_safe), TEST(test_reads_tables_trees_and_the_plan),
      TEST(test_precedence), TEST(test_sets_reach_into_trees),
      TEST(test_mistakes_name_file_line_key_and_the_nearest),
      TEST(test_the_page_names_every_setting))
