/* rpc_feedback.c: events sent in by a call instead of through the log.
 *
 * Each event stands or falls by itself: FeedbackRequest is unpacked with its events still as
 * bytes (codegen.cmake), each is decoded and checked, and the good ones go to the log as they
 * came, with fields this version does not know. Blank JSON lines do not count. */
#include "moerank.pb-c.h"
#include "proto/rpc_parts.h"

/* ---- request ---- */

struct sorter {
    struct arena *a;
    struct slice *payloads;
    struct ev_event *events;
    int *index;
    int n;
    struct rpc_rejected *rejected;
    int n_rejected;
};

/* The next line that is not blank; false at the end. */
static bool next_line(struct slice *rest, struct slice *line) {
    while (rest->n) {
        const char *end = memchr(rest->p, '\n', rest->n);
        size_t n = end ? (size_t)(end - rest->p) : rest->n, step = n + (end != NULL), i = 0;
        *line = (struct slice){rest->p, n};
        *rest = (struct slice){rest->p + step, rest->n - step};
        while (i < n && memchr(" \t\r", line->p[i], 3))
            i++;
        if (i < n)
            return true;
    }
    return false;
}

static size_t count_lines(struct slice lines) {
    struct slice line;
    size_t n = 0;
    while (next_line(&lines, &line))
        n++;
    return n;
}

static void sorter_init(struct sorter *s, struct arena *a, size_t most) {
    *s = (struct sorter){
        .a = a,
        .payloads = arena_alloc(a, most * sizeof *s->payloads),
        .events = arena_alloc(a, most * sizeof *s->events),
        .index = arena_alloc(a, most * sizeof *s->index),
        .rejected = arena_alloc(a, most * sizeof *s->rejected),
    };
}

static void sort_one(struct sorter *s, struct slice bytes,
                     enum status (*decode)(struct arena *, struct slice, struct ev_event *)) {
    int index = s->n + s->n_rejected;
    if (decode(s->a, bytes, &s->events[s->n]) != STATUS_OK) {
        struct slice reason = arena_dup(s->a, slice_of(status_message()));
        s->rejected[s->n_rejected++] = (struct rpc_rejected){index, reason};
        return;
    }
    s->payloads[s->n] = bytes;
    s->index[s->n++] = index;
}

enum status rpc_decode_feedback_request(struct arena *a, struct slice bytes,
                                        struct rpc_feedback_request *out) {
    void *unpacked;
    TRY(ev_wire_unpack(a, &moerank__v1__feedback_request__descriptor, bytes, &unpacked));
    const Moerank__V1__FeedbackRequest *m = unpacked;
    struct slice lines = EV_WIRE_SLICE(m->json_lines), line;
    size_t n_given = m->n_events + count_lines(lines);
    TRY(ev_check_count(EV_AT("events"), n_given, RPC_EVENTS_MAX));
    struct sorter s;
    sorter_init(&s, a, n_given);
    for (size_t i = 0; i < m->n_events; i++)
        sort_one(&s, EV_WIRE_SLICE(m->events[i]), ev_decode_proto);
    while (next_line(&lines, &line))
        sort_one(&s, line, ev_decode_json);
    *out = (struct rpc_feedback_request){
        .payloads = s.payloads,
        .events = s.events,
        .index = s.index,
        .n = s.n,
        .rejected = s.rejected,
        .n_rejected = s.n_rejected,
    };
    return STATUS_OK;
}

void rpc_encode_feedback_request(const struct ev_event *events, int n, struct slice json_lines,
                                 struct buf *out) {
    for (int i = 0; i < n; i++) {
        size_t at = ev_put_begin(out, 1);
        ev_encode_proto(&events[i], out);
        ev_put_end(out, at);
    }
    ev_put_text(out, 2, json_lines);
}

/* ---- answer ---- */

enum status rpc_decode_feedback_response(struct arena *a, struct slice bytes,
                                         struct rpc_feedback_response *out) {
    void *unpacked;
    TRY(ev_wire_unpack(a, &moerank__v1__feedback_response__descriptor, bytes, &unpacked));
    const Moerank__V1__FeedbackResponse *m = unpacked;
    struct rpc_token *tokens = arena_alloc(a, m->n_tokens * sizeof *tokens);
    for (size_t i = 0; i < m->n_tokens; i++)
        tokens[i] = rpc_token_of(m->tokens[i]);
    struct rpc_rejected *rejected = arena_alloc(a, m->n_rejected * sizeof *rejected);
    for (size_t i = 0; i < m->n_rejected; i++) {
        if (m->rejected[i]->index > INT32_MAX)
            return fail(STATUS_INVALID_ARGUMENT, "rejected[%zu].index is out of range", i);
        rejected[i] = (struct rpc_rejected){(int)m->rejected[i]->index,
                                            EV_WIRE_SLICE(m->rejected[i]->reason)};
    }
    *out = (struct rpc_feedback_response){tokens, (int)m->n_tokens, rejected, (int)m->n_rejected};
    return STATUS_OK;
}

void rpc_encode_feedback_response(const struct rpc_feedback_response *m, struct buf *out) {
    for (int i = 0; i < m->n; i++)
        rpc_put_token(out, 1, &m->tokens[i]);
    for (int i = 0; i < m->n_rejected; i++) {
        size_t at = ev_put_begin(out, 2);
        ev_put_uint(out, 1, (uint64_t)m->rejected[i].index);
        ev_put_text(out, 2, m->rejected[i].reason);
        ev_put_end(out, at);
    }
}
