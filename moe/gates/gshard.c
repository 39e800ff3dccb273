/* gshard.c: two experts a row (GShard, Lepikhin et al., ICLR 2021): the two best of a softmax,
 * renormalised. In training the second is taken with probability min(1, 2 w) only; under a capacity
 * limit all first choices come before all second ones; the load loss counts first choices. */
#include "moe/mix.h"

struct conf {
    struct moe_router_conf router;
    struct moe_capacity_conf capacity;
    struct moe_load_conf load;
    bool random_second;
};
static const struct conf_item items[] = {
    CONF_BOOL(struct conf, random_second, "random_second", "true",
              "in training the second expert is taken with probability min(1, 2 w)"),
    MOE_CAPACITY_ITEMS(struct conf, capacity), MOE_LOAD_ITEMS(struct conf, load, "0.01"),
    MOE_ROUTER_ITEMS(struct conf, router), CONF_END};

static enum status shape(struct moe_gate *g, struct conf_place place, struct arena *a) {
    const struct conf *c = g->conf;
    struct moe_mix_gate own = {.router = c->router,
                               .mix = {.k = 2,
                                       .order = MOE_SOFTMAX_TOPK,
                                       .renormalise = true,
                                       .scale = 1,
                                       .capacity = c->capacity,
                                       .load = c->load,
                                       .counted = 1,
                                       .random_second = c->random_second}};
    return moe_mix_gate_shape(g, &own, place, a);
}

const struct moe_gate_ops moe_gate_gshard = {
    .name = "gshard",
    .doc = "the two best, renormalised; the second at random in training (GShard, ICLR 2021)",
    .kind = MOE_ROUTE_WEIGHTS,
    .flags = MOE_GATE_SPARSE | MOE_GATE_LINEAR,
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .shape = shape,
    .bind = moe_mix_gate_bind,
    .forward = moe_mix_gate_forward,
    .backward = moe_mix_gate_backward,
    .after_step = moe_mix_gate_after_step,
};
