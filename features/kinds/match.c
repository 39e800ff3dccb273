/* match.c: a candidate against the user's last-N items: which share of them bears a value of the
 * candidate's field (a genre, an author), how common the candidate's values are among them, and,
 * where last_n keeps a value with each item, how the user liked those: a user x genre rate without
 * a state of its own. Item-based neighbours (Sarwar et al. 2001) with equality as likeness.
 *
 * begin() turns the last-N items into one bit set per field value; a row then ORs the sets of its
 * values. The last-N items' fields are read at request time, not when they happened: state must be
 * a function of the set of events. */
#include "features/claim.h"
#include "features/index.h"
#include "features/kinds/last_n.h"
#include "features/state_parts.h"
#include <math.h>
#include <stdlib.h>

struct params {
    const char *of_text, *field, *at_least_text;
    double prior_weight;
    const struct feat *of;
    bool by_id; /* field id: the very item */
    struct feat_source source;
    double at_least; /* NaN: values as they are */
};

static const struct conf_item items[] = {
    CONF_STRING(struct params, of_text, "of", NULL, "An earlier last_n feature."),
    CONF_STRING(struct params, field, "field", NULL,
                "Item field whose values are compared; id: is it the very item?"),
    CONF_STRING(struct params, at_least_text, "at_least", "",
                "Makes last_n's value a like: 1 from this number on, else 0."),
    CONF_FLOAT(struct params, prior_weight, "prior_weight", "5", 0, 1e9, "items",
               "How many items the user's own mean is worth in the column value."),
    CONF_END};

static enum status check_at_least(struct params *m) {
    m->at_least = NAN;
    if (m->at_least_text[0] == '\0')
        return STATUS_OK;
    char *end;
    m->at_least = strtod(m->at_least_text, &end);
    if (*end != '\0' || !isfinite(m->at_least))
        return fail(STATUS_INVALID_ARGUMENT, "at_least: '%s' is not a number", m->at_least_text);
    if (!feat_last_has_value(m->of) || m->by_id)
        return fail(STATUS_INVALID_ARGUMENT, "at_least: %s",
                    m->by_id ? "has no meaning with field: id" : "'of' keeps no value_field");
    return STATUS_OK;
}

static enum status check(struct feat_plan *p, struct feat *f) {
    static const char *const names[] = {"share", "weight", "value"};
    static const char *const id_names[] = {"seen", "age"};
    struct params *m = f->params;
    TRY(feat_claim_last(p, "of", m->of_text, &m->of));
    m->by_id = strcmp(m->field, "id") == 0;
    TRY(check_at_least(m));
    const char *source = arena_printf(&p->arena, "item.%s", m->field);
    TRY(feat_claim_source(p, "field", source, FEAT_AS_IDS, &m->source));
    f->side = FEAT_CROSS;
    f->n_columns = m->by_id ? 2 : feat_last_has_value(m->of) ? 3 : 2;
    f->column_names = m->by_id ? id_names : names;
    return STATUS_OK;
}

#define WORDS_MAX ((FEAT_LAST_MAX + 63) / 64)

/* One request's last-N items, by value. */
struct work {
    int n;                   /* entries */
    int words;               /* of a bit set of entries */
    double *x;               /* [n] the entry's value less `own`, or 0/1; NaN: none */
    double own;              /* the user's own mean of it, NaN: none */
    struct feat_index at;    /* value key -> 1 + index of its set */
    uint64_t *sets;          /* [values x words] */
    const int64_t *times_us; /* [n] when */
};

/* The entries' values, as deviations from their mean or as likes. */
static void center(const struct params *m, struct work *w) {
    double sum = 0;
    int n = 0;
    for (int i = 0; i < w->n; i++) {
        if (isnan(w->x[i]))
            continue;
        if (!isnan(m->at_least))
            w->x[i] = w->x[i] >= m->at_least;
        sum += w->x[i];
        n++;
    }
    w->own = n > 0 ? sum / n : (double)NAN;
    for (int i = 0; isnan(m->at_least) && i < w->n; i++)
        w->x[i] -= w->own;
}

static void index_values(const struct params *m, struct feat_read *r, const uint64_t *item_keys,
                         struct work *w) {
    const struct feat_record **records =
        arena_alloc(r->arena, (size_t)w->n * sizeof(const struct feat_record *));
    feat_state_records(r->state, r->arena, FEAT_SCOPE_ITEM, item_keys, w->n, records);
    uint64_t keys[FEAT_IDS_MAX];
    size_t total = 0;
    for (int i = 0; i < w->n; i++)
        total += (size_t)feat_record_ids(records[i], m->source.slot, keys);
    feat_index_init(&w->at, r->arena, total);
    w->words = (w->n + 63) / 64;
    w->sets = ARENA_ARRAY(r->arena, uint64_t, total * (size_t)w->words);
    uint32_t n_values = 0;
    for (int i = 0; i < w->n; i++) {
        int n = feat_record_ids(records[i], m->source.slot, keys);
        for (int k = 0; k < n; k++) {
            uint32_t *slot = feat_index_at(&w->at, keys[k]);
            if (*slot == 0)
                *slot = ++n_values;
            w->sets[(size_t)(*slot - 1) * (size_t)w->words + (size_t)(i / 64)] |= 1ull << (i % 64);
        }
    }
}

static void begin(const struct feat *f, struct feat_read *r) {
    const struct params *m = f->params;
    struct work *w = ARENA_NEW(r->arena, struct work);
    r->scratch[f->number] = w;
    struct feat_last_reader reader;
    struct feat_last_entry e;
    int n = feat_last_open(m->of, feat_last_cell(m->of, r), &reader);
    uint64_t *keys = arena_alloc(r->arena, (size_t)n * sizeof *keys);
    int64_t *times = arena_alloc(r->arena, (size_t)n * sizeof *times);
    w->x = arena_alloc(r->arena, (size_t)n * sizeof *w->x);
    for (; feat_last_next(&reader, &e); w->n++) {
        keys[w->n] = e.item;
        times[w->n] = e.stamp.time_us;
        w->x[w->n] = e.value;
    }
    if (!m->by_id) {
        center(m, w);
        index_values(m, r, keys, w);
        return;
    }
    feat_index_init(&w->at, r->arena, (size_t)w->n);
    w->times_us = times;
    for (int i = 0; i < w->n; i++) {
        uint32_t *slot = feat_index_at(&w->at, keys[i]);
        if (*slot == 0) /* newest first */
            *slot = (uint32_t)i + 1;
    }
}

static void extract_id(const struct work *w, const struct feat_read *r, int row, float *dense) {
    uint32_t at = feat_index_get(&w->at, r->item_keys[row]);
    dense[0] = at > 0;
    if (at == 0)
        return;
    double seconds = ((double)r->now_us - (double)w->times_us[at - 1]) / 1e6;
    dense[1] = feat_scaled(FEAT_SCALE_LOG, seconds > 0 ? seconds : 0);
}

/* The smoothed mean of x over the entries of a set. */
static float mean_value(const struct params *m, const struct work *w, const uint64_t *set) {
    double sum = 0, n = 0;
    for (int i = 0; i < w->words; i++) {
        for (uint64_t bits = set[i]; bits != 0; bits &= bits - 1) {
            double x = w->x[i * 64 + __builtin_ctzll(bits)];
            if (!isnan(x)) {
                sum += x;
                n++;
            }
        }
    }
    double towards = isnan(m->at_least) ? 0 : w->own;
    if (isnan(w->own) || n + m->prior_weight == 0)
        return NAN;
    return (float)((sum + m->prior_weight * towards) / (n + m->prior_weight));
}

static int count_bits(const uint64_t *set, int words) {
    int n = 0;
    for (int i = 0; i < words; i++)
        n += __builtin_popcountll(set[i]);
    return n;
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    const struct params *m = f->params;
    const struct work *w = r->scratch[f->number];
    if (!feat_last_named(m->of, r))
        return;
    if (m->by_id) {
        extract_id(w, r, row, dense);
        return;
    }
    uint64_t keys[FEAT_IDS_MAX], any[WORDS_MAX] = {0};
    int n = feat_source_ids(&m->source, r, row, keys), in_sets = 0;
    if (n == 0 || w->n == 0)
        return;
    for (int i = 0; i < n; i++) {
        uint32_t at = feat_index_get(&w->at, keys[i]);
        if (at == 0)
            continue;
        const uint64_t *set = &w->sets[(size_t)(at - 1) * (size_t)w->words];
        for (int k = 0; k < w->words; k++)
            any[k] |= set[k];
        in_sets += count_bits(set, w->words);
    }
    dense[0] = (float)count_bits(any, w->words) / (float)w->n;
    dense[1] = (float)in_sets / (float)(n * w->n);
    if (f->n_columns == 3)
        dense[2] = mean_value(m, w, any);
}

const struct feat_kind feat_kind_match = {
    .name = "match",
    .doc = "A candidate against the user's last items: shared values, and how those were liked.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .check = check,
    .begin = begin,
    .extract = extract,
};
