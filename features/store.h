/* store.h: where records live: bytes by (scope, key). The contract between state.c and a store;
 * a new store is one file. Nothing here knows what the bytes mean, but that they start with scope
 * and key (record.h).
 *
 * Threads: the caller locks: fetch, next, count and bytes by many readers at once, put by one
 * writer alone. Not inside a store. */
#pragma once
#include "features/plan.h"

struct feat_store;

struct feat_store_ops {
    const char *name;
    struct feat_store *(*open)(void);
    void (*close)(struct feat_store *s);
    /* out[i]: the bytes of keys[i], empty when unknown. Valid until the next put. */
    void (*fetch)(struct feat_store *s, enum feat_scope scope, const uint64_t *keys, int n,
                  struct slice *out);
    /* Replaces or adds one record; copies the bytes. */
    void (*put)(struct feat_store *s, enum feat_scope scope, uint64_t key, struct slice bytes);
    /* One record after another, in no order; *at starts as 0. False at the end. */
    bool (*next)(struct feat_store *s, enum feat_scope scope, uint64_t *at, struct slice *bytes);
    uint64_t (*count)(struct feat_store *s, enum feat_scope scope);
    uint64_t (*bytes)(struct feat_store *s); /* held from the heap, all scopes */
};
extern const struct feat_store_ops feat_store_memory;
