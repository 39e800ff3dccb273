/* rpc_recommend.c: the list kept ready for a user: request and answer. */
#include "moerank.pb-c.h"
#include "proto/rpc_parts.h"

enum status rpc_decode_recommend_request(struct arena *a, struct slice bytes,
                                         struct rpc_recommend_request *out) {
    void *unpacked;
    TRY(ev_wire_unpack(a, &moerank__v1__recommend_request__descriptor, bytes, &unpacked));
    const Moerank__V1__RecommendRequest *m = unpacked;
    struct rpc_recommend_request r = {
        .user = EV_WIRE_SLICE(m->user),
        .n = (int)m->n,
        .after = rpc_token_of(m->after),
    };
    TRY(ev_check_id(EV_AT("user"), r.user, true));
    if (m->n > RPC_ITEMS_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "n must be at most %d (got %u)", RPC_ITEMS_MAX,
                    (unsigned)m->n);
    TRY(rpc_check_token("after", &r.after));
    *out = r;
    return STATUS_OK;
}

enum status rpc_decode_recommend_response(struct arena *a, struct slice bytes,
                                          struct rpc_recommend_response *out) {
    void *unpacked;
    TRY(ev_wire_unpack(a, &moerank__v1__recommend_response__descriptor, bytes, &unpacked));
    const Moerank__V1__RecommendResponse *m = unpacked;
    if (m->n_scores != m->n_items)
        return fail(STATUS_INVALID_ARGUMENT, "scores: %zu values for %zu items", m->n_scores,
                    m->n_items);
    *out = (struct rpc_recommend_response){
        .items = ev_wire_slices(a, m->n_items, m->items),
        .scores = m->scores,
        .n = (int)m->n_items,
        .model_version = EV_WIRE_SLICE(m->model_version),
        .origin = EV_WIRE_SLICE(m->origin),
        .user_epoch = m->user_epoch,
        .made_at_us = m->made_at_us,
    };
    return STATUS_OK;
}

void rpc_encode_recommend_request(const struct rpc_recommend_request *m, struct buf *out) {
    ev_put_text(out, 1, m->user);
    ev_put_uint(out, 2, (uint64_t)m->n);
    if (m->after.given)
        rpc_put_token(out, 3, &m->after);
}

void rpc_encode_recommend_response(const struct rpc_recommend_response *m, struct buf *out) {
    for (int i = 0; i < m->n; i++)
        ev_put_element(out, 1, m->items[i]);
    ev_put_floats(out, 2, m->scores, m->n);
    ev_put_text(out, 3, m->model_version);
    ev_put_uint(out, 4, m->user_epoch);
    ev_put_int(out, 5, m->made_at_us);
    ev_put_text(out, 6, m->origin);
}
