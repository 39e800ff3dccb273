/* item_cache.h: rows of bytes by 64-bit key, under a byte budget: the item halves of a model's
 * first layers. Set-associative like a CPU's cache: a key's set is one line of eight tags and one
 * of eight states, which say where the rows are; both are easily asked for ahead.
 *
 *     tags [sets][8]     state [sets][8]     rows [sets * 8][row_bytes]
 *
 * Replacement within a set is by second chance. Shared by threads without locks: a hit pins its
 * row until it is released, a pinned row is never overwritten, and what cannot be placed is not
 * kept. Keys are hashes: two items with one key would share a row, which nobody sees happen at 64
 * bits. */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct moe_item_cache;
/* At most `bytes` in all, at least one set. row_bytes: a multiple of 64. */
struct moe_item_cache *moe_item_cache_new(size_t bytes, size_t row_bytes);
void moe_item_cache_free(struct moe_item_cache *c);

void moe_item_cache_ask(const struct moe_item_cache *c, uint64_t key); /* prefetches the tags */
/* The row of `key`, pinned, or NULL. *pin goes to moe_item_cache_release. */
const char *moe_item_cache_get(struct moe_item_cache *c, uint64_t key, uint32_t *pin);
void moe_item_cache_release(struct moe_item_cache *c, uint32_t pin);
/* Copies a row in, if the set has a way that nobody holds and does not have the key yet. */
void moe_item_cache_put(struct moe_item_cache *c, uint64_t key, const char *row);

struct moe_item_cache_stats {
    uint64_t hits, misses, evictions; /* since the start */
    uint64_t kept, rows;              /* places taken; places */
    size_t row_bytes, bytes;
};
/* Hits and misses are counted by who asks, once for many. */
void moe_item_cache_count(struct moe_item_cache *c, uint64_t hits, uint64_t misses);
struct moe_item_cache_stats moe_item_cache_read(const struct moe_item_cache *c);
