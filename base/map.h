/* map.h: uint64 -> uint64, open addressing with linear probing, for hot tables whose keys are
 * already hashes. Any key is allowed. Not thread-safe. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map {
    uint64_t *keys, *values;
    uint8_t *full;
    size_t n, cap;
};
void map_deinit(struct map *m); /* a zeroed struct is a valid empty map */
bool map_get(const struct map *m, uint64_t key, uint64_t *value);
void map_put(struct map *m, uint64_t key, uint64_t value);
bool map_remove(struct map *m, uint64_t key);
/* Iteration: for (size_t i = 0; map_next(m, &i, &k, &v);) */
bool map_next(const struct map *m, size_t *i, uint64_t *key, uint64_t *value);
size_t map_bytes(const struct map *m);
