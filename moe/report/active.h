/* active.h: what a row really costs: experts that a sparse gate leaves out are not run. */
#pragma once
#include "moe/data/examples.h"
#include "moe/model.h"

struct moe_active {
    double mflop; /* of a row, measured: experts that ran, gates, towers, the rest */
    double dense; /* the same if every expert ran: moe_model_mflop_per_row */
    double body;  /* of `mflop`, experts and gates only */
    int in, out;  /* columns a first layer multiplies per row; width of the last level */
};
/* By a forward pass over the first rows of the examples, at most a few thousand. */
void moe_active_measure(const struct moe_model *m, const struct moe_examples *x,
                        struct moe_active *out);
