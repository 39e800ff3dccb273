/* state_parts.h: the inside of struct feat_state, for state.c, extract.c, snapshot.c and dump.c.
 *
 * The memory store keeps ONE applied offset per partition: state and offsets live and die together
 * in it, and a micro-batch becomes visible as a whole. A store that several processes write and
 * that outlives them keeps more (store_redis_parts.h); state_shared.c works with it. */
#pragma once
#include <pthread.h>
#include <stdatomic.h>
#include "base/buf.h"
#include "features/joins.h"
#include "features/kind.h"
#include "features/record.h"
#include "features/store.h"

/* The cells of a scope that an item or user event, a ranking, or an interaction can change, or what
 * a join finds: impressions that were seen, interactions that answer. */
enum {
    FEAT_MOVED_BY_FACT,
    FEAT_MOVED_BY_RANKING,
    FEAT_MOVED_BY_INTERACTION,
    FEAT_MOVED_BY_SEEN,
    FEAT_MOVED_BY_ANSWER,
    FEAT_MOVED
};
struct feat_movers {
    int *cells; /* [n] ascending */
    int n;
};

struct feat_joins {
    struct arena arena; /* of one event */
    struct buf old;     /* the record before it */
    int64_t window_us;  /* the longest */
    struct feat_join_looks *looks;
};

struct feat_state {
    const struct feat_plan *plan;
    const struct feat_store_ops *ops;
    struct feat_store *store;
    const struct feat *
        *cells[FEAT_SCOPES]; /* [n_cells]: the feature that owns each; cell 0: NULL */

    struct feat_movers movers[FEAT_SCOPES][FEAT_MOVED];
    struct { /* what making rows costs, where somebody asked */
        int64_t (*now_ns)(void);
        int64_t *ns; /* [n_features] */
    } watch;
    struct feat_store_conf conf;
    int n_shares; /* of a sum over items: as many as buckets; 0: sums are whole (shares.h) */

    /* Around store and applied: held for writing during one micro-batch, for reading between
     * feat_state_read_begin and _end. Writers go first, or busy readers would starve them. */
    pthread_rwlock_t lock;
    struct feat_applied *applied; /* [n_applied] sorted by partition */
    int n_applied, cap_applied;
    char *log; /* whose offsets they are, a topic's name or FEAT_LOG_FILE; NULL: nobody said */

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
    struct feat_joins *joins;        /* NULL: the plan has none */

    /* of the event that is applied */
    struct ev_source source;
    int64_t floor_us;  /* no event of its partition that is applied from now on is older */
    int64_t forget_us; /* the same as of the micro-batch's beginning */

    /* a shared store's writer */
    struct feat_applied *next; /* [n_next] where the micro-batch leads */
    struct feat_applied *to;   /* [n_to] the partitions of it that are in the micro-batch */
    enum feat_verdict *judged; /* [cap_judged] */
    int64_t *clocks_us;        /* [cap_judged] the partition's, with the event */
    bool collecting;           /* records are only named, and nothing is known of any */
    int n_next, cap_next, n_to, cap_judged;
    struct arena positions;
    int64_t verified_us; /* when all was known to be there */
    atomic_bool interrupted;
};

/* ---- state.c, for state_shared.c ---- */

/* What an event is as seen from its partition, which moves on to it. Changes no record. */
enum feat_verdict feat_state_judge(const struct feat_plan *p, struct feat_applied *from,
                                   const struct ev_event *e);
/* Into every record the event names, whatever its offset. */
void feat_state_apply_event(struct feat_state *s, const struct ev_event *e);
/* One update of a ranking or interaction into all records it is about. */
void feat_state_spread(struct feat_state *s, struct feat_update u, uint64_t tenant_hash);

/* ---- state_shared.c: the same calls on a shared store ---- */

enum status feat_shared_apply(struct feat_state *s, const struct ev_event *events, int n,
                              enum feat_verdict *verdicts);
enum status feat_shared_skip(struct feat_state *s, struct ev_source source);
enum status feat_shared_resume(struct feat_state *s);
bool feat_shared_reached(struct feat_state *s, struct ev_source source);
/* Brings a request's records near in one round trip. */
void feat_shared_prefetch(struct feat_state *s, struct feat_read *r);

/* The bytes of a record, empty when unknown. Between read_begin and _end. */
struct slice feat_state_bytes(struct feat_state *s, enum feat_scope scope, uint64_t key);

/* ---- edit.c ---- */

void feat_movers_init(struct feat_state *s);
void feat_movers_deinit(struct feat_state *s);

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
/* The same of items, whose remembered fields alone are wanted: their counts are not there. */
void feat_state_item_fields(struct feat_state *s, struct arena *a, const uint64_t *keys, int n,
                            const struct feat_record **out);
