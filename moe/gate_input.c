/* gate_input.c: finds and reads raw inputs by name. */
#include "moe/gate_input.h"
#include <math.h>
#include <string.h>

static bool find_id(const struct moe_inputs *in, const char *name, struct moe_gate_input *out) {
    for (int i = 0; i < in->n_ids; i++) {
        const struct moe_id_input *id = &in->ids[i];
        if (*name && strcmp(id->name, name) != 0)
            continue;
        *out = (struct moe_gate_input){MOE_GATE_ID, id->in_query, id->slot, id->n_slots,
                                       id->in_query ? in->query_slots : in->cand_slots};
        return true;
    }
    return false;
}

static bool find_column(const char *const *names, int n, bool in_query, const char *name,
                        struct moe_gate_input *out) {
    for (int i = 0; i < n; i++)
        if (!*name || strcmp(names[i], name) == 0) {
            *out = (struct moe_gate_input){MOE_GATE_COLUMN, in_query, i, 1, n};
            return true;
        }
    return false;
}

enum status moe_gate_input_find(const struct moe_gate *g, const char *name, struct conf_place place,
                                struct moe_gate_input *out) {
    const struct moe_inputs *in = g->inputs;
    const char *known[258] = {0};
    int n = 0;
    if (in && (find_id(in, name, out) ||
               find_column(in->query_names, in->query_columns, true, name, out) ||
               find_column(in->cand_names, in->cand_columns, false, name, out)))
        return STATUS_OK;
    for (int i = 0; in && i < in->n_ids && n < 256; i++)
        known[n++] = in->ids[i].name;
    for (int i = 0; in && i < in->query_columns && n < 256; i++)
        known[n++] = in->query_names[i];
    for (int i = 0; in && i < in->cand_columns && n < 256; i++)
        known[n++] = in->cand_names[i];
    const char *near = conf_nearest(slice_of(name), known);
    return fail(STATUS_INVALID_ARGUMENT, "%s: %s.input: the model has no input '%s'%s%s%s",
                place.file, place.section, name, near ? "; did you mean '" : "", near ? near : "",
                near ? "'?" : "");
}

bool moe_gate_input_read(const struct moe_gate_input *in, const struct moe_rows *x,
                         const struct moe_batch *b, int row, double *value) {
    if (!b)
        return false;
    size_t at = (size_t)(in->in_query ? x->group[row] : row) * (size_t)in->width + (size_t)in->at;
    if (in->kind == MOE_GATE_COLUMN) {
        const float *columns = in->in_query ? b->query : b->cand;
        if (!columns || isnan(columns[at]))
            return false;
        *value = (double)columns[at];
        return true;
    }
    const uint32_t *ids = in->in_query ? b->query_ids : b->cand_ids;
    for (int i = 0; ids && i < in->n; i++)
        if (ids[at + (size_t)i]) {
            *value = ids[at + (size_t)i];
            return true;
        }
    return false;
}
