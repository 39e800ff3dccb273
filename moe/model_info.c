/* model_info.c: questions to a model: names, sizes, metadata, version. */
#include <stdio.h>
#include <string.h>
#include "base/hash.h"
#include "base/heap.h"
#include "moe/model_impl.h"

const char *moe_model_version(const struct moe_model *m) { return m->version; }
const struct moe_inputs *moe_model_inputs(const struct moe_model *m) { return &m->inputs; }
int moe_model_tasks(const struct moe_model *m) { return m->n_tasks; }
const char *moe_model_task(const struct moe_model *m, int task) { return m->tasks[task]; }
const char *moe_model_spec_json(const struct moe_model *m) { return m->spec_json; }
int moe_model_mixes_rows(const struct moe_model *m) { return m->mixes_rows; }
size_t moe_model_floats(const struct moe_model *m) { return moe_params_floats(&m->params); }

const char *moe_model_meta(const struct moe_model *m, const char *key) {
    for (const struct moe_meta *x = m->meta; x; x = x->next)
        if (strcmp(x->key, key) == 0)
            return x->value;
    return NULL;
}

void moe_model_meta_set(struct moe_model *m, const char *key, const char *value) {
    struct moe_meta **at = &m->meta;
    while (*at && strcmp((*at)->key, key) != 0)
        at = &(*at)->next;
    if (!*at) {
        *at = HEAP_NEW(struct moe_meta);
        (*at)->key = heap_strdup(key);
    }
    heap_free((char *)(*at)->value);
    (*at)->value = heap_strdup(value);
}

double moe_model_mflop_per_row(const struct moe_model *m) {
    double flop = 0;
    int dq = m->cross.n ? 0 : m->part[MOE_QUERY], d = m->part[MOE_QUERY] + m->part[MOE_CAND];
    flop += m->cross.n * 4.0 * m->cross.rank * d;
    if (m->wide_tensor >= 0)
        flop += 2.0 * (d - dq) * m->n_tasks;
    for (int i = 0; i < m->n_levels; i++) {
        const struct moe_level *l = &m->levels[i];
        for (int g = 0; g < l->n_groups; g++)
            flop += l->groups[g].n * l->groups[g].expert.ops->flop(&l->groups[g].expert);
        for (int g = 0; g < l->n_gates; g++)
            flop += l->gates[g].gate.n_experts *
                    (2.0 * (l->gates[g].gate.in - l->gates[g].gate.dq) + 2.0 * l->out);
    }
    for (int t = 0; t < m->n_tasks; t++)
        flop += moe_mlp_flop(&m->towers[t].mlp, 0);
    return flop * 1e-6;
}

void moe_model_stamp(struct moe_model *m) {
    uint64_t h = hash_bytes(slice_of(m->spec_json), 1);
    for (int s = 0; s < MOE_SIDES; s++)
        h = hash_mix(h, hash_bytes((struct slice){(const char *)m->encode[s].column,
                                                  (size_t)m->encode[s].columns *
                                                      sizeof *m->encode[s].column},
                                   2));
    h = hash_mix(h, hash_bytes((struct slice){(const char *)m->params.v,
                                              moe_params_floats(&m->params) * sizeof(float)},
                               3));
    for (int i = 0; i < m->inputs.query_columns; i++)
        h = hash_mix(h, hash_bytes(slice_of(m->inputs.query_names[i]), 4));
    for (int i = 0; i < m->inputs.cand_columns; i++)
        h = hash_mix(h, hash_bytes(slice_of(m->inputs.cand_names[i]), 5));
    snprintf(m->version, sizeof m->version, "%016llx", (unsigned long long)h);
}
