/* gate_states.h: what gates keep besides weights, told by the verbs that train and inspect. */
#pragma once
#include "moe/model.h"
#include "tools/report.h"

/* Two tables: relu_trace (gate, step, lambda, sparsity, zero_rows: how the controller came where it
 * is) and gate_alarms (gates with rows or a layer gone all zero, or lambda at its limit); neither
 * when no gate has such. */
void gate_states_report(const struct moe_model *m, struct report *r);
/* All other state: gate, state, index, value. */
void gate_states_report_all(const struct moe_model *m, struct report *r);
/* Points of gate i, [n x 4] as above without the gate; 0: none. */
int gate_states_trace(const struct moe_model *m, int gate, const float **points);
