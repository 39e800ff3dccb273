/* redis_conn.c: one connection: connecting (by hiredis), logging in, sending bytes, reading replies
 * (redis_reply.c). Any error makes a connection unusable: it is dropped, and made anew after a
 * back-off.
 * Deliberately no TLS (hiredis 0.14 has none: put stunnel in front) and no event loop. */
#include "features/redis_parts.h"
#include <errno.h>
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/log.h"

enum { BACKOFF_US = 20 * 1000, BACKOFF_MAX_US = 1000 * 1000 };

bool feat_redis_address(struct slice text, char **host, int *port) {
    static const char unix_word[] = "unix:";
    size_t n_unix = sizeof unix_word - 1;
    if (text.n > n_unix && memcmp(text.p, unix_word, n_unix) == 0) {
        *host = heap_alloc(text.n - n_unix + 1);
        memcpy(*host, text.p + n_unix, text.n - n_unix);
        *port = 0;
        return true;
    }
    size_t colon = text.n;
    while (colon > 0 && text.p[colon - 1] != ':')
        colon--;
    struct slice name = {text.p, colon > 0 ? colon - 1 : 0};
    long number = 0;
    for (size_t i = colon; i < text.n && number <= 65535; i++)
        number = text.p[i] >= '0' && text.p[i] <= '9' ? number * 10 + (text.p[i] - '0') : 65536;
    if (colon == 0 || number <= 0 || number > 65535)
        return false;
    if (name.n >= 2 && name.p[0] == '[' && name.p[name.n - 1] == ']')
        name = (struct slice){name.p + 1, name.n - 2};
    *host = heap_alloc(name.n + 1);
    memcpy(*host, name.p, name.n);
    *port = (int)number;
    return true;
}

struct feat_redis_conn *feat_redis_conn_new(char *host, int port) {
    struct feat_redis_conn *c = HEAP_NEW(struct feat_redis_conn);
    c->host = host;
    c->port = port;
    return c;
}

void feat_redis_conn_drop(struct feat_redis_conn *c) {
    if (c->context != NULL)
        redisFree(c->context);
    c->context = NULL;
    c->doomed = c->tells = false;
    buf_clear(&c->in);
    c->read = 0;
}

void feat_redis_conn_free(struct feat_redis_conn *c) {
    if (c == NULL)
        return;
    feat_redis_conn_drop(c);
    buf_deinit(&c->out);
    buf_deinit(&c->in);
    buf_deinit(&c->changed);
    heap_free(c->host);
    heap_free(c);
}

const char *feat_redis_conn_name(const struct feat_redis_conn *c) {
    static _Thread_local char text[300];
    if (c->port == 0)
        snprintf(text, sizeof text, "%s", c->host);
    else
        snprintf(text, sizeof text, strchr(c->host, ':') ? "[%s]:%d" : "%s:%d", c->host, c->port);
    return text;
}

/* Drops the connection and puts the next attempt off. */
static enum status lose(struct feat_redis_conn *c, const char *why) {
    enum status status = fail(STATUS_UNAVAILABLE, "Redis at %s: %s", feat_redis_conn_name(c), why);
    feat_redis_conn_drop(c);
    c->backoff_us = c->backoff_us == 0 ? BACKOFF_US : 2 * c->backoff_us;
    if (c->backoff_us > BACKOFF_MAX_US)
        c->backoff_us = BACKOFF_MAX_US;
    c->retry_at_us = clock_mono_us() + c->backoff_us;
    if (!c->said_away && !c->quiet)
        log_warn("redis", "%s", status_message());
    c->said_away = true;
    return status;
}

/* The same for what has just failed. */
static enum status lose_for(struct feat_redis_conn *c) {
    char why[200];
    snprintf(why, sizeof why, "%s", status_message());
    return lose(c, why);
}

/* ---- traffic ---- */

void feat_redis_put_head(struct buf *b, int n_words) {
    char text[16];
    int n = snprintf(text, sizeof text, "*%d\r\n", n_words);
    buf_add(b, text, (size_t)n);
}

void feat_redis_put_word(struct buf *b, struct slice head, struct slice tail) {
    char digits[24];
    int at = sizeof digits;
    size_t n = head.n + tail.n;
    digits[--at] = '\n';
    digits[--at] = '\r';
    do
        digits[--at] = (char)('0' + n % 10);
    while ((n /= 10) > 0);
    digits[--at] = '$';
    buf_reserve(b, head.n + tail.n + sizeof digits + 2);
    buf_add(b, digits + at, sizeof digits - (size_t)at);
    buf_add(b, head.p, head.n);
    buf_add(b, tail.p, tail.n);
    buf_add(b, "\r\n", 2);
}

enum status feat_redis_conn_send(struct feat_redis_conn *c, struct slice bytes) {
    while (bytes.n > 0) {
        ssize_t n = send(c->context->fd, bytes.p, bytes.n, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return lose(c, errno == EAGAIN ? "it takes no more bytes" : strerror(errno));
        bytes.p += n;
        bytes.n -= (size_t)n;
    }
    return STATUS_OK;
}

enum status feat_redis_conn_receive(struct feat_redis_conn *c, struct arena *a,
                                    struct feat_redis_reply *out) {
    return feat_redis_take_reply(c, a, out) == STATUS_OK ? STATUS_OK : lose_for(c);
}

enum status feat_redis_conn_hear(struct feat_redis_conn *c, struct arena *a) {
    if (c->context == NULL || !c->tells)
        return STATUS_OK;
    return feat_redis_take_pushes(c, a) == STATUS_OK ? STATUS_OK : lose_for(c);
}

enum status feat_redis_conn_ask(struct feat_redis_conn *c, struct arena *a,
                                const struct slice *words, int n, struct feat_redis_reply *out) {
    struct buf b = {0};
    feat_redis_put_head(&b, n);
    for (int i = 0; i < n; i++)
        feat_redis_put_word(&b, words[i], (struct slice){NULL, 0});
    enum status status = feat_redis_conn_send(c, buf_slice(&b));
    buf_deinit(&b);
    return status == STATUS_OK ? feat_redis_conn_receive(c, a, out) : status;
}

/* ---- connecting ---- */

static enum status log_in(struct feat_redis_conn *c, const struct feat_redis_conf *conf,
                          struct arena *a) {
    const struct slice words[] = {SLICE_LIT("AUTH"), slice_of(conf->user),
                                  slice_of(conf->password)};
    const struct slice short_words[] = {words[0], words[2]};
    struct feat_redis_reply reply;
    if (words[2].n == 0)
        return STATUS_OK;
    if (words[1].n > 0)
        TRY(feat_redis_conn_ask(c, a, words, 3, &reply));
    else
        TRY(feat_redis_conn_ask(c, a, short_words, 2, &reply));
    if (reply.type != FEAT_REDIS_ERROR)
        return STATUS_OK;
    lose(c, "it does not let us in");
    return fail(STATUS_PERMISSION_DENIED, "Redis at %s: %.*s", feat_redis_conn_name(c),
                SLICE_ARG(reply.text));
}

static enum status load_script(struct feat_redis_conn *c, const char *script, struct arena *a,
                               char *sha) {
    const struct slice words[] = {SLICE_LIT("SCRIPT"), SLICE_LIT("LOAD"), slice_of(script)};
    struct feat_redis_reply reply;
    TRY(feat_redis_conn_ask(c, a, words, 3, &reply));
    if (reply.type == FEAT_REDIS_TEXT && reply.text.n == 40) {
        memcpy(sha, reply.text.p, 41);
        return STATUS_OK;
    }
    lose(c, "it takes no script");
    return fail(STATUS_UNAVAILABLE, "Redis at %s: SCRIPT LOAD: %.*s", feat_redis_conn_name(c),
                SLICE_ARG(reply.text));
}

/* A Redis before 6, a proxy, or a user who may not: then it does not tell, and all is asked for. */
static enum status ask_to_tell(struct feat_redis_conn *c, struct arena *a) {
    static const struct slice hello[] = {SLICE_LIT("HELLO"), SLICE_LIT("3")};
    static const struct slice track[] = {SLICE_LIT("CLIENT"), SLICE_LIT("TRACKING"),
                                         SLICE_LIT("ON")};
    struct feat_redis_reply reply;
    TRY(feat_redis_conn_ask(c, a, hello, 2, &reply));
    if (reply.type == FEAT_REDIS_ERROR)
        return STATUS_OK;
    TRY(feat_redis_conn_ask(c, a, track, 3, &reply));
    c->tells = reply.type != FEAT_REDIS_ERROR;
    return STATUS_OK;
}

static enum status greet(struct feat_redis_conn *c, const struct feat_redis_conf *conf,
                         const char *script, char *sha) {
    struct arena a;
    arena_init(&a, 4096);
    enum status status = log_in(c, conf, &a);
    if (status == STATUS_OK && script != NULL)
        status = load_script(c, script, &a, sha);
    if (status == STATUS_OK && c->telling)
        status = ask_to_tell(c, &a);
    arena_deinit(&a);
    return status;
}

enum status feat_redis_conn_reach(struct feat_redis_conn *c, const struct feat_redis_conf *conf,
                                  const char *script, char *sha, bool *made) {
    if (c->context != NULL)
        return STATUS_OK;
    if (clock_mono_us() < c->retry_at_us)
        return fail(STATUS_UNAVAILABLE, "Redis at %s is away", feat_redis_conn_name(c));
    struct timeval wait = {conf->timeout_us / 1000000, conf->timeout_us % 1000000};
    c->context = c->port == 0 ? redisConnectUnixWithTimeout(c->host, wait)
                              : redisConnectWithTimeout(c->host, c->port, wait);
    if (c->context == NULL || c->context->err)
        return lose(c, c->context != NULL ? c->context->errstr : "no memory");
    if (redisSetTimeout(c->context, wait) != REDIS_OK)
        return lose(c, "no time-out can be set");
    TRY(greet(c, conf, script, sha));
    if (c->said_away && !c->quiet)
        log_info("redis", "Redis at %s is back", feat_redis_conn_name(c));
    c->said_away = false;
    c->backoff_us = 0;
    *made = true;
    return STATUS_OK;
}
