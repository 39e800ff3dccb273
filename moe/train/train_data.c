/* train_data.c: examples to what training needs: the split by time, encoders fitted on training
 * rows only, normalisers of the tasks. Test data never come here. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/heap.h"
#include "moe/math/cpu.h"
#include "moe/math/train_gemm.h"
#include "moe/train/training.h"

#define FIT_ROWS_MAX 262144 /* rows that encoders are fitted on, evenly spread */
#define FIT_COLUMNS  8      /* at a time */

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
enum status moe_training_split(struct moe_training *t) {
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

/* Columns [column, column + width) of an even spread of a side's training rows, at most `take`:
 * rows [take x width]; how many there are. */
static int spread(const struct moe_training *t, int side, int take, int column, int width,
                  float *rows) {
    const struct moe_examples *x = t->x;
    const size_t columns = (size_t)x->inputs.query_columns, wide = (size_t)width;
    const int total = side == MOE_QUERY ? t->n_train : t->train_rows;
    int64_t seen = 0;
    int n = 0;
    for (int i = 0; i < t->n_train; i++) {
        int g = t->train[i], from = side == MOE_QUERY ? g : t->first[g];
        int to = side == MOE_QUERY ? g + 1 : t->first[g + 1];
        for (int r = from; r < to; r++, seen++) {
            if (n == take || seen * take / total < n)
                continue;
            float *out = rows + (size_t)n++ * wide;
            if (side == MOE_QUERY)
                memcpy(out, x->query + (size_t)r * columns + (size_t)column, wide * sizeof *out);
            else
                moe_examples_numbers(x, r, 1, column, width, out);
        }
    }
    return n;
}

/* Fits a side's encoders, a few columns at a time: a copy of the rows would be as much again as
 * training holds of small data. */
static void fit(const struct moe_training *t, int side, unsigned kinds,
                const struct moe_numbers_conf *c, struct moe_encode *out) {
    const struct moe_inputs *in = &t->x->inputs;
    const int columns = side == MOE_QUERY ? in->query_columns : in->cand_columns;
    const int total = side == MOE_QUERY ? t->n_train : t->train_rows;
    const int take = total < FIT_ROWS_MAX ? total : FIT_ROWS_MAX;
    float *rows = HEAP_ARRAY(float, (size_t)take *FIT_COLUMNS + 1);
    moe_encode_fit(out, kinds, (float)c->clip, (int)c->bins, rows, 0, columns);
    for (int at = 0; at < columns; at += FIT_COLUMNS) {
        const int width = columns - at < FIT_COLUMNS ? columns - at : FIT_COLUMNS;
        struct moe_encode part;
        const int n = spread(t, side, take, at, width, rows);
        moe_encode_fit(&part, kinds, (float)c->clip, (int)c->bins, rows, n, width);
        memcpy(out->column + at, part.column, (size_t)width * sizeof *part.column);
        moe_encode_deinit(&part);
    }
    moe_encode_place(out);
    heap_free(rows);
}

/* Tasks that come after others. */
static enum status relate(const struct moe_task_spec *tasks, int n, const char *file,
                          struct moe_loss_conf *loss) {
    for (int i = 0; i < n; i++) {
        const char *first = tasks[i].esmm;
        int u = 0;
        loss[i].after = 0;
        if (!first || !*first)
            continue;
        while (u < n && strcmp(tasks[u].name, first) != 0)
            u++;
        if (u == n || u == i)
            return fail(STATUS_INVALID_ARGUMENT, "%s: tasks: '%s': esmm: there is no %s task '%s'",
                        file, tasks[i].name, u == i ? "other" : "such", first);
        if (tasks[u].esmm && *tasks[u].esmm)
            return fail(STATUS_INVALID_ARGUMENT,
                        "%s: tasks: '%s': esmm: '%s' comes after '%s' itself; chains are not "
                        "possible",
                        file, tasks[i].name, first, tasks[u].esmm);
        if (loss[i].kind != MOE_LOSS_BCE || loss[u].kind != MOE_LOSS_BCE || loss[i].smooth > 0)
            return fail(STATUS_INVALID_ARGUMENT,
                        "%s: tasks: '%s': esmm needs loss bce of both tasks, and smooth 0", file,
                        tasks[i].name);
        loss[i].after = 1 + u;
    }
    return STATUS_OK;
}

enum status moe_training_model(struct moe_training *t, const struct node *spec, const char *file,
                               const struct moe_task_spec *tasks, struct arena *a) {
    struct moe_numbers_conf numbers;
    struct moe_encode encode[MOE_SIDES] = {0};
    const char *names[64];
    unsigned kinds;
    int n = t->x->n_tasks;
    if (t->conf->precision == MOE_BF16 && !moe_train_gemm_possible(true))
        return fail(STATUS_UNIMPLEMENTED,
                    "%s: train.precision: bf16 needs AVX512_BF16, which this CPU lacks (or "
                    "MOERANK_ISA takes away); use fp32",
                    file);
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
    TRY(relate(tasks, n, file, t->m->task_loss));
    return STATUS_OK;
}

/* Normalisers and priors of the tasks from the training rows: a task's loss is the mean over its
 * own sample space, taken over the data set and not the batch, so that batches stay unbiased. The
 * space of a task after another is where their product is known; its prior is its own. */
void moe_training_weigh(struct moe_training *t) {
    const struct moe_examples *x = t->x;
    const size_t T = (size_t)x->n_tasks;
    for (size_t k = 0; k < T; k++) {
        const int after = t->m->task_loss[k].after;
        double all = 0, space = 0, known = 0, positive = 0;
        for (int i = 0; i < t->n_train; i++)
            for (int r = t->first[t->train[i]]; r < t->first[t->train[i] + 1]; r++) {
                const float *row = x->labels + (size_t)r * T, w = x->weight[r], y = row[k];
                all += (double)w;
                space += isnan(after ? moe_loss_joint(row[after - 1], y) : y) ? 0 : (double)w;
                if (isnan(y) || (after && !(row[after - 1] > 0)))
                    continue;
                known += (double)w;
                positive += (double)(y * w);
            }
        t->trainer.scale[k] *= space > 0 ? (float)(all / space) : 0;
        double p = (positive + 0.5) / (known + 1);
        const struct moe_tower *w = &t->m->towers[k];
        bool chance = moe_loss_is_probability(&t->m->task_loss[k]);
        if (t->conf->prior_bias && (p < 1 || !chance))
            moe_params_at(&t->m->params, t->m->params.v, w->tensor,
                          0)[w->mlp.b[w->mlp.n_layers - 1]] =
                chance ? (float)log(p / (1 - p)) : (float)(positive / (known > 0 ? known : 1));
    }
}
