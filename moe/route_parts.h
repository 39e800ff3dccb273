/* route_parts.h: what route.c and the files of the three kinds share. */
#pragma once
#include "moe/route.h"

/* WEIGHTS: state of one expert of the level */
struct moe_route_expert {
    void *saved;
    float *y, *dy;               /* [rows_max x out]; compact when not dense */
    int *row;                    /* [rows_max] which rows, ascending */
    int n;                       /* how many; n_rows when dense */
    bool used, dense, sparse_ok; /* by any WEIGHTS gate; on all rows; every user is a SPARSE gate */
    bool q_done;                 /* serving: the query part's products are in `saved` */
};
/* SLOTS: state of one gate */
struct moe_route_slots {
    int per;         /* slots of an expert in a group */
    void **saved;    /* [n_experts] */
    float **x, **dx; /* [n_experts] each [groups_max * per x columns] */
    float **y, **dy; /* [n_experts] each [groups_max * per x out] */
};
/* MERGE: state of one gate */
struct moe_route_merge {
    void *saved;
    float *w, *dw;   /* [P] the blend of the group at hand */
    float *y;        /* [rows_max x out] */
    float *dy;       /* the same */
    struct rng *rng; /* [groups_max] the stream as it was before each group's forward pass */
};
struct moe_route_state {
    struct moe_plan plan;
    struct moe_route_expert *expert; /* [n_experts] of the level */
    struct moe_route_slots *slots;   /* [n_gates] */
    struct moe_route_merge *merge;   /* [n_gates] */
    float *xc, *dxc;                 /* [rows_max x columns] gathered candidate parts */
    int *group;                      /* [rows_max] their groups */
    int *fold;                       /* [rows_max x fields] their entries of folded columns */
    int *zero;                       /* [rows_max] zeros: the group of rows that are one group */
};

/* One pass over one level; what every function here is given. */
struct moe_route_pass {
    const struct moe_level *l;
    const struct moe_numbers *n;
    const struct moe_rows *x;      /* [n_sources] */
    const struct moe_route *route; /* [n_gates] */
    struct moe_route_state *s;
    struct moe_pass *pass;
    float *const *out;        /* forward: [n_modules] */
    float *const *dout;       /* backward: [n_modules] */
    struct moe_route *droute; /* backward: [n_gates] */
    struct moe_rows_grad *dx; /* backward: [n_sources] */
};

static inline const float *moe_route_value(const struct moe_route_pass *p, int expert) {
    return moe_numbers_value(p->n, moe_level_group(p->l, expert)->tensor,
                             p->l->experts[expert].index);
}
static inline float *moe_route_grad(const struct moe_route_pass *p, int expert) {
    return moe_numbers_grad(p->n, moe_level_group(p->l, expert)->tensor,
                            p->l->experts[expert].index);
}

/* Before an expert runs: its buffers and the place of its statistics go into the pass. */
static inline void moe_route_open_expert(const struct moe_route_pass *p, int expert) {
    const struct moe_expert_group *g = moe_level_group(p->l, expert);
    const size_t index = (size_t)p->l->experts[expert].index;
    p->pass->running = moe_numbers_value(p->n, g->buffer, (int)index);
    p->pass->running_stats =
        p->n->stats ? p->n->stats + g->stats_at + index * (size_t)g->expert.n_stats : NULL;
}

void moe_route_weights_bind(const struct moe_level *l, const struct moe_plan *plan,
                            struct moe_route_state *s, struct moe_work *work);
void moe_route_weights_forward(const struct moe_route_pass *p);
void moe_route_weights_backward(const struct moe_route_pass *p);

void moe_route_slots_bind(const struct moe_level *l, const struct moe_gate_use *u,
                          const struct moe_plan *plan, struct moe_route_slots *s,
                          struct moe_work *work);
void moe_route_slots_forward(const struct moe_route_pass *p, int gate);
void moe_route_slots_backward(const struct moe_route_pass *p, int gate);

void moe_route_merge_bind(const struct moe_level *l, const struct moe_gate_use *u,
                          const struct moe_plan *plan, struct moe_route_merge *s,
                          struct moe_work *work);
void moe_route_merge_forward(const struct moe_route_pass *p, int gate);
void moe_route_merge_backward(const struct moe_route_pass *p, int gate);
