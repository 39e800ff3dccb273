/* ple.c: progressive layered extraction (Tang et al., RecSys 2020): several CGC levels; all but the
 * last also have a shared output, whose gate sees all experts. */
#include "moe/layer.h"

struct conf {
    int64_t levels, shared, own;
};
static const struct conf_item items[] = {
    CONF_INT(struct conf, levels, "levels", "2", 1, MOE_LEVELS_MAX, "levels", "extraction levels"),
    CONF_INT(struct conf, shared, "shared", "4", 0, 256, "experts", "shared experts of a level"),
    CONF_INT(struct conf, own, "own", "2", 0, 64, "experts", "experts of each task in a level"),
    CONF_END};

static enum status build(const void *conf, struct moe_build *b) {
    const struct conf *c = conf;
    for (int i = 0; i < c->levels; i++)
        TRY(moe_build_cgc(b, (int)c->shared, (int)c->own, i + 1 < c->levels || !b->last));
    return STATUS_OK;
}
const struct moe_layer_ops moe_layer_ple = {
    .name = "ple",
    .doc = "CGC in several levels (RecSys 2020)",
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .build = build,
};
