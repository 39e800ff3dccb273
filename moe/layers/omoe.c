/* omoe.c: one-gate mixture of experts (in Ma et al., KDD 2018, the control of MMoE): experts and a
 * single gate, whose mixture feeds all tasks. */
#include "moe/layer.h"

struct conf {
    int64_t experts;
};
static const struct conf_item items[] = {
    CONF_INT(struct conf, experts, "experts", "8", 1, 256, "experts", "experts of the one gate"),
    CONF_END};

static enum status build(const void *conf, struct moe_build *b) {
    const struct conf *c = conf;
    struct moe_level *l;
    int first, all[MOE_LEVEL_EXPERTS_MAX];
    int below = b->shared_module >= 0 ? b->shared_module : b->task_module[0];
    TRY(moe_build_level(b, &l));
    int source = moe_build_source(b, l, &below, 1);
    TRY(moe_build_experts(b, l, "shared", (int)c->experts, source, b->expert, &first));
    for (int i = 0; i < c->experts; i++)
        all[i] = first + i;
    int module = moe_build_module(b, l, "shared", -1);
    TRY(moe_build_gate(b, l, "shared", module, source, all, (int)c->experts, 0, b->gate));
    moe_build_level_end(b, l);
    return STATUS_OK;
}
const struct moe_layer_ops moe_layer_omoe = {
    .name = "omoe",
    .doc = "experts and one gate for all tasks (KDD 2018)",
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .build = build,
};
