/* base_log.c: the form of lines, levels and the limit; progress lines too, as both write stderr. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
#include "base/arena.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/node.h"
#include "base/progress.h"
#include "tests/support/suite.h"

static FILE *caught;
static int stderr_kept;

/* Turns stderr into a file, and back; what was written is in `text`. */
static void catch_start(void) {
    fflush(stderr);
    caught = tmpfile();
    stderr_kept = dup(STDERR_FILENO);
    dup2(fileno(caught), STDERR_FILENO);
}

static char text[65536];
static int catch_end(void) {
    fflush(stderr);
    dup2(stderr_kept, STDERR_FILENO);
    close(stderr_kept);
    rewind(caught);
    size_t n = fread(text, 1, sizeof text - 1, caught);
    text[n] = '\0';
    fclose(caught);
    int lines = 0;
    for (size_t i = 0; i < n; i++)
        lines += text[i] == '\n';
    return lines;
}

static void lines_below_the_level_are_left_out(void) {
    log_setup(LOG_WARN, 0);
    catch_start();
    log_debug("test", "one");
    log_info("test", "two");
    log_warn("test", "three");
    log_error("test", "four");
    CU_ASSERT_EQUAL(catch_end(), 2);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, " warn  test: three\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, " error test: four\n"));
}

static void a_message_stays_on_one_line(void) {
    log_setup(LOG_INFO, 0);
    catch_start();
    log_info("test", "a\nb\tc\x1b[31m");
    CU_ASSERT_EQUAL(catch_end(), 1);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "test: a b c [31m\n"));
}

static void json_lines_are_json(void) {
    log_setup(LOG_INFO, 1);
    catch_start();
    log_info("test", "a \"quoted\"\nline %d", 3);
    CU_ASSERT_EQUAL(catch_end(), 1);
    struct arena a;
    struct node *n = NULL;
    arena_init(&a, 0);
    CHECK_OK(node_parse_json(&a, slice_of(text), "log", &n));
    CU_ASSERT(slice_is(node_get(n, "message")->text, "a \"quoted\"\nline 3"));
    CU_ASSERT(slice_is(node_get(n, "level")->text, "info"));
    CU_ASSERT(slice_is(node_get(n, "area")->text, "test"));
    CU_ASSERT_EQUAL(node_get(n, "time")->text.n, strlen("2024-01-01T00:00:00.000Z"));
    arena_deinit(&a);
}

static void one_site(int i) { log_info("test", "line %d", i); }

static void a_call_site_is_limited_and_the_rest_is_counted(void) {
    log_setup(LOG_INFO, 0);
    int lines = 0, counted = 0;
    int64_t begin_us = clock_mono_us();
    catch_start();
    for (int i = 0; i < 1000; i++)
        one_site(i);
    while (clock_mono_us() - begin_us < 1100000) /* into the next second, whenever that begins */
        clock_sleep_ms(20);
    one_site(1000);
    int64_t seconds = (clock_mono_us() - begin_us) / 1000000 + 2;
    lines = catch_end();
    CU_ASSERT(lines >= 11 && lines <= 10 * seconds);
    for (const char *at = text; (at = strstr(at, "like it left out"));) {
        const char *open = at;
        while (*open != '(')
            open--;
        int n = 0;
        sscanf(open, "(%d", &n);
        counted += n;
        at++;
    }
    CU_ASSERT_EQUAL(lines + counted, 1001);
}

static void a_line_longer_than_the_buffer_is_cut(void) {
    char big[5000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    log_setup(LOG_INFO, 0);
    catch_start();
    log_info("test", "%s", big);
    CU_ASSERT_EQUAL(catch_end(), 1);
    CU_ASSERT(strlen(text) < 2200);
}

static void progress_ends_with_a_line_unless_quiet(void) {
    struct progress p;
    catch_start();
    progress_start(&p, "reading", "rows", 10, 0);
    progress_at(&p, 5);
    progress_at(&p, 10);
    progress_end(&p);
    CU_ASSERT_EQUAL(catch_end(), 1);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "reading: 10 rows in "));
    catch_start();
    progress_start(&p, "reading", "rows", 0, 1);
    progress_at(&p, 5);
    progress_end(&p);
    CU_ASSERT_EQUAL(catch_end(), 0);
}

static void progress_shows_share_and_time_left_now_and_then(void) {
    struct progress p;
    catch_start();
    progress_start(&p, "reading", "rows", 10, 0);
    p.started_us -= 20000000; /* as if twenty seconds had passed */
    p.shown_us -= 20000000;
    progress_at(&p, 5);
    progress_at(&p, 6); /* at once again: not shown */
    CU_ASSERT_EQUAL(catch_end(), 1);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "reading: 5 rows (50 %)"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "s left"));
}

SUITE("base_log", TEST(lines_below_the_level_are_left_out), TEST(a_message_stays_on_one_line),
      TEST(json_lines_are_json), TEST(a_call_site_is_limited_and_the_rest_is_counted),
      TEST(a_line_longer_than_the_buffer_is_cut), TEST(progress_ends_with_a_line_unless_quiet),
      TEST(progress_shows_share_and_time_left_now_and_then))
