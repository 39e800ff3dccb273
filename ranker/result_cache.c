/* result_cache.c: see result_cache.h. The hash is taken over the request as it would be encoded,
 * without what does not change the answer. Deliberately no per-candidate cache: with models that
 * mix rows there is none to be had, and for the others the slate is what repeats. */
#include "ranker/result_cache.h"
#include "base/hash.h"
#include "base/heap.h"
#include "base/metric.h"

struct rk_cache {
    const struct rk_config *conf;
    struct rk_redis *redis;
    bool putting; /* between begin and end */
};

struct rk_cache *rk_cache_new(const struct rk_config *c) {
    if (!c->cache.enabled || !rk_redis_wanted(&c->redis))
        return NULL;
    struct rk_cache *cache = HEAP_NEW(struct rk_cache);
    cache->conf = c;
    cache->redis = rk_redis_new(&c->redis);
    return cache;
}

void rk_cache_free(struct rk_cache *c) {
    if (!c)
        return;
    rk_redis_free(c->redis);
    heap_free(c);
}

bool rk_cache_takes(const struct rpc_rank_request *request) {
    return !request->no_cache && !request->explain &&
           (request->user.n > 0 || request->session.n == 0);
}

struct slice rk_cache_key(const struct rk_cache *c, struct arena *a, struct buf *scratch,
                          const char *model_version, uint64_t user_epoch,
                          const struct rpc_rank_request *request) {
    struct rpc_rank_request plain = *request;
    plain.request_id = (struct slice){NULL, 0};
    plain.after = (struct rpc_token){0};
    buf_clear(scratch);
    rpc_encode_rank_request(&plain, scratch);
    return slice_of(arena_printf(a, "%srank:%s:%llu:%016llx%016llx", c->conf->redis.prefix,
                                 model_version, (unsigned long long)user_epoch,
                                 (unsigned long long)hash_bytes(buf_slice(scratch), 1),
                                 (unsigned long long)hash_bytes(buf_slice(scratch), 2)));
}

bool rk_cache_get(struct rk_cache *c, struct arena *a, struct slice key, struct slice *value) {
    enum status status = rk_redis_get(c->redis, a, key, value);
    metric_add(status == STATUS_OK          ? METRIC_CACHE_HITS
               : status == STATUS_NOT_FOUND ? METRIC_CACHE_MISSES
                                            : METRIC_CACHE_ERRORS,
               1);
    return status == STATUS_OK;
}

void rk_cache_put_begin(struct rk_cache *c, struct slice key, struct slice value) {
    c->putting = rk_redis_set_begin(c->redis, key, value, c->conf->cache.ttl_us) == STATUS_OK;
    if (!c->putting)
        metric_add(METRIC_CACHE_ERRORS, 1);
}

void rk_cache_put_end(struct rk_cache *c) {
    if (c->putting && rk_redis_set_end(c->redis) != STATUS_OK)
        metric_add(METRIC_CACHE_ERRORS, 1);
    c->putting = false;
}
