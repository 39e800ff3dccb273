/* base_buf.c: bytes out, bytes in, and a cursor that hostile bytes cannot lead astray. */
#include <stdint.h>
#include "base/buf.h"
#include "base/rng.h"
#include "tests/support/suite.h"

static void a_zeroed_buffer_grows_as_bytes_are_added(void) {
    struct buf b = {0};
    for (int i = 0; i < 1000; i++)
        buf_add_str(&b, "0123456789");
    CU_ASSERT_EQUAL(b.n, 10000);
    CU_ASSERT_EQUAL(memcmp(b.p + 9990, "0123456789", 10), 0);
    buf_clear(&b);
    CU_ASSERT_EQUAL(buf_slice(&b).n, 0);
    buf_add(&b, NULL, 0);
    buf_deinit(&b);
    CU_ASSERT_PTR_NULL(b.p);
}

static void printf_longer_than_the_room_is_written_whole(void) {
    struct buf b = {0};
    buf_printf(&b, "%0300d|", 7);
    buf_printf(&b, "%s", "tail");
    CU_ASSERT_EQUAL(b.n, 305);
    CU_ASSERT_EQUAL(memcmp(b.p + 299, "7|tail", 6), 0);
    buf_deinit(&b);
}

static void integers_read_back_as_written(void) {
    static const uint64_t values[] = {
        0,          1,          127,        128, 300,        16383,      16384,
        UINT32_MAX, 1ull << 62, UINT64_MAX, 42,  1ull << 63, 1ull << 35, (1ull << 35) - 1};
    struct buf b = {0};
    int n = sizeof values / sizeof *values;
    for (int i = 0; i < n; i++) {
        buf_add_varint(&b, values[i]);
        buf_add_u32(&b, (uint32_t)values[i]);
        buf_add_u64(&b, values[i]);
        buf_add_byte(&b, (uint8_t)values[i]);
    }
    struct cursor c = cursor_of(b.p, b.n);
    for (int i = 0; i < n; i++) {
        CU_ASSERT_EQUAL(cursor_varint(&c), values[i]);
        CU_ASSERT_EQUAL(cursor_u32(&c), (uint32_t)values[i]);
        CU_ASSERT_EQUAL(cursor_u64(&c), values[i]);
        CU_ASSERT_EQUAL(cursor_u8(&c), (uint8_t)values[i]);
    }
    CU_ASSERT(!c.bad && c.p == c.end);
    buf_deinit(&b);
}

static void fixed_integers_are_little_endian(void) {
    struct buf b = {0};
    buf_add_u32(&b, 0x01020304);
    CU_ASSERT_EQUAL(memcmp(b.p, "\x04\x03\x02\x01", 4), 0);
    buf_deinit(&b);
}

static void zigzag_keeps_small_numbers_small_and_is_undone(void) {
    static const int64_t values[] = {0, -1, 1, -2, 63, -64, INT64_MAX, INT64_MIN};
    CU_ASSERT_EQUAL(zigzag(-1), 1);
    CU_ASSERT_EQUAL(zigzag(1), 2);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        CU_ASSERT_EQUAL(unzigzag(zigzag(values[i])), values[i]);
}

static void reading_past_the_end_sets_bad_and_stays_put(void) {
    struct cursor c = cursor_of("\x01\x02\x03", 3);
    CU_ASSERT_EQUAL(cursor_u32(&c), 0);
    CU_ASSERT(c.bad);
    CU_ASSERT_EQUAL(c.end - c.p, 3);
    CU_ASSERT_EQUAL(cursor_u8(&c), 0); /* once bad, always bad */
    CU_ASSERT_EQUAL(c.end - c.p, 3);
    c = cursor_of("abc", 3);
    CU_ASSERT_EQUAL(cursor_bytes(&c, SIZE_MAX).n, 0);
    CU_ASSERT(c.bad);
    c = cursor_of("abc", 3);
    CU_ASSERT(slice_is(cursor_bytes(&c, 3), "abc") && !c.bad);
}

static void unfinished_and_overlong_varints_are_bad(void) {
    struct cursor c = cursor_of("\x80\x80", 2);
    CU_ASSERT_EQUAL(cursor_varint(&c), 0);
    CU_ASSERT(c.bad && c.end - c.p == 2);
    c = cursor_of("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10); /* 65 bits */
    cursor_varint(&c);
    CU_ASSERT(c.bad);
    c = cursor_of("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 11);
    cursor_varint(&c);
    CU_ASSERT(c.bad);
    c = cursor_of("", 0);
    cursor_varint(&c);
    CU_ASSERT(c.bad);
}

static void random_varints_survive_a_round_trip(void) {
    struct rng r;
    struct buf b = {0};
    rng_init(&r, 5);
    for (int i = 0; i < 10000; i++) {
        uint64_t v = rng_u64(&r) >> rng_below(&r, 64);
        buf_clear(&b);
        buf_add_varint(&b, v);
        struct cursor c = cursor_of(b.p, b.n);
        if (cursor_varint(&c) != v || c.bad || c.p != c.end)
            CU_FAIL("a varint came back changed");
        c = cursor_of(b.p, b.n - 1);
        cursor_varint(&c);
        if (!c.bad)
            CU_FAIL("a cut varint was accepted");
    }
    buf_deinit(&b);
}

SUITE("base_buf", TEST(a_zeroed_buffer_grows_as_bytes_are_added),
      TEST(printf_longer_than_the_room_is_written_whole), TEST(integers_read_back_as_written),
      TEST(fixed_integers_are_little_endian), TEST(zigzag_keeps_small_numbers_small_and_is_undone),
      TEST(reading_past_the_end_sets_bad_and_stays_put),
      TEST(unfinished_and_overlong_varints_are_bad), TEST(random_varints_survive_a_round_trip))
