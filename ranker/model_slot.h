/* model_slot.h: the published model. A hot swap is one pointer; requests under way keep the model
 * they began with. Any thread may acquire, release and publish. */
#pragma once
#include "ranker/rank.h"

struct rk_model_slot {
    _Atomic(struct rk_bundle *) now;
    _Atomic(struct rk_bundle *) all; /* every bundle ever published; see model_slot.c */
};
/* Takes over the caller's reference; the one before is let go. `b` NULL: none is published. */
void rk_model_publish(struct rk_model_slot *s, struct rk_bundle *b);
/* The published model, to be let go by rk_bundle_release; NULL when there is none. */
struct rk_bundle *rk_model_acquire(struct rk_model_slot *s);
/* No acquire may be under way, and every bundle must have been released. */
void rk_model_slot_deinit(struct rk_model_slot *s);
