/* cmd_quantize.c: publishes a trained model for a precision, or refuses. The rows are what serving
 * would have made of the recorded events (or a table's); int8 units are chosen on the older ones,
 * losses are measured on the newest, which the model was not trained on, against the model's own
 * forward pass. What is written serves with `serving.precision: model`.
 *
 * Deliberately no other way to make up for a loss than to refuse: weights are not trained again. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/heap.h"
#include "moe/score/calibrate.h"
#include "moe/math/cpu.h"
#include "moe/data/table.h"
#include "ranker/rank.h"
#include "tools/harvest.h"
#include "tools/options.h"
#include "tools/report.h"
#include "tools/verbs.h"

enum { FORMS = 6 };

struct options {
    struct option_config config;
    const char *model, *out, *events, *table, *test;
    int precision;
    int64_t top, requests, rows, judged_max, cache_bytes;
    double overlap_min, auc_loss_max, score_max, share;
};
static const struct conf_item items[] = {
    OPTION_CONFIG(struct options, config),
    OPTION_TEXT(struct options, model, "model", NULL, "FILE", "a trained model"),
    OPTION_TEXT(struct options, out, "out", "", "FILE",
                "the model is written here when it keeps the limits; none: it is only measured"),
    CONF_ENUM(struct options, precision, "precision", "int8", "fp32|bf16|int8",
              "what it shall be served in; cheaper precisions are measured on the way"),
    OPTION_TEXT(struct options, events, "events", "", "FILE",
                "JSON lines instead of the settings' Kafka topic"),
    OPTION_TEXT(struct options, table, "table", "", "FILE",
                "rows of the table the model was trained on, instead of events"),
    OPTION_TEXT(struct options, test, "test", "", "FILE",
                "with --table: losses are measured on this file's rows"),
    CONF_FLOAT(struct options, overlap_min, "overlap-min", "-1", -1, 1, "",
               "least share of the top kept; -1: fp32 and bf16 0.995, int8 0.99"),
    CONF_FLOAT(struct options, auc_loss_max, "auc-loss-max", "-1", -1, 1, "",
               "greatest loss of a task's AUC; -1: fp32 and bf16 0.0002, int8 0.0005"),
    CONF_FLOAT(struct options, score_max, "score-max", "-1", -1, 1, "",
               "greatest difference of a probability, 0: any; -1: fp32 1e-5, others any"),
    CONF_INT(struct options, top, "top", "50", 1, 100000, "items", "what the top is"),
    CONF_INT(struct options, requests, "requests", "48", 1, 100000, "requests",
             "slates: one request's query, candidates of all"),
    CONF_INT(struct options, rows, "rows", "500", 1, 20000, "items", "candidates of a slate"),
    CONF_FLOAT(struct options, share, "share", "0.2", 0.001, 0.999, "",
               "newest part that is judged, where no rows are newer than the model's events"),
    CONF_INT(struct options, judged_max, "judged-max", "200000", 1, 1e9, "requests",
             "most requests whose AUC is measured, the newest"),
    CONF_BYTES(struct options, cache_bytes, "cache", "256MiB", 1, 1ull << 40,
               "budget of the item cache in the forms that have one"),
    CONF_END};

struct form {
    char name[24];
    struct moe_loss_form how;
    struct moe_loss_report loss;
    struct moe_calibrate_conf limits;
    bool measured, kept;
};
struct work {
    struct moe_model *model; /* the bundle's, if there is one */
    struct rk_bundle *bundle;
    struct moe_table *table;
    struct harvest harvest;
    struct moe_examples *x, *test;
    struct moe_examples older, newer; /* views */
    struct moe_calibration calibration;
    struct form forms[FORMS];
    int n_forms;
};

/* ---- rows ---------------------------------------------------------------------------------- */

/* Groups [from, to) as examples that borrow all but the rows' groups. */
static struct moe_examples part_of(const struct moe_examples *x, int from, int to,
                                   struct arena *a) {
    const struct moe_inputs *in = &x->inputs;
    const size_t g = (size_t)from;
    struct moe_batch b;
    struct moe_examples out = *x;
    const size_t r = (size_t)moe_examples_view(x, from, to - from, &b);
    out.n_groups = to - from;
    out.n_rows = b.n_rows;
    out.query += g * (size_t)in->query_columns;
    out.query_ids += g * (size_t)in->query_slots;
    out.group_key += g;
    out.time_us += g;
    out.cand += r * (size_t)in->cand_columns;
    out.cand_ids += r * (size_t)in->cand_slots;
    out.labels += r * (size_t)x->n_tasks;
    out.weight += r;
    out.group = ARENA_ARRAY(a, int, b.n_rows + 1);
    for (int i = 0; i < b.n_rows; i++)
        out.group[i] = x->group[r + (size_t)i] - from;
    return out;
}

/* The first group that is judged: after the last event the model saw, else the newest share. */
static int split_at(const struct options *o, const struct work *w) {
    const struct moe_examples *x = w->x;
    const char *last = moe_model_meta(w->model, "last_event_us");
    const int64_t last_us = last ? strtoll(last, NULL, 10) : INT64_MAX;
    int at = x->n_groups;
    while (at > 0 && x->time_us[at - 1] > last_us)
        at--;
    if (at == 0 || at == x->n_groups)
        at = x->n_groups - (int)(o->share * x->n_groups);
    return at < 1 ? 1 : at >= x->n_groups ? x->n_groups - 1 : at;
}

static enum status split(const struct options *o, struct work *w, struct arena *a) {
    const struct moe_examples *x = w->x;
    const int most = (int)o->judged_max;
    if (w->test) {
        const int n = w->test->n_groups;
        w->older = *x;
        w->newer = part_of(w->test, n > most ? n - most : 0, n, a);
        return STATUS_OK;
    }
    if (x->n_groups < 2)
        return fail(STATUS_FAILED_PRECONDITION, "%d request: nothing to judge on", x->n_groups);
    const int at = split_at(o, w);
    w->older = part_of(x, 0, at, a);
    w->newer = part_of(x, x->n_groups - at > most ? x->n_groups - most : at, x->n_groups, a);
    return STATUS_OK;
}

static enum status read_events(const struct verb_call *call, const struct options *o,
                               struct rk_config *c, struct work *w) {
    c->serving.precision = MOE_FP32; /* opened to be compared with the plan only */
    c->serving.cache_bytes = 0;
    TRY(rk_bundle_open(o->model, c->plan, c, &w->bundle));
    w->model = w->bundle->model;
    TRY(harvest_init(&w->harvest, c, (uint64_t)c->train.seed, call->arena));
    TRY(harvest_read(&w->harvest, *o->events ? o->events : NULL, call->quiet));
    return harvest_examples(&w->harvest, &w->x);
}

static enum status read_tables(const struct verb_call *call, const struct options *o,
                               const struct rk_config *c, struct work *w) {
    struct moe_table_report read;
    const uint64_t seed = (uint64_t)c->train.seed;
    TRY(moe_model_load(o->model, &w->model));
    TRY(moe_table_new(c->root, c->file, &w->table));
    moe_table_expect(w->table, moe_model_inputs(w->model), moe_model_tasks(w->model));
    TRY(moe_table_read(w->table, o->table, seed, call->quiet, &read, &w->x));
    return *o->test ? moe_table_read(w->table, o->test, seed, call->quiet, &read, &w->test)
                    : STATUS_OK;
}

/* ---- measuring ----------------------------------------------------------------------------- */

static struct moe_calibrate_conf limits_of(const struct options *o, enum moe_precision p,
                                           const struct moe_examples *judged) {
    const bool low = p == MOE_INT8;
    return (struct moe_calibrate_conf){.requests = (int)o->requests,
                                       .rows = (int)o->rows,
                                       .top = (int)o->top,
                                       .overlap_min = o->overlap_min >= 0 ? o->overlap_min
                                                      : low               ? 0.99
                                                                          : 0.995,
                                       .auc_loss_max = o->auc_loss_max >= 0 ? o->auc_loss_max
                                                       : low                ? 0.0005
                                                                            : 0.0002,
                                       .score_max = o->score_max >= 0 ? o->score_max
                                                    : p == MOE_FP32   ? 1e-5
                                                                      : 0,
                                       .judged = judged};
}

static enum status calibrate(const struct options *o, struct work *w, struct arena *a) {
    struct moe_calibrate_conf conf = limits_of(o, MOE_INT8, &w->newer);
    conf.overlap_min = conf.score_max = 0; /* judged below, with the other forms */
    conf.auc_loss_max = 1;
    return moe_calibrate(w->model, &w->older, &conf, a, &w->calibration);
}

/* A form that is not possible here is left out, unless it is the one asked for. */
static enum status measure_form(const struct options *o, struct work *w, enum moe_precision p,
                                bool cache, struct arena *a) {
    struct form *f = &w->forms[w->n_forms++];
    *f = (struct form){.how = {p, cache ? (size_t)o->cache_bytes : 0},
                       .limits = limits_of(o, p, &w->newer)};
    snprintf(f->name, sizeof f->name, "%s%s", moe_precision_word(p), cache ? "+cache" : "");
    enum status status = moe_measure_loss(w->model, &f->how, &w->newer, &f->limits, a, &f->loss);
    if (status == STATUS_UNIMPLEMENTED && (cache || (int)p != o->precision || p == MOE_FP32))
        return STATUS_OK;
    TRY(status);
    f->measured = true;
    f->kept = moe_check_loss(w->model, f->name, &f->limits, &f->loss) == STATUS_OK;
    return STATUS_OK;
}

static enum status measure(const struct options *o, struct work *w, struct arena *a) {
    if (o->precision == MOE_INT8)
        TRY(calibrate(o, w, a));
    for (int p = MOE_FP32; p <= o->precision; p++)
        for (int cache = 0; cache < 2; cache++)
            TRY(measure_form(o, w, (enum moe_precision)p, cache, a));
    return STATUS_OK;
}

/* ---- the report ---------------------------------------------------------------------------- */

static double worst_loss(const struct work *w, const struct form *f) {
    double worst = NAN;
    for (int t = 0; t < moe_model_tasks(w->model); t++)
        worst = fmax(worst, f->loss.auc_fp32[t] - f->loss.auc[t]); /* fmax leaves NaN out */
    return worst;
}

static void report_forms(const struct work *w, struct report *r) {
    report_table(r, "forms",
                 (const char *const[]){"form", "greatest_difference", "mean_difference",
                                       "top_overlap", "overlap_min", "auc_loss", "auc_loss_max",
                                       "ok", NULL});
    for (int i = 0; i < w->n_forms; i++) {
        const struct form *f = &w->forms[i];
        if (!f->measured)
            continue;
        report_cstr(r, NULL, f->name);
        report_num(r, NULL, f->loss.score_max, 8);
        report_num(r, NULL, f->loss.score_mean, 8);
        report_num(r, NULL, f->loss.top_overlap, 5);
        report_num(r, NULL, f->limits.overlap_min, 4);
        report_num(r, NULL, worst_loss(w, f), 6);
        report_num(r, NULL, f->limits.auc_loss_max, 4);
        report_bool(r, NULL, f->kept);
    }
    report_table_end(r);
}

static void report_tasks(const struct work *w, struct report *r) {
    report_table(r, "tasks",
                 (const char *const[]){"task", "form", "auc_fp32", "auc", "loss", NULL});
    for (int t = 0; t < moe_model_tasks(w->model); t++)
        for (int i = 0; i < w->n_forms; i++) {
            const struct moe_loss_report *l = &w->forms[i].loss;
            if (!w->forms[i].measured)
                continue;
            report_cstr(r, NULL, moe_model_task(w->model, t));
            report_cstr(r, NULL, w->forms[i].name);
            report_num(r, NULL, l->auc_fp32[t], 6);
            report_num(r, NULL, l->auc[t], 6);
            report_num(r, NULL, l->auc_fp32[t] - l->auc[t], 6);
        }
    report_table_end(r);
}

static enum status print_result(const struct verb_call *call, const struct options *o,
                                const struct work *w, const char *written) {
    struct report r;
    report_begin(&r, call->json);
    report_cstr(&r, "version", moe_model_version(w->model));
    report_cstr(&r, "cpu", moe_cpu_model());
    report_int(&r, "calibrated_rows", w->older.n_rows);
    report_int(&r, "judged_requests", w->newer.n_groups);
    report_int(&r, "judged_rows", w->newer.n_rows);
    report_int(&r, "slates", o->requests);
    report_int(&r, "slate_rows", o->rows);
    if (w->calibration.n_layers) {
        report_table(&r, "layers", (const char *const[]){"layer", "relative_error", NULL});
        for (int i = 0; i < w->calibration.n_layers; i++) {
            report_cstr(&r, NULL, w->calibration.layers[i].name);
            report_num(&r, NULL, w->calibration.layers[i].relative, 5);
        }
        report_table_end(&r);
    }
    report_forms(w, &r);
    report_tasks(w, &r);
    report_cstr(&r, "precision", moe_precision_word((enum moe_precision)o->precision));
    report_cstr(&r, "written", written);
    return report_end(&r, stdout);
}

/* ---- the verb ------------------------------------------------------------------------------ */

/* What is asked for must keep its limits, without an item cache and with one. */
static enum status check(const struct options *o, const struct work *w) {
    for (int i = 0; i < w->n_forms; i++) {
        const struct form *f = &w->forms[i];
        if ((int)f->how.precision == o->precision && f->measured && !f->kept)
            return fail_in(moe_check_loss(w->model, f->name, &f->limits, &f->loss),
                           "not published");
    }
    return STATUS_OK;
}

static enum status publish(const struct verb_call *call, const struct options *o, struct work *w) {
    enum status status = check(o, w);
    if (status == STATUS_OK && *o->out) {
        moe_model_meta_set(w->model, RK_META_PRECISION,
                           moe_precision_word((enum moe_precision)o->precision));
        TRY(moe_model_save(w->model, o->out));
    }
    TRY(print_result(call, o, w, status == STATUS_OK ? o->out : ""));
    return status == STATUS_OK ? STATUS_OK : check(o, w); /* the message once more */
}

static enum status quantize(const struct verb_call *call, const struct options *o,
                            struct rk_config *c, struct work *w) {
    if (*o->table)
        TRY(read_tables(call, o, c, w));
    else
        TRY(read_events(call, o, c, w));
    TRY(split(o, w, call->arena));
    TRY(measure(o, w, call->arena));
    return publish(call, o, w);
}

static enum status run(const struct verb_call *call, void *options) {
    const struct options *o = options;
    struct rk_config *c;
    struct work w = {0};
    TRY(option_config_load(&o->config, &c));
    enum status status = quantize(call, o, c, &w);
    if (w.bundle)
        rk_bundle_release(w.bundle);
    else
        moe_model_free(w.model);
    moe_examples_free(w.x);
    moe_examples_free(w.test);
    moe_table_free(w.table);
    harvest_deinit(&w.harvest);
    rk_config_free(c);
    return status;
}

static const struct verb verb = {
    .name = "quantize",
    .about =
        "Makes a trained model fit to be served in bf16 or int8, and measures what that costs: "
        "differences of probabilities, how much of the top stays, and the loss of AUC, each with "
        "and without the item cache, against the model's own forward pass in fp32; of int8 also "
        "the error of every layer. int8 units are chosen on the older examples of the recorded "
        "events, losses are measured on those after the model's last event, or the newest share. "
        "A model that misses a limit is not written. What is written serves with "
        "serving.precision: model.",
    .example = "moerank quantize --config moerank.yaml --events events.jsonl \\\n"
               "    --model model.safetensors --out model-int8.safetensors\n"
               "moerank quantize --config table.yaml --table rows.csv --test other.csv \\\n"
               "    --model model.safetensors --precision bf16 --json",
    .exits = "1: some limit is missed, or int8 is not possible",
    .items = items,
    .bytes = sizeof(struct options),
    .run = run,
};

enum status cmd_quantize(int argc, char **argv) { return verb_main(&verb, argc, argv); }
