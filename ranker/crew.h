/* crew.h: idle workers help with large slates. A slate is cut into pieces of half a block of the
 * kernels or more; the worker that has it and threads that stand for idle workers take pieces until
 * none is left. Nobody helps while all workers have calls of their own, and a helper leaves when
 * its place is needed. A row's bits do not depend on its piece, so an answer is the one of the
 * slate in one piece; models that mix rows are never cut. */
#pragma once
#include "ranker/rank.h"

struct rk_crew;
/* workers: how many rank; items_min: slates from so many items on are cut, 0: none is; linger_us:
 * how long who helped stays awake for the next slate. NULL where nobody could ever help. */
struct rk_crew *rk_crew_new(int workers, int64_t items_min, int64_t linger_us);
void rk_crew_free(struct rk_crew *c); /* nobody may be scoring */
/* A worker begins (1) or has ended (-1) a call. c may be NULL. Any thread. */
void rk_crew_busy(struct rk_crew *c, int change);
/* A slate of so many items will be scored by the calling worker: helpers wake up meanwhile. c may
 * be NULL; nothing has to follow. The calling worker must be counted as busy. Any thread. */
void rk_crew_expect(struct rk_crew *c, const struct rk_bundle *b, int n_items);
/* As moe_scorer_score. c may be NULL: in one piece. The arena and the scratch are the caller's own.
 * The calling worker must be counted as busy. Any thread. */
void rk_crew_score(struct rk_crew *c, const struct rk_bundle *b, const struct moe_batch *batch,
                   struct arena *a, void *scratch, float *probabilities /* [n_tasks x n_rows] */);
