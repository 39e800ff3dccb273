/* join.c: what waits under a ranking's id: the ranking, and the interactions that name it. No
 * column: other features ask by `cascade` and `attribution`. The cell (joins.h) only collects;
 * what follows from it for other records is joins.c's business. Deliberately by id alone: an
 * interaction that names no ranking answers none. */
#include "features/joins.h"
#include "features/claim.h"
#include <string.h>

static const struct conf_item items[] = {
    CONF_TIME(struct feat_join, window_us, "window", "30m", 1e6, 366 * 86400e6,
              "How long after a ranking an interaction that names it answers it."),
    CONF_TIME(struct feat_join, lag_us, "lag", "1h", 0, 366 * 86400e6,
              "How far, in event time, one partition may be behind another when they are read, "
              "for a ranking of one and an interaction of the other to be joined all the same."),
    CONF_END};

static enum status check(struct feat_plan *p, struct feat *f) {
    struct feat_join *m = f->params;
    m->lateness_us = p->lateness_us;
    f->side = FEAT_CONTEXT;
    return feat_claim_join(p, f);
}

/* ---- the cell ---- */

void feat_join_open(struct slice cell, struct feat_join_reader *r) {
    *r = (struct feat_join_reader){.c = cursor_of(cell.p, cell.n)};
    r->rankings = cell.n == 0 ? 0 : feat_get_varint(&r->c);
}

bool feat_join_next(struct feat_join_reader *r, struct feat_join_entry *out) {
    if (r->c.bad || r->c.p == r->c.end)
        return false;
    *out = (struct feat_join_entry){.is_ranking = r->rankings > 0, .stamp = feat_get_stamp(&r->c)};
    if (out->is_ranking)
        r->rankings--;
    else
        out->item_key = cursor_u64(&r->c);
    out->event = cursor_bytes(&r->c, (size_t)feat_get_varint(&r->c));
    return !r->c.bad;
}

void feat_join_put(const struct feat_join_entry *e, struct buf *out) {
    feat_put_stamp(out, e->stamp);
    if (!e->is_ranking)
        buf_add_u64(out, e->item_key);
    feat_put_varint(out, e->event.n);
    buf_add(out, e->event.p, e->event.n);
}

int64_t feat_join_until(const struct feat_join *m, const struct feat_join_entry *e) {
    return e->stamp.time_us + (e->is_ranking ? m->window_us : 0);
}

static bool is_full(struct slice cell, bool ranking) {
    struct feat_join_reader r;
    struct feat_join_entry e;
    int n = 0;
    feat_join_open(cell, &r);
    while (feat_join_next(&r, &e))
        n += e.is_ranking == ranking;
    return n >= (ranking ? FEAT_JOIN_RANKINGS_MAX : FEAT_JOIN_ANSWERS_MAX);
}

/* The old cell with one entry more, in its place. */
static void insert(struct slice old, const struct feat_join_entry *new, struct buf *out) {
    struct feat_join_reader r;
    struct feat_join_entry e;
    bool done = false;
    feat_join_open(old, &r);
    feat_put_varint(out, r.rankings + new->is_ranking);
    while (feat_join_next(&r, &e)) {
        bool after = new->is_ranking ? !e.is_ranking : false;
        if (!done && (after || (e.is_ranking ==
                                new->is_ranking &&feat_stamp_compare(e.stamp, new->stamp) > 0))) {
            feat_join_put(new, out);
            done = true;
        }
        feat_join_put(&e, out);
    }
    if (!done)
        feat_join_put(new, out);
}

static bool apply(const struct feat *f, const struct feat_update *u, struct slice old,
                  struct buf *out) {
    const struct feat_join *m = f->params;
    const struct ev_event *e = u->event;
    struct feat_join_entry new = {
        .is_ranking = e->kind == EV_RANKING,
        .stamp = {e->event_time_us, e->source.partition, e->source.offset}};
    struct buf event = {0};
    if (is_full(old, new.is_ranking))
        return false;
    if (!new.is_ranking)
        new.item_key = feat_update_item(u, 0);
    if (new.is_ranking || m->tells_answers)
        feat_join_encode(m, e, &event);
    new.event = buf_slice(&event);
    insert(old, &new, out);
    buf_deinit(&event);
    return true;
}

/* Without what joins.c may have forgotten by then. */
static void expire(const struct feat *f, int64_t now_us, struct slice cell, struct buf *out) {
    const struct feat_join *m = f->params;
    int64_t floor_us = now_us - m->lateness_us - m->lag_us;
    for (int turn = 0; turn < 2; turn++) { /* how many rankings; then all of it */
        struct feat_join_reader r;
        struct feat_join_entry e;
        uint64_t rankings = 0, any = 0;
        feat_join_open(cell, &r);
        while (feat_join_next(&r, &e)) {
            if (feat_join_until(m, &e) < floor_us)
                continue;
            any++;
            rankings += e.is_ranking;
            if (turn == 1)
                feat_join_put(&e, out);
        }
        if (any == 0)
            return;
        if (turn == 0)
            feat_put_varint(out, rankings);
    }
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)f, (void)r, (void)row, (void)dense, (void)ids;
}

const struct feat_kind feat_kind_join = {
    .name = "join",
    .doc = "Rankings and the interactions that answer them, for cascade and attribution.",
    .params = items,
    .params_bytes = sizeof(struct feat_join),
    .checked_first = true,
    .check = check,
    .apply = apply,
    .extract = extract,
    .expire = expire,
};

/* ---- who asks ---- */

/* The join that setting `key` names, or NULL where it is not set. */
static enum status claim_one(const struct feat_plan *p, const struct feat *f,
                             const struct node *map, const char *key, int wanted,
                             const struct feat **out) {
    const struct node *word = node_get(map, key);
    *out = NULL;
    if (word == NULL || (word->type == NODE_STRING && word->text.n == 0))
        return STATUS_OK;
    if (word->type != NODE_STRING)
        return fail(STATUS_INVALID_ARGUMENT, "%s: the name of a feature of kind join", key);
    if (f->kind->apply == NULL || f->kind == &feat_kind_join || !(p->wanted & wanted))
        return fail(STATUS_INVALID_ARGUMENT, "%s: no condition of this feature counts %s", key,
                    wanted == FEAT_WANTS_IMPRESSIONS ? "impressions" : "interactions");
    return feat_claim_feature(p, key, word->text.p, "join", out);
}

/* Do its records stand for fields that the events carry themselves? */
static bool is_by_field(const struct feat_plan *p, const struct feat *f) {
    bool any = false;
    for (int i = 0; f->place >= 0 && i < p->places[f->place].n_parts; i++) {
        enum feat_part_kind kind = p->places[f->place].parts[i].kind;
        any |= kind == FEAT_PART_EVENT || kind == FEAT_PART_CONTEXT;
    }
    return any;
}

enum status feat_join_claim(struct feat_plan *p, struct feat *f, const struct node *map) {
    TRY(claim_one(p, f, map, "cascade", FEAT_WANTS_IMPRESSIONS, &f->cascade));
    TRY(claim_one(p, f, map, "attribution", FEAT_WANTS_INTERACTIONS, &f->attribution));
    bool fields = !f->kind->matches_only || (p->wanted & FEAT_WANTS_FIELDS) || is_by_field(p, f);
    if (f->cascade != NULL) {
        struct feat_join *m = f->cascade->params;
        m->tells_seen = true;
        m->keeps_fields |= fields;
    }
    if (f->attribution != NULL) {
        struct feat_join *m = f->attribution->params;
        m->tells_answers = true;
        m->keeps_fields |= fields;
    }
    return STATUS_OK;
}
