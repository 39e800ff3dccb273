/* layer.c: the table of layer kinds, and the builder they describe levels with. Everything built
 * lives in the model's arena; nothing is undone on failure, the model is dropped as a whole. */
#include "moe/layer.h"
#include <assert.h>
#include <stdio.h>
#include <string.h>

const struct moe_layer_ops *const moe_layers[] = {
#define LAYER(name) &moe_layer_##name,
#include "moe/layers.def"
#undef LAYER
    NULL};

const struct moe_layer_ops *moe_layer_find(const char *name) {
    for (int i = 0; moe_layers[i]; i++)
        if (strcmp(moe_layers[i]->name, name) == 0)
            return moe_layers[i];
    return NULL;
}

static const char *section(struct moe_build *b, const char *key) {
    return arena_printf(b->a, "%s.%s", b->place.section, key);
}

/* The `kind` of a {kind: ..., ...} map, or the default's name. */
static enum status read_kind(const struct node *map, struct conf_place place, const char *dflt,
                             const char **out) {
    const struct node *kind = map && map->type == NODE_MAP ? node_get(map, "kind") : NULL;
    if (map && map->type != NODE_MAP && map->type != NODE_NULL)
        return fail(STATUS_INVALID_ARGUMENT, "%s:%d: %s: must be a map, as in {kind: %s}",
                    place.file, map->line, place.section, dflt);
    if (kind && kind->type != NODE_STRING)
        return fail(STATUS_INVALID_ARGUMENT, "%s:%d: %s.kind: must be a name", place.file,
                    kind->line, place.section);
    *out = kind ? kind->text.p : dflt;
    return STATUS_OK;
}

static enum status unknown(const struct node *map, struct conf_place place, const char *kind,
                           const char *const *known) {
    const struct node *at = node_get(map, "kind");
    const char *near = conf_nearest(slice_of(kind), known);
    return fail(STATUS_INVALID_ARGUMENT, "%s:%d: %s.kind: unknown kind '%s'%s%s%s", place.file,
                at->line, place.section, kind, near ? "; did you mean '" : "", near ? near : "",
                near ? "'?" : "");
}

static const char *const also_kind[] = {"kind", NULL};

/* Reads settings by a kind's table and echoes them: {"kind": ..., ...} stays open. */
static enum status read_settings(struct moe_build *b, const struct conf_item *items, size_t bytes,
                                 const struct node *map, struct conf_place place, const char *kind,
                                 const char *const *also, const void **out) {
    void *conf = arena_zalloc(b->a, bytes);
    TRY(conf_read(items, map, place, also, conf, b->a));
    json_object(b->json);
    json_key(b->json, "kind");
    json_cstr(b->json, kind);
    conf_write_json(items, conf, b->json);
    *out = conf;
    return STATUS_OK;
}

/* The tables of kinds, seen alike. */
struct kind {
    const char *name;
    const struct conf_item *items;
    size_t conf_bytes;
};
static struct kind expert_kind(int i) {
    const struct moe_expert_ops *o = moe_experts[i];
    return o ? (struct kind){o->name, o->items, o->conf_bytes} : (struct kind){0};
}
static struct kind gate_kind(int i) {
    const struct moe_gate_ops *o = moe_gates[i];
    return o ? (struct kind){o->name, o->items, o->conf_bytes} : (struct kind){0};
}

/* Reads {kind: ..., settings} under `key`; *at: which of the table's kinds. */
static enum status read_choice(struct moe_build *b, const char *key, const char *kind,
                               struct kind (*kinds)(int), int *at, const void **conf) {
    struct conf_place place = {b->place.file, section(b, key)};
    const struct node *map = node_get(b->map, key);
    const char *names[64] = {0};
    TRY(read_kind(map, place, kind, &kind));
    *at = -1;
    for (int i = 0; kinds(i).name && i < 63; i++) {
        names[i] = kinds(i).name;
        *at = strcmp(names[i], kind) == 0 ? i : *at;
    }
    if (*at < 0)
        return unknown(map, place, kind, names);
    json_key(b->json, key);
    TRY(read_settings(b, kinds(*at).items, kinds(*at).conf_bytes, map, place, kind, also_kind,
                      conf));
    json_object_end(b->json);
    return STATUS_OK;
}

enum status moe_build_read_expert(struct moe_build *b, const char *key, const char *kind,
                                  struct moe_expert_choice *out) {
    int at;
    TRY(read_choice(b, key, kind, expert_kind, &at, &out->conf));
    out->ops = moe_experts[at];
    return STATUS_OK;
}

enum status moe_build_read_gate(struct moe_build *b, const char *key, const char *kind,
                                struct moe_gate_choice *out) {
    int at;
    TRY(read_choice(b, key, kind, gate_kind, &at, &out->conf));
    out->ops = moe_gates[at];
    return STATUS_OK;
}

enum status moe_build_layer(struct moe_build *b) {
    const char *kind, *names[64] = {0}, *also[16] = {"kind", "expert", "gate"};
    const void *conf;
    TRY(read_kind(b->map, b->place, "mmoe", &kind));
    const struct moe_layer_ops *ops = moe_layer_find(kind);
    for (int i = 0; moe_layers[i] && i < 63; i++)
        names[i] = moe_layers[i]->name;
    if (!ops)
        return unknown(b->map, b->place, kind, names);
    for (int i = 0, n = 3; ops->also && ops->also[i] && n < 15; i++)
        also[n++] = ops->also[i];
    TRY(read_settings(b, ops->items, ops->conf_bytes, b->map, b->place, kind, also, &conf));
    TRY(moe_build_read_expert(b, "expert", "mlp", &b->expert));
    TRY(moe_build_read_gate(b, "gate", "softmax", &b->gate));
    TRY(ops->build(conf, b));
    json_object_end(b->json);
    return STATUS_OK;
}

enum status moe_build_level(struct moe_build *b, struct moe_level **out) {
    if (b->n_levels == MOE_LEVELS_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "%s: %s: more than %d levels", b->place.file,
                    b->place.section, MOE_LEVELS_MAX);
    struct moe_level *l = &b->levels[b->n_levels++];
    l->sources = ARENA_ARRAY(b->a, struct moe_source, MOE_LEVEL_PARTS_MAX);
    l->groups = ARENA_ARRAY(b->a, struct moe_expert_group, MOE_LEVEL_PARTS_MAX);
    l->modules = ARENA_ARRAY(b->a, struct moe_module, MOE_LEVEL_PARTS_MAX);
    l->gates = ARENA_ARRAY(b->a, struct moe_gate_use, MOE_LEVEL_PARTS_MAX);
    l->experts = ARENA_ARRAY(b->a, struct moe_expert_ref, MOE_LEVEL_EXPERTS_MAX);
    *out = l;
    return STATUS_OK;
}

int moe_build_source(struct moe_build *b, struct moe_level *l, const int *modules, int n) {
    const struct moe_level *below = b->n_levels > 1 ? &b->levels[b->n_levels - 2] : NULL;
    if (!below || (n == 1 && modules[0] < 0))
        n = 0;
    for (int i = 0; i < l->n_sources; i++)
        if (l->sources[i].n == n &&
            (n == 0 || memcmp(l->sources[i].modules, modules, (size_t)n * sizeof *modules) == 0))
            return i;
    assert(l->n_sources < MOE_LEVEL_PARTS_MAX);
    struct moe_source *s = &l->sources[l->n_sources];
    int *copy = ARENA_ARRAY(b->a, int, n + 1);
    for (int i = 0; i < n; i++)
        copy[i] = modules[i];
    *s = (struct moe_source){.n = n,
                             .modules = copy,
                             .dq = n ? 0 : b->in_dq,
                             .columns = n ? n * below->out : b->in_columns};
    return l->n_sources++;
}

enum status moe_build_experts(struct moe_build *b, struct moe_level *l, const char *name, int n,
                              int source, struct moe_expert_choice choice, int *first) {
    if (l->n_groups == MOE_LEVEL_PARTS_MAX || l->n_experts + n > MOE_LEVEL_EXPERTS_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "%s: %s: more than %d experts in a level",
                    b->place.file, b->place.section, MOE_LEVEL_EXPERTS_MAX);
    struct moe_expert_group *g = &l->groups[l->n_groups];
    snprintf(g->name, sizeof g->name, "level%d.%.40s", b->n_levels - 1, name);
    g->n = n;
    g->source = source;
    g->expert = (struct moe_expert){.ops = choice.ops,
                                    .conf = choice.conf,
                                    .dq = l->sources[source].dq,
                                    .in = l->sources[source].columns};
    struct conf_place place = {b->place.file, section(b, "expert")};
    TRY(choice.ops->shape(&g->expert, place, b->a));
    if (l->out && l->out != g->expert.out)
        return fail(STATUS_INVALID_ARGUMENT,
                    "%s: %s: experts of one level must have one output width, not %d and %d",
                    b->place.file, place.section, l->out, g->expert.out);
    l->out = g->expert.out;
    g->tensor = -1;
    if (g->expert.layout.floats)
        g->tensor =
            moe_params_add(b->params, MOE_DENSE, n, &g->expert.layout, "%s.experts", g->name);
    g->buffer = -1;
    if (g->expert.buffers.floats)
        g->buffer =
            moe_params_add(b->params, MOE_BUFFER, n, &g->expert.buffers, "%s.running", g->name);
    g->stats_at = b->n_stats;
    b->n_stats += (size_t)n * (size_t)g->expert.n_stats;
    *first = l->n_experts;
    for (int i = 0; i < n; i++)
        l->experts[l->n_experts++] = (struct moe_expert_ref){l->n_groups, i};
    l->n_groups++;
    return STATUS_OK;
}

int moe_build_module(struct moe_build *b, struct moe_level *l, const char *name, int task) {
    assert(l->n_modules < MOE_LEVEL_PARTS_MAX);
    (void)b;
    struct moe_module *m = &l->modules[l->n_modules];
    snprintf(m->name, sizeof m->name, "%s", name);
    m->task = task;
    return l->n_modules++;
}

/* A blend needs experts of one shape on one source. */
static enum status check_merge(const struct moe_build *b, const struct moe_level *l,
                               const struct moe_gate_use *u) {
    const struct moe_expert_group *first = moe_level_group(l, u->experts[0]);
    if (first->expert.layout.floats == 0)
        return fail(STATUS_INVALID_ARGUMENT,
                    "%s: %s.gate: '%s' blends experts' numbers, and '%s' experts have none",
                    b->place.file, b->place.section, u->gate.ops->name, first->expert.ops->name);
    if (first->expert.buffers.floats)
        return fail(STATUS_INVALID_ARGUMENT,
                    "%s: %s.gate: '%s' blends experts' numbers, and running statistics of batches "
                    "do not blend; use norm: none",
                    b->place.file, b->place.section, u->gate.ops->name);
    for (int i = 1; i < u->gate.n_experts; i++) {
        const struct moe_expert_group *g = moe_level_group(l, u->experts[i]);
        if (g->expert.ops != first->expert.ops || g->source != first->source ||
            g->expert.layout.floats != first->expert.layout.floats)
            return fail(
                STATUS_INVALID_ARGUMENT,
                "%s: %s.gate: '%s' blends experts, which must be of one kind, shape and input; "
                "use own: 0 or a single level",
                b->place.file, b->place.section, u->gate.ops->name);
    }
    return STATUS_OK;
}

enum status moe_build_gate(struct moe_build *b, struct moe_level *l, const char *name, int module,
                           int source, const int *experts, int n, int n_own,
                           struct moe_gate_choice choice) {
    struct conf_place place = {b->place.file, section(b, "gate")};
    if (n == 0)
        return fail(STATUS_INVALID_ARGUMENT, "%s: %s: gate '%s' has no experts", place.file,
                    b->place.section, name);
    assert(l->n_gates < MOE_LEVEL_PARTS_MAX);
    struct moe_gate_use *u = &l->gates[l->n_gates];
    *u = (struct moe_gate_use){
        .source = source, .module = module, .tensor = -1, .buffer = -1, .stats_at = b->n_stats};
    snprintf(u->name, sizeof u->name, "level%d.%.40s", b->n_levels - 1, name);
    int *copy = ARENA_ARRAY(b->a, int, n);
    memcpy(copy, experts, (size_t)n * sizeof *copy);
    u->experts = copy;
    u->gate = (struct moe_gate){.ops = choice.ops,
                                .conf = choice.conf,
                                .flags = choice.ops->flags,
                                .dq = l->sources[source].dq,
                                .in = l->sources[source].columns,
                                .n_experts = n,
                                .n_own = n_own,
                                .task = l->modules[module].task,
                                .inputs = b->inputs};
    TRY(choice.ops->shape(&u->gate, place, b->a));
    if (choice.ops->kind == MOE_ROUTE_MERGE)
        TRY(check_merge(b, l, u));
    if (u->gate.params.floats)
        u->tensor = moe_params_add(b->params, MOE_DENSE, 1, &u->gate.params, "%s.gate", u->name);
    if (u->gate.buffers.floats)
        u->buffer = moe_params_add(b->params, MOE_BUFFER, 1, &u->gate.buffers, "%s.state", u->name);
    b->n_stats += (size_t)u->gate.n_stats;
    l->n_gates++;
    return STATUS_OK;
}

void moe_build_level_end(struct moe_build *b, struct moe_level *l) {
    b->shared_module = -1;
    for (int m = 0; m < l->n_modules; m++)
        if (l->modules[m].task < 0 && b->shared_module < 0)
            b->shared_module = m;
    for (int t = 0; t < b->n_tasks; t++) {
        b->task_module[t] = b->shared_module;
        for (int m = 0; m < l->n_modules; m++)
            if (l->modules[m].task == t)
                b->task_module[t] = m;
    }
}

enum status moe_build_cgc(struct moe_build *b, int shared, int own, bool with_shared) {
    struct moe_level *l;
    int all[MOE_LEVEL_EXPERTS_MAX], mine[MOE_LEVEL_EXPERTS_MAX], first, n = 0;
    int offered = b->shared_module >= 0 ? b->shared_module : b->task_module[0];
    TRY(moe_build_level(b, &l));
    int shared_source = moe_build_source(b, l, &offered, 1);
    if (shared) {
        TRY(moe_build_experts(b, l, "shared", shared, shared_source, b->expert, &first));
        for (int i = 0; i < shared; i++)
            all[n++] = mine[i] = first + i;
    }
    for (int t = 0; t < b->n_tasks; t++) {
        int source = moe_build_source(b, l, &b->task_module[t], 1);
        if (own)
            TRY(moe_build_experts(b, l, b->tasks[t], own, source, b->expert, &first));
        for (int i = 0; i < own; i++)
            all[n++] = mine[shared + i] = first + i;
        int module = moe_build_module(b, l, b->tasks[t], t);
        TRY(moe_build_gate(b, l, b->tasks[t], module, source, mine, shared + own, own, b->gate));
    }
    if (with_shared) {
        int module = moe_build_module(b, l, "shared", -1);
        TRY(moe_build_gate(b, l, "shared", module, shared_source, all, n, 0, b->gate));
    }
    moe_build_level_end(b, l);
    return STATUS_OK;
}
