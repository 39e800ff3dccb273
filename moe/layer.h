/* layer.h: kinds of layer. A kind is one file in layers/ and one line in layers.def; it describes
 * levels (level.h) through the builder below and runs no numbers itself. One entry of the spec's
 * `layers` is one call of build() and may append several levels. */
#pragma once
#include "base/conf.h"
#include "moe/level.h"

#define MOE_LEVELS_MAX        8
#define MOE_LEVEL_PARTS_MAX   128 /* sources, groups, modules, gates of a level, each */
#define MOE_LEVEL_EXPERTS_MAX 512 /* of a level */

/* The settings of an expert or gate, read but not yet bound to a shape. */
struct moe_expert_choice {
    const struct moe_expert_ops *ops;
    const void *conf;
};
struct moe_gate_choice {
    const struct moe_gate_ops *ops;
    const void *conf;
};

struct moe_build {
    struct arena *a;
    struct moe_params *params;
    struct conf_place place; /* of the layer: file, "model.layers[0]" */
    const struct node *map;  /* the layer's settings */
    struct json *json;       /* the effective settings, written as they are read */
    int n_tasks;
    const char *const *tasks;
    const struct moe_inputs *inputs; /* of the model; may be NULL in tests */
    int in_dq, in_columns;           /* of the model's input, as level 0 sees it */
    size_t n_stats;
    /* what the level before offers; -1 before the first level: the model's input */
    int task_module[64];             /* [n_tasks] module that feeds a task */
    int shared_module;               /* -1: none */
    bool last;                       /* this entry is the last of the spec's layers */
    struct moe_expert_choice expert; /* key `expert` of the layer */
    struct moe_gate_choice gate;     /* key `gate` */
    struct moe_level levels[MOE_LEVELS_MAX];
    int n_levels;
};

struct moe_layer_ops {
    const char *name;
    const char *doc; /* one line with the paper */
    const struct conf_item *items;
    size_t conf_bytes;
    const char *const *also; /* keys of sub-maps the kind reads itself, NULL-ended; may be NULL */
    enum status (*build)(const void *conf, struct moe_build *b);
};

#define LAYER(name) extern const struct moe_layer_ops moe_layer_##name;
#include "moe/layers.def"
#undef LAYER
extern const struct moe_layer_ops *const moe_layers[]; /* NULL-ended */
const struct moe_layer_ops *moe_layer_find(const char *name);

/* --- for layers/ ----------------------------------------------------------------------------- */

/* Starts a level and returns it. RESOURCE_EXHAUSTED beyond MOE_LEVELS_MAX. */
enum status moe_build_level(struct moe_build *b, struct moe_level **out);
/* Modules of the level before, side by side; n 0 or a single -1: the model's input. Equal sources
 * are shared. Returns the source's index. */
int moe_build_source(struct moe_build *b, struct moe_level *l, const int *modules, int n);
/* Appends n experts; *first: the index of the first in the level's experts. */
enum status moe_build_experts(struct moe_build *b, struct moe_level *l, const char *name, int n,
                              int source, struct moe_expert_choice choice, int *first);
int moe_build_module(struct moe_build *b, struct moe_level *l, const char *name, int task);
/* A gate that adds to `module` over `experts` [n], of which the last n_own are the task's own. */
enum status moe_build_gate(struct moe_build *b, struct moe_level *l, const char *name, int module,
                           int source, const int *experts, int n, int n_own,
                           struct moe_gate_choice choice);
/* Ends the level: what the next one is offered. */
void moe_build_level_end(struct moe_build *b, struct moe_level *l);
/* Reads {kind: ..., settings} under `key` of b->map; absent: `kind` with its defaults. */
enum status moe_build_read_expert(struct moe_build *b, const char *key, const char *kind,
                                  struct moe_expert_choice *out);
enum status moe_build_read_gate(struct moe_build *b, const char *key, const char *kind,
                                struct moe_gate_choice *out);
/* One level of CGC: `shared` experts for all, `own` for each task, a gate per task over shared +
 * own; with_shared: also a shared module whose gate sees all experts, for the next level. */
enum status moe_build_cgc(struct moe_build *b, int shared, int own, bool with_shared);

/* --- for model.c ----------------------------------------------------------------------------- */

/* Reads one entry of `layers` (b->map) and appends its levels. */
enum status moe_build_layer(struct moe_build *b);
