/* joins.h: rankings and the interactions that answer them, brought together by the ranking's id.
 *
 * An interaction answers a ranking of the same source partition when it names its id, comes no
 * earlier and within the window, and its item was shown there. From this follow, besides what
 * events say themselves:
 * - of a feature with `cascade`, an impression counts once an item at its place or below it has
 *   been answered, as at the ranking's own time;
 * - of a feature with `attribution`, an interaction counts when it answers some ranking.
 * Both only ever grow with the events: so what an event adds is what follows with it and did not
 * follow before, whichever of the two came first.
 *
 * A partition's events come in one order, and what they mean together is a function of them alone.
 * So what follows from the event at an offset is known from what waits with lesser offsets, and
 * that can be read from any later version of the record: it can be worked out again, after a batch
 * that was half written, and goes into other records as the event itself does, once.
 *
 * What waits under an id is a record of FEAT_SCOPE_RANKING, with a cell for each feature of kind
 * join:
 *     n varint | n rankings x (stamp | length varint | event) | answers x (stamp | item key u64 |
 *     length varint | event)                       each sorted by stamp; event: join_events.c
 * An entry is alive while an event that its partition may yet apply can have to do with it; one
 * that is not is as good as not there, wherever that could be seen. */
#pragma once
#include "features/codec.h"
#include "features/plan.h"
#include "features/state.h"

struct node;

/* What several rankings or interactions under one id may be: more is a mistake or an attack. */
#define FEAT_JOIN_RANKINGS_MAX 8
#define FEAT_JOIN_ANSWERS_MAX  1024

struct feat_join { /* params of kind join */
    int64_t window_us, lateness_us;
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
    int64_t before;    /* offset: entries from there on are passed over */
};
void feat_join_open(struct slice cell, int64_t before, struct feat_join_reader *r);
bool feat_join_next(struct feat_join_reader *r, struct feat_join_entry *out);
void feat_join_put(const struct feat_join_entry *e, struct buf *out);
/* Is there room for one more of its sort? Asked of what was there before offset `before`. */
bool feat_join_has_room(const struct feat_join *m, struct slice cell, int64_t before,
                        int64_t floor_us, bool is_ranking);
/* What other features may ask of an event later on, and the event once more: its id, and fields if
 * nobody asks for them, are not there. False: the bytes are damaged. Arena memory, and the entry's.
 */
void feat_join_encode(const struct feat_join *m, const struct ev_event *e, struct buf *out);
bool feat_join_decode(const struct feat_join *m, struct arena *a, const struct feat_join_entry *e,
                      struct ev_event *out);

/* The settings cascade and attribution of a feature, after its kind's own. */
enum status feat_join_claim(struct feat_plan *p, struct feat *f, const struct node *map);
/* The longest window of the plan's joins. */
int64_t feat_joins_window_us(const struct feat_plan *p);

/* ---- joins.c: of a state. Only its writer ---- */

struct feat_joins;
struct feat_joins *feat_joins_new(const struct feat_plan *p); /* NULL: the plan has none */
void feat_joins_free(struct feat_joins *w);
/* After a ranking or interaction went where it says itself. */
void feat_joins_event(struct feat_state *s, const struct ev_event *e, uint64_t tenant_hash);

/* ---- join_looks.c: forgetting what is not alive any more ---- */

struct feat_join_looks;
struct feat_join_looks *feat_join_looks_new(void);
void feat_join_looks_free(struct feat_join_looks *l);
/* A record that is to be looked at once nothing of its partition is older than at_us. */
void feat_joins_note(struct feat_state *s, int32_t partition, uint64_t key, int64_t at_us);
/* In memory, after a micro-batch: drops some of those records. Returns what the list takes. */
uint64_t feat_joins_forget(struct feat_state *s);
/* Records were put into the store from elsewhere. */
void feat_joins_found(struct feat_state *s);
/* In a shared store, around one micro-batch, by the clocks of its beginning: chooses, drops in each
 * attempt, and keeps what could not be dropped. */
void feat_joins_begin(struct feat_state *s);
void feat_joins_look(struct feat_state *s);
void feat_joins_end(struct feat_state *s, bool done);
/* In a shared store, between micro-batches: notes some of what other writers left. */
void feat_joins_sweep(struct feat_state *s);
/* The clock by which the entries of a record's cell are alive or not: its partition's. */
int64_t feat_joins_clock(const struct feat_state *s, struct slice cell);
void feat_joins_size(const struct feat_joins *w, struct feat_state_size *out); /* w: NULL is fine */
