/* config.c: one YAML file -> struct rk_config.
 *
 * Every section with fixed keys is a settings table: reading, environment, --set and docs/config.md
 * are loops over `sections`. Sections that are trees (features, tasks, model, ...) belong to their
 * own readers; here they are only known by name, so that a misspelt one is caught.
 *
 * The defaults are safe: loopback only, and nothing is sent anywhere until an address is given.
 * Deliberately no include files and no templates. */
#include "ranker/config.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/heap.h"
#include "base/io.h"
#include "ranker/labels.h"

#define SECOND_US 1e6
#define DAY_US    (86400 * SECOND_US)

static const struct conf_item kafka_items[] = {
    CONF_STRING(struct rk_kafka_conf, brokers, "brokers", "",
                "host:port, comma-separated. Empty: no Kafka; nothing is ingested or sent."),
    CONF_STRING(struct rk_kafka_conf, topic, "topic", "events", "Where events come from."),
    CONF_STRING(struct rk_kafka_conf, dead_letter_topic, "dead_letter_topic", "events-dead",
                "Where undecodable, invalid and late events go, with the reason in a header."),
    CONF_STRING(struct rk_kafka_conf, group, "group", "moerank", "Consumer group."),
    CONF_ENUM(struct rk_kafka_conf, start, "start", "earliest", "earliest|latest",
              "Where a partition starts of which the state has seen nothing."),
    CONF_INT(struct rk_kafka_conf, batch_events, "batch_events", "500", 1, 100000, "events",
             "Most events of a micro-batch, which becomes visible as a whole."),
    CONF_TIME(struct rk_kafka_conf, batch_time_us, "batch_time", "50ms", 1e3, 10 * SECOND_US,
              "Longest wait for the first event of a micro-batch."),
    CONF_STRINGS(struct rk_kafka_conf, properties, "properties", "",
                 "librdkafka properties, each as name=value, e.g. for TLS and SASL."),
    CONF_END};

static const struct conf_item redis_items[] = {
    CONF_STRING(struct rk_redis_conf, socket, "socket", "", "Unix socket; wins over host."),
    CONF_STRING(struct rk_redis_conf, host, "host", "",
                "Host. Empty, and no socket: no Redis; lists are kept in memory."),
    CONF_INT(struct rk_redis_conf, port, "port", "6379", 1, 65535, "", "Port."),
    CONF_STRING(struct rk_redis_conf, prefix, "prefix", "moerank:", "Goes before every key."),
    CONF_TIME(struct rk_redis_conf, timeout_us, "timeout", "50ms", 1e3, 10 * SECOND_US,
              "Longest wait for one answer; then the call goes on without Redis."),
    CONF_END};

static const struct conf_item cache_items[] = {
    CONF_BOOL(struct rk_cache_conf, enabled, "enabled", "true",
              "Keep Rank's answers in Redis, by model, user epoch and slate."),
    CONF_TIME(struct rk_cache_conf, ttl_us, "ttl", "60s", 1e3, 30 * DAY_US,
              "How long; also how stale an item's own features may be in a cached answer."),
    CONF_END};

static const struct conf_item nearline_items[] = {
    CONF_BOOL(struct rk_nearline_conf, enabled, "enabled", "true",
              "Rank a user's pool again when an event of the user was applied."),
    CONF_BOOL(struct rk_nearline_conf, exclude_seen, "exclude_seen", "true",
              "Leave out the items in the user's last_n features."),
    CONF_INT(struct rk_nearline_conf, pool_max, "pool_max", "2000", 1, 20000, "items",
             "Candidates of a list: the known items with the most events."),
    CONF_INT(struct rk_nearline_conf, list_n, "list_n", "50", 1, 1000, "items",
             "Items kept of a list."),
    CONF_TIME(struct rk_nearline_conf, ttl_us, "ttl", "24h", 1e3, 365 * DAY_US,
              "How long Redis keeps a list."),
    CONF_INT(struct rk_nearline_conf, queue_max, "queue_max", "10000", 1, 10000000, "users",
             "Users waiting to be ranked again; beyond, they are left out and counted."),
    CONF_END};

static const struct conf_item grpc_items[] = {
    CONF_STRING(struct rk_grpc_conf, listen, "listen", "127.0.0.1:7070",
                "host:port, or unix:/path. Port 0: any. Beyond loopback, put a proxy in front: "
                "there is no authentication here."),
    CONF_STRING(struct rk_grpc_conf, port_file, "port_file", "",
                "The port is written here once calls are answered."),
    CONF_INT(struct rk_grpc_conf, workers, "workers", "0", 0, 256, "threads",
             "Threads that rank; 0: one per core."),
    CONF_INT(struct rk_grpc_conf, split_min, "split_min", "200", 0, RPC_ITEMS_MAX, "items",
             "Slates from so many items on are split over idle workers; 0: none is."),
    CONF_INT(struct rk_grpc_conf, queue_max, "queue_max", "256", 1, 1000000, "calls",
             "Calls waiting for a worker; beyond, they are refused with RESOURCE_EXHAUSTED."),
    CONF_INT(struct rk_grpc_conf, items_max, "items_max", "2000", 1, RPC_ITEMS_MAX, "items",
             "Most candidates of a Rank call."),
    CONF_BYTES(struct rk_grpc_conf, message_bytes_max, "message_max", "4MiB", 1024, 1 << 30,
               "Largest request."),
    CONF_TIME(struct rk_grpc_conf, wait_max_us, "wait_max", "5s", 0, 600 * SECOND_US,
              "Longest wait for an `after` token, whatever the call's deadline."),
    CONF_TIME(struct rk_grpc_conf, grace_us, "grace", "10s", 0, 3600 * SECOND_US,
              "At SIGTERM: how long calls in flight may take to finish."),
    CONF_TIME(
        struct rk_grpc_conf, spin_us, "spin", "50us", 0, SECOND_US,
        "How long a thread looks for the next call before it sleeps, as long as calls come one at a "
        "time and that soon, and nobody else wants the CPU. 0: not."),
    CONF_END};

static const struct conf_item admin_items[] = {
    CONF_STRING(struct rk_admin_conf, listen, "listen", "",
                "host:port of /metrics and /healthz. Empty: off."),
    CONF_END};

static const struct conf_item state_items[] = {
    CONF_STRING(struct rk_state_conf, snapshot, "snapshot", "",
                "File of the state and its offsets. Empty: none; a restart reads the topic again."),
    CONF_TIME(struct rk_state_conf, snapshot_every_us, "snapshot_every", "10s", 1e3, DAY_US,
              "How often it is written; offsets are committed after it."),
    CONF_ENUM(struct rk_state_conf, store.kind, "store", "memory", FEAT_STORE_CHOICES,
              "memory: of this process, with snapshots. redis: shared by any number of ingesters "
              "and rankers; it keeps the offsets, too, and needs no snapshot."),
    CONF_TIME(struct rk_state_conf, store.ttl_us, "ttl", "0", 0, 3650 * DAY_US,
              "What nothing happened to for so long is forgotten, in memory up to a quarter "
              "later. 0: never."),
    CONF_BYTES(struct rk_state_conf, store.budget_bytes, "budget", "0", 0, 1ull << 50,
               "Memory store: beyond so many bytes, what was not used for longest is forgotten. "
               "0: no limit. Empty tables take 140 KiB, which no budget lowers."),
    CONF_ENUM(struct rk_state_conf, store.on_unavailable, "on_unavailable", "fail",
              FEAT_UNAVAILABLE_CHOICES,
              "Redis is away: Rank fails, or ranks with all that is remembered missing."),
    CONF_ENUM(struct rk_state_conf, store.redis.mode, "redis_mode", "single",
              "single|cluster|sentinel", "What the addresses are."),
    CONF_STRINGS(struct rk_state_conf, store.redis.addresses, "redis_addresses", "",
                 "host:port or unix:/path: the server, some nodes of the cluster, or the "
                 "sentinels. Empty: the server of section redis."),
    CONF_STRING(struct rk_state_conf, store.redis.master, "redis_master", "",
                "What the sentinels call the master."),
    CONF_STRING(struct rk_state_conf, store.redis.user, "redis_user", "", "For AUTH."),
    CONF_STRING(struct rk_state_conf, store.redis.password, "redis_password", "",
                "For AUTH; empty: none. Better given as MOERANK_STATE_REDIS_PASSWORD."),
    CONF_TIME(struct rk_state_conf, store.redis.timeout_us, "redis_timeout", "500ms", 1e3,
              60 * SECOND_US, "Longest wait for one answer."),
    CONF_STRING(struct rk_state_conf, store.prefix, "redis_prefix",
                "moerank:state:", "Goes before every key. One plan, one prefix."),
    CONF_INT(struct rk_state_conf, store.buckets, "redis_buckets", "64", 1, 4096, "slots",
             "Into how many slots of a cluster the keys go; fixed once there are keys."),
    CONF_BYTES(struct rk_state_conf, store.near_bytes, "redis_near", "64MiB", 0, 1ull << 40,
               "What each of the threads that rank keeps of records it has read until Redis says "
               "that they changed (its client-side caching, since Redis 6). Not with a cluster. "
               "0: nothing."),
    CONF_TIME(struct rk_state_conf, store.near_us, "redis_near_age", "20ms", 0, 5 * SECOND_US,
              "How long a thread ranks by what it keeps without asking Redis."),
    CONF_END};

static const struct conf_item serving_items[] = {
    CONF_STRING(struct rk_model_conf, path, "path", "",
                "Model file (safetensors). Empty: none; Rank is refused."),
    CONF_ENUM(struct rk_model_conf, precision, "precision", "model", "fp32|bf16|int8|model",
              "Of the packed weights. model: what `moerank quantize` published it for, else fp32."),
    CONF_BYTES(struct rk_model_conf, cache_bytes, "item_cache", "256MiB", 0, 1ull << 40,
               "Budget of the candidate halves of the first layers, kept by item; taken as it is "
               "needed. Left out, and logged, where features hang on user and item together. "
               "0: off."),
    CONF_BOOL(struct rk_model_conf, watch, "watch", "true",
              "Serve a new file at `path` as soon as it is there; one that does not fit is left."),
    CONF_END};

static const struct conf_item log_items[] = {
    CONF_ENUM(struct rk_log_conf, level, "level", "info", "debug|info|warn|error",
              "Least level that is written."),
    CONF_BOOL(struct rk_log_conf, json, "json", "false", "One JSON object a line."),
    CONF_STRING(
        struct rk_log_conf, requests, "requests", "",
        "File of served requests, for `moerank replay` and `moerank train --served`. With a "
        "name that ends in .zst it is compressed. Empty: none."),
    CONF_STRING(struct rk_log_conf, requests_topic, "requests_topic", "",
                "Kafka topic of served requests, a message each; how long they stay is the topic's "
                "retention.ms. Empty: none."),
    CONF_BYTES(struct rk_log_conf, requests_bytes, "requests_bytes", "1GiB", 1024, 1ull << 50,
               "A longer file of requests is moved away to NAME.1, NAME.1 to NAME.2, and so on."),
    CONF_INT(struct rk_log_conf, requests_files, "requests_files", "9", 1, 999, "files",
             "So many moved ones stay; older ones are deleted."),
    CONF_BOOL(struct rk_log_conf, rows, "rows", "true",
              "Requests are logged with the rows that the model was given: for training on what "
              "was served, and to see which feature differs if one does."),
    CONF_END};

static const struct conf_item score_items[] = {
    CONF_ENUM(struct rk_score_conf, combine, "combine", "sum", "sum|product",
              "sum: score = sum of weight * probability; product: product of probability ^ weight. "
              "Every other key of this section is a task and its weight; when none is given, all "
              "tasks weigh 1."),
    CONF_END};

struct section {
    const char *name;
    const struct conf_item *items;
    size_t offset;
    const char *doc;
};
#define SECTION(name, field, items, doc)                                                           \
    { name, items, offsetof(struct rk_config, field), doc }
static const struct section sections[] = {
    SECTION("kafka", kafka, kafka_items, "Where events come from and feedback goes."),
    SECTION("redis", redis, redis_items, "Result cache and ready lists."),
    SECTION("cache", cache, cache_items, "The cache of Rank's answers."),
    SECTION("nearline", nearline, nearline_items, "The lists Recommend serves."),
    SECTION("grpc", grpc, grpc_items, "The ranking service."),
    SECTION("admin", admin, admin_items, "HTTP for probes and Prometheus."),
    SECTION("state", state, state_items, "What is remembered, and where it is kept."),
    SECTION("serving", serving, serving_items, "The model that is served."),
    SECTION("log", log, log_items, "Logs."),
    SECTION("score", score, score_items, "How tasks make one score."),
    SECTION("train", train, moe_train_items, "`moerank train`."),
};
enum { N_SECTIONS = sizeof sections / sizeof sections[0] };
static const char *const trees[] = {"lateness", "ahead", "features", "examples",
                                    "table",    "tasks", "model"};
enum { N_TREES = sizeof trees / sizeof trees[0] };

/* All names a file may have at its top, NULL-ended. */
static const char *const *known_words(void) {
    static const char *words[N_SECTIONS + N_TREES + 1];
    for (int i = 0; i < N_SECTIONS; i++)
        words[i] = sections[i].name;
    for (int i = 0; i < N_TREES; i++)
        words[N_SECTIONS + i] = trees[i];
    return words;
}

static bool is_known(struct slice word) {
    for (const char *const *w = known_words(); *w; w++)
        if (slice_is(word, *w))
            return true;
    return false;
}

static enum status fail_section(const char *where, int line, struct slice word) {
    const char *near = conf_nearest(word, known_words());
    char at[24] = "";
    if (line > 0)
        snprintf(at, sizeof at, ":%d", line);
    return fail(STATUS_INVALID_ARGUMENT, "%s%s: %.*s: unknown section%s%s%s", where, at,
                SLICE_ARG(word), near ? "; did you mean '" : "", near ? near : "",
                near ? "'?" : "");
}

static const struct section *find_section(struct slice name) {
    for (int i = 0; i < N_SECTIONS; i++)
        if (slice_is(name, sections[i].name))
            return &sections[i];
    return NULL;
}

static void *section_of(struct rk_config *c, const struct section *s) {
    return (char *)c + s->offset;
}

/* Task weights stand beside `combine`: their keys are the caller's, their values numbers. */
static enum status score_keys(struct rk_config *c, const struct node *map,
                              const char *const **also) {
    const char **words = ARENA_ARRAY(&c->arena, const char *, (map ? map->n : 0) + 1);
    int n = 0;
    for (const struct node *k = map && map->type == NODE_MAP ? map->first : NULL; k; k = k->next) {
        if (slice_is(k->key, "combine"))
            continue;
        if (k->type != NODE_NUMBER)
            return fail(STATUS_INVALID_ARGUMENT, "%s:%d: score.%.*s: a task's weight is a number",
                        c->file, k->key_line, SLICE_ARG(k->key));
        words[n++] = arena_strdup(&c->arena, k->key);
    }
    *also = words;
    return STATUS_OK;
}

static enum status read_sections(struct rk_config *c) {
    for (int i = 0; i < N_SECTIONS; i++) {
        const struct section *s = &sections[i];
        const struct node *map = c->root->type == NODE_MAP ? node_get(c->root, s->name) : NULL;
        const char *const *also = NULL;
        if (s->items == score_items)
            TRY(score_keys(c, map, &also));
        TRY(conf_read(s->items, map, (struct conf_place){c->file, s->name}, also, section_of(c, s),
                      &c->arena));
    }
    return STATUS_OK;
}

static enum status read_environment(struct rk_config *c) {
    for (int i = 0; i < N_SECTIONS; i++) {
        const struct section *s = &sections[i];
        for (const struct conf_item *item = s->items; item->key; item++) {
            char *name = arena_printf(&c->arena, "MOERANK_%s_%s", s->name, item->key);
            for (char *p = name; *p; p++)
                *p = (char)toupper((unsigned char)*p);
            const char *value = getenv(name);
            if (value)
                TRY(conf_set(s->items, slice_of(item->key), slice_of(value),
                             (struct conf_place){name, s->name}, section_of(c, s), &c->arena));
        }
    }
    return STATUS_OK;
}

static struct node *child_of(struct node *map, struct slice key) {
    for (struct node *k = map->first; k; k = k->next)
        if (slice_equal(k->key, key))
            return k;
    return NULL;
}

static struct node *add_child(struct arena *a, struct node *map, struct slice key) {
    struct node *k = ARENA_NEW(a, struct node);
    k->key = arena_dup(a, key);
    struct node **end = &map->first;
    while (*end)
        end = &(*end)->next;
    *end = k;
    map->n++;
    return k;
}

/* Puts a value into the tree at "a.b.c", making maps on the way. Lists cannot be entered. */
static enum status set_in_tree(struct rk_config *c, struct node *root, struct slice path,
                               struct slice value, const char *set) {
    struct node *at = root;
    while (path.n) {
        const char *dot = memchr(path.p, '.', path.n);
        struct slice key = {path.p, dot ? (size_t)(dot - path.p) : path.n};
        path.p += key.n + (dot != NULL);
        path.n -= key.n + (dot != NULL);
        if (at->type != NODE_MAP && at->type != NODE_NULL)
            return fail(STATUS_INVALID_ARGUMENT, "--set %s: '%.*s' is inside a %s", set,
                        SLICE_ARG(key), node_type_word(at->type));
        at->type = NODE_MAP;
        struct node *child = child_of(at, key);
        at = child ? child : add_child(&c->arena, at, key);
    }
    struct node *parsed = NULL;
    TRY(node_parse_yaml(&c->arena, arena_dup(&c->arena, value), "--set", &parsed));
    struct slice key = at->key;
    struct node *next = at->next;
    *at = *parsed;
    at->key = key;
    at->next = next;
    return STATUS_OK;
}

/* One "--set". Trees are changed before they are read, tables after. */
static enum status apply_set(struct rk_config *c, struct node *root, const char *set,
                             bool trees_now) {
    const char *dot = strchr(set, '.'), *eq = strchr(set, '=');
    bool dotted = dot && eq && dot < eq;
    if (!eq || (!dotted && strncmp(set, "lateness=", 9) != 0 && strncmp(set, "ahead=", 6) != 0))
        return fail(STATUS_INVALID_ARGUMENT, "--set %s: write it as section.key=value", set);
    struct slice name = {set, (size_t)((dotted ? dot : eq) - set)};
    const struct section *s = find_section(name);
    if (!s && !is_known(name))
        return fail_section("--set", 0, name);
    struct slice value = slice_of(eq + 1);
    bool weight = s && s->items == score_items && strncmp(dot, ".combine=", 9) != 0;
    if (!s || weight)
        return trees_now ? set_in_tree(c, root, (struct slice){set, (size_t)(eq - set)}, value, set)
                         : STATUS_OK;
    struct slice key = {dot + 1, (size_t)(eq - dot - 1)};
    return trees_now ? STATUS_OK
                     : conf_set(s->items, key, value, (struct conf_place){"--set", s->name},
                                section_of(c, s), &c->arena);
}

/* The plan's reader wants a map of its own keys. */
static enum status read_plan(struct rk_config *c) {
    struct node *map = ARENA_NEW(&c->arena, struct node);
    map->type = NODE_MAP;
    map->line = c->root->line;
    struct node **end = &map->first;
    for (const struct node *k = c->root->first; k; k = k->next) {
        if (!slice_is(k->key, "lateness") && !slice_is(k->key, "ahead") &&
            !slice_is(k->key, "features"))
            continue;
        struct node *copy = ARENA_NEW(&c->arena, struct node);
        *copy = *k;
        copy->next = NULL;
        *end = copy;
        end = &copy->next;
        map->n++;
    }
    if (node_get(map, "features"))
        TRY(feat_plan_parse(map, c->file, &c->plan));
    return STATUS_OK;
}

static enum status check_properties(const struct rk_config *c) {
    for (int i = 0; i < c->kafka.properties.n; i++) {
        const char *p = c->kafka.properties.v[i];
        if (!strchr(p, '=') || *p == '=')
            return fail(STATUS_INVALID_ARGUMENT,
                        "%s: kafka.properties: '%s' is not name=value, as in "
                        "security.protocol=ssl",
                        c->file, p);
    }
    return STATUS_OK;
}

/* Weights are of tasks that exist, where the file has tasks. */
static enum status check_score(const struct rk_config *c, struct arena *a) {
    const struct node *score = node_get(c->root, "score"), *tasks = node_get(c->root, "tasks");
    if (!score || !tasks || tasks->type != NODE_LIST)
        return STATUS_OK;
    const char **names = ARENA_ARRAY(a, const char *, tasks->n + 2);
    int n = 0;
    names[n++] = "combine";
    for (const struct node *t = tasks->first; t; t = t->next) {
        const struct node *name = t->type == NODE_MAP ? node_get(t, "name") : NULL;
        if (name)
            names[n++] = arena_strdup(a, name->text);
    }
    for (const struct node *k = score->first; k; k = k->next) {
        int i = 0;
        while (i < n && !slice_is(k->key, names[i]))
            i++;
        const char *near = i < n ? NULL : conf_nearest(k->key, names);
        if (i == n)
            return fail(STATUS_INVALID_ARGUMENT, "%s:%d: score.%.*s: no such task%s%s%s", c->file,
                        k->key_line, SLICE_ARG(k->key), near ? "; did you mean '" : "",
                        near ? near : "", near ? "'?" : "");
    }
    return STATUS_OK;
}

/* The state's Redis is the one of section redis, unless it has addresses of its own. */
static void share_redis(struct rk_config *c) {
    struct conf_strings *a = &c->state.store.redis.addresses;
    if (a->n > 0 || (!*c->redis.socket && !*c->redis.host))
        return;
    a->v = ARENA_ARRAY(&c->arena, const char *, 1);
    a->v[0] = *c->redis.socket
                  ? arena_printf(&c->arena, "unix:%s", c->redis.socket)
                  : arena_printf(&c->arena, "%s:%d", c->redis.host, (int)c->redis.port);
    a->n = 1;
}

static enum status fill(struct rk_config *c, struct slice yaml, const char *const *sets,
                        int n_sets) {
    struct node *root = NULL;
    TRY(node_parse_yaml(&c->arena, arena_dup(&c->arena, yaml), c->file, &root));
    if (root->type != NODE_MAP && root->type != NODE_NULL)
        return fail(STATUS_INVALID_ARGUMENT, "%s: a settings file is a map of sections, not a %s",
                    c->file, node_type_word(root->type));
    c->root = root;
    for (const struct node *k = root->first; k; k = k->next)
        if (!is_known(k->key))
            return fail_section(c->file, k->key_line, k->key);
    for (int i = 0; i < n_sets; i++)
        TRY(apply_set(c, root, sets[i], true));
    TRY(read_sections(c));
    TRY(read_environment(c));
    for (int i = 0; i < n_sets; i++)
        TRY(apply_set(c, root, sets[i], false));
    share_redis(c);
    TRY(check_properties(c));
    TRY(check_score(c, &c->arena));
    return read_plan(c);
}

enum status rk_config_parse(struct slice yaml, const char *name, const char *const *sets,
                            int n_sets, struct rk_config **out) {
    struct rk_config *c = HEAP_NEW(struct rk_config);
    arena_init(&c->arena, 0);
    c->file = arena_strdup(&c->arena, slice_of(name));
    enum status status = fill(c, yaml, sets, n_sets);
    if (status != STATUS_OK) {
        rk_config_free(c);
        return status;
    }
    *out = c;
    return STATUS_OK;
}

enum status rk_config_load(const char *path, const char *const *sets, int n_sets,
                           struct rk_config **out) {
    struct buf text = {0};
    enum status status = path ? io_read_file(path, 16 << 20, &text) : STATUS_OK;
    if (status == STATUS_OK)
        status = rk_config_parse(buf_slice(&text), path ? path : "defaults", sets, n_sets, out);
    buf_deinit(&text);
    return status;
}

void rk_config_free(struct rk_config *c) {
    if (!c)
        return;
    feat_plan_free(c->plan);
    arena_deinit(&c->arena);
    heap_free(c);
}

void rk_config_write_markdown(struct buf *out) {
    buf_add_str(out, "# Settings\n\n"
                     "One YAML file for every verb. Precedence: defaults, file, environment "
                     "(`MOERANK_SECTION_KEY`), `--set section.key=value`.\n"
                     "The sections `features`, `examples`, `tasks` and `model` are described in "
                     "docs/features.md and docs/models.md; `examples` and `tasks` also below.\n");
    for (int i = 0; i < N_SECTIONS; i++) {
        buf_printf(out, "\n## %s\n\n%s\n\n", sections[i].name, sections[i].doc);
        conf_write_markdown(sections[i].items, out);
    }
    buf_add_str(out, "\n## examples\n\nHow events become training examples.\n\n");
    conf_write_markdown(rk_examples_items, out);
    buf_add_str(out, "\n## tasks\n\nA list; of each task:\n\n");
    conf_write_markdown(rk_task_items, out);
}

void rk_inputs_from_plan(const struct feat_plan *plan, struct arena *a, struct moe_inputs *out) {
    int n_ids = 0;
    struct moe_id_input *ids = ARENA_ARRAY(a, struct moe_id_input, plan->n_features);
    for (int i = 0; i < plan->n_features; i++) {
        const struct feat *f = plan->features[i];
        if (f->n_slots > 0)
            ids[n_ids++] =
                (struct moe_id_input){f->name, f->side == FEAT_USER || f->side == FEAT_CONTEXT,
                                      f->slot, f->n_slots, f->table};
    }
    struct moe_table_spec *tables = ARENA_ARRAY(a, struct moe_table_spec, plan->n_tables);
    for (int i = 0; i < plan->n_tables; i++)
        tables[i] = (struct moe_table_spec){plan->tables[i].name, plan->tables[i].rows,
                                            plan->tables[i].dim};
    *out = (struct moe_inputs){.query_columns = plan->query_columns,
                               .cand_columns = plan->cand_columns,
                               .query_names = plan->query_names,
                               .cand_names = plan->cand_names,
                               .query_slots = plan->query_slots,
                               .cand_slots = plan->cand_slots,
                               .ids = ids,
                               .n_ids = n_ids,
                               .tables = tables,
                               .n_tables = plan->n_tables};
}
