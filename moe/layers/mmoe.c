/* mmoe.c: multi-gate mixture of experts (Ma et al., KDD 2018): shared experts, a gate per task. */
#include "moe/layer.h"

struct conf {
    int64_t experts;
};
static const struct conf_item items[] = {CONF_INT(struct conf, experts, "experts", "8", 1, 256,
                                                  "experts", "experts that all tasks share"),
                                         CONF_END};

static enum status build(const void *conf, struct moe_build *b) {
    const struct conf *c = conf;
    return moe_build_cgc(b, (int)c->experts, 0, !b->last);
}
const struct moe_layer_ops moe_layer_mmoe = {
    .name = "mmoe",
    .doc = "shared experts, a gate per task (KDD 2018)",
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .build = build,
};
