/* The two readers of JSON lines: what the quick one does not decline, the tree reads as the same
 * event. And that it does not decline what lines usually are. */
#include "base/rng.h"
#include "proto/wire.h"
#include "tests/unit/proto_samples.h"

static struct arena arena, *const a = &arena;

static const char *const plain[] = {
    "{\"event\":\"item\",\"id\":\"m1\",\"item\":\"i1\",\"timestamp\":\"1792454400000\",\"fields\":["
    "{\"name\":\"price\",\"value\":18.37},{\"name\":\"n\",\"value\":-1.5e-3},"
    "{\"value\":[\"a\",\"b\"],\"name\":\"tags\"},{\"name\":\"v\",\"value\":[0.1,2,-3E+2]},"
    "{\"name\":\"none\",\"value\":[]},{\"name\":\"new\",\"value\":true},"
    "{\"name\":\"title\",\"value\":\"Zw\xC3\xB6lf\"}]}",
    " { \"event\" : \"user\" , \"id\" : \"u\" , \"user\" : \"u1\" ,\t\"timestamp\" : 1792454400000 "
    ", \"fields\" : [ ] , \"tenant\" : null } ",
    "{\"event\":\"ranking\",\"id\":\"r1\",\"timestamp\":\"2026-10-20T00:00:00Z\",\"user\":\"u1\","
    "\"session\":\"s1\",\"fields\":[{\"name\":\"device\",\"value\":\"mobile\"}],\"items\":["
    "{\"id\":\"i1\",\"fields\":[{\"name\":\"relevancy\",\"value\":0.25}],\"label\":1},"
    "{\"id\":\"i2\",\"propensity\":0.125},{\"item\":\"i3\"}]}",
    "{\"event\":\"interaction\",\"id\":\"k\",\"event_time_us\":1792454400000001,\"user\":\"u\","
    "\"item\":\"i1\",\"type\":\"click\",\"ranking\":\"r1\",\"arrival_time_us\":5,\"extra\":7}",
};

/* Read by the tree, whatever it says of them. */
static const char *const odd[] = {
    "{\"event\":\"user\",\"id\":\"\\u0041\",\"user\":\"u1\",\"timestamp\":1}",
    "{\"id\":\"x\",\"eventTimeUs\":\"5\",\"user\":{\"user\":\"u1\"}}",
    "{\"event\":\"user\",\"id\":\"x\",\"user\":\"u1\",\"timestamp\":1.5}",
    "{\"event\":\"user\",\"id\":\"x\",\"user\":\"u1\",\"timestamp\":1,\"a\":1,\"b\":2}",
    "{\"event\":\"user\",\"id\":\"x\",\"user\":\"u1\",\"timestamp\":1,\"timestamp\":1}",
    "{\"event\":\"user\",\"id\":\"x\",\"user\":\"u1\",\"timestamp\":1,\"a\":{\"b\":[1]}}",
    ("{\"event\":\"user\",\"id\":\"x\",\"user\":\"u1\",\"timestamp\":1,\"fields\":["
     "{\"name\":\"v\",\"numbers\":[]}]}"),
    "{\"event\":\"user\",\"id\":\"x\",\"user\":\"\xFF\",\"timestamp\":1}",
    "{\"event\":\"user\",\"id\":\"x\",\"user\":\"u1\",\"timestamp\":1}x",
    "{\"event\":\"user\",\"id\":\"x\",\"user\":\"u1\",\"timestamp\":01}",
    "{\"event\":\"user\",\"id\":\"x\",\"user\":\"u1\",\"timestamp\":1,}",
    "{}",
    "",
    "[",
};

static bool quick(struct slice s, struct ev_event *out) {
    if (!a->chunk_bytes)
        arena_init(a, 0);
    arena_reset(a);
    return ev_json_quick(a, s, out);
}

static void test_plain_lines(void) {
    for (int i = 0; i < N_OF(plain); i++) {
        struct ev_event e, by_tree;
        struct slice line = slice_of(plain[i]);
        CU_ASSERT_TRUE(quick(line, &e));
        if (CHECK_OK(ev_json_by_tree(a, line, &by_tree)))
            CU_ASSERT_TRUE(same_event(&e, &by_tree));
        CHECK_OK(ev_decode_json(a, line, &e));
    }
}

static void test_odd_lines(void) {
    struct ev_event e;
    for (int i = 0; i < N_OF(odd); i++)
        CU_ASSERT_FALSE(quick(slice_of(odd[i]), &e));
    CHECK_OK(ev_decode_json(a, slice_of(odd[1]), &e));
    CU_ASSERT_EQUAL(e.event_time_us, 5);
}

/* Digits as strtod reads them, to the last bit. */
static void test_numbers(void) {
    struct rng r;
    int declined = 0;
    rng_init(&r, 7);
    for (int i = 0; i < 20000; i++) {
        char line[200], number[64];
        double v = (double)(int64_t)rng_below(&r, 2000001) - 1e6;
        static const double by[] = {1, 1e-2, 1e-7, 1e-30, 1e30, 1.0 / 3};
        snprintf(number, sizeof number, "%.*g", 1 + (int)rng_below(&r, 19),
                 v * by[rng_below(&r, 6)]);
        snprintf(line, sizeof line,
                 "{\"event\":\"user\",\"id\":\"x\",\"user\":\"u\",\"timestamp\":1,"
                 "\"fields\":[{\"name\":\"v\",\"value\":%s}]}",
                 number);
        struct ev_event e;
        if (quick(slice_of(line), &e))
            CU_ASSERT_EQUAL(e.fields[0].value.number, strtod(number, NULL))
        else
            declined++;
    }
    CU_ASSERT_EQUAL(declined, 0);
}

static size_t damage(struct rng *r, char *p, size_t n) {
    static const char telling[] = "{}[]\",:\\0-.eE1nt \x80\x01";
    size_t at = (size_t)rng_below(r, n), k = 1 + (size_t)rng_below(r, 4);
    switch (rng_below(r, 4)) {
    case 0:
        p[at] = telling[rng_below(r, sizeof telling - 1)];
        return n;
    case 1: /* take some out */
        k = k < n - at ? k : n - at;
        memmove(p + at, p + at + k, n - at - k);
        return n - k;
    case 2: /* some twice */
        k = k < n - at ? k : n - at;
        memmove(p + at + k, p + at, n - at);
        return n + k;
    default:
        return at;
    }
}

static void test_damaged_lines(void) {
    struct rng r;
    int accepted = 0;
    rng_init(&r, 1);
    for (int i = 0; i < 200000; i++) {
        char line[1024];
        const char *from = plain[i % N_OF(plain)];
        size_t n = strlen(from);
        memcpy(line, from, n);
        for (uint64_t k = 1 + rng_below(&r, 3); k > 0 && n > 0; k--)
            n = damage(&r, line, n);
        struct ev_event e, by_tree;
        char *exact = malloc(n ? n : 1); /* so that a sanitizer sees a read beyond it */
        memcpy(exact, line, n);
        struct slice s = {exact, n};
        if (quick(s, &e)) {
            accepted++;
            if (CHECK_OK(ev_json_by_tree(a, s, &by_tree)))
                CU_ASSERT_TRUE(same_event(&e, &by_tree));
        }
        free(exact);
    }
    CU_ASSERT_TRUE(accepted > 1000);
}

static void test_moments(void) {
    static const struct {
        const char *text;
        int64_t us;
    } cases[] = {{"1599391467000", 1599391467000000},
                 {"\"1599391467000\"", 1599391467000000},
                 {"\"2020-09-06T11:24:27Z\"", 1599391467000000},
                 {"\"2020-09-06T13:24:27.5+02:00\"", 1599391467500000},
                 {"1599391467000.25", 1599391467000250}};
    for (int i = 0; i < N_OF(cases); i++) {
        char line[200];
        struct ev_event e;
        snprintf(line, sizeof line,
                 "{\"event\":\"user\",\"id\":\"x\",\"user\":\"u\",\"timestamp\":%s}",
                 cases[i].text);
        arena_reset(a);
        if (CHECK_OK(ev_decode_json(a, slice_of(line), &e)))
            CU_ASSERT_EQUAL(e.event_time_us, cases[i].us);
    }
}

SUITE("proto_json", TEST(test_plain_lines), TEST(test_odd_lines), TEST(test_numbers),
      TEST(test_damaged_lines), TEST(test_moments))
