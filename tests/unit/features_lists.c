/* Last-N cells: times of any unit come back to the microsecond and in order, whatever the order of
 * arrival; equal lists are equal bytes, also when what had needed a finer unit was pushed out; and
 * how few bytes they take. */
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "features/kinds/last_n.h"
#include "features/record.h"
#include "features/state_parts.h"
#include "tests/unit/features_make.h"

enum { EVENTS = 120, KEPT = 20 };
#define T0_US 1790000000000000ll

static const char plan_text[] =
    "features:\n"
    "  - {name: all, kind: last_n, on: click, n: 20}\n"
    "  - {name: each, kind: last_n, on: click, n: 20, distinct: true}\n";

struct happened {
    int64_t time_us;
    uint64_t key;
    char item[40];
};

static int newest_first(const void *pa, const void *pb) {
    const struct happened *a = pa, *b = pb;
    if (a->time_us != b->time_us)
        return a->time_us < b->time_us ? 1 : -1;
    return (a->key < b->key) - (a->key > b->key);
}

/* Steps of no time, of seconds and of days; in whole seconds but for a few, so that some lists have
 * other units than what they once held. */
static void make(struct rng *r, struct happened *h, bool hashed) {
    for (int i = 0; i < EVENTS; i++) {
        int64_t s = rng_below(r, 3) ? rng_below(r, 30 * 86400) : rng_below(r, 90);
        uint32_t what = rng_below(r, 40);
        h[i].time_us = T0_US + s * 1000000 +
                       (what == 0   ? rng_below(r, 1000000)
                        : what == 1 ? 1000 * rng_below(r, 1000)
                                    : 0);
        snprintf(h[i].item, sizeof h[i].item, hashed ? "%08x-77aa-4f01-9d2e-000000000000" : "i%u",
                 rng_below(r, 60));
        h[i].key = feat_item_key((struct slice){0}, slice_of(h[i].item));
    }
}

static struct feat_state *fill(const struct feat_plan *p, const struct happened *h, struct rng *r) {
    struct feat_state *s = feat_state_new(p);
    uint32_t order[EVENTS];
    for (uint32_t i = 0; i < EVENTS; i++)
        order[i] = i;
    rng_shuffle_u32(r, order, EVENTS);
    for (int i = 0; i < EVENTS; i++) {
        const struct happened *at = &h[order[i]];
        enum feat_verdict verdict;
        struct ev_event e = interaction("u", at->item, "click", at->time_us, i, 1);
        feat_state_apply(s, &e, 1, &verdict);
        CU_ASSERT_EQUAL(verdict, FEAT_APPLIED);
    }
    return s;
}

static struct slice list_of(const struct feat_plan *p, struct feat_state *s, struct arena *a,
                            int feature) {
    const struct feat_record *rec =
        feat_state_record(s, a, FEAT_SCOPE_USER, feat_user_key((struct slice){0}, SLICE_LIT("u")));
    return feat_record_cell(rec, p->features[feature]->cells[0].index);
}

/* h [n >= KEPT] is sorted. */
static int wrong_entries(const struct feat *f, struct slice cell, const struct happened *h) {
    struct feat_last_reader r;
    struct feat_last_entry e;
    int wrong = feat_last_open(f, cell, &r) != KEPT;
    for (; feat_last_next(&r, &e); h++)
        wrong += e.item != h->key || e.time_us != h->time_us;
    return wrong + (r.c.bad || r.c.p != r.c.end);
}

/* Keeps the newest of each item; returns how many are left. */
static int newest_of_each(struct happened *h) {
    int n = 0;
    for (int i = 0; i < EVENTS; i++) {
        int k = 0;
        while (k < n && h[k].key != h[i].key)
            k++;
        if (k == n)
            h[n++] = h[i];
    }
    return n;
}

static void test_times_of_any_unit(void) {
    struct feat_plan *p = plan_of(plan_text);
    struct happened h[EVENTS];
    struct rng r;
    rng_init(&r, 3);
    for (int round = 0; round < 60; round++) {
        struct arena a;
        arena_init(&a, 0);
        make(&r, h, round % 2);
        struct feat_state *s[2] = {fill(p, h, &r), fill(p, h, &r)};
        qsort(h, EVENTS, sizeof *h, newest_first);
        for (int k = 0; k < 2; k++) {
            struct slice x = list_of(p, s[0], &a, k), y = list_of(p, s[1], &a, k);
            CU_ASSERT(slice_equal(x, y));
            CU_ASSERT(k == 0 || newest_of_each(h) >= KEPT);
            CU_ASSERT_EQUAL(wrong_entries(p->features[k], x, h), 0);
        }
        h[KEPT / 2].time_us++; /* the check can fail */
        CU_ASSERT_NOT_EQUAL(wrong_entries(p->features[1], list_of(p, s[0], &a, 1), h), 0);
        feat_state_free(s[0]);
        feat_state_free(s[1]);
        arena_deinit(&a);
    }
    feat_plan_free(p);
}

/* An entry takes, beside its item's bytes, as many as its step needs in the list's unit. */
static void test_bytes_of_a_list(void) {
    static const struct {
        int64_t step_us;
        size_t bytes;
    } rows[] = {{1000000, 1},
                {30000000, 2},
                {30000000 + 1000, 2},
                {9 * 86400 * 1000000ll, 3},
                {86400 * 1000000ll - 1000, 4},
                {20 * 1000000 + 1, 4}};
    struct feat_plan *p = plan_of(plan_text);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct feat_state *s = feat_state_new(p);
        struct arena a;
        size_t before = 0;
        arena_init(&a, 0);
        for (int k = 0; k < 3; k++) { /* the second says of which unit the list is */
            struct ev_event e =
                interaction("u", "5a1c-x", "click", T0_US + k * rows[i].step_us, 0, k);
            before = k < 2 ? 0 : list_of(p, s, &a, 0).n;
            feat_state_apply(s, &e, 1, NULL);
        }
        CU_ASSERT_EQUAL(list_of(p, s, &a, 0).n - before, 1 + rows[i].bytes); /* the same item */
        feat_state_free(s);
        arena_deinit(&a);
    }
    feat_plan_free(p);
}

SUITE("features_lists", TEST(test_times_of_any_unit), TEST(test_bytes_of_a_list))
