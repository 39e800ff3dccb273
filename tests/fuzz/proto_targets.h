/* proto_targets.h: hostile bytes into every decoder of proto/. The bytes lie in a heap block of
 * just their length, so that a sanitizer sees a read beyond them. What decodes must encode again
 * and read back equal. */
#pragma once
#include "tests/unit/proto_samples.h"

static inline void target_fail(const char *what) {
    fprintf(stderr, "broken promise: %s\n", what);
    abort();
}

/* The event and its two encodings tell the same. */
static inline void target_event(struct arena *a, struct buf *out, const struct ev_event *e) {
    struct ev_event again;
    buf_clear(out);
    ev_encode_proto(e, out);
    if (out->n <= EV_BYTES_MAX &&
        (ev_decode(a, buf_slice(out), &again) != STATUS_OK || !same_event(e, &again)))
        target_fail("event -> protobuf -> event");
    buf_clear(out);
    ev_encode_json(e, out);
    if (out->n <= EV_BYTES_MAX &&
        (ev_decode(a, buf_slice(out), &again) != STATUS_OK || !same_event(e, &again)))
        target_fail("event -> JSON -> event");
}

static inline void target_rank(struct arena *a, struct buf *out, struct slice s) {
    struct rpc_rank_request request;
    struct rpc_rank_response response;
    struct rpc_request_log log;
    if (rpc_decode_rank_request(a, s, &request) == STATUS_OK) {
        int n_items = request.n_items, n_columns = request.n_columns;
        buf_clear(out);
        rpc_encode_rank_request(&request, out);
        if (rpc_decode_rank_request(a, buf_slice(out), &request) != STATUS_OK ||
            request.n_items != n_items || request.n_columns != n_columns)
            target_fail("rank request");
    }
    if (rpc_decode_rank_response(a, s, &response) == STATUS_OK) {
        int n = response.n, n_tasks = response.n_tasks;
        buf_clear(out);
        rpc_encode_rank_response(&response, out);
        if (rpc_decode_rank_response(a, buf_slice(out), &response) != STATUS_OK ||
            response.n != n || response.n_tasks != n_tasks)
            target_fail("rank response");
    }
    if (rpc_decode_request_log(a, s, &log) == STATUS_OK) {
        buf_clear(out);
        rpc_encode_request_log(&log, out);
        if (rpc_decode_request_log(a, buf_slice(out), &log) != STATUS_OK)
            target_fail("request log");
    }
}

static inline void target_rest(struct arena *a, struct buf *out, struct slice s) {
    struct rpc_recommend_request recommend;
    struct rpc_recommend_response list;
    struct rpc_feedback_request feedback;
    struct rpc_feedback_response tokens;
    struct rpc_model_response model;
    struct slice service;
    (void)rpc_decode_recommend_request(a, s, &recommend);
    (void)rpc_decode_recommend_response(a, s, &list);
    (void)rpc_decode_feedback_response(a, s, &tokens);
    (void)rpc_decode_model_response(a, s, &model);
    (void)rpc_decode_health_request(a, s, &service);
    buf_clear(out);
    (void)rpc_reflect(a, s, out);
    if (rpc_decode_feedback_request(a, s, &feedback) == STATUS_OK)
        for (int i = 0; i < feedback.n; i++) {
            struct ev_event e;
            if (ev_decode(a, feedback.payloads[i], &e) != STATUS_OK ||
                !same_event(&e, &feedback.events[i]))
                target_fail("feedback payload");
        }
}

static inline void target_all(struct arena *a, struct buf *out, const void *bytes, size_t n) {
    char *copy = malloc(n ? n : 1);
    if (n)
        memcpy(copy, bytes, n);
    struct slice s = {copy, n};
    struct ev_event e;
    arena_reset(a);
    if (ev_decode_proto(a, s, &e) == STATUS_OK)
        target_event(a, out, &e);
    if (ev_decode_json(a, s, &e) == STATUS_OK)
        target_event(a, out, &e);
    if (ev_decode(a, s, &e) == STATUS_OK)
        target_event(a, out, &e);
    target_rank(a, out, s);
    target_rest(a, out, s);
    free(copy);
}
