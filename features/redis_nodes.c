/* redis_nodes.c: which server to talk to: one, the master that sentinels name, or of a cluster the
 * owner of each of the 16384 slots (CRC16 of the key or of its part in braces, as the Redis Cluster
 * specification says). Owners are asked for at the start, after MOVED and after a lost connection;
 * any node that answers will do. Deliberately no reading from replicas: they lag. */
#include "features/redis_parts.h"
#include <stdio.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/log.h"

/* ---- slots ---- */

/* CRC16/XMODEM, bit by bit: keys are made once per entity and batch from a table of tags. */
static uint16_t crc16(struct slice s) {
    uint16_t crc = 0;
    for (size_t i = 0; i < s.n; i++) {
        crc ^= (uint16_t)((uint8_t)s.p[i] << 8);
        for (int bit = 0; bit < 8; bit++)
            crc = (uint16_t)(crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1);
    }
    return crc;
}

int feat_redis_slot(struct slice key) {
    const char *open = key.n > 0 ? memchr(key.p, '{', key.n) : NULL;
    if (open != NULL) {
        size_t left = key.n - (size_t)(open + 1 - key.p);
        const char *close = memchr(open + 1, '}', left);
        if (close != NULL && close > open + 1)
            key = (struct slice){open + 1, (size_t)(close - open - 1)};
    }
    return crc16(key) % FEAT_REDIS_SLOTS;
}

/* ---- nodes ---- */

static int find_node(const struct feat_redis *r, const char *host, int port) {
    for (int i = 0; i < r->n_nodes; i++)
        if (r->nodes[i]->port == port && strcmp(r->nodes[i]->host, host) == 0)
            return i;
    return -1;
}

static int add_node(struct feat_redis *r, char *host, int port) {
    int at = find_node(r, host, port);
    if (at >= 0) {
        heap_free(host);
        return at;
    }
    r->nodes = heap_grow(r->nodes, (size_t)(r->n_nodes + 1) * sizeof *r->nodes);
    r->nodes[r->n_nodes] = feat_redis_conn_new(host, port);
    return r->n_nodes++;
}

int feat_redis_node(struct feat_redis *r, struct slice address,
                    const struct feat_redis_conn *from) {
    char *host;
    int port;
    if (!feat_redis_address(address, &host, &port))
        return -1;
    if (host[0] == '\0' && from != NULL) { /* "the host you have me by" */
        heap_free(host);
        host = heap_strdup(from->host);
    }
    return add_node(r, host, port);
}

static enum status reach(struct feat_redis *r, int node, bool script) {
    bool made = false;
    r->nodes[node]->telling = r->telling;
    TRY(feat_redis_conn_reach(r->nodes[node], r->conf, script ? r->script : NULL, r->sha, &made));
    r->epoch += made;
    return STATUS_OK;
}

/* ---- cluster ---- */

/* [start, end, [host, port, ...], replicas...] */
static bool read_range(struct feat_redis *r, const struct feat_redis_reply *range,
                       const struct feat_redis_conn *from, int16_t *owner) {
    if (range->type != FEAT_REDIS_LIST || range->n < 3 || range->items[2].n < 2)
        return false;
    const struct feat_redis_reply *master = range->items[2].items;
    int64_t first = range->items[0].number, last = range->items[1].number;
    int64_t port = master[1].number;
    if (first < 0 || last >= FEAT_REDIS_SLOTS || port <= 0 || port > 65535 || r->n_nodes >= 1000)
        return false;
    bool same_host = master[0].type != FEAT_REDIS_TEXT || master[0].text.n == 0;
    char *host = heap_strdup(same_host ? from->host : master[0].text.p);
    int node = add_node(r, host, (int)port);
    for (int64_t slot = first; slot <= last; slot++)
        owner[slot] = (int16_t)node;
    return true;
}

static enum status ask_owners(struct feat_redis *r, int node, int16_t *owner) {
    static const struct slice words[] = {SLICE_LIT("CLUSTER"), SLICE_LIT("SLOTS")};
    struct feat_redis_reply reply;
    TRY(reach(r, node, true));
    TRY(feat_redis_conn_ask(r->nodes[node], &r->scratch, words, 2, &reply));
    const char *name = feat_redis_conn_name(r->nodes[node]);
    if (reply.type == FEAT_REDIS_ERROR)
        return fail(STATUS_FAILED_PRECONDITION, "Redis at %s: CLUSTER SLOTS: %.*s", name,
                    SLICE_ARG(reply.text));
    if (reply.type != FEAT_REDIS_LIST || reply.n == 0)
        return fail(STATUS_UNAVAILABLE, "Redis at %s: the cluster has no slots yet", name);
    for (int i = 0; i < reply.n; i++)
        if (!read_range(r, &reply.items[i], r->nodes[node], owner))
            return fail(STATUS_UNAVAILABLE, "Redis at %s: CLUSTER SLOTS: not understood", name);
    return STATUS_OK;
}

/* A node that was just found away knows nothing new: those come last. */
static enum status refresh_cluster(struct feat_redis *r) {
    int16_t *owner = heap_alloc(FEAT_REDIS_SLOTS * sizeof *owner);
    enum status status = fail(STATUS_UNAVAILABLE, "no Redis node is known");
    int known = r->n_nodes;
    arena_reset(&r->scratch);
    for (int pass = 0; pass < 2 && status != STATUS_OK; pass++) {
        for (int i = 0; i < known && status != STATUS_OK; i++) {
            bool away = r->nodes[i]->context == NULL;
            if (away != (pass == 1))
                continue;
            memset(owner, -1, FEAT_REDIS_SLOTS * sizeof *owner);
            status = ask_owners(r, i, owner);
        }
    }
    if (status == STATUS_OK) {
        if (memcmp(r->owner, owner, FEAT_REDIS_SLOTS * sizeof *owner) != 0)
            r->epoch++;
        memcpy(r->owner, owner, FEAT_REDIS_SLOTS * sizeof *owner);
        r->stale = false;
    }
    heap_free(owner);
    return status;
}

/* ---- sentinel ---- */

static enum status check_master(struct feat_redis *r, struct feat_redis_conn *c) {
    static const struct slice role[] = {SLICE_LIT("ROLE")};
    struct feat_redis_reply reply;
    TRY(feat_redis_conn_ask(c, &r->scratch, role, 1, &reply));
    if (reply.type == FEAT_REDIS_LIST && reply.n > 0 && slice_is(reply.items[0].text, "master"))
        return STATUS_OK;
    feat_redis_conn_drop(c);
    return fail(STATUS_UNAVAILABLE, "Redis at %s is not the master (yet)", feat_redis_conn_name(c));
}

static enum status ask_sentinel(struct feat_redis *r, struct slice address,
                                struct feat_redis_conn **out) {
    const struct slice words[] = {SLICE_LIT("SENTINEL"), SLICE_LIT("get-master-addr-by-name"),
                                  slice_of(r->conf->master)};
    struct feat_redis_conf conf = *r->conf;
    struct feat_redis_reply reply;
    char *host;
    int port;
    bool made;
    conf.password = "";
    if (!feat_redis_address(address, &host, &port))
        return fail(STATUS_INVALID_ARGUMENT, "'%.*s' is no address", SLICE_ARG(address));
    struct feat_redis_conn *c = feat_redis_conn_new(host, port);
    c->quiet = true;
    enum status status = feat_redis_conn_reach(c, &conf, NULL, NULL, &made);
    if (status == STATUS_OK)
        status = feat_redis_conn_ask(c, &r->scratch, words, 3, &reply);
    if (status == STATUS_OK && (reply.type != FEAT_REDIS_LIST || reply.n != 2))
        status = fail(STATUS_UNAVAILABLE, "sentinel %s knows no master '%s'",
                      feat_redis_conn_name(c), r->conf->master);
    feat_redis_conn_free(c);
    TRY(status);
    int64_t n = 0;
    for (size_t i = 0; i < reply.items[1].text.n; i++)
        n = n * 10 + (reply.items[1].text.p[i] - '0');
    *out = feat_redis_conn_new(heap_strdup(reply.items[0].text.p), (int)n);
    return STATUS_OK;
}

/* The master by the first sentinel that answers; it takes the place of node 0. */
static enum status find_master(struct feat_redis *r) {
    enum status status = fail(STATUS_UNAVAILABLE, "no sentinel is known");
    struct feat_redis_conn *c = NULL;
    arena_reset(&r->scratch);
    for (int i = 0; i < r->conf->addresses.n && c == NULL; i++)
        status = ask_sentinel(r, slice_of(r->conf->addresses.v[i]), &c);
    TRY(status);
    if (r->n_nodes == 0) {
        r->nodes = heap_grow(r->nodes, sizeof *r->nodes);
        r->n_nodes = 1;
        r->nodes[0] = c;
    } else if (r->nodes[0]->port == c->port && strcmp(r->nodes[0]->host, c->host) == 0) {
        feat_redis_conn_free(c); /* the same, with its back-off */
    } else {
        feat_redis_conn_free(r->nodes[0]);
        r->nodes[0] = c;
    }
    TRY(reach(r, 0, true));
    return check_master(r, r->nodes[0]);
}

/* ---- for all three ---- */

static enum status add_seeds(struct feat_redis *r) {
    for (int i = 0; i < r->conf->addresses.n; i++)
        if (feat_redis_node(r, slice_of(r->conf->addresses.v[i]), NULL) < 0)
            return feat_redis_check(r->conf);
    return STATUS_OK;
}

enum status feat_redis_topology(struct feat_redis *r) {
    if (r->conf->mode == FEAT_REDIS_SENTINEL) {
        if (r->n_nodes > 0 && r->nodes[0]->context != NULL && !r->stale)
            return STATUS_OK;
        TRY(find_master(r));
        r->stale = false;
        return STATUS_OK;
    }
    if (r->n_nodes == 0)
        TRY(add_seeds(r));
    if (r->conf->mode == FEAT_REDIS_SINGLE)
        return reach(r, 0, true);
    return r->stale ? refresh_cluster(r) : STATUS_OK;
}

enum status feat_redis_check(const struct feat_redis_conf *c) {
    if (c->addresses.n == 0)
        return fail(STATUS_INVALID_ARGUMENT, "no address of a Redis is given");
    if (c->mode == FEAT_REDIS_SENTINEL && c->master[0] == '\0')
        return fail(STATUS_INVALID_ARGUMENT, "sentinels need the master's name");
    for (int i = 0; i < c->addresses.n; i++) {
        char *host;
        int port;
        if (!feat_redis_address(slice_of(c->addresses.v[i]), &host, &port))
            return fail(STATUS_INVALID_ARGUMENT,
                        "'%s' is no address; write host:port or unix:/path", c->addresses.v[i]);
        heap_free(host);
    }
    return STATUS_OK;
}

enum status feat_redis_masters(struct feat_redis *r, struct arena *a, const int **slots, int *n) {
    TRY(feat_redis_topology(r));
    int *found = ARENA_ARRAY(a, int, r->n_nodes);
    int n_found = 0;
    if (r->conf->mode != FEAT_REDIS_CLUSTER)
        found[n_found++] = FEAT_REDIS_ANY;
    bool *seen = ARENA_ARRAY(a, bool, r->n_nodes + 1);
    for (int slot = 0; r->conf->mode == FEAT_REDIS_CLUSTER && slot < FEAT_REDIS_SLOTS; slot++) {
        int node = r->owner[slot];
        if (node >= 0 && !seen[node]) {
            seen[node] = true;
            found[n_found++] = slot;
        }
    }
    *slots = found;
    *n = n_found;
    return STATUS_OK;
}
