/* mute.h: one expert of a level left out, for asking what it is worth. Where a row's weights sum to
 * one the others take over its weight; else (ReLU, sigmoid) it is just gone. */
#pragma once
#include "moe/level.h"

struct moe_mute {
    const struct moe_level *level;
    int expert; /* of the level */
};
/* After gate `u` of the muted level has filled its route. */
void moe_mute_route(const struct moe_mute *mute, const struct moe_gate_use *u,
                    struct moe_route *route);
