/* proto_samples.h: events and helpers that the proto tests share. The hexadecimal strings were made
 * by protoc --encode from text, so that the codecs are held against protobuf itself and not only
 * against each other. */
#pragma once
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "proto/rpc.h"
#include "tests/support/suite.h"

#define S(literal)  SLICE_LIT(literal)
#define N_OF(array) ((int)(sizeof(array) / sizeof *(array)))

#define GOLDEN_ITEM                                                                                \
    "0a026d31108080f9c0c1c48203188180f9c0c1c482032201742a100a057072696365190000000000002940"       \
    "2a070a036e657710012a070a036f6c6410002a190a057469746c6522105a77c3b66c6620225374c3bc686c6522"   \
    "2a1b0a0667656e72657332110a056472616d610a000a06636f6d6564792a210a037665632a1a0a18000000000000" \
    "f03f00000000000004c059f3f8c21f6ea5012a080a046e6f6e6532002a090a05656d7074792a002a090a05626c61" \
    "6e6b22002a0f0a047a65726f19000000000000000052040a026931"
#define GOLDEN_USER "0a03756d31108080f9c0c1c482032a0e0a036167651900000000008040405a040a027531"
#define GOLDEN_RANKING                                                                             \
    "0a027231108080f9c0c1c482032a100a0664657669636522066d6f62696c65623a0a027531120273311a1f0a0269" \
    "31150000803e1a140a0972656c6576616e637919000000000000e0bf1a040a0269321a090a026933150000803f"
#define GOLDEN_INTERACTION                                                                         \
    "0a026b31108080f9c0c1c482036a170a027531120273311a0269322205636c69636b2a027231"

/* the same four as structs */
static const struct slice sample_genres[] = {{"drama", 5}, {"", 0}, {"comedy", 6}};
static const double sample_vec[] = {1, -2.5, 1e-300};
static const struct ev_field sample_item_fields[] = {
    {S("price"), {.type = EV_NUMBER, .number = 12.5}},
    {S("new"), {.type = EV_BOOL, .boolean = true}},
    {S("old"), {.type = EV_BOOL, .boolean = false}},
    {S("title"), {.type = EV_STRING, .string = S("Zw\xC3\xB6lf \"St\xC3\xBChle\"")}},
    {S("genres"), {.type = EV_STRINGS, .strings = {sample_genres, 3}}},
    {S("vec"), {.type = EV_NUMBERS, .numbers = {sample_vec, 3}}},
    {S("none"), {.type = EV_STRINGS}},
    {S("empty"), {.type = EV_NUMBERS}},
    {S("blank"), {.type = EV_STRING, .string = S("")}},
    {S("zero"), {.type = EV_NUMBER, .number = 0}},
};
static const struct ev_field sample_user_fields[] = {{S("age"), {.type = EV_NUMBER, .number = 33}}};
static const struct ev_field sample_ranking_fields[] = {
    {S("device"), {.type = EV_STRING, .string = S("mobile")}}};
static const struct ev_field sample_shown_fields[] = {
    {S("relevancy"), {.type = EV_NUMBER, .number = -0.5}}};
static const struct ev_shown sample_shown[] = {
    {S("i1"), 0.25f, sample_shown_fields, 1}, {S("i2"), 0, NULL, 0}, {S("i3"), 1, NULL, 0}};

static const struct ev_event sample_events[] = {
    {.kind = EV_ITEM,
     .id = S("m1"),
     .event_time_us = 1700000000000000,
     .arrival_time_us = 1700000000000001,
     .tenant = S("t"),
     .item = S("i1"),
     .fields = sample_item_fields,
     .n_fields = N_OF(sample_item_fields)},
    {.kind = EV_USER,
     .id = S("um1"),
     .event_time_us = 1700000000000000,
     .user = S("u1"),
     .fields = sample_user_fields,
     .n_fields = 1},
    {.kind = EV_RANKING,
     .id = S("r1"),
     .event_time_us = 1700000000000000,
     .user = S("u1"),
     .session = S("s1"),
     .fields = sample_ranking_fields,
     .n_fields = 1,
     .shown = sample_shown,
     .n_shown = 3},
    {.kind = EV_INTERACTION,
     .id = S("k1"),
     .event_time_us = 1700000000000000,
     .user = S("u1"),
     .session = S("s1"),
     .item = S("i2"),
     .type = S("click"),
     .ranking = S("r1")},
};
static const char *const sample_golden[] = {GOLDEN_ITEM, GOLDEN_USER, GOLDEN_RANKING,
                                            GOLDEN_INTERACTION};

static inline struct slice unhex(struct arena *a, const char *hex) {
    size_t n = strlen(hex) / 2;
    char *p = arena_alloc(a, n);
    for (size_t i = 0; i < n; i++)
        p[i] = (char)strtoul((char[]){hex[2 * i], hex[2 * i + 1], 0}, NULL, 16);
    return (struct slice){p, n};
}

/* slice_equal, but gcc sees the samples' NULLs through it and warns of memcmp */
static inline bool same_text(struct slice x, struct slice y) {
    return x.n == y.n && (x.n == 0 || (x.p && y.p && memcmp(x.p, y.p, x.n) == 0));
}

/* -0 equals 0: -fno-signed-zeros may swap them. Not inlined, or gcc reads a sample's string as
 * numbers and warns. */
static __attribute__((noinline, unused)) bool same_doubles(const double *x, const double *y,
                                                           int n) {
    for (int i = 0; i < n; i++)
        if (x[i] != y[i])
            return false;
    return true;
}

static inline bool same_value(const struct ev_value *x, const struct ev_value *y) {
    if (x->type != y->type)
        return false;
    switch (x->type) {
    case EV_BOOL:
        return x->boolean == y->boolean;
    case EV_NUMBER:
        return x->number == y->number;
    case EV_STRING:
        return same_text(x->string, y->string);
    case EV_NUMBERS:
        return x->numbers.n == y->numbers.n &&
               same_doubles(x->numbers.v, y->numbers.v, x->numbers.n);
    case EV_STRINGS:
        if (x->strings.n != y->strings.n)
            return false;
        for (int i = 0; i < x->strings.n; i++)
            if (!same_text(x->strings.v[i], y->strings.v[i]))
                return false;
        return true;
    }
    return false;
}

static inline bool same_fields(const struct ev_field *x, int n_x, const struct ev_field *y,
                               int n_y) {
    if (n_x != n_y)
        return false;
    for (int i = 0; i < n_x; i++)
        if (!same_text(x[i].name, y[i].name) || !same_value(&x[i].value, &y[i].value))
            return false;
    return true;
}

static inline bool same_event(const struct ev_event *x, const struct ev_event *y) {
    if (x->kind != y->kind || x->event_time_us != y->event_time_us ||
        x->arrival_time_us != y->arrival_time_us || x->n_shown != y->n_shown ||
        !same_text(x->id, y->id) || !same_text(x->tenant, y->tenant) ||
        !same_text(x->user, y->user) || !same_text(x->session, y->session) ||
        !same_text(x->item, y->item) || !same_text(x->type, y->type) ||
        !same_text(x->ranking, y->ranking) ||
        !same_fields(x->fields, x->n_fields, y->fields, y->n_fields))
        return false;
    for (int i = 0; i < x->n_shown; i++) {
        const struct ev_shown *p = &x->shown[i], *q = &y->shown[i];
        if (!same_text(p->item, q->item) || p->propensity != q->propensity ||
            !same_fields(p->fields, p->n_fields, q->fields, q->n_fields))
            return false;
    }
    return true;
}
