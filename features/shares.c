/* shares.c: keys of sums over items and of their shares, and adding them up. Writing is in
 * places.c, which knows nothing of shares but their keys. */
#include "features/shares.h"
#include "base/hash.h"
#include "features/keys.h"
#include "features/state_parts.h"

#define SUM_MASK ((1ull << 52) - 1)

/* Keys of values are mixed already; those of shares must lie where they say. */
int feat_bucket_of(enum feat_scope scope, uint64_t key, int n_buckets) {
    uint64_t mixed = scope == FEAT_SCOPE_VALUE ? key : hash_mix(key, scope);
    return (int)((mixed >> 32) * (uint64_t)n_buckets >> 32);
}

uint64_t feat_sum_key(uint64_t hash) {
    uint64_t plain = hash & SUM_MASK;
    return feat_key_spread(plain == 0 ? 1 : plain);
}

/* The least upper half of a key in the bucket. A bucket has 2^20 of them or more. */
static uint64_t first_of(int bucket, int n_buckets) {
    return (((uint64_t)bucket << 32) + (uint64_t)n_buckets - 1) / (uint64_t)n_buckets;
}

uint64_t feat_share_key(uint64_t whole, int bucket, int n_buckets) {
    return feat_key_plain(whole) + (first_of(bucket, n_buckets) << 32);
}

uint64_t feat_share_whole(uint64_t share, int n_buckets) {
    int bucket = feat_bucket_of(FEAT_SCOPE_VALUE, share, n_buckets);
    return feat_key_spread(share - (first_of(bucket, n_buckets) << 32));
}

bool feat_record_is_sum(const struct feat_state *s, const struct feat_record *r) {
    for (int i = 1; i < r->n_cells; i++)
        if (r->cells[i].n > 0)
            return s->plan->places[s->cells[FEAT_SCOPE_VALUE][i]->place].sums;
    return false;
}

static const struct feat_record *cells_of(const struct feat_state *s, struct arena *a,
                                          struct slice bytes) {
    size_t n = feat_record_view_bytes(s->plan, FEAT_SCOPE_VALUE);
    return bytes.n == 0 ? NULL
                        : feat_record_cells(s->plan, FEAT_SCOPE_VALUE, bytes, arena_alloc(a, n));
}

void feat_sum_add(const struct feat_state *s, struct arena *a, uint64_t key, struct slice record,
                  struct slice other, int sign, struct buf *out) {
    const struct slice nothing = {NULL, 0};
    const struct feat_record *x = cells_of(s, a, record), *y = cells_of(s, a, other);
    struct buf sum = {0};
    int empty = 0;
    feat_record_put_head(out, FEAT_SCOPE_VALUE, key, 0, nothing, nothing);
    for (int i = 0; i < s->plan->n_cells[FEAT_SCOPE_VALUE]; i++) {
        const struct feat *f = s->cells[FEAT_SCOPE_VALUE][i];
        struct slice cell = feat_record_cell(x, i), more = feat_record_cell(y, i);
        if (more.n > 0 && f != NULL && f->kind->merge != NULL) {
            buf_clear(&sum);
            f->kind->merge(f, cell, more, sign, &sum);
            cell = buf_slice(&sum);
        }
        feat_record_put_cell(out, cell, &empty);
    }
    buf_deinit(&sum);
}

/* Adds a share's cells to sums [n_cells]. */
static void add_cells(const struct feat_state *s, const struct feat_record *share, struct buf *sums,
                      struct buf *spare) {
    for (int i = 1; share != NULL && i < share->n_cells; i++) {
        struct slice more = feat_record_cell(share, i);
        const struct feat *f = s->cells[FEAT_SCOPE_VALUE][i];
        if (more.n == 0 || f->kind->merge == NULL)
            continue;
        buf_clear(spare);
        f->kind->merge(f, buf_slice(&sums[i]), more, 1, spare);
        struct buf swap = sums[i];
        sums[i] = *spare;
        *spare = swap;
    }
}

/* One value's shares, added up; empty: it has none. sums [n_cells] and spare: scratch. */
static struct slice add_up(const struct feat_state *s, struct arena *a, uint64_t key,
                           const struct feat_found *shares, int n, struct buf *sums,
                           struct buf *spare) {
    const struct slice nothing = {NULL, 0};
    const struct feat_plan *p = s->plan;
    void *view = arena_alloc(a, feat_record_view_bytes(p, FEAT_SCOPE_VALUE));
    int empty = 0, known = 0;
    for (int i = 0; i < p->n_cells[FEAT_SCOPE_VALUE]; i++)
        buf_clear(&sums[i]);
    for (int i = 0; i < n; i++) {
        if (shares[i].bytes.n == 0)
            continue;
        known++;
        add_cells(s, feat_record_cells(p, FEAT_SCOPE_VALUE, shares[i].bytes, view), sums, spare);
    }
    buf_clear(spare);
    feat_record_put_head(spare, FEAT_SCOPE_VALUE, key, 0, nothing, nothing);
    for (int i = 0; i < p->n_cells[FEAT_SCOPE_VALUE]; i++)
        feat_record_put_cell(spare, buf_slice(&sums[i]), &empty);
    return known == 0 ? nothing : arena_dup(a, buf_slice(spare));
}

/* Perhaps it was made before. */
static bool find_sum(struct feat_state *s, struct arena *a, uint64_t key,
                     const struct feat_record **out) {
    struct slice bytes;
    if (s->ops->sum_find == NULL || !s->ops->sum_find(s->store, key, &bytes))
        return false;
    *out = cells_of(s, a, bytes);
    return true;
}

void feat_state_sums(struct feat_state *s, struct arena *a, const uint64_t *keys, int n,
                     const struct feat_record **out) {
    int n_shares = s->n_shares;
    if (n_shares == 0) {
        feat_state_records(s, a, FEAT_SCOPE_VALUE, keys, n, out);
        return;
    }
    int n_cells = s->plan->n_cells[FEAT_SCOPE_VALUE], n_lack = 0;
    int *lack = ARENA_ARRAY(a, int, n);
    for (int i = 0; i < n; i++)
        if (!find_sum(s, a, keys[i], &out[i]))
            lack[n_lack++] = i;
    if (n_lack == 0)
        return;
    size_t n_read = (size_t)n_lack * (size_t)n_shares;
    struct feat_entity *e = arena_alloc(a, n_read * sizeof *e);
    struct feat_found *found = arena_alloc(a, n_read * sizeof *found);
    for (int i = 0; i < n_lack; i++)
        for (int b = 0; b < n_shares; b++)
            e[i * n_shares + b] =
                (struct feat_entity){FEAT_SCOPE_VALUE, feat_share_key(keys[lack[i]], b, n_shares)};
    s->ops->read(s->store, e, (int)n_read, found);
    struct buf *sums = ARENA_ARRAY(a, struct buf, n_cells), spare = {0};
    for (int i = 0; i < n_lack; i++) {
        struct slice bytes =
            add_up(s, a, keys[lack[i]], found + i * n_shares, n_shares, sums, &spare);
        out[lack[i]] = cells_of(s, a, bytes);
        if (s->ops->sum_keep != NULL)
            s->ops->sum_keep(s->store, keys[lack[i]], bytes);
    }
    for (int i = 0; i < n_cells; i++)
        buf_deinit(&sums[i]);
    buf_deinit(&spare);
}
