/* kind.h: the contract of a feature kind: one file in kinds/ and one line in kinds.def.
 *
 * A kind's state is a *cell*: bytes it alone understands. It must be a function of the SET of
 * events applied, never of their order: whole-number counts per event-time bucket, greatest-N by
 * (event time, item, value), last writer by (event time, partition, offset). Then a restart, a
 * rebalance or a replay gives the same bytes.
 *
 * apply() never reads other entities. extract may. Neither allocates but from the given arena. */
#pragma once
#include "base/buf.h"
#include "features/plan.h"
#include "features/state.h"

/* One event as seen by one cell: an interaction, or those impressions of a ranking in which the
 * entity takes part. */
struct feat_update {
    const struct ev_event *event;
    const int *shown;        /* [n] indexes into event->shown; NULL when the event is no ranking */
    int n;                   /* happenings: impressions, or 1 */
    enum feat_scope scope;   /* which of the feature's cells this is */
    const struct feat *join; /* it follows from this join (joins.h), not from the event alone; or
                                NULL */
    /* Of a record of FEAT_SCOPE_RANKING: the least time an event of the partition that is applied
     * from here on can have, as of this event, and as of the micro-batch's beginning. */
    int64_t floor_us, forget_us;
    uint64_t user_key;         /* 0: none */
    const uint64_t *item_keys; /* by index into event->shown; [1] of an interaction */
};
/* Happening i of u->n: the impression (NULL of an interaction), and its item's key (0: none). */
static inline const struct ev_shown *feat_update_shown(const struct feat_update *u, int i) {
    return u->shown == NULL ? NULL : &u->event->shown[u->shown[i]];
}
static inline uint64_t feat_update_item(const struct feat_update *u, int i) {
    return u->item_keys[u->shown == NULL ? 0 : u->shown[i]];
}
/* How many of the happenings match. */
uint64_t feat_match_count(const struct feat_match *m, const struct feat_update *u);

/* What extract sees: one request's view of the state. */
struct feat_read {
    const struct feat_plan *plan;
    const struct feat_request *request;
    int64_t now_us;
    struct arena *arena;
    const struct feat_record *records[FEAT_SCOPES]; /* global, user, session: NULL when unknown */
    const struct feat_record **items; /* [n_rows] candidates' records, NULL: unknown */
    int n_rows;
    uint64_t tenant_hash, user_key, session_key; /* keys: 0 when the request names none */
    const uint64_t *item_keys;                   /* [n_rows] */
    struct feat_state *state;                    /* for records of other items (match of last-N) */
    void **scratch;                 /* [n_features] what begin() left for its feature */
    const struct feat_spots *spots; /* [n_places] records of FEAT_SCOPE_VALUE, by row */
    const float *cand; /* [n_rows x cand_columns] what features before this one have written */
};

/* The records of one place that rows read. */
struct feat_spots {
    const struct feat_record **records; /* [] NULL: unknown */
    int *first, *n; /* [n_rows], or [1] when rows do not differ: which of them; n 0: no value */
    int *same;      /* as many: the first row with these very records, maybe the row itself */
};

/* A setting that is no more, and what is to be done. */
struct feat_gone {
    const char *key, *why;
};

struct feat_kind {
    const char *name;
    const char *doc;
    const struct conf_item *params; /* settings table of the kind */
    size_t params_bytes;
    const struct feat_gone *gone; /* up to a key of NULL; or NULL */
    /* Declares tables and refers to no feature: checked before the kinds that do not say so, so
     * that a plan may name a table above the feature that makes it. */
    bool checked_first;
    /* Of an event, apply reads its time, and otherwise only what conditions ask. */
    bool matches_only;
    /* Of a row, extract reads the feature's first cells only: rows with the same ones are alike. */
    bool by_cells;
    /* Validates params, sets side, widths, cells, table. Names the key in errors. */
    enum status (*check)(struct feat_plan *plan, struct feat *f);
    /* Appends the cell's new bytes to `out` and returns true, or returns false and leaves `out`
     * when the event changes nothing. `old` is empty for a fresh cell. NULL: stateless. */
    bool (*apply)(const struct feat *f, const struct feat_update *u, struct slice old,
                  struct buf *out);
    /* Appends the cell with another one added (sign 1) or taken away again (sign -1); nothing when
     * nothing is left. A scope item.FIELD adds up its items' cells. NULL: cells do not add up. */
    void (*merge)(const struct feat *f, struct slice cell, struct slice other, int sign,
                  struct buf *out);
    /* Appends what an item with these remembered fields adds to each of its values' cells, where
     * that is not a cell of the item's own. Optional. */
    void (*contribute)(const struct feat *f, const struct feat_record *item, struct buf *out);
    /* Once per request, before the rows; leaves its work in r->scratch[f->number]. Optional. */
    void (*begin)(const struct feat *f, struct feat_read *r);
    /* Query-side features: called once with row -1. Candidate-side: once per row.
     * dense [f->n_columns] starts as NaN, ids [f->n_slots] as 0. */
    void (*extract)(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids);
    /* Appends the canonical bytes of `cell` as of `now_us`: what no reader at or after now_us, and
     * no late event within the lateness, can see any more is left out. NULL: the bytes as they are.
     */
    void (*expire)(const struct feat *f, int64_t now_us, struct slice cell, struct buf *out);
};

#define FEAT_KIND(name) extern const struct feat_kind feat_kind_##name;
#include "features/kinds.def"
#undef FEAT_KIND
/* All kinds, in kinds.def's order, NULL-ended. */
extern const struct feat_kind *const feat_kinds[];
const struct feat_kind *feat_kind_find(struct slice name);

/* Helpers for kinds. */
struct slice feat_record_cell(const struct feat_record *rec,
                              int index); /* empty when rec is NULL */
/* Remembered fields of a record; false or 0 when absent. */
bool feat_record_number(const struct feat_record *rec, int slot, enum feat_form form, double *out);
int feat_record_ids(const struct feat_record *rec, int slot, uint64_t *out /* [FEAT_IDS_MAX] */);
int feat_record_ids_most(const struct feat_record *rec, int slot); /* not fewer, and not read */
int feat_record_hashes(const struct feat_record *rec, int slot, enum feat_form form,
                       uint32_t *out /* [FEAT_TERMS_MAX] */);
int feat_record_vector(const struct feat_record *rec, int slot,
                       double *out /* [FEAT_VECTOR_MAX] */);
/* A source's value for row `row` (or the query, -1), in the source's form. */
bool feat_source_number(const struct feat_source *s, const struct feat_read *r, int row,
                        double *out);
int feat_source_ids(const struct feat_source *s, const struct feat_read *r, int row, uint64_t *out);
int feat_source_hashes(const struct feat_source *s, const struct feat_read *r, int row,
                       uint32_t *out);
int feat_source_vector(const struct feat_source *s, const struct feat_read *r, int row,
                       double *out);
/* A context field of the request, or NULL. */
const struct ev_value *feat_source_context(const struct feat_source *s, const struct feat_read *r);
