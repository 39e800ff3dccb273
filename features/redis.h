/* redis.h: a Redis client for state: pipelines of commands, sent in one round trip to the server
 * or, in a cluster, to each node that has a part of them.
 *
 *     feat_redis_begin(r, &arena);
 *     feat_redis_command(r, slot, FEAT_REDIS_READ, 2);
 *     feat_redis_word(r, SLICE_LIT("GET")), feat_redis_word(r, key);
 *     TRY(feat_redis_run(r));
 *     reply = feat_redis_reply(r, 0);
 *
 * Reads follow redirections (MOVED, ASK) and are repeated over a lost connection until
 * conf.timeout; writes are sent at most once, since only the caller knows whether they may be
 * repeated. Connections are made when needed, and after a failure anew with back-off; in between
 * calls fail at once. One thread per client. */
#pragma once
#include "base/arena.h"
#include "base/conf.h"
#include "base/slice.h"
#include "base/status.h"

enum feat_redis_mode { FEAT_REDIS_SINGLE, FEAT_REDIS_CLUSTER, FEAT_REDIS_SENTINEL };

struct feat_redis_conf {
    int mode;
    struct conf_strings addresses; /* host:port or unix:/path: the server; some nodes of the
                                      cluster; the sentinels */
    const char *master;            /* what the sentinels call it */
    const char *user, *password;   /* "": none */
    int64_t timeout_us;            /* of a connection, of an answer, of a call with repeats */
};

enum feat_redis_type {
    FEAT_REDIS_NIL,
    FEAT_REDIS_TEXT, /* strings and statuses */
    FEAT_REDIS_NUMBER,
    FEAT_REDIS_LIST,
    FEAT_REDIS_ERROR, /* text: what Redis says */
    FEAT_REDIS_AGAIN  /* a write that was perhaps not done: read again, then decide */
};
struct feat_redis_reply {
    enum feat_redis_type type;
    struct slice text;
    int64_t number;
    struct feat_redis_reply *items; /* [n] of a list */
    int n;
};

enum feat_redis_manner { FEAT_REDIS_READ, FEAT_REDIS_WRITE };
enum { FEAT_REDIS_ANY = -1, FEAT_REDIS_SLOTS = 16384 };

struct feat_redis;
/* Connects at the first call. `script` (or NULL) is loaded on every connection; feat_redis_sha
 * names it. Both must outlive the client. */
struct feat_redis *feat_redis_new(const struct feat_redis_conf *c, const char *script);
void feat_redis_free(struct feat_redis *r); /* NULL is fine */
/* INVALID_ARGUMENT names the address that is none. */
enum status feat_redis_check(const struct feat_redis_conf *c);
bool feat_redis_is_cluster(const struct feat_redis *r);

/* The slot of a key: of the part in {} if there is one. */
int feat_redis_slot(struct slice key);

void feat_redis_begin(struct feat_redis *r, struct arena *a); /* replies live in `a` */
/* One command of n_words, which must follow. Returns its number. */
int feat_redis_command(struct feat_redis *r, int slot, enum feat_redis_manner manner, int n_words);
void feat_redis_word(struct feat_redis *r, struct slice word);
void feat_redis_word_of(struct feat_redis *r, struct slice head, struct slice tail);
void feat_redis_number(struct feat_redis *r, int64_t number); /* a word */
/* OK: every command has its reply, be it an error. UNAVAILABLE names the server. */
enum status feat_redis_run(struct feat_redis *r);
const struct feat_redis_reply *feat_redis_reply(const struct feat_redis *r, int command);
/* What an ERROR reply means to a caller who cannot go on; names the server. */
enum status feat_redis_fail(const struct feat_redis *r, const struct feat_redis_reply *reply);

/* Changes whenever a connection was made or slots changed hands. Writes of the next run are only
 * sent if it is still `epoch`, otherwise their replies are AGAIN: what they rest on was read from
 * a server that may not be the one they would reach. */
uint64_t feat_redis_epoch(const struct feat_redis *r);
void feat_redis_expect(struct feat_redis *r, uint64_t epoch);

/* Asks the server to tell, from its next connection on, which of the keys that were read over it
 * have changed since (Redis' client-side caching). Not of a cluster. */
void feat_redis_track(struct feat_redis *r);
/* Does it? What was told holds for as long as this and the epoch stay. */
bool feat_redis_tells(const struct feat_redis *r);
/* Takes what has been told so far, without waiting: each key once it has changed, in any number; an
 * empty key: all of them. What a run brought with its replies is among it. */
void feat_redis_hear(struct feat_redis *r, struct arena *a, void *context,
                     void (*changed)(void *context, struct slice key));

/* The script's name for EVALSHA. */
struct slice feat_redis_sha(const struct feat_redis *r);
/* One slot of each master, so that a command can be sent to every one. */
enum status feat_redis_masters(struct feat_redis *r, struct arena *a, const int **slots, int *n);
