/* rpc_rank_request.c: the ranking call's request. Columnar: ids in one list, numbers in packed
 * arrays beside it, so that 500 candidates are 500 short strings and a few memcpys, not 500
 * messages. Nothing here allocates but the arena.
 *
 * Deliberately not checked: whether ids repeat or are known; the first is harmless, the second is
 * the state's business. */
#include <math.h>
#include "moerank.pb-c.h"
#include "proto/rpc_parts.h"

/* ---- parts ---- */

struct rpc_token rpc_token_of(const Moerank__V1__Token *m) {
    return m ? (struct rpc_token){true, m->partition, m->offset} : (struct rpc_token){0};
}

enum status rpc_check_token(const char *name, const struct rpc_token *t) {
    if (t->partition >= 0 && t->offset >= 0)
        return STATUS_OK;
    return fail(STATUS_INVALID_ARGUMENT, "%s: partition and offset must be >= 0 (got %d, %lld)",
                name, (int)t->partition, (long long)t->offset);
}

void rpc_put_token(struct buf *out, int field, const struct rpc_token *t) {
    size_t at = ev_put_begin(out, field);
    ev_put_int(out, 1, t->partition);
    ev_put_int(out, 2, t->offset);
    ev_put_end(out, at);
}

/* ---- reading ---- */

static enum status check_column(const struct rpc_column *c, int i, size_t n, int n_items) {
    TRY(ev_check_id(EV_AT_IN("columns", i, "name"), c->name, true));
    if (n != (size_t)n_items)
        return fail(STATUS_INVALID_ARGUMENT, "columns[%d] '%.*s': %zu values for %d items", i,
                    SLICE_ARG(c->name), n, n_items);
    for (int k = 0; k < n_items; k++)
        if (!isfinite(c->values[k]))
            return fail(STATUS_INVALID_ARGUMENT,
                        "columns[%d] '%.*s': values[%d]: %s is not a number", i, SLICE_ARG(c->name),
                        k, isnan(c->values[k]) ? "NaN" : "inf");
    return STATUS_OK;
}

static enum status columns_of(struct arena *a, const Moerank__V1__RankRequest *m,
                              struct rpc_rank_request *r) {
    TRY(ev_check_count(EV_AT("columns"), m->n_columns, EV_FIELDS_MAX));
    struct rpc_column *to = arena_alloc(a, m->n_columns * sizeof *to);
    for (size_t i = 0; i < m->n_columns; i++) {
        const Moerank__V1__CandidateColumn *c = m->columns[i];
        to[i] = (struct rpc_column){EV_WIRE_SLICE(c->name), c->values};
        TRY(check_column(&to[i], (int)i, c->n_values, r->n_items));
    }
    r->columns = to;
    r->n_columns = (int)m->n_columns;
    return STATUS_OK;
}

static enum status items_of(struct arena *a, const Moerank__V1__RankRequest *m,
                            struct rpc_rank_request *r) {
    if (m->n_items == 0)
        return fail(STATUS_INVALID_ARGUMENT, "items is empty");
    TRY(ev_check_count(EV_AT("items"), m->n_items, RPC_ITEMS_MAX));
    r->items = ev_wire_slices(a, m->n_items, m->items);
    r->n_items = (int)m->n_items;
    for (int i = 0; i < r->n_items; i++)
        TRY(ev_check_id(EV_AT_IN("items", i, NULL), r->items[i], true));
    return STATUS_OK;
}

enum status rpc_rank_request_of(struct arena *a, const Moerank__V1__RankRequest *m,
                                struct rpc_rank_request *out) {
    struct rpc_rank_request r = {
        .request_id = EV_WIRE_SLICE(m->request_id),
        .tenant = EV_WIRE_SLICE(m->tenant),
        .user = EV_WIRE_SLICE(m->user),
        .session = EV_WIRE_SLICE(m->session),
        .context = ev_wire_fields(a, m->n_context, m->context),
        .n_context = (int)m->n_context,
        .now_us = m->now_us,
        .top_n = m->top_n > INT32_MAX ? INT32_MAX : (int)m->top_n,
        .explain = m->explain,
        .no_cache = m->no_cache,
        .after = rpc_token_of(m->after),
    };
    TRY(ev_check_id(EV_AT("request_id"), r.request_id, false));
    TRY(ev_check_id(EV_AT("tenant"), r.tenant, false));
    TRY(ev_check_id(EV_AT("user"), r.user, false));
    TRY(ev_check_id(EV_AT("session"), r.session, false));
    TRY(ev_check_fields(EV_AT("context"), r.context, r.n_context));
    TRY(items_of(a, m, &r));
    TRY(columns_of(a, m, &r));
    TRY(ev_check_time("now_us", r.now_us, false));
    TRY(rpc_check_token("after", &r.after));
    *out = r;
    return STATUS_OK;
}

enum status rpc_decode_rank_request(struct arena *a, struct slice bytes,
                                    struct rpc_rank_request *out) {
    void *m;
    TRY(ev_wire_unpack(a, &moerank__v1__rank_request__descriptor, bytes, &m));
    return rpc_rank_request_of(a, m, out);
}

/* ---- writing ---- */

void rpc_encode_rank_request(const struct rpc_rank_request *m, struct buf *out) {
    ev_put_text(out, 1, m->request_id);
    ev_put_text(out, 2, m->user);
    ev_put_text(out, 3, m->session);
    ev_put_fields(out, 4, m->context, m->n_context);
    for (int i = 0; i < m->n_items; i++)
        ev_put_element(out, 5, m->items[i]);
    for (int i = 0; i < m->n_columns; i++) {
        size_t at = ev_put_begin(out, 6);
        ev_put_text(out, 1, m->columns[i].name);
        ev_put_floats(out, 2, m->columns[i].values, m->n_items);
        ev_put_end(out, at);
    }
    ev_put_int(out, 7, m->now_us);
    ev_put_uint(out, 8, (uint64_t)m->top_n);
    ev_put_uint(out, 9, m->explain);
    ev_put_uint(out, 10, m->no_cache);
    if (m->after.given)
        rpc_put_token(out, 11, &m->after);
    ev_put_text(out, 12, m->tenant);
}
