/* bundle.c: opening a model for serving: it must have been trained on this plan, and its tasks get
 * their weights. Deliberately no conversion of models between plans: a column that is missing or
 * means something else would rank quietly and wrongly. */
#include <assert.h>
#include <stdio.h>
#include "base/heap.h"
#include "base/log.h"
#include "base/metric.h"
#include "moe/math/cpu.h"
#include "ranker/rank.h"

#define REMEDY "train again, or serve it with the settings it was trained with"

static enum status differ(const char *what, int index, const char *model, const char *plan) {
    return fail(STATUS_FAILED_PRECONDITION,
                "%s %d is '%s' in the model and '%s' in the plan; " REMEDY, what, index, model,
                plan);
}

static enum status check_count(const char *what, int model, int plan) {
    if (model == plan)
        return STATUS_OK;
    return fail(STATUS_FAILED_PRECONDITION, "%s: %d in the model, %d in the plan; " REMEDY, what,
                model, plan);
}

static enum status check_names(const char *what, const char *const *model, int n_model,
                               const char *const *plan, int n_plan) {
    for (int i = 0; i < n_model || i < n_plan; i++) {
        const char *m = i < n_model ? model[i] : "(none)", *p = i < n_plan ? plan[i] : "(none)";
        if (strcmp(m, p) != 0)
            return differ(what, i, m, p);
    }
    return STATUS_OK;
}

static enum status check_ids(const struct moe_inputs *m, const struct moe_inputs *p) {
    TRY(check_count("id inputs", m->n_ids, p->n_ids));
    for (int i = 0; i < m->n_ids; i++) {
        const struct moe_id_input *a = &m->ids[i], *b = &p->ids[i];
        if (strcmp(a->name, b->name) != 0)
            return differ("id input", i, a->name, b->name);
        if (a->in_query != b->in_query || a->slot != b->slot || a->n_slots != b->n_slots ||
            a->table != b->table)
            return fail(STATUS_FAILED_PRECONDITION,
                        "id input '%s' is laid out otherwise in the plan; " REMEDY, a->name);
    }
    TRY(check_count("embedding tables", m->n_tables, p->n_tables));
    for (int i = 0; i < m->n_tables; i++) {
        const struct moe_table_spec *a = &m->tables[i], *b = &p->tables[i];
        if (strcmp(a->name, b->name) != 0)
            return differ("embedding table", i, a->name, b->name);
        if (a->rows != b->rows || a->dim != b->dim)
            return fail(STATUS_FAILED_PRECONDITION,
                        "table '%s' is %u x %d in the model and %u x %d in the plan; " REMEDY,
                        a->name, a->rows, a->dim, b->rows, b->dim);
    }
    return STATUS_OK;
}

/* Names may agree where a window or a prior does not: the plan's text is compared as well. */
static enum status check_text(const char *model, const char *plan) {
    if (!model || strcmp(model, plan) == 0)
        return STATUS_OK;
    size_t at = 0;
    while (model[at] == plan[at])
        at++;
    size_t from = at > 40 ? at - 40 : 0;
    return fail(STATUS_FAILED_PRECONDITION,
                "the plans differ: \"%.60s\" in the model, \"%.60s\" here; " REMEDY, model + from,
                plan + from);
}

static enum status check_inputs(const struct moe_model *model, const struct feat_plan *plan) {
    struct arena a;
    arena_init(&a, 0);
    struct moe_inputs p;
    rk_inputs_from_plan(plan, &a, &p);
    const struct moe_inputs *m = moe_model_inputs(model);
    enum status status = check_names("query column", m->query_names, m->query_columns,
                                     p.query_names, p.query_columns);
    if (status == STATUS_OK)
        status = check_names("candidate column", m->cand_names, m->cand_columns, p.cand_names,
                             p.cand_columns);
    if (status == STATUS_OK)
        status = check_ids(m, &p);
    if (status == STATUS_OK)
        status = check_text(moe_model_meta(model, "plan"), plan->json);
    arena_deinit(&a);
    return status;
}

static int find_task(const struct moe_model *m, struct slice name) {
    for (int t = 0; t < moe_model_tasks(m); t++)
        if (slice_is(name, moe_model_task(m, t)))
            return t;
    return -1;
}

/* Weights by name; when none is given, all tasks weigh 1. */
static enum status read_weights(struct rk_bundle *b, const struct rk_config *c) {
    const struct node *score =
        c->root && c->root->type == NODE_MAP ? node_get(c->root, "score") : NULL;
    int given = 0;
    b->n_tasks = moe_model_tasks(b->model);
    b->task_weight = HEAP_ARRAY(float, b->n_tasks);
    for (const struct node *k = score ? score->first : NULL; k; k = k->next) {
        if (slice_is(k->key, "combine"))
            continue;
        int task = find_task(b->model, k->key);
        if (task < 0)
            return fail(STATUS_INVALID_ARGUMENT, "%s:%d: score.%.*s: the model has no such task",
                        c->file, k->key_line, SLICE_ARG(k->key));
        b->task_weight[task] = (float)k->number;
        given++;
    }
    for (int t = 0; t < b->n_tasks && given == 0; t++)
        b->task_weight[t] = 1;
    b->combine = c->score.combine;
    return STATUS_OK;
}

static struct moe_item_cache_stats count(struct rk_bundle *b) {
    const struct moe_item_cache *cache = b->scorer ? moe_scorer_cache(b->scorer) : NULL;
    if (!cache)
        return b->told;
    const struct moe_item_cache_stats now = moe_item_cache_read(cache);
    metric_add(METRIC_ITEM_CACHE_HITS, now.hits - b->told.hits);
    metric_add(METRIC_ITEM_CACHE_MISSES, now.misses - b->told.misses);
    metric_add(METRIC_ITEM_CACHE_EVICTIONS, now.evictions - b->told.evictions);
    return b->told = now;
}

void rk_bundle_tell(struct rk_bundle *b) {
    const struct moe_item_cache_stats now = count(b);
    metric_set(METRIC_ITEM_CACHE_BYTES, (int64_t)(now.kept * now.row_bytes));
}

static void free_contents(struct rk_bundle *b) {
    count(b);
    moe_scorer_free(b->scorer);
    moe_model_free(b->model);
    heap_free(b->task_weight);
    b->scorer = NULL;
    b->model = NULL;
    b->task_weight = NULL;
}

/* A candidate's half is kept by its numbers and ids. Where some of them hang on the user, or were
 * given with the request, hardly any half would be met again. */
static size_t cache_bytes(const struct feat_plan *plan, const struct rk_config *c) {
    for (int i = 0; i < plan->n_features && c->serving.cache_bytes; i++) {
        const struct feat *f = plan->features[i];
        if (f->side == FEAT_CROSS && f->n_columns + f->n_slots > 0) {
            log_debug("serve", "no item cache: feature '%s' is not the item's alone", f->name);
            return 0;
        }
    }
    return (size_t)c->serving.cache_bytes;
}

static enum status precision_of(const struct moe_model *m, const struct rk_config *c,
                                enum moe_precision *out) {
    const char *word = moe_model_meta(m, RK_META_PRECISION);
    *out = MOE_FP32;
    if (c->serving.precision != RK_PRECISION_MODEL)
        *out = (enum moe_precision)c->serving.precision;
    else if (word)
        while (strcmp(word, moe_precision_word(*out)) != 0)
            if (++*out > MOE_INT8)
                return fail(STATUS_DATA_LOSS, "metadata '" RK_META_PRECISION "': '%s'", word);
    return STATUS_OK;
}

static enum status fill(struct rk_bundle *b, const struct rk_config *c) {
    TRY(check_inputs(b->model, b->plan));
    TRY(read_weights(b, c));
    int64_t pool = c->nearline.pool_max;
    b->rows_max = (int)(c->grpc.items_max > pool ? c->grpc.items_max : pool);
    struct moe_scorer_conf conf = {.rows_max = b->rows_max, .cache_bytes = cache_bytes(b->plan, c)};
    TRY(precision_of(b->model, c, &conf.precision));
    const bool plain = conf.precision == MOE_FP32;
    snprintf(b->version, sizeof b->version, "%s%s%s", moe_model_version(b->model), plain ? "" : "-",
             plain ? "" : moe_precision_word(conf.precision));
    return moe_scorer_new(b->model, &conf, &b->scorer);
}

enum status rk_bundle_new(struct moe_model *model, const char *name, const struct feat_plan *plan,
                          const struct rk_config *c, struct rk_bundle **out) {
    if (!plan) {
        moe_model_free(model);
        return fail(STATUS_FAILED_PRECONDITION, "%s has no features; a model needs its plan",
                    c->file);
    }
    struct rk_bundle *b = HEAP_NEW(struct rk_bundle);
    b->model = model;
    b->plan = plan;
    atomic_store(&b->refs, 1);
    enum status status = fail_in(fill(b, c), "%s", name);
    if (status != STATUS_OK) {
        free_contents(b);
        heap_free(b);
        return status;
    }
    *out = b;
    return STATUS_OK;
}

enum status rk_bundle_open(const char *path, const struct feat_plan *plan,
                           const struct rk_config *c, struct rk_bundle **out) {
    struct moe_model *model = NULL;
    TRY(moe_model_load(path, &model));
    return rk_bundle_new(model, path, plan, c, out);
}

void rk_bundle_release(struct rk_bundle *b) {
    if (!b)
        return;
    bool published = b->published; /* set before others could see it */
    int before = atomic_fetch_sub(&b->refs, 1);
    assert(before > 0);
    if (before > 1)
        return;
    free_contents(b);
    if (!published)
        heap_free(b);
}
