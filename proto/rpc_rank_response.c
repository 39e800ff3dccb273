/* rpc_rank_response.c: the ranking call's answer. Written by the server for each call: straight
 * into the buf, floats by memcpy. Read by clients, by replay and by tests.
 *
 * Deliberately no check of the numbers: what a model said is passed on as it is. */
#include "moerank.pb-c.h"
#include "proto/rpc_parts.h"

/* ---- reading ---- */

static enum status check_length(const char *what, size_t n, size_t n_order) {
    if (n == n_order)
        return STATUS_OK;
    return fail(STATUS_INVALID_ARGUMENT, "%s: %zu values for %zu in order", what, n, n_order);
}

static const struct rpc_feature_value *features_of(struct arena *a, size_t n,
                                                   Moerank__V1__FeatureValue *const *m) {
    struct rpc_feature_value *to = arena_alloc(a, n * sizeof *to);
    for (size_t i = 0; i < n; i++)
        to[i] = (struct rpc_feature_value){EV_WIRE_SLICE(m[i]->name), m[i]->values,
                                           (int)m[i]->n_values};
    return to;
}

static enum status gates_of(struct arena *a, size_t n, Moerank__V1__GateWeights *const *m,
                            const struct rpc_gate_weights **out) {
    struct rpc_gate_weights *to = arena_alloc(a, n * sizeof *to);
    for (size_t i = 0; i < n; i++) {
        if (m[i]->n_weights != m[i]->n_experts)
            return fail(STATUS_INVALID_ARGUMENT, "gates[%zu]: %zu weights for %zu experts", i,
                        m[i]->n_weights, m[i]->n_experts);
        to[i] = (struct rpc_gate_weights){
            .gate = EV_WIRE_SLICE(m[i]->gate),
            .experts = ev_wire_slices(a, m[i]->n_experts, m[i]->experts),
            .weights = m[i]->weights,
            .n = (int)m[i]->n_weights,
        };
    }
    *out = to;
    return STATUS_OK;
}

static enum status explanations_of(struct arena *a, const Moerank__V1__RankResponse *m,
                                   struct rpc_rank_response *r) {
    struct rpc_explanation *to = arena_alloc(a, m->n_explanations * sizeof *to);
    for (size_t i = 0; i < m->n_explanations; i++) {
        const Moerank__V1__Explanation *from = m->explanations[i];
        to[i] = (struct rpc_explanation){
            .item = EV_WIRE_SLICE(from->item),
            .features = features_of(a, from->n_features, from->features),
            .n_features = (int)from->n_features,
            .n_gates = (int)from->n_gates,
        };
        TRY(fail_in(gates_of(a, from->n_gates, from->gates, &to[i].gates), "explanations[%zu]", i));
    }
    r->explanations = to;
    r->n_explanations = (int)m->n_explanations;
    return STATUS_OK;
}

static enum status tasks_of(struct arena *a, const Moerank__V1__RankResponse *m,
                            struct rpc_rank_response *r) {
    struct slice *names = arena_alloc(a, m->n_tasks * sizeof *names);
    const float **probabilities = arena_alloc(a, m->n_tasks * sizeof *probabilities);
    for (size_t i = 0; i < m->n_tasks; i++) {
        names[i] = EV_WIRE_SLICE(m->tasks[i]->task);
        probabilities[i] = m->tasks[i]->probabilities;
        TRY(fail_in(check_length("probabilities", m->tasks[i]->n_probabilities, m->n_order),
                    "tasks[%zu] '%.*s'", i, SLICE_ARG(names[i])));
    }
    r->tasks = names;
    r->probabilities = probabilities;
    r->n_tasks = (int)m->n_tasks;
    return STATUS_OK;
}

enum status rpc_rank_response_of(struct arena *a, const Moerank__V1__RankResponse *m,
                                 struct rpc_rank_response *out) {
    struct rpc_rank_response r = {
        .request_id = EV_WIRE_SLICE(m->request_id),
        .model_version = EV_WIRE_SLICE(m->model_version),
        .order = m->order,
        .scores = m->scores,
        .n = (int)m->n_order,
        .cached = m->cached,
        .user_epoch = m->user_epoch,
    };
    TRY(check_length("scores", m->n_scores, m->n_order));
    TRY(tasks_of(a, m, &r));
    TRY(explanations_of(a, m, &r));
    *out = r;
    return STATUS_OK;
}

enum status rpc_decode_rank_response(struct arena *a, struct slice bytes,
                                     struct rpc_rank_response *out) {
    void *m;
    TRY(ev_wire_unpack(a, &moerank__v1__rank_response__descriptor, bytes, &m));
    return rpc_rank_response_of(a, m, out);
}

/* ---- writing ---- */

static void put_order(struct buf *out, const uint32_t *order, int n) {
    if (n == 0)
        return;
    size_t at = ev_put_begin(out, 3);
    for (int i = 0; i < n; i++)
        buf_add_varint(out, order[i]);
    ev_put_end(out, at);
}

static void put_explanation(struct buf *out, const struct rpc_explanation *e) {
    ev_put_text(out, 1, e->item);
    for (int i = 0; i < e->n_features; i++) {
        size_t at = ev_put_begin(out, 2);
        ev_put_text(out, 1, e->features[i].name);
        ev_put_floats(out, 2, e->features[i].values, e->features[i].n);
        ev_put_end(out, at);
    }
    for (int i = 0; i < e->n_gates; i++) {
        const struct rpc_gate_weights *g = &e->gates[i];
        size_t at = ev_put_begin(out, 3);
        ev_put_text(out, 1, g->gate);
        for (int k = 0; k < g->n; k++)
            ev_put_element(out, 2, g->experts[k]);
        ev_put_floats(out, 3, g->weights, g->n);
        ev_put_end(out, at);
    }
}

void rpc_encode_rank_response(const struct rpc_rank_response *m, struct buf *out) {
    ev_put_text(out, 1, m->request_id);
    ev_put_text(out, 2, m->model_version);
    put_order(out, m->order, m->n);
    ev_put_floats(out, 4, m->scores, m->n);
    for (int i = 0; i < m->n_tasks; i++) {
        size_t at = ev_put_begin(out, 5);
        ev_put_text(out, 1, m->tasks[i]);
        ev_put_floats(out, 2, m->probabilities[i], m->n);
        ev_put_end(out, at);
    }
    ev_put_uint(out, 6, m->cached);
    ev_put_uint(out, 7, m->user_epoch);
    for (int i = 0; i < m->n_explanations; i++) {
        size_t at = ev_put_begin(out, 8);
        put_explanation(out, &m->explanations[i]);
        ev_put_end(out, at);
    }
}
