/* Plans and events for the tests of features/. */
#pragma once
#include "features/state.h"
#include "tests/support/suite.h"

static inline enum status parse_plan(const char *text, struct feat_plan **out) {
    struct arena a;
    arena_init(&a, 0);
    struct node *map = NULL;
    enum status s = node_parse_yaml(&a, slice_of(text), "plan.yaml", &map);
    if (s == STATUS_OK)
        s = feat_plan_parse(map, "plan.yaml", out);
    arena_deinit(&a);
    return s;
}

static inline struct feat_plan *plan_of(const char *text) {
    struct feat_plan *p = NULL;
    CHECK_OK(parse_plan(text, &p));
    return p;
}

static inline struct ev_event interaction(const char *user, const char *item, const char *type,
                                          int64_t time_us, int32_t partition, int64_t offset) {
    return (struct ev_event){.kind = EV_INTERACTION,
                             .id = SLICE_LIT("x"),
                             .event_time_us = time_us,
                             .user = slice_of(user),
                             .item = slice_of(item),
                             .type = slice_of(type),
                             .source = {partition, offset}};
}
