/* cmd_sweep.c: trains every combination of some settings with several seeds and says what each is
 * worth: mean and spread of every task's AUC. Beside each combination stands, if asked for, one
 * plain network of equal active FLOPs: a mixture that does not beat it is not worth its name.
 *
 * Deliberately no search: a few dozen runs, all of them shown. */
#include <math.h>
#include <stdio.h>
#include "base/heap.h"
#include "moe/report/active.h"
#include "moe/report/eval.h"
#include "moe/data/table.h"
#include "ranker/config.h"
#include "tools/options.h"
#include "tools/report.h"
#include "tools/verbs.h"

enum { VARY_MAX = 6, VALUES_MAX = 16, RUNS_MAX = 512, TASKS_MAX = 12 };

struct options {
    struct option_config config;
    const char *table, *test;
    struct conf_strings vary;
    int64_t seeds;
    bool control;
};
static const struct conf_item items[] = {
    OPTION_CONFIG(struct options, config),
    OPTION_TEXT(struct options, table, "table", NULL, "FILE", "labelled rows to train on"),
    OPTION_TEXT(struct options, test, "test", "", "FILE",
                "figures are of this file's rows instead of the validation rows"),
    {"vary", CONF_TYPE_STRINGS, offsetof(struct options, vary), "", 0, 0, NULL, "SECTION.KEY=A|B|C",
     "a setting and its values; all combinations of those given are tried; may be given again"},
    CONF_INT(struct options, seeds, "seeds", "3", 1, 100, "N", "runs of each combination"),
    CONF_BOOL(struct options, control, "control", "false",
              "also trains one network of equal active FLOPs for each combination"),
    CONF_END};

struct axis {
    struct slice key;
    struct slice value[VALUES_MAX];
    int n;
};
/* What the seeds of one combination gave. */
struct outcome {
    double auc[TASKS_MAX][100], seconds;
    struct moe_active active;
    int n, n_tasks;
    const char *task[TASKS_MAX];
};

static enum status read_axis(const char *text, struct axis *out) {
    struct slice s = slice_of(text);
    const char *equal = memchr(s.p, '=', s.n);
    if (!equal || equal == s.p)
        return fail(STATUS_INVALID_ARGUMENT, "--vary %s: must be SECTION.KEY=A|B|C", text);
    *out = (struct axis){.key = {s.p, (size_t)(equal - s.p)}};
    for (const char *p = equal + 1, *end = s.p + s.n; p <= end;) {
        const char *bar = memchr(p, '|', (size_t)(end - p));
        if (out->n == VALUES_MAX)
            return fail(STATUS_INVALID_ARGUMENT, "--vary %s: more than %d values", text,
                        VALUES_MAX);
        out->value[out->n++] = (struct slice){p, (size_t)((bar ? bar : end) - p)};
        p = bar ? bar + 1 : end + 1;
    }
    return STATUS_OK;
}

/* Options' overrides and `more` [n_more] behind them. */
static struct option_config with(const struct option_config *o, const char *const *more, int n_more,
                                 struct arena *a) {
    struct option_config out = *o;
    out.sets.v = ARENA_ARRAY(a, const char *, o->sets.n + n_more);
    out.sets.n = 0;
    for (int i = 0; i < o->sets.n; i++)
        out.sets.v[out.sets.n++] = o->sets.v[i];
    for (int i = 0; i < n_more; i++)
        out.sets.v[out.sets.n++] = more[i];
    return out;
}

static void keep(const struct moe_table *t, const struct moe_train_report *report,
                 const struct moe_examples *test, const struct moe_model *m, struct outcome *out) {
    int tasks = moe_table_tasks(t);
    size_t n = test ? (size_t)test->n_rows : 0, T = (size_t)tasks;
    float *p = HEAP_ARRAY(float, n *T + 1), *one = HEAP_ARRAY(float, n + 1);
    float *y = HEAP_ARRAY(float, n + 1);
    if (test)
        moe_predict(m, test, p);
    out->n_tasks = tasks < TASKS_MAX ? tasks : TASKS_MAX;
    for (int k = 0; k < out->n_tasks; k++) {
        for (size_t i = 0; i < n; i++) {
            one[i] = p[i * T + (size_t)k];
            y[i] = test->labels[i * T + (size_t)k];
        }
        out->auc[k][out->n] = test ? moe_auc(one, y, (int)n) : report->validation_auc[k];
    }
    out->seconds += report->seconds;
    out->n++;
    heap_free(p);
    heap_free(one);
    heap_free(y);
}

static enum status run_config(const struct verb_call *call, const struct options *o,
                              const struct rk_config *c, struct outcome *out) {
    struct moe_table *table = NULL;
    struct moe_table_report read;
    struct moe_examples *x = NULL, *test = NULL;
    struct moe_train_report report;
    struct moe_model *m = NULL;
    uint64_t seed = (uint64_t)c->train.seed;
    enum status status = moe_table_new(c->root, c->file, &table);
    if (status == STATUS_OK)
        status = moe_table_read(table, o->table, seed, 1, &read, &x);
    if (status == STATUS_OK && *o->test)
        status = moe_table_read(table, o->test, seed, 1, &read, &test);
    if (status == STATUS_OK)
        status = moe_train(node_get(c->root, "model"), c->file, moe_table_task_specs(table), x,
                           &c->train, call->quiet, call->arena, &report, &m);
    if (status == STATUS_OK) {
        keep(table, &report, test, m, out);
        moe_active_measure(m, test ? test : x, &out->active);
        for (int k = 0; k < out->n_tasks; k++)
            out->task[k] = arena_strdup(call->arena, slice_of(moe_table_task_specs(table)[k].name));
    }
    moe_model_free(m);
    moe_examples_free(x);
    moe_examples_free(test);
    moe_table_free(table);
    return status;
}

/* All seeds of one combination. */
static enum status run_seeds(const struct verb_call *call, const struct options *o,
                             const char **sets, int n, struct outcome *out) {
    *out = (struct outcome){0};
    for (int64_t seed = 1; seed <= o->seeds; seed++) {
        struct rk_config *c;
        sets[n] = arena_printf(call->arena, "train.seed=%lld", (long long)seed);
        struct option_config config = with(&o->config, sets, n + 1, call->arena);
        TRY(option_config_load(&config, &c));
        enum status status = run_config(call, o, c, out);
        rk_config_free(c);
        TRY(status);
    }
    return STATUS_OK;
}

static void mean_and_spread(const double *v, int n, double *mean, double *sd) {
    double sum = 0, squares = 0;
    for (int i = 0; i < n; i++)
        sum += v[i];
    *mean = sum / n;
    for (int i = 0; i < n; i++)
        squares += (v[i] - *mean) * (v[i] - *mean);
    *sd = n > 1 ? sqrt(squares / (n - 1)) : (double)NAN;
}

static void report_outcome(struct report *r, const char *name, const struct outcome *o) {
    for (int k = 0; k < o->n_tasks; k++) {
        double mean, sd;
        mean_and_spread(o->auc[k], o->n, &mean, &sd);
        report_cstr(r, NULL, name);
        report_cstr(r, NULL, o->task[k]);
        report_num(r, NULL, mean, 4);
        report_num(r, NULL, sd, 4);
        report_int(r, NULL, o->n);
        report_num(r, NULL, o->active.mflop, 3);
        report_num(r, NULL, o->active.dense, 3);
        report_num(r, NULL, o->seconds / o->n, 1);
    }
}

/* One hidden layer whose products cost what the mixture's experts and gates did. */
static const char *control_layers(const struct moe_active *a, struct arena *arena) {
    double width = a->body * 1e6 / (2.0 * a->in + 2.0 * a->out);
    int hidden = width < 1 ? 1 : (int)(width + 0.5);
    return arena_printf(arena,
                        "model.layers=[{kind: shared_bottom, expert: {kind: mlp, hidden: [%d], "
                        "out: %d}}]",
                        hidden, a->out);
}

static enum status run_all(const struct verb_call *call, const struct options *o,
                           const struct axis *axes, int n_axes, int runs, struct report *r) {
    for (int i = 0; i < runs; i++) {
        const char *sets[VARY_MAX + 2], *name = n_axes ? "" : "as set";
        struct outcome *out = ARENA_NEW(call->arena, struct outcome);
        for (int k = 0, rest = i; k < n_axes; rest /= axes[k++].n) {
            struct slice v = axes[k].value[rest % axes[k].n];
            sets[k] = arena_printf(call->arena, "%.*s=%.*s", SLICE_ARG(axes[k].key), SLICE_ARG(v));
            name = arena_printf(call->arena, "%s%s%s", name, k ? ", " : "", sets[k]);
        }
        TRY(run_seeds(call, o, sets, n_axes, out));
        report_outcome(r, name, out);
        if (!o->control)
            continue;
        sets[n_axes] = control_layers(&out->active, call->arena);
        struct outcome *plain = ARENA_NEW(call->arena, struct outcome);
        TRY(run_seeds(call, o, sets, n_axes + 1, plain));
        report_outcome(r, arena_printf(call->arena, "  dense control of %s", name), plain);
    }
    return STATUS_OK;
}

static enum status run(const struct verb_call *call, void *options) {
    const struct options *o = options;
    struct axis axes[VARY_MAX];
    struct report r;
    int64_t runs = 1;
    if (o->vary.n > VARY_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "--vary: at most %d settings", VARY_MAX);
    for (int i = 0; i < o->vary.n; i++) {
        TRY(read_axis(o->vary.v[i], &axes[i]));
        runs *= axes[i].n;
    }
    if (runs > RUNS_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "--vary: %lld combinations; at most %d",
                    (long long)runs, RUNS_MAX);
    report_begin(&r, call->json);
    report_cstr(&r, "rows", *o->test ? "test" : "validation");
    report_table(&r, "sweep",
                 (const char *const[]){"settings", "task", "auc", "sd", "seeds", "active_mflop",
                                       "dense_mflop", "seconds", NULL});
    enum status status = run_all(call, o, axes, o->vary.n, (int)runs, &r);
    if (status != STATUS_OK) {
        report_drop(&r);
        return status;
    }
    report_table_end(&r);
    return report_end(&r, stdout);
}

static const struct verb verb = {
    .name = "sweep",
    .about = "Trains on a table with every combination of the settings given by --vary, several "
             "seeds each, and prints mean and spread of each task's AUC. With --control, one plain "
             "network of equal active FLOPs (measured, not nominal) is trained beside each.",
    .example = "moerank sweep --config table.yaml --table rows.csv --seeds 5 --control \\\n"
               "    --vary 'train.dropout=0.2|0.4' --vary 'train.rate=0.001|0.002'",
    .items = items,
    .bytes = sizeof(struct options),
    .run = run,
};

enum status cmd_sweep(int argc, char **argv) { return verb_main(&verb, argc, argv); }
