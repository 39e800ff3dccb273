/* state.h: what is remembered, and the two things done with it: events are applied to it, rows are
 * extracted from it. The same code serves, trains and replays: time and events are arguments.
 *
 * State = plan + store + per source partition {highest applied offset, greatest event time}. It is
 * a function of the set of events applied. An event whose offset is at or below its partition's
 * applied offset changes nothing; one that is older than its partition's clock minus the plan's
 * lateness is late and changes nothing but the offset.
 *
 * Threads: one writer (the ingester), any number of readers. A micro-batch becomes visible as a
 * whole: a reader between feat_state_read_begin and _end sees the state between two micro-batches,
 * and `applied` says exactly which.
 *
 * In a shared store (Redis) any number of processes write, each its own partitions, one writer a
 * process. A micro-batch becomes visible record by record (of a plan with sums over items bucket by
 * bucket, shares.h): a reader sees in every record at least
 * what `applied` says, and feat_state_ahead names those that hold more, and how much. */
#pragma once
#include "features/plan.h"
#include "features/redis.h"

/* An entity's state: header + cells. Opaque outside features/. */
struct feat_record;
struct feat_state;

struct feat_applied {
    int32_t partition;
    int64_t offset;   /* highest applied */
    int64_t clock_us; /* greatest event time seen */
};

/* One ranking call's inputs, from the RPC, from a log or from an event. */
struct feat_request {
    struct slice tenant, user, session;
    const struct ev_field *context; /* [n_context] */
    int n_context;
    const struct slice *items; /* [n_items] candidate ids; or NULL and item_keys is set */
    const uint64_t *item_keys; /* [n_items] keys as feat_item_key makes; or NULL */
    int n_items;
    const struct slice *column_names;  /* [n_columns] per-candidate context numbers */
    const float *const *column_values; /* [n_columns][n_items] */
    int n_columns;
    int n_placed; /* the first so many items were shown, in this order: kind position tells where;
                     0 when serving */
};

/* A request's rows: the query part once, the candidate part per row. Arena memory. */
struct feat_rows {
    int n_rows;
    float *query;        /* [query_columns] */
    uint32_t *query_ids; /* [query_slots] */
    float *cand;         /* [n_rows x cand_columns] */
    uint32_t *cand_ids;  /* [n_rows x cand_slots] */
    uint64_t user_epoch; /* events applied to this user so far */
    int n_unknown;       /* candidates never seen in any event */
};

enum feat_verdict { FEAT_APPLIED, FEAT_REPEATED, FEAT_LATE };

enum feat_store_kind { FEAT_STORE_MEMORY, FEAT_STORE_REDIS };
#define FEAT_STORE_CHOICES "memory|redis"
enum feat_on_unavailable { FEAT_UNAVAILABLE_FAIL, FEAT_UNAVAILABLE_MISSING };
#define FEAT_UNAVAILABLE_CHOICES "fail|missing"

struct feat_store_conf {
    int kind;             /* enum feat_store_kind */
    int64_t ttl_us;       /* what nothing happened to for so long is forgotten; 0: never */
    int64_t budget_bytes; /* memory: beyond, what was not used for longest is forgotten; 0: all
                             is kept */
    int on_unavailable;   /* shared: what reads do without the store, enum feat_on_unavailable */
    struct feat_redis_conf redis;
    const char *prefix; /* redis: of every key; one plan, one prefix */
    int64_t buckets;    /* redis: into how many slots the keys go; fixed once there are keys */
    int64_t near_bytes; /* redis: what a reader keeps of records; 0: nothing. Not of a cluster */
    int64_t near_us;    /* redis: how old that may be without asking, at most 5 s */
};

/* In memory, without limits. `plan` must outlive the state. */
struct feat_state *feat_state_new(const struct feat_plan *plan);
/* As the settings say; the strings in `c` must outlive the state. A shared store is where it was
 * left. FAILED_PRECONDITION: the keys belong to another plan; UNAVAILABLE. */
enum status feat_state_open(const struct feat_plan *plan, const struct feat_store_conf *c,
                            struct feat_state **out);
void feat_state_free(struct feat_state *s);
bool feat_state_is_shared(const struct feat_state *s);

/* Applies a micro-batch of events (any partitions, in order of arrival) and makes it visible at
 * once. verdicts [n] may be NULL. Only the writer.
 *
 * In memory it never fails. A shared store that is away is waited for. CANCELLED: interrupted;
 * ABORTED: the store has lost writes (a failover): the caller must read the log again from
 * feat_state_resume. Nothing is lost and nothing doubled by either. When there are no events call
 * it with none, now and then: that is how a quiet partition's lost writes are noticed. */
enum status feat_state_apply(struct feat_state *s, const struct ev_event *events, int n,
                             enum feat_verdict *verdicts);
/* Says whose offsets events bear from now on: a topic's name, or FEAT_LOG_FILE. Before the first
 * event; of a shared store, also by other processes. FAILED_PRECONDITION: the state holds offsets
 * of another log, by which this one's first events would be taken for repeats. UNAVAILABLE: a
 * shared store is away. A state of which nobody said takes any. Only the writer. */
#define FEAT_LOG_FILE ""
enum status feat_state_claim_log(struct feat_state *s, const char *log);
/* What apply would say of each; changes nothing. Only the writer. */
void feat_state_foresee(struct feat_state *s, const struct ev_event *events, int n,
                        enum feat_verdict *verdicts);
/* Marks an offset as dealt with though nothing was applied (a dead-lettered message). Fails as
 * apply does. */
enum status feat_state_skip(struct feat_state *s, struct ev_source source);
/* Where reading of the log goes on: right after these offsets. Of a shared store they are asked
 * for: after opening, after ABORTED, and when partitions came from another process, which is then
 * taken to have stopped writing (if it has not, no harm is done). Only the writer; valid until its
 * next call. */
enum status feat_state_resume(struct feat_state *s, const struct feat_applied **out, int *n);
/* Makes a writer that waits for its store give up, now and from now on. Any thread. */
void feat_state_interrupt(struct feat_state *s);

/* Memory: limits from now on, as in struct feat_store_conf. Any thread. */
void feat_state_limit(struct feat_state *s, int64_t budget_bytes, int64_t ttl_us);

void feat_state_read_begin(struct feat_state *s);
/* OK in memory. Of a shared store: UNAVAILABLE or DATA_LOSS when some of it could not be read, and
 * what was read in between is not to be used; with on_unavailable: missing, OK: all of it was then
 * unknown. */
enum status feat_state_read_end(struct feat_state *s);
/* From now on, on this thread: `told` is called whenever a read is about to wait for a shared
 * store; NULL: no more. A thread that others depend on can let go of what they need. */
void feat_state_tell_waits(void (*told)(void *context), void *context);
/* Between begin and end: a shared store could not be read, and what was read since is as if nothing
 * were known. */
bool feat_state_read_failed(struct feat_state *s);
/* Between begin and end: rows of `request` as of now_us. Total: unknown users and items give
 * missing values, never errors. */
void feat_state_extract(struct feat_state *s, struct arena *a, const struct feat_request *request,
                        int64_t now_us, struct feat_rows *out);
/* Between begin and end: epoch of a user, FEAT_EPOCH_UNKNOWN when the store is away; applied
 * offsets sorted by partition, arena memory. */
#define FEAT_EPOCH_UNKNOWN UINT64_MAX
uint64_t feat_state_user_epoch(struct feat_state *s, struct slice tenant, struct slice user);
int feat_state_applied(struct feat_state *s, struct arena *a, const struct feat_applied **out);
/* Between begin and end: records read in this section that hold more than `applied`: all events of
 * `partition` up to `offset`. Arena memory. */
struct feat_ahead {
    enum feat_scope scope;
    uint64_t key;
    int32_t partition;
    int64_t offset;
};
int feat_state_ahead(struct feat_state *s, struct arena *a, const struct feat_ahead **out);
/* Between begin and end: up to `max` known items (ids, arena memory) of a tenant, those with the
 * most events first; ties by key. */
int feat_state_items(struct feat_state *s, struct arena *a, struct slice tenant, int max,
                     const struct slice **out);
/* Between begin and end: keys of the items in the user's last_n features. */
int feat_state_user_items(struct feat_state *s, struct arena *a, struct slice tenant,
                          struct slice user, const uint64_t **out);
/* Of a store in memory: what a scope's records take, as they are and with the store's rounding and
 * tables; and what each feature's cells take, all records together: cells [n_features]. Between
 * begin and end. */
struct feat_scope_bytes {
    uint64_t entities, records, memory;
};
struct feat_scope_bytes feat_state_scope_bytes(struct feat_state *s, enum feat_scope scope);
void feat_state_cell_bytes(struct feat_state *s, uint64_t *cells);
/* From now on the time of making each feature is added to ns [n_features], by `now_ns`; NULL: no
 * more. Only while one thread makes rows. */
void feat_state_watch(struct feat_state *s, int64_t (*now_ns)(void), int64_t *ns);
/* Waits until `source` is applied; DEADLINE_EXCEEDED otherwise. Not inside begin/end. */
enum status feat_state_wait(struct feat_state *s, struct ev_source source, int timeout_ms);

uint64_t feat_item_key(struct slice tenant, struct slice item);
uint64_t feat_user_key(struct slice tenant, struct slice user);

struct feat_state_size {
    uint64_t entities[FEAT_SCOPES]; /* shared: ever made, each share of a sum by itself; what
                                       expired is not taken off */
    uint64_t bytes;                 /* memory of the store; Redis: of its servers, all they keep */
    uint64_t evicted;               /* entities forgotten for the budget or their age, so far */
    uint64_t waiting;               /* rankings' ids under which something may still come; shared:
                                       of what this state has applied */
    uint64_t unjoined; /* interactions whose ranking never came, among those forgotten so far */
};
/* Of a shared store it may be 2 s old, or all 0 when it is away. */
struct feat_state_size feat_state_size(struct feat_state *s);
/* All of a shared store, in memory: for dumps, snapshots, looking at. No writer may be at work, or
 * records are of different moments. */
enum status feat_state_copy(struct feat_state *s, struct feat_state **out);

/* Snapshot: state and offsets in one file, atomically. Load checks the plan's fingerprint
 * (FAILED_PRECONDITION names both) and a checksum (DATA_LOSS). */
enum status feat_state_save(struct feat_state *s, const char *path);
enum status feat_state_load(const struct feat_plan *plan, const char *path,
                            struct feat_state **out);

/* Canonical dump: one line of JSON per entity, sorted by scope and key, expired buckets left out as
 * of `as_of_us` (0: the greatest event time seen), then the applied offsets. Equal states give
 * equal bytes. */
enum status feat_state_dump(struct feat_state *s, int64_t as_of_us, const char *path);
