/* label: slow. The Redis client alone: addresses, slots, pipelines, errors, a server that goes and
 * comes, one that asks for a password, sentinels. Clusters are
 * tests/integration/test_redis_store.py's. */
#include "features/redis.h"
#include "base/heap.h"
#include "tests/support/redis_server.h"

static struct arena arena;
static const char *address;

static struct feat_redis_conf conf_of(const char *where) {
    address = where;
    return (struct feat_redis_conf){
        .addresses = {&address, 1}, .master = "", .user = "", .password = "", .timeout_us = 300000};
}

static int add(struct feat_redis *r, enum feat_redis_manner manner, const char *a, const char *b,
               const char *c) {
    const char *words[] = {a, b, c};
    int n = c != NULL ? 3 : b != NULL ? 2 : 1;
    int at = feat_redis_command(r, FEAT_REDIS_ANY, manner, n);
    for (int i = 0; i < n; i++)
        feat_redis_word(r, slice_of(words[i]));
    return at;
}

/* What the Redis Cluster specification gives, and what it says about braces. */
static void test_slots(void) {
    CU_ASSERT_EQUAL(feat_redis_slot(SLICE_LIT("123456789")), 0x31C3);
    CU_ASSERT_EQUAL(feat_redis_slot(SLICE_LIT("foo")), 12182);
    CU_ASSERT_EQUAL(feat_redis_slot(SLICE_LIT("a{foo}b")), 12182);
    CU_ASSERT_EQUAL(feat_redis_slot(SLICE_LIT("a{foo}{bar}")), 12182);
    CU_ASSERT_NOT_EQUAL(feat_redis_slot(SLICE_LIT("a{foo")), 12182);
    CU_ASSERT_EQUAL(feat_redis_slot(SLICE_LIT("{}foo")), feat_redis_slot(SLICE_LIT("{}foo")));
    CU_ASSERT_NOT_EQUAL(feat_redis_slot(SLICE_LIT("{}foo")), feat_redis_slot(SLICE_LIT("{}fop")));
    CU_ASSERT_EQUAL(feat_redis_slot(SLICE_LIT("")), 0);
}

static void test_addresses(void) {
    static const char *const good[] = {"a:1", "[::1]:65535", "unix:/x", ":6379"};
    static const char *const bad[] = {"", "a", "a:", "a:0", "a:65536", "a:1x", "unix:", "a:-1"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct feat_redis_conf c = conf_of(good[i]);
        CHECK_OK(feat_redis_check(&c));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct feat_redis_conf c = conf_of(bad[i]);
        CHECK_FAILS(feat_redis_check(&c), STATUS_INVALID_ARGUMENT, "host:port");
    }
    struct feat_redis_conf c = conf_of("a:1");
    c.mode = FEAT_REDIS_SENTINEL;
    CHECK_FAILS(feat_redis_check(&c), STATUS_INVALID_ARGUMENT, "name");
    c.addresses.n = 0;
    CHECK_FAILS(feat_redis_check(&c), STATUS_INVALID_ARGUMENT, "no address");
}

static void test_pipeline(void) {
    enum { MANY = 5000, BIG = 300000 };
    struct redis_server server = {.keep = NULL};
    redis_server_start(&server);
    struct feat_redis_conf c = conf_of(server.address);
    struct feat_redis *r = feat_redis_new(&c, "return {KEYS[1],{7,false}}");
    char *big = heap_alloc(BIG + 1);
    memset(big, 'x', BIG);
    arena_init(&arena, 0);
    feat_redis_begin(r, &arena);
    for (int i = 0; i < MANY; i++)
        add(r, FEAT_REDIS_WRITE, "INCR", "n", NULL);
    int set = add(r, FEAT_REDIS_WRITE, "SET", "big", big);
    int get = add(r, FEAT_REDIS_READ, "GET", "big", NULL);
    int none = add(r, FEAT_REDIS_READ, "GET", "none", NULL);
    int wrong = add(r, FEAT_REDIS_READ, "NOSUCH", NULL, NULL);
    CHECK_OK(feat_redis_run(r));
    for (int i = 0; i < MANY; i++)
        CU_ASSERT_EQUAL(feat_redis_reply(r, i)->number, i + 1);
    CU_ASSERT(slice_is(feat_redis_reply(r, set)->text, "OK"));
    CU_ASSERT(slice_is(feat_redis_reply(r, get)->text, big));
    CU_ASSERT_EQUAL(feat_redis_reply(r, none)->type, FEAT_REDIS_NIL);
    CU_ASSERT_EQUAL(feat_redis_reply(r, wrong)->type, FEAT_REDIS_ERROR);
    CHECK_FAILS(feat_redis_fail(r, feat_redis_reply(r, wrong)), STATUS_UNAVAILABLE, server.socket);
    feat_redis_begin(r, &arena);
    feat_redis_command(r, FEAT_REDIS_ANY, FEAT_REDIS_WRITE, 4);
    feat_redis_word(r, SLICE_LIT("EVALSHA"));
    feat_redis_word(r, feat_redis_sha(r));
    feat_redis_number(r, 1);
    feat_redis_word_of(r, SLICE_LIT("ke"), SLICE_LIT("y"));
    CHECK_OK(feat_redis_run(r));
    const struct feat_redis_reply *list = feat_redis_reply(r, 0);
    CU_ASSERT_FATAL(list->type == FEAT_REDIS_LIST && list->n == 2 && list->items[1].n == 2);
    CU_ASSERT(slice_is(list->items[0].text, "key") && list->items[1].items[0].number == 7);
    CU_ASSERT_EQUAL(list->items[1].items[1].type, FEAT_REDIS_NIL);
    heap_free(big);
    feat_redis_free(r);
    redis_server_remove(&server);
    arena_deinit(&arena);
}

/* Reads go on with the server that came back; writes that rest on the old one are held. */
static void test_away_and_back(void) {
    struct redis_server server = {.keep = "aof"};
    redis_server_start(&server);
    struct feat_redis_conf c = conf_of(server.address);
    struct feat_redis *r = feat_redis_new(&c, NULL);
    arena_init(&arena, 0);
    feat_redis_begin(r, &arena);
    add(r, FEAT_REDIS_WRITE, "SET", "k", "v");
    CHECK_OK(feat_redis_run(r));
    uint64_t epoch = feat_redis_epoch(r);
    redis_server_stop(&server, SIGKILL);
    feat_redis_begin(r, &arena);
    add(r, FEAT_REDIS_READ, "GET", "k", NULL);
    CHECK_FAILS(feat_redis_run(r), STATUS_UNAVAILABLE, server.socket);
    feat_redis_begin(r, &arena);
    add(r, FEAT_REDIS_WRITE, "SET", "k", "w");
    CHECK_OK(feat_redis_run(r));
    CU_ASSERT_EQUAL(feat_redis_reply(r, 0)->type, FEAT_REDIS_AGAIN);
    redis_server_start(&server);
    clock_sleep_ms(200); /* the back-off */
    feat_redis_begin(r, &arena);
    add(r, FEAT_REDIS_WRITE, "SET", "k", "x");
    feat_redis_expect(r, epoch);
    add(r, FEAT_REDIS_READ, "GET", "k", NULL);
    CHECK_OK(feat_redis_run(r));
    CU_ASSERT_EQUAL(feat_redis_reply(r, 0)->type, FEAT_REDIS_AGAIN);
    CU_ASSERT(slice_is(feat_redis_reply(r, 1)->text, "v"));
    CU_ASSERT_NOT_EQUAL(feat_redis_epoch(r), epoch);
    kill(server.pid, SIGSTOP); /* there, and silent */
    feat_redis_begin(r, &arena);
    add(r, FEAT_REDIS_READ, "GET", "k", NULL);
    CHECK_FAILS(feat_redis_run(r), STATUS_UNAVAILABLE, "Redis");
    feat_redis_free(r);
    feat_redis_free(NULL);
    redis_server_remove(&server);
    arena_deinit(&arena);
}

static void test_password(void) {
    char reply[64];
    struct redis_server server = {.keep = NULL};
    redis_server_start(&server);
    CU_ASSERT(redis_server_say(&server, "CONFIG SET requirepass secret", reply, sizeof reply));
    static const char *const passwords[] = {"", "wrong", "secret"};
    static const enum status want[] = {STATUS_OK, STATUS_PERMISSION_DENIED, STATUS_OK};
    arena_init(&arena, 0);
    for (int i = 0; i < 3; i++) {
        struct feat_redis_conf c = conf_of(server.address);
        c.password = passwords[i];
        struct feat_redis *r = feat_redis_new(&c, NULL);
        feat_redis_begin(r, &arena);
        add(r, FEAT_REDIS_READ, "GET", "k", NULL);
        CU_ASSERT_EQUAL(feat_redis_run(r), want[i]);
        if (i == 0)
            CHECK_FAILS(feat_redis_fail(r, feat_redis_reply(r, 0)), STATUS_PERMISSION_DENIED,
                        "NOAUTH");
        if (i == 2)
            CU_ASSERT_EQUAL(feat_redis_reply(r, 0)->type, FEAT_REDIS_NIL);
        feat_redis_free(r);
    }
    redis_server_remove(&server);
    arena_deinit(&arena);
}

/* ---- sentinel ---- */

static pid_t start_sentinel(int port, int master_port) {
    char path[64], text[400], number[16];
    snprintf(path, sizeof path, "/tmp/moerank-sentinel.%ld", (long)getpid());
    snprintf(text, sizeof text,
             "port %d\nbind 127.0.0.1\nsentinel monitor shop 127.0.0.1 %d 1\n"
             "sentinel down-after-milliseconds shop 500\nsentinel failover-timeout shop 3000\n",
             port, master_port);
    FILE *f = fopen(path, "w");
    CU_ASSERT_FATAL(f != NULL && fputs(text, f) >= 0);
    fclose(f);
    snprintf(number, sizeof number, "%d", port);
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execlp("redis-server", "redis-server", path, "--sentinel", "--logfile", "/dev/null", NULL);
    _exit(127);
}

/* Asks until `want` is the answer, or the reply otherwise is right, for at most 30 s. */
static bool reads_at_last(struct feat_redis *r, const char *key, const char *want) {
    for (int i = 0; i < 300; i++, clock_sleep_ms(100)) {
        feat_redis_begin(r, &arena);
        int set = add(r, FEAT_REDIS_WRITE, "SET", key, want);
        int get = add(r, FEAT_REDIS_READ, "GET", key, NULL);
        if (feat_redis_run(r) == STATUS_OK && slice_is(feat_redis_reply(r, get)->text, want) &&
            slice_is(feat_redis_reply(r, set)->text, "OK"))
            return true;
    }
    return false;
}

static void test_sentinel_names_the_master(void) {
    struct redis_server servers[2] = {{.tcp = true}, {.tcp = true}};
    char sentinel[32], line[64], reply[256];
    for (int i = 0; i < 2; i++)
        redis_server_start(&servers[i]);
    snprintf(line, sizeof line, "REPLICAOF 127.0.0.1 %d", servers[0].port);
    CU_ASSERT(redis_server_say(&servers[1], line, reply, sizeof reply));
    int port = redis_server_free_port();
    pid_t pid = start_sentinel(port, servers[0].port);
    snprintf(sentinel, sizeof sentinel, "127.0.0.1:%d", port);
    struct feat_redis_conf c = conf_of(sentinel);
    c.mode = FEAT_REDIS_SENTINEL;
    c.master = "shop";
    struct feat_redis *r = feat_redis_new(&c, "return 1");
    arena_init(&arena, 0);
    CU_ASSERT(reads_at_last(r, "k", "before"));
    bool synced = false; /* the sentinel finds the replica by asking the master every 10 s */
    for (int i = 0; i < 300 && !synced; i++, clock_sleep_ms(100))
        synced = redis_server_say(&servers[1], "GET k", reply, sizeof reply) &&
                 strstr(reply, "before") != NULL;
    CU_ASSERT(synced);
    clock_sleep_ms(11000);
    uint64_t epoch = feat_redis_epoch(r);
    redis_server_stop(&servers[0], SIGKILL);
    CU_ASSERT(reads_at_last(r, "k", "after"));
    CU_ASSERT_NOT_EQUAL(feat_redis_epoch(r), epoch);
    CU_ASSERT(redis_server_say(&servers[1], "GET k", reply, sizeof reply));
    CU_ASSERT_PTR_NOT_NULL(strstr(reply, "after"));
    feat_redis_free(r);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    snprintf(line, sizeof line, "/tmp/moerank-sentinel.%ld", (long)getpid());
    unlink(line);
    for (int i = 0; i < 2; i++)
        redis_server_remove(&servers[i]);
    arena_deinit(&arena);
}

SUITE("features_redis", TEST(test_slots), TEST(test_addresses), TEST(test_pipeline),
      TEST(test_away_and_back), TEST(test_password), TEST(test_sentinel_names_the_master))
