/* inspect_html.c: the figures of experts drawn on one page. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/heap.h"
#include "tools/gate_states.h"
#include "tools/inspect.h"
#include "tools/page.h"

/* ---- what is wrong ----------------------------------------------------------------------------
 */

static void draw_alarms(const struct inspect_figures *f, struct page *p) {
    int n = 0;
    for (int i = 0; i < f->n_experts; i++) {
        const struct inspect_expert *x = &f->experts[i];
        if (x->collapsed)
            page_line(p, "alarm", "Collapsed: level %d, %s: %.0f%% of its outputs are zero.",
                      x->level, x->name, 100 * x->zero);
        if (x->degraded)
            page_line(p, "alarm",
                      "Degraded: level %d, %s: %.0f%% of the weight it gets comes from "
                      "%s.",
                      x->level, x->name, 100 * x->largest, moe_model_task(f->m, x->largest_task));
        if (x->starved)
            page_line(p, "alarm",
                      "Starved: level %d, %s: all tasks together move it less than %.0f%% of what "
                      "they move the level's middle expert.",
                      x->level, x->name, 100 * MOE_STARVED_BELOW);
        n += x->collapsed + x->degraded + x->starved;
    }
    for (int i = 0; i < f->trace->n_gates; i++) {
        const struct inspect_gate *x = &f->gates[i];
        if (x->underfit)
            page_line(p, "alarm",
                      "Underfitting: %s gives its own experts %.1f%% of its weight, and its loss "
                      "gives them %.1f%% of its gradient.",
                      x->g->name, 100 * x->own, 100 * x->own_gradient);
        if (x->load.dead)
            page_line(p, "alarm", "%s never uses %d of its %d experts.", x->g->name, x->load.dead,
                      x->g->n);
        if (x->rows.zero_rows > 0.01)
            page_line(p, "alarm", "%s gives %.1f%% of the rows to nobody.", x->g->name,
                      100 * x->rows.zero_rows);
        n += x->underfit + (x->load.dead > 0) + (x->rows.zero_rows > 0.01);
    }
    if (n == 0)
        page_line(p, "good",
                  "No alarm: no expert collapsed, degraded, starved, unused or ignored by the "
                  "task it belongs to.");
}

/* ---- gates ------------------------------------------------------------------------------------
 */

/* Gates of one level x experts of the level; NaN where a gate may not use the expert. */
static void draw_gate_map(const struct inspect_figures *f, int level, struct page *p) {
    const struct inspect_level *l = &f->levels[level];
    const char **names = HEAP_ARRAY(const char *, f->trace->n_gates + 1);
    double *v = HEAP_ARRAY(double, f->trace->n_gates * l->n + 1);
    int rows = 0;
    char title[64];
    for (int i = 0; i < f->trace->n_gates; i++) {
        const struct inspect_gate *x = &f->gates[i];
        if (x->g->level != level)
            continue;
        for (int e = 0; e < l->n; e++)
            v[rows * l->n + e] = (double)NAN;
        for (int e = 0; e < x->g->n; e++)
            v[rows * l->n + x->g->experts[e]] = x->mass[e];
        names[rows++] = x->g->name;
    }
    snprintf(title, sizeof title, "Level %d", level);
    struct page_heat h = {.title = title,
                          .rows = rows,
                          .cols = l->n,
                          .row_names = names,
                          .col_names = l->names,
                          .v = v,
                          .percent = true};
    page_heat(p, &h);
    heap_free(names);
    heap_free(v);
}

static void draw_balance(const struct inspect_figures *f, struct page *p) {
    page_table_begin(p, (const char *const[]){"gate", "kind", "experts", "CV", "MaxVio",
                                              "effective", "Gini", "dead", "entropy", "top weight",
                                              "margin", "active", "p95", "rows without", NULL});
    for (int i = 0; i < f->trace->n_gates; i++) {
        const struct inspect_gate *x = &f->gates[i];
        page_cell_text(p, x->g->name);
        page_cell_text(p, x->g->kind);
        page_cell_num(p, x->g->n, 0);
        page_cell_num(p, x->load.cv, 3);
        page_cell_num(p, x->load.maxvio, 3);
        page_cell_num(p, x->load.effective, 2);
        page_cell_num(p, x->load.gini, 3);
        page_cell_num(p, x->load.dead, 0);
        page_cell_num(p, x->rows.entropy, 3);
        page_cell_num(p, x->rows.top, 3);
        page_cell_num(p, x->rows.margin, 3);
        page_cell_num(p, x->rows.active, 2);
        page_cell_num(p, x->rows.active_p95, 0);
        page_cell_num(p, x->rows.zero_rows, 4);
        page_row_end(p);
    }
    page_table_end(p);
    buf_add_str(&p->out, "<div class=\"row\">");
    for (int i = 0; i < f->trace->n_gates; i++) {
        const struct inspect_gate *x = &f->gates[i];
        struct page_bars bars = {.title = x->g->name,
                                 .n = x->g->n,
                                 .names = x->names,
                                 .v = x->g->sparse ? x->chosen : x->mass,
                                 .mark = x->g->sparse ? x->rows.active / x->g->n : 1.0 / x->g->n,
                                 .percent = true,
                                 .digits = 1};
        if (!x->g->fixed)
            page_bars(p, &bars);
    }
    buf_add_str(&p->out, "</div>\n");
}

/* How a ReLU gate's controller came where it is. */
static void draw_controllers(const struct inspect_figures *f, struct page *p) {
    bool first = true;
    for (int g = 0; g < f->trace->n_gates; g++) {
        const float *points;
        double step[64], lambda[64], sparsity[64];
        char title[128];
        int n = gate_states_trace(f->m, g, &points);
        n = n < 64 ? n : 64;
        for (int i = 0; i < n; i++) {
            step[i] = (double)points[4 * i];
            lambda[i] = log10((double)points[4 * i + 1]);
            sparsity[i] = (double)points[4 * i + 2];
        }
        if (n == 0)
            continue;
        if (first)
            page_section(p, "Controllers of ReLU gates",
                         "Weight of the penalty and share of zero weights, by step of training.");
        first = false;
        buf_add_str(&p->out, "<div class=\"row\">");
        snprintf(title, sizeof title, "%s: log10 of lambda", f->gates[g].g->name);
        page_curve(p, &(struct page_curve){title, n, step, lambda, (double)NAN, 2});
        snprintf(title, sizeof title, "%s: sparsity", f->gates[g].g->name);
        page_curve(p, &(struct page_curve){title, n, step, sparsity, (double)NAN, 3});
        buf_add_str(&p->out, "</div>\n");
    }
}

static void draw_moves(const struct inspect_figures *f, struct page *p) {
    if (!f->against)
        return;
    page_section(
        p, "Against another checkpoint",
        "Saturation: how much of the choices of this model the other one had made already. "
        "Flip rate: share of (row, expert) that changed.");
    page_line(p, "", "The other model's version is %s.", f->against);
    page_table_begin(p, (const char *const[]){"gate", "saturation", "flip rate", "flips a row",
                                              "first choice changed", NULL});
    for (int i = 0; i < f->trace->n_gates; i++) {
        page_cell_text(p, f->gates[i].g->name);
        page_cell_num(p, f->gates[i].moves.saturation, 4);
        page_cell_num(p, f->gates[i].moves.flip_rate, 4);
        page_cell_num(p, f->gates[i].moves.flips_a_row, 3);
        page_cell_num(p, f->gates[i].moves.first_change, 4);
        page_row_end(p);
    }
    page_table_end(p);
}

static void draw_coactivation(const struct inspect_figures *f, struct page *p) {
    page_section(
        p, "Co-activation",
        "Of the rows on which the expert of the line is active, the share on which that of "
        "the column is too. Experts always seen together are candidates for merging.");
    buf_add_str(&p->out, "<div class=\"row\">");
    for (int i = 0; i < f->trace->n_gates; i++) {
        const struct inspect_gate *x = &f->gates[i];
        struct page_heat h = {.title = x->g->name,
                              .rows = x->g->n,
                              .cols = x->g->n,
                              .row_names = x->names,
                              .col_names = x->names,
                              .v = x->coactive,
                              .most = 1,
                              .percent = true};
        if (x->g->n > 1)
            page_heat(p, &h);
    }
    buf_add_str(&p->out, "</div>\n");
}

/* ---- experts ----------------------------------------------------------------------------------
 */

static void draw_losses(const struct inspect_figures *f, struct page *p) {
    int T = moe_model_tasks(f->m), n = f->n_experts;
    double *v = HEAP_ARRAY(double, T *n + 1);
    const char **rows = HEAP_ARRAY(const char *, n + 1), **tasks = HEAP_ARRAY(const char *, T + 1);
    const char **tips = HEAP_ARRAY(const char *, T *n + 1);
    bool *weak = HEAP_ARRAY(bool, T *n + 1);
    struct arena a;
    arena_init(&a, 0);
    for (int t = 0; t < T; t++)
        tasks[t] = moe_model_task(f->m, t);
    for (int i = 0; i < n; i++) {
        rows[i] = f->n_levels == 1
                      ? f->experts[i].name
                      : arena_printf(&a, "%d: %s", f->experts[i].level, f->experts[i].name);
        for (int t = 0; t < T; t++) {
            const struct moe_auc_change *c = &f->experts[i].lost[t];
            v[i * T + t] = 1e4 * c->change;
            weak[i * T + t] = fabs(c->change) <= 1.96 * c->error;
            tips[i * T + t] = arena_printf(
                &a, "AUC %.5f, change %+.5f, 95%% interval %+.5f to %+.5f", c->auc + c->change,
                c->change, c->change - 1.96 * c->error, c->change + 1.96 * c->error);
        }
    }
    struct page_heat h = {.title = "Change of AUC, in 1/10,000",
                          .rows = n,
                          .cols = T,
                          .row_names = rows,
                          .col_names = tasks,
                          .v = v,
                          .two_sided = true,
                          .digits = 1,
                          .tips = tips,
                          .weak = weak};
    page_section(p, "Without an expert",
                 "How much a task's AUC changes when one expert is left out and the others share "
                 "its weight. Below zero: it was worth something. Without colour where the 95% "
                 "interval (paired, rows taken as independent; hover for it) holds zero.");
    page_heat(p, &h);
    arena_deinit(&a);
    heap_free(v);
    heap_free(weak);
    heap_free(rows);
    heap_free(tasks);
    heap_free(tips);
}

/* Tasks x experts, and by pair of tasks the cosine of their gradients at each expert. */
static void draw_gradients(const struct inspect_figures *f, struct page *p) {
    const int T = f->grads->n_tasks, n = f->n_experts;
    double *share = HEAP_ARRAY(double, n *T + 1);
    const char **names = HEAP_ARRAY(const char *, n + 1), **tasks = HEAP_ARRAY(const char *, T + 1);
    for (int t = 0; t < T; t++)
        tasks[t] = moe_model_task(f->m, t);
    for (int i = 0; i < n; i++) {
        names[i] = f->experts[i].name;
        for (int t = 0; t < T; t++)
            share[t * n + i] = pow(f->grads->norm[i * T + t] / f->experts[i].gradient, 2);
    }
    page_section(p, "Gradients",
                 "Whose loss moves which expert: each task's share of the squared gradient, on a "
                 "probe of rows. Below, by expert and pair of tasks, the cosine of their "
                 "gradients: under zero the tasks pull the expert apart.");
    page_heat(p, &(struct page_heat){.title = "Task and expert",
                                     .rows = T,
                                     .cols = n,
                                     .row_names = tasks,
                                     .col_names = names,
                                     .v = share,
                                     .percent = true});
    page_table_begin(
        p, (const char *const[]){"expert", "level", "gradient", "task", "other", "cosine", NULL});
    for (int i = 0; i < n; i++)
        for (int t = 0; t < T; t++)
            for (int u = 0; u < t; u++) {
                const double cosine = f->grads->cosine[(i * T + t) * T + u];
                if (isnan(cosine))
                    continue;
                page_cell_text(p, names[i]);
                page_cell_num(p, f->experts[i].level, 0);
                page_cell_num(p, f->experts[i].gradient, 5);
                page_cell_text(p, tasks[u]);
                page_cell_text(p, tasks[t]);
                page_cell_num(p, cosine, 3);
                page_row_end(p);
            }
    page_table_end(p);
    heap_free(share);
    heap_free(names);
    heap_free(tasks);
}

static void draw_experts(const struct inspect_figures *f, struct page *p) {
    page_section(
        p, "Experts",
        "Outputs that are zero (an alarm above 90%), their mean and spread, and which task "
        "has most of the weight the expert is given (an alarm above 90%).");
    page_table_begin(p, (const char *const[]){"expert", "level", "zero outputs", "mean", "sd",
                                              "its share", "largest task", NULL});
    for (int i = 0; i < f->n_experts; i++) {
        const struct inspect_expert *x = &f->experts[i];
        page_cell_text(p, x->name);
        page_cell_num(p, x->level, 0);
        page_cell_num(p, x->zero, 3);
        page_cell_num(p, x->mean, 3);
        page_cell_num(p, x->sd, 3);
        page_cell_num(p, x->largest, 3);
        page_cell_text(p, isnan(x->largest) ? "" : moe_model_task(f->m, x->largest_task));
        page_row_end(p);
    }
    page_table_end(p);
    page_section(p, "Similarity of experts",
                 "Linear CKA of their outputs on the same rows: 1 is equal up to a rotation and a "
                 "scale. A mixture of equal experts is one expert.");
    buf_add_str(&p->out, "<div class=\"row\">");
    for (int l = 0; l < f->n_levels; l++) {
        const struct inspect_level *x = &f->levels[l];
        char title[64];
        snprintf(title, sizeof title, "Level %d", l);
        struct page_heat h = {.title = title,
                              .rows = x->n,
                              .cols = x->n,
                              .row_names = x->names,
                              .col_names = x->names,
                              .v = x->cka,
                              .most = 1,
                              .digits = 2};
        if (x->n > 1)
            page_heat(p, &h);
    }
    buf_add_str(&p->out, "</div>\n");
}

static void draw_segment(const struct inspect_figures *f, int gate, int shown, struct page *p) {
    const struct inspect_gate *x = &f->gates[gate];
    const struct inspect_variable *v = &f->variables[f->shown[shown]];
    const char *labels[INSPECT_VALUES_MAX];
    double *map = HEAP_ARRAY(double, v->n * x->g->n);
    char title[160];
    int rows = 0;
    inspect_map(f, gate, f->shown[shown], map);
    for (int s = 0; s < v->n; s++)
        if (v->rows[s]) {
            memmove(map + rows * x->g->n, map + s * x->g->n, (size_t)x->g->n * sizeof *map);
            labels[rows++] = v->labels[s];
        }
    snprintf(title, sizeof title, "%s by %s: %.4f bits, %.2f%%", x->g->name, v->name,
             x->bits[f->shown[shown]], 100 * x->share[f->shown[shown]]);
    struct page_heat h = {.title = title,
                          .rows = rows,
                          .cols = x->g->n,
                          .row_names = labels,
                          .col_names = x->names,
                          .v = map,
                          .percent = true,
                          .digits = 0};
    if (!x->g->fixed)
        page_heat(p, &h);
    heap_free(map);
}

static void draw_segments(const struct inspect_figures *f, struct page *p) {
    page_section(
        p, "Specialisation",
        "What a gate does on segments of the rows: shares of its weight, a line a segment. "
        "Bits: mutual information of segment and expert, and its share of the segments' "
        "entropy; 0 means that the gate does not care.");
    for (int k = 0; k < f->n_shown; k++) {
        buf_add_str(&p->out, "<div class=\"row\">");
        for (int i = 0; i < f->trace->n_gates; i++)
            draw_segment(f, i, k, p);
        buf_add_str(&p->out, "</div>\n");
    }
}

/* ---- one prediction ---------------------------------------------------------------------------
 */

static void draw_row(const struct inspect_figures *f, struct page *p) {
    if (!f->data->one)
        return;
    page_section(
        p, "One prediction",
        "What each expert of the last level adds to the logit: its weight times what the "
        "tower makes of its output. The rest is biases and the wide part, and with a curved "
        "activation in the tower, curvature.");
    buf_add_str(&p->out, "<div class=\"row\">");
    for (int t = 0; t < moe_model_tasks(f->m); t++) {
        struct arena a;
        arena_init(&a, 0);
        const char **names = ARENA_ARRAY(&a, const char *, f->n_parts + 1);
        double *v = ARENA_ARRAY(&a, double, f->n_parts + 1);
        char title[128];
        int n = 0;
        for (int i = 0; i < f->n_parts; i++)
            if (f->parts[i].task == t && !isnan(f->parts[i].adds)) {
                names[n] = arena_printf(&a, "%s (weight %.2f)",
                                        f->gates[f->parts[i].gate].names[f->parts[i].expert],
                                        f->parts[i].weight);
                v[n++] = f->parts[i].adds;
            }
        names[n] = "rest";
        v[n++] = f->rest[t];
        snprintf(title, sizeof title, "%s: logit %.3f, %.2f%% before calibration maps",
                 moe_model_task(f->m, t), f->logit[t], 100 / (1 + exp(-f->logit[t])));
        struct page_bars bars = {
            .title = title, .n = n, .names = names, .v = v, .mark = (double)NAN, .digits = 3};
        page_bars(p, &bars);
        arena_deinit(&a);
    }
    buf_add_str(&p->out, "</div>\n");
}

enum status inspect_html(const struct inspect_figures *f, const char *path) {
    struct page p;
    page_begin(&p, "What the experts do");
    page_line(&p, "", "Model %s on %d of %lld rows of %s.", moe_model_version(f->m),
              f->trace->n_rows, (long long)f->data->all_rows, f->data->source);
    for (int t = 0; t < moe_model_tasks(f->m); t++)
        page_line(&p, "", "%s: AUC %.5f", moe_model_task(f->m, t), f->auc[t]);
    draw_alarms(f, &p);
    page_section(&p, "Gate map", "Share of each gate's weight that each expert gets.");
    for (int l = 0; l < f->n_levels; l++)
        draw_gate_map(f, l, &p);
    page_section(
        &p, "Balance",
        "Loads of a sparse gate are choices, of a dense one weight; the dashed line is an "
        "even load. MaxVio: the greatest load over the mean, minus 1. Effective: as many "
        "experts as would be, used evenly. Entropy (nats), top weight and margin are means "
        "over rows; active: experts on a row.");
    draw_balance(f, &p);
    draw_controllers(f, &p);
    draw_moves(f, &p);
    draw_losses(f, &p);
    draw_row(f, &p);
    draw_segments(f, &p);
    draw_gradients(f, &p);
    draw_experts(f, &p);
    draw_coactivation(f, &p);
    return page_write(&p, path);
}
