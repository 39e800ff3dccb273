/* redis.h: one connection to Redis that may come and go. Calls fail fast when it is away: after a
 * failure the next attempts wait 100 ms, 200 ms, ... 5 s, and calls in between fail at once.
 * One thread per connection. */
#pragma once
#include "ranker/config.h"

struct rk_redis;
bool rk_redis_wanted(const struct rk_redis_conf *c); /* the settings name a Redis */
/* Connects at the first call, not here. The settings must outlive it. */
struct rk_redis *rk_redis_new(const struct rk_redis_conf *c);
void rk_redis_free(struct rk_redis *r); /* NULL is fine */
/* The value in arena memory. NOT_FOUND: no such key. UNAVAILABLE: Redis is away; names it. */
enum status rk_redis_get(struct rk_redis *r, struct arena *a, struct slice key,
                         struct slice *value);
/* A write in two parts, for who has something to do before Redis has answered: begin sends it, end
 * hears whether it was taken, and must follow a begin that gave OK. Who asks Redis after begin has
 * returned, on whatever connection, finds the value. */
enum status rk_redis_set_begin(struct rk_redis *r, struct slice key, struct slice value,
                               int64_t ttl_us);
enum status rk_redis_set_end(struct rk_redis *r);
enum status rk_redis_set(struct rk_redis *r, struct slice key, struct slice value, int64_t ttl_us);
