/* lists.h: where ready lists are kept: in Redis, or in memory when no Redis is configured (bounded;
 * the oldest goes first). A value is an encoded RecommendResponse. */
#pragma once
#include "ranker/redis.h"

/* In memory; shared by threads. */
struct rk_lists;
struct rk_lists *rk_lists_new(size_t lists_max);
void rk_lists_free(struct rk_lists *l);
void rk_lists_put(struct rk_lists *l, struct slice key, struct slice value);
bool rk_lists_get(struct rk_lists *l, struct arena *a, struct slice key, struct slice *value);
