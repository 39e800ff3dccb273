/* result_cache.h: answers of Rank kept in Redis, encoded as they go out. One per worker.
 *
 * The key is the model's version, the user's epoch and a 128-bit hash of everything else a ranking
 * depends on: an event of the user, or a new model, makes old answers unreachable; they die by
 * their time to live, which is also how stale an item's own features may be. */
#pragma once
#include "ranker/redis.h"

struct rk_cache;
/* NULL when the settings have no Redis or no cache. The settings must outlive it. */
struct rk_cache *rk_cache_new(const struct rk_config *c);
void rk_cache_free(struct rk_cache *c);
/* False for requests that no key can stand for: no_cache, explain, and a session without a user
 * (sessions have no epoch). */
bool rk_cache_takes(const struct rpc_rank_request *request);
/* `scratch` is overwritten. A now_us the caller gave is part of the key; 0 means "now". */
struct slice rk_cache_key(const struct rk_cache *c, struct arena *a, struct buf *scratch,
                          const char *model_version, uint64_t user_epoch,
                          const struct rpc_rank_request *request);
/* False: not there, or Redis is away; counted. */
bool rk_cache_get(struct rk_cache *c, struct arena *a, struct slice key, struct slice *value);
/* Begin, then answer, then end: nobody waits for Redis to confirm, and yet whoever has the answer
 * and asks again finds it. A failure is counted, never told. */
void rk_cache_put_begin(struct rk_cache *c, struct slice key, struct slice value);
void rk_cache_put_end(struct rk_cache *c);
