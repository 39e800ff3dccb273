/* past.c: a store over a store: what is put is kept here, what is not found here is fetched there.
 * It admits an event to a record that is ahead and had it, and to no other. */
#include "features/past.h"
#include "base/hash.h"
#include "base/heap.h"
#include "base/map.h"
#include "features/state_parts.h"

struct kept {
    enum feat_scope scope;
    uint64_t key;
    struct slice bytes;
};
struct feat_store { /* of this file */
    struct feat_state *base;
    const struct feat_ahead *ahead; /* [n_ahead] */
    int n_ahead;
    struct arena arena;
    struct kept *kept; /* [n] few: looked through */
    int n, cap;
};
struct feat_past {
    struct feat_state *state;
    struct feat_applied *from; /* [n_from] base's, moved on by the events */
    int n_from, cap_from;
};

/* ---- the store ---- */

static struct kept *find(struct feat_store *s, enum feat_scope scope, uint64_t key) {
    for (int i = 0; i < s->n; i++)
        if (s->kept[i].key == key && s->kept[i].scope == scope)
            return &s->kept[i];
    return NULL;
}

static void past_fetch(struct feat_store *s, enum feat_scope scope, const uint64_t *keys, int n,
                       struct slice *out) {
    s->base->ops->fetch(s->base->store, scope, keys, n, out);
    for (int i = 0; s->n > 0 && i < n; i++) {
        const struct kept *k = find(s, scope, keys[i]);
        if (k != NULL)
            out[i] = k->bytes;
    }
}

static void past_put(struct feat_store *s, enum feat_scope scope, uint64_t key,
                     struct slice bytes) {
    struct kept *k = find(s, scope, key);
    if (k == NULL) {
        if (s->n == s->cap) {
            s->cap = s->cap == 0 ? 64 : 2 * s->cap;
            s->kept = heap_grow(s->kept, (size_t)s->cap * sizeof *s->kept);
        }
        k = &s->kept[s->n++];
    }
    *k = (struct kept){scope, key, arena_dup(&s->arena, bytes)};
}

static bool past_admit(struct feat_store *s, enum feat_scope scope, uint64_t key,
                       struct ev_source source) {
    for (int i = 0; i < s->n_ahead; i++) {
        const struct feat_ahead *at = &s->ahead[i];
        if (at->key == key && at->scope == scope && at->partition == source.partition)
            return source.offset <= at->offset;
    }
    return false;
}

static void past_close(struct feat_store *s) {
    if (s == NULL)
        return;
    arena_deinit(&s->arena);
    heap_free(s->kept);
    heap_free(s);
}

static const struct feat_store_ops ops = {
    .name = "past", .close = past_close, .fetch = past_fetch, .put = past_put, .admit = past_admit};

/* ---- the past ---- */

struct feat_past *feat_past_new(const struct feat_plan *plan, struct feat_state *base) {
    struct feat_past *p = HEAP_NEW(struct feat_past);
    p->state = feat_state_new(plan);
    p->state->ops->close(p->state->store);
    p->state->ops = &ops;
    p->state->store = HEAP_NEW(struct feat_store);
    p->state->store->base = base;
    arena_init(&p->state->store->arena, 0);
    return p;
}

void feat_past_free(struct feat_past *p) {
    if (p == NULL)
        return;
    feat_state_free(p->state);
    heap_free(p->from);
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
    s->n = 0;
    s->ahead = ahead;
    s->n_ahead = n;
    p->n_from = 0;
    for (int i = 0; i < n; i++)
        from_of(p, ahead[i].partition);
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

void feat_past_event(struct feat_past *p, const struct ev_event *e) {
    struct feat_applied *from = from_of(p, e->source.partition);
    if (feat_state_judge(p->state->plan, from, e) == FEAT_APPLIED)
        feat_state_apply_event(p->state, e);
}

struct feat_state *feat_past_state(struct feat_past *p) {
    return p->state;
}
