/* rank.h: the heart: rows -> scores -> order. No I/O, no clock, no randomness: everything is an
 * argument, so replay equals serving bit for bit. */
#pragma once
#include <stdatomic.h>
#include "features/state.h"
#include "moe/score/item_cache.h"
#include "moe/score/scorer.h"
#include "proto/rpc.h"
#include "ranker/config.h"

/* A published model with what ranking needs of it; refcounted, immutable (ranker/model_slot.h). */
struct rk_bundle {
    struct moe_model *model;
    struct moe_scorer *scorer;
    const struct feat_plan *plan;
    char version[48];   /* what it answers as: the model's, and the precision unless fp32 */
    float *task_weight; /* [n_tasks] */
    int n_tasks;
    int combine; /* enum rk_combine */
    int rows_max;
    struct moe_item_cache_stats told; /* of the item cache, that metrics have already */
    atomic_int refs;
    bool published;         /* the slot's: it frees this struct, not the last release */
    struct rk_bundle *next; /* the slot's */
};
/* A model's metadata: the word of the precision it was published for (moerank quantize). */
#define RK_META_PRECISION "precision"
enum rk_combine { RK_SUM, RK_PRODUCT };

/* Checks that the model's inputs are the plan's: FAILED_PRECONDITION names the first difference.
 * The plan must outlive the bundle. The caller has one reference. */
enum status rk_bundle_open(const char *path, const struct feat_plan *plan,
                           const struct rk_config *c, struct rk_bundle **out);
/* The same of a model in memory, which it owns from here on, also on failure. */
enum status rk_bundle_new(struct moe_model *model, const char *name, const struct feat_plan *plan,
                          const struct rk_config *c, struct rk_bundle **out);
void rk_bundle_release(struct rk_bundle *b);
/* Adds what the item cache did since the last time to the metrics; the last release does it too.
 * One thread. */
void rk_bundle_tell(struct rk_bundle *b);

/* Per worker. */
struct rk_crew;
struct rk_worker {
    struct arena arena; /* of the request; the caller resets it */
    void *scratch;      /* the scorer's, 64-byte aligned */
    size_t scratch_bytes;
    struct rk_crew *crew; /* who helps with large slates (crew.h); NULL: nobody. Borrowed */
    int64_t lap_ns;       /* lap.h's, as those below */
    uint64_t lap_weight;  /* how many calls this one stands for; 0: it is not measured */
    unsigned lap_calls;   /* short ones, so far */
};
void rk_worker_init(struct rk_worker *w);
void rk_worker_deinit(struct rk_worker *w);
/* Scratch for that scorer: grows at the first request and after a hot swap to a larger model. */
void *rk_worker_scratch(struct rk_worker *w, const struct moe_scorer *s);

struct rk_seen { /* what the rows had seen; arena memory */
    uint64_t user_epoch;
    const struct feat_applied *applied; /* [n_applied] */
    int n_applied;
    const struct feat_ahead *ahead; /* [n_ahead] records that had more, of a shared store */
    int n_ahead;
    bool without_store;           /* it was away: nothing was known */
    const struct feat_rows *rows; /* NULL: none were made */
};

/* The rows of request->items as of request->now_us (must be set), in arena memory, and what they
 * had seen. UNAVAILABLE, DATA_LOSS: a shared store. */
enum status rk_rows(struct feat_state *state, struct arena *a,
                    const struct rpc_rank_request *request, struct rk_seen *seen);

/* Ranks request->items as of request->now_us (must be set). Ties are broken by index. The
 * response lives in the worker's arena. INVALID_ARGUMENT: no items, too many. */
enum status rk_rank(const struct rk_bundle *b, struct feat_state *state, struct rk_worker *w,
                    const struct rpc_rank_request *request, struct rpc_rank_response *out,
                    struct rk_seen *seen);
