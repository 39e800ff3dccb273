/* store_redis_parts.h: the inside of the Redis store, for features/store_redis*.c.
 *
 *     PREFIX{tag}sKKKKKKKK   one entity: s the scope's letter, of "gusivr", K its key
 *         = n varint | n x (partition, offset) | record        "header": what is applied to it
 *     PREFIX{tag}m           the bucket's marker, a hash: partition -> "offset clock"
 *     PREFIXapplied          a hash: partition -> "offset clock": applied in every bucket
 *     PREFIXmeta             plan, buckets; PREFIXcounts: entities made so far, by scope
 *
 * Entities are spread over buckets by hash; a bucket is one tag, so one slot, so one server and one
 * stream of writes. One script call writes a bucket's part of a micro-batch and then its marker.
 *
 * - Who writes an entity names the header it has read; another header means that somebody else was
 *   faster: read again. Headers never come back, so they serve as versions.
 * - Who writes a bucket names the markers it knows. A higher one: somebody else has the partition,
 *   or our last write came through after all: events up to it are left out. A lower one: the server
 *   lost writes (failover, restart without all of its log). A server's state is a prefix of its
 *   stream, so what a surviving marker covers has survived too, and reading the log again from the
 *   least marker makes up for all that was lost.
 * - Where the plan sums over items (shares.h), a bucket's part of a micro-batch is written as a
 *   whole, with its marker, or not at all. All of a bucket is then at its markers, and what the
 *   header of any of its entities says holds for all of them; so the headers of sums take over what
 *   those of the other entities say, whose past may have come into the sum with an item.
 * - What waits in joins (scope r) is deleted by the writer that wrote it, in a batch, by the clock
 *   of the batch's beginning: whoever does the batch again cannot need it. One server that loses
 *   writes loses them of all its records alike. Of several one may have to be written again from
 *   what another has deleted meanwhile: in a cluster it goes GRACE_MS later. What a writer left
 *   behind is found by whoever has its partition next, who goes through all keys for it
 *   (store_redis_sweep.c); or goes after a week without a change.
 * - A header keeps its entries for 10 s after they stopped being needed, so that a reader can say
 *   exactly which events a record has seen. */
#pragma once
#include <pthread.h>
#include <stdatomic.h>
#include "base/buf.h"
#include "features/store.h"

enum {
    FEAT_REDIS_BUCKETS_MAX = 4096,
    FEAT_REDIS_CALL_MAX = 128,    /* entities of one script call: a server is busy for 0.2 ms */
    FEAT_REDIS_READ_MAX = 128,    /* keys of one MGET */
    FEAT_REDIS_KEY_BYTES = 160,   /* the longest key */
    FEAT_REDIS_PREFIX_BYTES = 128 /* the longest prefix */
};

struct feat_redis_near;

struct feat_redis_tag {
    char text[6]; /* "{ab}" */
    int slot;
};

/* What the writer knows of one partition. */
struct feat_redis_part {
    int32_t partition;
    bool written;            /* by this writer */
    bool swept;              /* since it came here, what was left of it is looked for */
    struct feat_applied *at; /* [buckets] the markers; offset -1: none */
};

/* One entity of the micro-batch. */
struct feat_redis_item {
    uint64_t key;
    enum feat_scope scope;
    int bucket;
    bool open;                       /* not yet as the batch leaves it */
    bool dirty;                      /* changed since it was read */
    bool known;                      /* it was read, and no write has failed since */
    uint64_t touched;                /* by which of the batch's partitions; 63: or a later one */
    struct slice header;             /* as read; empty: it is new */
    struct slice record;             /* as read */
    const struct feat_applied *seen; /* [n_seen] the header's entries */
    int n_seen;
    char *p; /* [n of cap] the record */
    uint32_t n, cap;
    int next; /* of the same bucket; -1: the last */
};

struct feat_redis_bucket {
    int first; /* item; -1: none */
    bool done; /* its marker has been moved */
};

/* What a reader keeps: a record as it was read; a sum over items, of all its shares as they were.
 */
struct feat_redis_kept {
    struct feat_entity name;         /* of a sum: FEAT_REDIS_SUM, its whole key */
    struct slice bytes;              /* empty: unknown */
    const struct feat_applied *seen; /* [n_seen] of a record: beyond `applied` when it was kept */
    const struct feat_ahead *ahead;  /* [n_ahead] of a sum: the same of its shares */
    int n_seen, n_ahead;
    bool used;
    size_t size;
    struct feat_redis_kept *next; /* dropped */
};
#define FEAT_REDIS_SUM ((enum feat_scope)FEAT_SCOPES)
enum { FEAT_REDIS_CHANGED_MAX = 64 };

/* A reader's own connection. */
struct feat_redis_reader {
    struct feat_redis *redis;
    struct arena arena;           /* of the section */
    struct feat_applied *applied; /* [n_applied of cap_applied] */
    int n_applied, cap_applied;
    int64_t asked_us;             /* when `applied` was asked for */
    struct feat_redis_near *near; /* NULL: nothing is kept */
    uint64_t near_epoch;          /* of the client, when the first of what is kept was read */
    struct feat_entity changed[FEAT_REDIS_CHANGED_MAX]; /* [n_changed] in this round trip */
    int n_changed;                                      /* more than fit: too many to know */
    const struct feat_redis_kept **sums;                /* [n_sums] used in this section */
    int n_sums, cap_sums;
    uint64_t n_near, n_asked;  /* records of this section */
    bool has_applied, told;    /* told: somebody has it, it must not change any more */
    uint64_t epoch;            /* of the client, when `applied` was asked for */
    uint64_t trusted;          /* the epoch at which all markers were as far as `applied` */
    struct feat_entity *names; /* [n] read so far */
    struct feat_found *found;  /* [n] */
    int n, cap;
    uint32_t *index; /* [index_cap] 1 + place in names; 0: empty */
    uint32_t index_cap;
    enum status failed;
    char failure[400];
    struct feat_redis_reader *next; /* in the pool */
};

struct feat_store {
    struct feat_store_conf conf;
    const struct feat_plan *plan;
    struct feat_redis_tag *tags; /* [buckets] */
    int n_buckets;
    int64_t window_us; /* the longest of the plan's joins */

    /* the writer */
    struct feat_redis *redis;
    struct arena arena;            /* of the micro-batch */
    struct feat_redis_part *parts; /* [n_parts] sorted by partition */
    int n_parts, cap_parts;
    const struct feat_applied *to; /* [n_to] what the batch reaches, sorted */
    int n_to;
    struct feat_redis_item *items; /* [n_items] */
    int n_items, cap_items;
    int latest;      /* the item found last; -1: none */
    uint32_t *index; /* [index_cap] 1 + item; 0: empty */
    uint32_t index_cap;
    struct feat_redis_bucket *buckets; /* [n_buckets] */
    bool collecting, more;             /* more: wanted while changes were made, but not read */
    bool naming;                       /* of joins: only what waits is changed, the rest is named */
    struct {                           /* for what other writers left */
        bool active;
        int server;
        char cursor[24];
        int64_t next_us;
        struct feat_left *found; /* [cap] */
        int cap;
    } sweep;
    uint64_t trusted;           /* epoch at which all markers were as far as this knows */
    uint64_t epoch;             /* of the client, when the open items were read */
    uint64_t made[FEAT_SCOPES]; /* entities, not yet counted in Redis */
    /* what was applied everywhere, 10 to 20 s ago and since; for dropping header entries */
    struct feat_applied *old, *newer;
    int n_old, n_newer;
    int64_t newer_us;
    uint64_t old_epoch;
    struct buf words; /* scratch of one script call */

    /* readers */
    pthread_mutex_t lock; /* around the pool and the size */
    struct feat_redis_reader *pool;
    struct feat_state_size size; /* as last asked for */
    int64_t size_us;
    _Atomic int64_t fresh_us; /* somebody was told what was applied then: readers see no less */
};

/* ---- store_redis.c ---- */

extern const char feat_redis_script[];
/* Both into `out` [FEAT_REDIS_KEY_BYTES]. */
struct slice feat_redis_entity_key(const struct feat_store *s, enum feat_scope scope, uint64_t key,
                                   int bucket, char *out);
struct slice feat_redis_named_key(const struct feat_store *s, const char *tag, const char *name,
                                  char *out);
/* "offset clock" there and back; false: it is something else. */
int feat_redis_put_position(const struct feat_applied *a, char out[48]);
bool feat_redis_get_position(struct slice text, struct feat_applied *out);
/* A hash of partitions, as HGETALL replies. Sorted, arena memory. */
enum status feat_redis_read_positions(struct arena *a, const struct feat_redis_reply *reply,
                                      struct feat_applied **out, int *n);
/* The header's entries; *record is what follows. False: damaged. */
bool feat_redis_read_header(struct arena *a, struct slice value, const struct feat_applied **seen,
                            int *n, struct slice *record);
/* Added when new; the other one is there. */
struct feat_redis_part *feat_redis_part(struct feat_store *s, int32_t partition);
const struct feat_redis_part *feat_redis_find_part(const struct feat_store *s, int32_t partition);
/* Says what the keys are, or fails with FAILED_PRECONDITION since they are something else. */
enum status feat_redis_sign(struct feat_store *s, struct arena *a);
/* The entity of a key; false: it is another key. */
bool feat_redis_entity_of(const struct feat_store *s, struct slice key, struct feat_entity *out);
/* Adds the loads of `n` entities to the pipeline: command[i], at[i] say where reply i will be. */
void feat_redis_add_loads(const struct feat_store *s, struct feat_redis *r,
                          const struct feat_entity *e, int n, int *command, int *at);
/* The value of a load; empty: no such key. */
enum status feat_redis_loaded(const struct feat_redis *r, int command, int at, struct slice *out);

/* ---- store_redis_batch.c, store_redis_commit.c ---- */

/* Asks for all markers: replies [first, first + n_buckets), each for feat_redis_read_positions. */
int feat_redis_add_markers(const struct feat_store *s, struct feat_redis *r);
enum status feat_redis_positions(struct feat_store *s, struct arena *a,
                                 const struct feat_applied **out, int *n);
void feat_redis_batch_begin(struct feat_store *s, const struct feat_applied *to, int n);
bool feat_redis_admit(struct feat_store *s, enum feat_scope scope, uint64_t key,
                      struct ev_source source);
enum status feat_redis_load(struct feat_store *s);
bool feat_redis_want(struct feat_store *s, enum feat_scope scope, uint64_t key);
bool feat_redis_more(struct feat_store *s);
enum status feat_redis_commit(struct feat_store *s, bool *done);
enum status feat_redis_verify(struct feat_store *s);
/* Takes what a marker is. ABORTED: it is lower than it was. */
enum status feat_redis_take_marker(struct feat_redis_part *part, int bucket, struct slice text);
void feat_redis_fetch(struct feat_store *s, enum feat_scope scope, const uint64_t *keys, int n,
                      struct slice *out);
void feat_redis_put(struct feat_store *s, enum feat_scope scope, uint64_t key, struct slice bytes);
void feat_redis_drop(struct feat_store *s, enum feat_scope scope, uint64_t key);

/* ---- store_redis_read.c ---- */

void feat_redis_read_begin(struct feat_store *s);
enum status feat_redis_read_end(struct feat_store *s);
enum status feat_redis_applied(struct feat_store *s, struct arena *a,
                               const struct feat_applied **out, int *n);
void feat_redis_read(struct feat_store *s, const struct feat_entity *entities, int n,
                     struct feat_found *out);
int feat_redis_ahead(struct feat_store *s, struct arena *a, const struct feat_ahead **out);
bool feat_redis_failed(struct feat_store *s);
void feat_redis_readers_close(struct feat_store *s);

/* Sums over items: the one made before of the shares as they are, false: there is none; and one
 * just made of shares read in this section. */
bool feat_redis_sum_find(struct feat_store *s, uint64_t whole, struct slice *out);
void feat_redis_sum_keep(struct feat_store *s, uint64_t whole, struct slice bytes);

/* ---- store_redis_near.c ---- */

struct feat_redis_near *feat_redis_near_new(size_t budget_bytes);
void feat_redis_near_free(struct feat_redis_near *near); /* NULL is fine */
/* Frees what was dropped; everything else stays where it is. Between sections. */
void feat_redis_near_sweep(struct feat_redis_near *near);
void feat_redis_near_clear(struct feat_redis_near *near);
/* NULL: it is not kept. Valid until it is swept. */
const struct feat_redis_kept *feat_redis_near_find(struct feat_redis_near *near,
                                                   struct feat_entity name);
/* Copies. Others may be dropped for it. */
void feat_redis_near_keep(struct feat_redis_near *near, const struct feat_redis_kept *what);
void feat_redis_near_drop(struct feat_redis_near *near, struct feat_entity name);
/* A key has changed (empty: all have): what hangs on it is dropped. False: it is no entity's. */
bool feat_redis_near_changed(struct feat_redis_near *near, const struct feat_store *s,
                             struct slice key, struct feat_entity *out);

/* ---- store_redis_scan.c ---- */

struct feat_redis_reader *feat_redis_reader_take(struct feat_store *s);
void feat_redis_reader_give(struct feat_store *s, struct feat_redis_reader *r);
enum status feat_redis_scan(struct feat_store *s, enum feat_scope scope, void *context,
                            enum status (*take)(void *, const struct slice *, int));
enum status feat_redis_size(struct feat_store *s, struct feat_state_size *out);
/* What SCAN is to MATCH, so that only records of the scope come. */
void feat_redis_add_pattern(const struct feat_store *s, enum feat_scope scope, struct buf *out);

/* ---- store_redis_sweep.c ---- */

/* From now on the keys are gone through once more. */
void feat_redis_start_sweep(struct feat_store *s);
int feat_redis_sweep(struct feat_store *s, const struct feat_left **out);
