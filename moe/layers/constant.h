/* constant.h: a gate that looks at nothing: learned weights, the same for every row. Layers use it
 * for residuals and fusions; as a gate of its own it would be no gate, so it is not in gates.def.
 */
#pragma once
#include "moe/layer.h"

extern const struct moe_gate_ops moe_layer_constant_gate;
/* Weights of n choices start at 1 / n; a single one is 1 and stays so. softmax: they sum to 1. */
struct moe_gate_choice moe_layer_constant(struct moe_build *b, bool softmax);
