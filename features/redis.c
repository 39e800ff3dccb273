/* redis.c: a pipeline: commands are written into one buffer, grouped by node, sent to all nodes,
 * and only then are replies read: one round trip, whatever the number of commands and nodes.
 *
 * What can go wrong is of two kinds. A read is repeated: after MOVED with the owners asked for
 * again, after ASK at the node named, after "try again" and a lost connection until time is up. A
 * write becomes AGAIN and is the caller's business. Deliberately no splitting of multi-key commands
 * and no transactions. */
#include "features/redis.h"
#include <stdio.h>
#include "base/clock.h"
#include "base/heap.h"
#include "features/redis_parts.h"

enum { PAUSE_MS_MAX = 50 };

struct feat_redis *feat_redis_new(const struct feat_redis_conf *c, const char *script) {
    struct feat_redis *r = HEAP_NEW(struct feat_redis);
    r->conf = c;
    r->script = script;
    r->stale = true;
    r->owner = heap_alloc(FEAT_REDIS_SLOTS * sizeof *r->owner);
    memset(r->owner, -1, FEAT_REDIS_SLOTS * sizeof *r->owner);
    arena_init(&r->scratch, 0);
    return r;
}

void feat_redis_free(struct feat_redis *r) {
    if (r == NULL)
        return;
    for (int i = 0; i < r->n_nodes; i++)
        feat_redis_conn_free(r->nodes[i]);
    heap_free(r->nodes);
    heap_free(r->owner);
    heap_free(r->cmds);
    buf_deinit(&r->text);
    arena_deinit(&r->scratch);
    heap_free(r);
}

bool feat_redis_is_cluster(const struct feat_redis *r) {
    return r->conf->mode == FEAT_REDIS_CLUSTER;
}
uint64_t feat_redis_epoch(const struct feat_redis *r) { return r->epoch; }
void feat_redis_expect(struct feat_redis *r, uint64_t epoch) { r->expected = epoch; }
struct slice feat_redis_sha(const struct feat_redis *r) {
    return slice_of(r->sha);
}

/* ---- what changes ---- */

void feat_redis_track(struct feat_redis *r) { r->telling = r->conf->mode != FEAT_REDIS_CLUSTER; }

bool feat_redis_tells(const struct feat_redis *r) {
    return r->n_nodes == 1 && r->nodes[0]->context != NULL && r->nodes[0]->tells;
}

void feat_redis_hear(struct feat_redis *r, struct arena *a, void *context,
                     void (*changed)(void *context, struct slice key)) {
    for (int i = 0; i < r->n_nodes; i++) {
        struct feat_redis_conn *c = r->nodes[i];
        feat_redis_conn_hear(c, a); /* a connection that is lost tells no more */
        struct cursor at = cursor_of(c->changed.p, c->changed.n);
        while (at.p < at.end) {
            uint32_t n = cursor_u32(&at);
            changed(context,
                    n == FEAT_REDIS_ALL_KEYS ? (struct slice){NULL, 0} : cursor_bytes(&at, n));
        }
        buf_clear(&c->changed);
    }
}

/* ---- writing commands ---- */

void feat_redis_begin(struct feat_redis *r, struct arena *a) {
    r->replies = a;
    r->n_cmds = 0;
    r->expected = UINT64_MAX;
    buf_clear(&r->text);
}

int feat_redis_command(struct feat_redis *r, int slot, enum feat_redis_manner manner, int n_words) {
    if (r->n_cmds == r->cap_cmds) {
        r->cap_cmds = r->cap_cmds == 0 ? 64 : 2 * r->cap_cmds;
        r->cmds = heap_grow(r->cmds, (size_t)r->cap_cmds * sizeof *r->cmds);
    }
    r->cmds[r->n_cmds] =
        (struct feat_redis_cmd){.at = r->text.n, .slot = slot, .node = -1, .manner = manner};
    feat_redis_put_head(&r->text, n_words);
    return r->n_cmds++;
}

void feat_redis_word(struct feat_redis *r, struct slice word) {
    feat_redis_put_word(&r->text, word, (struct slice){NULL, 0});
}

void feat_redis_word_of(struct feat_redis *r, struct slice head, struct slice tail) {
    feat_redis_put_word(&r->text, head, tail);
}

void feat_redis_number(struct feat_redis *r, int64_t number) {
    char text[24];
    int n = snprintf(text, sizeof text, "%lld", (long long)number);
    feat_redis_word(r, (struct slice){text, (size_t)n});
}

const struct feat_redis_reply *feat_redis_reply(const struct feat_redis *r, int command) {
    return &r->cmds[command].reply;
}

enum status feat_redis_fail(const struct feat_redis *r, const struct feat_redis_reply *reply) {
    struct slice text = reply->type == FEAT_REDIS_ERROR ? reply->text : SLICE_LIT("odd answer");
    const char *name = r->n_nodes > 0 && r->conf->mode != FEAT_REDIS_CLUSTER
                           ? feat_redis_conn_name(r->nodes[0])
                           : "the cluster";
    bool denied = text.n >= 6 && (memcmp(text.p, "NOAUTH", 6) == 0 || //
                                  memcmp(text.p, "NOPERM", 6) == 0);
    return fail(denied ? STATUS_PERMISSION_DENIED : STATUS_UNAVAILABLE, "Redis at %s: %.*s", name,
                SLICE_ARG(text));
}

/* ---- one round ---- */

static void set_again(struct feat_redis_cmd *cmd) {
    cmd->done = true;
    cmd->reply = (struct feat_redis_reply){.type = FEAT_REDIS_AGAIN};
}

/* Which node each open command goes to; their connections are made. Commands whose node cannot be
 * reached stay open. */
static enum status reach_nodes(struct feat_redis *r) {
    enum status status = STATUS_OK;
    for (int i = 0; i < r->n_nodes; i++)
        r->nodes[i]->wanted = r->nodes[i]->failed = false;
    for (int i = 0; i < r->n_cmds; i++) {
        struct feat_redis_cmd *cmd = &r->cmds[i];
        if (cmd->done)
            continue;
        if (!cmd->asking)
            cmd->node = r->conf->mode != FEAT_REDIS_CLUSTER ? 0
                        : cmd->slot >= 0                    ? r->owner[cmd->slot]
                                                            : r->owner[0];
        if (cmd->node < 0) {
            r->stale = true;
            status = fail(STATUS_UNAVAILABLE, "Redis: slot %d has no owner", cmd->slot);
        } else {
            r->nodes[cmd->node]->wanted = true;
        }
    }
    for (int i = 0; i < r->n_nodes; i++) {
        bool made = false;
        if (!r->nodes[i]->wanted)
            continue;
        r->nodes[i]->telling = r->telling;
        enum status reached = feat_redis_conn_reach(r->nodes[i], r->conf, r->script, r->sha, &made);
        r->epoch += made;
        r->nodes[i]->failed = reached != STATUS_OK;
        r->stale |= reached != STATUS_OK;
        status = reached != STATUS_OK ? reached : status;
    }
    return status;
}

static void send_all(struct feat_redis *r) {
    for (int i = 0; i < r->n_nodes; i++)
        buf_clear(&r->nodes[i]->out);
    for (int i = 0; i < r->n_cmds; i++) {
        struct feat_redis_cmd *cmd = &r->cmds[i];
        size_t end = i + 1 < r->n_cmds ? r->cmds[i + 1].at : r->text.n;
        if (cmd->done || cmd->node < 0 || r->nodes[cmd->node]->failed)
            continue;
        struct feat_redis_conn *c = r->nodes[cmd->node];
        if (cmd->asking)
            buf_add_str(&c->out, "*1\r\n$6\r\nASKING\r\n");
        buf_add(&c->out, r->text.p + cmd->at, end - cmd->at);
        cmd->sent = true;
    }
    for (int i = 0; i < r->n_nodes; i++) {
        struct feat_redis_conn *c = r->nodes[i];
        if (c->wanted && !c->failed && c->out.n > 0)
            c->failed = feat_redis_conn_send(c, buf_slice(&c->out)) != STATUS_OK;
    }
}

static bool starts(struct slice text, const char *word) {
    size_t n = strlen(word);
    return text.n >= n && memcmp(text.p, word, n) == 0;
}

/* "MOVED 3999 127.0.0.1:6381" */
static struct slice address_in(struct slice text) {
    size_t at = text.n;
    while (at > 0 && text.p[at - 1] != ' ')
        at--;
    return (struct slice){text.p + at, text.n - at};
}

/* Takes a command's reply, or leaves it open. */
static void take(struct feat_redis *r, struct feat_redis_cmd *cmd,
                 const struct feat_redis_reply *reply) {
    static const char *const passing[] = {"TRYAGAIN",   "CLUSTERDOWN", "LOADING",
                                          "MASTERDOWN", "BUSY",        NULL};
    bool open = false;
    if (reply->type == FEAT_REDIS_ERROR) {
        struct feat_redis_conn *c = r->nodes[cmd->node];
        if (starts(reply->text, "MOVED ") && r->conf->mode == FEAT_REDIS_CLUSTER) {
            r->stale = open = true;
            cmd->asking = false;
        } else if (starts(reply->text, "ASK ")) {
            int node = feat_redis_node(r, address_in(reply->text), c);
            open = true;
            cmd->asking = node >= 0;
            cmd->node = node;
        } else if (starts(reply->text, "READONLY") || starts(reply->text, "NOSCRIPT")) {
            r->stale = c->doomed = open = true; /* a demoted master; a restarted one */
        }
        for (int i = 0; passing[i] != NULL && !open; i++)
            if (starts(reply->text, passing[i])) {
                open = true;
                cmd->asking = false;
            }
    }
    if (open && cmd->manner == FEAT_REDIS_READ)
        return;
    if (open)
        set_again(cmd);
    else {
        cmd->done = true;
        cmd->reply = *reply;
    }
}

/* In the order of sending, node by node. */
static enum status receive_all(struct feat_redis *r) {
    enum status status = STATUS_OK;
    int n_nodes = r->n_nodes; /* ASK may add some */
    for (int node = 0; node < n_nodes; node++) {
        struct feat_redis_conn *c = r->nodes[node];
        for (int i = 0; c->wanted && i < r->n_cmds; i++) {
            struct feat_redis_cmd *cmd = &r->cmds[i];
            struct feat_redis_reply reply;
            if (!cmd->sent || cmd->node != node)
                continue;
            cmd->sent = false;
            for (int n = cmd->asking ? 2 : 1; n > 0 && !c->failed; n--) {
                enum status received = feat_redis_conn_receive(c, r->replies, &reply);
                c->failed = received != STATUS_OK;
                status = c->failed ? received : status;
            }
            if (!c->failed)
                take(r, cmd, &reply);
            else if (cmd->manner == FEAT_REDIS_WRITE)
                set_again(cmd);
        }
        r->stale |= c->failed;
        if (c->doomed)
            feat_redis_conn_drop(c);
    }
    return status;
}

/* Writes are not sent over a connection, or to an owner, that is new. */
static void hold_writes(struct feat_redis *r) {
    for (int i = 0; i < r->n_cmds; i++) {
        struct feat_redis_cmd *cmd = &r->cmds[i];
        bool reachable = cmd->node >= 0 && !r->nodes[cmd->node]->failed;
        if (!cmd->done && cmd->manner == FEAT_REDIS_WRITE &&
            (!reachable || (r->expected != UINT64_MAX && r->expected != r->epoch)))
            set_again(cmd);
    }
}

static enum status round_trip(struct feat_redis *r) {
    enum status status = feat_redis_topology(r);
    if (status != STATUS_OK) {
        for (int i = 0; i < r->n_cmds; i++)
            if (!r->cmds[i].done && r->cmds[i].manner == FEAT_REDIS_WRITE)
                set_again(&r->cmds[i]);
        return status;
    }
    status = reach_nodes(r);
    hold_writes(r);
    send_all(r);
    enum status received = receive_all(r);
    return received != STATUS_OK ? received : status;
}

static bool all_done(const struct feat_redis *r) {
    for (int i = 0; i < r->n_cmds; i++)
        if (!r->cmds[i].done)
            return false;
    return true;
}

enum status feat_redis_run(struct feat_redis *r) {
    int64_t until_us = clock_mono_us() + r->conf->timeout_us;
    int pause_ms = 0;
    for (int round = 0;; round++) {
        enum status status = round_trip(r);
        if (all_done(r))
            return STATUS_OK;
        if (status != STATUS_OK && status != STATUS_UNAVAILABLE)
            return status;
        if (status != STATUS_OK && round > 0 && r->conf->mode == FEAT_REDIS_SINGLE)
            return status; /* it will not be another one that answers */
        if (clock_mono_us() > until_us)
            return status != STATUS_OK ? status
                                       : fail(STATUS_UNAVAILABLE, "Redis: no end of redirections");
        clock_sleep_ms(pause_ms);
        pause_ms = pause_ms == 0 ? 1 : pause_ms * 2 > PAUSE_MS_MAX ? PAUSE_MS_MAX : pause_ms * 2;
    }
}
