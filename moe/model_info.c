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
    for (int i = 0; i < m->attend.n; i++)
        flop += 4.0 * m->attend.one[i].n_slots * m->attend.one[i].dim;
    for (int t = 0; t < m->n_tasks; t++)
        flop += moe_mlp_flop(&m->towers[t].mlp, 0);
    return flop * 1e-6;
}

static uint64_t hash_more(uint64_t h, const void *p, size_t bytes) {
    return hash_mix(h, hash_bytes((struct slice){p, bytes}, h));
}
static uint64_t hash_text(uint64_t h, const char *s) { return hash_more(h, s, strlen(s)); }

static uint64_t hash_inputs(uint64_t h, const struct moe_inputs *in) {
    for (int i = 0; i < in->query_columns; i++)
        h = hash_text(h, in->query_names[i]);
    for (int i = 0; i < in->cand_columns; i++)
        h = hash_text(h, in->cand_names[i]);
    for (int i = 0; i < in->n_ids; i++) {
        const struct moe_id_input *id = &in->ids[i];
        const int numbers[] = {id->in_query, id->slot, id->n_slots, id->table};
        h = hash_more(hash_text(h, id->name), numbers, sizeof numbers);
    }
    for (int i = 0; i < in->n_tables; i++) {
        const uint32_t numbers[] = {in->tables[i].rows, (uint32_t)in->tables[i].dim};
        h = hash_more(hash_text(h, in->tables[i].name), numbers, sizeof numbers);
    }
    return h;
}

/* Tensor by tensor: the gaps between them are nobody's. */
void moe_model_stamp(struct moe_model *m) {
    uint64_t h = hash_inputs(hash_text(1, m->spec_json), &m->inputs);
    for (int t = 0; t < m->n_tasks; t++)
        h = hash_mix(hash_text(h, m->tasks[t]), !moe_loss_is_probability(&m->task_loss[t]));
    for (int s = 0; s < MOE_SIDES; s++)
        h = hash_more(h, m->encode[s].column,
                      (size_t)m->encode[s].columns * sizeof *m->encode[s].column);
    for (int i = 0; i < m->params.n; i++)
        h = hash_more(h, moe_params_at(&m->params, m->params.v, i, 0),
                      (size_t)m->params.t[i].copies * m->params.t[i].stride * sizeof(float));
    snprintf(m->version, sizeof m->version, "%016llx", (unsigned long long)h);
}
