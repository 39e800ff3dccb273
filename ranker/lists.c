/* lists.c: a ring of {key, value}, and a map from the key's hash to its place. Of two keys with one
 * hash the newer stays; the key is compared, so a wrong list is never handed out. Deliberately no
 * expiry: a list is only good for its user's epoch, and whoever reads it checks that. */
#include "ranker/lists.h"
#include <pthread.h>
#include "base/hash.h"
#include "base/heap.h"
#include "base/map.h"

struct entry {
    char *bytes; /* key, then value */
    size_t key_bytes, value_bytes;
    uint64_t hash;
};
struct rk_lists {
    pthread_mutex_t lock;
    struct entry *entries; /* [max], a ring */
    size_t max, next;
    struct map at; /* hash -> index */
};

struct rk_lists *rk_lists_new(size_t lists_max) {
    struct rk_lists *l = HEAP_NEW(struct rk_lists);
    l->entries = HEAP_ARRAY(struct entry, lists_max);
    l->max = lists_max;
    pthread_mutex_init(&l->lock, NULL);
    return l;
}

void rk_lists_free(struct rk_lists *l) {
    if (!l)
        return;
    for (size_t i = 0; i < l->max; i++)
        heap_free(l->entries[i].bytes);
    heap_free(l->entries);
    map_deinit(&l->at);
    pthread_mutex_destroy(&l->lock);
    heap_free(l);
}

static struct entry *place_for(struct rk_lists *l, uint64_t hash) {
    uint64_t at;
    if (map_get(&l->at, hash, &at))
        return &l->entries[at];
    struct entry *e = &l->entries[l->next];
    if (e->bytes)
        map_remove(&l->at, e->hash);
    map_put(&l->at, hash, l->next);
    l->next = (l->next + 1) % l->max;
    return e;
}

void rk_lists_put(struct rk_lists *l, struct slice key, struct slice value) {
    char *bytes = heap_alloc(key.n + value.n + 1);
    memcpy(bytes, key.p, key.n);
    memcpy(bytes + key.n, value.p, value.n);
    uint64_t hash = hash_bytes(key, 0);
    pthread_mutex_lock(&l->lock);
    struct entry *e = place_for(l, hash);
    char *before = e->bytes;
    *e = (struct entry){bytes, key.n, value.n, hash};
    pthread_mutex_unlock(&l->lock);
    heap_free(before);
}

bool rk_lists_get(struct rk_lists *l, struct arena *a, struct slice key, struct slice *value) {
    uint64_t at;
    bool found = false;
    pthread_mutex_lock(&l->lock);
    if (map_get(&l->at, hash_bytes(key, 0), &at)) {
        const struct entry *e = &l->entries[at];
        found = slice_equal(key, (struct slice){e->bytes, e->key_bytes});
        if (found)
            *value = arena_dup(a, (struct slice){e->bytes + e->key_bytes, e->value_bytes});
    }
    pthread_mutex_unlock(&l->lock);
    return found;
}
