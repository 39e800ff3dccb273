/* past.h: the state as one reader of a shared store saw it, made again in memory.
 *
 * In a shared store a micro-batch becomes visible record by record. What a section of reads has
 * seen is therefore: in every record all events up to `applied`; in the records of
 * feat_state_ahead, of the partitions named there, also those up to the offset given there. Both
 * are known exactly, and both are logged. A past is a state that reads as that: as `base`, which is
 * in memory and stands at `applied`, but for a few records that have more. Nothing of `base` is
 * changed. One thread. */
#pragma once
#include "features/state.h"

struct feat_past;
/* Both must outlive it. n_buckets: of the shared store (state.redis_buckets); 0: there was none. */
struct feat_past *feat_past_new(const struct feat_plan *plan, struct feat_state *base,
                                int n_buckets);
void feat_past_free(struct feat_past *p); /* NULL is fine */
/* Forgets what was ahead; from now on these records [n] are, borrowed until the next call. */
void feat_past_begin(struct feat_past *p, const struct feat_ahead *ahead, int n);
/* Partitions and offsets up to which events are wanted, those after base's. */
int feat_past_wanted(const struct feat_past *p, struct arena *a, const struct feat_applied **out);
/* One event, decoded, of a partition's from base's offset on, in their order. */
void feat_past_event(struct feat_past *p, const struct ev_event *e);
/* To be read from, and nothing else. */
struct feat_state *feat_past_state(struct feat_past *p);
