/* relative.c: a candidate's number beside the other candidates': how far from the least, the
 * greatest and the median, its rank, its distance from the mean in standard deviations. A price
 * means little, being the cheapest on the page means something. Of a field or a column of the
 * request, or of another feature's column.
 *
 * The value depends on which candidates are ranked together: such a plan's rows must not be cached
 * one by one (plan->mixes_rows), and negatives sampled in training would change them. */
#include "features/claim.h"
#include "features/kinds/slate.h"
#include <math.h>

static const char *const words[] = {"min", "max", "median", "rank", "z", NULL};
enum { TO_MIN, TO_MAX, TO_MEDIAN, RANK, Z, WORDS };

struct params {
    const char *source_text, *of_text, *column_text;
    struct conf_strings columns_text;
    int64_t top;
    struct feat_source source;
    const struct feat *of;
    int of_column;
    int columns[WORDS]; /* [n_columns] */
};

static const struct conf_item items[] = {
    CONF_STRING(struct params, source_text, "source", "",
                "A number: candidate.COLUMN or item.FIELD; A or B is the first that has a value."),
    CONF_STRING(struct params, of_text, "of", "",
                "Instead of source: an earlier feature of the candidates."),
    CONF_STRING(struct params, column_text, "column", "",
                "Which of its columns, as 7d; empty: the first."),
    CONF_STRINGS(struct params, columns_text, "columns", "min, max, median, rank, z",
                 "min, max, median: the difference to it; rank: the part of the others that is "
                 "less; z: the difference to the mean in standard deviations."),
    CONF_INT(struct params, top, "top", "0", 0, 1000000, "candidates",
             "Compare with the first so many that have a value; 0: with all."),
    CONF_END};

static enum status find_column(struct params *m) {
    for (int i = 0; i < m->of->n_columns; i++)
        if (m->column_text[0] == '\0' ||
            (m->of->column_names != NULL && strcmp(m->of->column_names[i], m->column_text) == 0)) {
            m->of_column = i;
            return STATUS_OK;
        }
    return fail(STATUS_INVALID_ARGUMENT, "column: '%s' has no column '%s'", m->of_text,
                m->column_text);
}

static enum status check_of(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    m->of = feat_plan_find(p, m->of_text);
    if (m->of == NULL || m->of->number >= f->number)
        return fail(STATUS_INVALID_ARGUMENT, "of: '%s' is no earlier feature", m->of_text);
    if (m->of->side == FEAT_USER || m->of->side == FEAT_CONTEXT || m->of->n_columns == 0)
        return fail(STATUS_INVALID_ARGUMENT, "of: '%s' has no number of each candidate",
                    m->of_text);
    return find_column(m);
}

static enum status check_columns(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    int n = m->columns_text.n;
    if (n < 1 || n > WORDS)
        return fail(STATUS_INVALID_ARGUMENT, "columns: %d columns; 1 to %d are allowed", n, WORDS);
    const char **names = ARENA_ARRAY(&p->arena, const char *, n);
    for (int i = 0; i < n; i++) {
        int k = 0;
        while (k < WORDS && strcmp(words[k], m->columns_text.v[i]) != 0)
            k++;
        if (k == WORDS)
            return fail(STATUS_INVALID_ARGUMENT, "columns: '%s' is none of min max median rank z",
                        m->columns_text.v[i]);
        m->columns[i] = k;
        names[i] = words[k];
    }
    f->n_columns = n;
    f->column_names = names;
    return STATUS_OK;
}

static enum status check(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    if ((m->source_text[0] != '\0') == (m->of_text[0] != '\0'))
        return fail(STATUS_INVALID_ARGUMENT, "source: give either source or of");
    if (m->of_text[0] != '\0') {
        TRY(check_of(p, f));
    } else {
        TRY(feat_claim_source(p, "source", m->source_text, FEAT_AS_NUMBER, &m->source));
        enum feat_side side = feat_source_side(&m->source);
        if (side == FEAT_USER || side == FEAT_CONTEXT)
            return fail(STATUS_INVALID_ARGUMENT, "source: '%s' is the same for all candidates",
                        m->source_text);
    }
    TRY(check_columns(p, f));
    f->side = FEAT_CROSS;
    p->mixes_rows = true;
    return STATUS_OK;
}

/* At the first row: features before this one have all rows by then. */
static const struct feat_slate *slate_of(const struct feat *f, struct feat_read *r) {
    const struct params *m = f->params;
    if (r->scratch[f->number] != NULL)
        return r->scratch[f->number];
    struct feat_slate *s = feat_slate_new(r);
    for (int row = 0; row < r->n_rows; row++) {
        s->v[row] = NAN;
        if (m->of != NULL)
            s->v[row] = (double)r->cand[(size_t)row * (size_t)r->plan->cand_columns +
                                        (size_t)(m->of->column + m->of_column)];
        else
            feat_source_number(&m->source, r, row, &s->v[row]);
    }
    feat_slate_sort(s, r, m->top);
    r->scratch[f->number] = s;
    return s;
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    const struct params *m = f->params;
    const struct feat_slate *s = slate_of(f, r);
    double v = s->v[row];
    if (isnan(v) || s->n == 0)
        return;
    const double by[WORDS] = {[TO_MIN] = v - s->sorted[0],
                              [TO_MAX] = v - s->sorted[s->n - 1],
                              [TO_MEDIAN] = v - feat_slate_median(s),
                              [RANK] = feat_slate_rank(s, v),
                              [Z] = s->sd > 0 ? (v - s->mean) / s->sd : 0};
    for (int i = 0; i < f->n_columns; i++)
        dense[i] = (float)by[m->columns[i]];
}

const struct feat_kind feat_kind_relative = {
    .name = "relative",
    .doc = "A candidate's number beside the other candidates'.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .check = check,
    .extract = extract,
};
