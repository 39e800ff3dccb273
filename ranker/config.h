/* config.h: one YAML file for every verb. Sections are settings tables (docs/config.md is generated
 * from them); the plan's, the model's and the tasks' sections are kept as trees for their readers.
 *
 *     kafka:    {brokers: "127.0.0.1:9092", topic: events}
 *     redis:    {socket: /run/redis.sock}
 *     features: [...]            # features/plan.h
 *     examples: {from: rating}   # ranker/labels.h
 *     tasks:    [...]
 *     model:    {...}            # docs/models.md
 *     train:    {...}
 *     score:    {like: 1, love: 0.5}
 *
 * Precedence: defaults, file, MOERANK_SECTION_KEY environment, --set section.key=value. */
#pragma once
#include "base/conf.h"
#include "features/state.h"
#include "moe/train/train.h"
#include "proto/rpc.h"

struct rk_kafka_conf {
    const char *brokers, *topic, *dead_letter_topic, *group;
    int start;                      /* earliest | latest, when the group has no offset */
    int64_t batch_events;           /* micro-batch: at most so many events */
    int64_t batch_time_us;          /* ... or so much waiting */
    struct conf_strings properties; /* "name=value" for librdkafka */
};
struct rk_redis_conf {
    const char *socket, *host, *prefix; /* socket wins; both empty: no Redis */
    int64_t port, timeout_us;
};
struct rk_cache_conf {
    bool enabled;
    int64_t ttl_us;
};
struct rk_nearline_conf {
    bool enabled, exclude_seen;
    int64_t pool_max, list_n, ttl_us, queue_max;
};
struct rk_grpc_conf {
    const char *listen; /* host:port; port 0: any, printed and written to port_file */
    const char *port_file;
    int64_t workers;   /* 0: one per core */
    int64_t split_min; /* slates from so many items on; 0: none */
    int64_t queue_max, items_max, message_bytes_max, wait_max_us;
    int64_t grace_us; /* of the drain at SIGTERM */
    int64_t spin_us;  /* looking for the next call before sleeping */
};
struct rk_admin_conf {
    const char *listen; /* "" : off */
};
struct rk_state_conf {
    const char *snapshot;
    int64_t snapshot_every_us;
    struct feat_store_conf store;
};
enum { RK_PRECISION_MODEL = 3 };
struct rk_model_conf {
    const char *path;
    int precision;       /* enum moe_precision, or RK_PRECISION_MODEL */
    int64_t cache_bytes; /* of item halves; 0: none */
    bool watch;
};
struct rk_log_conf {
    int level;
    bool json;
    const char *requests;       /* file of length-prefixed RequestLog messages; "": none */
    const char *requests_topic; /* "": none */
    int64_t requests_bytes, requests_files;
    bool rows;
};
struct rk_score_conf {
    int combine; /* sum: Σ w·p; product: Π p^w */
};

struct rk_config {
    struct rk_kafka_conf kafka;
    struct rk_redis_conf redis;
    struct rk_cache_conf cache;
    struct rk_nearline_conf nearline;
    struct rk_grpc_conf grpc;
    struct rk_admin_conf admin;
    struct rk_state_conf state;
    struct rk_model_conf serving; /* section "serving" */
    struct rk_log_conf log;
    struct rk_score_conf score; /* section "score": key combine, all other keys are task weights */
    struct moe_train_conf train;
    struct feat_plan *plan;  /* NULL when the file has no features */
    const struct node *root; /* the whole tree: model, tasks, examples, score */
    const char *file;
    struct arena arena;
};

/* `sets`: "section.key=value" overrides; of the tree sections too ("model.experts=8"). An unknown
 * section or key names file, line, key and the nearest right one. path NULL: defaults only. */
enum status rk_config_load(const char *path, const char *const *sets, int n_sets,
                           struct rk_config **out);
enum status rk_config_parse(struct slice yaml, const char *name, const char *const *sets,
                            int n_sets, struct rk_config **out);
void rk_config_free(struct rk_config *c);
void rk_config_write_markdown(struct buf *out); /* docs/config.md */
/* Model inputs as the plan lays them out; arena memory. */
void rk_inputs_from_plan(const struct feat_plan *plan, struct arena *a, struct moe_inputs *out);
