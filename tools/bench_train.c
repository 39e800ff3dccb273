/* bench_train.c: training steps of a reference model on drawn rows, or of the settings' model on a
 * table, timed. Threads, batch and precision are the settings' (--set train.threads=2). Rows of the
 * reference models are groups of their own, as a rival without query parts has them. It prints what
 * a step costs; the ratios to rivals are tests/bench/train.py's, which drives this by --serve. */
#include "tools/bench_train.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/io.h"
#include "moe/math/cpu.h"
#include "moe/model_impl.h"
#include "moe/score/sample.h"
#include "moe/data/table.h"
#include "moe/train/train_steps.h"
#include "ranker/config.h"
#include "tools/report.h"

enum { SAMPLE_ROWS = 16384, ROUND_US = 300000, PEAK_US = 2000, ROUNDS_MAX = 64 };

struct bench {
    struct rk_config *config;
    struct moe_table *table;
    struct moe_examples *examples;
    struct moe_train_steps *steps;
    const struct moe_model *m;
};

static enum status open_table(struct bench *b, const struct verb_call *call, const char *path) {
    struct moe_table_report read;
    const struct node *spec = node_get(b->config->root, "model");
    if (!spec)
        return fail(STATUS_FAILED_PRECONDITION, "%s: no section 'model'", b->config->file);
    TRY(moe_table_new(b->config->root, b->config->file, &b->table));
    TRY(moe_table_read(b->table, path, (uint64_t)b->config->train.seed, call->quiet, &read,
                       &b->examples));
    return moe_train_steps_new(spec, b->config->file, moe_table_task_specs(b->table), b->examples,
                               &b->config->train, call->arena, &b->steps);
}

/* Rows of their own query part; labels by chance. */
static enum status open_sample(struct bench *b, const struct verb_call *call, const char *name) {
    const struct moe_sample *s = moe_sample_find(name);
    struct moe_model *like;
    struct node *spec;
    struct moe_task_spec tasks[8];
    float labels[8];
    struct rng r;
    if (!s)
        return fail(STATUS_INVALID_ARGUMENT,
                    "--sample %s: not known; moerank bench --help lists them", name);
    TRY(node_parse_yaml(call->arena, slice_of(s->spec), "sample", &spec));
    TRY(moe_sample_model(s, 1, &like));
    rng_init(&r, 1);
    b->examples = moe_examples_new(&like->inputs, s->n_tasks);
    for (int i = 0; i < s->n_tasks; i++)
        tasks[i] = (struct moe_task_spec){like->tasks[i], 1, {0}};
    for (int i = 0; i < SAMPLE_ROWS; i++) {
        struct arena a;
        arena_init(&a, 0);
        struct moe_batch row = moe_sample_batch(&like->inputs, 1, 0, &r, &a);
        for (int t = 0; t < s->n_tasks; t++)
            labels[t] = (float)(rng_below(&r, 4) == 0);
        moe_examples_add(b->examples, &row, labels, NULL, i, (uint64_t)i);
        arena_deinit(&a);
    }
    enum status status = moe_train_steps_new(spec, "sample", tasks, b->examples, &b->config->train,
                                             call->arena, &b->steps);
    moe_model_free(like);
    return status;
}

/* --- for a rival ------------------------------------------------------------------------------ */

static enum status write_floats(const char *folder, const char *name, const void *x, size_t bytes,
                                struct arena *a) {
    return io_write_file(arena_printf(a, "%s/%s", folder, name), (struct slice){x, bytes});
}

/* The candidate and query numbers as the network's inputs, ids and labels, a row after the other.
 */
static enum status export_rows(const struct bench *b, const char *folder, struct arena *a) {
    const struct moe_examples *x = b->examples;
    const struct moe_encode *q = &b->m->encode[MOE_QUERY], *c = &b->m->encode[MOE_CAND];
    const size_t width = (size_t)(q->width + c->width), slots = (size_t)x->inputs.cand_slots;
    const size_t n = (size_t)(x->n_rows < SAMPLE_ROWS ? x->n_rows : SAMPLE_ROWS);
    float *in = HEAP_ARRAY(float, n *width + 1);
    struct buf text = {0};
    for (size_t r = 0; r < n; r++) {
        size_t g = (size_t)x->group[r];
        moe_encode_rows(q, x->query + g * (size_t)q->columns, 1, in + r * width, (int)width);
        moe_encode_rows(c, x->cand + r * (size_t)c->columns, 1, in + r * width + (size_t)q->width,
                        (int)width);
    }
    buf_printf(&text,
               "{\"rows\": %zu, \"width\": %zu, \"slots\": %zu, \"tasks\": %d, \"tables\": [", n,
               width, slots, x->n_tasks);
    for (int i = 0; i < x->inputs.n_ids; i++)
        buf_printf(&text, "%s[%u, %d]", i ? ", " : "",
                   x->inputs.tables[x->inputs.ids[i].table].rows,
                   x->inputs.tables[x->inputs.ids[i].table].dim);
    buf_printf(&text, "], \"floats\": %zu}\n", moe_model_floats(b->m));
    enum status status = io_make_dirs(folder);
    if (status == STATUS_OK)
        status = write_floats(folder, "x.f32", in, n * width * sizeof *in, a);
    if (status == STATUS_OK)
        status = write_floats(folder, "ids.u32", x->cand_ids, n * slots * sizeof *x->cand_ids, a);
    if (status == STATUS_OK)
        status = write_floats(folder, "labels.f32", x->labels,
                              n * (size_t)x->n_tasks * sizeof(float), a);
    if (status == STATUS_OK)
        status = write_floats(folder, "shape.json", text.p, text.n, a);
    heap_free(in);
    buf_deinit(&text);
    return status;
}

/* --- timing ----------------------------------------------------------------------------------- */

struct took {
    double wall, cpu, loss; /* seconds of the steps */
};
static struct took take(const struct bench *b, int steps) {
    double cpu = clock_cpu_s();
    int64_t from = clock_mono_ns();
    struct took t = {.loss = moe_train_steps_run(b->steps, steps)};
    t.wall = (double)(clock_mono_ns() - from) * 1e-9;
    t.cpu = clock_cpu_s() - cpu;
    return t;
}

static enum status serve(const struct bench *b) {
    char line[128];
    int n;
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "steps %d", &n) == 1 && n > 0) {
            struct took t = take(b, n);
            printf("%.9f %.9f %.9g\n", t.wall, t.cpu, t.loss);
        } else if (strncmp(line, "peak fp32", 9) == 0 || strncmp(line, "peak bf16", 9) == 0) {
            printf("%.3f\n",
                   moe_cpu_peak(moe_cpu(), line[5] == 'f' ? MOE_FP32 : MOE_BF16, PEAK_US));
        } else {
            return fail(STATUS_INVALID_ARGUMENT, "not understood: %s", line);
        }
        fflush(stdout);
    }
    return STATUS_OK;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static enum status measure(const struct bench *b, const struct bench_train_options *o,
                           const struct verb_call *call) {
    double rate[ROUNDS_MAX];
    const int rounds = o->rounds < ROUNDS_MAX ? (int)o->rounds : ROUNDS_MAX;
    const double rows = (double)b->config->train.batch_rows, once = take(b, 2).wall / 2;
    const int steps = 1 + (int)(ROUND_US * 1e-6 / once);
    for (int i = 0; i < rounds; i++) { /* of one thread, what others take from it does not count */
        struct took t = take(b, steps);
        rate[i] = rows * steps / (b->config->train.threads > 1 ? t.wall : t.cpu);
    }
    qsort(rate, (size_t)rounds, sizeof *rate, ascending);
    struct report r;
    report_begin(&r, call->json);
    report_cstr(&r, "name", "train");
    report_cstr(&r, "cpu", moe_cpu_model());
    report_cstr(&r, "isa", moe_isa_word(moe_cpu()->isa));
    report_int(&r, "threads", b->config->train.threads);
    report_int(&r, "floats", (int64_t)moe_model_floats(b->m));
    report_num(&r, "samples_per_s", rate[rounds / 2], 0);
    report_num(&r, "least", rate[0], 0);
    report_num(&r, "most", rate[rounds - 1], 0);
    return report_end(&r, stdout);
}

enum status bench_train(const struct verb_call *call, const struct bench_train_options *o) {
    struct bench b = {0};
    TRY(option_config_load(&o->config, &b.config));
    enum status status =
        *o->table ? open_table(&b, call, o->table) : open_sample(&b, call, o->sample);
    if (status == STATUS_OK) {
        b.m = moe_train_steps_model(b.steps);
        if (*o->export)
            status = export_rows(&b, o->export, call->arena);
        else
            status = o->serve ? serve(&b) : measure(&b, o, call);
    }
    moe_train_steps_free(b.steps);
    moe_examples_free(b.examples);
    moe_table_free(b.table);
    rk_config_free(b.config);
    return status;
}
