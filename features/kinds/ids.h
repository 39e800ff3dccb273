/* ids.h: from a value's key to a row of an embedding table: 0 none, 1 unknown, then either the
 * vocabulary in its order or the hash. One rule for category and last_n, so that an item is the
 * same row wherever it stands. */
#pragma once
#include "features/index.h"
#include "features/keys.h"
#include "features/plan.h"

struct feat_ids {
    uint32_t rows;
    bool is_name; /* item.id or user.id: keys bear the tenant's hash */
    bool has_vocabulary;
    struct feat_index vocabulary; /* text key -> id */
};

static inline uint32_t feat_ids_of(const struct feat_ids *m, uint64_t tenant_hash, uint64_t key) {
    if (key == 0)
        return 0;
    if (!m->has_vocabulary)
        return 2 + (uint32_t)(key % (m->rows - 2));
    uint32_t id =
        feat_index_get(&m->vocabulary, m->is_name ? feat_entity_text_key(tenant_hash, key) : key);
    return id == 0 ? 1 : id;
}

/* The ids of the first category feature that embeds item.id into `table`, or NULL. */
const struct feat_ids *feat_category_item_ids(const struct feat_plan *p, const char *table,
                                              int *dim);
