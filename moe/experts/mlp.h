/* mlp.h: what packed scorers need to know of an MLP expert: e->shape is a struct moe_mlp. */
#pragma once
#include "moe/expert.h"
#include "moe/mlp.h"

static inline const struct moe_mlp *moe_expert_mlp_shape(const struct moe_expert *e) {
    return e->shape;
}
