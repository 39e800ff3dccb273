/* vector.c: a list of numbers of any length as a fixed number of columns: what is least, greatest,
 * their mean, and so on, or the first few as they are (an embedding made elsewhere). An empty list
 * is a missing one. Stateless but for the remembered field. */
#include "features/claim.h"
#include <math.h>

static const char *const reducers[] = {"first", "last", "min",  "max", "avg",
                                       "sum",   "size", "norm", NULL};
enum { FIRST, LAST, MIN, MAX, AVG, SUM, SIZE, NORM, REDUCERS };
#define REDUCE_MAX 16

struct params {
    const char *source_text;
    struct conf_strings reduce_text;
    int64_t take;
    struct feat_source source;
    int reduce[REDUCE_MAX]; /* [reduce_text.n] */
};

static const struct conf_item items[] = {
    CONF_STRING(struct params, source_text, "source", NULL,
                "item.FIELD, user.FIELD or context.FIELD; one number is a list of one."),
    CONF_STRINGS(struct params, reduce_text, "reduce", "min, max, size, avg",
                 "A column each, of first last min max avg sum size norm."),
    CONF_INT(struct params, take, "take", "0", 0, FEAT_VECTOR_MAX, "numbers",
             "The first so many as columns of their own, behind those of reduce."),
    CONF_END};

static enum status find_reducer(const char *word, int *out) {
    for (int i = 0; i < REDUCERS; i++)
        if (strcmp(word, reducers[i]) == 0) {
            *out = i;
            return STATUS_OK;
        }
    const char *near = conf_nearest(slice_of(word), reducers);
    return fail(STATUS_INVALID_ARGUMENT,
                "reduce: '%s' is none of first last min max avg sum size norm%s%s%s", word,
                near != NULL ? "; did you mean '" : "", near != NULL ? near : "",
                near != NULL ? "'?" : "");
}

static enum status check(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    int n = m->reduce_text.n;
    TRY(feat_claim_source(p, "source", m->source_text, FEAT_AS_VECTOR, &m->source));
    if (n > REDUCE_MAX || n + m->take == 0)
        return fail(STATUS_INVALID_ARGUMENT, "reduce: %d columns; 1 to %d are allowed", n,
                    REDUCE_MAX);
    const char **names = ARENA_ARRAY(&p->arena, const char *, n + m->take);
    for (int i = 0; i < n; i++) {
        TRY(find_reducer(m->reduce_text.v[i], &m->reduce[i]));
        names[i] = m->reduce_text.v[i];
    }
    for (int i = 0; i < m->take; i++)
        names[n + i] = arena_printf(&p->arena, "%d", i);
    f->side = feat_source_side(&m->source);
    f->n_columns = n + (int)m->take;
    f->column_names = names;
    return STATUS_OK;
}

static double reduce(int how, const double *v, int n) {
    double least = v[0], most = v[0], sum = 0, squares = 0;
    for (int i = 0; i < n; i++) {
        least = v[i] < least ? v[i] : least;
        most = v[i] > most ? v[i] : most;
        sum += v[i];
        squares += v[i] * v[i];
    }
    const double by[REDUCERS] = {
        [FIRST] = v[0],  [LAST] = v[n - 1], [MIN] = least, [MAX] = most,
        [AVG] = sum / n, [SUM] = sum,       [SIZE] = n,    [NORM] = sqrt(squares)};
    return by[how];
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    const struct params *m = f->params;
    double v[FEAT_VECTOR_MAX];
    int n = feat_source_vector(&m->source, r, row, v), n_reduced = m->reduce_text.n;
    if (n == 0)
        return;
    for (int i = 0; i < n_reduced; i++)
        dense[i] = (float)reduce(m->reduce[i], v, n);
    for (int i = 0; i < m->take && i < n; i++)
        dense[n_reduced + i] = (float)v[i];
}

const struct feat_kind feat_kind_vector = {
    .name = "vector",
    .doc = "A list of numbers: its least, greatest, mean and so on, or its first numbers.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .check = check,
    .extract = extract,
};
