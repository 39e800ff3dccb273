/* adatt.c: adaptive task-to-task fusion (Li et al., KDD 2023). Every task has experts of its own;
 * its gate chooses among those of all tasks (and shared ones), and a learned linear residual of its
 * own experts is added, so that a task never loses itself in the others:
 *
 *     module_t = sum over all e of g_t(x_t)[e] f_e  +  sum over own e of a_te f_e
 *
 * a starts at 1 / own, and is 1 for a single own expert. */
#include "moe/layers/constant.h"

struct conf {
    int64_t levels, shared, own;
    bool residual;
};
static const struct conf_item items[] = {
    CONF_INT(struct conf, levels, "levels", "1", 1, MOE_LEVELS_MAX, "levels", "fusion levels"),
    CONF_INT(struct conf, shared, "shared", "0", 0, 256, "experts", "shared experts of a level"),
    CONF_INT(struct conf, own, "own", "2", 1, 64, "experts", "experts of each task in a level"),
    CONF_BOOL(struct conf, residual, "residual", "true",
              "adds the linear residual of a task's own experts"),
    CONF_END};

static enum status level(const struct conf *c, struct moe_build *b) {
    struct moe_level *l;
    int all[MOE_LEVEL_EXPERTS_MAX], first[64], source[64], n = 0, shared;
    TRY(moe_build_level(b, &l));
    for (int t = 0; t < b->n_tasks; t++) {
        source[t] = moe_build_source(b, l, &b->task_module[t], 1);
        TRY(moe_build_experts(b, l, b->tasks[t], (int)c->own, source[t], b->expert, &first[t]));
        for (int i = 0; i < c->own; i++)
            all[n++] = first[t] + i;
    }
    if (c->shared) { /* they see what the first task sees; on the first level all see the same */
        TRY(moe_build_experts(b, l, "shared", (int)c->shared, source[0], b->expert, &shared));
        for (int i = 0; i < c->shared; i++)
            all[n++] = shared + i;
    }
    for (int t = 0; t < b->n_tasks; t++) {
        int module = moe_build_module(b, l, b->tasks[t], t), own[64];
        const char *name = arena_printf(b->a, "%.32s.own", b->tasks[t]);
        for (int i = 0; i < c->own; i++)
            own[i] = first[t] + i;
        TRY(moe_build_gate(b, l, b->tasks[t], module, source[t], all, n, 0, b->gate));
        if (c->residual)
            TRY(moe_build_gate(b, l, name, module, source[t], own, (int)c->own, (int)c->own,
                               moe_layer_constant(b, false)));
    }
    moe_build_level_end(b, l);
    return STATUS_OK;
}

static enum status build(const void *conf, struct moe_build *b) {
    const struct conf *c = conf;
    for (int i = 0; i < c->levels; i++)
        TRY(level(c, b));
    return STATUS_OK;
}
const struct moe_layer_ops moe_layer_adatt = {
    .name = "adatt",
    .doc = "task-to-task fusion with a residual of the task's own experts (KDD 2023)",
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .build = build,
};
