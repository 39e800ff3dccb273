/* Snapshots: what was saved comes back; any damage is DATA_LOSS, another plan FAILED_PRECONDITION;
 * a file made to deceive (damaged, with the right checksum) never crashes. */
#include "base/hash.h"
#include "base/io.h"
#include "base/rng.h"
#include "tests/unit/features_make.h"
#include <stdio.h>
#include <unistd.h>

static const char plan_text[] =
    "features:\n"
    "  - {name: year, kind: number, source: item.year}\n"
    "  - {name: genre, kind: category, source: item.genres, hash: 9, embed: 2}\n"
    "  - {name: all, kind: count, scope: item, on: any}\n"
    "  - {name: clicks, kind: window_count, scope: item, on: click, bucket: 1s, windows: [9s]}\n"
    "  - {name: like, kind: rate, scope: user, top: like, bottom: any}\n"
    "  - {name: seen, kind: last_n, on: any, n: 4, value_field: value}\n"
    "  - {name: seen_s, kind: last_n, on: any, n: 4, scope: session}\n"
    "  - {name: idle, kind: time_since, scope: user, on: any}\n"
    "  - {name: fit, kind: match, of: seen, field: genres}\n";

static char path[64], dump_path[64];
static void make_paths(void) {
    snprintf(path, sizeof path, "/tmp/features_snapshot.%ld", (long)getpid());
    snprintf(dump_path, sizeof dump_path, "/tmp/features_snapshot.%ld.dump", (long)getpid());
}

static struct feat_state *filled(const struct feat_plan *p) {
    struct feat_state *s = feat_state_new(p);
    static const char *const items[] = {"a", "b", "c"}, *const users[] = {"u", "v"};
    static const char *const types[] = {"click", "like"};
    static const struct slice genres[] = {SLICE_LIT("x"), SLICE_LIT("y")};
    const struct ev_field fields[] = {
        {SLICE_LIT("year"), {EV_NUMBER, .number = 1995}},
        {SLICE_LIT("genres"), {EV_STRINGS, .strings = {genres, 2}}},
    };
    const struct ev_field value = {SLICE_LIT("value"), {EV_NUMBER, .number = 0.3}};
    struct ev_event item = {.kind = EV_ITEM,
                            .item = SLICE_LIT("a"),
                            .event_time_us = 1000000,
                            .fields = fields,
                            .n_fields = 2,
                            .tenant = SLICE_LIT("t"),
                            .source = {3, 0}};
    feat_state_apply(s, &item, 1, NULL);
    for (int i = 0; i < 24; i++) {
        struct ev_event e = interaction(users[i % 2], items[i % 3], types[i / 2 % 2],
                                        2000000 + 700000 * i, 3 + i % 2, 1 + i);
        e.tenant = i % 5 == 0 ? SLICE_LIT("") : SLICE_LIT("t");
        e.session = SLICE_LIT("s");
        e.fields = &value;
        e.n_fields = i % 2;
        feat_state_apply(s, &e, 1, NULL);
    }
    return s;
}

static void dump_into(struct feat_state *s, struct buf *out) {
    CHECK_OK(feat_state_dump(s, 0, dump_path));
    CHECK_OK(io_read_file(dump_path, 1 << 20, out));
    unlink(dump_path);
}

static void test_there_and_back(void) {
    make_paths();
    struct feat_plan *p = plan_of(plan_text);
    struct feat_state *s = filled(p), *t = NULL;
    struct buf a = {0}, b = {0};
    CHECK_OK(feat_state_save(s, path));
    CHECK_OK(feat_state_load(p, path, &t));
    dump_into(s, &a);
    dump_into(t, &b);
    CU_ASSERT(a.n > 0 && slice_equal(buf_slice(&a), buf_slice(&b)));
    CHECK_OK(feat_state_wait(t, (struct ev_source){3, 23}, 0)); /* offsets are there at once */
    struct feat_state *empty = feat_state_new(p);
    feat_state_free(t);
    CHECK_OK(feat_state_save(empty, path));
    CHECK_OK(feat_state_load(p, path, &t));
    CU_ASSERT_EQUAL(feat_state_size(t).entities[FEAT_SCOPE_ITEM], 0);
    unlink(path);
    buf_deinit(&a);
    buf_deinit(&b);
    feat_state_free(empty);
    feat_state_free(s);
    feat_state_free(t);
    feat_plan_free(p);
}

/* Offsets are of one log: those of another would be taken for repeats of it. */
static void test_whose_offsets(void) {
    make_paths();
    struct feat_plan *p = plan_of(plan_text);
    struct feat_state *s = feat_state_new(p), *t = NULL, *events = filled(p);
    CHECK_OK(feat_state_claim_log(s, "clicks"));
    CHECK_OK(feat_state_claim_log(s, "views")); /* nothing is applied yet */
    CHECK_OK(feat_state_skip(s, (struct ev_source){0, 5}));
    CHECK_OK(feat_state_claim_log(s, "views"));
    CHECK_FAILS(feat_state_claim_log(s, "clicks"), STATUS_FAILED_PRECONDITION, "views");
    CHECK_OK(feat_state_save(s, path));
    CHECK_OK(feat_state_load(p, path, &t));
    CHECK_OK(feat_state_claim_log(t, "views"));
    CHECK_FAILS(feat_state_claim_log(t, FEAT_LOG_FILE), STATUS_FAILED_PRECONDITION, "views");
    feat_state_free(t);
    CHECK_OK(feat_state_claim_log(events, FEAT_LOG_FILE)); /* nobody had said */
    CHECK_OK(feat_state_save(events, path));
    CHECK_OK(feat_state_load(p, path, &t));
    CHECK_FAILS(feat_state_claim_log(t, "views"), STATUS_FAILED_PRECONDITION, "a file");
    unlink(path);
    feat_state_free(events);
    feat_state_free(s);
    feat_state_free(t);
    feat_plan_free(p);
}

static void test_other_plan_and_no_file(void) {
    make_paths();
    struct feat_plan *p = plan_of(plan_text);
    struct feat_plan *q = plan_of("features:\n  - {name: n, kind: count, scope: item, on: any}\n");
    struct feat_state *s = filled(p), *t = NULL;
    char part[64];
    CHECK_OK(feat_state_save(s, path));
    snprintf(part, sizeof part, "%016llx", (unsigned long long)q->fingerprint);
    CHECK_FAILS(feat_state_load(q, path, &t), STATUS_FAILED_PRECONDITION, part);
    snprintf(part, sizeof part, "%016llx", (unsigned long long)p->fingerprint);
    CHECK_FAILS(feat_state_load(q, path, &t), STATUS_FAILED_PRECONDITION, part);
    unlink(path);
    CHECK_FAILS(feat_state_load(p, path, &t), STATUS_NOT_FOUND, path);
    CHECK_FAILS(feat_state_save(s, "/nonexistent/x"), STATUS_NOT_FOUND, "/nonexistent/x");
    CU_ASSERT_PTR_NULL(t);
    feat_state_free(s);
    feat_plan_free(p);
    feat_plan_free(q);
}

static void put_file(const void *bytes, size_t n) {
    FILE *f = fopen(path, "wb"); /* not io_write_file: thousands of syncs */
    CU_ASSERT_PTR_NOT_NULL_FATAL(f);
    CU_ASSERT_EQUAL(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static void test_any_damage_is_data_loss(void) {
    make_paths();
    struct feat_plan *p = plan_of(plan_text);
    struct feat_state *s = filled(p), *t = NULL;
    struct buf file = {0};
    CHECK_OK(feat_state_save(s, path));
    CHECK_OK(io_read_file(path, 1 << 20, &file));
    for (size_t n = 0; n < file.n; n++) {
        put_file(file.p, n);
        CHECK_FAILS(feat_state_load(p, path, &t), STATUS_DATA_LOSS, path);
    }
    for (size_t i = 0; i < file.n; i++) {
        file.p[i] ^= (char)(1 << i % 8);
        put_file(file.p, file.n);
        CHECK_FAILS(feat_state_load(p, path, &t), STATUS_DATA_LOSS, path);
        file.p[i] ^= (char)(1 << i % 8);
    }
    buf_add_byte(&file, 0);
    put_file(file.p, file.n);
    CHECK_FAILS(feat_state_load(p, path, &t), STATUS_DATA_LOSS, path);
    CU_ASSERT_PTR_NULL(t);
    unlink(path);
    buf_deinit(&file);
    feat_state_free(s);
    feat_plan_free(p);
}

/* Reads, writes and dumps a state that came from a doubtful file. */
static void use(const struct feat_plan *p, struct feat_state *s) {
    (void)p;
    struct arena a;
    arena_init(&a, 0);
    const struct slice items[] = {SLICE_LIT("a"), SLICE_LIT("b"), SLICE_LIT("c")};
    struct feat_request request = {.tenant = SLICE_LIT("t"),
                                   .user = SLICE_LIT("u"),
                                   .session = SLICE_LIT("s"),
                                   .items = items,
                                   .n_items = 3};
    struct feat_rows rows;
    const struct slice *known;
    const uint64_t *keys;
    feat_state_read_begin(s);
    feat_state_extract(s, &a, &request, 9000000, &rows);
    feat_state_items(s, &a, SLICE_LIT("t"), 10, &known);
    feat_state_user_items(s, &a, SLICE_LIT("t"), SLICE_LIT("u"), &keys);
    feat_state_read_end(s);
    struct ev_event e = interaction("u", "a", "click", 9000000, 99, 1);
    e.tenant = SLICE_LIT("t");
    e.session = SLICE_LIT("s");
    feat_state_apply(s, &e, 1, NULL);
    CHECK_OK(feat_state_dump(s, 0, dump_path));
    unlink(dump_path);
    arena_deinit(&a);
}

static void test_damage_with_a_right_checksum(void) {
    make_paths();
    struct feat_plan *p = plan_of(plan_text);
    struct feat_state *s = filled(p);
    struct buf file = {0};
    struct rng rng;
    int loaded = 0;
    rng_init(&rng, 5);
    CHECK_OK(feat_state_save(s, path));
    CHECK_OK(io_read_file(path, 1 << 20, &file));
    size_t body = file.n - 8;
    for (int round = 0; round < 2000; round++) {
        struct buf bent = {0};
        struct feat_state *t = NULL;
        buf_add(&bent, file.p, body);
        for (int k = (int)rng_below(&rng, 3); k >= 0; k--)
            bent.p[16 + rng_below(&rng, (uint32_t)body - 16)] = (char)rng_u64(&rng);
        buf_add_u64(&bent, hash_bytes((struct slice){bent.p, body}, 0));
        put_file(bent.p, bent.n);
        enum status status = feat_state_load(p, path, &t);
        CU_ASSERT(status == STATUS_OK || status == STATUS_DATA_LOSS);
        if (status == STATUS_OK && loaded++ < 300)
            use(p, t);
        feat_state_free(t);
        buf_deinit(&bent);
    }
    CU_ASSERT(loaded > 0);
    unlink(path);
    buf_deinit(&file);
    feat_state_free(s);
    feat_plan_free(p);
}

SUITE("features_snapshot", TEST(test_there_and_back), TEST(test_whose_offsets),
      TEST(test_other_plan_and_no_file), TEST(test_any_damage_is_data_loss),
      TEST(test_damage_with_a_right_checksum))
