/* state_parts.h: the inside of struct feat_state, for state.c, extract.c, snapshot.c and dump.c.
 *
 * The memory store keeps ONE applied offset per partition: state and offsets live and die together
 * in it, and a micro-batch becomes visible as a whole. A vector per entity would only be needed in
 * a store that several processes write and that outlives them. */
#pragma once
#include <pthread.h>
#include "base/buf.h"
#include "features/kind.h"
#include "features/record.h"
#include "features/store.h"

struct feat_state {
    const struct feat_plan *plan;
    const struct feat_store_ops *ops;
    struct feat_store *store;
    const struct feat *
        *cells[FEAT_SCOPES]; /* [n_cells]: the feature that owns each; cell 0: NULL */

    /* Around store and applied: held for writing during one micro-batch, for reading between
     * feat_state_read_begin and _end. Writers go first, or busy readers would starve them. */
    pthread_rwlock_t lock;
    struct feat_applied *applied; /* [n_applied] sorted by partition */
    int n_applied, cap_applied;

    /* A copy of the offsets for feat_state_wait; never taken together with `lock`. */
    pthread_mutex_t wait_lock;
    pthread_cond_t wait_changed;
    struct feat_applied *published; /* [n_published] */
    int n_published, cap_published;

    /* the writer's scratch */
    struct buf record, cell;
    void *views[FEAT_SCOPES];
    uint64_t *shown_keys;            /* [EV_SHOWN_MAX] */
    int *shown_all;                  /* [EV_SHOWN_MAX] 0, 1, 2, ... */
    struct feat_places_work *places; /* of crossed scopes; NULL until needed */
};

/* ---- state.c, for places.c ---- */

/* One record after one event: u->scope and key say which. `place`: of a record of
 * FEAT_SCOPE_VALUE, whose cells the other places' features leave alone; -1 otherwise. */
void feat_state_edit(struct feat_state *s, const struct feat_update *u, int place, uint64_t key,
                     struct slice id);

/* ---- places.c: records of FEAT_SCOPE_VALUE, which stand for values and pairs ---- */

/* An interaction or a ranking, after its items' records. */
void feat_places_event(struct feat_state *s, const struct feat_update *u);
/* Around the edit of an item by an item event: what it adds to its values' sums may change. */
void feat_places_before(struct feat_state *s, uint64_t item_key);
void feat_places_after(struct feat_state *s, const struct feat_update *u, uint64_t item_key);
void feat_places_deinit(struct feat_state *s);
/* The records that a request's rows read: [n_places], arena memory. r->records and r->items are
 * there already. */
const struct feat_spots *feat_places_read(struct feat_read *r);
/* Key of a value's record in a place that sums over items; value 0: the total. */
uint64_t feat_place_value_key(const struct feat_place *pl, uint64_t tenant_hash, uint64_t value);

/* The partition's entry, or NULL. */
struct feat_applied *feat_applied_find(struct feat_applied *applied, int n, int32_t partition);
/* The partition's entry, added when missing. Under the write lock. */
struct feat_applied *feat_applied_entry(struct feat_state *s, int32_t partition);
/* Copies the offsets for waiters and wakes them. Holding no lock. */
void feat_state_publish(struct feat_state *s);
/* A view of one record in arena memory, NULL when unknown. Between read_begin and _end. */
const struct feat_record *feat_state_record(struct feat_state *s, struct arena *a,
                                            enum feat_scope scope, uint64_t key);
/* The same for many: out [n]. */
void feat_state_records(struct feat_state *s, struct arena *a, enum feat_scope scope,
                        const uint64_t *keys, int n, const struct feat_record **out);
