/* scorer_packed_merge.c: gates that blend experts (route_merge.c: SMEAR, Lory). Once a request the
 * packed weights of a gate's experts are blended as they stand, element by element, since all have
 * one layout; the blend is one more expert of the level. The query part's product of its first
 * layer is the blend of theirs, which is the same by linearity. Under bf16 rounded weights are
 * blended and their sum is rounded again. There is no int8: a blend has no units of its own. */
#include <string.h>
#include "moe/math/blas.h"
#include "moe/layer.h"
#include "moe/score/scorer_packed_run.h"
#include "moe/math/vec.h"

void moe_packed_shape_merge(struct moe_packed *p, const struct moe_gate_use *u,
                            struct packed_expert *e) {
    struct packed_merge *m = ARENA_NEW(&p->arena, struct packed_merge);
    struct moe_plan plan = {p->block, 1, false};
    struct moe_work work = {0};
    m->use = u;
    m->at_work = p->scratch_bytes;
    if (u->gate.ops->bind)
        u->gate.ops->bind(&u->gate, &plan, &work);
    m->at_work = moe_packed_take(p, work.used * sizeof(float));
    m->at_share = moe_packed_take(p, (size_t)u->gate.n_experts * sizeof(float));
    for (int i = 0; i < e->n_layers; i++) {
        const struct packed_layer *l = &e->layers[i];
        m->at_w[i] = moe_packed_take(p, moe_pack_bytes(p->low, l->in, l->out, p->k->nr));
        m->at_start[i] = moe_packed_take(p, (size_t)(l->out + p->k->nr) / (size_t)p->k->nr *
                                                (size_t)p->k->nr * sizeof(float));
    }
    e->merge = m;
}

/* 16 elements wherever they stand; the compiler cuts them to the machine's vectors. */
typedef float lanes __attribute__((vector_size(64), aligned(4)));
typedef uint32_t lane_bits __attribute__((vector_size(64), aligned(4)));
typedef uint16_t halves __attribute__((vector_size(32), aligned(2)));

/* out = sum over n of share[e] from[e] */
MOE_CLONES static void blend_floats(int n, const void *const *from, const float *share,
                                    size_t count, void *out) {
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        lanes sum = {0};
        for (int e = 0; e < n; e++)
            sum += share[e] * *(const lanes *)(const void *)((const float *)from[e] + i);
        *(lanes *)(void *)((float *)out + i) = sum;
    }
    for (; i < count; i++) {
        float sum = 0;
        for (int e = 0; e < n; e++)
            sum += share[e] * ((const float *)from[e])[i];
        ((float *)out)[i] = sum;
    }
}

/* The same of bf16, rounded to nearest even; count in whole vectors. */
MOE_CLONES static void blend_halves(int n, const void *const *from, const float *share,
                                    size_t count, void *out) {
    for (size_t i = 0; i < count; i += 16) {
        lanes sum = {0};
        for (int e = 0; e < n; e++) {
            const halves x = *(const halves *)(const void *)((const uint16_t *)from[e] + i);
            sum += share[e] * (lanes)(__builtin_convertvector(x, lane_bits) << 16);
        }
        lane_bits bits = (lane_bits)sum;
        bits = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        *(halves *)(void *)((uint16_t *)out + i) = __builtin_convertvector(bits, halves);
    }
}

/* What the gate gives each expert, from the query part alone. */
static void find_shares(const struct packed_run *r, const struct packed_merge *m, bool input) {
    static const int zero = 0, start[2] = {0, 0};
    const struct moe_model *model = r->p->m;
    const struct moe_gate *gate = &m->use->gate;
    const struct moe_plan plan = {r->p->block, 1, false};
    struct moe_work work = {.base = packed_floats(r, m->at_work)};
    struct moe_numbers numbers = {.p = &model->params, .v = model->params.v};
    struct moe_gate_io io = {moe_numbers_value(&numbers, m->use->tensor, 0),
                             moe_numbers_value(&numbers, m->use->buffer, 0),
                             gate->ops->bind ? gate->ops->bind(gate, &plan, &work) : NULL};
    struct moe_rows x = {.n_groups = 1,
                         .dq = input ? model->part[MOE_QUERY] : 0,
                         .q = packed_floats(r, r->p->at_query),
                         .group = &zero,
                         .start = start};
    struct moe_pass pass = {.exact = true, .batch = r->batch};
    struct moe_route route = {.kind = MOE_ROUTE_MERGE,
                              .n_experts = gate->n_experts,
                              .n_groups = 1,
                              .w = packed_floats(r, m->at_share)};
    const int was = moe_gemm_set_exact(true);
    gate->ops->forward(gate, &io, &x, &pass, &route);
    moe_gemm_set_exact(was);
}

static void blend_layer(const struct packed_run *r, const struct packed_level *l,
                        const struct packed_merge *m, int layer) {
    const int n = m->use->gate.n_experts;
    const void *w[MOE_LEVEL_EXPERTS_MAX], *start[MOE_LEVEL_EXPERTS_MAX];
    const struct moe_pack *pack = NULL;
    for (int i = 0; i < n; i++) {
        const struct packed_layer *y = &l->experts[m->use->experts[i]].layers[layer];
        pack = &y->w;
        w[i] = y->w.w;
        start[i] = y->start ? y->start : packed_floats(r, r->p->query_low.at) + y->start_at;
    }
    const float *share = packed_floats(r, m->at_share);
    const size_t steps = (size_t)pack->panels * (size_t)pack->steps * (size_t)pack->nr;
    blend_floats(n, start, share, (size_t)moe_pack_columns(pack), r->scratch + m->at_start[layer]);
    if (pack->precision == MOE_FP32)
        blend_floats(n, w, share, steps, r->scratch + m->at_w[layer]);
    else
        blend_halves(n, w, share, 2 * steps, r->scratch + m->at_w[layer]);
}

void moe_packed_merge(const struct packed_run *r) {
    for (int i = 0; i < r->p->n_levels; i++) {
        const struct packed_level *l = &r->p->levels[i];
        for (int e = 0; e < l->n_experts; e++) {
            const struct packed_expert *x = &l->experts[e];
            if (!x->merge)
                continue;
            find_shares(r, x->merge, l->sources[x->merge->use->source].n == 0);
            for (int k = 0; k < x->n_layers; k++)
                blend_layer(r, l, x->merge, k);
        }
    }
}

void moe_packed_merged(const struct packed_run *r, const struct packed_level *l,
                       const struct packed_expert *e, struct packed_layer *layers) {
    const struct packed_expert *first = &l->experts[e->merge->use->experts[0]];
    for (int i = 0; i < e->n_layers; i++) {
        layers[i] = first->layers[i];
        layers[i].w.w = r->scratch + e->merge->at_w[i];
        layers[i].start = packed_floats(r, e->merge->at_start[i]);
    }
}
