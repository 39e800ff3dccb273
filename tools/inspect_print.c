/* inspect_print.c: figures of experts as text and JSON. JSON has all pairs; text, which is read by
 * people, the ones that say something. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/heap.h"
#include "tools/gate_states.h"
#include "tools/inspect.h"

enum { TEXT_PAIRS = 12, TEXT_SEGMENTS = 8 };

static void print_gates(const struct inspect_figures *f, struct report *r) {
    report_table(r, "gates",
                 (const char *const[]){"gate", "kind", "experts", "cv", "maxvio", "minvio",
                                       "effective", "gini", "dead", "entropy", "top", "margin",
                                       "active", "p95", "zero_rows", NULL});
    for (int i = 0; i < f->trace->n_gates; i++) {
        const struct inspect_gate *x = &f->gates[i];
        report_cstr(r, NULL, x->g->name);
        report_cstr(r, NULL, x->g->kind);
        report_int(r, NULL, x->g->n);
        report_num(r, NULL, x->load.cv, 3);
        report_num(r, NULL, x->load.maxvio, 3);
        report_num(r, NULL, x->load.minvio, 3);
        report_num(r, NULL, x->load.effective, 2);
        report_num(r, NULL, x->load.gini, 3);
        report_int(r, NULL, x->load.dead);
        report_num(r, NULL, x->rows.entropy, 3);
        report_num(r, NULL, x->rows.top, 3);
        report_num(r, NULL, x->rows.margin, 3);
        report_num(r, NULL, x->rows.active, 2);
        report_int(r, NULL, x->rows.active_p95);
        report_num(r, NULL, x->rows.zero_rows, 4);
    }
    report_table_end(r);
}

static void print_load(const struct inspect_figures *f, struct report *r) {
    report_table(r, "load",
                 (const char *const[]){"gate", "expert", "weight", "rows", "first", NULL});
    for (int i = 0; i < f->trace->n_gates; i++)
        for (int e = 0; e < f->gates[i].g->n; e++) {
            report_cstr(r, NULL, f->gates[i].g->name);
            report_cstr(r, NULL, f->gates[i].names[e]);
            report_num(r, NULL, f->gates[i].mass[e], 4);
            report_num(r, NULL, f->gates[i].chosen[e], 4);
            report_num(r, NULL, f->gates[i].first[e], 4);
        }
    report_table_end(r);
}

static void print_moves(const struct inspect_figures *f, struct report *r) {
    if (!f->against)
        return;
    report_cstr(r, "against", f->against);
    report_table(r, "moves",
                 (const char *const[]){"gate", "saturation", "flip_rate", "flips_a_row",
                                       "first_change", NULL});
    for (int i = 0; i < f->trace->n_gates; i++) {
        report_cstr(r, NULL, f->gates[i].g->name);
        report_num(r, NULL, f->gates[i].moves.saturation, 4);
        report_num(r, NULL, f->gates[i].moves.flip_rate, 4);
        report_num(r, NULL, f->gates[i].moves.flips_a_row, 3);
        report_num(r, NULL, f->gates[i].moves.first_change, 4);
    }
    report_table_end(r);
}

/* ---- pairs ------------------------------------------------------------------------------------
 */

struct pair {
    int where, i, k;
    double value;
};
static int greatest_first(const void *a, const void *b) {
    double x = ((const struct pair *)a)->value, y = ((const struct pair *)b)->value;
    return (x < y) - (x > y);
}

static void print_coactivation(const struct inspect_figures *f, struct report *r) {
    int n = 0, most = 0;
    for (int i = 0; i < f->trace->n_gates; i++)
        most += f->gates[i].g->n * f->gates[i].g->n;
    struct pair *all = HEAP_ARRAY(struct pair, most + 1);
    for (int i = 0; i < f->trace->n_gates; i++)
        for (int e = 0, m = f->gates[i].g->n; e < m * m; e++)
            if (e / m != e % m && !isnan(f->gates[i].coactive[e]))
                all[n++] = (struct pair){i, e / m, e % m, f->gates[i].coactive[e]};
    qsort(all, (size_t)n, sizeof *all, greatest_first);
    report_table(r, "coactivation", (const char *const[]){"gate", "expert", "with", "share", NULL});
    for (int p = 0; p < n && (r->as_json || p < TEXT_PAIRS); p++) {
        const struct inspect_gate *x = &f->gates[all[p].where];
        report_cstr(r, NULL, x->g->name);
        report_cstr(r, NULL, x->names[all[p].i]);
        report_cstr(r, NULL, x->names[all[p].k]);
        report_num(r, NULL, all[p].value, 4);
    }
    report_table_end(r);
    heap_free(all);
}

static void print_similarity(const struct inspect_figures *f, struct report *r) {
    int n = 0, most = 0;
    for (int l = 0; l < f->n_levels; l++)
        most += f->levels[l].n * f->levels[l].n;
    struct pair *all = HEAP_ARRAY(struct pair, most + 1);
    for (int l = 0; l < f->n_levels; l++)
        for (int i = 0; i < f->levels[l].n; i++)
            for (int k = 0; k < i; k++)
                all[n++] = (struct pair){l, i, k, f->levels[l].cka[i * f->levels[l].n + k]};
    for (int p = 0; p < n; p++)
        all[p].value = isnan(all[p].value) ? -1 : all[p].value;
    qsort(all, (size_t)n, sizeof *all, greatest_first);
    report_table(r, "similarity",
                 (const char *const[]){"level", "expert", "other", "cka", "output_cosine",
                                       "weight_cosine", NULL});
    for (int p = 0; p < n && (r->as_json || p < TEXT_PAIRS); p++) {
        const struct inspect_level *x = &f->levels[all[p].where];
        int at = all[p].i * x->n + all[p].k;
        report_int(r, NULL, all[p].where);
        report_cstr(r, NULL, x->names[all[p].i]);
        report_cstr(r, NULL, x->names[all[p].k]);
        report_num(r, NULL, x->cka[at], 4);
        report_num(r, NULL, x->cosine[at], 4);
        report_num(r, NULL, x->weights[at], 4);
    }
    report_table_end(r);
    heap_free(all);
}

/* ---- segments ---------------------------------------------------------------------------------
 */

static void print_information(const struct inspect_figures *f, struct report *r) {
    struct pair *all = HEAP_ARRAY(struct pair, f->n_variables + 1);
    report_table(r, "follows", (const char *const[]){"gate", "segment", "bits", "share", NULL});
    for (int i = 0; i < f->trace->n_gates; i++) {
        const struct inspect_gate *x = &f->gates[i];
        for (int k = 0; k < f->n_variables; k++)
            all[k] = (struct pair){i, k, 0, isnan(x->bits[k]) ? -1 : x->bits[k]};
        qsort(all, (size_t)f->n_variables, sizeof *all, greatest_first);
        for (int k = 0; !x->g->fixed && k < f->n_variables && (r->as_json || k < TEXT_SEGMENTS);
             k++) {
            report_cstr(r, NULL, x->g->name);
            report_cstr(r, NULL, f->variables[all[k].i].name);
            report_num(r, NULL, x->bits[all[k].i], 4);
            report_num(r, NULL, x->share[all[k].i], 4);
        }
    }
    report_table_end(r);
    heap_free(all);
}

static void print_segments(const struct inspect_figures *f, struct report *r) {
    report_table(
        r, "segments",
        (const char *const[]){"gate", "segment", "value", "rows", "expert", "weight", NULL});
    for (int i = 0; i < f->trace->n_gates; i++)
        for (int k = 0; !f->gates[i].g->fixed && k < f->n_shown; k++) {
            const struct inspect_variable *v = &f->variables[f->shown[k]];
            int n = f->gates[i].g->n;
            double *map = HEAP_ARRAY(double, v->n *n);
            inspect_map(f, i, f->shown[k], map);
            for (int s = 0; s < v->n * n; s++) {
                if (v->rows[s / n] == 0)
                    continue;
                report_cstr(r, NULL, f->gates[i].g->name);
                report_cstr(r, NULL, v->name);
                report_cstr(r, NULL, v->labels[s / n]);
                report_int(r, NULL, v->rows[s / n]);
                report_cstr(r, NULL, f->gates[i].names[s % n]);
                report_num(r, NULL, map[s], 4);
            }
            heap_free(map);
        }
    report_table_end(r);
}

/* ---- experts ----------------------------------------------------------------------------------
 */

static void print_health(const struct inspect_figures *f, struct report *r) {
    report_table(r, "experts",
                 (const char *const[]){"level", "expert", "zero_outputs", "mean", "sd",
                                       "largest_task", "its_share", "gradient", "collapsed",
                                       "degraded", "starved", NULL});
    for (int i = 0; i < f->n_experts; i++) {
        const struct inspect_expert *x = &f->experts[i];
        report_int(r, NULL, x->level);
        report_cstr(r, NULL, x->name);
        report_num(r, NULL, x->zero, 4);
        report_num(r, NULL, x->mean, 4);
        report_num(r, NULL, x->sd, 4);
        report_cstr(r, NULL, isnan(x->largest) ? "" : moe_model_task(f->m, x->largest_task));
        report_num(r, NULL, x->largest, 3);
        report_num(r, NULL, x->gradient, 5);
        report_bool(r, NULL, x->collapsed);
        report_bool(r, NULL, x->degraded);
        report_bool(r, NULL, x->starved);
    }
    report_table_end(r);
    report_table(r, "own_experts",
                 (const char *const[]){"gate", "weight", "gradient", "underfit", NULL});
    for (int i = 0; i < f->trace->n_gates; i++)
        if (!isnan(f->gates[i].own)) {
            report_cstr(r, NULL, f->gates[i].g->name);
            report_num(r, NULL, f->gates[i].own, 4);
            report_num(r, NULL, f->gates[i].own_gradient, 4);
            report_bool(r, NULL, f->gates[i].underfit);
        }
    report_table_end(r);
}

/* Whose loss moves which expert, and which tasks pull one apart. */
static void print_gradients(const struct inspect_figures *f, struct report *r) {
    const int T = f->grads->n_tasks;
    report_table(r, "gradients",
                 (const char *const[]){"level", "expert", "task", "norm", "share", NULL});
    for (int i = 0; i < f->n_experts; i++)
        for (int t = 0; t < T; t++) {
            const double *norm = f->grads->norm + i * T;
            report_int(r, NULL, f->experts[i].level);
            report_cstr(r, NULL, f->experts[i].name);
            report_cstr(r, NULL, moe_model_task(f->m, t));
            report_num(r, NULL, norm[t], 5);
            report_num(r, NULL, norm[t] * norm[t] / pow(f->experts[i].gradient, 2), 4);
        }
    report_table_end(r);
    report_table(r, "conflicts",
                 (const char *const[]){"level", "expert", "task", "other", "cosine", NULL});
    for (int i = 0; i < f->n_experts; i++)
        for (int t = 0; t < T; t++)
            for (int u = 0; u < t; u++) {
                const double cosine = f->grads->cosine[(i * T + t) * T + u];
                if (isnan(cosine))
                    continue;
                report_int(r, NULL, f->experts[i].level);
                report_cstr(r, NULL, f->experts[i].name);
                report_cstr(r, NULL, moe_model_task(f->m, u));
                report_cstr(r, NULL, moe_model_task(f->m, t));
                report_num(r, NULL, cosine, 4);
            }
    report_table_end(r);
}

static void print_losses(const struct inspect_figures *f, struct report *r) {
    report_table(
        r, "without",
        (const char *const[]){"level", "expert", "task", "auc", "change", "low", "high", NULL});
    for (int i = 0; i < f->n_experts; i++)
        for (int t = 0; t < moe_model_tasks(f->m); t++) {
            const struct moe_auc_change *c = &f->experts[i].lost[t];
            report_int(r, NULL, f->experts[i].level);
            report_cstr(r, NULL, f->experts[i].name);
            report_cstr(r, NULL, moe_model_task(f->m, t));
            report_num(r, NULL, c->auc + c->change, 5);
            report_num(r, NULL, c->change, 5);
            report_num(r, NULL, c->change - 1.96 * c->error, 5);
            report_num(r, NULL, c->change + 1.96 * c->error, 5);
        }
    report_table_end(r);
}

static void print_row(const struct inspect_figures *f, struct report *r) {
    if (!f->data->one)
        return;
    report_group(r, "prediction");
    report_table(r, "logits", (const char *const[]){"task", "logit", "rest", NULL});
    for (int t = 0; t < moe_model_tasks(f->m); t++) {
        report_cstr(r, NULL, moe_model_task(f->m, t));
        report_num(r, NULL, f->logit[t], 4);
        report_num(r, NULL, f->rest[t], 4);
    }
    report_table_end(r);
    report_table(
        r, "parts",
        (const char *const[]){"task", "gate", "expert", "weight", "adds", "without", NULL});
    for (int i = 0; i < f->n_parts; i++) {
        const struct inspect_part *p = &f->parts[i];
        report_cstr(r, NULL, moe_model_task(f->m, p->task));
        report_cstr(r, NULL, f->gates[p->gate].g->name);
        report_cstr(r, NULL, f->gates[p->gate].names[p->expert]);
        report_num(r, NULL, p->weight, 4);
        report_num(r, NULL, p->adds, 4);
        report_num(r, NULL, p->without, 4);
    }
    report_table_end(r);
    report_group_end(r);
}

void inspect_print(const struct inspect_figures *f, struct report *r) {
    report_cstr(r, "data", f->data->source);
    report_int(r, "data_rows", f->data->all_rows);
    report_int(r, "rows", f->trace->n_rows);
    report_table(r, "tasks", (const char *const[]){"task", "auc", NULL});
    for (int t = 0; t < moe_model_tasks(f->m); t++) {
        report_cstr(r, NULL, moe_model_task(f->m, t));
        report_num(r, NULL, f->auc[t], 5);
    }
    report_table_end(r);
    print_gates(f, r);
    print_load(f, r);
    gate_states_report_all(f->m, r);
    gate_states_report(f->m, r);
    print_moves(f, r);
    print_health(f, r);
    print_gradients(f, r);
    print_losses(f, r);
    print_coactivation(f, r);
    print_similarity(f, r);
    print_information(f, r);
    print_segments(f, r);
    print_row(f, r);
}
