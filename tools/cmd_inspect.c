/* cmd_inspect.c: looks into the three kinds of files there are: a model, a snapshot of state, a
 * settings file with its plan. Which it is, the first bytes tell. With --data, what a model's
 * experts do on it (inspect_*.c). */
#define _GNU_SOURCE /* memmem */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/io.h"
#include "features/kind.h"
#include "moe/model.h"
#include "ranker/config.h"
#include "tools/inspect.h"
#include "tools/options.h"
#include "tools/report.h"
#include "tools/tensors.h"
#include "tools/verbs.h"

enum { METADATA_WIDTH = 72 }; /* --json shows all */

static const struct conf_item items[] = {
    OPTION_CONFIG_OR(struct inspect_options, config, ""),
    OPTION_TEXT(struct inspect_options, data, "data", "", "FILE",
                "of a model: what its gates and experts do on these rows: a table, or events by "
                "--config"),
    OPTION_TEXT(struct inspect_options, html, "html", "", "FILE",
                "with --data: the same, drawn, as one HTML file"),
    OPTION_TEXT(struct inspect_options, against, "against", "", "FILE",
                "with --data: another model (an earlier checkpoint): how far routing has moved"),
    CONF_STRINGS(struct inspect_options, segments, "segment", "",
                 "with --data: an input whose values are shown as segments; may be given again; "
                 "none: those that gates follow most"),
    CONF_INT(struct inspect_options, rows, "rows", "20000", 10, 1e8, "N",
             "with --data: look at so many rows at most, spread evenly"),
    CONF_INT(struct inspect_options, row, "row", "0", 0, 1e9, "N",
             "with --data: explain the prediction of row N, from 1"),
    CONF_END};

/* ---- models -----------------------------------------------------------------------------------
 */

static void report_inputs(const struct moe_inputs *in, struct report *r) {
    report_group(r, "inputs");
    report_int(r, "query_columns", in->query_columns);
    report_int(r, "candidate_columns", in->cand_columns);
    report_table(r, "columns", (const char *const[]){"column", "part", NULL});
    for (int i = 0; i < in->query_columns + in->cand_columns; i++) {
        bool query = i < in->query_columns;
        report_cstr(r, NULL, query ? in->query_names[i] : in->cand_names[i - in->query_columns]);
        report_cstr(r, NULL, query ? "query" : "candidate");
    }
    report_table_end(r);
    report_table(r, "ids",
                 (const char *const[]){"ids", "part", "slots", "table", "rows", "dim", NULL});
    for (int i = 0; i < in->n_ids; i++) {
        const struct moe_id_input *id = &in->ids[i];
        report_cstr(r, NULL, id->name);
        report_cstr(r, NULL, id->in_query ? "query" : "candidate");
        report_int(r, NULL, id->n_slots);
        report_cstr(r, NULL, in->tables[id->table].name);
        report_int(r, NULL, in->tables[id->table].rows);
        report_int(r, NULL, in->tables[id->table].dim);
    }
    report_table_end(r);
    report_group_end(r);
}

static void report_tensors(const struct tensors *t, struct report *r) {
    report_table(r, "tensors", (const char *const[]){"tensor", "shape", "norm", "rms", NULL});
    for (int i = 0; i < t->n; i++) {
        const struct tensor *x = &t->list[i];
        double norm = x->v ? tensor_norm(x->v, x->n) : NAN;
        struct buf shape = {0};
        for (int d = 0; d < x->n_dims; d++)
            buf_printf(&shape, "%s%lld", d ? "x" : "", (long long)x->shape[d]);
        report_str(r, NULL, x->name);
        report_str(r, NULL, buf_slice(&shape));
        report_num(r, NULL, norm, 4);
        report_num(r, NULL, norm / sqrt((double)x->n), 5);
        buf_deinit(&shape);
    }
    report_table_end(r);
}

/* The experts of a group are the rows of one tensor; an only expert is stored by its parts. Experts
 * of equal norm and those that died are seen at a glance. */
static void report_expert(struct report *r, struct slice group, int64_t expert, int64_t floats,
                          double norm) {
    report_str(r, NULL, group);
    report_int(r, NULL, expert);
    report_int(r, NULL, floats);
    report_num(r, NULL, norm, 4);
}

/* "level0.like.experts" of "level0.like.experts.w0"; empty when it is no expert's. */
static struct slice expert_group(struct slice name) {
    static const char word[] = ".experts";
    const char *at = name.n ? memmem(name.p, name.n, word, sizeof word - 1) : NULL;
    return at ? (struct slice){name.p, (size_t)(at - name.p) + sizeof word - 1} : (struct slice){0};
}

static void report_experts(const struct tensors *t, struct report *r) {
    report_table(r, "experts", (const char *const[]){"group", "expert", "floats", "norm", NULL});
    for (int i = 0; i < t->n; i++) {
        const struct tensor *x = &t->list[i];
        struct slice group = expert_group(x->name);
        if (!x->v || !group.n)
            continue;
        int64_t floats = x->n_dims && x->shape[0] ? x->n / x->shape[0] : 0;
        for (int64_t e = 0; group.n == x->name.n && e < x->shape[0]; e++)
            report_expert(r, group, e, floats, tensor_norm(x->v + e * floats, floats));
        if (group.n == x->name.n)
            continue;
        double sum = 0;
        for (floats = 0; i < t->n && slice_equal(group, expert_group(t->list[i].name)); i++) {
            double norm = t->list[i].v ? tensor_norm(t->list[i].v, t->list[i].n) : 0;
            sum += norm * norm;
            floats += t->list[i].n;
        }
        i--;
        report_expert(r, group, 0, floats, sqrt(sum));
    }
    report_table_end(r);
}

static void report_metadata(const struct tensors *t, struct report *r) {
    report_group(r, "metadata");
    for (const struct node *n = t->metadata ? t->metadata->first : NULL; n; n = n->next) {
        char key[64];
        bool cut = !r->as_json && n->text.n > METADATA_WIDTH;
        snprintf(key, sizeof key, "%.*s", SLICE_ARG(n->key));
        struct buf text = {0};
        buf_add(&text, n->text.p, cut ? METADATA_WIDTH : n->text.n);
        buf_add_str(&text, cut ? " ..." : "");
        report_str(r, key, buf_slice(&text));
        buf_deinit(&text);
    }
    report_group_end(r);
}

static enum status inspect_model(const char *path, const struct inspect_options *o,
                                 const struct verb_call *call) {
    struct tensors t;
    struct moe_model *m;
    struct report r;
    TRY(moe_model_load(path, &m));
    if (*o->data) {
        enum status looked = inspect_experts(m, path, o, call);
        moe_model_free(m);
        return looked;
    }
    enum status status = tensors_load(path, call->arena, &t);
    if (status != STATUS_OK) {
        moe_model_free(m);
        return status;
    }
    const char *trained = moe_model_meta(m, "trained_at_us");
    report_begin(&r, call->json);
    report_cstr(&r, "file", path);
    report_cstr(&r, "kind", "model");
    report_cstr(&r, "version", moe_model_version(m));
    if (trained)
        report_time(&r, "trained_at_us", strtoll(trained, NULL, 10));
    report_table(&r, "tasks", (const char *const[]){"task", NULL});
    for (int k = 0; k < moe_model_tasks(m); k++)
        report_cstr(&r, NULL, moe_model_task(m, k));
    report_table_end(&r);
    report_int(&r, "floats", (int64_t)moe_model_floats(m));
    report_num(&r, "mflop_per_row", moe_model_mflop_per_row(m), 4);
    report_bool(&r, "mixes_rows", moe_model_mixes_rows(m));
    report_cstr(&r, "spec", moe_model_spec_json(m));
    report_inputs(moe_model_inputs(m), &r);
    report_tensors(&t, &r);
    report_experts(&t, &r);
    report_metadata(&t, &r);
    tensors_deinit(&t);
    moe_model_free(m);
    return report_end(&r, stdout);
}

/* ---- snapshots --------------------------------------------------------------------------------
 */

static void report_state(struct feat_state *s, struct arena *a, struct report *r) {
    const struct feat_applied *applied;
    struct feat_state_size size = feat_state_size(s);
    report_table(r, "entities", (const char *const[]){"scope", "entities", NULL});
    for (int k = 0; k < FEAT_SCOPES; k++) {
        report_cstr(r, NULL, feat_scope_words[k]);
        report_int(r, NULL, (int64_t)size.entities[k]);
    }
    report_table_end(r);
    report_int(r, "bytes_in_memory", (int64_t)size.bytes);
    feat_state_read_begin(s);
    int n = feat_state_applied(s, a, &applied);
    feat_state_read_end(s);
    report_table(r, "applied", (const char *const[]){"partition", "offset", "clock_us", NULL});
    for (int i = 0; i < n; i++) {
        report_int(r, NULL, applied[i].partition);
        report_int(r, NULL, applied[i].offset);
        report_time(r, NULL, applied[i].clock_us);
    }
    report_table_end(r);
}

static enum status inspect_snapshot(const char *path, size_t bytes, const struct inspect_options *o,
                                    const struct verb_call *call) {
    struct rk_config *c;
    struct feat_state *s = NULL;
    struct report r;
    if (!*o->config.path)
        return fail(STATUS_INVALID_ARGUMENT, "%s: a snapshot is read by its plan; give --config",
                    path);
    TRY(option_config_load(&o->config, &c));
    enum status status =
        c->plan ? feat_state_load(c->plan, path, &s)
                : fail(STATUS_FAILED_PRECONDITION, "%s: no section 'features'", c->file);
    if (status == STATUS_OK) {
        report_begin(&r, call->json);
        report_cstr(&r, "file", path);
        report_cstr(&r, "kind", "snapshot");
        report_int(&r, "file_bytes", (int64_t)bytes);
        report_state(s, call->arena, &r);
        status = report_end(&r, stdout);
    }
    feat_state_free(s);
    rk_config_free(c);
    return status;
}

/* ---- plans ------------------------------------------------------------------------------------
 */

static void report_features(const struct feat_plan *p, struct report *r) {
    static const char *const sides[] = {"user", "context", "item", "cross"};
    report_table(r, "features",
                 (const char *const[]){"feature", "kind", "side", "part", "columns", "at", "ids",
                                       "id_at", "table", NULL});
    for (int i = 0; i < p->n_features; i++) {
        const struct feat *f = p->features[i];
        bool query = f->side == FEAT_USER || f->side == FEAT_CONTEXT;
        report_cstr(r, NULL, f->name);
        report_cstr(r, NULL, f->kind->name);
        report_cstr(r, NULL, sides[f->side]);
        report_cstr(r, NULL, query ? "query" : "candidate");
        report_int(r, NULL, f->n_columns);
        report_int(r, NULL, f->column);
        report_int(r, NULL, f->n_slots);
        report_int(r, NULL, f->slot);
        report_cstr(r, NULL, f->table >= 0 ? p->tables[f->table].name : "");
    }
    report_table_end(r);
}

static void report_plan(const struct feat_plan *p, struct report *r) {
    char fingerprint[20];
    snprintf(fingerprint, sizeof fingerprint, "%016llx", (unsigned long long)p->fingerprint);
    report_cstr(r, "fingerprint", fingerprint);
    report_num(r, "lateness_s", (double)p->lateness_us * 1e-6, 3);
    report_int(r, "query_columns", p->query_columns);
    report_int(r, "query_ids", p->query_slots);
    report_int(r, "candidate_columns", p->cand_columns);
    report_int(r, "candidate_ids", p->cand_slots);
    report_features(p, r);
    report_table(r, "tables", (const char *const[]){"table", "rows", "dim", NULL});
    for (int i = 0; i < p->n_tables; i++) {
        report_cstr(r, NULL, p->tables[i].name);
        report_int(r, NULL, p->tables[i].rows);
        report_int(r, NULL, p->tables[i].dim);
    }
    report_table_end(r);
}

static enum status inspect_plan(const char *path, const struct inspect_options *o,
                                const struct verb_call *call) {
    struct rk_config *c;
    struct report r;
    TRY(rk_config_load(path, o->config.sets.v, o->config.sets.n, &c));
    if (!c->plan) {
        enum status status = fail(STATUS_FAILED_PRECONDITION, "%s: no section 'features'", path);
        rk_config_free(c);
        return status;
    }
    report_begin(&r, call->json);
    report_cstr(&r, "file", path);
    report_cstr(&r, "kind", "plan");
    report_plan(c->plan, &r);
    rk_config_free(c);
    return report_end(&r, stdout);
}

/* ---- which ------------------------------------------------------------------------------------
 */

static enum status read_head(const char *path, char head[16], size_t *n, size_t *bytes) {
    struct buf file = {0};
    enum status status = io_read_file(path, SIZE_MAX, &file);
    *bytes = file.n;
    *n = file.n < 16 ? file.n : 16;
    if (*n)
        memcpy(head, file.p, *n);
    buf_deinit(&file);
    return status;
}

static enum status run(const struct verb_call *call, void *options) {
    const struct inspect_options *o = options;
    const char *path = call->n_operands ? call->operands[0] : o->config.path;
    char head[16];
    size_t n, bytes;
    if (!*path)
        return fail(STATUS_INVALID_ARGUMENT, "which file? moerank inspect --help");
    if (!*o->data && (*o->html || *o->against || o->row || o->segments.n))
        return fail(STATUS_INVALID_ARGUMENT,
                    "--html, --against, --segment and --row say what to do with --data");
    TRY(read_head(path, head, &n, &bytes));
    if (tensors_is_file((struct slice){head, n}))
        return inspect_model(path, o, call);
    if (n >= 8 && memcmp(head, "MOEFEAT1", 8) == 0)
        return inspect_snapshot(path, bytes, o, call);
    return inspect_plan(path, o, call);
}

static const struct verb verb = {
    .name = "inspect",
    .operands = "FILE",
    .operands_max = 1,
    .about =
        "Looks into a file. A model: tasks, spec, inputs, tensors with their norms, each expert's "
        "norm, version; with --data, what its gates and experts do on rows (docs/inspect.md). A "
        "snapshot (with --config, whose plan it follows): entities, bytes, "
        "offsets. A settings file: the columns its plan makes, and which side they are on.",
    .example = "moerank inspect model.safetensors\n"
               "moerank inspect model.safetensors --data rows.csv --html experts.html\n"
               "moerank inspect model.safetensors --config moerank.yaml --data events.jsonl.gz\n"
               "moerank inspect state.snap --config moerank.yaml\n"
               "moerank inspect moerank.yaml --json",
    .items = items,
    .bytes = sizeof(struct inspect_options),
    .run = run,
};

enum status cmd_inspect(int argc, char **argv) { return verb_main(&verb, argc, argv); }
