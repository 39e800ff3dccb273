/* evaluate.c: progressive evaluation. Rows and labels are made by the code that makes training
 * examples, with the events in the order of application, so nothing can leak from the future; the
 * model is fixed, so all rows may be scored at the end.
 *
 * Deliberately no intervals here: `tools/bench` repeats runs, this verb shows one. */
#include "tools/evaluate.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/hash.h"
#include "base/heap.h"
#include "moe/report/eval.h"
#include "tools/baselines.h"
#include "tools/harvest.h"

enum { NDCG_AT = 10 };
/* The rivals of one task, the model first. */
enum rival { MODEL, RATE, POPULARITY, RANDOM, SHOWN, RIVALS };
static const char *const rival_words[RIVALS] = {"model", "item_rate", "popularity", "random",
                                                "shown"};

struct evaluation {
    const struct rk_bundle *bundle;
    const struct moe_examples *x;
    const struct rk_tasks *tasks;
    const struct baselines *base;
    uint64_t seed;
    int first;            /* row; those before are left out */
    int n;                /* rows looked at */
    bool lists;           /* examples are lists that were shown */
    float *p;             /* [n_rows x n_tasks] */
    float *score[RIVALS]; /* [n] */
    float *label;         /* [n] of one task */
    uint64_t *user;       /* [n] */
};

/* ---- scores -----------------------------------------------------------------------------------
 */

static float combined(const struct rk_bundle *b, const float *p, int n_tasks) {
    double s = b->combine ? 1 : 0;
    for (int t = 0; t < n_tasks; t++)
        s = b->combine ? s * pow((double)p[t], (double)b->task_weight[t])
                       : s + (double)(b->task_weight[t] * p[t]);
    return (float)s;
}

static float random_score(uint64_t seed, int row) {
    return (float)(hash_mix(seed, (uint64_t)row) >> 40);
}

/* Scores and labels of one task. A list is ordered by the combined score, a task is judged by its
 * own probability. */
static void fill_scores(struct evaluation *e, int task, bool for_lists) {
    size_t T = (size_t)e->x->n_tasks;
    for (int i = 0; i < e->n; i++) {
        int row = e->first + i;
        const float *p = e->p + (size_t)row * T;
        e->label[i] = e->x->labels[(size_t)row * T + (size_t)task];
        e->score[MODEL][i] = for_lists ? combined(e->bundle, p, (int)T) : p[task];
        e->score[RATE][i] = baselines_rate(e->base, row, task);
        e->score[POPULARITY][i] = baselines_popularity(e->base, row);
        e->score[RANDOM][i] = random_score(e->seed, row);
        e->score[SHOWN][i] = (float)-i;
    }
}

/* ---- lists ------------------------------------------------------------------------------------
 */

struct place {
    float score, tie, gain;
};
static int better_first(const void *pa, const void *pb) {
    const struct place *a = pa, *b = pb;
    if (a->score != b->score)
        return a->score > b->score ? -1 : 1;
    return (a->tie < b->tie) - (a->tie > b->tie);
}

/* NDCG@10 of rows [from, to) ordered by `score`; ties by chance, so that no order is favoured. */
static double list_ndcg(const struct evaluation *e, const float *score, int from, int to) {
    int n = to - from;
    struct place *places = HEAP_ARRAY(struct place, n);
    float *gains = HEAP_ARRAY(float, n);
    for (int i = 0; i < n; i++) {
        float gain = e->label[from + i];
        places[i] =
            (struct place){score[from + i], e->score[RANDOM][from + i], isnan(gain) ? 0 : gain};
    }
    qsort(places, (size_t)n, sizeof *places, better_first);
    for (int i = 0; i < n; i++)
        gains[i] = places[i].gain;
    double ndcg = moe_ndcg(gains, n, NDCG_AT);
    heap_free(gains);
    heap_free(places);
    return ndcg;
}

/* Means over the groups that have something to order. Returns how many. */
static int mean_ndcg(const struct evaluation *e, double mean[RIVALS]) {
    int lists = 0;
    for (int r = 0; r < RIVALS; r++)
        mean[r] = 0;
    for (int from = 0, to; from < e->n; from = to) {
        for (to = from + 1;
             to < e->n && e->x->group[e->first + to] == e->x->group[e->first + from];)
            to++;
        if (to - from < 2 || isnan(list_ndcg(e, e->score[MODEL], from, to)))
            continue;
        for (int r = 0; r < RIVALS; r++)
            mean[r] += list_ndcg(e, e->score[r], from, to);
        lists++;
    }
    for (int r = 0; r < RIVALS; r++)
        mean[r] = lists ? mean[r] / lists : NAN;
    return lists;
}

static void report_lists(struct evaluation *e, struct report *r) {
    const char *columns[RIVALS + 3] = {"task", "lists"};
    int rivals = e->lists ? RIVALS : SHOWN; /* sampled candidates were never shown */
    for (int k = 0; k < rivals; k++)
        columns[2 + k] = rival_words[k];
    report_table(r, "ndcg10", columns);
    for (int t = 0; t < e->x->n_tasks; t++) {
        double mean[RIVALS];
        fill_scores(e, t, true);
        int lists = mean_ndcg(e, mean);
        report_cstr(r, NULL, e->tasks->specs[t].name);
        report_int(r, NULL, lists);
        for (int k = 0; k < rivals; k++)
            report_num(r, NULL, mean[k], 4);
    }
    report_table_end(r);
}

/* ---- tasks ------------------------------------------------------------------------------------
 */

static void report_auc(struct evaluation *e, struct report *r, const char *key, bool by_user) {
    report_table(r, key,
                 (const char *const[]){"task", by_user ? "users" : "rows", "model", "item_rate",
                                       "popularity", NULL});
    for (int t = 0; t < e->x->n_tasks; t++) {
        int rows = 0, users = 0;
        double auc[RANDOM];
        fill_scores(e, t, false);
        for (int i = 0; i < e->n; i++)
            rows += !isnan(e->label[i]);
        for (int k = 0; k < RANDOM; k++)
            auc[k] = by_user ? moe_auc_grouped(e->score[k], e->label, e->user, e->n, &users)
                             : moe_auc(e->score[k], e->label, e->n);
        report_cstr(r, NULL, e->tasks->specs[t].name);
        report_int(r, NULL, by_user ? users : rows);
        for (int k = 0; k < RANDOM; k++)
            report_num(r, NULL, auc[k], 4);
    }
    report_table_end(r);
}

static void report_calibration(struct evaluation *e, struct report *r) {
    report_table(r, "calibration",
                 (const char *const[]){"task", "logloss", "ece", "predicted_to_observed", NULL});
    for (int t = 0; t < e->x->n_tasks; t++) {
        fill_scores(e, t, false);
        report_cstr(r, NULL, e->tasks->specs[t].name);
        report_num(r, NULL, moe_logloss(e->score[MODEL], e->label, e->n), 4);
        report_num(r, NULL, moe_ece(e->score[MODEL], e->label, e->n, 20), 4);
        report_num(r, NULL, moe_calibration_ratio(e->score[MODEL], e->label, e->n), 4);
    }
    report_table_end(r);
}

/* ---- the run ----------------------------------------------------------------------------------
 */

static void before_event(void *context, const struct ev_event *e) { baselines_event(context, e); }

/* Rows after `since_us`; all of them when there are none, which the report says. */
static void choose_rows(struct evaluation *e, int64_t since_us, struct report *r) {
    const struct moe_examples *x = e->x;
    const char *last = moe_model_meta(e->bundle->model, "last_event_us");
    int64_t trained_us = last ? strtoll(last, NULL, 10) : 0;
    if (since_us < 0)
        since_us = trained_us;
    while (e->first < x->n_rows && x->time_us[x->group[e->first]] <= since_us)
        e->first++;
    if (e->first == x->n_rows)
        e->first = 0;
    bool seen = e->first < x->n_rows && x->time_us[x->group[e->first]] <= trained_us;
    e->n = x->n_rows - e->first;
    report_int(r, "rows", e->n);
    report_bool(r, "seen_in_training", seen);
}

static void judge(struct evaluation *e, struct report *r) {
    const struct moe_examples *x = e->x;
    e->p = HEAP_ARRAY(float, (size_t)x->n_rows *(size_t)x->n_tasks);
    e->label = HEAP_ARRAY(float, e->n);
    e->user = HEAP_ARRAY(uint64_t, e->n);
    for (int k = 0; k < RIVALS; k++)
        e->score[k] = HEAP_ARRAY(float, e->n);
    for (int i = 0; i < e->n; i++)
        e->user[i] = x->group_key[x->group[e->first + i]];
    moe_predict(e->bundle->model, x, e->p);
    report_auc(e, r, "auc", false);
    report_auc(e, r, "user_auc", true);
    report_calibration(e, r);
    report_lists(e, r);
    for (int k = 0; k < RIVALS; k++)
        heap_free(e->score[k]);
    heap_free(e->user);
    heap_free(e->label);
    heap_free(e->p);
}

static enum status run(struct harvest *h, struct baselines *base, const struct rk_bundle *b,
                       const struct evaluate_options *o, struct report *r) {
    struct moe_examples *x;
    h->before = before_event;
    h->context = base;
    TRY(harvest_read(h, o->events, o->quiet));
    TRY(harvest_examples(h, &x));
    enum status status = baselines_finish(base, x);
    if (status == STATUS_OK) {
        const struct rk_examples_conf *examples = &h->tasks.examples;
        struct evaluation e = {.bundle = b,
                               .x = x,
                               .tasks = &h->tasks,
                               .base = base,
                               .seed = (uint64_t)o->seed,
                               .lists = strcmp(examples->from, "ranking") == 0 &&
                                        examples->negatives == 0};
        report_int(r, "events", h->applied);
        report_int(r, "bad", h->bad);
        report_int(r, "late", h->late);
        choose_rows(&e, o->since_us, r);
        judge(&e, r);
        report_num(r, "seconds", h->seconds, 2);
    }
    moe_examples_free(x);
    return status;
}

enum status evaluate(const struct rk_bundle *b, const struct rk_config *c,
                     const struct evaluate_options *o, struct arena *a, struct report *r) {
    struct harvest h = {0};
    struct baselines base = {0};
    enum status status = harvest_init(&h, c, (uint64_t)o->seed, a);
    if (status == STATUS_OK && moe_model_tasks(b->model) != h.tasks.n)
        status = fail(STATUS_FAILED_PRECONDITION, "the model has %d tasks, %s has %d",
                      moe_model_tasks(b->model), c->file, h.tasks.n);
    if (status == STATUS_OK)
        status = baselines_init(&base, c, &h.tasks, (uint64_t)o->seed, a);
    if (status == STATUS_OK) {
        rk_labels_as_served(h.labels);
        status = run(&h, &base, b, o, r);
    }
    baselines_deinit(&base);
    harvest_deinit(&h);
    return status;
}
