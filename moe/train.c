/* train.c: from examples to a model: the split by time, fitting the encoders, epochs over shuffled
 * groups, averaged weights, validation, early stopping. The validation slice is the last share of
 * the groups by time; test data never come here. */
#include "moe/train.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/map.h"
#include "base/progress.h"
#include "moe/eval.h"
#include "moe/loss.h"
#include "moe/recalibrate.h"
#include "moe/trainer.h"
#include "moe/vec.h"

const struct conf_item moe_train_items[] = {
    CONF_INT(struct moe_train_conf, epochs, "epochs", "10", 0, 100000, "epochs",
             "passes over the training rows, at most"),
    CONF_INT(struct moe_train_conf, batch_rows, "batch_rows", "1024", 1, 1000000, "rows",
             "rows of a mini-batch; a request's rows stay together"),
    CONF_INT(struct moe_train_conf, seed, "seed", "1", 0, 9007199254740992.0, NULL,
             "of initial values, shuffling, dropout and gates' noise"),
    CONF_INT(struct moe_train_conf, threads, "threads", "1", 1, 64, "threads",
             "workers that share each batch; results depend on the number, not on timing"),
    CONF_INT(struct moe_train_conf, patience, "patience", "3", 0, 100000, "epochs",
             "stop after so many epochs without a better validation loss; 0: never"),
    CONF_FLOAT(struct moe_train_conf, rate, "rate", "0.001", 0, 10, NULL,
               "learning rate after warm-up"),
    CONF_FLOAT(struct moe_train_conf, weight_decay, "weight_decay", "0.0001", 0, 10, NULL,
               "of matrices and embeddings; adamw: decoupled"),
    CONF_FLOAT(struct moe_train_conf, clip, "clip", "0", 0, 1e9, NULL,
               "greatest norm of a step's gradient; 0: no limit"),
    CONF_FLOAT(
        struct moe_train_conf, pairwise, "pairwise", "0", 0, 1000, NULL,
        "weight of a pairwise loss between rows of one user (or other group key), beside the "
        "cross-entropy; 0: off"),
    CONF_FLOAT(struct moe_train_conf, validation, "validation", "0.1", 0, 0.9, NULL,
               "last share of the groups by time, held out to choose the epoch"),
    CONF_FLOAT(struct moe_train_conf, embed_rate, "embed_rate", "1", 0, 1000, NULL,
               "learning rate of embeddings, as a multiple of rate"),
    CONF_FLOAT(struct moe_train_conf, dropout, "dropout", "0", 0, 0.9, NULL,
               "share of activations of experts and towers dropped in training"),
    CONF_FLOAT(struct moe_train_conf, warmup, "warmup", "0.05", 0, 1, NULL,
               "share of the steps with a rising learning rate"),
    CONF_FLOAT(struct moe_train_conf, ema, "ema", "0", 0, 0.99999, NULL,
               "decay of the averaged weights that are kept in place of the last ones; 0: off"),
    CONF_ENUM(struct moe_train_conf, optimizer, "optimizer", "adamw", MOE_OPTIM_CHOICES,
              "rule of a step"),
    CONF_ENUM(struct moe_train_conf, schedule, "schedule", "cosine", MOE_SCHEDULE_CHOICES,
              "learning rate after warm-up"),
    CONF_BOOL(struct moe_train_conf, prior_bias, "prior_bias", "true",
              "towers start at the log-odds of their task in the training rows"),
    CONF_END};

#define EMA_EVERY    8      /* steps from one averaging to the next */
#define RUN          8      /* groups of one user that stand together for a pairwise loss */
#define FIT_ROWS_MAX 262144 /* rows that encoders are fitted on, evenly spread */

/* All that moe_train keeps while it runs. */
struct training {
    const struct moe_examples *x;
    const struct moe_train_conf *conf;
    int *first;        /* [n_groups + 1] first row of each group */
    int *train, *held; /* groups */
    int *user;         /* [n_groups] number of the group's key, when rows of a user go together */
    int n_users;
    int n_train, n_held, train_rows, held_rows, group_rows_max;
    struct moe_model *m;
    struct moe_trainer trainer;
    float *ema;    /* [dense + tables] or NULL */
    float *best;   /* [all floats] of the kept epoch */
    float *held_p; /* [held_rows x n_tasks] logits of the validation rows */
    float *held_y, *held_w;
    int *held_group;
    struct progress progress;
    double *auc; /* [n_tasks] */
};

/* --- rows and splits ---------------------------------------------------------------------------
 */

struct by_time {
    int64_t time_us;
    int group;
};
static int order_by_time(const void *a, const void *b) {
    const struct by_time *x = a, *y = b;
    return x->time_us != y->time_us ? (x->time_us > y->time_us) - (x->time_us < y->time_us)
                                    : x->group - y->group;
}

/* Groups with rows, cut by time into training and validation. */
static enum status split(struct training *t) {
    const struct moe_examples *x = t->x;
    struct by_time *order = HEAP_ARRAY(struct by_time, x->n_groups + 1);
    int n = 0, r = 0;
    t->first = HEAP_ARRAY(int, x->n_groups + 1);
    for (int g = 0; g < x->n_groups; g++) {
        t->first[g] = r;
        while (r < x->n_rows && x->group[r] == g)
            r++;
        int rows = r - t->first[g];
        t->group_rows_max = rows > t->group_rows_max ? rows : t->group_rows_max;
        if (rows)
            order[n++] = (struct by_time){x->time_us[g], g};
    }
    t->first[x->n_groups] = r;
    qsort(order, (size_t)n, sizeof *order, order_by_time);
    t->n_held = (int)(t->conf->validation * n);
    t->n_train = n - t->n_held;
    t->train = HEAP_ARRAY(int, n + 1);
    t->held = HEAP_ARRAY(int, n + 1);
    for (int i = 0; i < n; i++) {
        int g = order[i].group, rows = t->first[g + 1] - t->first[g];
        if (i < t->n_train)
            t->train[i] = g, t->train_rows += rows;
        else
            t->held[i - t->n_train] = g, t->held_rows += rows;
    }
    heap_free(order);
    if (t->train_rows == 0)
        return fail(STATUS_FAILED_PRECONDITION,
                    "no rows to train on: %d groups, of which %d are held out", n, t->n_held);
    if (r != x->n_rows)
        return fail(STATUS_INTERNAL, "examples: rows are not in the order of their groups");
    return STATUS_OK;
}

/* Fits a side's encoders to an even spread of its training rows. */
static void fit(const struct training *t, int side, unsigned kinds,
                const struct moe_numbers_conf *c, struct moe_encode *out) {
    const struct moe_examples *x = t->x;
    int columns = side == MOE_QUERY ? x->inputs.query_columns : x->inputs.cand_columns;
    int total = side == MOE_QUERY ? t->n_train : t->train_rows, n = 0;
    int take = total < FIT_ROWS_MAX ? total : FIT_ROWS_MAX;
    float *rows = HEAP_ARRAY(float, (size_t)take *(size_t)columns + 1);
    int64_t seen = 0;
    for (int i = 0; i < t->n_train; i++) {
        int g = t->train[i], from = side == MOE_QUERY ? g : t->first[g];
        int to = side == MOE_QUERY ? g + 1 : t->first[g + 1];
        for (int r = from; r < to; r++, seen++) {
            if (n == take || seen * take / total < n)
                continue;
            memcpy(rows + (size_t)n++ * (size_t)columns,
                   (side == MOE_QUERY ? x->query : x->cand) + (size_t)r * (size_t)columns,
                   (size_t)columns * sizeof(float));
        }
    }
    moe_encode_fit(out, kinds, (float)c->clip, (int)c->bins, rows, n, columns);
    heap_free(rows);
}

static enum status make_model(struct training *t, const struct node *spec, const char *file,
                              const struct moe_task_spec *tasks, struct arena *a) {
    struct moe_numbers_conf numbers;
    struct moe_encode encode[MOE_SIDES] = {0};
    const char *names[64];
    unsigned kinds;
    int n = t->x->n_tasks;
    if (n > 64)
        return fail(STATUS_INVALID_ARGUMENT, "%s: %d tasks; at most 64 are possible", file, n);
    for (int i = 0; i < n; i++)
        names[i] = tasks[i].name;
    TRY(moe_spec_numbers(spec, file, &numbers, a));
    TRY(moe_spec_encodings(&numbers, file, &kinds));
    fit(t, MOE_QUERY, kinds, &numbers, &encode[MOE_QUERY]);
    fit(t, MOE_CAND, kinds, &numbers, &encode[MOE_CAND]);
    TRY(moe_model_build(spec, file, &t->x->inputs, names, n, encode, 0, &t->m));
    for (int i = 0; i < n; i++) {
        t->m->task_weight[i] = (float)tasks[i].weight;
        t->m->task_loss[i] = tasks[i].loss;
    }
    moe_params_init(&t->m->params, (uint64_t)t->conf->seed);
    return STATUS_OK;
}

/* Normalisers and priors of the tasks from the training rows: a task's loss is the mean over its
 * own sample space, taken over the data set and not the batch, so that batches stay unbiased. */
static void weigh_tasks(struct training *t) {
    const struct moe_examples *x = t->x;
    for (int k = 0; k < x->n_tasks; k++) {
        double all = 0, known = 0, positive = 0;
        for (int i = 0; i < t->n_train; i++)
            for (int r = t->first[t->train[i]]; r < t->first[t->train[i] + 1]; r++) {
                float y = x->labels[(size_t)r * (size_t)x->n_tasks + (size_t)k];
                all += (double)x->weight[r];
                known += isnan(y) ? 0 : (double)x->weight[r];
                positive += isnan(y) ? 0 : (double)(y * x->weight[r]);
            }
        t->trainer.scale[k] *= known > 0 ? (float)(all / known) : 0;
        double p = (positive + 0.5) / (known + 1);
        const struct moe_tower *w = &t->m->towers[k];
        bool chance = moe_loss_is_probability(&t->m->task_loss[k]);
        if (t->conf->prior_bias && (p < 1 || !chance))
            moe_params_at(&t->m->params, t->m->params.v, w->tensor,
                          0)[w->mlp.b[w->mlp.n_layers - 1]] =
                chance ? (float)log(p / (1 - p)) : (float)(positive / (known > 0 ? known : 1));
    }
}

/* --- validation ----------------------------------------------------------------------------------
 */

/* Logits of groups in runs of consecutive ones, by worker 0's scratch. */
static void predict_held(struct training *t, const float *v) {
    struct moe_worker *w = &t->trainer.workers[0];
    size_t T = (size_t)t->x->n_tasks, done = 0;
    for (int i = 0, j; i < t->n_held; i = j) {
        int rows = 0;
        for (j = i;
             j < t->n_held && j - i < t->trainer.groups_max && t->held[j] == t->held[i] + (j - i);
             j++) {
            int more = t->first[t->held[j] + 1] - t->first[t->held[j]];
            if (rows + more > t->trainer.rows_max && j > i)
                break;
            rows += more;
        }
        struct moe_batch b;
        struct moe_pass pass = {.batch = &b};
        moe_examples_view(t->x, t->held[i], j - i, &b);
        moe_forward(t->m, v, &b, w->run, &pass, false);
        memcpy(t->held_p + done * T, w->run->logits, (size_t)rows * T * sizeof(float));
        done += (size_t)rows;
    }
}

static double validate(struct training *t, const float *v) {
    int T = t->x->n_tasks, n = t->held_rows;
    float scale[64];
    double weight = 0;
    predict_held(t, v);
    for (int r = 0; r < n; r++)
        weight += (double)t->held_w[r];
    for (int k = 0; k < T; k++)
        scale[k] = (float)((double)t->trainer.scale[k] / weight);
    float *p = HEAP_ARRAY(float, n + 1), *y = HEAP_ARRAY(float, n + 1);
    for (int k = 0; k < T; k++) {
        for (int r = 0; r < n; r++) {
            p[r] = t->held_p[(size_t)r * (size_t)T + (size_t)k];
            y[r] = t->held_y[(size_t)r * (size_t)T + (size_t)k];
        }
        t->auc[k] = moe_auc(p, y, n);
    }
    heap_free(p);
    heap_free(y);
    return moe_loss_tasks(n, T, t->m->task_loss, t->held_p, t->held_y, t->held_w, t->held_group,
                          scale, NULL, NULL);
}

static void keep_held_labels(struct training *t) {
    size_t T = (size_t)t->x->n_tasks, at = 0;
    t->held_p = HEAP_ARRAY(float, (size_t)t->held_rows *T + 1);
    t->held_y = HEAP_ARRAY(float, (size_t)t->held_rows *T + 1);
    t->held_w = HEAP_ARRAY(float, t->held_rows + 1);
    t->held_group = HEAP_ARRAY(int, t->held_rows + 1);
    for (int i = 0; i < t->n_held; i++) {
        size_t from = (size_t)t->first[t->held[i]], n = (size_t)t->first[t->held[i] + 1] - from;
        memcpy(t->held_y + at * T, t->x->labels + from * T, n * T * sizeof(float));
        memcpy(t->held_w + at, t->x->weight + from, n * sizeof(float));
        for (size_t r = 0; r < n; r++)
            t->held_group[at + r] = i;
        at += n;
    }
}

/* --- epochs --------------------------------------------------------------------------------------
 */

MOE_CLONES static void average(size_t n, float keep, const float *restrict v, float *restrict ema) {
    for (size_t i = 0; i < n; i++)
        ema[i] = keep * ema[i] + (1 - keep) * v[i];
}

static void update_ema(struct training *t) {
    int64_t step = t->trainer.optim.step;
    if (!t->ema || step % EMA_EVERY)
        return;
    double young = (1.0 + (double)step) / (10.0 + (double)step), keep = t->conf->ema;
    keep = pow(young < keep ? young : keep, EMA_EVERY);
    average(t->m->params.region_at[MOE_BUFFER], (float)keep, t->m->params.v, t->ema);
}

/* The end of the batch that starts at `from`: groups while they fit, at least one. */
static int batch_end(const struct training *t, const int *groups, int from) {
    int to = from;
    int64_t rows = 0;
    while (to < t->n_train) {
        int more = t->first[groups[to] + 1] - t->first[groups[to]];
        if (to > from && rows + more > t->conf->batch_rows)
            break;
        rows += more;
        to++;
    }
    return to;
}

static int64_t count_batches(const struct training *t) {
    int64_t n = 0;
    for (int i = 0; i < t->n_train; n++)
        i = batch_end(t, t->train, i);
    return n;
}

/* Numbers the group keys, for a pairwise loss. */
static void number_users(struct training *t) {
    struct map users = {0};
    uint64_t number;
    t->user = HEAP_ARRAY(int, t->x->n_groups + 1);
    for (int g = 0; g < t->x->n_groups; g++) {
        if (!map_get(&users, t->x->group_key[g], &number)) {
            number = (uint64_t)t->n_users++;
            map_put(&users, t->x->group_key[g], number);
        }
        t->user[g] = (int)number;
    }
    map_deinit(&users);
}

/* A random order of the training groups. With a pairwise loss, random runs of at most RUN groups of
 * one user each, in random order: pairs need company, batches need variety. */
static void shuffle(struct training *t, struct rng *rng) {
    uint32_t n = (uint32_t)t->n_train, n_runs = 0;
    rng_shuffle_u32(rng, (uint32_t *)t->train, n);
    if (t->conf->pairwise <= 0)
        return;
    int *end = HEAP_ARRAY(int, t->n_users + 1), *sorted = HEAP_ARRAY(int, n + 1);
    uint32_t *runs = HEAP_ARRAY(uint32_t, n + 1);
    for (uint32_t i = 0; i < n; i++)
        end[t->user[t->train[i]] + 1]++;
    for (int u = 0; u < t->n_users; u++)
        end[u + 1] += end[u];
    for (uint32_t i = 0; i < n; i++)
        sorted[end[t->user[t->train[i]]]++] = t->train[i]; /* end[u] is now where u ends */
    for (uint32_t i = 0, start = 0; i < n; i++) {
        if (i == 0 || t->user[sorted[i]] != t->user[sorted[i - 1]] || i - start == RUN)
            runs[n_runs++] = start = i;
    }
    rng_shuffle_u32(rng, runs, n_runs);
    for (uint32_t r = 0, at = 0; r < n_runs; r++) {
        uint32_t i = runs[r], user = (uint32_t)t->user[sorted[i]];
        for (int k = 0; k < RUN && i < (uint32_t)end[user]; k++)
            t->train[at++] = sorted[i++];
    }
    heap_free(end);
    heap_free(sorted);
    heap_free(runs);
}

static enum status run_epoch(struct training *t, int epoch, double *loss) {
    double sum = 0;
    int batches = 0;
    struct rng rng;
    rng_init(&rng, (uint64_t)t->conf->seed * 1000003 + (uint64_t)epoch);
    shuffle(t, &rng);
    for (int from = 0, to; from < t->n_train; from = to, batches++) {
        to = batch_end(t, t->train, from);
        double l = moe_trainer_step(&t->trainer, t->train + from, to - from);
        if (!isfinite(l))
            return fail(
                STATUS_FAILED_PRECONDITION,
                "epoch %d, batch %d: the loss is not finite; lower rate (now %g) or set clip",
                epoch + 1, batches + 1, t->conf->rate);
        sum += l;
        update_ema(t);
        progress_at(&t->progress, t->progress.done + t->trainer.n_rows);
    }
    *loss = sum / batches;
    return STATUS_OK;
}

/* What would be kept now: averaged numbers if asked for, with the buffers as they are. */
static void snapshot(const struct training *t, float *to) {
    const struct moe_params *p = &t->m->params;
    memcpy(to, p->v, moe_params_floats(p) * sizeof *to);
    if (t->ema)
        memcpy(to, t->ema, p->region_at[MOE_BUFFER] * sizeof *to);
}

static enum status run_epochs(struct training *t, struct moe_train_report *report) {
    size_t floats = moe_params_floats(&t->m->params);
    float *now = heap_alloc_aligned((floats + 1) * sizeof *now);
    double best = INFINITY;
    enum status status = STATUS_OK;
    memcpy(t->best, t->m->params.v, floats * sizeof(float));
    for (int epoch = 0; epoch < t->conf->epochs; epoch++) {
        double loss = 0, held = 0;
        status = run_epoch(t, epoch, &loss);
        if (status != STATUS_OK)
            break;
        snapshot(t, now);
        held =
            t->held_rows ? validate(t, now) : -epoch; /* nothing held out: the last is the best */
        report->epochs_run = epoch + 1;
        if (!isfinite(held)) {
            status = fail(STATUS_FAILED_PRECONDITION, "epoch %d: the validation loss is not finite",
                          epoch + 1);
            break;
        }
        if (held < best) {
            best = held;
            report->best_epoch = epoch + 1;
            report->train_loss = loss;
            report->validation_loss = t->held_rows ? held : NAN;
            memcpy(report->validation_auc, t->auc, (size_t)t->x->n_tasks * sizeof *t->auc);
            memcpy(t->best, now, floats * sizeof(float));
        } else if (t->conf->patience && epoch + 1 - report->best_epoch >= t->conf->patience) {
            break;
        }
    }
    heap_free(now);
    return status;
}

static void training_deinit(struct training *t) {
    if (t->trainer.workers)
        moe_trainer_deinit(&t->trainer);
    void *all[] = {t->first,  t->train,  t->held,   t->user,       t->ema, t->best,
                   t->held_p, t->held_y, t->held_w, t->held_group, t->auc};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        heap_free(all[i]);
}

static enum status train(struct training *t, int quiet, struct moe_train_report *report) {
    const struct moe_params *p = &t->m->params;
    int batch_max =
        t->group_rows_max > t->conf->batch_rows ? t->group_rows_max : (int)t->conf->batch_rows;
    moe_trainer_init(&t->trainer, t->m, t->x, t->conf, t->first, batch_max, t->group_rows_max,
                     count_batches(t) * t->conf->epochs);
    weigh_tasks(t);
    keep_held_labels(t);
    t->auc = HEAP_ARRAY(double, t->x->n_tasks);
    for (int k = 0; k < t->x->n_tasks; k++)
        report->validation_auc[k] = t->auc[k] = NAN;
    t->best = heap_alloc_aligned((moe_params_floats(p) + 1) * sizeof(float));
    if (t->conf->ema > 0) {
        t->ema = heap_alloc_aligned((p->region_at[MOE_BUFFER] + 1) * sizeof(float));
        memcpy(t->ema, p->v, p->region_at[MOE_BUFFER] * sizeof(float));
    }
    int64_t start = clock_mono_us();
    progress_start(&t->progress, "train", "rows", (int64_t)t->train_rows * t->conf->epochs, quiet);
    enum status status = run_epochs(t, report);
    progress_end(&t->progress);
    report->seconds = (double)(clock_mono_us() - start) * 1e-6;
    report->rows_per_s =
        report->seconds > 0 ? (double)t->train_rows * report->epochs_run / report->seconds : 0;
    return status;
}

/* The kept epoch's logits of the validation rows fit the map. */
static void calibrate(struct training *t) {
    if (t->m->calibrate == MOE_CALIBRATE_NONE)
        return;
    predict_held(t, t->m->params.v);
    moe_recalibrate(t->m, t->held_rows, t->held_p, t->held_y, t->held_w);
}

enum status moe_train(const struct node *spec, const char *file, const struct moe_task_spec *tasks,
                      const struct moe_examples *examples, const struct moe_train_conf *conf,
                      int quiet, struct arena *a, struct moe_train_report *report,
                      struct moe_model **out) {
    struct training t = {.x = examples, .conf = conf};
    *report = (struct moe_train_report){.train_loss = NAN, .validation_loss = NAN};
    report->validation_auc = ARENA_ARRAY(a, double, examples->n_tasks);
    enum status status = split(&t);
    if (conf->pairwise > 0)
        number_users(&t);
    if (status == STATUS_OK)
        status = make_model(&t, spec, file, tasks, a);
    if (status == STATUS_OK && t.m->calibrate != MOE_CALIBRATE_NONE && t.held_rows == 0)
        status = fail(STATUS_FAILED_PRECONDITION,
                      "%s: model.calibrate needs validation rows; raise train.validation", file);
    if (status == STATUS_OK)
        status = train(&t, quiet, report);
    if (status == STATUS_OK) {
        memcpy(t.m->params.v, t.best, moe_params_floats(&t.m->params) * sizeof(float));
        calibrate(&t);
        moe_model_stamp(t.m);
    }
    struct moe_model *m = t.m;
    training_deinit(&t);
    if (status != STATUS_OK) {
        moe_model_free(m);
        return status;
    }
    *out = m;
    return STATUS_OK;
}
