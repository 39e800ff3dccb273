/* cmd_import_metarank.c: a Metarank configuration becomes moerank's settings (tools/metarank.h).
 * Its events need no import: they are read as they are. */
#include <stdio.h>
#include "base/io.h"
#include "ranker/config.h"
#include "ranker/labels.h"
#include "tools/metarank.h"
#include "tools/options.h"
#include "tools/report.h"
#include "tools/stream.h"
#include "tools/verbs.h"

struct options {
    const char *output, *model, *events;
    int64_t sample;
};
static const struct conf_item items[] = {
    OPTION_TEXT(struct options, output, "output", NULL, "DIR",
                "moerank.yaml is written there; the folder is made if need be"),
    OPTION_TEXT(struct options, model, "model", "", "NAME",
                "which of the file's models; default: its first of type lambdamart"),
    OPTION_TEXT(struct options, events, "events", "", "FILE",
                "events to look at: which fields stand in rankings' items, and which hold text"),
    CONF_INT(struct options, sample, "sample", "20000", 1, 1e9, "N",
             "how many of those events are looked at"),
    CONF_END};

/* ---- a look at events -------------------------------------------------------------------------
 */

static void look_at_fields(struct metarank_sample *s, struct arena *a, const char *of,
                           const struct ev_field *fields, int n) {
    for (int i = 0; i < n; i++) {
        char *word = arena_printf(a, "%s.%.*s", of, SLICE_ARG(fields[i].name));
        enum ev_type type = fields[i].value.type;
        tally_add(&s->fields, slice_of(word), 0);
        if (type == EV_STRING || type == EV_STRINGS)
            tally_add(&s->texts, slice_of(word), 0);
    }
}

static enum status look(const char *path, int64_t most, struct metarank_sample *s) {
    struct io_lines *lines;
    struct arena a;
    struct slice line;
    enum status status = STATUS_OK;
    TRY(io_lines_open(path, EV_BYTES_MAX, &lines));
    arena_init(&a, 0);
    for (int64_t i = 0; i < most && status == STATUS_OK; i++) {
        struct ev_event e;
        arena_reset(&a);
        status = io_lines_next(lines, &line);
        if (status == STATUS_RESOURCE_EXHAUSTED) { /* too long; the rest can be read */
            status = STATUS_OK;
            continue;
        }
        if (status != STATUS_OK || ev_decode_json(&a, line, &e) != STATUS_OK)
            continue;
        look_at_fields(s, &a, ev_kind_word(e.kind), e.fields, e.n_fields);
        for (int k = 0; k < e.n_shown; k++)
            look_at_fields(s, &a, "shown", e.shown[k].fields, e.shown[k].n_fields);
    }
    s->is_there = true;
    arena_deinit(&a);
    io_lines_close(lines);
    return status == STATUS_OUT_OF_RANGE ? STATUS_OK : status;
}

/* ---- the verb ---------------------------------------------------------------------------------
 */

/* What was written is read as every verb will read it. */
static enum status check_written(const char *path, struct arena *a, int *n_features) {
    const struct option_config o = {.path = path};
    struct rk_config *c;
    struct rk_tasks tasks;
    TRY(option_config_load(&o, &c));
    enum status status = rk_tasks_read(c->root, c->file, a, &tasks);
    if (status == STATUS_OK)
        *n_features = c->plan->n_features;
    rk_config_free(c);
    return status;
}

static enum status print_result(const struct metarank *m, const char *path, int n_features,
                                bool json) {
    static const char *const fates[] = {"left out", "different", "no need"};
    struct report r;
    int left_out = 0;
    report_begin(&r, json);
    report_cstr(&r, "settings", path);
    report_cstr(&r, "model", m->model->key.p);
    report_int(&r, "features", n_features);
    report_table(&r, "notes", (const char *const[]){"line", "fate", "what", "instead", NULL});
    for (int i = 0; i < m->n_notes; i++) {
        const struct metarank_note *n = &m->notes[i];
        left_out += n->fate == METARANK_LEFT_OUT;
        report_int(&r, NULL, n->line);
        report_cstr(&r, NULL, fates[n->fate]);
        report_cstr(&r, NULL, n->what);
        report_cstr(&r, NULL, n->instead);
    }
    report_table_end(&r);
    report_int(&r, "left_out", left_out);
    return report_end(&r, stdout);
}

static enum status import(const struct verb_call *call, const struct options *o,
                          struct metarank_sample *sample, struct metarank *m) {
    struct node *root;
    int n_features = 0;
    m->a = call->arena;
    if (*o->events != '\0')
        TRY(look(o->events, o->sample, sample));
    TRY(node_load_yaml(call->arena, call->operands[0], &root));
    TRY(metarank_read(m, root, call->operands[0], o->model, sample));
    TRY(io_make_dirs(o->output));
    const char *path = arena_printf(call->arena, "%s/moerank.yaml", o->output);
    TRY(io_write_file(path, buf_slice(&m->out)));
    TRY(fail_in(check_written(path, call->arena, &n_features), "what was made of it"));
    return print_result(m, path, n_features, call->json);
}

static enum status run(const struct verb_call *call, void *options) {
    if (call->n_operands != 1)
        return fail(STATUS_INVALID_ARGUMENT, "give the configuration; moerank import-metarank "
                                             "--help");
    struct metarank m = {0};
    struct metarank_sample *sample = arena_zalloc(call->arena, sizeof *sample);
    enum status status = import(call, options, sample, &m);
    metarank_deinit(&m);
    tally_deinit(&sample->fields);
    tally_deinit(&sample->texts);
    return status;
}

static const struct verb verb = {
    .name = "import-metarank",
    .operands = "CONFIG",
    .operands_max = 1,
    .about =
        "Writes settings that say what a Metarank configuration says: its feature extractors as a "
        "plan, its weights as tasks, its source, state and join as sections. Every line without "
        "an equivalent is named, with what to do instead (docs/metarank.md). Metarank's events "
        "are read as they are; with --events some are looked at, since a configuration does not "
        "say which fields stand in rankings.",
    .example = "moerank import-metarank config.yml --output shop --events events.jsonl.gz\n"
               "moerank train --config shop/moerank.yaml --events events.jsonl.gz --model "
               "shop/model.safetensors",
    .items = items,
    .bytes = sizeof(struct options),
    .run = run,
};

enum status cmd_import_metarank(int argc, char **argv) { return verb_main(&verb, argc, argv); }
