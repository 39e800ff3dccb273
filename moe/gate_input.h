/* gate_input.h: a raw input that a gate routes by: an id or a plain column of the batch, as it
 * came, before encoding and embedding. */
#pragma once
#include "moe/gate.h"

enum moe_gate_input_kind { MOE_GATE_ID, MOE_GATE_COLUMN };
struct moe_gate_input {
    enum moe_gate_input_kind kind;
    bool in_query;
    int at, n; /* first column or slot, slots of an id input */
    int width; /* columns or slots of a row of that side */
};
/* The input `name` of g->inputs; "": its first id input, else its first column. INVALID_ARGUMENT
 * when there is none of that name. */
enum status moe_gate_input_find(const struct moe_gate *g, const char *name, struct conf_place place,
                                struct moe_gate_input *out);
/* The value of a row: an id (of several, the first that is not 0) or a number. False: missing (id
 * 0, NaN, no batch). */
bool moe_gate_input_read(const struct moe_gate_input *in, const struct moe_rows *x,
                         const struct moe_batch *b, int row, double *value);
