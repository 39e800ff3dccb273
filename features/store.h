/* store.h: where records live: bytes by (scope, key). The contract between state*.c and a store; a
 * new store is one table of functions. Nothing here knows what the bytes mean, but that they start
 * with scope and key (record.h).
 *
 * Two sorts of store stand behind it. One in this process (memory): what is put can be fetched at
 * once, nothing fails; the caller locks: fetch, next, count and bytes by many readers at once, put
 * by one writer alone. And one that several processes share (Redis): the writer's fetch and put
 * work on what `load` brought near, `commit` writes it back; readers go through `read`, each with
 * a connection of its own. */
#pragma once
#include "features/plan.h"
#include "features/redis.h"
#include "features/state.h"

struct feat_store;

struct feat_entity {
    enum feat_scope scope;
    uint64_t key;
};
/* A record of FEAT_SCOPE_RANKING that some other writer left. */
struct feat_left {
    uint64_t key;
    int32_t partition;
};
/* A record as it was read. */
struct feat_found {
    struct slice bytes;              /* empty: unknown */
    const struct feat_applied *seen; /* [n_seen] beyond what the store says is applied everywhere */
    int n_seen;
};

struct feat_store_ops {
    const char *name;
    enum status (*open)(const struct feat_plan *plan, const struct feat_store_conf *c,
                        struct feat_store **out);
    void (*close)(struct feat_store *s);
    /* out[i]: the bytes of keys[i], empty when unknown. Valid until the next put. */
    void (*fetch)(struct feat_store *s, enum feat_scope scope, const uint64_t *keys, int n,
                  struct slice *out);
    /* The writer's: one record that is put next, or not at all; and records that are edited soon,
     * to be brought near. Optional. */
    struct slice (*edit)(struct feat_store *s, enum feat_scope scope, uint64_t key);
    void (*bring)(struct feat_store *s, enum feat_scope scope, const uint64_t *keys, int n);
    /* Replaces or adds one record; copies the bytes. */
    void (*put)(struct feat_store *s, enum feat_scope scope, uint64_t key, struct slice bytes);
    /* Removes one record, if it is there. NULL: nothing is ever removed. */
    void (*drop)(struct feat_store *s, enum feat_scope scope, uint64_t key);

    /* ---- of a store in this process only, NULL in a shared one ---- */

    /* One record after another, in no order; *at starts as 0. False at the end. */
    bool (*next)(struct feat_store *s, enum feat_scope scope, uint64_t *at, struct slice *bytes);
    uint64_t (*count)(struct feat_store *s, enum feat_scope scope);
    uint64_t (*bytes)(struct feat_store *s); /* held from the heap, all scopes */

    /* ---- of a shared store only, NULL in one in this process ---- */

    /* Per partition the offset up to which everything is applied, and the clock there: where
     * reading the log goes on. Sorted, arena memory. */
    enum status (*positions)(struct feat_store *s, struct arena *a, const struct feat_applied **out,
                             int *n);
    /* Notes whose offsets they are, where nobody has; *is: what is noted now, arena memory. */
    enum status (*claim)(struct feat_store *s, struct arena *a, struct slice log, struct slice *is);
    /* One micro-batch, which reaches `to` [n]. admit: may `source` change this record? Until the
     * first load it only notes the record as wanted, and says no. Then load, changes, commit, and
     * again while *done is false: somebody else was faster with some records, and those are to be
     * changed again. ABORTED: writes were lost (a failover): go back to `positions`. UNAVAILABLE:
     * begin anew, nothing is lost. */
    void (*begin)(struct feat_store *s, const struct feat_applied *to, int n);
    bool (*admit)(struct feat_store *s, enum feat_scope scope, uint64_t key,
                  struct ev_source source);
    /* This record is wanted, and is fetched though nothing may change it. False: it is not there
     * yet. */
    bool (*want)(struct feat_store *s, enum feat_scope scope, uint64_t key);
    enum status (*load)(struct feat_store *s);
    /* After the changes: have records been named that were not known to be wanted? Then load and
     * make the changes again, before commit. Only where plans sum over items, as which value an
     * item bears is known when it is there, or join: what follows is known with the ranking. */
    bool (*more)(struct feat_store *s);
    enum status (*commit)(struct feat_store *s, bool *done);
    /* Between batches: what others left that had partitions before, a few at a time and mostly
     * none, until all are found. [n], valid until the next call. */
    int (*sweep)(struct feat_store *s, const struct feat_left **out);
    /* Between batches: is everything this writer wrote still there? ABORTED: it is not. */
    enum status (*verify)(struct feat_store *s);

    /* Readers, any thread; a section of one thread has its own connection and reads each record
     * once. What is applied everywhere is asked for before the first record is read, and stays for
     * the section. After a failure everything is unknown, and read_end says why. Record bytes are
     * valid until then. */
    void (*read_begin)(struct feat_store *s);
    enum status (*read_end)(struct feat_store *s);
    enum status (*applied)(struct feat_store *s, struct arena *a, const struct feat_applied **out,
                           int *n);
    void (*read)(struct feat_store *s, const struct feat_entity *entities, int n,
                 struct feat_found *out);
    int (*ahead)(struct feat_store *s, struct arena *a, const struct feat_ahead **out);
    bool (*failed)(struct feat_store *s); /* in this section */
    /* A sum over items by its whole key (shares.h), as one reader made it of shares that are all as
     * they were; false: it is to be made again. And one just made, of shares read in this section.
     */
    bool (*sum_find)(struct feat_store *s, uint64_t whole, struct slice *out);
    void (*sum_keep)(struct feat_store *s, uint64_t whole, struct slice bytes);
    /* All records of a scope, a few at a time, in no order; now and then one twice. */
    enum status (*scan)(struct feat_store *s, enum feat_scope scope, void *context,
                        enum status (*take)(void *context, const struct slice *records, int n));
    enum status (*size)(struct feat_store *s, struct feat_state_size *out);
};
extern const struct feat_store_ops feat_store_memory;
extern const struct feat_store_ops feat_store_redis;

/* Of the memory store: limits, from now on; 0: none. advance: the time that ttl counts by; once
 * after every micro-batch. */
void feat_store_memory_limit(struct feat_store *s, int64_t budget_bytes, int64_t ttl_us);
void feat_store_memory_advance(struct feat_store *s, int64_t now_us);
/* Bytes kept beside the store, for its records, that count as its own. */
void feat_store_memory_also(struct feat_store *s, uint64_t bytes);
/* What a record of so many bytes takes, its share of a table included. */
uint64_t feat_store_memory_entity(uint64_t record_bytes);
uint64_t feat_store_memory_evicted(const struct feat_store *s);
