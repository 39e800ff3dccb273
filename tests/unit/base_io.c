/* base_io.c: whole files, atomic writes, and lines out of plain, gz, zst and xz files, whole, cut
 * short and damaged. */
#include <dirent.h>
#include <lzma.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>
#include "base/heap.h"
#include "base/io.h"
#include "base/rng.h"
#include "tests/support/suite.h"

static char folder[] = "/tmp/base_io_XXXXXX";
static char path[64];

static void first(void) {
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/file", folder);
}
static void last(void) {
    unlink(path);
    CU_ASSERT_EQUAL(rmdir(folder), 0); /* nothing was left behind */
}

static void put(struct slice bytes) { CHECK_OK(io_write_file(path, bytes)); }

static int files_in_folder(void) {
    int n = 0;
    DIR *d = opendir(folder);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void a_file_reads_back_as_written(void) {
    struct buf b = {0};
    put(SLICE_LIT("a\0b\n"));
    CHECK_OK(io_read_file(path, 100, &b));
    CU_ASSERT(slice_equal(buf_slice(&b), SLICE_LIT("a\0b\n")));
    put(SLICE_LIT(""));
    CHECK_OK(io_read_file(path, 0, &b));
    CU_ASSERT_EQUAL(b.n, 0);
    CU_ASSERT(io_exists(path) && !io_exists("/nonexistent"));
    CU_ASSERT_EQUAL(files_in_folder(), 1);
    buf_deinit(&b);
}

static void reading_says_what_is_wrong_and_leaves_the_output_alone(void) {
    struct buf b = {0};
    buf_add_str(&b, "old");
    put(SLICE_LIT("123456"));
    CHECK_OK(io_read_file(path, 6, &b));
    CHECK_FAILS(io_read_file(path, 5, &b), STATUS_RESOURCE_EXHAUSTED, "more than 5 bytes");
    CHECK_FAILS(io_read_file("/nonexistent/x", 5, &b), STATUS_NOT_FOUND, "/nonexistent/x");
    CHECK_FAILS(io_read_file(folder, 5, &b), STATUS_FAILED_PRECONDITION, folder);
    CU_ASSERT(slice_is(buf_slice(&b), "123456"));
    buf_deinit(&b);
}

static void a_failed_write_leaves_the_old_file(void) {
    struct buf b = {0};
    put(SLICE_LIT("old"));
    struct rlimit kept, small = {1000, 1000};
    getrlimit(RLIMIT_FSIZE, &kept);
    small.rlim_max = kept.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    char *big = heap_alloc(5000);
    enum status s = io_write_file(path, (struct slice){big, 5000});
    setrlimit(RLIMIT_FSIZE, &kept);
    CHECK_FAILS(s, STATUS_RESOURCE_EXHAUSTED, "cannot write");
    CHECK_OK(io_read_file(path, 100, &b));
    CU_ASSERT(slice_is(buf_slice(&b), "old"));
    CU_ASSERT_EQUAL(files_in_folder(), 1);
    CHECK_FAILS(io_write_file("/nonexistent/x", SLICE_LIT("x")), STATUS_NOT_FOUND, "/nonexistent");
    heap_free(big);
    buf_deinit(&b);
}

/* A reader that opens before the replacement sees the old file to its end: a new inode. */
static void a_write_replaces_the_name_not_the_bytes(void) {
    struct stat before, after;
    put(SLICE_LIT("old"));
    FILE *open_before = fopen(path, "r");
    fstat(fileno(open_before), &before);
    put(SLICE_LIT("new, and longer"));
    stat(path, &after);
    char text[32] = "";
    CU_ASSERT_EQUAL(fread(text, 1, sizeof text, open_before), 3);
    CU_ASSERT_STRING_EQUAL(text, "old");
    CU_ASSERT_NOT_EQUAL(before.st_ino, after.st_ino);
    fclose(open_before);
}

static void folders_are_made_with_their_parents(void) {
    char deep[128];
    snprintf(deep, sizeof deep, "%s/a//b/c/", folder);
    CHECK_OK(io_make_dirs(deep));
    CHECK_OK(io_make_dirs(deep));
    CHECK_OK(io_make_dirs("/"));
    CU_ASSERT(io_exists(deep));
    put(SLICE_LIT("x"));
    snprintf(deep, sizeof deep, "%s/x", path);
    CHECK_FAILS(io_make_dirs(deep), STATUS_FAILED_PRECONDITION, path);
    snprintf(deep, sizeof deep, "rm -r %s/a", folder);
    CU_ASSERT_EQUAL(system(deep), 0);
}

/* ---- lines */

static struct io_lines *open_lines(size_t most) {
    struct io_lines *l = NULL;
    CHECK_OK(io_lines_open(path, most, &l));
    return l;
}

static void plain_lines_come_with_numbers_and_without_ends(void) {
    put(SLICE_LIT("one\r\n\ntwo\0!\nlast without end"));
    struct io_lines *l = open_lines(0);
    struct slice s;
    CHECK_OK(io_lines_next(l, &s));
    CU_ASSERT(slice_is(s, "one") && io_lines_number(l) == 1);
    CHECK_OK(io_lines_next(l, &s));
    CU_ASSERT(s.n == 0);
    CHECK_OK(io_lines_next(l, &s));
    CU_ASSERT(slice_equal(s, SLICE_LIT("two\0!")));
    CHECK_OK(io_lines_next(l, &s));
    CU_ASSERT(slice_is(s, "last without end") && io_lines_number(l) == 4);
    CU_ASSERT_EQUAL(io_lines_progress(l), 1);
    CHECK_FAILS(io_lines_next(l, &s), STATUS_OUT_OF_RANGE, path);
    CHECK_FAILS(io_lines_next(l, &s), STATUS_OUT_OF_RANGE, path);
    CU_ASSERT_EQUAL(io_lines_number(l), 4);
    io_lines_close(l);
    io_lines_close(NULL);
}

static void an_empty_file_has_no_lines(void) {
    put(SLICE_LIT(""));
    struct io_lines *l = open_lines(0);
    struct slice s;
    CHECK_FAILS(io_lines_next(l, &s), STATUS_OUT_OF_RANGE, "no more lines");
    CU_ASSERT_EQUAL(io_lines_progress(l), 1);
    io_lines_close(l);
    CHECK_FAILS(io_lines_open("/nonexistent/x", 0, &l), STATUS_NOT_FOUND, "/nonexistent/x");
}

/* Lengths around the limit and far beyond all buffers; reading goes on after each. */
static void long_lines_are_refused_one_by_one(void) {
    static const size_t lengths[] = {10, 11, 3, 1000000, 0, 12, 10, 700000};
    struct buf b = {0};
    for (int i = 0; i < 8; i++) {
        for (size_t k = 0; k < lengths[i]; k++)
            buf_add_byte(&b, 'x');
        buf_add_str(&b, i == 6 ? "\r\n" : i == 7 ? "" : "\n");
    }
    put(buf_slice(&b));
    struct io_lines *l = open_lines(10);
    struct slice s;
    for (int i = 0; i < 8; i++) {
        if (lengths[i] > 10)
            CHECK_FAILS(io_lines_next(l, &s), STATUS_RESOURCE_EXHAUSTED, "longer than 10 bytes");
        else {
            CHECK_OK(io_lines_next(l, &s));
            CU_ASSERT_EQUAL(s.n, lengths[i]);
        }
        CU_ASSERT_EQUAL(io_lines_number(l), i + 1);
    }
    CHECK_FAILS(io_lines_next(l, &s), STATUS_OUT_OF_RANGE, "");
    io_lines_close(l);
    buf_deinit(&b);
}

/* ---- compressed lines */

static struct buf gz(struct slice text) {
    struct buf b = {0};
    z_stream z = {0};
    deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
    buf_reserve(&b, deflateBound(&z, text.n) + 64);
    z.next_in = (unsigned char *)text.p;
    z.avail_in = (unsigned)text.n;
    z.next_out = (unsigned char *)b.p;
    z.avail_out = (unsigned)b.cap;
    CU_ASSERT_EQUAL(deflate(&z, Z_FINISH), Z_STREAM_END);
    b.n = b.cap - z.avail_out;
    deflateEnd(&z);
    return b;
}

static struct buf zst(struct slice text) {
    struct buf b = {0};
    buf_reserve(&b, ZSTD_compressBound(text.n));
    b.n = ZSTD_compress(b.p, b.cap, text.p, text.n, 3);
    return b;
}

static struct buf xz(struct slice text) {
    struct buf b = {0};
    size_t n = 0;
    buf_reserve(&b, lzma_stream_buffer_bound(text.n));
    CU_ASSERT_EQUAL(lzma_easy_buffer_encode(1, LZMA_CHECK_CRC64, NULL, (const uint8_t *)text.p,
                                            text.n, (uint8_t *)b.p, &n, b.cap),
                    LZMA_OK);
    b.n = n;
    return b;
}

static struct buf (*const packers[])(struct slice) = {gz, zst, xz};
enum { PACKERS = 3, LINES = 60000 };

/* Lines that do not shrink to nothing: about 1 MB packed, so all buffers fill many times. */
static void make_lines(struct buf *b, int from, int to) {
    struct rng r;
    rng_init(&r, (uint64_t)from);
    for (int i = from; i < to; i++)
        buf_printf(b, "%d %016llx\n", i, (unsigned long long)rng_u64(&r));
}

/* Reads to the first failure; the lines before it must count up from 0. */
static enum status read_through(int *n) {
    struct io_lines *l = NULL;
    *n = 0;
    TRY(io_lines_open(path, 100, &l));
    double progress = 0;
    for (struct slice s;; ++*n) {
        enum status got = io_lines_next(l, &s);
        double now = io_lines_progress(l);
        if (now < progress || now > 1)
            CU_FAIL("progress went back");
        progress = now;
        if (got != STATUS_OK) {
            if (io_lines_next(l, &s) != got)
                CU_FAIL("the failure did not last");
            io_lines_close(l);
            return got;
        }
        if (atoi(s.p) != *n || io_lines_number(l) != *n + 1)
            CU_FAIL("a line is missing");
    }
}

static void packed_files_read_like_plain_ones_even_when_joined(void) {
    struct buf one = {0}, two = {0};
    make_lines(&one, 0, LINES / 2 + 7);
    make_lines(&two, LINES / 2 + 7, LINES);
    for (int i = 0; i < PACKERS; i++) {
        struct buf a = packers[i](buf_slice(&one)), b = packers[i](buf_slice(&two));
        struct buf nothing = packers[i](SLICE_LIT(""));
        buf_add(&a, nothing.p, nothing.n);
        buf_add(&a, b.p, b.n);
        put(buf_slice(&a));
        int n = 0;
        CU_ASSERT_EQUAL(read_through(&n), STATUS_OUT_OF_RANGE);
        CU_ASSERT_EQUAL(n, LINES);
        buf_deinit(&a);
        buf_deinit(&b);
        buf_deinit(&nothing);
    }
    buf_deinit(&one);
    buf_deinit(&two);
}

static void a_packed_file_cut_short_is_data_loss(void) {
    struct buf text = {0};
    make_lines(&text, 0, 3000);
    for (int i = 0; i < PACKERS; i++) {
        struct buf whole = packers[i](buf_slice(&text));
        size_t cuts[] = {7, 20, whole.n / 2, whole.n - 9, whole.n - 1};
        for (size_t k = 0; k < sizeof cuts / sizeof *cuts; k++) {
            int n = 0;
            put((struct slice){whole.p, cuts[k]});
            CU_ASSERT_EQUAL(read_through(&n), STATUS_DATA_LOSS);
            CU_ASSERT(n < 3000 || cuts[k] > whole.n / 2);
        }
        buf_deinit(&whole);
    }
    buf_deinit(&text);
}

static void lines_before_a_cut_are_given_out(void) {
    struct buf text = {0};
    make_lines(&text, 0, LINES);
    for (int i = 0; i < PACKERS; i++) {
        struct buf whole = packers[i](buf_slice(&text));
        int n = 0;
        put((struct slice){whole.p, whole.n - 3});
        CHECK_FAILS(read_through(&n), STATUS_DATA_LOSS, path);
        CU_ASSERT(n > LINES / 2);
        buf_deinit(&whole);
    }
    buf_deinit(&text);
}

static void damaged_and_trailing_bytes_are_data_loss(void) {
    struct buf text = {0};
    make_lines(&text, 0, 3000);
    for (int i = 0; i < PACKERS; i++) {
        struct buf whole = packers[i](buf_slice(&text));
        int n = 0;
        whole.p[whole.n - 6] ^= 0x40;
        if (packers[i] != zst) { /* these writers add a checksum, zstd's simple call does not */
            put(buf_slice(&whole));
            CU_ASSERT_EQUAL(read_through(&n), STATUS_DATA_LOSS);
        }
        whole.p[whole.n - 6] ^= 0x40;
        buf_add_str(&whole, "garbage after the end");
        put(buf_slice(&whole));
        CU_ASSERT_EQUAL(read_through(&n), STATUS_DATA_LOSS);
        CU_ASSERT(n == 3000 || packers[i] == zst);
        buf_deinit(&whole);
    }
    buf_deinit(&text);
}

static void compression_is_told_by_bytes_not_by_name(void) {
    struct slice magics[] = {SLICE_LIT("\x1f"), SLICE_LIT("\x28\xb5"),
                             SLICE_LIT("\xfd"
                                       "7z")};
    for (int i = 0; i < 3; i++) { /* too short to be packed: plain */
        put(magics[i]);
        struct io_lines *l = open_lines(0);
        struct slice s;
        CHECK_OK(io_lines_next(l, &s));
        CU_ASSERT(slice_equal(s, magics[i]));
        io_lines_close(l);
    }
}

static void a_pipe_gives_its_lines_and_unknown_progress(void) {
    int ends[2], kept = dup(STDIN_FILENO);
    CU_ASSERT_EQUAL_FATAL(pipe(ends), 0);
    CU_ASSERT_EQUAL(write(ends[1], "a\nlonger line\n", 14), 14);
    dup2(ends[0], STDIN_FILENO);
    struct io_lines *l = NULL;
    struct slice s;
    CHECK_OK(io_lines_open("-", 0, &l));
    CHECK_OK(io_lines_next(l, &s)); /* the pipe is still open: nothing waits for more */
    CU_ASSERT(slice_is(s, "a"));
    CHECK_OK(io_lines_next(l, &s));
    CU_ASSERT_EQUAL(write(ends[1], "b", 1), 1);
    close(ends[1]);
    CHECK_OK(io_lines_next(l, &s));
    CU_ASSERT(slice_is(s, "b"));
    CU_ASSERT_EQUAL(io_lines_progress(l), -1);
    CHECK_FAILS(io_lines_next(l, &s), STATUS_OUT_OF_RANGE, "standard input");
    io_lines_close(l);
    dup2(kept, STDIN_FILENO);
    close(kept);
    close(ends[0]);
}

SUITE("base_io", TEST(first), TEST(a_file_reads_back_as_written),
      TEST(reading_says_what_is_wrong_and_leaves_the_output_alone),
      TEST(a_failed_write_leaves_the_old_file), TEST(a_write_replaces_the_name_not_the_bytes),
      TEST(folders_are_made_with_their_parents),
      TEST(plain_lines_come_with_numbers_and_without_ends), TEST(an_empty_file_has_no_lines),
      TEST(long_lines_are_refused_one_by_one),
      TEST(packed_files_read_like_plain_ones_even_when_joined),
      TEST(a_packed_file_cut_short_is_data_loss), TEST(lines_before_a_cut_are_given_out),
      TEST(damaged_and_trailing_bytes_are_data_loss),
      TEST(compression_is_told_by_bytes_not_by_name),
      TEST(a_pipe_gives_its_lines_and_unknown_progress), TEST(last))
