/* base_io_frames: frames come back equal and one after another; what is cut or damaged is told from
 * what is whole. */
#include <string.h>
#include "base/io_frames.h"
#include "tests/support/suite.h"

static void pack(struct buf *out, const char *text) { io_frame_pack(slice_of(text), out); }

static void test_frames_come_back_in_order(void) {
    struct buf file = {0}, got = {0};
    pack(&file, "one ");
    size_t first = file.n;
    pack(&file, "");
    pack(&file, "three");
    struct slice rest = buf_slice(&file);
    CU_ASSERT_TRUE(io_is_frame(rest));
    CHECK_OK(io_frame_unpack(&rest, &got));
    CU_ASSERT_EQUAL(rest.n, file.n - first);
    CHECK_OK(io_frame_unpack(&rest, &got));
    CHECK_OK(io_frame_unpack(&rest, &got));
    CU_ASSERT_TRUE(slice_is(buf_slice(&got), "one three"));
    CHECK_FAILS(io_frame_unpack(&rest, &got), STATUS_OUT_OF_RANGE, "no more");
    CU_ASSERT_FALSE(io_is_frame(SLICE_LIT("\x28\xb5\x2f")));
    buf_deinit(&file);
    buf_deinit(&got);
}

static void test_what_is_cut_or_damaged(void) {
    struct buf file = {0}, got = {0};
    pack(&file, "the first frame is whole");
    size_t first = file.n;
    pack(&file, "the second one is not, wherever it ends");
    for (size_t n = first + 1; n < file.n; n++) {
        struct slice rest = {(const char *)file.p, n};
        CU_ASSERT_EQUAL(io_frames_whole(rest), first);
        buf_clear(&got);
        CHECK_OK(io_frame_unpack(&rest, &got));
        CHECK_FAILS(io_frame_unpack(&rest, &got), STATUS_DATA_LOSS, "frame");
        CU_ASSERT_TRUE(slice_is(buf_slice(&got), "the first frame is whole"));
    }
    CU_ASSERT_EQUAL(io_frames_whole(buf_slice(&file)), file.n);
    file.p[first - 6] ^= 1; /* in the first one's text or checksum */
    struct slice rest = buf_slice(&file);
    CHECK_FAILS(io_frame_unpack(&rest, &got), STATUS_DATA_LOSS, "frame");
    buf_deinit(&file);
    buf_deinit(&got);
}

SUITE("base_io_frames", TEST(test_frames_come_back_in_order), TEST(test_what_is_cut_or_damaged));
