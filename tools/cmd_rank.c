/* cmd_rank.c: one ranking, for eyes: asked of a running server, or made here from a model file and
 * a snapshot. Both print the same. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/io.h"
#include "ranker/rank.h"
#include "ranker/rpc_client.h"
#include "tools/options.h"
#include "tools/report.h"
#include "tools/verbs.h"

enum { TIMEOUT_MS = 10000, KNOWN_ITEMS = 1000 };

struct options {
    struct option_config config;
    const char *connect, *model, *state, *tenant, *user, *session, *item_list, *items_file,
        *context;
    int64_t now_us, top;
    bool explain, no_cache;
};
static const struct conf_item items[] = {
    OPTION_TEXT(struct options, connect, "connect", "", "HOST:PORT", "asks a running server"),
    OPTION_CONFIG_OR(struct options, config, ""),
    OPTION_TEXT(struct options, model, "model", "", "FILE",
                "without --connect: the model; else the settings' serving.path"),
    OPTION_TEXT(struct options, state, "state", "", "FILE",
                "without --connect: the snapshot; else the settings' state.snapshot"),
    OPTION_TEXT(struct options, tenant, "tenant", "", "TENANT", "whose users and items"),
    OPTION_TEXT(struct options, user, "user", "", "USER", "for whom"),
    OPTION_TEXT(struct options, session, "session", "", "SESSION", "in which session"),
    OPTION_TEXT(struct options, item_list, "items", "", "A,B,C", "candidates"),
    OPTION_TEXT(struct options, items_file, "items-file", "", "FILE", "candidates, one a line"),
    OPTION_TEXT(struct options, context, "context", "", "NAME=VALUE,...", "fields of the request"),
    CONF_INT(struct options, now_us, "now", "0", 0, 9e18, "MICROSECONDS",
             "features as of then; 0: the server's clock, of a snapshot its newest event"),
    CONF_INT(struct options, top, "top", "10", 0, RPC_ITEMS_MAX, "N", "how many; 0: all"),
    CONF_BOOL(struct options, explain, "explain", "false",
              "feature values and gate weights of the first ten"),
    CONF_BOOL(struct options, no_cache, "no-cache", "false", "not from the result cache"),
    CONF_END};

/* ---- the request ------------------------------------------------------------------------------
 */

static int count_of(const char *text, char c) {
    int n = 1;
    for (; *text; text++)
        n += *text == c;
    return n;
}

/* "a,b,c" into slices; empty ones are left out. */
static int split(const char *text, struct slice *out) {
    int n = 0;
    while (*text) {
        size_t length = strcspn(text, ",");
        if (length)
            out[n++] = (struct slice){text, length};
        text += length + (text[length] == ',');
    }
    return n;
}

static enum status items_from_file(const char *path, struct arena *a, struct rpc_rank_request *q) {
    struct io_lines *lines;
    struct slice *list = ARENA_ARRAY(a, struct slice, RPC_ITEMS_MAX), line;
    enum status status;
    TRY(io_lines_open(path, EV_ID_BYTES_MAX, &lines));
    while ((status = io_lines_next(lines, &line)) == STATUS_OK) {
        if (line.n == 0)
            continue;
        if (q->n_items == RPC_ITEMS_MAX) {
            status = fail(STATUS_INVALID_ARGUMENT, "%s: more than %d items", path, RPC_ITEMS_MAX);
            break;
        }
        list[q->n_items++] = arena_dup(a, line);
    }
    io_lines_close(lines);
    q->items = list;
    return status == STATUS_OUT_OF_RANGE ? STATUS_OK : status;
}

static enum status read_context(const char *text, struct arena *a, struct rpc_rank_request *q) {
    struct slice *pairs = ARENA_ARRAY(a, struct slice, count_of(text, ','));
    int n = split(text, pairs);
    struct ev_field *fields = ARENA_ARRAY(a, struct ev_field, n);
    for (int i = 0; i < n; i++) {
        const char *equals = memchr(pairs[i].p, '=', pairs[i].n);
        if (!equals)
            return fail(STATUS_INVALID_ARGUMENT, "--context: '%.*s' is not NAME=VALUE",
                        SLICE_ARG(pairs[i]));
        size_t name = (size_t)(equals - pairs[i].p);
        char *value = arena_strdup(a, (struct slice){equals + 1, pairs[i].n - name - 1}), *end;
        double number = strtod(value, &end);
        fields[i].name = (struct slice){pairs[i].p, name};
        fields[i].value.type = *value && !*end ? EV_NUMBER : EV_STRING;
        if (fields[i].value.type == EV_NUMBER)
            fields[i].value.number = number;
        else
            fields[i].value.string = slice_of(value);
    }
    q->context = fields;
    q->n_context = n;
    return STATUS_OK;
}

static enum status make_request(const struct options *o, struct arena *a,
                                struct rpc_rank_request *q) {
    *q = (struct rpc_rank_request){.user = slice_of(o->user),
                                   .session = slice_of(o->session),
                                   .tenant = slice_of(o->tenant),
                                   .now_us = o->now_us,
                                   .top_n = (int)o->top,
                                   .explain = o->explain,
                                   .no_cache = o->no_cache};
    TRY(read_context(o->context, a, q));
    if (*o->items_file)
        return items_from_file(o->items_file, a, q);
    struct slice *list = ARENA_ARRAY(a, struct slice, count_of(o->item_list, ','));
    q->n_items = split(o->item_list, list);
    q->items = list;
    return STATUS_OK;
}

/* ---- the answer -------------------------------------------------------------------------------
 */

static void report_explanations(const struct rpc_rank_response *a, struct report *r) {
    report_table(r, "features", (const char *const[]){"item", "feature", "value", NULL});
    for (int i = 0; i < a->n_explanations; i++)
        for (int f = 0; f < a->explanations[i].n_features; f++) {
            const struct rpc_feature_value *v = &a->explanations[i].features[f];
            struct buf text = {0};
            for (int k = 0; k < v->n; k++)
                buf_printf(&text, "%s%g", k ? " " : "", (double)v->values[k]);
            report_str(r, NULL, a->explanations[i].item);
            report_str(r, NULL, v->name);
            report_str(r, NULL, buf_slice(&text));
            buf_deinit(&text);
        }
    report_table_end(r);
    report_table(r, "gates", (const char *const[]){"item", "gate", "expert", "weight", NULL});
    for (int i = 0; i < a->n_explanations; i++)
        for (int g = 0; g < a->explanations[i].n_gates; g++) {
            const struct rpc_gate_weights *w = &a->explanations[i].gates[g];
            for (int k = 0; k < w->n; k++) {
                report_str(r, NULL, a->explanations[i].item);
                report_str(r, NULL, w->gate);
                report_str(r, NULL, w->experts[k]);
                report_num(r, NULL, (double)w->weights[k], 4);
            }
        }
    report_table_end(r);
}

static enum status print_ranked(const struct rpc_rank_request *q, const struct rpc_rank_response *a,
                                struct arena *arena, bool json) {
    struct report r;
    int n_tasks = a->n_tasks < REPORT_COLUMNS_MAX - 3 ? a->n_tasks : REPORT_COLUMNS_MAX - 3;
    const char *columns[REPORT_COLUMNS_MAX + 1] = {"place", "item", "score"};
    for (int t = 0; t < n_tasks; t++)
        columns[3 + t] = arena_strdup(arena, a->tasks[t]);
    report_begin(&r, json);
    report_str(&r, "user", q->user);
    report_int(&r, "candidates", q->n_items);
    report_str(&r, "model_version", a->model_version);
    report_int(&r, "user_epoch", (int64_t)a->user_epoch);
    report_bool(&r, "cached", a->cached);
    report_table(&r, "ranked", columns);
    for (int i = 0; i < a->n; i++) {
        report_int(&r, NULL, i + 1);
        report_str(&r, NULL, q->items[a->order[i]]);
        report_num(&r, NULL, (double)a->scores[i], 5);
        for (int t = 0; t < n_tasks; t++)
            report_num(&r, NULL, (double)a->probabilities[t][i], 5);
    }
    report_table_end(&r);
    if (a->n_explanations)
        report_explanations(a, &r);
    return report_end(&r, stdout);
}

static enum status print_list(const struct options *o, const struct rpc_recommend_response *a,
                              bool json) {
    struct report r;
    report_begin(&r, json);
    report_cstr(&r, "user", o->user);
    report_str(&r, "origin", a->origin);
    report_str(&r, "model_version", a->model_version);
    report_int(&r, "user_epoch", (int64_t)a->user_epoch);
    report_time(&r, "made_at_us", a->made_at_us);
    report_table(&r, "ranked", (const char *const[]){"place", "item", "score", NULL});
    for (int i = 0; i < a->n; i++) {
        report_int(&r, NULL, i + 1);
        report_str(&r, NULL, a->items[i]);
        report_num(&r, NULL, (double)a->scores[i], 5);
    }
    report_table_end(&r);
    return report_end(&r, stdout);
}

/* ---- a server ---------------------------------------------------------------------------------
 */

static enum status ask_list(const struct options *o, const struct verb_call *call,
                            struct rk_client *client) {
    struct rpc_recommend_request q = {.user = slice_of(o->user), .n = (int)o->top};
    struct rpc_recommend_response answer;
    struct buf bytes = {0};
    struct slice reply;
    if (*o->tenant)
        return fail(STATUS_INVALID_ARGUMENT,
                    "--tenant: a server keeps no lists for tenants; give the candidates (--items)");
    rpc_encode_recommend_request(&q, &bytes);
    enum status status =
        rk_client_call(client, call->arena, "Recommend", buf_slice(&bytes), TIMEOUT_MS, &reply);
    buf_deinit(&bytes);
    TRY(status);
    TRY(rpc_decode_recommend_response(call->arena, reply, &answer));
    return print_list(o, &answer, call->json);
}

static enum status ask_rank(const struct rpc_rank_request *q, const struct verb_call *call,
                            struct rk_client *client) {
    struct rpc_rank_response answer;
    struct buf bytes = {0};
    struct slice reply;
    rpc_encode_rank_request(q, &bytes);
    enum status status =
        rk_client_call(client, call->arena, "Rank", buf_slice(&bytes), TIMEOUT_MS, &reply);
    buf_deinit(&bytes);
    TRY(status);
    TRY(rpc_decode_rank_response(call->arena, reply, &answer));
    for (int i = 0; i < answer.n; i++)
        if ((int64_t)answer.order[i] >= q->n_items)
            return fail(STATUS_DATA_LOSS, "the server ranks item %u of %d", answer.order[i],
                        q->n_items);
    return print_ranked(q, &answer, call->arena, call->json);
}

static enum status ask(const struct options *o, const struct verb_call *call,
                       const struct rpc_rank_request *q) {
    struct rk_client *client;
    TRY(rk_client_open(o->connect, &client));
    enum status status = q->n_items ? ask_rank(q, call, client) : ask_list(o, call, client);
    rk_client_close(client);
    return status;
}

/* ---- here -------------------------------------------------------------------------------------
 */

/* The time and candidates that were not given: the newest event's, the known items. */
static void fill_in(struct feat_state *s, struct arena *a, struct rpc_rank_request *q) {
    const struct feat_applied *applied;
    feat_state_read_begin(s);
    int n = feat_state_applied(s, a, &applied);
    for (int i = 0; !q->now_us && i < n; i++)
        if (applied[i].clock_us > q->now_us)
            q->now_us = applied[i].clock_us;
    if (!q->n_items)
        q->n_items = feat_state_items(s, a, q->tenant, KNOWN_ITEMS, &q->items);
    feat_state_read_end(s);
}

static enum status rank_with(const struct rk_bundle *b, struct feat_state *s,
                             const struct verb_call *call, struct rpc_rank_request *q) {
    struct rk_worker worker;
    struct rpc_rank_response answer;
    struct rk_seen seen;
    fill_in(s, call->arena, q);
    rk_worker_init(&worker);
    enum status status = rk_rank(b, s, &worker, q, &answer, &seen);
    if (status == STATUS_OK)
        status = print_ranked(q, &answer, call->arena, call->json);
    rk_worker_deinit(&worker);
    return status;
}

static enum status rank_here(const struct options *o, const struct verb_call *call,
                             const struct rk_config *c, struct rpc_rank_request *q) {
    struct rk_bundle *bundle;
    struct feat_state *state;
    const char *model = *o->model ? o->model : c->serving.path;
    const char *snapshot = *o->state ? o->state : c->state.snapshot;
    if (!c->plan)
        return fail(STATUS_FAILED_PRECONDITION, "%s: no section 'features'", c->file);
    if (!*model || !*snapshot)
        return fail(STATUS_INVALID_ARGUMENT,
                    "give --connect, or --model and --state with --config");
    TRY(rk_bundle_open(model, c->plan, c, &bundle));
    enum status status = feat_state_load(c->plan, snapshot, &state);
    if (status == STATUS_OK) {
        status = rank_with(bundle, state, call, q);
        feat_state_free(state);
    }
    rk_bundle_release(bundle);
    return status;
}

static enum status run(const struct verb_call *call, void *options) {
    const struct options *o = options;
    struct rpc_rank_request q;
    struct rk_config *c;
    TRY(make_request(o, call->arena, &q));
    if (*o->connect)
        return ask(o, call, &q);
    TRY(option_config_load(&o->config, &c));
    enum status status = rank_here(o, call, c, &q);
    rk_config_free(c);
    return status;
}

static const struct verb verb = {
    .name = "rank",
    .about =
        "Ranks candidates for a user and prints the best: by a running server (--connect), or here "
        "from a model file and a snapshot. Without candidates a server answers with the list it "
        "keeps ready (Recommend), and a snapshot with its known items. --explain adds what the "
        "features were and which experts the gates chose.",
    .example =
        "moerank rank --connect 127.0.0.1:7070 --user u7 --items i1,i2,i3 --explain\n"
        "moerank rank --config moerank.yaml --model model.safetensors --state state.snap --user u7",
    .items = items,
    .bytes = sizeof(struct options),
    .run = run,
};

enum status cmd_rank(int argc, char **argv) { return verb_main(&verb, argc, argv); }
