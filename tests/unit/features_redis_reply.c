/* Replies of a Redis as they may come: in pieces, of RESP 2 and 3, with pushes in between, damaged.
 * A server of a few lines says them. And what a real one tells of keys that change. */
#include <sched.h>
#include "features/redis.h"
#include "tests/support/redis_store.h"

struct line {
    const char *bytes;
    enum feat_redis_type type; /* of the reply to GET */
    const char *text;          /* of the reply, or of the failure; NULL: not looked at */
    int n;                     /* items of a list, or the number */
};

#define PUSH  ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
#define FAILS ((enum feat_redis_type) - 1)

static const struct line lines[] = {
    {"$3\r\nabc\r\n", FEAT_REDIS_TEXT, "abc", 0},
    {"$0\r\n\r\n", FEAT_REDIS_TEXT, "", 0},
    {"$-1\r\n", FEAT_REDIS_NIL, NULL, 0},
    {"_\r\n", FEAT_REDIS_NIL, NULL, 0},
    {"+fine\r\n", FEAT_REDIS_TEXT, "fine", 0},
    {"-ERR no\r\n", FEAT_REDIS_ERROR, "ERR no", 0},
    {"!6\r\nERR no\r\n", FEAT_REDIS_ERROR, "ERR no", 0},
    {":-12\r\n", FEAT_REDIS_NUMBER, NULL, -12},
    {"#t\r\n", FEAT_REDIS_NUMBER, NULL, 1},
    {",1.5\r\n", FEAT_REDIS_TEXT, "1.5", 0},
    {"(123456789012345678901234567890\r\n", FEAT_REDIS_TEXT, "123456789012345678901234567890", 0},
    {"=7\r\ntxt:a\r\n\r\n", FEAT_REDIS_TEXT, "a\r\n", 0},
    {"*0\r\n", FEAT_REDIS_LIST, NULL, 0},
    {"*-1\r\n", FEAT_REDIS_NIL, NULL, 0},
    {"*2\r\n*1\r\n:7\r\n$-1\r\n", FEAT_REDIS_LIST, NULL, 2},
    {"%2\r\n+a\r\n:1\r\n+b\r\n:2\r\n", FEAT_REDIS_LIST, NULL, 4},
    {"~1\r\n+a\r\n", FEAT_REDIS_LIST, NULL, 1},
    {PUSH "$3\r\nabc\r\n", FEAT_REDIS_TEXT, "abc", 0},
    {PUSH ">1\r\n+other\r\n" PUSH ":3\r\n", FEAT_REDIS_NUMBER, NULL, 3},
    {"\r\n", FAILS, "empty line", 0},
    {"?\r\n", FAILS, "first letter", 0},
    {"$x\r\n", FAILS, "number", 0},
    {"$\r\n", FAILS, "number", 0},
    {"$-2\r\n", FAILS, "length", 0},
    {"$99999999999\r\n", FAILS, "length", 0},
    {"$3\r\nabcde", FAILS, "end", 0},
    {"*99999999999\r\n", FAILS, "length", 0},
    {"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", FAILS, "depth", 0},
    {":12a\r\n", FAILS, "number", 0},
    {":99999999999999999999\r\n", FAILS, "number", 0},
    {"=2\r\nab\r\n", FAILS, "length", 0},
    {"+a\n", FAILS, "end", 0},
    {"%-1\r\n", FAILS, "length", 0},
    {"$5\r\nab", FAILS, "closed", 0},
    {"", FAILS, "closed", 0},
};
enum { LINES = sizeof lines / sizeof lines[0] };

static void say(int fd, const char *bytes, size_t step) {
    for (size_t n = strlen(bytes), at = 0; at < n; at += step) {
        if (send(fd, bytes + at, n - at < step ? n - at : step, MSG_NOSIGNAL) < 0)
            return;
        if (step == 1)
            sched_yield();
    }
}

/* Says each line to one client, whole or byte by byte, and hangs up. */
static pid_t serve(int listener, size_t step) {
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int i = 0; i < LINES; i++) {
        char asked[256];
        int fd = accept(listener, NULL, NULL);
        if (fd < 0 || read(fd, asked, sizeof asked) <= 0)
            _exit(1);
        say(fd, lines[i].bytes, step);
        shutdown(fd, SHUT_WR);
        while (read(fd, asked, sizeof asked) > 0) {
        }
        close(fd);
    }
    _exit(0);
}

static void ask(const struct line *line, const char *address) {
    struct feat_redis_conf c = {.addresses = {&address, 1},
                                .master = "",
                                .user = "",
                                .password = "",
                                .timeout_us = 20000000};
    struct feat_redis *r = feat_redis_new(&c, NULL);
    struct arena a;
    arena_init(&a, 0);
    feat_redis_begin(r, &a);
    int command = feat_redis_command(r, FEAT_REDIS_ANY, FEAT_REDIS_WRITE, 1); /* is not repeated */
    feat_redis_word(r, SLICE_LIT("X"));
    CHECK_OK(feat_redis_run(r));
    const struct feat_redis_reply *reply = feat_redis_reply(r, command);
    if (line->type == FAILS) {
        CU_ASSERT_EQUAL(reply->type, FEAT_REDIS_AGAIN);
        CU_ASSERT_PTR_NOT_NULL(strstr(status_message(), line->text));
    } else {
        CU_ASSERT_EQUAL(reply->type, line->type);
        CU_ASSERT(line->text == NULL || slice_is(reply->text, line->text));
        CU_ASSERT(line->type != FEAT_REDIS_NUMBER || reply->number == line->n);
        CU_ASSERT(line->type != FEAT_REDIS_LIST || reply->n == line->n);
    }
    feat_redis_free(r);
    arena_deinit(&a);
}

static void test_replies(void) {
    static const size_t steps[] = {1 << 20, 1};
    for (int k = 0; k < 2; k++) {
        struct sockaddr_un at = {.sun_family = AF_UNIX};
        char address[120];
        snprintf(at.sun_path, sizeof at.sun_path, "/tmp/features_reply.%ld.%d", (long)getpid(), k);
        snprintf(address, sizeof address, "unix:%s", at.sun_path);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        CU_ASSERT_EQUAL_FATAL(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
        CU_ASSERT_EQUAL_FATAL(listen(fd, 4), 0);
        pid_t pid = serve(fd, steps[k]);
        for (int i = 0; i < LINES; i++)
            ask(&lines[i], address);
        int code = 1;
        waitpid(pid, &code, 0);
        CU_ASSERT_EQUAL(code, 0);
        close(fd);
        unlink(at.sun_path);
    }
}

/* ---- what changes ---- */

struct heard {
    int n, all;
    char last[16];
};

static void hear_one(void *context, struct slice key) {
    struct heard *h = context;
    h->n++;
    h->all += key.n == 0;
    snprintf(h->last, sizeof h->last, "%.*s", SLICE_ARG(key));
}

static void get(struct feat_redis *r, struct arena *a, const char *key) {
    feat_redis_begin(r, a);
    feat_redis_command(r, FEAT_REDIS_ANY, FEAT_REDIS_READ, 2);
    feat_redis_word(r, SLICE_LIT("GET"));
    feat_redis_word(r, slice_of(key));
    CHECK_OK(feat_redis_run(r));
}

static struct heard heard_after(struct feat_redis *r, struct arena *a) {
    struct heard h = {0};
    get(r, a, "other"); /* what was told before comes before this reply */
    feat_redis_hear(r, a, &h, hear_one);
    return h;
}

static void test_changes_are_told(void) {
    struct redis_server server = {.keep = NULL};
    char reply[64];
    struct arena a;
    arena_init(&a, 0);
    redis_server_start(&server);
    const struct feat_redis_conf c = redis_store_conf(&server, "", 1).redis;
    struct feat_redis *r = feat_redis_new(&c, NULL);
    feat_redis_track(r);
    CU_ASSERT_FALSE(feat_redis_tells(r));
    get(r, &a, "k");
    CU_ASSERT_TRUE(feat_redis_tells(r));
    CU_ASSERT_EQUAL(heard_after(r, &a).n, 0);
    CU_ASSERT(redis_server_say(&server, "SET unread 1", reply, sizeof reply));
    CU_ASSERT_EQUAL(heard_after(r, &a).n, 0);
    CU_ASSERT(redis_server_say(&server, "SET k 1", reply, sizeof reply)); /* it was not there */
    struct heard h = heard_after(r, &a);
    CU_ASSERT(h.n == 1 && strcmp(h.last, "k") == 0);
    CU_ASSERT(redis_server_say(&server, "SET k 2", reply, sizeof reply));
    CU_ASSERT_EQUAL(heard_after(r, &a).n, 0); /* not read since */
    get(r, &a, "k");
    CU_ASSERT(redis_server_say(&server, "PEXPIRE k 1", reply, sizeof reply));
    h = heard_after(r, &a);
    CU_ASSERT(h.n >= 1 && strcmp(h.last, "k") == 0);
    CU_ASSERT(redis_server_say(&server, "FLUSHALL", reply, sizeof reply));
    CU_ASSERT_EQUAL(heard_after(r, &a).all, 1);
    redis_server_stop(&server, SIGKILL);
    feat_redis_hear(r, &a, &h, hear_one);
    CU_ASSERT_FALSE(feat_redis_tells(r)); /* the connection is gone */
    redis_server_start(&server);
    CU_ASSERT(
        redis_server_say(&server, "ACL SETUSER default -client|tracking", reply, sizeof reply));
    uint64_t epoch = feat_redis_epoch(r);
    clock_sleep_ms(100); /* the back-off */
    get(r, &a, "k");
    CU_ASSERT_FALSE(feat_redis_tells(r)); /* it may not */
    CU_ASSERT_NOT_EQUAL(feat_redis_epoch(r), epoch);
    feat_redis_free(r);
    redis_server_remove(&server);
    arena_deinit(&a);
}

SUITE("features_redis_reply", TEST(test_replies), TEST(test_changes_are_told))
