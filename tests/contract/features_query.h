/* A random question to a state, with all that a request can say: context, numbers of candidates,
 * places. What asks less leaves columns missing, and missing equals missing in every store. */
#pragma once
#include "tests/contract/features_oracle.h"
#include "tests/unit/features_make.h"

/* A plan of so many parts of one text. */
static struct feat_plan *plan_of_parts(const char *a, const char *b, const char *c) {
    struct arena room;
    arena_init(&room, 0);
    struct feat_plan *p = plan_of(arena_printf(&room, "%s%s%s", a, b, c));
    CU_ASSERT_PTR_NOT_NULL_FATAL(p);
    arena_deinit(&room);
    return p;
}

static void random_query(struct world *w, struct rng *rng, struct query *q) {
    memset(q, 0, sizeof *q);
    if (rng_below(rng, 3) == 0)
        q->tenant = SLICE_LIT("other");
    if (rng_below(rng, 8) > 0)
        q->user = name_of(w, "u", rng_below(rng, 8)); /* u6 and u7 are unknown */
    if (rng_below(rng, 4) > 0)
        q->session = name_of(w, "s", rng_below(rng, 6));
    q->n_items = (int)rng_below(rng, 15);
    for (int i = 0; i < q->n_items; i++) {
        q->items[i] = name_of(w, "i", rng_below(rng, 15));
        q->scores[i] = rng_below(rng, 5) == 0 ? NAN : rng_float(rng);
    }
    if (rng_below(rng, 2) == 0)
        q->context[q->n_context++] =
            (struct ev_field){SLICE_LIT("hour"), number_value(rng_below(rng, 24))};
    if (rng_below(rng, 2) == 0)
        q->context[q->n_context++] = (struct ev_field){
            SLICE_LIT("page"), text_value(rng_below(rng, 2) == 0 ? "home" : "search")};
    add_field(w, q->context, &q->n_context, "query", pick_text(w, queries, 4));
    add_field(w, q->context, &q->n_context, "referer", pick_text(w, referers, 4));
    add_field(w, q->context, &q->n_context, "local", pick_text(w, clocks, 4));
    if (rng_below(rng, 2) == 0)
        add_field(w, q->context, &q->n_context, "agent", pick_text(w, agents, 3));
    q->n_placed = rng_below(rng, 2) == 0 ? q->n_items / 2 : 0;
    /* from as far behind as the rings promise to serve to long after */
    q->now_us = w->newest_us - LATENESS_US + (int64_t)rng_below(rng, 500) * 1000000;
}

/* What a request borrows. */
struct asked {
    struct slice column;
    const float *values;
    uint64_t keys[16];
};

static struct feat_request request_of(const struct query *q, bool by_key, struct asked *room) {
    room->column = SLICE_LIT("score");
    room->values = q->scores;
    for (int i = 0; i < q->n_items; i++)
        room->keys[i] = feat_item_key(q->tenant, q->items[i]);
    return (struct feat_request){.tenant = q->tenant,
                                 .user = q->user,
                                 .session = q->session,
                                 .context = q->context,
                                 .n_context = q->n_context,
                                 .items = by_key ? NULL : q->items,
                                 .item_keys = by_key ? room->keys : NULL,
                                 .n_items = q->n_items,
                                 .column_names = &room->column,
                                 .column_values = &room->values,
                                 .n_columns = 1,
                                 .n_placed = q->n_placed};
}

static void ask(struct feat_state *s, struct arena *a, const struct query *q, bool by_key,
                struct feat_rows *out) {
    struct asked room;
    struct feat_request request = request_of(q, by_key, &room);
    feat_state_read_begin(s);
    feat_state_extract(s, a, &request, q->now_us, out);
    CHECK_OK(feat_state_read_end(s));
}
