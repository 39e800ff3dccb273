/* gate.h: what a gate is: numbers of a row (or request) in, a route out. A kind is one file in
 * gates/ and one line in gates.def. A gate never sees experts.
 *
 * The life of a gate: conf_read(items) -> shape() -> [params placed] -> bind() -> forward(),
 * backward() any number of times; in training, after_step() once per optimizer step. forward and
 * backward cannot fail and allocate nothing.
 *
 *   Parameters   one run of floats (layout `params`), trained by gradient.
 *   Buffers      one run of floats (layout `buffers`), saved with the model, moved by after_step
 *                only: a balancing bias, a controller's lambda.
 *   Statistics   n_stats floats, zeroed before a step; backward() adds to them (each worker to its
 *                own, summed in fixed order); after_step() reads the sum of the whole step.
 *   Aux losses   forward() adds pass->share * value to pass->aux when pass->training; backward()
 *                adds the gradient of the same.
 *   Noise        only if pass->training, from pass->rng; what backward() needs of it is saved.
 *   Groups       x->group[row], x->start[group]: rows of one request stand together. A MIXES_ROWS
 *                gate must not look over a group's border: it is served one request at a time. */
#pragma once
#include "base/conf.h"
#include "moe/params.h"
#include "moe/pass.h"
#include "moe/rows.h"

enum moe_route_kind { MOE_ROUTE_WEIGHTS, MOE_ROUTE_SLOTS, MOE_ROUTE_MERGE };

/* How rows go to experts and come back. Its gradient is a struct of the same shape. The buffers
 * are the level's; the gate fills them. */
struct moe_route {
    enum moe_route_kind kind;
    int n_experts; /* that this gate may use, numbered from 0 in the module's order */
    int n_slots;   /* SLOTS: of all experts; slot s belongs to expert s / (n_slots / n_experts) */
    int n_rows, n_groups; /* as of the rows */
    float *w;        /* WEIGHTS [n_rows x n_experts], zero: skip; MERGE [n_groups x n_experts] */
    float *dispatch; /* SLOTS [n_rows x n_slots]: slot input = sum over the group's rows */
    float *combine;  /* SLOTS [n_rows x n_slots]: row output = sum over the group's slots */
};

enum moe_gate_flags {
    MOE_GATE_STOCHASTIC = 1, /* draws from pass->rng in training */
    MOE_GATE_MIXES_ROWS = 2, /* a row's weights depend on the other rows of its group */
    MOE_GATE_LINEAR = 8,     /* reads rows through moe_linear_* alone, so that columns from tables
                              * need not be written out for it */
    MOE_GATE_SPARSE = 4,     /* WEIGHTS with exact zeros: experts run on the rows they get */
};

struct moe_gate_ops;

/* A kind bound to its settings and sizes. Immutable after shape(). */
struct moe_gate {
    const struct moe_gate_ops *ops;
    const void *conf; /* the kind's struct, read by its items */
    int dq, in;       /* columns: of the input's query part, of the whole input */
    int n_experts;    /* this gate's choices */
    int n_own;        /* the last n_own of them belong to its task, the others are shared */
    int task;         /* whose gate this is; -1: a shared module's */
    const struct moe_inputs *inputs; /* of the model, for gates that read raw ids or columns; may be
                                      * NULL in tests; outlives the gate */
    unsigned flags;                  /* set in shape(); starts as ops->flags */
    int n_slots;                     /* SLOTS: set in shape() */
    int n_stats;                     /* set in shape() */
    struct moe_layout params, buffers; /* set in shape(); may stay empty */
    void *shape;                       /* the kind's own, in the model's arena */
};

/* Where a gate reads and writes in one pass. */
struct moe_gate_io {
    const float *w;       /* parameters, as layout `params` */
    const float *buffers; /* as layout `buffers` */
    void *saved;          /* from bind() */
};

struct moe_gate_ops {
    const char *name;
    const char *doc; /* one line with the paper */
    enum moe_route_kind kind;
    unsigned flags;
    const struct conf_item *items;
    size_t conf_bytes;
    /* Checks g->conf for g->in and g->n_experts; sets params, buffers, n_stats, n_slots, flags.
     * INVALID_ARGUMENT. */
    enum status (*shape)(struct moe_gate *g, struct conf_place place, struct arena *a);
    /* Scratch; returns the kind's saved struct (NULL while counting). May be NULL: none. */
    void *(*bind)(const struct moe_gate *g, const struct moe_plan *plan, struct moe_work *work);
    void (*forward)(const struct moe_gate *g, const struct moe_gate_io *io,
                    const struct moe_rows *x, struct moe_pass *pass, struct moe_route *route);
    /* Adds to dw (as `params`), stats [n_stats] and dx (NULL: none). d: the route's gradient, may
     * be overwritten; where w is zero in WEIGHTS of a SPARSE gate, d->w is zero too. */
    void (*backward)(const struct moe_gate *g, const struct moe_gate_io *io,
                     const struct moe_rows *x, struct moe_pass *pass, const struct moe_route *route,
                     struct moe_route *d, float *dw, float *stats, const struct moe_rows_grad *dx);
    /* May be NULL. Moves the buffers. */
    void (*after_step)(const struct moe_gate *g, const float *stats, float *buffers);
};

#define GATE(name) extern const struct moe_gate_ops moe_gate_##name;
#include "moe/gates.def"
#undef GATE
extern const struct moe_gate_ops *const moe_gates[];        /* NULL-ended */
const struct moe_gate_ops *moe_gate_find(const char *name); /* NULL when unknown */
