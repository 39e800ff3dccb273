/* map.c: uint64 -> uint64 with linear probing.
 *
 * At most 5/8 full, powers of two, backward-shift deletion (Knuth 6.4, algorithm R), so there are
 * no tombstones and a table that churns never slows down. A byte per slot says "taken": any key is
 * allowed, 0 too. Growth doubles all at once: whoever cannot bear that pause makes shards. */
#include "base/map.h"
#include <string.h>
#include "base/heap.h"

/* Keys are hashes already; one multiplication guards against those that are not. */
static size_t home(const struct map *m, uint64_t key) {
    return (size_t)((key * 0x9E3779B97F4A7C15ull) >> 20) & (m->cap - 1);
}

/* The slot of `key`, or the empty one where it would go. Needs cap > 0. */
static size_t find(const struct map *m, uint64_t key) {
    size_t i = home(m, key);
    while (m->full[i] && m->keys[i] != key)
        i = (i + 1) & (m->cap - 1);
    return i;
}

void map_deinit(struct map *m) {
    heap_free(m->keys);
    heap_free(m->values);
    heap_free(m->full);
    *m = (struct map){0};
}

bool map_get(const struct map *m, uint64_t key, uint64_t *value) {
    if (m->n == 0)
        return false;
    size_t i = find(m, key);
    if (!m->full[i])
        return false;
    *value = m->values[i];
    return true;
}

static void grow(struct map *m) {
    struct map old = *m;
    m->cap = old.cap ? old.cap * 2 : 16;
    m->keys = HEAP_ARRAY(uint64_t, m->cap);
    m->values = HEAP_ARRAY(uint64_t, m->cap);
    m->full = HEAP_ARRAY(uint8_t, m->cap);
    for (size_t j = 0; j < old.cap; j++) {
        if (!old.full[j])
            continue;
        size_t i = find(m, old.keys[j]);
        m->full[i] = 1;
        m->keys[i] = old.keys[j];
        m->values[i] = old.values[j];
    }
    map_deinit(&old);
}

void map_put(struct map *m, uint64_t key, uint64_t value) {
    if (m->n * 8 >= m->cap * 5)
        grow(m);
    size_t i = find(m, key);
    m->n += !m->full[i];
    m->full[i] = 1;
    m->keys[i] = key;
    m->values[i] = value;
}

bool map_remove(struct map *m, uint64_t key) {
    if (m->n == 0)
        return false;
    size_t hole = find(m, key), mask = m->cap - 1;
    if (!m->full[hole])
        return false;
    for (size_t i = (hole + 1) & mask; m->full[i]; i = (i + 1) & mask) {
        /* Move i into the hole unless its home lies after the hole, up to i. */
        if (((i - home(m, m->keys[i])) & mask) < ((i - hole) & mask))
            continue;
        m->keys[hole] = m->keys[i];
        m->values[hole] = m->values[i];
        hole = i;
    }
    m->full[hole] = 0;
    m->n--;
    return true;
}

bool map_next(const struct map *m, size_t *i, uint64_t *key, uint64_t *value) {
    for (; *i < m->cap; (*i)++) {
        if (!m->full[*i])
            continue;
        *key = m->keys[*i];
        *value = m->values[*i];
        (*i)++;
        return true;
    }
    return false;
}

size_t map_bytes(const struct map *m) { return m->cap * (2 * sizeof(uint64_t) + 1); }
