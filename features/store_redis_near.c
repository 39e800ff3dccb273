/* store_redis_near.c: what a reader keeps of Redis between its sections: records as they were read,
 * and sums made of them, until the server tells that they have changed (store_redis_read.c has the
 * order of things). Bounded in bytes; what was not used since the hand came by goes first (CLOCK).
 *
 * A section holds pointers into what is kept, so what is dropped is freed only by the next sweep.
 * Deliberately one of these a reader, not one a process: each connection has its own order of what
 * was read and what has changed, and a reader needs no lock. */
#include <assert.h>
#include <string.h>
#include "base/hash.h"
#include "base/heap.h"
#include "base/map.h"
#include "features/shares.h"
#include "features/store_redis_parts.h"

enum { ENTRY_BYTES = 64 }; /* its places in the list and in the map */

struct feat_redis_near {
    struct map at;                 /* hash of the name -> place in list */
    struct feat_redis_kept **list; /* [n] */
    size_t n, cap, hand;
    size_t bytes, budget;
    struct feat_redis_kept *dropped;
};

struct feat_redis_near *feat_redis_near_new(size_t budget_bytes) {
    struct feat_redis_near *near = HEAP_NEW(struct feat_redis_near);
    near->budget = budget_bytes;
    return near;
}

void feat_redis_near_sweep(struct feat_redis_near *near) {
    for (struct feat_redis_kept *k = near->dropped, *next; k != NULL; k = next) {
        next = k->next;
        heap_free(k);
    }
    near->dropped = NULL;
}

void feat_redis_near_free(struct feat_redis_near *near) {
    if (near == NULL)
        return;
    feat_redis_near_clear(near);
    feat_redis_near_sweep(near);
    map_deinit(&near->at);
    heap_free(near->list);
    heap_free(near);
}

static uint64_t hash_of(struct feat_entity e) { return hash_mix(e.key, (uint64_t)e.scope + 1); }

static bool same(struct feat_entity a, struct feat_entity b) {
    return a.key == b.key && a.scope == b.scope;
}

static void drop_at(struct feat_redis_near *near, size_t at) {
    struct feat_redis_kept *k = near->list[at], *last = near->list[--near->n];
    map_remove(&near->at, hash_of(k->name));
    if (last != k) {
        near->list[at] = last;
        map_put(&near->at, hash_of(last->name), at);
    }
    near->bytes -= k->size;
    k->next = near->dropped;
    near->dropped = k;
}

void feat_redis_near_clear(struct feat_redis_near *near) {
    while (near->n > 0)
        drop_at(near, near->n - 1);
}

void feat_redis_near_drop(struct feat_redis_near *near, struct feat_entity name) {
    uint64_t at;
    if (map_get(&near->at, hash_of(name), &at) && same(near->list[at]->name, name))
        drop_at(near, (size_t)at);
}

const struct feat_redis_kept *feat_redis_near_find(struct feat_redis_near *near,
                                                   struct feat_entity name) {
    uint64_t at;
    if (!map_get(&near->at, hash_of(name), &at) || !same(near->list[at]->name, name))
        return NULL;
    near->list[at]->used = true;
    return near->list[at];
}

static void make_room(struct feat_redis_near *near) {
    while (near->bytes > near->budget && near->n > 0) {
        if (near->hand >= near->n)
            near->hand = 0;
        if (near->list[near->hand]->used)
            near->list[near->hand++]->used = false;
        else
            drop_at(near, near->hand);
    }
}

void feat_redis_near_keep(struct feat_redis_near *near, const struct feat_redis_kept *what) {
    size_t n_seen = (size_t)what->n_seen * sizeof *what->seen;
    size_t n_ahead = (size_t)what->n_ahead * sizeof *what->ahead;
    uint64_t at;
    if (map_get(&near->at, hash_of(what->name), &at)) /* itself, or one with its hash */
        drop_at(near, (size_t)at);
    struct feat_redis_kept *k = heap_alloc(sizeof *k + n_seen + n_ahead + what->bytes.n);
    char *p = (char *)(k + 1);
    *k = *what;
    k->seen = memcpy(p, n_seen > 0 ? (const void *)what->seen : "", n_seen);
    k->ahead = memcpy(p + n_seen, n_ahead > 0 ? (const void *)what->ahead : "", n_ahead);
    p += n_seen + n_ahead;
    if (what->bytes.n > 0)
        k->bytes.p = memcpy(p, what->bytes.p, what->bytes.n);
    k->size = sizeof *k + n_seen + n_ahead + what->bytes.n + ENTRY_BYTES;
    k->used = false;
    if (near->n == near->cap) {
        near->cap = near->cap == 0 ? 256 : 2 * near->cap;
        near->list = heap_grow(near->list, near->cap * sizeof(struct feat_redis_kept *));
    }
    near->list[near->n] = k;
    map_put(&near->at, hash_of(k->name), near->n++);
    near->bytes += k->size;
    make_room(near);
}

bool feat_redis_near_changed(struct feat_redis_near *near, const struct feat_store *s,
                             struct slice key, struct feat_entity *out) {
    struct feat_entity e;
    if (key.n == 0)
        feat_redis_near_clear(near);
    if (!feat_redis_entity_of(s, key, &e))
        return false;
    feat_redis_near_drop(near, e);
    if (e.scope == FEAT_SCOPE_VALUE) /* of a pair: a sum that there is not */
        feat_redis_near_drop(
            near, (struct feat_entity){FEAT_REDIS_SUM, feat_share_whole(e.key, s->n_buckets)});
    *out = e;
    return true;
}
