/* shared_bottom.c: one network for all tasks (Caruana 1997): the honest baseline of every mixture.
 * A single module feeds all towers; its gate has one choice and no parameters,
 * whatever the layer's `gate` says. */
#include "moe/layer.h"

static const struct conf_item items[] = {CONF_END};

static enum status build(const void *conf, struct moe_build *b) {
    struct moe_level *l;
    int first;
    (void)conf;
    TRY(moe_build_level(b, &l));
    int source = moe_build_source(b, l, &b->shared_module, 1);
    TRY(moe_build_experts(b, l, "shared", 1, source, b->expert, &first));
    int module = moe_build_module(b, l, "shared", -1);
    void *gate_conf = arena_zalloc(b->a, moe_gate_softmax.conf_bytes);
    conf_defaults(moe_gate_softmax.items, gate_conf, b->a);
    TRY(moe_build_gate(b, l, "shared", module, source, &first, 1, 0,
                       (struct moe_gate_choice){&moe_gate_softmax, gate_conf}));
    moe_build_level_end(b, l);
    return STATUS_OK;
}
const struct moe_layer_ops moe_layer_shared_bottom = {
    .name = "shared_bottom",
    .doc = "one network for all tasks (Caruana 1997)",
    .items = items,
    .conf_bytes = 1,
    .build = build,
};
