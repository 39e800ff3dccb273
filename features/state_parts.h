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
    struct buf record, cell, other;
    void *views[FEAT_SCOPES];
    uint64_t *shown_keys; /* [EV_SHOWN_MAX] */
};

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
