/* topk.c: the plain sparse gate: a softmax and the best k (Shazeer et al., ICLR 2017, without the
 * noise; Mixtral, DBRX, OLMoE by its settings). Frameworks differ in the order of softmax and
 * choice, in renormalising and in a scale, and a model run under the wrong one is silently wrong:
 * all three are settings, saved with the model. */
#include "moe/mix.h"

struct conf {
    struct moe_mix_gate g;
};
static const struct conf_item items[] = {
    MOE_K_ITEM(struct conf, g.mix.k, "2", 1),
    MOE_ORDER_ITEM(struct conf, g.mix.order),
    MOE_RENORMALISE_ITEM(struct conf, g.mix.renormalise, "true"),
    MOE_SCALE_ITEM(struct conf, g.mix.scale),
    MOE_GROUPS_ITEMS(struct conf, g.mix.groups),
    MOE_CAPACITY_ITEMS(struct conf, g.mix.capacity),
    MOE_LOAD_ITEMS(struct conf, g.mix.load, "0.01"),
    MOE_ROUTER_ITEMS(struct conf, g.router),
    CONF_END};

static enum status shape(struct moe_gate *g, struct conf_place place, struct arena *a) {
    const struct conf *c = g->conf;
    return moe_mix_gate_shape(g, &c->g, place, a);
}

const struct moe_gate_ops moe_gate_topk = {
    .name = "topk",
    .doc =
        "softmax and the best k; order, renormalising and scale as settings (ICLR 2017; Mixtral)",
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
