/* baselines.c: popularity and rates by a second plan, state and join beside the model's. The join
 * is the same code with the same seed, so its rows are the same rows; finish makes sure of that. */
#include "tools/baselines.h"
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/heap.h"

static void write_feature(struct json *j, const char *name, const char *const *pairs) {
    json_object(j);
    json_key(j, "name");
    json_cstr(j, name);
    for (; pairs[0]; pairs += 2) {
        json_key(j, pairs[0]);
        json_cstr(j, pairs[1]);
    }
    json_object_end(j);
}

/* The rate of a task is "rating where value >= 4" over all of "rating", or over impressions where
 * examples are lists. rk_tasks_read has made sure of `positive`. */
static void write_plan(const struct rk_config *c, const struct rk_tasks *rk, struct arena *a,
                       struct buf *out) {
    const struct node *tasks = node_get(c->root, "tasks");
    const char *from = rk->examples.from;
    const char *bottom = strcmp(from, "ranking") == 0 ? "impression" : from;
    char lateness[32], name[32];
    struct json j;
    snprintf(lateness, sizeof lateness, "%lldus", (long long)c->plan->lateness_us);
    json_begin(&j, out);
    json_object(&j);
    json_key(&j, "lateness");
    json_cstr(&j, lateness);
    json_key(&j, "features");
    json_array(&j);
    write_feature(&j, "popularity",
                  (const char *const[]){"kind", "count", "scope", "item", "on", "any", NULL});
    int t = 0;
    for (const struct node *task = tasks->first; task; task = task->next, t++) {
        const char *top = arena_strdup(a, node_get(task, "positive")->text);
        snprintf(name, sizeof name, "rate%d", t);
        write_feature(&j, name,
                      (const char *const[]){"kind", "rate", "scope", "item", "top", top, "bottom",
                                            bottom, NULL});
    }
    json_array_end(&j);
    json_object_end(&j);
}

static enum status make_plan(const struct rk_config *c, const struct rk_tasks *tasks,
                             struct arena *a, struct feat_plan **out) {
    struct buf text = {0};
    struct node *root;
    write_plan(c, tasks, a, &text);
    enum status status = node_parse_json(a, buf_slice(&text), "baselines", &root);
    if (status == STATUS_OK)
        status = feat_plan_parse(root, "baselines", out);
    buf_deinit(&text);
    return status;
}

enum status baselines_init(struct baselines *b, const struct rk_config *c,
                           const struct rk_tasks *tasks, uint64_t seed, struct arena *a) {
    *b = (struct baselines){.n_tasks = tasks->n};
    TRY(make_plan(c, tasks, a, &b->plan));
    rk_inputs_from_plan(b->plan, a, &b->inputs);
    b->columns = ARENA_ARRAY(a, int, tasks->n + 1);
    for (int t = 0; t < tasks->n; t++)
        b->columns[t] = feat_plan_find(b->plan, arena_printf(a, "rate%d", t))->column;
    b->columns[tasks->n] = feat_plan_find(b->plan, "popularity")->column;
    b->state = feat_state_new(b->plan);
    b->labels = rk_labels_new(tasks, b->state, &b->inputs, seed);
    return STATUS_OK;
}

void baselines_deinit(struct baselines *b) {
    moe_examples_free(b->examples);
    rk_labels_free(b->labels);
    feat_state_free(b->state);
    feat_plan_free(b->plan);
    *b = (struct baselines){0};
}

void baselines_event(struct baselines *b, const struct ev_event *e) {
    rk_labels_event(b->labels, e);
    feat_state_apply(b->state, e, 1, NULL);
}

enum status baselines_finish(struct baselines *b, const struct moe_examples *x) {
    struct moe_examples *y = b->examples = rk_labels_finish(b->labels);
    moe_examples_sort(y);
    bool same = x->n_rows == y->n_rows && x->n_groups == y->n_groups;
    for (int g = 0; same && g < x->n_groups; g++)
        same = x->group_key[g] == y->group_key[g] && x->time_us[g] == y->time_us[g];
    size_t labels = (size_t)x->n_rows * (size_t)x->n_tasks;
    for (size_t i = 0; same && i < labels; i++)
        same = x->labels[i] == y->labels[i] || (isnan(x->labels[i]) && isnan(y->labels[i]));
    return same ? STATUS_OK : fail(STATUS_INTERNAL, "the baselines' rows are not the model's");
}

static float value_at(const struct baselines *b, int row, int column) {
    float v = b->examples->cand[(size_t)row * (size_t)b->plan->cand_columns + (size_t)column];
    return isnan(v) ? -1 : v;
}

float baselines_popularity(const struct baselines *b, int row) {
    return value_at(b, row, b->columns[b->n_tasks]);
}

float baselines_rate(const struct baselines *b, int row, int task) {
    return value_at(b, row, b->columns[task]);
}
