/* Every feature kind against brute force over the list of events, and every state against itself
 * by another road: other interleavings of the partitions, repeats, snapshots. The world, the
 * oracle and the expectations are in features_*.h. */
#include "base/hash.h"
#include "base/heap.h"
#include "base/io.h"
#include "features/kind.h"
#include "tests/contract/features_expect.h"
#include "tests/contract/features_query.h"

enum { WORLDS = 12, ORDERS = 4, QUERIES = 25 };

static struct feat_plan *whole_plan(void) {
    return plan_of_parts(plan_head, plan_more, plan_joins);
}

/* What a column has been, over all worlds: a comparison of constants would prove nothing. */
struct seen {
    float least, most;
    int n;
};
static struct seen seen_columns[sizeof expect_columns / sizeof expect_columns[0]];

static void note(const struct expect_column *x, float v) {
    struct seen *s = &seen_columns[x - expect_columns];
    if (isnan(v))
        return;
    s->least = s->n == 0 || v < s->least ? v : s->least;
    s->most = s->n == 0 || v > s->most ? v : s->most;
    s->n++;
}

static const struct expect_column *expected_column(const char *name) {
    for (size_t i = 0; i < sizeof expect_columns / sizeof expect_columns[0]; i++)
        if (strcmp(expect_columns[i].name, name) == 0)
            return &expect_columns[i];
    return NULL;
}

/* One part of a row (row -1: the query's). Returns the number of differences, printing `print`. */
static int compare_dense(const struct oracle *o, int row, const float *got,
                         const char *const *names, int n, int print) {
    int wrong = 0;
    for (int i = 0; i < n; i++) {
        const struct expect_column *x = expected_column(names[i]);
        double want = x == NULL ? (double)NAN : x->value(o, row, x->arg);
        if (x != NULL)
            note(x, got[i]);
        if (x != NULL && close_enough(got[i], want))
            continue;
        if (wrong++ < print)
            printf("%s of row %d: got %g, want %g\n", names[i], row, (double)got[i], want);
    }
    return wrong;
}

static int compare_ids(const struct oracle *o, const struct feat *f, int row, const uint32_t *got,
                       int print) {
    uint32_t want[32] = {0};
    size_t i = 0, n = sizeof expect_ids / sizeof expect_ids[0];
    while (i < n && strcmp(expect_ids[i].name, f->name) != 0)
        i++;
    if (i < n)
        expect_ids[i].ids(o, row, want);
    bool same = i < n && memcmp(want, got, (size_t)f->n_slots * sizeof *got) == 0;
    if (!same && print > 0)
        printf("ids of %s, row %d: got %u, want %u\n", f->name, row, got[0], want[0]);
    return !same;
}

static int compare_rows(const struct feat_plan *p, const struct oracle *o,
                        const struct feat_rows *rows, int print) {
    int wrong = compare_dense(o, -1, rows->query, p->query_names, p->query_columns, print);
    for (int row = 0; row < rows->n_rows; row++)
        wrong += compare_dense(o, row, rows->cand + row * p->cand_columns, p->cand_names,
                               p->cand_columns, print);
    for (int i = 0; i < p->n_features; i++) {
        const struct feat *f = p->features[i];
        bool query = f->side == FEAT_USER || f->side == FEAT_CONTEXT;
        if (f->n_slots == 0)
            continue;
        for (int row = query ? -1 : 0; row < (query ? 0 : rows->n_rows); row++)
            wrong += compare_ids(o, f, row,
                                 query ? rows->query_ids + f->slot
                                       : rows->cand_ids + row * p->cand_slots + f->slot,
                                 print);
    }
    return wrong;
}

/* Differences between extraction and brute force over some random queries. */
static int differences(struct world *w, struct feat_state *s, const struct feat_plan *p,
                       uint64_t seed, int print) {
    struct rng rng;
    rng_init(&rng, seed);
    struct arena a;
    arena_init(&a, 0);
    int wrong = 0;
    for (int i = 0; i < QUERIES; i++) {
        struct query *q = ARENA_NEW(&w->arena, struct query);
        struct oracle o;
        struct feat_rows rows, again;
        arena_reset(&a);
        random_query(w, &rng, q);
        oracle_init(&o, w, q);
        ask(s, &a, q, false, &rows);
        wrong += compare_rows(p, &o, &rows, print);
        ask(s, &a, q, true, &again); /* items by key: the same bytes */
        wrong += memcmp(rows.cand, again.cand,
                        (size_t)(rows.n_rows * p->cand_columns) * sizeof(float)) != 0;
    }
    arena_deinit(&a);
    return wrong;
}

/* ---- dumps ---- */

static const char *scratch_path(const char *what) {
    static char path[2][128];
    static int turn;
    char *p = path[turn ^= 1];
    snprintf(p, sizeof path[0], "/tmp/features_kinds.%ld.%s", (long)getpid(), what);
    return p;
}

static void dump_of(struct feat_state *s, int64_t as_of_us, struct buf *out) {
    const char *path = scratch_path("dump");
    CHECK_OK(feat_state_dump(s, as_of_us, path));
    CHECK_OK(io_read_file(path, 1 << 26, out));
    unlink(path);
}

static bool same_dump(struct feat_state *s, int64_t as_of_us, const struct buf *want) {
    struct buf got = {0};
    dump_of(s, as_of_us, &got);
    bool same = got.n > 0 && slice_equal(buf_slice(&got), buf_slice(want));
    buf_deinit(&got);
    return same;
}

static struct feat_state *state_by(struct world *w, const struct feat_plan *p, uint64_t seed,
                                   bool repeats) {
    static int order[EVENTS * 8];
    struct rng rng;
    rng_init(&rng, seed);
    int n = world_order(w, &rng, repeats, order, EVENTS * 8);
    struct feat_state *s = feat_state_new(p);
    world_apply(w, &rng, s, order, n);
    return s;
}

/* Do states made by several interleavings dump alike? */
static bool order_free(struct world *w, const struct feat_plan *p) {
    struct buf want = {0};
    struct feat_state *first = state_by(w, p, 1, false);
    dump_of(first, 0, &want);
    feat_state_free(first);
    bool same = true;
    for (uint64_t i = 0; i < ORDERS; i++) {
        struct feat_state *s = state_by(w, p, 100 + i, i % 2 == 1);
        same &= same_dump(s, 0, &want);
        feat_state_free(s);
    }
    buf_deinit(&want);
    return same;
}

/* ---- tests ---- */

static void test_every_kind_is_here(void) {
    struct feat_plan *p = whole_plan();
    for (int k = 0; feat_kinds[k] != NULL; k++) {
        bool used = false;
        for (int i = 0; i < p->n_features; i++)
            used |= p->features[i]->kind == feat_kinds[k];
        if (!used)
            printf("kind %s has no feature in this test\n", feat_kinds[k]->name);
        CU_ASSERT(used);
        CU_ASSERT(feat_kinds[k]->doc != NULL && feat_kinds[k]->extract != NULL);
        CU_ASSERT_PTR_EQUAL(feat_kind_find(slice_of(feat_kinds[k]->name)), feat_kinds[k]);
    }
    for (int i = 0; i < p->query_columns; i++)
        CU_ASSERT_PTR_NOT_NULL(expected_column(p->query_names[i]));
    for (int i = 0; i < p->cand_columns; i++)
        CU_ASSERT_PTR_NOT_NULL(expected_column(p->cand_names[i]));
    feat_plan_free(p);
}

static void test_rows_equal_brute_force(void) {
    struct feat_plan *p = whole_plan();
    struct world *w = HEAP_NEW(struct world);
    for (uint64_t seed = 0; seed < WORLDS; seed++) {
        world_init(w, seed);
        struct feat_state *s = state_by(w, p, seed, true);
        CU_ASSERT_EQUAL(differences(w, s, p, seed, 3), 0);
        feat_state_free(s);
        world_deinit(w);
    }
    heap_free(w);
    feat_plan_free(p);
}

/* After the test before: no column was the same wherever it was compared, but those of words that
 * the worlds do not know. */
static void test_columns_vary(void) {
    static const char *const constant[] = {"agent.platform.tablet",
                                           "agent.os.macos",
                                           "agent.os.linux",
                                           "agent.os.chromeos",
                                           "agent.os.android",
                                           "agent.browser.chrome",
                                           "agent.browser.firefox",
                                           "agent.browser.opera",
                                           "agent.browser.samsung",
                                           "agent.browser.ie",
                                           "came.email",
                                           "came.paid",
                                           "comes.internal",
                                           "comes.email",
                                           "comes.paid",
                                           "now.month",
                                           "now.year",
                                           "now.weekend",
                                           "now.weekday",
                                           "now.day",
                                           NULL};
    for (size_t i = 0; i < sizeof seen_columns / sizeof seen_columns[0]; i++) {
        bool excused = false;
        for (int k = 0; constant[k] != NULL; k++)
            excused |= strcmp(constant[k], expect_columns[i].name) == 0;
        bool varies = seen_columns[i].n > 20 && seen_columns[i].least < seen_columns[i].most;
        if (!varies && !excused)
            printf("%s was %g to %g, %d times\n", expect_columns[i].name,
                   (double)seen_columns[i].least, (double)seen_columns[i].most, seen_columns[i].n);
        CU_ASSERT(varies || excused);
    }
}

static void test_state_is_a_function_of_the_set(void) {
    struct feat_plan *p = whole_plan();
    struct world *w = HEAP_NEW(struct world);
    for (uint64_t seed = 50; seed < 50 + WORLDS; seed++) {
        world_init(w, seed);
        CU_ASSERT(order_free(w, p));
        world_deinit(w);
    }
    heap_free(w);
    feat_plan_free(p);
}

/* Any cut: save, load, read on from a while before the cut. */
static void test_snapshot_and_on(void) {
    static int order[EVENTS * 2];
    struct feat_plan *p = whole_plan();
    struct world *w = HEAP_NEW(struct world);
    world_init(w, 7);
    struct rng rng;
    rng_init(&rng, 7);
    int n = world_order(w, &rng, false, order, EVENTS * 2);
    struct buf want = {0};
    struct feat_state *whole = feat_state_new(p);
    world_apply(w, &rng, whole, order, n);
    dump_of(whole, 0, &want);
    for (int cut = 0; cut <= n; cut += 1 + n / 9) {
        struct feat_state *before = feat_state_new(p), *after = NULL;
        const char *path = scratch_path("snapshot");
        world_apply(w, &rng, before, order, cut);
        CHECK_OK(feat_state_save(before, path));
        CHECK_OK(feat_state_load(p, path, &after));
        unlink(path);
        int from = cut < 50 ? 0 : cut - 50;
        world_apply(w, &rng, after, order + from, n - from);
        CU_ASSERT(same_dump(after, 0, &want));
        CU_ASSERT_EQUAL(differences(w, after, p, 3, 3), 0);
        feat_state_free(before);
        feat_state_free(after);
    }
    buf_deinit(&want);
    feat_state_free(whole);
    world_deinit(w);
    heap_free(w);
    feat_plan_free(p);
}

/* Long after, rings are empty and the dump says so; as of the last event they are not. */
static void test_dump_leaves_out_what_expired(void) {
    struct feat_plan *p = whole_plan();
    struct world *w = HEAP_NEW(struct world);
    world_init(w, 9);
    struct feat_state *s = state_by(w, p, 9, false);
    struct buf now = {0}, later = {0};
    dump_of(s, 0, &now);
    dump_of(s, w->newest_us + 400 * 1000000ll, &later);
    buf_add_byte(&now, 0);
    buf_add_byte(&later, 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(now.p, "\"clicks\":"));
    CU_ASSERT_PTR_NULL(strstr(later.p, "\"clicks\":"));
    CU_ASSERT_PTR_NOT_NULL(strstr(later.p, "\"ratings\":"));
    buf_deinit(&now);
    buf_deinit(&later);
    feat_state_free(s);
    world_deinit(w);
    heap_free(w);
    feat_plan_free(p);
}

/* ---- nothing moves for events that are about others ---- */

static uint64_t digest(const struct feat_plan *p, const struct feat_rows *r) {
    const struct slice parts[] = {
        {(const char *)r->query, (size_t)p->query_columns * sizeof(float)},
        {(const char *)r->query_ids, (size_t)p->query_slots * sizeof(uint32_t)},
        {(const char *)r->cand, (size_t)(r->n_rows * p->cand_columns) * sizeof(float)},
        {(const char *)r->cand_ids, (size_t)(r->n_rows * p->cand_slots) * sizeof(uint32_t)}};
    uint64_t h = r->user_epoch;
    for (int i = 0; i < 4; i++)
        h = hash_bytes(parts[i], h);
    return h;
}

/* Bit for bit, of the same random queries each time. */
static void digests(struct world *w, struct feat_state *s, const struct feat_plan *p,
                    uint64_t *out) {
    struct arena a;
    struct rng rng;
    arena_init(&a, 0);
    rng_init(&rng, 5);
    rng_init(&w->rng, 6); /* random_query draws from it, too */
    for (int i = 0; i < QUERIES; i++) {
        struct query *q = ARENA_NEW(&a, struct query);
        struct feat_rows rows;
        random_query(w, &rng, q);
        ask(s, &a, q, false, &rows);
        out[i] = digest(p, &rows);
    }
    arena_deinit(&a);
}

/* The world's events once more, as another tenant's or (NULL) as further ones of their own. */
static void apply_again(struct world *w, struct feat_state *s, const char *tenant, int partition) {
    for (int i = 0; i < EVENTS; i++) {
        struct ev_event e = w->events[i];
        e.source.partition += partition;
        if (tenant != NULL)
            e.tenant = slice_of(tenant);
        feat_state_apply(s, &e, 1, NULL);
    }
}

static void test_unrelated_events(void) {
    struct feat_plan *p = whole_plan();
    struct world *w = HEAP_NEW(struct world);
    for (uint64_t seed = 0; seed < 4; seed++) {
        uint64_t before[QUERIES], after[QUERIES];
        world_init(w, seed);
        struct feat_state *s = state_by(w, p, seed, false);
        digests(w, s, p, before);
        apply_again(w, s, "elsewhere", 1000);
        digests(w, s, p, after);
        CU_ASSERT_EQUAL(memcmp(before, after, sizeof before), 0);
        apply_again(w, s, NULL, 2000);
        digests(w, s, p, after);
        CU_ASSERT_NOT_EQUAL(memcmp(before, after, sizeof before), 0);
        feat_state_free(s);
        world_deinit(w);
    }
    heap_free(w);
    feat_plan_free(p);
}

/* ---- negative controls: these tests can fail ---- */

/* A count that remembers the order: what came first weighs more. */
static bool apply_ordered(const struct feat *f, const struct feat_update *u, struct slice old,
                          struct buf *out) {
    (void)f;
    struct cursor c = cursor_of(old.p, old.n);
    uint64_t before = old.n == 0 ? 0 : cursor_varint(&c);
    buf_add_varint(out, (before * 31 + (uint64_t)u->event->source.offset) & 0xFFFFFFF);
    return true;
}

/* A count that forgets one event in fifty. */
static bool apply_forgetful(const struct feat *f, const struct feat_update *u, struct slice old,
                            struct buf *out) {
    return u->event->source.offset % 50 != 0 && feat_kind_count.apply(f, u, old, out);
}

static void test_controls(void) {
    struct feat_kind ordered = feat_kind_count, forgetful = feat_kind_count;
    ordered.apply = apply_ordered;
    forgetful.apply = apply_forgetful;
    struct feat_plan *p = whole_plan();
    struct feat *ratings = NULL;
    for (int i = 0; i < p->n_features; i++)
        if (strcmp(p->features[i]->name, "ratings") == 0)
            ratings = p->features[i];
    CU_ASSERT_PTR_NOT_NULL_FATAL(ratings);
    struct world *w = HEAP_NEW(struct world);
    world_init(w, 11);
    ratings->kind = &ordered;
    CU_ASSERT_FALSE(order_free(w, p));
    ratings->kind = &forgetful;
    struct feat_state *s = state_by(w, p, 11, false);
    CU_ASSERT_NOT_EQUAL(differences(w, s, p, 11, 0), 0);
    feat_state_free(s);
    ratings->kind = &feat_kind_count;
    CU_ASSERT(order_free(w, p));
    world_deinit(w);
    heap_free(w);
    feat_plan_free(p);
}

SUITE("features_kinds", TEST(test_every_kind_is_here), TEST(test_rows_equal_brute_force),
      TEST(test_columns_vary), TEST(test_state_is_a_function_of_the_set),
      TEST(test_snapshot_and_on), TEST(test_dump_leaves_out_what_expired),
      TEST(test_unrelated_events), TEST(test_controls))
