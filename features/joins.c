/* joins.c: what follows from a ranking and an interaction together (joins.h), worked out when the
 * later of the two is applied, from what waits under the ranking's id with lesser offsets: so it is
 * the same as often as it is asked for, and the end is the same whichever came first.
 *
 * What follows from one record is written into others. In a store with several writers a record is
 * known only when it has been loaded, and so which others it leads to (feat_store_ops.more); that
 * is all that is special there. A read sees it with the event that brought it about, never before.
 *
 * Deliberately within one partition: what two partitions' events mean together depended on which
 * of them was read first. Forgetting is in join_looks.c. */
#include "features/joins.h"
#include "base/hash.h"
#include "base/heap.h"
#include "features/keys.h"
#include "features/state_parts.h"

#define RANKING_SEED 0x72616e6b696e67ull

struct feat_joins *feat_joins_new(const struct feat_plan *p) {
    if (!p->joins)
        return NULL;
    struct feat_joins *w = HEAP_NEW(struct feat_joins);
    arena_init(&w->arena, 0);
    w->window_us = feat_joins_window_us(p);
    w->looks = feat_join_looks_new();
    return w;
}

void feat_joins_free(struct feat_joins *w) {
    if (w == NULL)
        return;
    arena_deinit(&w->arena);
    buf_deinit(&w->old);
    feat_join_looks_free(w->looks);
    heap_free(w);
}

static uint64_t key_of(uint64_t tenant_hash, int32_t partition, uint64_t id) {
    uint64_t key = hash_mix(hash_mix(id, feat_global_key(tenant_hash)), (uint64_t)partition);
    return key == 0 ? 1 : key;
}

/* The record as it is, which edits then change; empty: there is none. */
static struct slice keep_old(struct feat_state *s, uint64_t key) {
    struct feat_joins *w = s->joins;
    struct slice bytes;
    s->ops->fetch(s->store, FEAT_SCOPE_RANKING, &key, 1, &bytes);
    buf_clear(&w->old);
    buf_add(&w->old, bytes.p, bytes.n);
    return buf_slice(&w->old);
}

/* ---- what follows ---- */

struct join_work { /* of one event and one join */
    struct feat_state *s;
    const struct feat *join;
    const struct feat_join *conf;
    uint64_t tenant_hash;
    int64_t before; /* offset of the event */
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
    feat_join_open(j->old, j->before, &r);
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
    feat_join_open(j->old, j->before, &r);
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
    feat_join_open(j->old, j->before, &r);
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
    struct feat_state *s = j->s;
    if (!feat_join_has_room(j->conf, j->old, j->before, s->floor_us, e->kind == EV_RANKING))
        return; /* it does not wait either, or the next would count the same again */
    if (e->kind == EV_RANKING) {
        for (int i = 0; i < e->n_shown; i++)
            s->shown_keys[i] = feat_entity_key(j->tenant_hash, e->shown[i].item);
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

void feat_joins_event(struct feat_state *s, const struct ev_event *e, uint64_t tenant_hash) {
    struct slice id = e->kind == EV_RANKING ? e->id : e->ranking;
    if (id.n == 0 || (e->kind != EV_RANKING && e->kind != EV_INTERACTION))
        return;
    const int32_t partition = e->source.partition;
    uint64_t key = key_of(tenant_hash, partition, hash_bytes(id, RANKING_SEED));
    uint64_t item_key = feat_entity_key(tenant_hash, e->item);
    struct slice old = keep_old(s, key);
    if (s->collecting || old.n == 0)
        feat_joins_note(s, partition, key,
                        e->event_time_us + (e->kind == EV_RANKING ? s->joins->window_us : 0));
    struct feat_update u = {.event = e,
                            .n = 1,
                            .scope = FEAT_SCOPE_RANKING,
                            .item_keys = &item_key,
                            .floor_us = s->floor_us,
                            .forget_us = s->forget_us};
    feat_state_edit(s, &u, -1, key, (struct slice){NULL, 0});
    if (s->collecting)
        return;
    const struct feat_record *r = old.n == 0 ? NULL
                                             : feat_record_cells(s->plan, FEAT_SCOPE_RANKING, old,
                                                                 s->views[FEAT_SCOPE_RANKING]);
    for (int i = 1; i < s->plan->n_cells[FEAT_SCOPE_RANKING]; i++) {
        const struct feat *join = s->cells[FEAT_SCOPE_RANKING][i];
        const struct join_work j = {
            s, join, join->params, tenant_hash, e->source.offset, feat_record_cell(r, i)};
        arena_reset(&s->joins->arena);
        follow(&j, e);
    }
}
