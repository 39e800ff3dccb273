/* extract.c: rows of one request: the records are looked up once, in groups; then feature by
 * feature over all candidates, so that each kind's code stays hot. Total: what is unknown is NaN
 * or id 0, never an error. Nothing is allocated but from the request's arena. */
#include "features/claim.h"
#include "features/keys.h"
#include "features/state_parts.h"
#include <math.h>

void feat_state_read_begin(struct feat_state *s) {
    if (s->ops->read_begin != NULL)
        s->ops->read_begin(s->store);
    else
        pthread_rwlock_rdlock(&s->lock);
}

enum status feat_state_read_end(struct feat_state *s) {
    if (s->ops->read_end == NULL) {
        pthread_rwlock_unlock(&s->lock);
        return STATUS_OK;
    }
    enum status status = s->ops->read_end(s->store);
    return s->conf.on_unavailable == FEAT_UNAVAILABLE_MISSING ? STATUS_OK : status;
}

bool feat_state_read_failed(struct feat_state *s) {
    return s->ops->failed != NULL && s->ops->failed(s->store);
}

/* out [n]: the bytes of records, empty when unknown. */
static void read_bytes(struct feat_state *s, struct arena *a, enum feat_scope scope,
                       const uint64_t *keys, int n, struct slice *out) {
    if (s->ops->read == NULL) {
        s->ops->fetch(s->store, scope, keys, n, out);
        return;
    }
    struct feat_entity *entities = ARENA_ARRAY(a, struct feat_entity, n);
    struct feat_found *found = ARENA_ARRAY(a, struct feat_found, n);
    for (int i = 0; i < n; i++)
        entities[i] = (struct feat_entity){scope, keys[i]};
    s->ops->read(s->store, entities, n, found);
    for (int i = 0; i < n; i++)
        out[i] = found[i].bytes;
}

struct slice feat_state_bytes(struct feat_state *s, enum feat_scope scope, uint64_t key) {
    const struct feat_entity entity = {scope, key};
    struct feat_found found;
    struct slice bytes;
    if (s->ops->read == NULL) {
        s->ops->fetch(s->store, scope, &key, 1, &bytes);
        return bytes;
    }
    s->ops->read(s->store, &entity, 1, &found);
    return found.bytes;
}

static void view_records(struct feat_state *s, struct arena *a, enum feat_scope scope,
                         const uint64_t *keys, int n,
                         struct feat_record *(*view)(const struct feat_plan *, enum feat_scope,
                                                     struct slice, void *),
                         const struct feat_record **out) {
    size_t view_bytes = feat_record_view_bytes(s->plan, scope);
    struct slice *bytes = arena_alloc(a, (size_t)n * sizeof *bytes);
    read_bytes(s, a, scope, keys, n, bytes);
    char *views = arena_alloc(a, (size_t)n * view_bytes);
    for (int i = 0; i < n; i++)
        out[i] =
            bytes[i].n == 0 ? NULL : view(s->plan, scope, bytes[i], views + (size_t)i * view_bytes);
}

void feat_state_records(struct feat_state *s, struct arena *a, enum feat_scope scope,
                        const uint64_t *keys, int n, const struct feat_record **out) {
    view_records(s, a, scope, keys, n, feat_record_view, out);
}

void feat_state_item_fields(struct feat_state *s, struct arena *a, const uint64_t *keys, int n,
                            const struct feat_record **out) {
    view_records(s, a, FEAT_SCOPE_ITEM, keys, n, feat_record_view_fields, out);
}

const struct feat_record *feat_state_record(struct feat_state *s, struct arena *a,
                                            enum feat_scope scope, uint64_t key) {
    const struct feat_record *r = NULL;
    if (key != 0)
        feat_state_records(s, a, scope, &key, 1, &r);
    return r;
}

const struct feat_record *feat_read_record(const struct feat_read *r, enum feat_scope scope,
                                           int row) {
    if (scope == FEAT_SCOPE_ITEM)
        return row < 0 ? NULL : r->items[row];
    return r->records[scope];
}

bool feat_read_names(const struct feat_read *r, enum feat_scope scope, int row) {
    switch (scope) {
    case FEAT_SCOPE_USER:
        return r->user_key != 0;
    case FEAT_SCOPE_SESSION:
        return r->session_key != 0;
    case FEAT_SCOPE_ITEM:
        return row >= 0 && r->item_keys[row] != 0;
    default:
        return true;
    }
}

int feat_read_cells(const struct feat_read *r, const struct feat *f, int cell, int row,
                    struct slice *out) {
    struct feat_cell_ref ref = f->cells[cell];
    if (ref.scope != FEAT_SCOPE_VALUE) {
        if (!feat_read_names(r, ref.scope, row))
            return 0;
        out[0] = feat_record_cell(feat_read_record(r, ref.scope, row), ref.index);
        return 1;
    }
    const struct feat_spots *spots = &r->spots[f->place];
    int at = r->plan->places[f->place].by_row ? row : 0;
    for (int i = 0; i < spots->n[at]; i++)
        out[i] = feat_record_cell(spots->records[spots->first[at] + i], ref.index);
    return spots->n[at];
}

/* ---- rows ---- */

static const uint64_t *item_keys(struct arena *a, uint64_t tenant,
                                 const struct feat_request *request) {
    if (request->item_keys != NULL)
        return request->item_keys;
    uint64_t *keys = arena_alloc(a, (size_t)request->n_items * sizeof *keys);
    for (int i = 0; i < request->n_items; i++)
        keys[i] = feat_entity_key(tenant, request->items[i]);
    return keys;
}

static void open_read(struct feat_state *s, struct arena *a, const struct feat_request *request,
                      int64_t now_us, struct feat_read *r) {
    uint64_t tenant = feat_tenant_hash(request->tenant);
    *r = (struct feat_read){.plan = s->plan,
                            .request = request,
                            .now_us = now_us,
                            .arena = a,
                            .n_rows = request->n_items,
                            .state = s,
                            .tenant_hash = tenant,
                            .user_key = feat_entity_key(tenant, request->user),
                            .session_key = feat_entity_key(tenant, request->session)};
    r->scratch = ARENA_ARRAY(a, void *, s->plan->n_features);
    r->item_keys = item_keys(a, tenant, request);
    if (s->ops->read != NULL)
        feat_shared_prefetch(s, r);
    r->records[FEAT_SCOPE_GLOBAL] =
        feat_state_record(s, a, FEAT_SCOPE_GLOBAL, feat_global_key(tenant));
    r->records[FEAT_SCOPE_USER] = feat_state_record(s, a, FEAT_SCOPE_USER, r->user_key);
    r->records[FEAT_SCOPE_SESSION] = feat_state_record(s, a, FEAT_SCOPE_SESSION, r->session_key);
    r->items = arena_alloc(a, (size_t)r->n_rows * sizeof *r->items);
    feat_state_records(s, a, FEAT_SCOPE_ITEM, r->item_keys, r->n_rows, r->items);
    r->spots = feat_places_read(r);
}

static float *missing(struct arena *a, size_t n) {
    float *v = arena_alloc_aligned(a, n * sizeof *v);
    for (size_t i = 0; i < n; i++)
        v[i] = NAN;
    return v;
}

/* Since `from_ns`, on a watched state's bill. */
static void bill(const struct feat_state *s, const struct feat *f, int64_t from_ns) {
    if (s->watch.now_ns != NULL)
        s->watch.ns[f->number] += s->watch.now_ns() - from_ns;
}

static void begin_feature(const struct feat_state *s, const struct feat *f, struct feat_read *r) {
    int64_t from_ns = s->watch.now_ns != NULL ? s->watch.now_ns() : 0;
    f->kind->begin(f, r);
    bill(s, f, from_ns);
}

/* Rows that are alike in all that a feature reads of them: same[row] is the first of them. NULL:
 * nothing is known. */
static const int *alike(const struct feat_read *r, const struct feat *f) {
    const bool shares = f->kind->by_cells && f->cells[0].scope == FEAT_SCOPE_VALUE &&
                        r->plan->places[f->place].by_row;
    return shares ? r->spots[f->place].same : NULL;
}

static void extract_feature(const struct feat_state *s, const struct feat *f, struct feat_read *r,
                            struct feat_rows *rows) {
    int64_t from_ns = s->watch.now_ns != NULL ? s->watch.now_ns() : 0;
    if (f->side == FEAT_USER || f->side == FEAT_CONTEXT) {
        f->kind->extract(f, r, -1, rows->query + f->column, rows->query_ids + f->slot);
        bill(s, f, from_ns);
        return;
    }
    float *dense = rows->cand + f->column;
    uint32_t *ids = rows->cand_ids + f->slot;
    const int *same = alike(r, f);
    const size_t columns = (size_t)r->plan->cand_columns;
    for (int row = 0; row < r->n_rows; row++) {
        if (same != NULL && same[row] < row)
            memcpy(dense, rows->cand + (size_t)same[row] * columns + f->column,
                   (size_t)f->n_columns * sizeof *dense);
        else
            f->kind->extract(f, r, row, dense, ids);
        dense += r->plan->cand_columns;
        ids += r->plan->cand_slots;
    }
    bill(s, f, from_ns);
}

void feat_state_extract(struct feat_state *s, struct arena *a, const struct feat_request *request,
                        int64_t now_us, struct feat_rows *out) {
    const struct feat_plan *p = s->plan;
    struct feat_read r;
    open_read(s, a, request, now_us, &r);
    size_t n = (size_t)r.n_rows;
    struct feat_rows rows = {.n_rows = r.n_rows};
    rows.query = missing(a, (size_t)p->query_columns);
    rows.query_ids = ARENA_ARRAY(a, uint32_t, p->query_slots);
    rows.cand = missing(a, n * (size_t)p->cand_columns);
    r.cand = rows.cand;
    rows.cand_ids = ARENA_ARRAY(a, uint32_t, n * (size_t)p->cand_slots);
    for (int i = 0; i < p->n_features; i++)
        if (p->features[i]->kind->begin != NULL)
            begin_feature(s, p->features[i], &r);
    for (int i = 0; i < p->n_features; i++)
        if (p->features[i]->n_columns + p->features[i]->n_slots > 0)
            extract_feature(s, p->features[i], &r, &rows);
    if (r.records[FEAT_SCOPE_USER] != NULL)
        rows.user_epoch = r.records[FEAT_SCOPE_USER]->epoch;
    for (int i = 0; i < r.n_rows; i++)
        rows.n_unknown += r.items[i] == NULL;
    *out = rows;
}
