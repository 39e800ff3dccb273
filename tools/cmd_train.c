/* cmd_train.c: recorded events -> examples -> a model file, and the state as it is after the last
 * event, so that serving can go on from there. Equal events, settings and seed give the same model
 * version. */
#include <math.h>
#include <stdio.h>
#include "base/clock.h"
#include "base/heap.h"
#include "moe/report/eval.h"
#include "tools/gate_states.h"
#include "tools/harvest.h"
#include "tools/options.h"
#include "tools/report.h"
#include "tools/train_table.h"
#include "tools/verbs.h"

struct options {
    struct option_config config;
    const char *events, *model, *state, *served;
    struct train_table_options table;
};
static const struct conf_item items[] = {
    OPTION_CONFIG(struct options, config),
    OPTION_TEXT(struct options, model, "model", "", "FILE",
                "the model is written here (safetensors)"),
    OPTION_TEXT(
        struct options, events, "events", "", "FILE",
        "JSON lines, plain or compressed, instead of the settings' Kafka topic; - is stdin"),
    OPTION_TEXT(struct options, state, "state", "", "FILE",
                "a snapshot of the state after the last event is written here"),
    OPTION_TEXT(struct options, served, "served", "", "FILE",
                "examples are the requests in this log of the server (log.requests), with the rows "
                "it was given then, or 'topic': those of the settings' log.requests_topic; events "
                "only say what came of them"),
    OPTION_TEXT(struct options, table.table, "table", "", "FILE",
                "train on the labelled rows of this file instead (csv, tsv, jsonl, libsvm; the "
                "settings' section table says what its columns are)"),
    OPTION_TEXT(struct options, table.test, "test", "", "FILE",
                "with --table: figures of the model on this file's rows"),
    OPTION_TEXT(struct options, table.predictions, "predictions", "", "FILE",
                "with --test: what the model says of its rows, as CSV"),
    CONF_END};

struct fit {
    struct harvest harvest;
    struct moe_examples *examples;
    struct moe_train_report report;
    struct moe_model *model;
};

/* Where it came from, kept in the model file. */
static void describe(struct fit *f, struct arena *a) {
    const struct harvest *h = &f->harvest;
    struct buf tasks = {0};
    struct json j;
    json_begin(&j, &tasks);
    json_array(&j);
    for (int t = 0; t < h->tasks.n; t++)
        json_cstr(&j, h->tasks.specs[t].name);
    json_array_end(&j);
    moe_model_meta_set(f->model, "plan", h->config->plan->json);
    moe_model_meta_set(f->model, "tasks", arena_strdup(a, buf_slice(&tasks)));
    moe_model_meta_set(f->model, "trained_at_us",
                       arena_printf(a, "%lld", (long long)clock_wall_us()));
    moe_model_meta_set(f->model, "events", arena_printf(a, "%lld", (long long)h->applied));
    moe_model_meta_set(f->model, "last_event_us",
                       arena_printf(a, "%lld", (long long)h->last_event_us));
    moe_model_meta_set(f->model, "rows", arena_printf(a, "%d", f->examples->n_rows));
    buf_deinit(&tasks);
}

static void report_events(const struct harvest *h, struct report *r) {
    report_group(r, "events");
    report_int(r, "applied", h->applied);
    report_int(r, "repeated", h->repeated);
    report_int(r, "dead_lettered", h->bad + h->late);
    report_int(r, "late", h->late);
    report_num(r, "seconds", h->seconds, 2);
    report_num(r, "per_s", (double)(h->applied + h->bad + h->late) / h->seconds, 0);
    report_group_end(r);
}

/* Log loss of one task over the rows from `first` on, of which p [x n_tasks] tells. */
static double task_logloss(const struct moe_examples *x, const float *p, int first, int task) {
    int n = x->n_rows - first;
    size_t T = (size_t)x->n_tasks;
    float *probabilities = HEAP_ARRAY(float, n + 1), *labels = HEAP_ARRAY(float, n + 1);
    for (int i = 0; i < n; i++) {
        probabilities[i] = p[(size_t)i * T + (size_t)task];
        labels[i] = x->labels[(size_t)(first + i) * T + (size_t)task];
    }
    double loss = moe_logloss(probabilities, labels, n);
    heap_free(probabilities);
    heap_free(labels);
    return loss;
}

static void report_tasks(const struct fit *f, struct report *r) {
    const struct moe_examples *x = f->examples;
    const struct harvest *h = &f->harvest;
    int held = (int)(h->config->train.validation * x->n_groups), held_rows = 0;
    while (held_rows < x->n_rows && x->group[x->n_rows - 1 - held_rows] >= x->n_groups - held)
        held_rows++;
    float *p = HEAP_ARRAY(float, (size_t)held_rows *(size_t)x->n_tasks + 1);
    int first = moe_predict_from(f->model, x, x->n_groups - held, p);
    report_table(r, "tasks",
                 (const char *const[]){"task", "rows", "positives", "validation_auc",
                                       "validation_logloss", NULL});
    for (int t = 0; t < h->tasks.n; t++) {
        int64_t rows = 0, positives = 0;
        for (int i = 0; i < x->n_rows; i++) {
            float label = x->labels[(size_t)i * (size_t)x->n_tasks + (size_t)t];
            rows += !isnan(label);
            positives += label > 0.5f;
        }
        report_cstr(r, NULL, h->tasks.specs[t].name);
        report_int(r, NULL, rows);
        report_int(r, NULL, positives);
        report_num(r, NULL, f->report.validation_auc ? f->report.validation_auc[t] : NAN, 4);
        report_num(r, NULL, task_logloss(x, p, first, t), 4);
    }
    report_table_end(r);
    heap_free(p);
}

static enum status print_result(const struct fit *f, const struct options *o, bool json) {
    struct report r;
    report_begin(&r, json);
    report_events(&f->harvest, &r);
    if (*o->served) {
        report_int(&r, "served", f->harvest.n_served);
        report_int(&r, "left_out", f->harvest.left_out);
    }
    report_int(&r, "groups", f->examples->n_groups);
    report_int(&r, "rows", f->examples->n_rows);
    report_int(&r, "epochs", f->report.epochs_run);
    report_int(&r, "best_epoch", f->report.best_epoch);
    if (f->report.bad_steps)
        report_int(&r, "bad_steps", f->report.bad_steps);
    report_num(&r, "train_loss", f->report.train_loss, 4);
    report_num(&r, "validation_loss", f->report.validation_loss, 4);
    report_tasks(f, &r);
    gate_states_report(f->model, &r);
    report_num(&r, "seconds", f->report.seconds, 2);
    report_num(&r, "rows_per_s", f->report.rows_per_s, 0);
    report_int(&r, "floats", (int64_t)moe_model_floats(f->model));
    report_cstr(&r, "version", moe_model_version(f->model));
    report_cstr(&r, "model", o->model);
    if (*o->state)
        report_cstr(&r, "state", o->state);
    return report_end(&r, stdout);
}

static enum status fit(const struct verb_call *call, const struct options *o,
                       const struct rk_config *c, struct fit *f) {
    struct harvest *h = &f->harvest;
    const struct node *spec = node_get(c->root, "model");
    if (!spec)
        return fail(STATUS_FAILED_PRECONDITION, "%s: no section 'model'", c->file);
    TRY(harvest_init(h, c, (uint64_t)c->train.seed, call->arena));
    rk_labels_hold_compact(h->labels);
    h->dead_letters = *o->state != 0; /* the snapshot stands behind their offsets */
    if (*o->served)
        TRY(harvest_served(h, strcmp(o->served, "topic") == 0 ? NULL : o->served));
    TRY(harvest_read(h, *o->events ? o->events : NULL, call->quiet));
    TRY(harvest_examples(h, &f->examples));
    harvest_close(h, *o->state != 0);
    TRY(moe_train(spec, c->file, h->tasks.specs, f->examples, &c->train, call->quiet, call->arena,
                  &f->report, &f->model));
    describe(f, call->arena);
    TRY(moe_model_save(f->model, o->model));
    if (*o->state)
        TRY(feat_state_save(h->state, o->state));
    return print_result(f, o, call->json);
}

static enum status run(const struct verb_call *call, void *options) {
    const struct options *o = options;
    struct rk_config *c;
    struct fit f = {0};
    if (!*o->table.table && !*o->model)
        return fail(STATUS_INVALID_ARGUMENT, "--model must be given; moerank train --help");
    TRY(option_config_load(&o->config, &c));
    enum status status;
    if (*o->table.table) {
        struct train_table_options table = o->table;
        table.model = o->model;
        status = train_table(call, &table, c);
        rk_config_free(c);
        return status;
    }
    status = fit(call, o, c, &f);
    moe_model_free(f.model);
    moe_examples_free(f.examples);
    harvest_deinit(&f.harvest);
    rk_config_free(c);
    return status;
}

static const struct verb verb = {
    .name = "train",
    .about =
        "Reads events from the settings' Kafka topic up to its present end, or from a file, makes "
        "examples of them as serving would have seen them, trains the model of the settings and "
        "writes it. With --state, what the events left behind is written too: serving goes on "
        "from both. With --table, labelled rows of a file take the events' place. The newest share of the examples (train.validation) is not trained on; "
        "figures are of it. Equal events, settings and seed give an equal model.",
    .example =
        "moerank train --config moerank.yaml --model model.safetensors --state state.snap\n"
        "moerank train --config moerank.yaml --events events.jsonl.gz --model model.safetensors\n"
        "moerank train --config moerank.yaml --served topic --model model.safetensors\n"
        "moerank train --config table.yaml --table rows.csv --test other.csv --model "
        "model.safetensors",
    .items = items,
    .bytes = sizeof(struct options),
    .run = run,
};

enum status cmd_train(int argc, char **argv) { return verb_main(&verb, argc, argv); }
