/* home.c: hierarchy of multi-gate experts (HoME, Wang et al., arXiv 2408.05430, 2024), two levels:
 *
 *     meta   global experts, and experts of each category of tasks; a module for all, mixed from
 *            the global ones, and one for each category, mixed from global and category experts
 *     task   a task sees [global | its category] only (the hierarchy mask): category-wide experts
 *            and its own, and a gated residual of the category's module (the self-gate)
 *
 * `categories` lists tasks: [[watch, finish], [like, share]]; without, all are one category. The
 * paper's experts are the kind `home`, with feature_rank for its feature gate. */
#include <string.h>
#include "moe/layer.h"

struct conf {
    int64_t global, category, shared, own;
};
static const struct conf_item items[] = {
    CONF_INT(struct conf, global, "global", "2", 1, 64, "experts", "meta experts of all tasks"),
    CONF_INT(struct conf, category, "category", "2", 1, 64, "experts",
             "meta experts of each category"),
    CONF_INT(struct conf, shared, "shared", "1", 0, 64, "experts",
             "experts on the task level that the tasks of a category share"),
    CONF_INT(struct conf, own, "own", "1", 1, 64, "experts", "experts of each task"), CONF_END};
static const char *const also[] = {"categories", NULL};

struct plan {
    int n, of[64]; /* categories; of each task */
    int global_module, module[64];
};

static enum status bad(const struct moe_build *b, const struct node *at, const char *what) {
    return fail(STATUS_INVALID_ARGUMENT, "%s:%d: %s.categories: %s", b->place.file, at->line,
                b->place.section, what);
}

static enum status read_category(struct moe_build *b, const struct node *list, struct plan *p) {
    if (list->type != NODE_LIST || list->n == 0)
        return bad(b, list, "must be a list of lists of tasks");
    for (const struct node *n = list->first; n; n = n->next) {
        int task = -1;
        for (int t = 0; t < b->n_tasks; t++)
            if (n->type == NODE_STRING && slice_is(n->text, b->tasks[t]))
                task = t;
        if (task < 0)
            return bad(b, n, "there is no such task");
        if (p->of[task] >= 0)
            return bad(b, n, "a task stands in two categories");
        p->of[task] = p->n;
    }
    p->n++;
    return STATUS_OK;
}

static enum status read_categories(struct moe_build *b, struct plan *p) {
    const struct node *list = node_get(b->map, "categories");
    *p = (struct plan){.n = 0};
    memset(p->of, 0xff, sizeof p->of); /* -1 */
    if (!list) {
        memset(p->of, 0, sizeof p->of);
        p->n = 1;
        return STATUS_OK;
    }
    if (list->type != NODE_LIST)
        return bad(b, list, "must be a list of lists of tasks");
    for (const struct node *n = list->first; n; n = n->next)
        TRY(read_category(b, n, p));
    for (int t = 0; t < b->n_tasks; t++)
        if (p->of[t] < 0)
            return bad(b, list, "every task must stand in one");
    json_key(b->json, "categories");
    json_tree(b->json, list);
    return STATUS_OK;
}

static enum status meta_level(const struct conf *c, struct moe_build *b, struct plan *p) {
    struct moe_level *l;
    int experts[128], global, first, n = (int)c->global;
    int below = b->shared_module >= 0 ? b->shared_module : b->task_module[0];
    TRY(moe_build_level(b, &l));
    int source = moe_build_source(b, l, &below, 1);
    TRY(moe_build_experts(b, l, "global", n, source, b->expert, &global));
    for (int i = 0; i < n; i++)
        experts[i] = global + i;
    p->global_module = moe_build_module(b, l, "global", -1);
    TRY(moe_build_gate(b, l, "global", p->global_module, source, experts, n, 0, b->gate));
    for (int k = 0; k < p->n; k++) {
        const char *name = arena_printf(b->a, "category%d", k);
        TRY(moe_build_experts(b, l, name, (int)c->category, source, b->expert, &first));
        for (int i = 0; i < c->category; i++)
            experts[n + i] = first + i;
        p->module[k] = moe_build_module(b, l, name, -1);
        TRY(moe_build_gate(b, l, name, p->module[k], source, experts, n + (int)c->category,
                           (int)c->category, b->gate));
    }
    return STATUS_OK;
}

/* Weight sigmoid(x w + b) for an identity expert: the self-gate. */
static enum status self_gate(struct moe_build *b, struct moe_level *l, int task, int module,
                             int source) {
    void *identity = arena_zalloc(b->a, moe_expert_identity.conf_bytes);
    void *sigmoid = arena_zalloc(b->a, moe_gate_sigmoid.conf_bytes);
    const char *name = arena_printf(b->a, "%.32s.self", b->tasks[task]);
    int expert;
    conf_defaults(moe_expert_identity.items, identity, b->a);
    conf_defaults(moe_gate_sigmoid.items, sigmoid, b->a);
    TRY(moe_build_experts(b, l, name, 1, source,
                          (struct moe_expert_choice){&moe_expert_identity, identity}, &expert));
    return moe_build_gate(b, l, name, module, source, &expert, 1, 1,
                          (struct moe_gate_choice){&moe_gate_sigmoid, sigmoid});
}

static enum status task_level(const struct conf *c, struct moe_build *b, const struct plan *p) {
    struct moe_level *l;
    int shared[64], experts[128];
    TRY(moe_build_level(b, &l));
    for (int k = 0; k < p->n && c->shared; k++) {
        const int seen[] = {p->global_module, p->module[k]};
        TRY(moe_build_experts(b, l, arena_printf(b->a, "category%d", k), (int)c->shared,
                              moe_build_source(b, l, seen, 2), b->expert, &shared[k]));
    }
    for (int t = 0; t < b->n_tasks; t++) {
        const int seen[] = {p->global_module, p->module[p->of[t]]};
        int source = moe_build_source(b, l, seen, 2), n = 0, first;
        int residual = moe_build_source(b, l, &seen[1], 1);
        for (int i = 0; i < c->shared; i++)
            experts[n++] = shared[p->of[t]] + i;
        TRY(moe_build_experts(b, l, b->tasks[t], (int)c->own, source, b->expert, &first));
        for (int i = 0; i < c->own; i++)
            experts[n++] = first + i;
        int module = moe_build_module(b, l, b->tasks[t], t);
        TRY(moe_build_gate(b, l, b->tasks[t], module, source, experts, n, (int)c->own, b->gate));
        TRY(self_gate(b, l, t, module, residual));
    }
    moe_build_level_end(b, l);
    return STATUS_OK;
}

static enum status build(const void *conf, struct moe_build *b) {
    struct plan p;
    TRY(read_categories(b, &p));
    TRY(meta_level(conf, b, &p));
    return task_level(conf, b, &p);
}
const struct moe_layer_ops moe_layer_home = {
    .name = "home",
    .doc = "meta experts by category, masked task experts, self-gates (HoME, 2024)",
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .also = also,
    .build = build,
};
