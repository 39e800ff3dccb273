/* features_redis_less: what readers take to be applied, when one server says more than another one
 * still has. A reader that comes over a new connection looks at the markers and takes the least;
 * over its old ones it trusts what is said. */
#include "features/state_parts.h"
#include "tests/support/redis_server.h"
#include "tests/unit/features_make.h"

static const char plan_text[] = "features:\n"
                                "  - {name: clicks, kind: count, scope: item, on: any}\n";

static struct redis_server server;
static struct arena arena;

static struct feat_state *opened(const struct feat_plan *p, const char **address) {
    static char text[128];
    snprintf(text, sizeof text, "%s", server.address);
    *address = text;
    struct feat_store_conf c = {.kind = FEAT_STORE_REDIS,
                                .redis = {.mode = FEAT_REDIS_SINGLE,
                                          .addresses = {address, 1},
                                          .user = "",
                                          .password = "",
                                          .timeout_us = 5000000},
                                .prefix = "t:",
                                .buckets = 8};
    struct feat_state *s = NULL;
    CHECK_OK(feat_state_open(p, &c, &s));
    return s;
}

static void say(const char *command) {
    char reply[256];
    CU_ASSERT_TRUE(redis_server_say(&server, command, reply, sizeof reply));
    CU_ASSERT_TRUE(reply[0] != '-');
}

/* The offset that a section of reads says is applied of partition 0, having read `item`; -2:
 * failed. ahead: the offset that the item's record is said to have beyond that; -1: none. */
static int64_t applied_once(struct feat_state *s, int64_t *ahead) {
    const struct slice items[] = {SLICE_LIT("a"), SLICE_LIT("b")};
    struct feat_request request = {.items = items, .n_items = 2};
    struct feat_rows rows;
    const struct feat_applied *applied;
    const struct feat_ahead *list;
    feat_state_read_begin(s);
    feat_state_extract(s, &arena, &request, 5000000, &rows);
    int n = feat_state_applied(s, &arena, &applied), n_ahead = feat_state_ahead(s, &arena, &list);
    if (feat_state_read_end(s) != STATUS_OK)
        return -2;
    CU_ASSERT_EQUAL_FATAL(n, 1);
    CU_ASSERT_EQUAL(rows.cand[0], 6); /* in any case */
    *ahead = n_ahead > 0 ? list[0].offset : -1;
    return applied[0].offset;
}

/* After a lost connection some calls fail, until it is time for a new one. */
static int64_t applied_by(struct feat_state *s, int64_t *ahead) {
    int64_t is = -2, until_us = clock_mono_us() + 20000000;
    while ((is = applied_once(s, ahead)) == -2 && clock_mono_us() < until_us)
        clock_sleep_ms(5);
    return is;
}

/* Markers back to an earlier batch, as a replica that missed the last one would have them. */
static void lose_markers(void) {
    say("EVAL \"for _,k in ipairs(redis.call('KEYS','t:{*}m')) do "
        "redis.call('HSET',k,'0','3 4000000') end return 1\" 0");
}

static void test_the_least_marker_counts_after_a_new_connection(void) {
    const char *address;
    struct feat_plan *p = plan_of(plan_text);
    int64_t ahead;
    arena_init(&arena, 0);
    redis_server_start(&server);
    struct feat_state *writer = opened(p, &address), *reader = opened(p, &address);
    for (int i = 0; i < 6; i++) {
        struct ev_event e = interaction("u", "a", "click", 1000000 * (i + 1), 0, i);
        CHECK_OK(feat_state_apply(writer, &e, 1, NULL));
    }
    CU_ASSERT_EQUAL(applied_by(reader, &ahead), 5);
    CU_ASSERT_EQUAL(ahead, -1);
    lose_markers();
    CU_ASSERT_EQUAL(applied_by(reader, &ahead), 5); /* the control: nothing was looked at */
    for (int i = 0; i < 3; i++) {                   /* and as long as they lag behind */
        say("CLIENT KILL TYPE normal SKIPME yes");
        CU_ASSERT_EQUAL(applied_by(reader, &ahead), 3);
        CU_ASSERT_EQUAL(ahead, 5); /* the record is not behind: its header says so */
        CU_ASSERT_EQUAL(applied_by(reader, &ahead), 3);
    }
    say("EVAL \"for _,k in ipairs(redis.call('KEYS','t:{*}m')) do "
        "redis.call('HSET',k,'0','5 6000000') end return 1\" 0");
    CU_ASSERT_EQUAL(applied_by(reader, &ahead), 5);
    CU_ASSERT_EQUAL(ahead, -1);
    lose_markers(); /* they had caught up: trusted again */
    CU_ASSERT_EQUAL(applied_by(reader, &ahead), 5);
    feat_state_free(reader);
    feat_state_free(writer);
    redis_server_remove(&server);
    feat_plan_free(p);
    arena_deinit(&arena);
}

SUITE("features_redis_less", TEST(test_the_least_marker_counts_after_a_new_connection))
