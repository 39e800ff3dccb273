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
    CONF_END};

static const struct feat_gone gone[] = {
    {"lag", "there is no such setting any more: a join brings together events of one partition, "
            "however far others are behind; leave it out"},
    {NULL, NULL}};

static enum status check(struct feat_plan *p, struct feat *f) {
    struct feat_join *m = f->params;
    m->lateness_us = p->lateness_us;
    f->side = FEAT_CONTEXT;
    p->joins = true;
    feat_plan_cell(p, f, FEAT_SCOPE_RANKING);
    return STATUS_OK;
}

int64_t feat_joins_window_us(const struct feat_plan *p) {
    int64_t most_us = 0;
    for (int i = 0; i < p->n_features; i++) {
        const struct feat *f = p->features[i];
        const struct feat_join *m = f->kind == &feat_kind_join ? f->params : NULL;
        most_us = m != NULL && m->window_us > most_us ? m->window_us : most_us;
    }
    return most_us;
}

/* ---- the cell ---- */

void feat_join_open(struct slice cell, int64_t before, struct feat_join_reader *r) {
    *r = (struct feat_join_reader){.c = cursor_of(cell.p, cell.n), .before = before};
    r->rankings = cell.n == 0 ? 0 : feat_get_varint(&r->c);
}

bool feat_join_next(struct feat_join_reader *r, struct feat_join_entry *out) {
    do {
        if (r->c.bad || r->c.p == r->c.end)
            return false;
        *out =
            (struct feat_join_entry){.is_ranking = r->rankings > 0, .stamp = feat_get_stamp(&r->c)};
        if (out->is_ranking)
            r->rankings--;
        else
            out->item_key = cursor_u64(&r->c);
        out->event = cursor_bytes(&r->c, (size_t)feat_get_varint(&r->c));
    } while (out->stamp.offset >= r->before && !r->c.bad);
    return !r->c.bad;
}

void feat_join_put(const struct feat_join_entry *e, struct buf *out) {
    feat_put_stamp(out, e->stamp);
    if (!e->is_ranking)
        buf_add_u64(out, e->item_key);
    feat_put_varint(out, e->event.n);
    buf_add(out, e->event.p, e->event.n);
}

/* ---- what is alive ---- */

/* A ranking is, as long as an interaction that comes can answer it; an interaction, as long as a
 * ranking that comes can be answered by it, or one that is alive is: how far that was seen. */
struct living {
    int64_t floor_us, window_us;
    int64_t rankings_us[FEAT_JOIN_RANKINGS_MAX];
    int n;
    bool more; /* as of an earlier floor there may be more than have room: then all is kept */
};

static struct living living_of(const struct feat_join *m, struct slice cell, int64_t before,
                               int64_t floor_us) {
    struct living l = {.floor_us = floor_us, .window_us = m->window_us};
    struct feat_join_reader r;
    struct feat_join_entry e;
    feat_join_open(cell, before, &r);
    while (feat_join_next(&r, &e) && e.is_ranking) {
        if (e.stamp.time_us + m->window_us < floor_us)
            continue;
        l.more |= l.n == FEAT_JOIN_RANKINGS_MAX;
        if (!l.more)
            l.rankings_us[l.n++] = e.stamp.time_us;
    }
    return l;
}

static bool is_alive(const struct living *l, const struct feat_join_entry *e) {
    int64_t at_us = e->stamp.time_us;
    bool is = l->more || at_us + (e->is_ranking ? l->window_us : 0) >= l->floor_us;
    for (int i = 0; i < l->n && !is && !e->is_ranking; i++)
        is = at_us >= l->rankings_us[i] && at_us <= l->rankings_us[i] + l->window_us;
    return is;
}

bool feat_join_has_room(const struct feat_join *m, struct slice cell, int64_t before,
                        int64_t floor_us, bool is_ranking) {
    struct living l = living_of(m, cell, before, floor_us);
    struct feat_join_reader r;
    struct feat_join_entry e;
    int n = 0;
    feat_join_open(cell, before, &r);
    while (feat_join_next(&r, &e))
        n += e.is_ranking == is_ranking && is_alive(&l, &e);
    return n < (is_ranking ? FEAT_JOIN_RANKINGS_MAX : FEAT_JOIN_ANSWERS_MAX);
}

static bool goes_before(const struct feat_join_entry *a, const struct feat_join_entry *b) {
    return a->is_ranking != b->is_ranking ? a->is_ranking
                                          : feat_stamp_compare(a->stamp, b->stamp) < 0;
}

/* What is alive of the cell, and one entry more (or NULL), in its place. */
static void rewrite(const struct feat_join *m, struct slice old, int64_t floor_us,
                    const struct feat_join_entry *new, struct buf *out) {
    struct living l = living_of(m, old, INT64_MAX, floor_us);
    struct feat_join_reader r;
    struct feat_join_entry e;
    uint64_t rankings = new != NULL &&new->is_ranking, any = new != NULL;
    feat_join_open(old, INT64_MAX, &r);
    while (feat_join_next(&r, &e)) {
        rankings += e.is_ranking && is_alive(&l, &e);
        any += is_alive(&l, &e);
    }
    if (any == 0)
        return;
    feat_put_varint(out, rankings);
    feat_join_open(old, INT64_MAX, &r);
    while (feat_join_next(&r, &e)) {
        if (new != NULL && goes_before(new, &e)) {
            feat_join_put(new, out);
            new = NULL;
        }
        if (is_alive(&l, &e))
            feat_join_put(&e, out);
    }
    if (new != NULL)
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
    if (!feat_join_has_room(m, old, new.stamp.offset, u->floor_us, new.is_ranking))
        return false;
    if (!new.is_ranking)
        new.item_key = feat_update_item(u, 0);
    if (new.is_ranking || m->tells_answers)
        feat_join_encode(m, e, &event);
    new.event = buf_slice(&event);
    rewrite(m, old, u->forget_us, &new, out);
    buf_deinit(&event);
    return true;
}

/* now_us: the clock of its partition. */
static void expire(const struct feat *f, int64_t now_us, struct slice cell, struct buf *out) {
    const struct feat_join *m = f->params;
    rewrite(m, cell, now_us - m->lateness_us, NULL, out);
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
    .gone = gone,
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
