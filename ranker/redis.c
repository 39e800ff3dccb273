/* redis.c: hiredis, synchronous, one context per thread. Any error makes a context unusable, so it
 * is dropped and made anew after a back-off. Deliberately no pool, no cluster, no TLS (hiredis 0.14
 * has none: put stunnel in front). */
#include "ranker/redis.h"
#include <errno.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <stdio.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/log.h"

enum { BACKOFF_US = 100 * 1000, BACKOFF_MAX_US = 5 * 1000 * 1000 };

struct rk_redis {
    const struct rk_redis_conf *conf;
    redisContext *context; /* NULL: away */
    int64_t retry_at_us, backoff_us;
    bool said_away;
};

bool rk_redis_wanted(const struct rk_redis_conf *c) { return *c->socket || *c->host; }

struct rk_redis *rk_redis_new(const struct rk_redis_conf *c) {
    struct rk_redis *r = HEAP_NEW(struct rk_redis);
    r->conf = c;
    signal(SIGPIPE, SIG_IGN); /* hiredis writes to sockets whose other end may be gone */
    return r;
}

static void drop(struct rk_redis *r) {
    if (r->context)
        redisFree(r->context);
    r->context = NULL;
}

void rk_redis_free(struct rk_redis *r) {
    if (!r)
        return;
    drop(r);
    heap_free(r);
}

static const char *where(const struct rk_redis *r) {
    return *r->conf->socket ? r->conf->socket : r->conf->host;
}

static const char *why_lost(const redisContext *c) {
    if (!c)
        return "out of memory";
    return c->err == REDIS_ERR_IO && errno == EAGAIN ? "no answer in time (redis.timeout)"
                                                     : c->errstr;
}

/* Drops the connection and puts the next attempt off. */
static enum status lose(struct rk_redis *r, const char *why) {
    enum status status =
        fail(STATUS_UNAVAILABLE, "Redis at %s: %s; going on without it", where(r), why);
    drop(r);
    r->backoff_us = r->backoff_us == 0 ? BACKOFF_US : 2 * r->backoff_us;
    if (r->backoff_us > BACKOFF_MAX_US)
        r->backoff_us = BACKOFF_MAX_US;
    r->retry_at_us = clock_mono_us() + r->backoff_us;
    if (!r->said_away)
        log_warn("redis", "%s", status_message());
    r->said_away = true;
    return status;
}

static enum status reach(struct rk_redis *r) {
    if (r->context)
        return STATUS_OK;
    if (clock_mono_us() < r->retry_at_us)
        return fail(STATUS_UNAVAILABLE, "Redis at %s is away", where(r));
    struct timeval wait = {r->conf->timeout_us / 1000000, r->conf->timeout_us % 1000000};
    r->context = *r->conf->socket
                     ? redisConnectUnixWithTimeout(r->conf->socket, wait)
                     : redisConnectWithTimeout(r->conf->host, (int)r->conf->port, wait);
    if (!r->context || r->context->err)
        return lose(r, why_lost(r->context));
    if (redisSetTimeout(r->context, wait) != REDIS_OK)
        return lose(r, "no time-out can be set");
    return STATUS_OK;
}

static enum status send_words(struct rk_redis *r, int n, const char **words, const size_t *sizes) {
    TRY(reach(r));
    int done = 0;
    if (redisAppendCommandArgv(r->context, n, words, sizes) != REDIS_OK)
        return lose(r, why_lost(r->context));
    while (!done)
        if (redisBufferWrite(r->context, &done) != REDIS_OK)
            return lose(r, why_lost(r->context));
    return STATUS_OK;
}

static enum status hear(struct rk_redis *r, redisReply **out) {
    void *got = NULL;
    if (redisGetReply(r->context, &got) != REDIS_OK || !got)
        return lose(r, why_lost(r->context));
    redisReply *reply = got;
    if (reply->type == REDIS_REPLY_ERROR) { /* the connection is fine, the command is not */
        enum status status =
            fail(STATUS_UNAVAILABLE, "Redis at %s: %s", where(r), reply->str ? reply->str : "?");
        freeReplyObject(reply);
        return status;
    }
    if (r->said_away)
        log_info("redis", "Redis at %s is back", where(r));
    r->said_away = false;
    r->backoff_us = 0;
    *out = reply;
    return STATUS_OK;
}

enum status rk_redis_get(struct rk_redis *r, struct arena *a, struct slice key,
                         struct slice *value) {
    const char *words[] = {"GET", key.p};
    const size_t sizes[] = {3, key.n};
    redisReply *reply = NULL;
    TRY(send_words(r, 2, words, sizes));
    TRY(hear(r, &reply));
    bool found = reply->type == REDIS_REPLY_STRING;
    if (found)
        *value = arena_dup(a, (struct slice){reply->str, (size_t)reply->len});
    freeReplyObject(reply);
    return found ? STATUS_OK : fail(STATUS_NOT_FOUND, "no such key");
}

enum status rk_redis_set_begin(struct rk_redis *r, struct slice key, struct slice value,
                               int64_t ttl_us) {
    char ttl[24];
    int n = snprintf(ttl, sizeof ttl, "%lld", (long long)(ttl_us < 1000 ? 1 : ttl_us / 1000));
    const char *words[] = {"SET", key.p, value.p, "PX", ttl};
    const size_t sizes[] = {3, key.n, value.n, 2, (size_t)n};
    return send_words(r, 5, words, sizes);
}

enum status rk_redis_set_end(struct rk_redis *r) {
    redisReply *reply = NULL;
    TRY(hear(r, &reply));
    freeReplyObject(reply);
    return STATUS_OK;
}

enum status rk_redis_set(struct rk_redis *r, struct slice key, struct slice value, int64_t ttl_us) {
    TRY(rk_redis_set_begin(r, key, value, ttl_us));
    return rk_redis_set_end(r);
}
