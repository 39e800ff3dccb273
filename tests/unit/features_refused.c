/* features_refused: a plan that only a store with one writer can hold is refused by a shared one
 * before anything is connected to; the message names feature, line and remedy. */
#include "tests/unit/features_make.h"

static void check(const char *text, const char *message) {
    const char *address = "unix:/nonexistent";
    struct feat_plan *p = plan_of(text);
    struct feat_state *s = NULL;
    struct feat_store_conf c = {
        .kind = FEAT_STORE_REDIS,
        .redis = {.addresses = {&address, 1}, .user = "", .password = "", .timeout_us = 1000000},
        .prefix = "t:",
        .buckets = 8};
    CHECK_FAILS(feat_state_open(p, &c, &s), STATUS_FAILED_PRECONDITION, message);
    feat_plan_free(p);
}

static void test_joins_are_refused_by_name(void) {
    static const char text[] =
        "features:\n"
        "  - {name: n, kind: count, scope: item, on: impression, cascade: visit}\n"
        "  - {name: visit, kind: join}\n";
    check(text, "feature 'visit' (line 3) joins rankings and interactions");
    check(text, "take store: memory, or leave out cascade and attribution");
}

SUITE("features_refused", TEST(test_joins_are_refused_by_name))
