/* cmd_autofeature.c: a first plan out of a sample of events (tools/propose.h). */
#include <stdio.h>
#include "base/heap.h"
#include "base/io.h"
#include "base/log.h"
#include "ranker/config.h"
#include "ranker/labels.h"
#include "tools/options.h"
#include "tools/propose.h"
#include "tools/report.h"
#include "tools/verbs.h"

struct options {
    const char *output;
    int64_t sample;
};
static const struct conf_item items[] = {
    OPTION_TEXT(struct options, output, "output", NULL, "FILE", "the settings are written here"),
    CONF_INT(struct options, sample, "sample", "200000", 1, 1e12, "N",
             "how many events are looked at, from the beginning"),
    CONF_END};

/* Wrong lines are left out, but never in silence. */
struct wrong {
    int64_t n, line; /* how many; the first one's number */
    char reason[256];
};

static void note_wrong(struct wrong *w, int64_t line) {
    if (w->n++ > 0)
        return;
    w->line = line;
    snprintf(w->reason, sizeof w->reason, "%s", status_message());
}

static enum status look(struct propose *p, const char *path, int64_t most, struct wrong *w) {
    struct io_lines *lines;
    struct arena a;
    struct slice line;
    enum status status = STATUS_OK;
    TRY(io_lines_open(path, EV_BYTES_MAX, &lines));
    arena_init(&a, 0);
    for (int64_t i = 0; i < most; i++) {
        struct ev_event e;
        arena_reset(&a);
        status = io_lines_next(lines, &line);
        if (status != STATUS_OK && status != STATUS_RESOURCE_EXHAUSTED)
            break;
        if (status == STATUS_OK && ev_decode_json(&a, line, &e) == STATUS_OK)
            propose_event(p, &e);
        else
            note_wrong(w, i + 1);
        status = STATUS_OK;
    }
    arena_deinit(&a);
    io_lines_close(lines);
    if (status != STATUS_OK && status != STATUS_OUT_OF_RANGE)
        return status;
    if (w->n > 0 && p->events == 0)
        return fail(STATUS_DATA_LOSS, "%s: none of %lld lines is an event; line %lld: %s", path,
                    (long long)w->n, (long long)w->line, w->reason);
    if (w->n > 0)
        log_warn("autofeature", "%s: %lld lines are no events and left out; line %lld: %s", path,
                 (long long)w->n, (long long)w->line, w->reason);
    return STATUS_OK;
}

static enum status print_result(const struct verb_call *call, const struct options *o,
                                const struct propose *p, const struct wrong *w) {
    const struct option_config config = {.path = o->output};
    struct rk_config *c;
    struct rk_tasks tasks;
    struct report r;
    TRY(option_config_load(&config, &c));
    enum status status = rk_tasks_read(c->root, c->file, call->arena, &tasks);
    if (status == STATUS_OK) {
        report_begin(&r, call->json);
        report_cstr(&r, "settings", o->output);
        report_int(&r, "events", p->events);
        report_int(&r, "wrong_lines", w->n);
        report_int(&r, "features", c->plan->n_features);
        report_int(&r, "tasks", tasks.n);
        status = report_end(&r, stdout);
    }
    rk_config_free(c);
    return status;
}

static enum status run(const struct verb_call *call, void *options) {
    const struct options *o = options;
    struct buf out = {0};
    struct wrong wrong = {0};
    if (call->n_operands != 1)
        return fail(STATUS_INVALID_ARGUMENT, "give the events; moerank autofeature --help");
    struct propose *p = HEAP_NEW(struct propose);
    enum status status = look(p, call->operands[0], o->sample, &wrong);
    if (status == STATUS_OK)
        status = propose_write(p, &out);
    if (status == STATUS_OK)
        status = io_write_file(o->output, buf_slice(&out));
    if (status == STATUS_OK)
        status = fail_in(print_result(call, o, p, &wrong), "what was proposed");
    buf_deinit(&out);
    propose_deinit(p);
    heap_free(p);
    return status;
}

static const struct verb verb = {
    .name = "autofeature",
    .operands = "EVENTS",
    .operands_max = 1,
    .about =
        "Proposes settings from a sample of events: features of the fields there are (numbers, "
        "categories by how many words they have, ages, lengths), rates and windowed counts of "
        "each type of interaction, what the candidate shares with the user's last items, a task "
        "per type, and a model. They train as they stand; they are there to be read and changed.",
    .example = "moerank autofeature events.jsonl.gz --output moerank.yaml\n"
               "moerank train --config moerank.yaml --events events.jsonl.gz --model "
               "model.safetensors",
    .items = items,
    .bytes = sizeof(struct options),
    .run = run,
};

enum status cmd_autofeature(int argc, char **argv) { return verb_main(&verb, argc, argv); }
