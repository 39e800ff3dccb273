/* joins.c: what follows from a ranking and an interaction together (joins.h), worked out when the
 * later of the two is applied, from the cell under the ranking's id as it was before: so a repeat
 * adds nothing, and the end is the same whichever came first.
 *
 * What follows from one record is written into others, which only a store with one writer can do
 * exactly. A read sees it with the event that brought it about, never before.
 *
 * What waits is forgotten when nothing that may still come can concern it: by the clock of its own
 * partition, and by the newest clock of all less the join's `lag`. A heap tells when to look. */
#include "features/joins.h"
#include "base/hash.h"
#include "base/heap.h"
#include "features/keys.h"
#include "features/state_parts.h"
#include <assert.h>

/* After one micro-batch, so that none waits for all; it has some 500 events. */
enum { LOOKS_MAX = 16384 };

/* A record to be looked at again when the newest clock has passed at_us. */
struct look {
    int64_t at_us;
    uint64_t key;
    int place;
};

struct feat_joins {
    struct arena arena; /* of one event */
    struct buf old;     /* the cell before it */
    struct look *heap;  /* [n] the soonest first */
    int n, cap;
    uint64_t unjoined;
};

struct feat_joins *feat_joins_new(const struct feat_plan *p) {
    bool any = false;
    for (int i = 0; i < p->n_places; i++)
        any |= p->places[i].join != NULL;
    if (!any)
        return NULL;
    struct feat_joins *w = HEAP_NEW(struct feat_joins);
    arena_init(&w->arena, 0);
    return w;
}

void feat_joins_free(struct feat_joins *w) {
    if (w == NULL)
        return;
    arena_deinit(&w->arena);
    buf_deinit(&w->old);
    heap_free(w->heap);
    heap_free(w);
}

void feat_joins_size(const struct feat_joins *w, struct feat_state_size *out) {
    if (w == NULL)
        return;
    out->waiting = (uint64_t)w->n;
    out->unjoined = w->unjoined;
    out->bytes += (uint64_t)w->cap * sizeof *w->heap;
}

/* ---- when to look ---- */

static void swap(struct look *a, struct look *b) {
    struct look c = *a;
    *a = *b;
    *b = c;
}

static void push(struct feat_joins *w, struct look l) {
    if (w->n == w->cap) {
        w->cap = w->cap == 0 ? 256 : 2 * w->cap;
        w->heap = heap_grow(w->heap, (size_t)w->cap * sizeof *w->heap);
    }
    int i = w->n++;
    w->heap[i] = l;
    for (; i > 0 && w->heap[(i - 1) / 2].at_us > w->heap[i].at_us; i = (i - 1) / 2)
        swap(&w->heap[i], &w->heap[(i - 1) / 2]);
}

static struct look pop(struct feat_joins *w) {
    struct look first = w->heap[0];
    w->heap[0] = w->heap[--w->n];
    for (int i = 0;;) {
        int least = i;
        for (int k = 2 * i + 1; k <= 2 * i + 2 && k < w->n; k++)
            if (w->heap[k].at_us < w->heap[least].at_us)
                least = k;
        if (least == i)
            return first;
        swap(&w->heap[i], &w->heap[least]);
        i = least;
    }
}

/* ---- cells ---- */

/* Empty: there is no such record. */
static struct slice cell_of(struct feat_state *s, const struct feat *join, struct slice bytes) {
    const struct feat_record *r = bytes.n == 0 ? NULL
                                               : feat_record_cells(s->plan, FEAT_SCOPE_VALUE, bytes,
                                                                   s->views[FEAT_SCOPE_VALUE]);
    return feat_record_cell(r, join->cells[0].index);
}

static struct slice fetch(struct feat_state *s, uint64_t key) {
    struct slice bytes;
    s->ops->fetch(s->store, FEAT_SCOPE_VALUE, &key, 1, &bytes);
    return bytes;
}

/* ---- what follows ---- */

struct join_work { /* of one event and one join */
    struct feat_state *s;
    const struct feat *join;
    const struct feat_join *conf;
    uint64_t tenant_hash;
    struct slice old;
};

static bool in_window(const struct join_work *j, int64_t ranking_us, int64_t answer_us) {
    return answer_us >= ranking_us && answer_us <= ranking_us + j->conf->window_us;
}

/* A kept event; its items' keys are in s->shown_keys then. False: it is damaged. */
static bool read_event(const struct join_work *j, const struct feat_join_entry *e,
                       struct ev_event *out) {
    if (!feat_join_decode(j->conf, &j->s->joins->arena, e, out))
        return false;
    for (int i = 0; i < out->n_shown; i++)
        j->s->shown_keys[i] = feat_entity_key(j->tenant_hash, out->shown[i].item);
    return true;
}

/* The last place at which an item of the ranking at hand was shown; -1: it was not. */
static int place_of(const struct join_work *j, const struct ev_event *ranking, uint64_t item_key) {
    int i = item_key == 0 ? -1 : ranking->n_shown - 1;
    while (i >= 0 && j->s->shown_keys[i] != item_key)
        i--;
    return i;
}

/* The deepest place of the ranking at hand that old answers have reached; -1: none has. */
static int deepest(const struct join_work *j, const struct ev_event *ranking) {
    struct feat_join_reader r;
    struct feat_join_entry e;
    int most = -1;
    feat_join_open(j->old, &r);
    while (feat_join_next(&r, &e)) {
        if (e.is_ranking || !in_window(j, ranking->event_time_us, e.stamp.time_us))
            continue;
        int at = place_of(j, ranking, e.item_key);
        most = at > most ? at : most;
    }
    return most;
}

/* Impressions of the ranking at hand count from place `from` to place `to`. */
static void count_seen(const struct join_work *j, const struct ev_event *ranking, int from,
                       int to) {
    struct feat_state *s = j->s;
    if (!j->conf->tells_seen || from > to)
        return;
    feat_state_spread(
        s,
        (struct feat_update){.event = ranking,
                             .shown = s->shown_all + from,
                             .n = to - from + 1,
                             .join = j->join,
                             .user_key = feat_entity_key(j->tenant_hash, ranking->user),
                             .item_keys = s->shown_keys},
        j->tenant_hash);
}

static void count_answer(const struct join_work *j, const struct ev_event *e, uint64_t item_key) {
    if (!j->conf->tells_answers)
        return;
    feat_state_spread(j->s,
                      (struct feat_update){.event = e,
                                           .n = 1,
                                           .join = j->join,
                                           .user_key = feat_entity_key(j->tenant_hash, e->user),
                                           .item_keys = &item_key},
                      j->tenant_hash);
}

/* Does an interaction answer any of the old rankings? With `deepen` it also shows what of each was
 * seen. */
static bool answer_old(const struct join_work *j, struct feat_stamp stamp, uint64_t item_key,
                       bool deepen) {
    struct feat_join_reader r;
    struct feat_join_entry e;
    bool any = false;
    feat_join_open(j->old, &r);
    while (feat_join_next(&r, &e) && e.is_ranking) {
        struct ev_event ranking;
        if (!in_window(j, e.stamp.time_us, stamp.time_us) || !read_event(j, &e, &ranking))
            continue;
        int at = place_of(j, &ranking, item_key);
        any |= at >= 0;
        if (deepen && at >= 0)
            count_seen(j, &ranking, deepest(j, &ranking) + 1, at);
    }
    return any;
}

/* Interactions that came before the ranking they answer. */
static void answer_new(const struct join_work *j, const struct ev_event *ranking) {
    struct feat_join_reader r;
    struct feat_join_entry e;
    uint64_t *keys = ARENA_ARRAY(&j->s->joins->arena, uint64_t, ranking->n_shown + 1);
    for (int i = 0; i < ranking->n_shown; i++)
        keys[i] = j->s->shown_keys[i];
    feat_join_open(j->old, &r);
    while (feat_join_next(&r, &e)) {
        struct ev_event answer;
        if (e.is_ranking || !in_window(j, ranking->event_time_us, e.stamp.time_us))
            continue;
        for (int i = 0; i < ranking->n_shown; i++) /* answer_old leaves others there */
            j->s->shown_keys[i] = keys[i];
        if (place_of(j, ranking, e.item_key) >= 0 && !answer_old(j, e.stamp, e.item_key, false) &&
            read_event(j, &e, &answer))
            count_answer(j, &answer, e.item_key);
    }
}

static void follow(const struct join_work *j, const struct ev_event *e) {
    if (e->kind == EV_RANKING) {
        count_seen(j, e, 0, deepest(j, e));
        if (j->conf->tells_answers)
            answer_new(j, e);
        return;
    }
    const struct feat_stamp stamp = {e->event_time_us, e->source.partition, e->source.offset};
    uint64_t item_key = feat_entity_key(j->tenant_hash, e->item);
    if (answer_old(j, stamp, item_key, true))
        count_answer(j, e, item_key);
}

static void join_event(struct feat_state *s, int place, const struct ev_event *e,
                       uint64_t tenant_hash, uint64_t id) {
    struct feat_joins *w = s->joins;
    const struct feat_place *pl = &s->plan->places[place];
    uint64_t key = feat_place_value_key(pl, tenant_hash, id);
    uint64_t item_key = feat_entity_key(tenant_hash, e->item);
    struct slice bytes = fetch(s, key), old = cell_of(s, pl->join, bytes);
    buf_clear(&w->old);
    buf_add(&w->old, old.p, old.n);
    if (bytes.n == 0)
        push(w, (struct look){0, key, place});
    struct feat_update u = {.event = e, .n = 1, .scope = FEAT_SCOPE_VALUE, .item_keys = &item_key};
    feat_state_edit(s, &u, place, key, (struct slice){NULL, 0});
    const struct join_work j = {s, pl->join, pl->join->params, tenant_hash, buf_slice(&w->old)};
    if (e->kind == EV_RANKING)
        for (int i = 0; i < e->n_shown; i++)
            s->shown_keys[i] = feat_entity_key(tenant_hash, e->shown[i].item);
    follow(&j, e);
}

void feat_joins_event(struct feat_state *s, const struct ev_event *e, uint64_t tenant_hash) {
    struct slice id = e->kind == EV_RANKING ? e->id : e->ranking;
    if (id.n == 0 || (e->kind != EV_RANKING && e->kind != EV_INTERACTION))
        return;
    uint64_t hash = hash_bytes(id, 0);
    arena_reset(&s->joins->arena);
    for (int place = 0; place < s->plan->n_places; place++)
        if (s->plan->places[place].join != NULL)
            join_event(s, place, e, tenant_hash, hash);
}

/* ---- forgetting ---- */

/* When the record may go by the newest clock; *held: some partition of its own is not there yet. */
static int64_t until_of(const struct feat_state *s, const struct feat_join *m, struct slice cell,
                        bool *held, uint64_t *answers, uint64_t *rankings) {
    struct feat_join_reader r;
    struct feat_join_entry e;
    int64_t last_us = 0;
    *held = false;
    *answers = *rankings = 0;
    feat_join_open(cell, &r);
    while (feat_join_next(&r, &e)) {
        int64_t until_us = feat_join_until(m, &e);
        const struct feat_applied *at =
            feat_applied_find(s->applied, s->n_applied, e.stamp.partition);
        *held |= at == NULL || at->clock_us - m->lateness_us <= until_us;
        *answers += !e.is_ranking;
        *rankings += e.is_ranking;
        last_us = until_us > last_us ? until_us : last_us;
    }
    return last_us + m->lateness_us + m->lag_us;
}

static void look_at(struct feat_state *s, struct look l, int64_t newest_us) {
    const struct feat *join = s->plan->places[l.place].join;
    const struct feat_join *m = join->params;
    struct slice bytes = fetch(s, l.key);
    bool held;
    uint64_t answers, rankings;
    if (bytes.n == 0) /* forgotten for the byte budget */
        return;
    l.at_us = until_of(s, m, cell_of(s, join, bytes), &held, &answers, &rankings);
    if (l.at_us >= newest_us || held) {
        if (l.at_us < newest_us)
            l.at_us = newest_us + m->window_us; /* a partition is far behind: later */
        push(s->joins, l);
        return;
    }
    if (rankings == 0)
        s->joins->unjoined += answers;
    s->ops->drop(s->store, FEAT_SCOPE_VALUE, l.key);
}

void feat_joins_forget(struct feat_state *s, int64_t newest_us) {
    for (int i = 0; i < LOOKS_MAX && s->joins->n > 0 && s->joins->heap[0].at_us < newest_us; i++)
        look_at(s, pop(s->joins), newest_us);
}

void feat_joins_found(struct feat_state *s) {
    struct slice bytes;
    for (uint64_t at = 0; s->ops->next(s->store, FEAT_SCOPE_VALUE, &at, &bytes);)
        for (int place = 0; place < s->plan->n_places; place++) {
            const struct feat *join = s->plan->places[place].join;
            if (join != NULL && cell_of(s, join, bytes).n > 0)
                push(s->joins, (struct look){0, feat_record_key(bytes), place});
        }
}
