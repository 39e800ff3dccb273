/* gate.c: the table of gate kinds, from gates.def. */
#include "moe/gate.h"
#include <string.h>

const struct moe_gate_ops *const moe_gates[] = {
#define GATE(name) &moe_gate_##name,
#include "moe/gates.def"
#undef GATE
    NULL};

const struct moe_gate_ops *moe_gate_find(const char *name) {
    for (int i = 0; moe_gates[i]; i++)
        if (strcmp(moe_gates[i]->name, name) == 0)
            return moe_gates[i];
    return NULL;
}
