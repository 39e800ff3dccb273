/* A state of features/ in a Redis of the test's own. One server a program. */
#pragma once
#include "features/state.h"
#include "tests/support/redis_server.h"

static inline struct feat_store_conf redis_store_conf(struct redis_server *server,
                                                      const char *prefix, int buckets) {
    return (struct feat_store_conf){.kind = FEAT_STORE_REDIS,
                                    .redis = {.addresses = {server->addresses, 1},
                                              .master = "",
                                              .user = "",
                                              .password = "",
                                              .timeout_us = 20000000},
                                    .prefix = prefix,
                                    .buckets = buckets};
}

static inline struct feat_state *redis_store_open(const struct feat_plan *p,
                                                  const struct feat_store_conf *c) {
    struct feat_state *s = NULL;
    CHECK_OK(feat_state_open(p, c, &s));
    CU_ASSERT_PTR_NOT_NULL_FATAL(s);
    return s;
}
