/* metarank.c: the sections of a Metarank configuration, each into those of moerank it becomes. Its
 * documentation's keys, all of them, are either taken or named.
 *
 * Deliberately not carried over: trained models (its trees are other programs' files), and state
 * (events are read again instead: they are the truth). */
#include "tools/metarank.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/heap.h"

/* ---- small things -----------------------------------------------------------------------------
 */

void metarank_note(struct metarank *m, int line, enum metarank_fate fate, const char *instead,
                   const char *what, ...) {
    va_list args;
    char text[400];
    va_start(args, what);
    vsnprintf(text, sizeof text, what, args);
    va_end(args);
    if (m->n_notes == m->cap_notes) {
        m->cap_notes = m->cap_notes == 0 ? 32 : 2 * m->cap_notes;
        m->notes = heap_grow(m->notes, (size_t)m->cap_notes * sizeof *m->notes);
    }
    m->notes[m->n_notes++] = (struct metarank_note){line, fate, arena_strdup(m->a, slice_of(text)),
                                                    arena_strdup(m->a, slice_of(instead))};
}

void metarank_other_keys(struct metarank *m, const struct node *map, const char *of,
                         const char *const *known) {
    for (const struct node *n = map->first; n != NULL; n = n->next) {
        int k = 0;
        while (known[k] != NULL && !slice_is(n->key, known[k]))
            k++;
        if (known[k] == NULL)
            metarank_note(m, n->key_line, METARANK_LEFT_OUT, "nothing reads it here", "%s: %s", of,
                          n->key.p);
    }
}

struct slice metarank_text(const struct node *map, const char *key) {
    const struct node *n = map != NULL && map->type == NODE_MAP ? node_get(map, key) : NULL;
    return n != NULL && n->type != NODE_MAP && n->type != NODE_LIST ? n->text : SLICE_LIT("");
}

bool metarank_is(const struct node *map, const char *key, const char *word) {
    return slice_is(metarank_text(map, key), word);
}

void metarank_quote(struct buf *out, struct slice text) {
    struct json j;
    json_begin(&j, out);
    json_str(&j, text);
}

const char *metarank_name(struct metarank *m, struct slice name) {
    char *s = arena_strdup(m->a, name);
    for (char *p = s; *p != '\0'; p++)
        if (!((*p | 32) >= 'a' && (*p | 32) <= 'z') && !(*p >= '0' && *p <= '9') && *p != '_' &&
            *p != '-')
            *p = '_';
    return s;
}

static void line(struct metarank *m, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void line(struct metarank *m, const char *format, ...) {
    va_list args;
    char text[1000];
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    buf_add_str(&m->out, text);
    buf_add_str(&m->out, "\n");
}

/* ---- models -----------------------------------------------------------------------------------
 */

static const char *why_not(struct slice type) {
    return slice_is(type, "shuffle") || slice_is(type, "noop")
               ? "docs/operations.md: baselines are in moerank replay --evaluate"
           : slice_is(type, "trending") ? "kind trending is a feature; Recommend serves lists"
           : slice_is(type, "als") || slice_is(type, "semantic")
               ? "Recommend serves lists of the one model"
               : "only lambdamart has an equivalent";
}

static enum status choose_model(struct metarank *m, const char *wanted) {
    const struct node *models = node_get(m->root, "models");
    for (const struct node *n = models != NULL ? models->first : NULL; n != NULL; n = n->next) {
        bool learns = metarank_is(n, "type", "lambdamart");
        if (m->model == NULL && learns && (*wanted == '\0' || slice_is(n->key, wanted)))
            m->model = n;
        else
            metarank_note(m, n->key_line, METARANK_LEFT_OUT,
                          learns ? "--model takes another; one settings file, one model"
                                 : why_not(metarank_text(n, "type")),
                          "model %s", n->key.p);
    }
    if (m->model == NULL)
        return fail(STATUS_INVALID_ARGUMENT, "%s: models: no lambdamart model%s%s", m->file,
                    *wanted != '\0' ? " of the name " : "", wanted);
    return STATUS_OK;
}

static bool model_reads(const struct metarank *m, struct slice name) {
    const struct node *list = node_get(m->model, "features");
    for (const struct node *n = list != NULL ? list->first : NULL; n != NULL; n = n->next)
        if (slice_equal(n->text, name))
            return true;
    return list == NULL;
}

/* The interactions that a model is weighed by are its tasks, and the score's weights. */
static enum status write_tasks(struct metarank *m) {
    const struct node *weights = node_get(m->model, "weights");
    if (weights == NULL || weights->type != NODE_MAP || weights->n == 0)
        return fail(STATUS_INVALID_ARGUMENT, "%s:%d: models.%s.weights: nothing to learn", m->file,
                    m->model->key_line, m->model->key.p);
    line(m, "tasks:");
    for (const struct node *n = weights->first; n != NULL; n = n->next) {
        buf_printf(&m->out, "  - {name: %s, positive: ", metarank_name(m, n->key));
        metarank_quote(&m->out, n->key);
        buf_add_str(&m->out, "}\n");
    }
    line(m, "score: {combine: sum");
    m->out.n--;
    for (const struct node *n = weights->first; n != NULL; n = n->next)
        buf_printf(&m->out, ", %s: %.*s", metarank_name(m, n->key), SLICE_ARG(n->text));
    line(m, "}");
    return STATUS_OK;
}

/* "time=80%": the last fifth validates. */
static double validation_share(struct metarank *m) {
    const struct node *split = node_get(m->model, "split");
    if (split == NULL || split->text.n == 0)
        return 0.2;
    const char *equals = memchr(split->text.p, '=', split->text.n);
    if (memcmp(split->text.p, "time", split->text.n < 4 ? split->text.n : 4) != 0)
        metarank_note(m, split->line, METARANK_DIFFERENT,
                      "the newest share is held out, as if it were the future", "split: %s",
                      split->text.p);
    double percent = equals != NULL ? strtod(equals + 1, NULL) : 80;
    return percent >= 10 && percent < 100 ? 1 - percent / 100 : 0.2;
}

static void write_model(struct metarank *m) {
    static const char *const known[] = {"type", "backend",  "weights", "features", "split",
                                        "eval", "selector", "warmup",  NULL};
    const struct node *model = m->model, *backend = node_get(model, "backend");
    struct slice seed = metarank_text(backend, "seed");
    metarank_other_keys(m, model, "model", known);
    if (backend != NULL) {
        metarank_note(m, backend->line, METARANK_DIFFERENT,
                      "a mixture of experts in place of trees; sections model and train",
                      "backend: %.*s and its settings", SLICE_ARG(metarank_text(backend, "type")));
    }
    if (node_get(model, "selector") != NULL)
        metarank_note(m, node_get(model, "selector")->line, METARANK_LEFT_OUT,
                      "send those events to a topic of their own", "selector");
    if (node_get(model, "eval") != NULL)
        metarank_note(m, node_get(model, "eval")->line, METARANK_NO_NEED,
                      "moerank replay --evaluate prints NDCG@10, AUC and calibration", "eval");
    if (node_get(model, "warmup") != NULL)
        metarank_note(m, node_get(model, "warmup")->line, METARANK_NO_NEED,
                      "a loaded model needs none", "warmup");
    line(m, "model:");
    line(m, "  numbers: {encode: [value, ple], bins: 8}");
    line(m, "  layers:");
    line(m, "    - {kind: mmoe, experts: 4, expert: {kind: mlp, hidden: [64], out: 32}}");
    line(m, "  tower: {hidden: []}");
    line(m, "  wide: true");
    line(m, "train: {epochs: 4, batch_rows: 1024, rate: 0.002, validation: %.2g%s%.*s}",
         validation_share(m), seed.n > 0 ? ", seed: " : "", SLICE_ARG(seed));
}

/* ---- where things are -------------------------------------------------------------------------
 */

static void write_state(struct metarank *m) {
    const struct node *state = node_get(m->root, "state");
    struct slice host = metarank_text(state, "host"), port = metarank_text(state, "port");
    static const char *const known[] = {"type",  "host",     "port",    "auth", "tls", "format",
                                        "cache", "pipeline", "timeout", "db",   NULL};
    if (state != NULL && state->type == NODE_MAP)
        metarank_other_keys(m, state, "state", known);
    int64_t days = m->ttl_days > 0 ? m->ttl_days : 90;
    if (!m->shared) {
        line(m, "state: {store: memory, snapshot: state.snap, ttl: %lldd}", (long long)days);
        if (state != NULL && !metarank_is(state, "type", "memory"))
            metarank_note(m, state->line, METARANK_DIFFERENT, "memory, with snapshots on disk",
                          "state.type: %.*s", SLICE_ARG(metarank_text(state, "type")));
        return;
    }
    line(m, "state: {store: redis, redis_addresses: [\"%.*s:%.*s\"], ttl: %lldd}",
         host.n > 0 ? (int)host.n : 9, host.n > 0 ? host.p : "127.0.0.1",
         port.n > 0 ? (int)port.n : 4, port.n > 0 ? port.p : "6379", (long long)days);
    if (node_get(state, "auth") != NULL)
        metarank_note(m, node_get(state, "auth")->line, METARANK_LEFT_OUT,
                      "state.redis_user, and MOERANK_STATE_REDIS_PASSWORD in the environment",
                      "state.auth");
    if (node_get(state, "tls") != NULL)
        metarank_note(m, node_get(state, "tls")->line, METARANK_LEFT_OUT,
                      "a TLS proxy beside the process", "state.tls");
    static const char *const no_need[] = {"format", "cache", "pipeline", "timeout", "db", NULL};
    for (int i = 0; no_need[i] != NULL; i++)
        if (node_get(state, no_need[i]) != NULL)
            metarank_note(m, node_get(state, no_need[i])->line, METARANK_NO_NEED,
                          "state.redis_* has its own", "state.%s", no_need[i]);
}

static void write_kafka(struct metarank *m, const struct node *source) {
    const struct node *brokers = node_get(source, "brokers"),
                      *options = node_get(source, "options");
    struct slice topic = metarank_text(source, "topic"), group = metarank_text(source, "groupId");
    struct slice offset = metarank_text(source, "offset");
    buf_add_str(&m->out, "kafka: {brokers: \"");
    for (const struct node *n = brokers != NULL ? brokers->first : NULL; n != NULL; n = n->next)
        buf_printf(&m->out, "%s%s", n->text.p, n->next != NULL ? "," : "");
    buf_add_str(&m->out, "\"");
    if (topic.n > 0)
        buf_printf(&m->out, ", topic: \"%.*s\"", SLICE_ARG(topic));
    if (group.n > 0)
        buf_printf(&m->out, ", group: \"%.*s\"", SLICE_ARG(group));
    bool plain = slice_is(offset, "earliest") || slice_is(offset, "latest");
    if (plain)
        buf_printf(&m->out, ", start: %.*s", SLICE_ARG(offset));
    line(m, "}");
    if (offset.n > 0 && !plain)
        metarank_note(m, node_get(source, "offset")->line, METARANK_LEFT_OUT,
                      "start: earliest or latest; what is too old is skipped by examples.skip",
                      "source.offset: %.*s", SLICE_ARG(offset));
    if (options != NULL)
        metarank_note(m, options->line, METARANK_LEFT_OUT,
                      "kafka.properties, with librdkafka's names", "source.options");
}

static void write_source(struct metarank *m) {
    static const char *const known[] = {"type",    "brokers", "topic", "groupId", "offset",
                                        "options", "format",  "path",  "sort",    NULL};
    const struct node *source = node_get(m->root, "source");
    struct slice type = metarank_text(source, "type"), format = metarank_text(source, "format");
    bool kafka = slice_is(type, "kafka");
    if (source != NULL && source->type == NODE_MAP)
        metarank_other_keys(m, source, "source", known);
    if (kafka)
        write_kafka(m, source);
    else
        line(m, "kafka: {brokers: \"\"}");
    if (source != NULL && !kafka)
        metarank_note(m, source->line, METARANK_DIFFERENT,
                      slice_is(type, "file") ? "--events FILE of moerank train, ingest --file FILE"
                                             : "put the events into Kafka: moerank send",
                      "source.type: %.*s", SLICE_ARG(type));
    if (format.n > 0 && !slice_is(format, "json"))
        metarank_note(m, node_get(source, "format")->line, METARANK_LEFT_OUT,
                      "JSON lines or protobuf; translate Snowplow's before", "source.format: %.*s",
                      SLICE_ARG(format));
}

static void write_api(struct metarank *m) {
    const struct node *api = node_get(m->root, "api");
    struct slice host = metarank_text(api, "host"), port = metarank_text(api, "port");
    if (api == NULL)
        return;
    line(m, "grpc: {listen: \"%.*s:%.*s\"}", host.n > 0 ? (int)host.n : 7,
         host.n > 0 ? host.p : "0.0.0.0", port.n > 0 ? (int)port.n : 4,
         port.n > 0 ? port.p : "8080");
    metarank_note(m, api->line, METARANK_DIFFERENT, "gRPC: proto/moerank.proto",
                  "api: HTTP and JSON");
}

static const struct node *join_of(const struct metarank *m) {
    const struct node *core = node_get(m->root, "core");
    return core != NULL && core->type == NODE_MAP ? node_get(core, "clickthrough") : NULL;
}

struct slice metarank_join_window(const struct metarank *m) {
    struct slice window = metarank_text(join_of(m), "maxSessionLength");
    return window.n > 0 ? window : SLICE_LIT("30m");
}

/* How long a ranking waits for its clicks, and how many do. */
static void write_examples(struct metarank *m) {
    const struct node *core = node_get(m->root, "core");
    struct slice most = metarank_text(join_of(m), "maxParallelSessions");
    line(m, "examples: {from: ranking, window: %.*s%s%.*s}", SLICE_ARG(metarank_join_window(m)),
         most.n > 0 ? ", open_max: " : "", SLICE_ARG(most));
    if (core == NULL)
        return;
    static const char *const known[] = {"clickthrough", "tracking", "import", NULL};
    metarank_other_keys(m, core, "core", known);
    if (node_get(core, "tracking") != NULL)
        metarank_note(m, node_get(core, "tracking")->key_line, METARANK_NO_NEED,
                      "nothing is ever sent anywhere", "core.tracking");
    if (node_get(core, "import") != NULL)
        metarank_note(m, node_get(core, "import")->key_line, METARANK_NO_NEED, "no such cache",
                      "core.import");
}

/* ---- the file ---------------------------------------------------------------------------------
 */

static void read_features(struct metarank *m, const struct node *list) {
    for (const struct node *f = list->first; f != NULL; f = f->next) {
        struct slice name = metarank_text(f, "name");
        if (f->type != NODE_MAP || name.n == 0)
            metarank_note(m, f->line, METARANK_LEFT_OUT, "give it a name",
                          "a feature without name");
        else if (!model_reads(m, name))
            metarank_note(m, f->line, METARANK_NO_NEED, "add it to the model to have it",
                          "%s: model %s does not read it", name.p, m->model->key.p);
        else
            metarank_feature(m, f);
    }
}

static void note_sections(struct metarank *m) {
    static const char *const known[] = {"features", "models", "state",     "source", "api",
                                        "core",     "train",  "inference", NULL};
    metarank_other_keys(m, m->root, m->file, known);
    if (node_get(m->root, "train") != NULL)
        metarank_note(m, node_get(m->root, "train")->key_line, METARANK_NO_NEED,
                      "moerank train makes the examples of the events themselves", "train");
    if (node_get(m->root, "inference") != NULL)
        metarank_note(m, node_get(m->root, "inference")->key_line, METARANK_LEFT_OUT,
                      "run encoders before, and send their scores per item", "inference");
}

static int by_line(const void *a, const void *b) {
    const struct metarank_note *x = a, *y = b;
    return x->line != y->line ? x->line - y->line : strcmp(x->what, y->what);
}

enum status metarank_read(struct metarank *m, const struct node *root, const char *file,
                          const char *model, const struct metarank_sample *sample) {
    m->root = root;
    m->file = file;
    m->sample = sample;
    const struct node *features = root->type == NODE_MAP ? node_get(root, "features") : NULL;
    if (features == NULL || features->type != NODE_LIST)
        return fail(STATUS_INVALID_ARGUMENT, "%s: no list 'features'; is it Metarank's?", file);
    m->shared = metarank_is(node_get(root, "state"), "type", "redis");
    TRY(choose_model(m, model));
    read_features(m, features);
    if (m->n_features == 0)
        return fail(STATUS_INVALID_ARGUMENT, "%s: no feature has an equivalent", file);
    line(m, "# Made by moerank import-metarank. Every key: docs/config.md, docs/features.md.");
    write_source(m);
    write_api(m);
    write_state(m);
    line(m, "lateness: 30m");
    line(m, "features:");
    buf_add(&m->out, m->features.p, m->features.n);
    write_examples(m);
    TRY(write_tasks(m));
    write_model(m);
    note_sections(m);
    qsort(m->notes, (size_t)m->n_notes, sizeof *m->notes, by_line);
    return STATUS_OK;
}

void metarank_deinit(struct metarank *m) {
    buf_deinit(&m->features);
    buf_deinit(&m->out);
    heap_free(m->notes);
}
