/* level.h: the one layer type. A level has groups of experts, modules (its outputs: one per task,
 * and shared ones that feed the next level) and gates; every gate chooses among a list of the
 * level's experts and adds its mixture to one module.
 *
 *     module_m = sum over gates u of m, experts e of u:  route_u(source_u)[e] * expert_e(source_e)
 *
 * Shared-Bottom, OMoE, MMoE, CGC, PLE, AdaTT and HoME are descriptions of levels (layer.h), not
 * code here. A source is the model's input or modules of the level before, side by side. */
#pragma once
#include "moe/expert.h"
#include "moe/gate.h"

struct moe_source {
    int n;              /* modules laid side by side; 0: the model's input */
    const int *modules; /* [n] of the level before */
    int dq, columns;    /* of the query part, of the whole */
};
struct moe_expert_group {
    char name[64];            /* "level0.shared" */
    struct moe_expert expert; /* common to all of the group */
    int n, source;
    int tensor;      /* [n x P] */
    int buffer;      /* [n x buffers.floats]; -1: none */
    size_t stats_at; /* floats into a worker's statistics: n times expert.n_stats */
};
struct moe_expert_ref {
    int group, index; /* in the group */
};
struct moe_gate_use {
    char name[64]; /* "level0.click" */
    struct moe_gate gate;
    int source, module;
    const int *experts; /* [gate.n_experts] into the level's experts */
    int tensor, buffer; /* -1: the gate has none */
    size_t stats_at;    /* floats into a worker's statistics */
};
struct moe_module {
    char name[48];
    int task; /* -1: shared */
};
struct moe_level {
    struct moe_source *sources;
    struct moe_expert_group *groups;
    struct moe_expert_ref *experts; /* all experts of all groups, in order */
    const char **expert_names;      /* "shared.0", set when the model is built */
    struct moe_module *modules;
    struct moe_gate_use *gates;
    int n_sources, n_groups, n_experts, n_modules, n_gates;
    int out; /* columns of every module (and expert) */
};

static inline const struct moe_expert_group *moe_level_group(const struct moe_level *l,
                                                             int expert) {
    return &l->groups[l->experts[expert].group];
}

/* Numbers of a pass: p gives the places, v the values, g the gradient (layout of v's dense part).
 */
struct moe_numbers {
    const struct moe_params *p;
    const float *v;
    float *g;     /* backward only */
    float *stats; /* backward only; [n_stats of the model] */
};
static inline const float *moe_numbers_value(const struct moe_numbers *n, int tensor, int copy) {
    return tensor < 0 ? NULL : moe_params_at(n->p, (float *)n->v, tensor, copy);
}
static inline float *moe_numbers_grad(const struct moe_numbers *n, int tensor, int copy) {
    return tensor < 0 ? NULL : moe_params_at(n->p, n->g, tensor, copy);
}

/* One worker's state of a level. */
struct moe_route_state;
struct moe_level_state {
    struct moe_rows *x;               /* [n_sources] */
    struct moe_rows_grad *dx;         /* [n_sources] */
    float **concat, **dconcat;        /* [n_sources] or NULL entries */
    void **gate_saved;                /* [n_gates] */
    struct moe_route *route, *droute; /* [n_gates] */
    float **out, **dout;              /* [n_modules] each [rows x out] */
    struct moe_route_state *routes;
};
struct moe_level_state *moe_level_bind(const struct moe_level *l, const struct moe_plan *plan,
                                       struct moe_work *work);
/* below: the level before's state; NULL for the first. Fills s->out. */
void moe_level_forward(const struct moe_level *l, const struct moe_numbers *n,
                       const struct moe_rows *x, const struct moe_level_state *below,
                       struct moe_level_state *s, struct moe_pass *pass);
/* s->dout holds the gradient of the outputs and is overwritten; adds to below->dout (which the
 * caller zeroed) and to dx. */
void moe_level_backward(const struct moe_level *l, const struct moe_numbers *n,
                        const struct moe_rows *x, struct moe_level_state *below,
                        struct moe_level_state *s, struct moe_pass *pass,
                        const struct moe_rows_grad *dx);
