/* features_plan.c: any bytes as a feature plan: a plan that can be used, or a message that begins
 * with the place. Each feature of a good plan lies within its part of the row. */
#include <string.h>
#include "features/state.h"
#include "tests/support/fuzz.h"

static void check_plan(const struct feat_plan *p) {
    int columns = 0;
    for (int side = 0; side < FEAT_SIDES; side++)
        columns += p->side_columns[side];
    FUZZ_CHECK(columns == p->query_columns + p->cand_columns);
    for (int i = 0; i < p->n_features; i++) {
        const struct feat *f = p->features[i];
        bool query = f->side == FEAT_USER || f->side == FEAT_CONTEXT;
        FUZZ_CHECK(f->column + f->n_columns <= (query ? p->query_columns : p->cand_columns));
        FUZZ_CHECK(f->slot + f->n_slots <= (query ? p->query_slots : p->cand_slots));
        FUZZ_CHECK((f->n_slots > 0) == (f->table >= 0) && f->table < p->n_tables);
    }
}

static void use_plan(const struct feat_plan *p, struct arena *a) {
    struct feat_state *s = feat_state_new(p);
    const struct slice item = SLICE_LIT("i");
    const struct ev_field value = {SLICE_LIT("value"), {EV_NUMBER, .number = 3}};
    struct ev_event e = {.kind = EV_INTERACTION,
                         .id = SLICE_LIT("x"),
                         .user = SLICE_LIT("u"),
                         .item = item,
                         .type = SLICE_LIT("click"),
                         .session = SLICE_LIT("s"),
                         .event_time_us = 1700000000000000,
                         .fields = &value,
                         .n_fields = 1};
    feat_state_apply(s, &e, 1, NULL);
    struct feat_request request = {
        .user = SLICE_LIT("u"), .session = SLICE_LIT("s"), .items = &item, .n_items = 1};
    struct feat_rows rows;
    feat_state_read_begin(s);
    feat_state_extract(s, a, &request, 1700000000000000, &rows);
    feat_state_read_end(s);
    for (int i = 0; i < p->n_features; i++) {
        const struct feat *f = p->features[i];
        const uint32_t *ids = f->side <= FEAT_CONTEXT ? rows.query_ids : rows.cand_ids;
        for (int k = 0; k < f->n_slots; k++)
            FUZZ_CHECK(ids[f->slot + k] < p->tables[f->table].rows);
    }
    feat_state_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct arena a;
    struct node *map = NULL;
    struct feat_plan *p = NULL;
    arena_init(&a, 0);
    if (node_parse_yaml(&a, (struct slice){(const char *)data, n}, "fuzz", &map) == STATUS_OK) {
        enum status s = feat_plan_parse(map, "fuzz", &p);
        FUZZ_CHECK((s == STATUS_OK) == (p != NULL));
        if (s != STATUS_OK)
            FUZZ_CHECK(s == STATUS_INVALID_ARGUMENT && strncmp(status_message(), "fuzz", 4) == 0);
    }
    if (p != NULL) {
        check_plan(p);
        use_plan(p, &a);
    }
    feat_plan_free(p);
    arena_deinit(&a);
    return 0;
}
