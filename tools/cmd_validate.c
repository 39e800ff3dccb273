/* cmd_validate.c: looks before one leaps: a settings file read as every verb reads it, and a file
 * of events surveyed line by line (tools/survey.h). Nothing is written anywhere. */
#include <stdio.h>
#include "base/io.h"
#include "base/progress.h"
#include "ranker/config.h"
#include "ranker/labels.h"
#include "tools/options.h"
#include "tools/report.h"
#include "tools/survey.h"
#include "tools/verbs.h"

struct options {
    struct option_config config;
    const char *events;
    int64_t sample;
    bool cost;
};
static const struct conf_item items[] = {
    OPTION_CONFIG_OR(struct options, config, ""),
    OPTION_TEXT(struct options, events, "events", "", "FILE",
                "JSON lines, plain or compressed (gz, zst, xz); - is stdin"),
    CONF_INT(struct options, sample, "sample", "1", 1, 1e9, "N",
             "with both: the features of one in N rankings and interactions are made"),
    CONF_BOOL(struct options, cost, "cost", "false",
              "with both: what each feature costs, in bytes of state and in microseconds"),
    CONF_END};

static enum status survey_file(struct survey *s, const char *path, int quiet) {
    struct io_lines *lines;
    struct progress p;
    TRY(io_lines_open(path, EV_BYTES_MAX, &lines));
    progress_start(&p, "validate", "lines", 0, quiet);
    enum status status;
    struct slice line;
    while ((status = io_lines_next(lines, &line)) != STATUS_OUT_OF_RANGE) {
        if (status == STATUS_RESOURCE_EXHAUSTED) /* too long; the rest can be read */
            survey_bad(s, status_message(), io_lines_number(lines));
        else if (status != STATUS_OK)
            break;
        else
            survey_line(s, line, io_lines_number(lines));
        progress_at(&p, s->lines);
    }
    io_lines_close(lines);
    if (status != STATUS_OUT_OF_RANGE)
        return status;
    progress_end(&p);
    return STATUS_OK;
}

static void report_plan(const struct feat_plan *p, struct report *r) {
    report_group(r, "plan");
    report_int(r, "features", p->n_features);
    report_int(r, "query_columns", p->query_columns);
    report_int(r, "query_ids", p->query_slots);
    report_int(r, "candidate_columns", p->cand_columns);
    report_int(r, "candidate_ids", p->cand_slots);
    report_int(r, "tables", p->n_tables);
    report_num(r, "lateness_s", (double)p->lateness_us * 1e-6, 3);
    report_group_end(r);
}

static enum status report_config(const struct rk_config *c, struct arena *a, struct report *r) {
    report_cstr(r, "config", c->file);
    if (c->plan)
        report_plan(c->plan, r);
    if (!node_get(c->root, "tasks"))
        return STATUS_OK;
    struct rk_tasks tasks;
    TRY(rk_tasks_read(c->root, c->file, a, &tasks));
    report_table(r, "tasks", (const char *const[]){"task", "weight", NULL});
    for (int t = 0; t < tasks.n; t++) {
        report_cstr(r, NULL, tasks.specs[t].name);
        report_num(r, NULL, tasks.specs[t].weight, 3);
    }
    report_table_end(r);
    return STATUS_OK;
}

static enum status report_events(const struct verb_call *call, const struct options *o,
                                 struct survey *s, struct report *r) {
    TRY(survey_file(s, o->events, call->quiet));
    survey_report(s, r);
    return STATUS_OK;
}

static enum status validate(const struct verb_call *call, const struct options *o,
                            const struct rk_config *c) {
    struct report r;
    struct survey *s = arena_alloc(call->arena, sizeof *s);
    survey_init(s, c ? c->plan : NULL, o->sample);
    if (o->cost)
        survey_costs(s);
    report_begin(&r, call->json);
    enum status status = c ? report_config(c, call->arena, &r) : STATUS_OK;
    if (status == STATUS_OK && *o->events)
        status = report_events(call, o, s, &r);
    if (status == STATUS_OK)
        status = report_end(&r, stdout);
    else
        report_drop(&r);
    if (status == STATUS_OK && s->bad)
        status = fail(STATUS_DATA_LOSS, "%s: %lld of %lld lines are no valid events; line %lld: %s",
                      o->events, (long long)s->bad, (long long)s->lines,
                      (long long)s->first_bad_line, s->first_bad);
    survey_deinit(s);
    return status;
}

static enum status run(const struct verb_call *call, void *options) {
    const struct options *o = options;
    struct rk_config *c = NULL;
    if (!*o->config.path && !*o->events)
        return fail(STATUS_INVALID_ARGUMENT, "nothing to look at; give --config, --events or both");
    if (*o->config.path)
        TRY(option_config_load(&o->config, &c));
    enum status status = validate(call, o, c);
    rk_config_free(c);
    return status;
}

static const struct verb verb = {
    .name = "validate",
    .about =
        "Checks a settings file, and a file of events: lines that are no valid events by reason, "
        "with line numbers; kinds and types; the time range and what is out of order; "
        "interactions on items no event described; how many interactions find their ranking. "
        "With both: fields the plan does not read or never sees, and how often each feature has "
        "no value.",
    .example = "moerank validate --config moerank.yaml\n"
               "moerank validate --config moerank.yaml --events events.jsonl.gz --json",
    .exits = "1: some lines are no valid events",
    .items = items,
    .bytes = sizeof(struct options),
    .run = run,
};

enum status cmd_validate(int argc, char **argv) { return verb_main(&verb, argc, argv); }
