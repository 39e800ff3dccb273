/* gate_states.c: states of gates by the names of their fields; a gate that names its state as
 * others do is shown as they are. */
#include "tools/gate_states.h"
#include <string.h>
#include "moe/report/trace.h"

enum { POINT = 4, TEXT_POINTS = 8, TEXT_VALUES = 16 };

static const float *field(const struct moe_layout *l, const float *state, const char *name) {
    for (int i = 0; l && i < l->n; i++)
        if (strcmp(l->f[i].name, name) == 0)
            return state + l->f[i].at;
    return NULL;
}

int gate_states_trace(const struct moe_model *m, int gate, const float **points) {
    const struct moe_layout *l;
    const char *name;
    const float *state;
    if (!moe_trace_state(m, gate, &name, &l, &state))
        return 0;
    const float *n = field(l, state, "traced");
    *points = field(l, state, "trace");
    for (int i = 0; n && *points && i < l->n; i++) /* a file may say anything */
        if (*points == state + l->f[i].at && l->f[i].cols == POINT && *n >= 0 &&
            *n <= (float)l->f[i].rows)
            return (int)*n;
    return 0;
}

static void report_trace(const struct moe_model *m, struct report *r) {
    const struct moe_layout *l;
    const char *name;
    const float *state, *points;
    report_table(r, "relu_trace",
                 (const char *const[]){"gate", "step", "lambda", "sparsity", "zero_rows", NULL});
    for (int g = 0; moe_trace_state(m, g, &name, &l, &state); g++) {
        int n = gate_states_trace(m, g, &points), every = r->as_json ? 1 : 1 + n / TEXT_POINTS;
        for (int i = 0; i < n; i++) {
            if (i % every && i < n - 1)
                continue;
            report_cstr(r, NULL, name);
            report_int(r, NULL, (int64_t)points[i * POINT]);
            report_num(r, NULL, (double)points[i * POINT + 1], 8);
            report_num(r, NULL, (double)points[i * POINT + 2], 4);
            report_num(r, NULL, (double)points[i * POINT + 3], 4);
        }
    }
    report_table_end(r);
}

static void report_alarms(const struct moe_model *m, struct report *r) {
    const struct moe_layout *l;
    const char *name;
    const float *state;
    report_table(r, "gate_alarms",
                 (const char *const[]){"gate", "sparsity", "zero_rows", "lambda", NULL});
    for (int g = 0; moe_trace_state(m, g, &name, &l, &state); g++) {
        const float *alarm = field(l, state, "alarm");
        if (!alarm || *alarm == 0)
            continue;
        report_cstr(r, NULL, name);
        report_num(r, NULL, (double)*field(l, state, "sparsity"), 4);
        report_num(r, NULL, (double)*field(l, state, "zero_rows"), 4);
        report_num(r, NULL, (double)*field(l, state, "lambda"), 8);
    }
    report_table_end(r);
}

void gate_states_report(const struct moe_model *m, struct report *r) {
    const struct moe_layout *l;
    const char *name;
    const float *state;
    bool any = false;
    for (int g = 0; moe_trace_state(m, g, &name, &l, &state); g++)
        any |= field(l, state, "alarm") != NULL;
    if (!any)
        return;
    report_trace(m, r);
    report_alarms(m, r);
}

void gate_states_report_all(const struct moe_model *m, struct report *r) {
    const struct moe_layout *l;
    const char *name;
    const float *state;
    report_table(r, "gate_state", (const char *const[]){"gate", "state", "index", "value", NULL});
    for (int g = 0; moe_trace_state(m, g, &name, &l, &state); g++)
        for (int i = 0; l && i < l->n; i++) {
            int n = l->f[i].rows * l->f[i].cols;
            for (int k = 0; k < n && strcmp(l->f[i].name, "trace") != 0; k++) {
                if (k >= TEXT_VALUES && !r->as_json)
                    break;
                report_cstr(r, NULL, name);
                report_cstr(r, NULL, l->f[i].name);
                report_int(r, NULL, k);
                report_num(r, NULL, (double)state[l->f[i].at + (size_t)k], 6);
            }
        }
    report_table_end(r);
}
