/* past.c: a store over a store: what is put is kept here, what is not found here is fetched there.
 * It admits an event to a record that is ahead and had it, and to no other; what waits in joins
 * follows every event, and tells what an event means for those records.
 *
 * A share of a sum over items (shares.h) that was ahead has seen the items of its bucket as they
 * were then, which is not as the reader saw them. So it is made in a layer of its own, where just
 * those items and the share move on; and what it has more than the base is added to the sum. */
#include "features/past.h"
#include "base/hash.h"
#include "base/heap.h"
#include "base/map.h"
#include "features/keys.h"
#include "features/shares.h"
#include "features/state_parts.h"

struct kept {
    enum feat_scope scope;
    uint64_t key;
    struct slice bytes;
};
struct layer {
    uint64_t share, whole; /* 0: the first layer, which rows are read from */
    int bucket;
    struct kept *kept; /* [n] few: looked through */
    int n, cap;
};
struct feat_store { /* of this file */
    struct feat_state *base;
    const struct feat_ahead *ahead; /* [n_ahead] */
    int n_ahead;
    struct arena arena;
    struct layer *layers; /* [n_layers of cap_layers] */
    int n_layers, cap_layers;
    int now; /* layer that is worked on */
    int n_buckets;
};
struct feat_past {
    struct feat_state *state;
    struct feat_applied *from; /* [n_from] base's, moved on by the events */
    int n_from, cap_from;
    bool *concerned; /* [n_buckets] by one event */
    bool added;      /* the layers' shares to the sums */
};

/* ---- the store ---- */

static struct kept *find(const struct layer *l, enum feat_scope scope, uint64_t key) {
    for (int i = 0; i < l->n; i++)
        if (l->kept[i].key == key && l->kept[i].scope == scope)
            return &l->kept[i];
    return NULL;
}

static void past_fetch(struct feat_store *s, enum feat_scope scope, const uint64_t *keys, int n,
                       struct slice *out) {
    const struct layer *l = &s->layers[s->now];
    s->base->ops->fetch(s->base->store, scope, keys, n, out);
    for (int i = 0; i < n; i++) {
        const struct kept *k = find(l, scope, keys[i]);
        if (k != NULL)
            out[i] = k->bytes;
        else if (s->now > 0 && scope == FEAT_SCOPE_VALUE && keys[i] == l->share)
            s->base->ops->fetch(s->base->store, scope, &l->whole, 1, &out[i]);
    }
}

static void past_put(struct feat_store *s, enum feat_scope scope, uint64_t key,
                     struct slice bytes) {
    struct layer *l = &s->layers[s->now];
    struct kept *k = find(l, scope, key);
    if (k == NULL) {
        if (l->n == l->cap) {
            l->cap = l->cap == 0 ? 64 : 2 * l->cap;
            l->kept = heap_grow(l->kept, (size_t)l->cap * sizeof *l->kept);
        }
        k = &l->kept[l->n++];
    }
    *k = (struct kept){scope, key, arena_dup(&s->arena, bytes)};
}

static bool is_seen(const struct feat_store *s, enum feat_scope scope, uint64_t key,
                    struct ev_source source) {
    for (int i = 0; i < s->n_ahead; i++) {
        const struct feat_ahead *at = &s->ahead[i];
        if (at->key == key && at->scope == scope && at->partition == source.partition)
            return source.offset <= at->offset;
    }
    return false;
}

static bool past_admit(struct feat_store *s, enum feat_scope scope, uint64_t key,
                       struct ev_source source) {
    const struct layer *l = &s->layers[s->now];
    if (scope == FEAT_SCOPE_RANKING) /* of one partition, and follows all of its events */
        return true;
    if (s->now == 0)
        return is_seen(s, scope, key, source);
    bool its =
        scope == FEAT_SCOPE_VALUE
            ? key == l->share
            : scope == FEAT_SCOPE_ITEM && feat_bucket_of(scope, key, s->n_buckets) == l->bucket;
    return its && is_seen(s, FEAT_SCOPE_VALUE, l->share, source);
}

static void add_layer(struct feat_store *s, uint64_t share) {
    for (int i = 1; i < s->n_layers; i++)
        if (s->layers[i].share == share)
            return;
    if (s->n_layers == s->cap_layers) {
        int cap = s->cap_layers == 0 ? 16 : 2 * s->cap_layers;
        s->layers = heap_grow(s->layers, (size_t)cap * sizeof *s->layers);
        memset(s->layers + s->cap_layers, 0, (size_t)(cap - s->cap_layers) * sizeof *s->layers);
        s->cap_layers = cap;
    }
    struct layer *l = &s->layers[s->n_layers++];
    l->share = share;
    l->n = 0;
    if (share == 0)
        return;
    l->whole = feat_share_whole(share, s->n_buckets);
    l->bucket = feat_bucket_of(FEAT_SCOPE_VALUE, share, s->n_buckets);
}

static void past_close(struct feat_store *s) {
    if (s == NULL)
        return;
    arena_deinit(&s->arena);
    for (int i = 0; i < s->cap_layers; i++)
        heap_free(s->layers[i].kept);
    heap_free(s->layers);
    heap_free(s);
}

static const struct feat_store_ops ops = {
    .name = "past", .close = past_close, .fetch = past_fetch, .put = past_put, .admit = past_admit};

/* ---- the past ---- */

struct feat_past *feat_past_new(const struct feat_plan *plan, struct feat_state *base,
                                int n_buckets) {
    struct feat_past *p = HEAP_NEW(struct feat_past);
    p->state = feat_state_new(plan);
    p->state->ops->close(p->state->store);
    p->state->ops = &ops;
    p->state->store = HEAP_NEW(struct feat_store);
    p->state->store->base = base;
    p->state->store->n_buckets = n_buckets;
    add_layer(p->state->store, 0);
    p->concerned = HEAP_ARRAY(bool, n_buckets + 1);
    arena_init(&p->state->store->arena, 0);
    return p;
}

void feat_past_free(struct feat_past *p) {
    if (p == NULL)
        return;
    feat_state_free(p->state);
    heap_free(p->from);
    heap_free(p->concerned);
    heap_free(p);
}

static struct feat_applied *from_of(struct feat_past *p, int32_t partition) {
    struct feat_state *base = p->state->store->base;
    for (int i = 0; i < p->n_from; i++)
        if (p->from[i].partition == partition)
            return &p->from[i];
    if (p->n_from == p->cap_from) {
        p->cap_from = p->cap_from == 0 ? 16 : 2 * p->cap_from;
        p->from = heap_grow(p->from, (size_t)p->cap_from * sizeof *p->from);
    }
    const struct feat_applied *at = feat_applied_find(base->applied, base->n_applied, partition);
    p->from[p->n_from] = at != NULL ? *at : (struct feat_applied){partition, -1, 0};
    return &p->from[p->n_from++];
}

void feat_past_begin(struct feat_past *p, const struct feat_ahead *ahead, int n) {
    struct feat_store *s = p->state->store;
    arena_reset(&s->arena);
    s->layers[0].n = 0;
    s->n_layers = 1;
    s->now = 0;
    s->ahead = ahead;
    s->n_ahead = n;
    p->n_from = 0;
    p->added = false;
    for (int i = 0; i < n; i++) {
        from_of(p, ahead[i].partition);
        if (ahead[i].scope == FEAT_SCOPE_VALUE && s->n_buckets > 0 && p->state->plan->sums_items)
            add_layer(s, ahead[i].key); /* of a pair: nothing will come into it */
    }
}

int feat_past_wanted(const struct feat_past *p, struct arena *a, const struct feat_applied **out) {
    const struct feat_store *s = p->state->store;
    struct feat_applied *list = ARENA_ARRAY(a, struct feat_applied, p->n_from);
    for (int i = 0; i < p->n_from; i++) {
        list[i] = p->from[i];
        for (int k = 0; k < s->n_ahead; k++)
            if (s->ahead[k].partition == list[i].partition && s->ahead[k].offset > list[i].offset)
                list[i].offset = s->ahead[k].offset;
    }
    *out = list;
    return p->n_from;
}

static void note_item(struct feat_past *p, uint64_t tenant, struct slice item) {
    int n = p->state->store->n_buckets;
    if (item.n > 0)
        p->concerned[feat_bucket_of(FEAT_SCOPE_ITEM, feat_entity_key(tenant, item), n)] = true;
}

static void apply_to_shares(struct feat_past *p, const struct ev_event *e) {
    struct feat_store *s = p->state->store;
    uint64_t tenant = feat_tenant_hash(e->tenant);
    memset(p->concerned, 0, (size_t)s->n_buckets * sizeof *p->concerned);
    note_item(p, tenant, e->item);
    for (int i = 0; i < e->n_shown; i++)
        note_item(p, tenant, e->shown[i].item);
    p->state->n_shares = s->n_buckets;
    for (s->now = 1; s->now < s->n_layers; s->now++)
        if (p->state->plan->joins || p->concerned[s->layers[s->now].bucket])
            feat_state_apply_event(p->state, e);
    p->state->n_shares = s->now = 0;
}

void feat_past_event(struct feat_past *p, const struct ev_event *e) {
    struct feat_applied *from = from_of(p, e->source.partition);
    if (feat_state_judge(p->state->plan, from, e) != FEAT_APPLIED)
        return;
    p->state->floor_us = p->state->forget_us = from->clock_us - p->state->plan->lateness_us;
    feat_state_apply_event(p->state, e);
    if (p->state->store->n_layers > 1)
        apply_to_shares(p, e);
}

/* What the share of a layer has more than the base, into the sum that is read. */
static void add_share(struct feat_state *state, const struct layer *l) {
    struct feat_store *s = state->store;
    const struct kept *share = find(l, FEAT_SCOPE_VALUE, l->share);
    struct slice sum, base;
    struct buf more = {0}, all = {0};
    if (share == NULL)
        return;
    s->base->ops->fetch(s->base->store, FEAT_SCOPE_VALUE, &l->whole, 1, &base);
    past_fetch(s, FEAT_SCOPE_VALUE, &l->whole, 1, &sum);
    feat_sum_add(state, &s->arena, l->whole, sum, share->bytes, 1, &more);
    feat_sum_add(state, &s->arena, l->whole, buf_slice(&more), base, -1, &all);
    past_put(s, FEAT_SCOPE_VALUE, l->whole, buf_slice(&all));
    buf_deinit(&more);
    buf_deinit(&all);
}

struct feat_state *feat_past_state(struct feat_past *p) {
    struct feat_store *s = p->state->store;
    for (int i = 1; i < s->n_layers && !p->added; i++)
        add_share(p->state, &s->layers[i]);
    p->added = true;
    return p->state;
}
