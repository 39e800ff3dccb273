/* rpc_model.c: what is being served (GetModel), and the request log: one served call with what its
 * features had seen, enough for replay to make the scores again. */
#include "moerank.pb-c.h"
#include "proto/rpc_parts.h"

/* ---- applied offsets ---- */

const struct rpc_applied *rpc_applied_of(struct arena *a, size_t n,
                                         Moerank__V1__Applied *const *m) {
    struct rpc_applied *to = arena_alloc(a, n * sizeof *to);
    for (size_t i = 0; i < n; i++)
        to[i] = (struct rpc_applied){m[i]->partition, m[i]->offset};
    return to;
}

void rpc_put_applied(struct buf *out, int field, const struct rpc_applied *v, int n) {
    for (int i = 0; i < n; i++)
        rpc_put_token(out, field, &(struct rpc_token){true, v[i].partition, v[i].offset});
}

/* ---- GetModelResponse ---- */

enum status rpc_decode_model_response(struct arena *a, struct slice bytes,
                                      struct rpc_model_response *out) {
    void *unpacked;
    TRY(ev_wire_unpack(a, &moerank__v1__get_model_response__descriptor, bytes, &unpacked));
    const Moerank__V1__GetModelResponse *m = unpacked;
    *out = (struct rpc_model_response){
        .version = EV_WIRE_SLICE(m->version),
        .spec_json = EV_WIRE_SLICE(m->spec_json),
        .plan_json = EV_WIRE_SLICE(m->plan_json),
        .tasks = ev_wire_slices(a, m->n_tasks, m->tasks),
        .n_tasks = (int)m->n_tasks,
        .trained_at_us = m->trained_at_us,
        .applied = rpc_applied_of(a, m->n_applied, m->applied),
        .n_applied = (int)m->n_applied,
    };
    return STATUS_OK;
}

void rpc_encode_model_response(const struct rpc_model_response *m, struct buf *out) {
    ev_put_text(out, 1, m->version);
    for (int i = 0; i < m->n_tasks; i++)
        ev_put_element(out, 2, m->tasks[i]);
    ev_put_text(out, 3, m->spec_json);
    ev_put_text(out, 4, m->plan_json);
    ev_put_int(out, 5, m->trained_at_us);
    rpc_put_applied(out, 6, m->applied, m->n_applied);
}

/* ---- RequestLog ---- */

/* Packed fixed32 is its bytes as they stand, as in ev_put_floats. */
static void put_ids(struct buf *out, int field, const uint32_t *v, int n) {
    if (n > 0)
        ev_put_element(out, field, (struct slice){(const char *)v, (size_t)n * sizeof *v});
}

static enum status check_log(const struct rpc_request_log *r) {
    for (int i = 0; i < r->response.n; i++)
        if (r->response.order[i] >= (uint32_t)r->request.n_items)
            return fail(STATUS_INVALID_ARGUMENT, "response.order[%d] is %u with %d items", i,
                        (unsigned)r->response.order[i], r->request.n_items);
    for (int i = 1; i < r->n_applied; i++)
        if (r->applied[i].partition <= r->applied[i - 1].partition)
            return fail(STATUS_INVALID_ARGUMENT, "applied[%d]: partitions must ascend", i);
    for (int i = 0; r->propensities != NULL && i < r->response.n; i++)
        if (!(r->propensities[i] > 0 && r->propensities[i] <= 1)) /* what was shown could be */
            return fail(STATUS_INVALID_ARGUMENT, "propensities[%d] must be in ]0, 1] (got %g)", i,
                        (double)r->propensities[i]);
    return STATUS_OK;
}

static struct rpc_rows rows_of(const Moerank__V1__Rows *m) {
    if (!m)
        return (struct rpc_rows){0};
    return (struct rpc_rows){.query = m->query,
                             .query_ids = m->query_ids,
                             .cand = m->candidates,
                             .cand_ids = m->candidate_ids,
                             .n_query = (int)m->n_query,
                             .n_query_ids = (int)m->n_query_ids,
                             .n_cand = (int)m->n_candidates,
                             .n_cand_ids = (int)m->n_candidate_ids};
}

static void put_clocks(struct buf *out, int field, const struct rpc_request_log *m) {
    if (!m->clock_us || m->n_applied == 0)
        return;
    size_t at = ev_put_begin(out, field);
    for (int i = 0; i < m->n_applied; i++)
        buf_add_varint(out, (uint64_t)m->clock_us[i]);
    ev_put_end(out, at);
}

static void put_rows(struct buf *out, int field, const struct rpc_rows *r) {
    if (r->n_query + r->n_query_ids + r->n_cand + r->n_cand_ids == 0)
        return;
    size_t at = ev_put_begin(out, field);
    ev_put_floats(out, 1, r->query, r->n_query);
    put_ids(out, 2, r->query_ids, r->n_query_ids);
    ev_put_floats(out, 3, r->cand, r->n_cand);
    put_ids(out, 4, r->cand_ids, r->n_cand_ids);
    ev_put_end(out, at);
}

static const struct rpc_ahead *ahead_of(struct arena *a, size_t n, Moerank__V1__Ahead *const *m) {
    struct rpc_ahead *to = arena_alloc(a, n * sizeof *to);
    for (size_t i = 0; i < n; i++)
        to[i] = (struct rpc_ahead){(int)m[i]->scope, m[i]->key, m[i]->partition, m[i]->offset};
    return to;
}

static void put_ahead(struct buf *out, int field, const struct rpc_ahead *v, int n) {
    for (int i = 0; i < n; i++) {
        size_t at = ev_put_begin(out, field);
        ev_put_uint(out, 1, (uint64_t)v[i].scope);
        ev_put_tag(out, 2, EV_WIRE_64);
        buf_add_u64(out, v[i].key);
        ev_put_int(out, 3, v[i].partition);
        ev_put_int(out, 4, v[i].offset);
        ev_put_end(out, at);
    }
}

enum status rpc_decode_request_log(struct arena *a, struct slice bytes,
                                   struct rpc_request_log *out) {
    void *unpacked;
    TRY(ev_wire_unpack(a, &moerank__v1__request_log__descriptor, bytes, &unpacked));
    const Moerank__V1__RequestLog *m = unpacked;
    if (!m->request || !m->response)
        return fail(STATUS_INVALID_ARGUMENT, "%s is missing", m->request ? "response" : "request");
    struct rpc_request_log r = {
        .applied = rpc_applied_of(a, m->n_applied, m->applied),
        .n_applied = (int)m->n_applied,
        .served_at_us = m->served_at_us,
        .clock_us = m->n_clock_us == m->n_applied ? m->clock_us : NULL,
        .config_version = EV_WIRE_SLICE(m->config_version),
        .rows = rows_of(m->rows),
        .ahead = ahead_of(a, m->n_ahead, m->ahead),
        .n_ahead = (int)m->n_ahead,
        .without_store = m->without_store,
        .policy = EV_WIRE_SLICE(m->policy),
        .propensities = m->n_propensities > 0 ? m->propensities : NULL,
    };
    TRY(fail_in(rpc_rank_request_of(a, m->request, &r.request), "request"));
    TRY(fail_in(rpc_rank_response_of(a, m->response, &r.response), "response"));
    if (r.propensities != NULL && m->n_propensities != (size_t)r.response.n)
        return fail(STATUS_INVALID_ARGUMENT, "%zu propensities of %d places", m->n_propensities,
                    r.response.n);
    TRY(check_log(&r));
    *out = r;
    return STATUS_OK;
}

void rpc_encode_request_log(const struct rpc_request_log *m, struct buf *out) {
    size_t at = ev_put_begin(out, 1);
    rpc_encode_rank_request(&m->request, out);
    ev_put_end(out, at);
    at = ev_put_begin(out, 2);
    rpc_encode_rank_response(&m->response, out);
    ev_put_end(out, at);
    rpc_put_applied(out, 3, m->applied, m->n_applied);
    ev_put_int(out, 4, m->served_at_us);
    ev_put_text(out, 5, m->config_version);
    put_rows(out, 6, &m->rows);
    put_ahead(out, 7, m->ahead, m->n_ahead);
    put_clocks(out, 8, m);
    ev_put_uint(out, 9, m->without_store);
    ev_put_text(out, 10, m->policy);
    if (m->propensities != NULL)
        ev_put_floats(out, 11, m->propensities, m->response.n);
}
