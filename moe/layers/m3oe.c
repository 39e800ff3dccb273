/* m3oe.c: multi-domain, multi-task experts (after Zhang et al., SIGIR 2024): three views of a row,
 * and for each task a learned fusion of them:
 *
 *     shared_t   softmax gate of the task over shared experts
 *     domain     expert of the row's domain (market, device, ...), by `domain_gate`
 *     own_t      softmax gate of the task over experts of its own
 *     module_t = a_t shared_t + b_t domain + c_t own_t        (a, b, c)_t learned, of sum 1
 *
 * The paper searches the fusion's weights on validation data; here they are trained with the rest.
 */
#include <stdio.h>
#include "moe/layers/constant.h"

struct conf {
    int64_t shared, domains, own;
};
static const struct conf_item items[] = {
    CONF_INT(struct conf, shared, "shared", "4", 1, 256, "experts", "experts that all may use"),
    CONF_INT(struct conf, domains, "domains", "2", 1, 256, "experts", "one for each domain"),
    CONF_INT(struct conf, own, "own", "1", 1, 64, "experts", "experts of each task"), CONF_END};
static const char *const also[] = {"domain_gate", NULL};

enum { VIEW_SHARED, VIEW_DOMAIN, VIEW_OWN, VIEWS };

/* Experts and, for each task, the module that mixes them. */
static enum status view(struct moe_build *b, struct moe_level *l, int source, const char *name,
                        int n, struct moe_gate_choice gate, int first, int *module) {
    int experts[MOE_LEVEL_EXPERTS_MAX];
    if (first < 0)
        TRY(moe_build_experts(b, l, name, n, source, b->expert, &first));
    for (int i = 0; i < n; i++)
        experts[i] = first + i;
    *module = moe_build_module(b, l, name, -1);
    return moe_build_gate(b, l, name, *module, source, experts, n, 0, gate);
}

static enum status views(const struct conf *c, struct moe_build *b, int (*module)[VIEWS]) {
    struct moe_gate_choice domain;
    struct moe_level *l;
    int below = b->shared_module >= 0 ? b->shared_module : b->task_module[0], shared, domain_module;
    TRY(moe_build_read_gate(b, "domain_gate", "segment", &domain));
    TRY(moe_build_level(b, &l));
    int source = moe_build_source(b, l, &below, 1);
    TRY(moe_build_experts(b, l, "shared", (int)c->shared, source, b->expert, &shared));
    TRY(view(b, l, source, "domain", (int)c->domains, domain, -1, &domain_module));
    for (int t = 0; t < b->n_tasks; t++) {
        const char *of_shared = arena_printf(b->a, "%.32s.shared", b->tasks[t]);
        module[t][VIEW_DOMAIN] = domain_module;
        TRY(view(b, l, source, of_shared, (int)c->shared, b->gate, shared,
                 &module[t][VIEW_SHARED]));
        TRY(view(b, l, source, b->tasks[t], (int)c->own,
                 c->own > 1 ? b->gate : moe_layer_constant(b, true), -1, &module[t][VIEW_OWN]));
    }
    return STATUS_OK;
}

static enum status build(const void *conf, struct moe_build *b) {
    int module[64][VIEWS], source[64][VIEWS];
    struct moe_expert_choice pass = {&moe_expert_identity, NULL};
    void *settings = arena_zalloc(b->a, moe_expert_identity.conf_bytes);
    struct moe_level *l;
    conf_defaults(moe_expert_identity.items, settings, b->a);
    pass.conf = settings;
    TRY(views(conf, b, module));
    TRY(moe_build_level(b, &l));
    for (int t = 0; t < b->n_tasks; t++) {
        int experts[VIEWS];
        for (int v = 0; v < VIEWS; v++) {
            static const char *const names[VIEWS] = {"shared", "domain", "own"};
            source[t][v] = moe_build_source(b, l, &module[t][v], 1);
            TRY(moe_build_experts(b, l, arena_printf(b->a, "%.28s.%s", b->tasks[t], names[v]), 1,
                                  source[t][v], pass, &experts[v]));
        }
        int out = moe_build_module(b, l, b->tasks[t], t);
        TRY(moe_build_gate(b, l, b->tasks[t], out, source[t][0], experts, VIEWS, 0,
                           moe_layer_constant(b, true)));
    }
    moe_build_level_end(b, l);
    return STATUS_OK;
}
const struct moe_layer_ops moe_layer_m3oe = {
    .name = "m3oe",
    .doc = "shared, domain and task experts with a learned fusion per task (SIGIR 2024)",
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .also = also,
    .build = build,
};
