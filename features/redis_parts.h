/* redis_parts.h: what the features/redis*.c files share; nobody else includes it. hiredis' types
 * are named here, not seen. */
#pragma once
#include "base/buf.h"
#include "features/redis.h"

struct redisContext;

/* One server. */
struct feat_redis_conn {
    char *host;                   /* or a socket's path */
    int port;                     /* 0: `host` is a path */
    struct redisContext *context; /* NULL: not connected */
    struct buf in;                /* bytes that came, of which `read` are read */
    size_t read;
    struct buf changed; /* keys it told of: n u32 | bytes, or FEAT_REDIS_ALL_KEYS */
    int64_t retry_at_us, backoff_us;
    bool quiet;             /* one of several: its coming and going is not worth a line */
    bool said_away, doomed; /* doomed: to be dropped after the replies under way */
    bool telling, tells;    /* it is to tell which keys change; it does */
    /* of one round */
    struct buf out;
    bool wanted, failed;
};

struct feat_redis_cmd {
    size_t at; /* in feat_redis.text */
    int slot, node;
    enum feat_redis_manner manner;
    bool done, asking, sent;
    struct feat_redis_reply reply;
};

struct feat_redis {
    const struct feat_redis_conf *conf;
    const char *script;
    char sha[48];
    struct feat_redis_conn **nodes; /* [n_nodes]; never removed but when all are */
    int n_nodes;
    int16_t *owner; /* [FEAT_REDIS_SLOTS] node, -1 unknown; of a cluster */
    bool stale;     /* the owners are to be asked for again */
    bool telling;   /* servers are to tell which keys change */
    uint64_t epoch, expected;
    struct arena scratch; /* of asking about topology */

    struct arena *replies;
    struct buf text;
    struct feat_redis_cmd *cmds; /* [n_cmds] */
    int n_cmds, cap_cmds;
};

#define FEAT_REDIS_ALL_KEYS UINT32_MAX

/* ---- redis_reply.c: of a connection that is there; after a failure it is to be dropped ---- */

/* The next reply, waited for; keys told of before it are added to c->changed. */
enum status feat_redis_take_reply(struct feat_redis_conn *c, struct arena *a,
                                  struct feat_redis_reply *out);
/* What the server has told and no reply, without waiting for the first byte of it. */
enum status feat_redis_take_pushes(struct feat_redis_conn *c, struct arena *a);

/* ---- redis_conn.c ---- */

/* "host:port", "[::1]:port", "unix:/path"; false: neither. */
bool feat_redis_address(struct slice text, char **host, int *port);
struct feat_redis_conn *feat_redis_conn_new(char *host, int port); /* owns `host` */
void feat_redis_conn_free(struct feat_redis_conn *c);
const char *feat_redis_conn_name(const struct feat_redis_conn *c); /* valid until the next call */
/* Connected, logged in, script loaded (sha NULL: no script); *made: only now. */
enum status feat_redis_conn_reach(struct feat_redis_conn *c, const struct feat_redis_conf *conf,
                                  const char *script, char *sha, bool *made);
/* Either failing drops the connection. */
enum status feat_redis_conn_send(struct feat_redis_conn *c, struct slice bytes);
enum status feat_redis_conn_receive(struct feat_redis_conn *c, struct arena *a,
                                    struct feat_redis_reply *out);
/* Takes what was told, without waiting. */
enum status feat_redis_conn_hear(struct feat_redis_conn *c, struct arena *a);
/* One command, by words; its reply may be an error. */
enum status feat_redis_conn_ask(struct feat_redis_conn *c, struct arena *a,
                                const struct slice *words, int n, struct feat_redis_reply *out);
void feat_redis_conn_drop(struct feat_redis_conn *c);
void feat_redis_put_head(struct buf *b, int n_words);
void feat_redis_put_word(struct buf *b, struct slice head, struct slice tail); /* one word */

/* ---- redis_nodes.c ---- */

/* Node of that address, added when new; -1 if it is no address. */
int feat_redis_node(struct feat_redis *r, struct slice address, const struct feat_redis_conn *from);
/* The servers are known (and, after `stale`, asked for again). */
enum status feat_redis_topology(struct feat_redis *r);
