/* trace.h: a model watched while it scores examples: every gate's weights by row, every expert's
 * outputs, what is said without an expert, and of one row what each expert adds to the logit. The
 * raw material of `moerank inspect`; usage.h makes figures of it. Not a hot path. */
#pragma once
#include "moe/data/examples.h"
#include "moe/level.h"
#include "moe/model.h"

struct moe_trace_gate {
    const char *name;   /* "level0.click" */
    const char *kind;   /* "softmax" */
    int level, task;    /* task -1: a shared module's */
    int n, n_own;       /* experts; the last n_own are the task's own */
    const int *experts; /* [n] of the level */
    bool sparse;        /* its weights may be exact zeros */
    bool fixed;         /* no choice: one expert only */
    float *w;           /* [rows x n]; SLOTS: the experts' shares in the row's output */
};
struct moe_trace {
    const struct moe_model *m; /* borrowed, also for names */
    int n_rows, n_gates;
    struct moe_trace_gate *gates; /* [n_gates] */
    float *p;                     /* [rows x tasks] what the model says */
};
/* `x` must have the model's inputs; see moe_trace_check. */
void moe_trace_new(const struct moe_model *m, const struct moe_examples *x, struct moe_trace **out);
void moe_trace_free(struct moe_trace *t);

/* FAILED_PRECONDITION names the first input that differs. */
enum status moe_trace_check(const struct moe_model *m, const struct moe_inputs *inputs,
                            int n_tasks);

/* Levels, and the experts of one. Names live as long as the model. */
int moe_trace_levels(const struct moe_model *m);
int moe_trace_experts(const struct moe_model *m, int level);
int moe_trace_width(const struct moe_model *m, int level); /* of its experts' outputs */
const char *moe_trace_expert_name(const struct moe_model *m, int level, int expert);
/* Numbers of one expert; NULL: it has none. Experts of equal *kind are alike. */
const float *moe_trace_expert_floats(const struct moe_model *m, int level, int expert, int64_t *n,
                                     const void **kind);

/* What gates keep besides weights (a controller's lambda, a bias), gates numbered through the
 * levels. false: no such gate; *layout NULL: it keeps nothing. */
bool moe_trace_state(const struct moe_model *m, int gate, const char **name,
                     const struct moe_layout **layout, const float **state);

/* y [experts of the level][rows x width]: each expert run on all rows, whatever its gates say. */
void moe_trace_outputs(const struct moe_model *m, const struct moe_examples *x, int level,
                       float *y);
/* p [rows x tasks] without an expert (mute.h). */
void moe_trace_without(const struct moe_model *m, const struct moe_examples *x, int level,
                       int expert, float *p);

/* One line of an explanation: an expert in a gate of the last level that feeds the task. */
struct moe_part {
    int gate, at; /* in the trace's gates; the expert's place there */
    double weight;
    double adds; /* weight * <d logit / d module, output>; NaN under MERGE and SLOTS */
};
struct moe_explained {
    double logit;
    double rest; /* logit - sum of adds: biases and the wide part; with an activation that is
                  * not piecewise linear, curvature too */
    int n;       /* parts */
    struct moe_part *parts; /* heap; the caller frees */
};
/* Row `row` of x, for a task. */
void moe_trace_explain(const struct moe_model *m, const struct moe_examples *x, int row, int task,
                       struct moe_explained *out);
/* The logit of a row and task without an expert. */
double moe_trace_logit(const struct moe_model *m, const struct moe_examples *x, int row, int task,
                       int level, int expert);
