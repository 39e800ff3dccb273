/* shares.h: sums over items (scope item.FIELD) in a store that several processes write. Whoever
 * changes an item changes the sums of the values it bears, and a store can do both at once only
 * where they lie together. So a value has a share in every bucket of such a store: the sum over
 * that bucket's items. Whoever reads the value adds its shares up.
 *
 * The key of a sum ("whole") has 52 bits, spread over all; a share's key has the same 52 and,
 * before them, what puts it into its bucket. */
#pragma once
#include "base/buf.h"
#include "features/record.h"
#include "features/state.h"

/* Of n buckets the one where an entity lies. */
int feat_bucket_of(enum feat_scope scope, uint64_t key, int n_buckets);
uint64_t feat_sum_key(uint64_t hash); /* whole */
uint64_t feat_share_key(uint64_t whole, int bucket, int n_buckets);
uint64_t feat_share_whole(uint64_t share, int n_buckets);

/* Does a record of FEAT_SCOPE_VALUE hold a sum over items? */
bool feat_record_is_sum(const struct feat_state *s, const struct feat_record *r);
/* Appends the record of a sum with another one's cells added (sign 1) or taken away (sign -1).
 * Empty bytes: nothing is known. */
void feat_sum_add(const struct feat_state *s, struct arena *a, uint64_t key, struct slice record,
                  struct slice other, int sign, struct buf *out);
/* feat_state_records for whole keys of sums. */
void feat_state_sums(struct feat_state *s, struct arena *a, const uint64_t *keys, int n,
                     const struct feat_record **out);
