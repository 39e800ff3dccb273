/* train.c: from examples to a model: epochs over shuffled groups, averaged weights, early stopping.
 * The validation slice is the last share of the groups by time (train_data.c). */
#include "moe/train/train.h"
#include <math.h>
#include <string.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/map.h"
#include "moe/train/loss.h"
#include "moe/train/recalibrate.h"
#include "moe/train/training.h"
#include "moe/math/vec.h"

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
    CONF_INT(struct moe_train_conf, bad_steps_max, "bad_steps_max", "0", 0, 1e9, "steps",
             "steps whose loss or gradient is not finite that are skipped before training stops; "
             "0: it stops at the first"),
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
    CONF_ENUM(struct moe_train_conf, balance, "balance", "fixed", MOE_BALANCE_CHOICES,
              "factors on the tasks' losses that move during training"),
    CONF_FLOAT(struct moe_train_conf, gradnorm_alpha, "gradnorm_alpha", "1.5", 0, 10, NULL,
               "gradnorm: how much harder a task pushes that learns slower than the others"),
    CONF_ENUM(
        struct moe_train_conf, precision, "precision", "fp32", "fp32|bf16",
        "of the operands of products; sums, weights and moments are fp32 always. bf16 needs a "
        "CPU with AVX512_BF16"),
    CONF_BOOL(struct moe_train_conf, prior_bias, "prior_bias", "true",
              "towers start at the log-odds of their task in the training rows"),
    CONF_END};

#define EMA_EVERY 8 /* steps from one averaging to the next */
#define RUN       8 /* groups of one user that stand together for a pairwise loss */

MOE_CLONES static void average(size_t n, float keep, const float *restrict v, float *restrict ema) {
    for (size_t i = 0; i < n; i++)
        ema[i] = keep * ema[i] + (1 - keep) * v[i];
}

/* Running statistics of batches are averaged too: those of the last steps belong to the last
 * weights. Other buffers are no averages of anything. to: gets the average, NULL: it moves. */
static void average_running(const struct moe_training *t, float keep, float *to) {
    const struct moe_params *p = &t->m->params;
    for (int l = 0; l < t->m->n_levels; l++)
        for (int i = 0; i < t->m->levels[l].n_groups; i++) {
            const int tensor = t->m->levels[l].groups[i].buffer;
            const size_t at = tensor < 0 ? 0 : p->t[tensor].at;
            const size_t n = tensor < 0 ? 0 : (size_t)p->t[tensor].copies * p->t[tensor].stride;
            if (n && to)
                memcpy(to + at, t->ema + at, n * sizeof *to);
            else
                average(n, keep, p->v + at, t->ema + at);
        }
}

static void update_ema(struct moe_training *t) {
    int64_t step = t->trainer.optim.step;
    if (!t->ema || step % EMA_EVERY)
        return;
    double young = (1.0 + (double)step) / (10.0 + (double)step), keep = t->conf->ema;
    keep = pow(young < keep ? young : keep, EMA_EVERY);
    average(t->m->params.region_at[MOE_BUFFER], (float)keep, t->m->params.v, t->ema);
    average_running(t, (float)keep, NULL);
}

/* The end of the batch that starts at `from`: groups while they fit, at least one. */
static int batch_end(const struct moe_training *t, const int *groups, int from) {
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

static int64_t count_batches(const struct moe_training *t) {
    int64_t n = 0;
    for (int i = 0; i < t->n_train; n++)
        i = batch_end(t, t->train, i);
    return n;
}

/* Numbers the group keys, for a pairwise loss. */
static void number_users(struct moe_training *t) {
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
static void shuffle(struct moe_training *t, struct rng *rng) {
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

static enum status bad_step(const struct moe_training *t, int epoch, int batch) {
    return fail(STATUS_FAILED_PRECONDITION,
                "epoch %d, batch %d: the loss is not finite%s; lower rate (now %g) or set clip",
                epoch, batch,
                t->conf->bad_steps_max ? ", more often than bad_steps_max allows" : "",
                t->conf->rate);
}

static enum status run_epoch(struct moe_training *t, int epoch, double *loss,
                             struct moe_train_report *report) {
    double sum = 0;
    int batches = 0;
    struct rng rng;
    rng_init(&rng, (uint64_t)t->conf->seed * 1000003 + (uint64_t)epoch);
    shuffle(t, &rng);
    for (int from = 0, to; from < t->n_train; from = to, batches++) {
        to = batch_end(t, t->train, from);
        double l = moe_trainer_step(&t->trainer, t->train + from, to - from);
        if (!isfinite(l) && ++report->bad_steps > t->conf->bad_steps_max)
            return bad_step(t, epoch + 1, batches + 1);
        sum += isfinite(l) ? l : 0;
        update_ema(t);
        progress_at(&t->progress, t->progress.done + t->trainer.n_rows);
    }
    *loss = sum / batches;
    return STATUS_OK;
}

/* What would be kept now: averaged numbers if asked for, with the buffers as they are. */
static void snapshot(const struct moe_training *t, float *to) {
    const struct moe_params *p = &t->m->params;
    memcpy(to, p->v, moe_params_floats(p) * sizeof *to);
    if (t->ema) {
        memcpy(to, t->ema, p->region_at[MOE_BUFFER] * sizeof *to);
        average_running(t, 0, to);
    }
}

static enum status run_epochs(struct moe_training *t, struct moe_train_report *report) {
    size_t floats = moe_params_floats(&t->m->params);
    float *now = heap_alloc_aligned((floats + 1) * sizeof *now);
    double best = INFINITY;
    enum status status = STATUS_OK;
    memcpy(t->best, t->m->params.v, floats * sizeof(float));
    for (int epoch = 0; epoch < t->conf->epochs; epoch++) {
        double loss = 0, held = 0;
        status = run_epoch(t, epoch, &loss, report);
        if (status != STATUS_OK)
            break;
        snapshot(t, now);
        held = t->held_rows ? moe_training_validate(t, now)
                            : -epoch; /* nothing held out: the last is the best */
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

static void training_deinit(struct moe_training *t) {
    if (t->trainer.workers)
        moe_trainer_deinit(&t->trainer);
    void *all[] = {t->first,  t->train,  t->held,   t->user,       t->ema, t->best,
                   t->held_p, t->held_y, t->held_w, t->held_group, t->auc};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        heap_free(all[i]);
}

static enum status train(struct moe_training *t, int quiet, struct moe_train_report *report) {
    const struct moe_params *p = &t->m->params;
    int batch_max =
        t->group_rows_max > t->conf->batch_rows ? t->group_rows_max : (int)t->conf->batch_rows;
    moe_trainer_init(&t->trainer, t->m, t->x, t->conf, t->first, batch_max, t->group_rows_max,
                     count_batches(t) * t->conf->epochs);
    moe_training_weigh(t);
    moe_training_start(t);
    moe_training_keep_held(t);
    t->auc = HEAP_ARRAY(double, t->x->n_tasks);
    for (int k = 0; k < t->x->n_tasks; k++)
        report->validation_auc[k] = t->auc[k] = NAN;
    t->best = heap_alloc_aligned((moe_params_floats(p) + 1) * sizeof(float));
    if (t->conf->ema > 0) {
        t->ema = heap_alloc_aligned((moe_params_floats(p) + 1) * sizeof(float));
        memcpy(t->ema, p->v, moe_params_floats(p) * sizeof(float));
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

/* The kept epoch's logits of the validation rows fit the map; with platt_all those of the training
 * rows stand behind them. */
static void calibrate(struct moe_training *t) {
    size_t T = (size_t)t->x->n_tasks, held = (size_t)t->held_rows, all = held, at;
    if (t->m->calibrate == MOE_CALIBRATE_NONE)
        return;
    if (t->m->calibrate == MOE_CALIBRATE_PLATT_ALL)
        all += (size_t)t->train_rows;
    float *z = HEAP_ARRAY(float, all *T + 1), *y = HEAP_ARRAY(float, all *T + 1);
    float *w = HEAP_ARRAY(float, all + 1);
    moe_training_logits(t, t->m->params.v, t->held, t->n_held, z);
    memcpy(y, t->held_y, held * T * sizeof *y);
    memcpy(w, t->held_w, held * sizeof *w);
    if (all > held) {
        moe_training_logits(t, t->m->params.v, t->train, t->n_train, z + held * T);
        at = held;
        for (int i = 0; i < t->n_train; i++) {
            size_t from = (size_t)t->first[t->train[i]];
            size_t n = (size_t)t->first[t->train[i] + 1] - from;
            memcpy(y + at * T, t->x->labels + from * T, n * T * sizeof *y);
            memcpy(w + at, t->x->weight + from, n * sizeof *w);
            at += n;
        }
    }
    moe_recalibrate(t->m, t->held_rows, (int)all, z, y, w);
    heap_free(z);
    heap_free(y);
    heap_free(w);
}

enum status moe_train(const struct node *spec, const char *file, const struct moe_task_spec *tasks,
                      const struct moe_examples *examples, const struct moe_train_conf *conf,
                      int quiet, struct arena *a, struct moe_train_report *report,
                      struct moe_model **out) {
    struct moe_training t = {.x = examples, .conf = conf};
    *report = (struct moe_train_report){.train_loss = NAN, .validation_loss = NAN};
    report->validation_auc = ARENA_ARRAY(a, double, examples->n_tasks);
    enum status status = moe_training_split(&t);
    if (conf->pairwise > 0)
        number_users(&t);
    if (status == STATUS_OK)
        status = moe_training_model(&t, spec, file, tasks, a);
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
