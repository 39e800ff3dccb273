/* inspect_measure.c: the trace of a model on data -> figures. Every formula stands in
 * moe/report/usage.c; here is what they are given. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/heap.h"
#include "moe/report/eval.h"
#include "tools/inspect.h"

/* Outputs of experts are compared on so many rows; the cost grows with the square of width and
 * experts. */
enum { OUTPUT_ROWS = 2000 };
#define SIMILAR_FLOP 2e10

/* ---- gates ------------------------------------------------------------------------------------
 */

static void measure_gate(const struct inspect_figures *f, struct inspect_gate *x, struct arena *a) {
    const struct moe_trace_gate *g = x->g;
    int rows = f->trace->n_rows, n = g->n;
    uint8_t *active = HEAP_ARRAY(uint8_t, (size_t)rows * (size_t)n + 1);
    x->names = ARENA_ARRAY(a, const char *, n);
    x->mass = ARENA_ARRAY(a, double, n);
    x->chosen = ARENA_ARRAY(a, double, n);
    x->first = ARENA_ARRAY(a, double, n);
    x->coactive = ARENA_ARRAY(a, double, n *n);
    for (int e = 0; e < n; e++)
        x->names[e] = moe_trace_expert_name(f->m, g->level, g->experts[e]);
    moe_usage_active(rows, n, g->w, g->sparse, active);
    moe_usage_shares(rows, n, g->w, active, x->mass, x->chosen, x->first);
    moe_usage_coactive(rows, n, active, x->coactive);
    x->load = moe_load_describe(n, g->sparse ? x->chosen : x->mass);
    x->rows = moe_usage_decision(rows, n, g->w, active);
    x->own = (double)NAN;
    if (g->task >= 0 && g->n_own > 0 && g->n_own < n) {
        x->own = 0;
        for (int e = n - g->n_own; e < n; e++)
            x->own += x->mass[e];
        x->underfit = x->own < MOE_UNDERFIT_BELOW;
    }
    heap_free(active);
}

/* The same gates of another model, on the same rows. */
static enum status measure_moves(struct inspect_figures *f, const struct moe_model *against) {
    struct moe_trace *t;
    TRY(moe_trace_check(against, moe_model_inputs(f->m), moe_model_tasks(f->m)));
    moe_trace_new(against, f->data->x, &t);
    bool alike = t->n_gates == f->trace->n_gates;
    for (int i = 0; alike && i < t->n_gates; i++)
        alike = t->gates[i].n == f->trace->gates[i].n;
    for (int i = 0; alike && i < t->n_gates; i++) {
        const struct moe_trace_gate *was = &t->gates[i], *is = &f->trace->gates[i];
        size_t all = (size_t)t->n_rows * (size_t)is->n;
        uint8_t *a = HEAP_ARRAY(uint8_t, all + 1), *b = HEAP_ARRAY(uint8_t, all + 1);
        moe_usage_active(t->n_rows, is->n, was->w, was->sparse, a);
        moe_usage_active(t->n_rows, is->n, is->w, is->sparse, b);
        f->gates[i].moves = moe_usage_moves(t->n_rows, is->n, was->w, a, is->w, b);
        heap_free(a);
        heap_free(b);
    }
    moe_trace_free(t);
    f->against = moe_model_version(against);
    return alike ? STATUS_OK
                 : fail(STATUS_FAILED_PRECONDITION, "--against: a model with other gates");
}

/* ---- segments ---------------------------------------------------------------------------------
 */

void inspect_map(const struct inspect_figures *f, int gate, int variable, double *out) {
    const struct inspect_variable *v = &f->variables[variable];
    const struct moe_trace_gate *g = f->gates[gate].g;
    memset(out, 0, (size_t)v->n * (size_t)g->n * sizeof *out);
    moe_usage_joint(f->trace->n_rows, g->n, g->w, v->segment, v->n, out);
    for (int s = 0; s < v->n; s++) {
        double sum = 0;
        for (int e = 0; e < g->n; e++)
            sum += out[s * g->n + e];
        for (int e = 0; e < g->n; e++)
            out[s * g->n + e] /= sum;
    }
}

static void measure_information(struct inspect_figures *f, struct arena *a) {
    for (int i = 0; i < f->trace->n_gates; i++) {
        struct inspect_gate *x = &f->gates[i];
        x->bits = ARENA_ARRAY(a, double, f->n_variables + 1);
        x->share = ARENA_ARRAY(a, double, f->n_variables + 1);
        for (int k = 0; k < f->n_variables; k++) {
            const struct inspect_variable *v = &f->variables[k];
            double *joint = HEAP_ARRAY(double, v->n * x->g->n);
            memset(joint, 0, (size_t)v->n * (size_t)x->g->n * sizeof *joint);
            moe_usage_joint(f->trace->n_rows, x->g->n, x->g->w, v->segment, v->n, joint);
            x->bits[k] = moe_usage_information(v->n, x->g->n, joint, &x->share[k]);
            heap_free(joint);
        }
    }
}

/* Those named; else the ones the gates follow most. */
static enum status choose_shown(struct inspect_figures *f, const struct inspect_options *o) {
    for (int i = 0; i < o->segments.n; i++) {
        int k = 0;
        while (k < f->n_variables && strcmp(f->variables[k].name, o->segments.v[i]) != 0)
            k++;
        if (k == f->n_variables)
            return fail(STATUS_INVALID_ARGUMENT, "--segment %s: the model reads no such input",
                        o->segments.v[i]);
        if (f->n_shown < INSPECT_SHOWN_MAX)
            f->shown[f->n_shown++] = k;
    }
    while (f->n_shown < INSPECT_SHOWN_MAX - 1 && !o->segments.n) {
        int best = -1;
        double most = 0;
        for (int k = 0; k < f->n_variables; k++) {
            double sum = 0;
            bool taken = false;
            for (int i = 0; i < f->trace->n_gates; i++)
                sum += isnan(f->gates[i].bits[k]) ? 0 : f->gates[i].bits[k];
            for (int i = 0; i < f->n_shown; i++)
                taken |= f->shown[i] == k;
            if (!taken && sum > most) {
                most = sum;
                best = k;
            }
        }
        if (best < 0)
            return STATUS_OK;
        f->shown[f->n_shown++] = best;
    }
    return STATUS_OK;
}

/* ---- experts ----------------------------------------------------------------------------------
 */

static struct moe_examples *some_rows(const struct moe_examples *x, int most) {
    struct moe_examples *out = moe_examples_new(&x->inputs, x->n_tasks);
    for (int g = 0; g < x->n_groups && out->n_rows < most; g++) {
        struct moe_batch b;
        int first = moe_examples_view(x, g, 1, &b);
        moe_examples_add(out, &b, x->labels + (size_t)first * (size_t)x->n_tasks, NULL, 0, 0);
    }
    return out;
}

static void measure_outputs(const float *y, int64_t n, struct inspect_expert *x) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)y[i];
        squares += (double)y[i] * (double)y[i];
    }
    x->zero = moe_zero_share(n, y);
    x->mean = sum / (double)n;
    x->sd = sqrt(fmax(0, squares / (double)n - x->mean * x->mean));
    x->collapsed = x->zero > MOE_COLLAPSE_FROM;
}

static void measure_similarity(const struct inspect_figures *f, int level, const float *y, int rows,
                               struct inspect_level *x, struct arena *a) {
    int n = x->n, width = moe_trace_width(f->m, level);
    double pairs = 0.5 * n * (n + 1);
    int few = (int)fmin(rows, fmax(64, SIMILAR_FLOP / (6 * pairs * width * width)));
    x->cka = ARENA_ARRAY(a, double, n *n);
    x->cosine = ARENA_ARRAY(a, double, n *n);
    x->weights = ARENA_ARRAY(a, double, n *n);
    for (int i = 0; i < n; i++)
        for (int k = 0; k <= i; k++) {
            const float *yi = y + (size_t)i * (size_t)rows * (size_t)width;
            const float *yk = y + (size_t)k * (size_t)rows * (size_t)width;
            int64_t ni, nk;
            const void *kind_i, *kind_k;
            const float *wi = moe_trace_expert_floats(f->m, level, i, &ni, &kind_i);
            const float *wk = moe_trace_expert_floats(f->m, level, k, &nk, &kind_k);
            bool alike = wi && wk && ni == nk && kind_i == kind_k;
            x->cka[i * n + k] = x->cka[k * n + i] = moe_cka(few, width, yi, yk);
            x->cosine[i * n + k] = x->cosine[k * n + i] = moe_mean_cosine(rows, width, yi, yk);
            x->weights[i * n + k] = x->weights[k * n + i] =
                alike ? moe_cosine(ni, wi, wk) : (double)NAN;
        }
}

/* The weight that each task's gates give to an expert of a level; how many tasks could. */
static int task_mass(const struct inspect_figures *f, int level, int expert, double *mass) {
    int able = 0;
    for (int t = 0; t < moe_model_tasks(f->m); t++) {
        bool can = false;
        mass[t] = 0;
        for (int i = 0; i < f->trace->n_gates; i++) {
            const struct moe_trace_gate *g = f->gates[i].g;
            for (int e = 0; g->level == level && g->task == t && e < g->n; e++)
                if (g->experts[e] == expert) {
                    mass[t] += f->gates[i].mass[e];
                    can = true;
                }
        }
        able += can;
    }
    return able;
}

static void measure_experts(struct inspect_figures *f, struct arena *a) {
    struct moe_examples *x = some_rows(f->data->x, OUTPUT_ROWS);
    int tasks = moe_model_tasks(f->m), at = 0;
    double *mass = HEAP_ARRAY(double, tasks);
    for (int l = 0; l < f->n_levels; l++) {
        struct inspect_level *level = &f->levels[l];
        size_t floats = (size_t)x->n_rows * (size_t)moe_trace_width(f->m, l);
        float *y = heap_alloc_aligned((floats * (size_t)level->n + 1) * sizeof *y);
        moe_trace_outputs(f->m, x, l, y);
        level->names = ARENA_ARRAY(a, const char *, level->n);
        for (int e = 0; e < level->n; e++) {
            struct inspect_expert *out = &f->experts[at++];
            *out = (struct inspect_expert){.level = l, .largest = (double)NAN};
            out->name = level->names[e] = moe_trace_expert_name(f->m, l, e);
            measure_outputs(y + (size_t)e * floats, (int64_t)floats, out);
            if (task_mass(f, l, e, mass) > 1)
                out->largest = moe_largest_share(tasks, mass, &out->largest_task);
            out->degraded = out->largest > MOE_DEGRADED_FROM;
        }
        measure_similarity(f, l, y, x->n_rows, level, a);
        heap_free(y);
    }
    heap_free(mass);
    moe_examples_free(x);
}

/* ---- gradients --------------------------------------------------------------------------------
 */

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Experts [from, from + n) of one level: who is moved far less than the middle one? */
static void find_starved(struct inspect_expert *x, int n) {
    double *sorted = HEAP_ARRAY(double, n + 1);
    int known = 0;
    for (int e = 0; e < n; e++)
        if (!isnan(x[e].gradient))
            sorted[known++] = x[e].gradient;
    qsort(sorted, (size_t)known, sizeof *sorted, ascending);
    for (int e = 0; e < n && known > 1; e++)
        x[e].starved = x[e].gradient < MOE_STARVED_BELOW * sorted[known / 2];
    heap_free(sorted);
}

/* Of the norms of a task's gradient by the experts of its gate, the share of its own. */
static double own_gradient(const struct inspect_figures *f, const struct moe_trace_gate *g) {
    double own = 0, all = 0;
    int first = 0;
    for (int l = 0; l < g->level; l++)
        first += f->levels[l].n;
    for (int e = 0; e < g->n; e++) {
        const double norm = f->grads->norm[(first + g->experts[e]) * f->grads->n_tasks + g->task];
        all += norm;
        own += e >= g->n - g->n_own ? norm : 0;
    }
    return all > 0 ? own / all : (double)NAN;
}

static void measure_gradients(struct inspect_figures *f) {
    struct moe_examples *x = some_rows(f->data->x, OUTPUT_ROWS);
    const int T = x->n_tasks;
    moe_task_grads_new(f->m, x, &f->grads);
    moe_examples_free(x);
    for (int i = 0; i < f->n_experts; i++) {
        double squares = 0;
        for (int t = 0; t < T; t++)
            squares += f->grads->norm[i * T + t] * f->grads->norm[i * T + t];
        f->experts[i].gradient = sqrt(squares);
    }
    for (int l = 0, at = 0; l < f->n_levels; at += f->levels[l++].n)
        find_starved(f->experts + at, f->levels[l].n);
    for (int i = 0; i < f->trace->n_gates; i++) {
        struct inspect_gate *g = &f->gates[i];
        g->own_gradient = isnan(g->own) ? (double)NAN : own_gradient(f, g->g);
        g->underfit |= g->own_gradient < MOE_UNDERFIT_BELOW;
    }
}

static void column(const float *all, int rows, int tasks, int task, float *out) {
    for (int r = 0; r < rows; r++)
        out[r] = all[(size_t)r * (size_t)tasks + (size_t)task];
}

static void measure_losses(struct inspect_figures *f, struct arena *a) {
    const struct moe_examples *x = f->data->x;
    int rows = x->n_rows, T = x->n_tasks;
    float *p = HEAP_ARRAY(float, (size_t)rows *(size_t)T + 1);
    float *was = HEAP_ARRAY(float, rows), *is = HEAP_ARRAY(float, rows);
    float *y = HEAP_ARRAY(float, rows);
    f->auc = ARENA_ARRAY(a, double, T);
    for (int i = 0, level = 0, e = 0; i < f->n_experts; i++, e++) {
        if (f->experts[i].level != level) {
            level = f->experts[i].level;
            e = 0;
        }
        f->experts[i].lost = ARENA_ARRAY(a, struct moe_auc_change, T);
        moe_trace_without(f->m, x, level, e, p);
        for (int t = 0; t < T; t++) {
            column(x->labels, rows, T, t, y);
            column(f->trace->p, rows, T, t, was);
            column(p, rows, T, t, is);
            f->experts[i].lost[t] = moe_auc_compare(was, is, y, rows);
            f->auc[t] = f->experts[i].lost[t].auc;
        }
    }
    heap_free(p);
    heap_free(was);
    heap_free(is);
    heap_free(y);
}

/* ---- one prediction ---------------------------------------------------------------------------
 */

static void measure_row(struct inspect_figures *f, struct arena *a) {
    const struct moe_examples *one = f->data->one;
    int T = moe_model_tasks(f->m), most = 0;
    for (int i = 0; i < f->trace->n_gates; i++)
        most += f->gates[i].g->n;
    f->parts = ARENA_ARRAY(a, struct inspect_part, most * T);
    f->logit = ARENA_ARRAY(a, double, T);
    f->rest = ARENA_ARRAY(a, double, T);
    for (int t = 0; t < T; t++) {
        struct moe_explained e;
        moe_trace_explain(f->m, one, f->data->one_at, t, &e);
        f->logit[t] = e.logit;
        f->rest[t] = e.rest;
        for (int k = 0; k < e.n; k++) {
            const struct moe_trace_gate *g = f->gates[e.parts[k].gate].g;
            double without =
                moe_trace_logit(f->m, one, f->data->one_at, t, g->level, g->experts[e.parts[k].at]);
            f->parts[f->n_parts++] = (struct inspect_part){t,
                                                           e.parts[k].gate,
                                                           e.parts[k].at,
                                                           e.parts[k].weight,
                                                           e.parts[k].adds,
                                                           without - e.logit};
        }
        heap_free(e.parts);
    }
}

enum status inspect_measure(const struct moe_model *m, const struct moe_model *against,
                            const struct inspect_data *data, const struct inspect_options *o,
                            struct arena *a, struct inspect_figures *f) {
    *f = (struct inspect_figures){.m = m, .data = data, .n_levels = moe_trace_levels(m)};
    moe_trace_new(m, data->x, &f->trace);
    f->gates = ARENA_ARRAY(a, struct inspect_gate, f->trace->n_gates);
    f->levels = ARENA_ARRAY(a, struct inspect_level, f->n_levels);
    for (int i = 0; i < f->trace->n_gates; i++) {
        f->gates[i].g = &f->trace->gates[i];
        measure_gate(f, &f->gates[i], a);
    }
    for (int l = 0; l < f->n_levels; l++)
        f->n_experts += f->levels[l].n = moe_trace_experts(m, l);
    f->experts = ARENA_ARRAY(a, struct inspect_expert, f->n_experts);
    if (against)
        TRY(measure_moves(f, against));
    f->n_variables = inspect_variables(m, data, a, &f->variables);
    measure_information(f, a);
    TRY(choose_shown(f, o));
    measure_experts(f, a);
    measure_gradients(f);
    measure_losses(f, a);
    if (data->one)
        measure_row(f, a);
    return STATUS_OK;
}

void inspect_figures_free(struct inspect_figures *f) {
    moe_trace_free(f->trace);
    moe_task_grads_free(f->grads);
}
