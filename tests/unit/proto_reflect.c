/* Health and reflection, as grpcurl and the stock clients ask. */
#define _GNU_SOURCE /* memmem */
#include "tests/unit/proto_samples.h"

static struct arena arena, *const a = &arena;
static struct buf out;

static void begin(void) {
    if (!a->chunk_bytes)
        arena_init(a, 0);
    arena_reset(a);
    buf_clear(&out);
}

/* The k-th length-delimited value of `field`, empty when there is none. */
static struct slice member(struct slice message, int field, int k) {
    struct cursor c = cursor_of(message.p, message.n);
    while (c.p < c.end && !c.bad) {
        uint64_t tag = cursor_varint(&c);
        uint64_t n = cursor_varint(&c);
        if ((tag & 7) != 2)
            continue;
        struct slice s = cursor_bytes(&c, (size_t)n);
        if ((int)(tag >> 3) == field && k-- == 0)
            return s;
    }
    return (struct slice){0};
}

static struct slice ask(int field, const char *text) {
    begin();
    struct buf request = {0};
    buf_add_byte(&request, 0x0a); /* host */
    buf_add_byte(&request, 1);
    buf_add_byte(&request, 'h');
    buf_add_varint(&request, (uint64_t)field << 3 | 2);
    buf_add_varint(&request, strlen(text));
    buf_add_str(&request, text);
    CHECK_OK(rpc_reflect(a, buf_slice(&request), &out));
    CU_ASSERT_TRUE(slice_is(member(buf_slice(&out), 1, 0), "h"));
    CU_ASSERT_TRUE(slice_equal(member(buf_slice(&out), 2, 0), buf_slice(&request)));
    buf_deinit(&request);
    return buf_slice(&out);
}

static void test_services(void) {
    struct slice list = member(ask(7, "*"), 6, 0);
    static const char *const want[] = {"moerank.v1.Ranking", "grpc.health.v1.Health",
                                       "grpc.reflection.v1alpha.ServerReflection", ""};
    for (int i = 0; i < N_OF(want); i++)
        CU_ASSERT_TRUE(slice_is(member(member(list, 1, i), 1, 0), want[i]));
    CU_ASSERT_NOT_EQUAL(member(ask(7, ""), 6, 0).n, 0); /* the text does not matter */
}

static void finds(int field, const char *text, const char *file) {
    struct slice answer = ask(field, text);
    struct slice descriptor = member(member(answer, 4, 0), 1, 0);
    if (!slice_is(member(descriptor, 1, 0), file)) {
        printf("  %s: not in %s\n", text, file);
        CU_FAIL("not found");
    }
    CU_ASSERT_EQUAL(member(answer, 7, 0).n, 0);
}

static void finds_not(int field, const char *text) {
    struct slice answer = ask(field, text), error = member(answer, 7, 0);
    struct cursor c = cursor_of(error.p, error.n);
    CU_ASSERT_EQUAL(cursor_varint(&c), 1 << 3);
    CU_ASSERT_EQUAL(cursor_varint(&c), STATUS_NOT_FOUND);
    CU_ASSERT_TRUE(memmem(error.p, error.n, text, strlen(text)) != NULL);
    CU_ASSERT_EQUAL(member(answer, 4, 0).n, 0);
}

static void test_symbols(void) {
    finds(4, "moerank.v1.Ranking", "moerank.proto");
    finds(4, "moerank.v1.Ranking.Rank", "moerank.proto");
    finds(4, "moerank.v1.Event", "moerank.proto");
    finds(4, "moerank.v1.RequestLog", "moerank.proto");
    finds(4, "grpc.health.v1.Health", "grpc/health/v1/health.proto");
    finds(4, "grpc.health.v1.HealthCheckResponse.ServingStatus", "grpc/health/v1/health.proto");
    finds(4, "grpc.reflection.v1alpha.ServerReflection",
          "grpc/reflection/v1alpha/reflection.proto");
    static const char *const none[] = {"moerank.v1.Rankin",
                                       "moerank.v1.Rankings",
                                       "moerank.v1.Ranking.",
                                       "moerank.v1.Ranking.Nope",
                                       "moerank.v1",
                                       "moerank.v1.",
                                       "moerank",
                                       "Ranking",
                                       "moerank.v1.Ranking.Rank.Rank",
                                       "moerank.v1.Event.Ranking"};
    for (int i = 0; i < N_OF(none); i++)
        finds_not(4, none[i]);
    finds_not(4, "");
}

static void test_files(void) {
    finds(3, "moerank.proto", "moerank.proto");
    finds(3, "grpc/health/v1/health.proto", "grpc/health/v1/health.proto");
    finds(3, "grpc/reflection/v1alpha/reflection.proto",
          "grpc/reflection/v1alpha/reflection.proto");
    finds_not(3, "moerank");
    finds_not(3, "");
}

/* The descriptors are of the contract as published: strings are strings (type 9), not bytes. */
static void test_descriptor_is_the_contract(void) {
    struct slice file = member(member(ask(3, "moerank.proto"), 4, 0), 1, 0);
    for (int i = 0;; i++) {
        struct slice message = member(file, 4, i);
        CU_ASSERT_NOT_EQUAL_FATAL(message.n, 0);
        if (!slice_is(member(message, 1, 0), "UserEvent"))
            continue;
        struct slice field = member(message, 2, 0);
        CU_ASSERT_TRUE(slice_is(member(field, 1, 0), "user"));
        CU_ASSERT_PTR_NOT_NULL(memmem(field.p, field.n, "\x28\x09", 2));
        return;
    }
}

static void test_other_questions(void) {
    begin();
    CHECK_OK(rpc_reflect(a, S(""), &out));
    CU_ASSERT_NOT_EQUAL(member(buf_slice(&out), 7, 0).n, 0);
    CU_ASSERT_NOT_EQUAL(member(ask(6, "moerank.v1.Event"), 7, 0).n, 0);
    CU_ASSERT_NOT_EQUAL(member(ask(5, ""), 7, 0).n, 0);
    CHECK_FAILS(rpc_reflect(a, S("\x0a\x05"), &out), STATUS_DATA_LOSS, "host");
}

static void test_health(void) {
    struct slice service = {0};
    begin();
    CHECK_OK(rpc_decode_health_request(a, S(""), &service));
    CU_ASSERT_EQUAL(service.n, 0);
    CHECK_OK(rpc_decode_health_request(a,
                                       S("\x0a\x03"
                                         "abc"),
                                       &service));
    CU_ASSERT_TRUE(slice_is(service, "abc"));
    CHECK_FAILS(rpc_decode_health_request(a, S("\x0a"), &service), STATUS_DATA_LOSS, "service");
    CU_ASSERT_TRUE(slice_is(service, "abc"));
    rpc_encode_health_response(true, &out);
    CU_ASSERT_TRUE(slice_is(buf_slice(&out), "\x08\x01"));
    buf_clear(&out);
    rpc_encode_health_response(false, &out);
    CU_ASSERT_TRUE(slice_is(buf_slice(&out), "\x08\x02"));
}

SUITE("proto_reflect", TEST(test_services), TEST(test_symbols), TEST(test_files),
      TEST(test_descriptor_is_the_contract), TEST(test_other_questions), TEST(test_health))
