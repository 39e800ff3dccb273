/* switch.c: one expert a row (Switch Transformer, Fedus et al., JMLR 2022): w = p_e at the argmax
 * of p = softmax(h). The softmax comes before the choice: after it, the only weight would be 1 and
 * the router would never learn. Jitter multiplies the input by U(1 - j, 1 + j), in training. */
#include "moe/mix.h"

struct conf {
    struct moe_router_conf router;
    struct moe_capacity_conf capacity;
    struct moe_load_conf load;
};
static const struct conf_item items[] = {MOE_CAPACITY_ITEMS(struct conf, capacity),
                                         MOE_LOAD_ITEMS(struct conf, load, "0.01"),
                                         MOE_ROUTER_ITEMS(struct conf, router), CONF_END};

static enum status shape(struct moe_gate *g, struct conf_place place, struct arena *a) {
    const struct conf *c = g->conf;
    struct moe_mix_gate own = {.router = c->router,
                               .mix = {.k = 1,
                                       .order = MOE_SOFTMAX_TOPK,
                                       .scale = 1,
                                       .capacity = c->capacity,
                                       .load = c->load}};
    return moe_mix_gate_shape(g, &own, place, a);
}

const struct moe_gate_ops moe_gate_switch = {
    .name = "switch",
    .doc = "the best expert alone, weighed by its softmax (Switch Transformer, JMLR 2022)",
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
