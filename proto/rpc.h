/* rpc.h: the ranking service's messages as plain structs, and their codecs. Only the .c files
 * of proto/ see protobuf-c. Decoders take the arena and borrow from the bytes where they can;
 * encoders append. */
#pragma once
#include "proto/ev.h"

struct rpc_column {
    struct slice name;
    const float *values; /* [n_items] */
};

struct rpc_token {
    bool given;
    int32_t partition;
    int64_t offset;
};

struct rpc_rank_request {
    struct slice request_id, tenant, user, session;
    const struct ev_field *context; /* [n_context] */
    int n_context;
    const struct slice *items; /* [n_items] */
    int n_items;
    const struct rpc_column *columns; /* [n_columns] */
    int n_columns;
    int64_t now_us;
    int top_n;
    bool explain, no_cache;
    struct rpc_token after;
};

struct rpc_feature_value {
    struct slice name;
    const float *values; /* [n] */
    int n;
};
struct rpc_gate_weights {
    struct slice gate;
    const struct slice *experts; /* [n] */
    const float *weights;        /* [n] */
    int n;
};
struct rpc_explanation {
    struct slice item;
    const struct rpc_feature_value *features; /* [n_features] */
    int n_features;
    const struct rpc_gate_weights *gates; /* [n_gates] */
    int n_gates;
};

struct rpc_rank_response {
    struct slice request_id, model_version;
    const uint32_t *order; /* [n] indices into the request's items, best first */
    const float *scores;   /* [n] */
    int n;
    const struct slice *tasks;         /* [n_tasks] */
    const float *const *probabilities; /* [n_tasks][n] */
    int n_tasks;
    bool cached;
    uint64_t user_epoch;
    const struct rpc_explanation *explanations; /* [n_explanations] */
    int n_explanations;
};

struct rpc_recommend_request {
    struct slice user;
    int n;
    struct rpc_token after;
};
struct rpc_recommend_response {
    const struct slice *items; /* [n] */
    const float *scores;       /* [n] */
    int n;
    struct slice model_version, origin;
    uint64_t user_epoch;
    int64_t made_at_us;
};

struct rpc_rejected {
    int index;
    struct slice reason;
};
struct rpc_feedback_request {
    /* Each event as it will be sent: its protobuf bytes as they came, or the JSON line. Undecodable
     * or invalid ones are in `rejected` already. Blank lines do not count. */
    const struct slice *payloads;  /* [n] */
    const struct ev_event *events; /* [n] */
    const int *index;              /* [n] index in the request */
    int n;
    const struct rpc_rejected *rejected; /* [n_rejected] */
    int n_rejected;
};
struct rpc_feedback_response {
    const struct rpc_token *tokens; /* [n] */
    int n;
    const struct rpc_rejected *rejected; /* [n_rejected] */
    int n_rejected;
};

struct rpc_applied {
    int32_t partition;
    int64_t offset;
};
struct rpc_model_response {
    struct slice version, spec_json, plan_json;
    const struct slice *tasks; /* [n_tasks] */
    int n_tasks;
    int64_t trained_at_us;
    const struct rpc_applied *applied; /* [n_applied] */
    int n_applied;
};

/* What the model was given; n_query 0 and n_cand 0: not logged. */
struct rpc_rows {
    const float *query;        /* [n_query] */
    const uint32_t *query_ids; /* [n_query_ids] */
    const float *cand;         /* [n_cand] items x columns */
    const uint32_t *cand_ids;  /* [n_cand_ids] */
    int n_query, n_query_ids, n_cand, n_cand_ids;
};
struct rpc_ahead {
    int scope;
    uint64_t key;
    int32_t partition;
    int64_t offset;
};
struct rpc_request_log {
    struct rpc_rank_request request;
    struct rpc_rank_response response;
    const struct rpc_applied *applied; /* [n_applied] sorted by partition */
    int n_applied;
    int64_t served_at_us;
    const int64_t *clock_us; /* [n_applied], or NULL */
    struct slice config_version;
    struct rpc_rows rows;
    const struct rpc_ahead *ahead; /* [n_ahead] */
    int n_ahead;
    bool without_store;
    struct slice policy;       /* RPC_POLICY_TOP; empty: not logged */
    const float *propensities; /* [response.n] in its order; NULL: not logged, 1 each */
};
#define RPC_POLICY_TOP "top" /* by score, nothing is drawn: every propensity is 1 */

/* Limits: RPC_ITEMS_MAX candidates a request is the hard bound; settings may lower it. Columnar
 * arrays are checked against each other; a mismatch names both lengths. */
#define RPC_ITEMS_MAX 20000
/* events and non-blank JSON lines of one feedback request */
#define RPC_EVENTS_MAX 10000

enum status rpc_decode_rank_request(struct arena *a, struct slice bytes,
                                    struct rpc_rank_request *out);
enum status rpc_decode_rank_response(struct arena *a, struct slice bytes,
                                     struct rpc_rank_response *out);
enum status rpc_decode_recommend_request(struct arena *a, struct slice bytes,
                                         struct rpc_recommend_request *out);
enum status rpc_decode_recommend_response(struct arena *a, struct slice bytes,
                                          struct rpc_recommend_response *out);
enum status rpc_decode_feedback_request(struct arena *a, struct slice bytes,
                                        struct rpc_feedback_request *out);
enum status rpc_decode_feedback_response(struct arena *a, struct slice bytes,
                                         struct rpc_feedback_response *out);
enum status rpc_decode_model_response(struct arena *a, struct slice bytes,
                                      struct rpc_model_response *out);
enum status rpc_decode_request_log(struct arena *a, struct slice bytes,
                                   struct rpc_request_log *out);

void rpc_encode_rank_request(const struct rpc_rank_request *m, struct buf *out);
void rpc_encode_rank_response(const struct rpc_rank_response *m, struct buf *out);
void rpc_encode_recommend_request(const struct rpc_recommend_request *m, struct buf *out);
void rpc_encode_recommend_response(const struct rpc_recommend_response *m, struct buf *out);
void rpc_encode_feedback_request(const struct ev_event *events, int n, struct slice json_lines,
                                 struct buf *out);
void rpc_encode_feedback_response(const struct rpc_feedback_response *m, struct buf *out);
void rpc_encode_model_response(const struct rpc_model_response *m, struct buf *out);
void rpc_encode_request_log(const struct rpc_request_log *m, struct buf *out);

/* grpc.health.v1 and grpc.reflection.v1alpha, as little as the server needs. */
enum status rpc_decode_health_request(struct arena *a, struct slice bytes, struct slice *service);
void rpc_encode_health_response(bool serving, struct buf *out);
/* Answers one ServerReflectionRequest: list_services, file_by_filename, file_containing_symbol
 * (names of services, methods and messages), with error_response for the rest. */
enum status rpc_reflect(struct arena *a, struct slice request, struct buf *response);
