/* expert.h: what an expert is: a small network whose parameters are one contiguous run of floats.
 * A kind is one file in experts/ and one line in experts.def. Experts never see gates, tasks or
 * which rows were left out; a kind must treat rows independently.
 *
 * The life of an expert: conf_read(items) -> shape() -> [params placed] -> bind() -> forward(),
 * backward() any number of times. forward and backward cannot fail and allocate nothing. */
#pragma once
#include "base/conf.h"
#include "moe/params.h"
#include "moe/pass.h"
#include "moe/rows.h"

struct moe_expert_ops;

/* A kind bound to its settings and sizes. Immutable after shape(); shared by all experts of a
 * group, which differ in their run of parameters only. */
struct moe_expert {
    const struct moe_expert_ops *ops;
    const void *conf; /* the kind's struct, read by its items */
    int dq, in, out;  /* columns: of the input's query part, of the whole input, of the output */
    struct moe_layout layout; /* the run: P = layout.floats */
    /* Set in shape(); may stay empty: numbers that no gradient moves, one run for each expert of a
     * group, and floats by which passes tell after_step how they move. Both come by the pass. */
    struct moe_layout buffers;
    int n_stats;
    void *shape; /* the kind's own, made in shape(), in the model's arena */
};

struct moe_expert_ops {
    const char *name;
    const char *doc; /* one line */
    const struct conf_item *items;
    size_t conf_bytes;
    bool linear_only; /* reads rows through moe_linear_* alone (see MOE_GATE_LINEAR) */
    /* Checks e->conf for the input e->in; sets e->out, e->layout, e->shape. INVALID_ARGUMENT. */
    enum status (*shape)(struct moe_expert *e, struct conf_place place, struct arena *a);
    /* Scratch for one expert; returns the kind's saved struct (NULL while counting). */
    void *(*bind)(const struct moe_expert *e, const struct moe_plan *plan, struct moe_work *work);
    /* y [n_rows x out]; w: the run */
    void (*forward)(const struct moe_expert *e, const float *w, const struct moe_rows *x,
                    void *saved, struct moe_pass *pass, float *y);
    /* Adds to dw (as the run) and dx (NULL: none). dy [n_rows x out] may be overwritten; y as
     * forward left it. */
    void (*backward)(const struct moe_expert *e, const float *w, const struct moe_rows *x,
                     void *saved, const struct moe_pass *pass, const float *y, float *dy, float *dw,
                     const struct moe_rows_grad *dx);
    /* May be NULL. Moves the buffers of one expert by the sum of all workers' stats [n_stats]. */
    void (*after_step)(const struct moe_expert *e, const float *stats, float *buffers);
    double (*flop)(const struct moe_expert *e); /* per row, forward, query part excluded */
};

#define EXPERT(name) extern const struct moe_expert_ops moe_expert_##name;
#include "moe/experts.def"
#undef EXPERT
extern const struct moe_expert_ops *const moe_experts[];        /* NULL-ended */
const struct moe_expert_ops *moe_expert_find(const char *name); /* NULL when unknown */
