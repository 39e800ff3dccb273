/* features_snapshot.c: any bytes as the body of a snapshot whose head and checksum are right: it
 * loads or is DATA_LOSS; what loads can be read, written and saved again. */
#include "base/hash.h"
#include "base/io.h"
#include "features/state.h"
#include "tests/support/fuzz.h"
#include <unistd.h>

static const char plan_text[] =
    "features:\n"
    "  - {name: year, kind: number, source: item.year}\n"
    "  - {name: genre, kind: category, source: item.genres, hash: 9, embed: 2}\n"
    "  - {name: clicks, kind: window_count, scope: item, on: any, bucket: 1s, windows: [9s]}\n"
    "  - {name: like, kind: rate, scope: user, top: click, bottom: any}\n"
    "  - {name: seen, kind: last_n, on: any, n: 4, value_field: value}\n"
    "  - {name: idle, kind: time_since, scope: user, on: any}\n"
    "  - {name: fit, kind: match, of: seen, field: genres}\n";

static struct feat_plan *make_plan(void) {
    struct arena a;
    struct node *map = NULL;
    struct feat_plan *p = NULL;
    arena_init(&a, 0);
    FUZZ_CHECK(node_parse_yaml(&a, slice_of(plan_text), "plan", &map) == STATUS_OK);
    FUZZ_CHECK(feat_plan_parse(map, "plan", &p) == STATUS_OK);
    arena_deinit(&a);
    return p;
}

static void use_state(struct feat_state *s, const char *path) {
    struct arena a;
    arena_init(&a, 0);
    const struct slice *known;
    struct feat_rows rows;
    feat_state_read_begin(s);
    int n = feat_state_items(s, &a, SLICE_LIT(""), 5, &known);
    struct feat_request request = {.user = SLICE_LIT("u"), .items = known, .n_items = n};
    feat_state_extract(s, &a, &request, 1700000000000000, &rows);
    feat_state_read_end(s);
    struct ev_event e = {.kind = EV_INTERACTION,
                         .id = SLICE_LIT("x"),
                         .user = SLICE_LIT("u"),
                         .item = n > 0 ? known[0] : SLICE_LIT("i"),
                         .type = SLICE_LIT("click"),
                         .event_time_us = 1700000000000000,
                         .source = {9, INT64_MAX}};
    feat_state_apply(s, &e, 1, NULL);
    FUZZ_CHECK(feat_state_dump(s, 0, path) == STATUS_OK);
    arena_deinit(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static struct feat_plan *p;
    static char path[64];
    if (p == NULL) {
        p = make_plan();
        snprintf(path, sizeof path, "/tmp/fuzz_features_snapshot.%ld", (long)getpid());
    }
    struct buf file = {0};
    struct feat_state *s = NULL;
    buf_add_str(&file, "MOEFEAT1");
    buf_add_u64(&file, p->fingerprint);
    buf_add(&file, data, n);
    buf_add_u64(&file, hash_bytes(buf_slice(&file), 0));
    FILE *f = fopen(path, "wb"); /* not io_write_file, which syncs */
    FUZZ_CHECK(f != NULL && fwrite(file.p, 1, file.n, f) == file.n);
    fclose(f);
    enum status status = feat_state_load(p, path, &s);
    FUZZ_CHECK(status == STATUS_OK || status == STATUS_DATA_LOSS);
    if (status == STATUS_OK)
        use_state(s, path);
    feat_state_free(s);
    buf_deinit(&file);
    unlink(path);
    return 0;
}
