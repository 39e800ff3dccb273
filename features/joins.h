/* joins.h: rankings and the interactions that answer them, brought together by the ranking's id.
 *
 * An interaction answers a ranking when it names its id, comes no earlier and within the window,
 * and its item was shown there. From this follow, besides what events say themselves:
 * - of a feature with `cascade`, an impression counts once an item at its place or below it has
 *   been answered, as at the ranking's own time;
 * - of a feature with `attribution`, an interaction counts when it answers some ranking.
 * Both only ever grow with the set of events: so what an event adds is what follows with it and
 * did not follow before, whichever of the two came first.
 *
 * What waits under an id is the cell of a feature of kind join, in a record of FEAT_SCOPE_VALUE:
 *     n varint | n rankings x (stamp | length varint | event) | answers x (stamp | item key u64 |
 *     length varint | event)                       each sorted by stamp; event: join_events.c */
#pragma once
#include "features/codec.h"
#include "features/plan.h"
#include "features/state.h"

struct node;

/* What several rankings or interactions under one id may be: more is a mistake or an attack. */
#define FEAT_JOIN_RANKINGS_MAX 8
#define FEAT_JOIN_ANSWERS_MAX  1024

struct feat_join { /* params of kind join */
    int64_t window_us, lag_us, lateness_us;
    bool tells_seen, tells_answers; /* some feature asks */
    bool keeps_fields;              /* some feature asks for fields of the events */
};

struct feat_join_entry {
    bool is_ranking;
    struct feat_stamp stamp;
    uint64_t item_key;  /* of an interaction */
    struct slice event; /* empty: not kept */
};
struct feat_join_reader {
    struct cursor c;
    uint64_t rankings; /* left */
};
void feat_join_open(struct slice cell, struct feat_join_reader *r);
bool feat_join_next(struct feat_join_reader *r, struct feat_join_entry *out);
void feat_join_put(const struct feat_join_entry *e, struct buf *out);
/* What other features may ask of an event later on, and the event once more: its id, and fields if
 * nobody asks for them, are not there. False: the bytes are damaged. Arena memory, and the entry's.
 */
void feat_join_encode(const struct feat_join *m, const struct ev_event *e, struct buf *out);
bool feat_join_decode(const struct feat_join *m, struct arena *a, const struct feat_join_entry *e,
                      struct ev_event *out);
/* Until when something that comes may concern it. */
int64_t feat_join_until(const struct feat_join *m, const struct feat_join_entry *e);

/* The settings cascade and attribution of a feature, after its kind's own. */
enum status feat_join_claim(struct feat_plan *p, struct feat *f, const struct node *map);

/* ---- joins.c: of a state with one writer ---- */

struct feat_joins;
struct feat_joins *feat_joins_new(const struct feat_plan *p); /* NULL: the plan has none */
void feat_joins_free(struct feat_joins *w);
/* After a ranking or interaction went where it says itself. */
void feat_joins_event(struct feat_state *s, const struct ev_event *e, uint64_t tenant_hash);
/* Forgets what nothing can concern any more. newest_us: the greatest event time seen. */
void feat_joins_forget(struct feat_state *s, int64_t newest_us);
/* Records were put into the store from elsewhere. */
void feat_joins_found(struct feat_state *s);
void feat_joins_size(const struct feat_joins *w, struct feat_state_size *out); /* w: NULL is fine */
