/* ranker_request_log: what is added comes back equal; a file that a crash cut short is mended when
 * the log is opened again, and says where it is damaged when it is read. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/io.h"
#include "ranker/request_log.h"
#include "tests/support/suite.h"

static char path[64];

static void new_path(void) {
    static int n;
    snprintf(path, sizeof path, "/tmp/ranker_request_log.%d.%d", (int)getpid(), n++);
    unlink(path);
}

static void add(struct rk_request_log *l, int number) {
    struct arena a;
    struct buf scratch = {0};
    arena_init(&a, 0);
    char id[16], user[16];
    snprintf(id, sizeof id, "r%d", number);
    snprintf(user, sizeof user, "u%d", number % 7);
    const struct slice items[] = {SLICE_LIT("a"), SLICE_LIT("b"), SLICE_LIT("c")};
    const uint32_t order[] = {2, 0, 1};
    const float scores[] = {0.75f, 0.5f, (float)number};
    const struct feat_applied applied[] = {{0, number, 1}, {3, 2 * number, 1}};
    const struct rpc_rank_request request = {.request_id = slice_of(id),
                                             .user = slice_of(user),
                                             .items = items,
                                             .n_items = 3,
                                             .now_us = 42};
    const struct rpc_rank_response response = {.model_version = SLICE_LIT("v1"),
                                               .order = order,
                                               .scores = scores,
                                               .n = 3,
                                               .user_epoch = 9};
    const struct feat_ahead ahead[] = {{FEAT_SCOPE_ITEM, 77, 3, 3 * number}};
    const struct rk_seen seen = {
        .user_epoch = 9, .applied = applied, .n_applied = 2, .ahead = ahead, .n_ahead = 1};
    rk_request_log_add(l, &a, &scratch, &request, &response, &seen, 1000 + number);
    buf_deinit(&scratch);
    arena_deinit(&a);
}

/* Messages that are whole, from number `first` on; *end is why it ended. */
static int read_all(int first, enum status *end) {
    struct rk_request_log_reader *r = NULL;
    struct arena a;
    arena_init(&a, 0);
    int n = 0;
    *end = rk_request_log_read_open(path, &r);
    struct rpc_request_log m;
    while (*end == STATUS_OK && (*end = rk_request_log_next(r, &a, &m)) == STATUS_OK) {
        CU_ASSERT_EQUAL(m.served_at_us, 1000 + first + n);
        CU_ASSERT_EQUAL(m.request.now_us, 42);
        CU_ASSERT_EQUAL(m.request.n_items, 3);
        CU_ASSERT_EQUAL_FATAL(m.response.n, 3);
        CU_ASSERT_EQUAL(m.response.order[0], 2);
        CU_ASSERT_EQUAL(m.response.scores[2], (float)(first + n));
        CU_ASSERT(slice_is(m.response.model_version, "v1") && m.clock_us[1] == 1);
        CU_ASSERT(slice_is(m.policy, "top"));
        CU_ASSERT_PTR_NOT_NULL_FATAL(m.propensities);
        for (int i = 0; i < 3; i++)
            CU_ASSERT_EQUAL(m.propensities[i], 1);
        CU_ASSERT_EQUAL_FATAL(m.n_applied, 2);
        CU_ASSERT_EQUAL(m.applied[1].partition, 3);
        CU_ASSERT_EQUAL(m.applied[1].offset, 2 * (first + n));
        CU_ASSERT_EQUAL_FATAL(m.n_ahead, 1);
        CU_ASSERT_EQUAL(m.ahead[0].offset, 3 * (first + n));
        n++;
    }
    rk_request_log_read_close(r);
    arena_deinit(&a);
    return n;
}

static void write_log(int first, int n) {
    struct rk_request_log *l = NULL;
    if (!CHECK_OK(rk_request_log_open(path, &l)))
        return;
    for (int i = first; i < first + n; i++)
        add(l, i);
    rk_request_log_close(l);
}

static void test_comes_back_equal_and_is_appended_to(void) {
    enum status end;
    new_path();
    write_log(0, 100);
    CU_ASSERT_EQUAL(read_all(0, &end), 100);
    CU_ASSERT_EQUAL(end, STATUS_OUT_OF_RANGE);
    write_log(100, 50);
    CU_ASSERT_EQUAL(read_all(0, &end), 150);
    CU_ASSERT_EQUAL(end, STATUS_OUT_OF_RANGE);
    struct stat st;
    CU_ASSERT_EQUAL(stat(path, &st), 0);
    CU_ASSERT_EQUAL(st.st_mode & 0777, 0600); /* it names users */
    unlink(path);
}

static void test_a_cut_file_is_mended(void) {
    enum status end;
    struct stat whole;
    new_path();
    write_log(0, 10);
    CU_ASSERT_EQUAL(stat(path, &whole), 0);
    for (int cut = 1; cut < 120; cut += 7) {
        CU_ASSERT_EQUAL(truncate(path, whole.st_size - cut), 0);
        int left = read_all(0, &end);
        CU_ASSERT_EQUAL(end, STATUS_DATA_LOSS);
        write_log(left, 10 - left); /* opening mends */
        CU_ASSERT_EQUAL(read_all(0, &end), 10);
        CU_ASSERT_EQUAL(end, STATUS_OUT_OF_RANGE);
    }
    unlink(path);
}

static void test_in_frames(void) {
    enum status end;
    struct stat whole;
    new_path();
    snprintf(path + strlen(path), sizeof path - strlen(path), ".zst");
    unlink(path);
    write_log(0, 300);
    CU_ASSERT_EQUAL(stat(path, &whole), 0);
    CU_ASSERT_TRUE(whole.st_size < 300 * 60);
    write_log(300, 10); /* another frame */
    CU_ASSERT_EQUAL(read_all(0, &end), 310);
    CU_ASSERT_EQUAL(end, STATUS_OUT_OF_RANGE);
    CU_ASSERT_EQUAL(truncate(path, whole.st_size + 9), 0);
    CU_ASSERT_EQUAL(read_all(0, &end), 300);
    CU_ASSERT_EQUAL(end, STATUS_DATA_LOSS);
    write_log(300, 5); /* opening mends */
    CU_ASSERT_EQUAL(read_all(0, &end), 305);
    CU_ASSERT_EQUAL(end, STATUS_OUT_OF_RANGE);
    unlink(path);
}

/* What is long is moved away; what is moved away too often is gone. */
static void test_is_moved_away(void) {
    enum status end;
    struct rk_config *c = NULL;
    struct rk_request_log *l = NULL;
    char older[80], set[96];
    new_path();
    snprintf(set, sizeof set, "log.requests=%s", path);
    const char *sets[] = {set, "log.requests_bytes=1024", "log.requests_files=2"};
    CHECK_OK(rk_config_load(NULL, sets, 3, &c));
    for (int round = 0; round < 5; round++) {
        CHECK_OK(rk_request_log_start(c, &l));
        for (int i = 0; i < 20; i++) /* more than 1024 bytes */
            add(l, 20 * round + i);
        rk_request_log_close(l);
    }
    CU_ASSERT_EQUAL(read_all(60, &end), 40); /* the last two rounds, in order */
    CU_ASSERT_EQUAL(end, STATUS_OUT_OF_RANGE);
    for (int k = 1; k <= 3; k++) {
        snprintf(older, sizeof older, "%s.%d", path, k);
        CU_ASSERT_EQUAL(unlink(older), k <= 2 ? 0 : -1);
    }
    unlink(path);
    rk_config_free(c);
}

static void *add_many(void *log) {
    for (int i = 0; i < 500; i++)
        add(log, 7);
    return NULL;
}

static void test_threads_do_not_mix_messages(void) {
    struct rk_request_log *l = NULL;
    new_path();
    if (!CHECK_OK(rk_request_log_open(path, &l)))
        return;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, add_many, l);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    rk_request_log_close(l);
    struct rk_request_log_reader *r = NULL;
    struct arena a;
    arena_init(&a, 0);
    struct rpc_request_log m;
    int n = 0;
    CHECK_OK(rk_request_log_read_open(path, &r));
    while (rk_request_log_next(r, &a, &m) == STATUS_OK)
        n += m.served_at_us == 1007 && slice_is(m.request.user, "u0");
    CU_ASSERT_EQUAL(n, 2000);
    rk_request_log_read_close(r);
    arena_deinit(&a);
    unlink(path);
}

static void test_bad_paths_and_bytes(void) {
    struct rk_request_log *l = NULL;
    struct rk_request_log_reader *r = NULL;
    CHECK_FAILS(rk_request_log_open("/nonexistent/x", &l), STATUS_UNAVAILABLE, "/nonexistent/x");
    CHECK_FAILS(rk_request_log_read_open("/nonexistent/x", &r), STATUS_NOT_FOUND, "/nonexistent/x");
    new_path();
    CHECK_OK(io_write_file(path, SLICE_LIT("\x05\x00\x00\x00\xff\xff\xff\xff\xff")));
    enum status end;
    CU_ASSERT_EQUAL(read_all(0, &end), 0);
    CHECK_FAILS(end, STATUS_DATA_LOSS, "byte 0");
    unlink(path);
}

SUITE("ranker_request_log", TEST(test_comes_back_equal_and_is_appended_to),
      TEST(test_a_cut_file_is_mended), TEST(test_in_frames), TEST(test_is_moved_away),
      TEST(test_threads_do_not_mix_messages), TEST(test_bad_paths_and_bytes))
