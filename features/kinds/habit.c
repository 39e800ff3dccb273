/* habit.c: a candidate's number beside those of the user's last items: who buys what is dear buys
 * it again. `mean` of the last items is pulled to a prior, since a few items are no habit; `diff`
 * is how far the candidate lies above it; `lean` is (mean - prior) * (candidate - prior), which is
 * what a user's slope adds to a linear score. The items' numbers are read at request time, as
 * match.c's values are: state stays a function of the set of events. No state of its own. */
#include "features/claim.h"
#include "features/kinds/last_n.h"
#include "features/state_parts.h"
#include <math.h>

static const char *const words[] = {"mean", "diff", "lean"};
enum { MEAN, DIFF, LEAN, WORDS };

struct params {
    const char *of_text, *source_text;
    int scale;
    double prior, prior_weight;
    const struct feat *of;
    struct feat_source source;
};

static const struct conf_item items[] = {
    CONF_STRING(struct params, of_text, "of", NULL, "An earlier last_n feature."),
    CONF_STRING(struct params, source_text, "source", NULL, "A number: item.FIELD."),
    CONF_ENUM(struct params, scale, "scale", "raw", FEAT_SCALE_CHOICES,
              "log: log(1 + |x|) with the sign of x, of all numbers."),
    CONF_FLOAT(struct params, prior, "prior", "0", -1e12, 1e12, "",
               "What the mean is pulled to, scaled as the numbers are."),
    CONF_FLOAT(struct params, prior_weight, "prior_weight", "5", 0, 1e9, "items",
               "How many items the prior is worth."),
    CONF_END};

static enum status check(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    TRY(feat_claim_last(p, "of", m->of_text, &m->of));
    TRY(feat_claim_source(p, "source", m->source_text, FEAT_AS_NUMBER, &m->source));
    if (m->source.from != FEAT_FROM_ITEM || m->source.or_else != NULL)
        return fail(STATUS_INVALID_ARGUMENT, "source: '%s' is not item.FIELD", m->source_text);
    f->side = FEAT_CROSS;
    f->n_columns = WORDS;
    f->column_names = words;
    return STATUS_OK;
}

static double scaled(const struct params *m, double v) {
    return m->scale == FEAT_SCALE_LOG ? copysign(log1p(fabs(v)), v) : v;
}

/* The pulled mean of this request; NaN without any number and without prior weight. */
static void begin(const struct feat *f, struct feat_read *r) {
    const struct params *m = f->params;
    double *mean = ARENA_ARRAY(r->arena, double, 1), v;
    r->scratch[f->number] = mean;
    struct feat_last_reader reader;
    struct feat_last_entry e;
    int n = feat_last_open(m->of, feat_last_cell(m->of, r), &reader), kept = 0;
    uint64_t *keys = arena_alloc(r->arena, (size_t)n * sizeof *keys);
    while (feat_last_next(&reader, &e))
        keys[kept++] = e.item;
    const struct feat_record **records =
        arena_alloc(r->arena, (size_t)n * sizeof(const struct feat_record *));
    feat_state_item_fields(r->state, r->arena, keys, kept, records);
    double sum = m->prior * m->prior_weight, count = m->prior_weight;
    for (int i = 0; i < kept; i++)
        if (feat_record_number(records[i], m->source.slot, FEAT_AS_NUMBER, &v)) {
            sum += scaled(m, v);
            count++;
        }
    *mean = count > 0 ? sum / count : (double)NAN;
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    const struct params *m = f->params;
    double mean = *(const double *)r->scratch[f->number], v;
    if (!feat_last_named(m->of, r) || isnan(mean))
        return;
    dense[MEAN] = (float)mean;
    if (!feat_source_number(&m->source, r, row, &v))
        return;
    v = scaled(m, v);
    dense[DIFF] = (float)(v - mean);
    dense[LEAN] = (float)((mean - m->prior) * (v - m->prior));
}

const struct feat_kind feat_kind_habit = {
    .name = "habit",
    .doc = "A candidate's number against the mean of the user's last items.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .check = check,
    .begin = begin,
    .extract = extract,
};
