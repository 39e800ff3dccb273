/* index.h: uint64 -> uint32 for the length of a request or a plan: open addressing in an arena,
 * sized once. (base/map.h is the one that grows, on the heap, which the read path must not touch.)
 * Keys are as good as hashes; values are not 0. */
#pragma once
#include "base/arena.h"
#include <stdint.h>

struct feat_index {
    uint64_t *keys;
    uint32_t *values; /* 0: empty */
    uint32_t mask;
};

static inline void feat_index_init(struct feat_index *x, struct arena *a, size_t n_max) {
    uint32_t cap = 4;
    while (cap < n_max * 2)
        cap *= 2;
    x->mask = cap - 1;
    x->keys = (uint64_t *)arena_alloc(a, cap * sizeof(uint64_t));
    x->values = ARENA_ARRAY(a, uint32_t, cap);
}

/* Where the key's value stands; the value is 0 when the key is new, and the caller sets it. */
static inline uint32_t *feat_index_at(struct feat_index *x, uint64_t key) {
    uint32_t i = (uint32_t)key & x->mask;
    while (x->values[i] != 0 && x->keys[i] != key)
        i = (i + 1) & x->mask;
    x->keys[i] = key;
    return &x->values[i];
}

static inline uint32_t feat_index_get(const struct feat_index *x, uint64_t key) {
    uint32_t i = (uint32_t)key & x->mask;
    while (x->values[i] != 0 && x->keys[i] != key)
        i = (i + 1) & x->mask;
    return x->values[i];
}
