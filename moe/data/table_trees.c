/* table_trees.c: the log-odds that boosted trees give a task, as a number among the inputs: what a
 * table's thresholds and sets of categories say, which a network learns only with many more rows
 * (He et al., "Practical Lessons from Predicting Clicks on Ads", ADKDD 2014; Ke et al., DeepGBM,
 * KDD 2019). A row that trees have seen says too much through them, so they are fitted in folds: a
 * training row's number is of the trees that did not see its group, any other row's is the mean of
 * all folds' trees. How many trees a fold keeps is told by its own rows: one number out of many
 * rows. Labels of validation rows do shape the numbers of other folds' rows, their own numbers
 * never come of their own labels. Crossed and hashed categories are not offered to the trees. The
 * folds follow from the rows' groups alone, so that one file always gives one model. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/hash.h"
#include "base/heap.h"
#include "base/progress.h"
#include "moe/data/table_impl.h"

const struct conf_item moe_table_trees_items[] = {
    CONF_STRINGS(struct moe_trees_conf, of, "of", "[]",
                 "tasks: each gets a number of its own among the inputs"),
    CONF_INT(struct moe_trees_conf, folds, "folds", "4", 2, 32, NULL,
             "parts of the training rows; each gets its numbers from trees of the others"),
    CONF_INT(struct moe_trees_conf, boost.count, "count", "100", 1, 10000, "trees",
             "of a task and fold, at most"),
    CONF_INT(struct moe_trees_conf, boost.patience, "patience", "20", 0, 10000, "trees",
             "so many without less loss on the rows left out end a fold's trees; 0: never"),
    CONF_INT(struct moe_trees_conf, boost.leaves, "leaves", "31", 2, MOE_BOOST_LEAVES, "leaves",
             "of a tree, at most"),
    CONF_INT(struct moe_trees_conf, boost.rows_min, "rows_min", "50", 1, 1e9, "rows",
             "of a leaf, at least"),
    CONF_FLOAT(struct moe_trees_conf, boost.rate, "rate", "0.1", 1e-6, 1, NULL,
               "what a tree is multiplied by"),
    CONF_FLOAT(struct moe_trees_conf, boost.columns, "columns", "0.6", 0, 1, NULL,
               "share of the columns that a tree may split by"),
    CONF_FLOAT(struct moe_trees_conf, boost.ridge, "ridge", "1", 0, 1e9, NULL,
               "on the values of leaves"),
    CONF_END};

static int task_of(const struct moe_table *t, const char *name) {
    for (int k = 0; k < t->n_tasks; k++)
        if (strcmp(t->specs[k].name, name) == 0)
            return k;
    return -1;
}

static enum status add_number(struct moe_table *t, const struct moe_trees_conf *conf,
                              struct conf_place place, int line, const char *task_name) {
    const int task = task_of(t, task_name);
    if (task < 0 || !moe_loss_is_probability(&t->specs[task].loss))
        return fail(STATUS_INVALID_ARGUMENT, "%s:%d: %s.of: '%s' is no task%s", t->file, line,
                    place.section, task_name, task < 0 ? "" : " with labels of 0 to 1");
    const char *name = arena_printf(&t->arena, MOE_TREES_OF "%s", task_name);
    for (int c = 0; c < t->n_columns; c++)
        if (strcmp(t->columns[c].name, name) == 0)
            return fail(STATUS_INVALID_ARGUMENT, "%s:%d: %s.of: column '%s' stands twice", t->file,
                        line, place.section, name);
    struct moe_table_column *c = moe_table_add(t, name, NULL, MOE_COLUMN_NUMBER);
    c->trees = conf;
    c->boosts = ARENA_ARRAY(&t->arena, struct moe_boost, (int)conf->folds);
    c->task = task;
    return STATUS_OK;
}

enum status moe_table_read_trees(struct moe_table *t, const struct node *n, int index) {
    const struct conf_place place = {t->file, arena_printf(&t->arena, "table.trees[%d]", index)};
    struct moe_trees_conf *conf = ARENA_ARRAY(&t->arena, struct moe_trees_conf, 1);
    TRY(conf_read(moe_table_trees_items, n, place, NULL, conf, &t->arena));
    if (conf->of.n == 0)
        return fail(STATUS_INVALID_ARGUMENT, "%s:%d: %s.of: names no task", t->file, n->line,
                    place.section);
    for (int i = 0; i < conf->of.n; i++)
        TRY(add_number(t, conf, place, n->line, conf->of.v[i]));
    return STATUS_OK;
}

/* --- rows in bins ---------------------------------------------------------------------------- */

static bool is_offered(const struct moe_table_column *c) {
    return c->kind == MOE_COLUMN_NUMBER ? !c->trees
                                        : c->kind == MOE_COLUMN_CATEGORY && !c->n_parts && !c->hash;
}

int moe_table_offered(const struct moe_table *t) {
    int n = 0;
    for (int i = 0; i < t->n_columns; i++)
        n += is_offered(&t->columns[i]);
    return n;
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Edges between bins of about equal count; a value never stands in two. */
static void fit_edges(struct moe_table_column *c, const struct moe_examples *x) {
    const size_t columns = (size_t)x->inputs.cand_columns;
    float *v = HEAP_ARRAY(float, x->n_rows + 1);
    int n = 0, distinct = 0;
    for (size_t r = 0; r < (size_t)x->n_rows; r++)
        if (!isnan(x->cand[r * columns + (size_t)c->input]))
            v[n++] = x->cand[r * columns + (size_t)c->input];
    qsort(v, (size_t)n, sizeof *v, ascending);
    for (int i = 1; i < n; i++)
        distinct += v[i] != v[i - 1];
    c->n_edges = 0;
    for (int i = 1, from = 0; i < n && c->n_edges < MOE_ENC_BINS_MAX - 1; i++) {
        const int bins_left = MOE_ENC_BINS_MAX - c->n_edges;
        if (v[i] != v[i - 1] &&
            (distinct < MOE_ENC_BINS_MAX || (double)(i - from) * bins_left >= n - from)) {
            c->edges[c->n_edges++] = v[i];
            from = i;
        }
    }
    heap_free(v);
}

static uint8_t bin_of(const struct moe_table_column *c, const struct moe_examples *x, size_t r) {
    if (c->kind == MOE_COLUMN_CATEGORY) {
        const uint32_t id = x->cand_ids[r * (size_t)x->inputs.cand_slots + (size_t)c->input];
        return (uint8_t)(id < MOE_BOOST_BINS - 1 ? id : MOE_BOOST_BINS - 1);
    }
    const float v = x->cand[r * (size_t)x->inputs.cand_columns + (size_t)c->input];
    int low = 0, high = c->n_edges; /* the first edge above v */
    while (low < high) {
        const int middle = (low + high) / 2;
        if (v >= c->edges[middle])
            low = middle + 1;
        else
            high = middle;
    }
    return isnan(v) ? 0 : (uint8_t)(1 + low);
}

struct binned {
    struct moe_boost_rows rows;
    uint8_t *bins; /* heap, as the two below */
    bool *category;
    int *n_bins;
};

static void bin_rows(struct moe_table *t, const struct moe_examples *x, struct binned *b) {
    const int columns = moe_table_offered(t);
    b->bins = HEAP_ARRAY(uint8_t, (size_t)x->n_rows * (size_t)columns + 1);
    b->category = HEAP_ARRAY(bool, columns + 1);
    b->n_bins = HEAP_ARRAY(int, columns + 1);
    for (int i = 0, k = 0; i < t->n_columns; i++) {
        struct moe_table_column *c = &t->columns[i];
        if (!is_offered(c))
            continue;
        if (!t->learnt && c->kind == MOE_COLUMN_NUMBER)
            fit_edges(c, x);
        b->category[k] = c->kind == MOE_COLUMN_CATEGORY;
        for (int r = 0; r < x->n_rows; r++) {
            const uint8_t bin = bin_of(c, x, (size_t)r);
            b->bins[(size_t)r * (size_t)columns + (size_t)k] = bin;
            b->n_bins[k] = bin >= b->n_bins[k] ? bin + 1 : b->n_bins[k];
        }
        k++;
    }
    b->rows = (struct moe_boost_rows){.columns = columns,
                                      .category = b->category,
                                      .n_bins = b->n_bins,
                                      .bins = b->bins,
                                      .weight = x->weight,
                                      .label_stride = t->n_tasks};
}

/* --- folds ----------------------------------------------------------------------------------- */

static int fold_of(const struct moe_table_column *c, const struct moe_examples *x, int r) {
    return (int)(hash_mix(17, (uint64_t)x->group[r]) % (uint64_t)c->trees->folds);
}

/* The trees of a task that leave out a fold; their numbers for the rows of that fold. */
static void learn_fold(struct binned *b, struct moe_examples *x, const struct moe_table_column *c,
                       int fold) {
    struct moe_boost *boost = &c->boosts[fold];
    const size_t columns = (size_t)x->inputs.cand_columns, tasks = (size_t)b->rows.label_stride;
    int *use = HEAP_ARRAY(int, x->n_rows + 1), n = 0;
    int *held = HEAP_ARRAY(int, x->n_rows + 1), n_held = 0;
    b->rows.label = x->labels + c->task;
    for (int r = 0; r < x->n_rows; r++)
        if (isnan(b->rows.label[(size_t)r * tasks]))
            continue;
        else if (fold_of(c, x, r) == fold)
            held[n_held++] = r;
        else
            use[n++] = r;
    if (n)
        moe_boost_fit(&c->trees->boost, &b->rows, use, n, held, n_held, (uint64_t)fold, boost);
    for (int r = 0; r < x->n_rows; r++)
        if (fold_of(c, x, r) == fold)
            x->cand[(size_t)r * columns + (size_t)c->input] =
                moe_boost_score(boost, b->bins + (size_t)r * (size_t)b->rows.columns);
    heap_free(use);
    heap_free(held);
}

static double chance(float z) { return 1 / (1 + exp(-(double)z)); }

/* The log-odds of the folds' mean probability: a mean of log-odds would be lower than what the
 * single folds say of training rows where a task is rare, by a percent of its rate on
 * Census-Income. */
static void apply(const struct binned *b, struct moe_examples *x,
                  const struct moe_table_column *c) {
    const int folds = (int)c->trees->folds;
    for (int r = 0; r < x->n_rows; r++) {
        double sum = 0;
        for (int f = 0; f < folds; f++)
            sum += chance(
                moe_boost_score(&c->boosts[f], b->bins + (size_t)r * (size_t)b->rows.columns));
        sum = fmin(fmax(sum / folds, 1e-12), 1 - 1e-12);
        x->cand[(size_t)r * (size_t)x->inputs.cand_columns + (size_t)c->input] =
            (float)log(sum / (1 - sum));
    }
}

static int count_fits(const struct moe_table *t) {
    int n = 0;
    for (int i = 0; i < t->n_columns; i++)
        n += t->columns[i].trees ? (int)t->columns[i].trees->folds : 0;
    return n;
}

void moe_table_finish_trees(struct moe_table *t, struct moe_examples *x, int quiet) {
    struct binned b = {0};
    struct progress progress;
    int64_t done = 0;
    const int fits = count_fits(t);
    if (fits == 0)
        return;
    bin_rows(t, x, &b);
    progress_start(&progress, "trees", "fits", t->learnt ? 1 : fits, quiet);
    for (int i = 0; i < t->n_columns; i++) {
        const struct moe_table_column *c = &t->columns[i];
        if (!c->trees)
            continue;
        if (t->learnt)
            apply(&b, x, c);
        for (int f = 0; !t->learnt && f < c->trees->folds; f++) {
            learn_fold(&b, x, c, f);
            progress_at(&progress, ++done);
        }
    }
    progress_end(&progress);
    heap_free(b.bins);
    heap_free(b.category);
    heap_free(b.n_bins);
}

void moe_table_free_trees(struct moe_table *t) {
    for (int i = 0; i < t->n_columns; i++)
        for (int f = 0; t->columns[i].trees && f < t->columns[i].trees->folds; f++)
            moe_boost_deinit(&t->columns[i].boosts[f]);
}

/* --- with the model -------------------------------------------------------------------------- */

void moe_table_save_trees(const struct moe_table *t, struct json *j) {
    struct buf text = {0};
    json_array(j);
    for (int i = 0; i < t->n_columns; i++)
        for (int f = 0; t->columns[i].trees && f < t->columns[i].trees->folds; f++) {
            buf_clear(&text);
            moe_boost_save(&t->columns[i].boosts[f], &text);
            json_str(j, buf_slice(&text));
        }
    json_array_end(j);
    buf_deinit(&text);
}

enum status moe_table_take_trees(struct moe_table *t, const struct node *list) {
    const int fits = count_fits(t), columns = moe_table_offered(t);
    if (!list && fits == 0) /* a file from before there were trees */
        return STATUS_OK;
    if (!list || list->type != NODE_LIST || list->n != fits)
        return fail(STATUS_DATA_LOSS, "%s: metadata 'table': its trees", t->file);
    const struct node *s = list->first;
    for (int i = 0; i < t->n_columns; i++)
        for (int f = 0; t->columns[i].trees && f < t->columns[i].trees->folds; f++, s = s->next)
            if (s->type != NODE_STRING ||
                moe_boost_load(s->text, columns, &t->columns[i].boosts[f]) != STATUS_OK)
                return fail(STATUS_DATA_LOSS, "%s: metadata 'table': its trees", t->file);
    return STATUS_OK;
}
