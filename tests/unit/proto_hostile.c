/* Bytes that mean harm: cut short, flipped, nested deep, claiming to be huge, or built to take far
 * more memory than they have bytes. Most of it shows under the address sanitizer only. */
#include "tests/fuzz/proto_targets.h"

static struct arena arena, *const a = &arena;
static struct buf out, in;

static void begin(void) {
    if (!a->chunk_bytes)
        arena_init(a, 0);
    arena_reset(a);
    buf_clear(&out);
    buf_clear(&in);
}

static void each_sample(void (*run)(const char *p, size_t n)) {
    struct buf sample = {0};
    for (int i = 0; i < N_OF(sample_events); i++) {
        buf_clear(&sample);
        ev_encode_proto(&sample_events[i], &sample);
        run(sample.p, sample.n);
        buf_clear(&sample);
        ev_encode_json(&sample_events[i], &sample);
        run(sample.p, sample.n);
        buf_clear(&sample);
        rpc_encode_feedback_request(sample_events, i + 1, S("{\"event\":\"item\"}\n{}\n"), &sample);
        run(sample.p, sample.n);
    }
    buf_deinit(&sample);
}

static void cut(const char *p, size_t n) {
    for (size_t k = 0; k <= n; k++)
        target_all(a, &out, p, k);
}

static void flip(const char *p, size_t n) {
    char *copy = malloc(n);
    memcpy(copy, p, n);
    for (size_t bit = 0; bit < 8 * n; bit++) {
        copy[bit / 8] ^= (char)(1 << bit % 8);
        target_all(a, &out, copy, n);
        copy[bit / 8] ^= (char)(1 << bit % 8);
    }
    free(copy);
}

static void test_cut_short(void) {
    begin();
    each_sample(cut);
    CU_PASS("no crash, and what decodes encodes again");
}

static void test_flipped_bits(void) {
    begin();
    each_sample(flip);
    CU_PASS("no crash, and what decodes encodes again");
}

/* JSON cut short is never taken for an event. */
static void test_cut_json_is_refused(void) {
    for (int i = 0; i < N_OF(sample_events); i++) {
        begin();
        ev_encode_json(&sample_events[i], &in);
        for (size_t k = 0; k < in.n; k++) {
            struct ev_event e;
            arena_reset(a);
            CHECK_FAILS(ev_decode_json(a, (struct slice){in.p, k}, &e), STATUS_DATA_LOSS, NULL);
        }
    }
}

static void test_huge_lengths(void) {
    static const char *const cases[] = {
        "0affffffff0f",           "0affffffffffffffff7f", "2affffffff07",     "6affffffff0f0a00",
        "62ffffffffffffffffff01", "2a8080808010",         "3a80808080800161",
    };
    struct ev_event e;
    struct rpc_rank_request r;
    for (int i = 0; i < N_OF(cases); i++) {
        begin();
        CHECK_FAILS(ev_decode_proto(a, unhex(a, cases[i]), &e), STATUS_DATA_LOSS, "at byte 0");
        CHECK_FAILS(rpc_decode_rank_request(a, unhex(a, cases[i]), &r), STATUS_DATA_LOSS,
                    "at byte");
        CU_ASSERT_TRUE(arena_reserved(a) < 1 << 20);
    }
}

static void test_deep_json(void) {
    struct ev_event e;
    begin();
    buf_add_str(&in, "{\"event\":\"user\",\"id\":\"x\",\"user\":\"u\",\"timestamp\":1,\"deep\":");
    size_t head = in.n;
    for (int depth = 10; depth <= 100000; depth *= 10) {
        in.n = head;
        for (int i = 0; i < depth; i++)
            buf_add_byte(&in, '[');
        for (int i = 0; i < depth; i++)
            buf_add_byte(&in, ']');
        buf_add_byte(&in, '}');
        arena_reset(a);
        if (depth == 10)
            CHECK_OK(ev_decode_json(a, buf_slice(&in), &e));
        else
            CHECK_FAILS(ev_decode_json(a, buf_slice(&in), &e), STATUS_DATA_LOSS, NULL);
    }
}

/* Groups nest without end in proto2's wire format; they are not read at all. */
static void test_deep_groups(void) {
    struct ev_event e;
    begin();
    for (int i = 0; i < 100000; i++)
        buf_add_byte(&in, 0x7b);
    CHECK_FAILS(ev_decode_proto(a, buf_slice(&in), &e), STATUS_DATA_LOSS,
                "unknown wire type at byte 0");
}

/* Empty parts take 2 bytes each: refused before they are unpacked. */
static void test_many_empty_parts(void) {
    static const struct {
        const char *part;
        enum { EVENT, REQUEST, RESPONSE } what;
    } cases[] = {
        {"2a00", EVENT},    /* fields */
        {"2a00", REQUEST},  /* items */
        {"3200", REQUEST},  /* columns */
        {"2a00", RESPONSE}, /* tasks */
        {"4200", RESPONSE}, /* explanations */
        {"8a0100", EVENT},  /* unknown */
    };
    enum { PARTS = 300000 };
    for (int i = 0; i < N_OF(cases); i++) {
        begin();
        struct slice part = unhex(a, cases[i].part);
        for (int k = 0; k < PARTS; k++)
            buf_add(&in, part.p, part.n);
        struct ev_event e;
        struct rpc_rank_request r;
        struct rpc_rank_response s;
        struct slice bytes = buf_slice(&in);
        enum status got = cases[i].what == EVENT     ? ev_decode_proto(a, bytes, &e)
                          : cases[i].what == REQUEST ? rpc_decode_rank_request(a, bytes, &r)
                                                     : rpc_decode_rank_response(a, bytes, &s);
        CHECK_FAILS(got, STATUS_INVALID_ARGUMENT, "parts");
        CU_ASSERT_TRUE(arena_used(a) < 4096);
    }
}

/* The largest messages that are meant to pass do. */
static void test_large_and_honest(void) {
    static struct slice items[RPC_ITEMS_MAX];
    static float values[RPC_ITEMS_MAX];
    static char ids[RPC_ITEMS_MAX][8];
    for (int i = 0; i < RPC_ITEMS_MAX; i++)
        items[i] = (struct slice){ids[i], (size_t)snprintf(ids[i], 8, "i%d", i)};
    struct rpc_column columns[3] = {{S("a"), values}, {S("b"), values}, {S("c"), values}};
    struct rpc_rank_request r = {.items = items, .n_items = RPC_ITEMS_MAX}, got;
    r.columns = columns, r.n_columns = 3;
    begin();
    rpc_encode_rank_request(&r, &in);
    CHECK_OK(rpc_decode_rank_request(a, buf_slice(&in), &got));
    CU_ASSERT_TRUE(slice_is(got.items[RPC_ITEMS_MAX - 1], "i19999"));

    static struct ev_shown shown[EV_SHOWN_MAX];
    struct ev_field fields[4];
    for (int i = 0; i < 4; i++)
        fields[i] = (struct ev_field){S("score"), {.type = EV_NUMBER, .number = i}};
    for (int i = 0; i < EV_SHOWN_MAX; i++)
        shown[i] = (struct ev_shown){items[i], 0.5f, fields, 4};
    struct ev_event e = sample_events[2], back;
    e.shown = shown, e.n_shown = EV_SHOWN_MAX;
    begin();
    ev_encode_proto(&e, &in);
    CU_ASSERT_TRUE(in.n > 256 * 1024);
    CHECK_OK(ev_decode_proto(a, buf_slice(&in), &back));
    CU_ASSERT_TRUE(same_event(&e, &back));
    buf_clear(&in);
    ev_encode_json(&e, &in);
    CHECK_OK(ev_decode_json(a, buf_slice(&in), &back));
    CU_ASSERT_TRUE(same_event(&e, &back));
}

SUITE("proto_hostile", TEST(test_cut_short), TEST(test_flipped_bits),
      TEST(test_cut_json_is_refused), TEST(test_huge_lengths), TEST(test_deep_json),
      TEST(test_deep_groups), TEST(test_many_empty_parts), TEST(test_large_and_honest))
