/* cgc.c: customized gate control (Tang et al., RecSys 2020): shared experts and each task's own.
 * Stacked entries make a progressive layered extraction; `ple` does that in one entry. */
#include "moe/layer.h"

struct conf {
    int64_t shared, own;
};
static const struct conf_item items[] = {
    CONF_INT(struct conf, shared, "shared", "4", 0, 256, "experts",
             "experts that all tasks may use"),
    CONF_INT(struct conf, own, "own", "2", 0, 64, "experts", "experts of each task alone"),
    CONF_END};

static enum status build(const void *conf, struct moe_build *b) {
    const struct conf *c = conf;
    return moe_build_cgc(b, (int)c->shared, (int)c->own, !b->last);
}
const struct moe_layer_ops moe_layer_cgc = {
    .name = "cgc",
    .doc = "shared and per-task experts, a gate per task (RecSys 2020)",
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .build = build,
};
