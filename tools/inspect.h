/* inspect.h: what the experts of a model do on data: measured once (inspect_measure.c), then
 * printed (inspect_print.c) and drawn (inspect_html.c). Definitions: docs/inspect.md. Everything
 * lives in the arena given, but for the trace and the examples. */
#pragma once
#include "base/map.h"
#include "moe/report/grads.h"
#include "moe/report/trace.h"
#include "moe/report/usage.h"
#include "tools/options.h"
#include "tools/report.h"

struct inspect_options {
    struct option_config config;
    const char *data, *against, *html;
    struct conf_strings segments; /* names; none: the most telling ones */
    int64_t rows, row;            /* row: from 1; 0: no explanation */
};

/* ---- data (inspect_data.c) --------------------------------------------------------------------
 */

struct inspect_data {
    struct moe_examples *x;   /* rows looked at */
    struct moe_examples *one; /* the group of --row; NULL: none asked for */
    int one_at;               /* the row in it */
    int64_t all_rows;
    const char *source;
    struct map texts; /* slot << 32 | id -> const char * in the arena, of a table's categories */
};
/* Reads --data: a table by what the model file remembers of its own, else events by --config.
 * FAILED_PRECONDITION: data of other settings. */
enum status inspect_data_read(const struct moe_model *m, const char *path,
                              const struct inspect_options *o, const struct verb_call *call,
                              struct inspect_data *d);
void inspect_data_free(struct inspect_data *d);

/* ---- segments (inspect_segments.c) ------------------------------------------------------------
 */

enum { INSPECT_VALUES_MAX = 12, INSPECT_SHOWN_MAX = 4 };
struct inspect_variable {
    const char *name;
    int n;
    const char *labels[INSPECT_VALUES_MAX];
    int rows[INSPECT_VALUES_MAX];
    int *segment; /* [rows of the data] -1: none */
};
/* Labels of tasks, ids by their most frequent values, numbers by quarters. */
int inspect_variables(const struct moe_model *m, const struct inspect_data *d, struct arena *a,
                      struct inspect_variable **out);

/* ---- figures (inspect_measure.c) --------------------------------------------------------------
 */

struct inspect_gate {
    const struct moe_trace_gate *g;
    const char **names;                       /* [n] of its experts */
    double *mass, *chosen, *first, *coactive; /* [n], [n], [n], [n x n] */
    struct moe_load load;                     /* of choices if sparse, else of mass */
    struct moe_decision rows;
    struct moe_moves moves; /* with --against */
    double *bits, *share;   /* [variables] */
    double own;             /* weight of the task's own experts; NaN: none */
    double own_gradient;    /* share of the task's gradient by experts that is theirs; NaN: none */
    bool underfit;
};
struct inspect_expert {
    int level;
    const char *name;
    double zero, mean, sd; /* of its outputs */
    double largest;        /* share of the weight held by one task; NaN: not shared by tasks */
    int largest_task;
    double gradient; /* norm over all tasks; NaN: nothing to move */
    bool collapsed, degraded, starved;
    struct moe_auc_change *lost; /* [tasks] without it */
};
struct inspect_level {
    int n;
    const char **names;
    double *cka, *cosine, *weights; /* [n x n] NaN where there is nothing to compare */
};
struct inspect_part {
    int task, gate, expert;       /* gate and the expert's place in it */
    double weight, adds, without; /* without: change of the logit when it is left out */
};
struct inspect_figures {
    const struct moe_model *m;
    const struct inspect_data *data;
    const char *against; /* version; NULL: none */
    struct moe_trace *trace;
    struct inspect_gate *gates;   /* [trace->n_gates] */
    struct inspect_level *levels; /* [n_levels] */
    int n_levels;
    struct inspect_expert *experts; /* [n_experts] of all levels in order */
    int n_experts;
    struct moe_task_grads *grads; /* experts as below */
    struct inspect_variable *variables;
    int n_variables;
    int shown[INSPECT_SHOWN_MAX], n_shown; /* variables whose maps are shown */
    int row_task_parts;
    struct inspect_part *parts; /* [n_parts] of --row */
    int n_parts;
    double *logit, *rest; /* [tasks] of --row */
    double *auc;          /* [tasks] */
};
enum status inspect_measure(const struct moe_model *m, const struct moe_model *against,
                            const struct inspect_data *data, const struct inspect_options *o,
                            struct arena *a, struct inspect_figures *out);
void inspect_figures_free(struct inspect_figures *f);
/* joint [values x experts] of gate g and variable v, each row divided by its sum. */
void inspect_map(const struct inspect_figures *f, int gate, int variable, double *out);

/* ---- the two forms ----------------------------------------------------------------------------
 */

void inspect_print(const struct inspect_figures *f, struct report *r);
enum status inspect_html(const struct inspect_figures *f, const char *path);

/* The whole: `moerank inspect MODEL --data ...`. */
enum status inspect_experts(const struct moe_model *m, const char *path,
                            const struct inspect_options *o, const struct verb_call *call);
