/* match.c: a candidate against the user's last-N items: which share of them bears a value of the
 * candidate's field (a genre, an author), how common the candidate's values are among them, how
 * lately and how often, and, where last_n keeps a value with each item, how the user liked those: a
 * user x genre rate without a state of its own. Item-based neighbours (Sarwar et al. 2001) with
 * equality as likeness.
 *
 * begin() turns the last-N items into one bit set per field value; a row then ORs the sets of its
 * values. The last-N items' fields are read at request time, not when they happened: state must be
 * a function of the set of events. */
#include "features/claim.h"
#include "features/index.h"
#include "features/kinds/last_n.h"
#include "features/state_parts.h"
#include <math.h>

static const char *const column_words[] = {"share", "weight", "value", "hits", "count",
                                           "age",   "daily",  "most",  NULL};
enum { SHARE, WEIGHT, VALUE, HITS, COUNT, AGE, DAILY, MOST, WORDS };
#define FIELDS_MAX 16

struct params {
    const char *of_text, *field, *at_least_text;
    struct conf_strings fields, columns_text;
    double prior_weight;
    int64_t within_us;
    const struct feat *of;
    bool by_id; /* field id: the very item */
    int n_fields, n_columns;
    struct feat_source sources[FIELDS_MAX]; /* [n_fields] */
    int columns[WORDS];                     /* [n_columns] of each field */
    bool sets;                              /* columns ask which entries, not only how many */
    double at_least;                        /* NaN: values as they are */
};

static const struct conf_item items[] = {
    CONF_STRING(struct params, of_text, "of", NULL, "An earlier last_n feature."),
    CONF_STRING(struct params, field, "field", "",
                "Item field whose values are compared; id: is it the very item?"),
    CONF_STRINGS(struct params, fields, "fields", "[]",
                 "Several fields, each with its own columns; instead of field."),
    CONF_STRINGS(
        struct params, columns_text, "columns", "[]",
        "Of share, weight, value, hits, count, age, daily, most; default: share, weight and, "
        "where 'of' keeps a value, value."),
    CONF_TIME(struct params, within_us, "within", "0s", 0, 3660 * 86400e6,
              "Only entries so far back; 0: all that 'of' keeps."),
    CONF_STRING(struct params, at_least_text, "at_least", "",
                "Makes last_n's value a like: 1 from this number on, else 0."),
    CONF_FLOAT(struct params, prior_weight, "prior_weight", "5", 0, 1e9, "items",
               "How many items the user's own mean is worth in the column value."),
    CONF_END};

static enum status check_at_least(struct params *m) {
    m->at_least = NAN;
    if (m->at_least_text[0] == '\0')
        return STATUS_OK;
    TRY(feat_claim_number("at_least", m->at_least_text, &m->at_least));
    if (!feat_last_has_value(m->of) || m->by_id)
        return fail(STATUS_INVALID_ARGUMENT, "at_least: %s",
                    m->by_id ? "has no meaning with field: id" : "'of' keeps no value_field");
    return STATUS_OK;
}

static enum status check_columns(struct params *m) {
    for (int i = 0; i < m->columns_text.n; i++) {
        int k = 0;
        while (k < WORDS && strcmp(column_words[k], m->columns_text.v[i]) != 0)
            k++;
        if (k == WORDS || m->n_columns == WORDS)
            return fail(STATUS_INVALID_ARGUMENT,
                        "columns: '%s' is none of share weight value hits count age daily most",
                        m->columns_text.v[i]);
        if (k == VALUE && !feat_last_has_value(m->of))
            return fail(STATUS_INVALID_ARGUMENT, "columns: 'of' keeps no value_field for value");
        m->columns[m->n_columns++] = k;
    }
    if (m->n_columns == 0) {
        m->columns[m->n_columns++] = SHARE;
        m->columns[m->n_columns++] = WEIGHT;
        if (feat_last_has_value(m->of))
            m->columns[m->n_columns++] = VALUE;
    }
    for (int i = 0; i < m->n_columns; i++)
        m->sets |= m->columns[i] != WEIGHT && m->columns[i] != HITS && m->columns[i] != MOST;
    return STATUS_OK;
}

static enum status check_fields(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    bool one = m->field[0] != '\0';
    m->n_fields = one ? 1 : m->fields.n;
    if (one == (m->fields.n > 0))
        return fail(STATUS_INVALID_ARGUMENT, "field: give either field or fields");
    if (m->n_fields > FIELDS_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "fields: %d fields; at most %d", m->n_fields,
                    FIELDS_MAX);
    const char **names = ARENA_ARRAY(&p->arena, const char *, m->n_fields * m->n_columns);
    for (int i = 0; i < m->n_fields; i++) {
        const char *field = one ? m->field : m->fields.v[i];
        const char *source = arena_printf(&p->arena, "item.%s", field);
        if (!one && strcmp(field, "id") == 0)
            return fail(STATUS_INVALID_ARGUMENT, "fields: id stands alone, as field: id");
        TRY(feat_claim_source(p, "field", source, FEAT_AS_IDS, &m->sources[i]));
        for (int k = 0; k < m->n_columns; k++) {
            const char *word = column_words[m->columns[k]];
            names[i * m->n_columns + k] =
                one ? word : arena_printf(&p->arena, "%s.%s", field, word);
        }
    }
    f->n_columns = m->n_fields * m->n_columns;
    f->column_names = names;
    return STATUS_OK;
}

static enum status check(struct feat_plan *p, struct feat *f) {
    static const char *const id_names[] = {"seen", "age"};
    struct params *m = f->params;
    TRY(feat_claim_last(p, "of", m->of_text, &m->of));
    m->by_id = strcmp(m->field, "id") == 0;
    TRY(check_at_least(m));
    TRY(check_columns(m));
    TRY(check_fields(p, f));
    f->side = FEAT_CROSS;
    if (!m->by_id)
        return STATUS_OK;
    if (m->columns_text.n > 0)
        return fail(STATUS_INVALID_ARGUMENT, "columns: of field id they are seen and age");
    f->n_columns = 2;
    f->column_names = id_names;
    return STATUS_OK;
}

#define WORDS_MAX ((FEAT_LAST_MAX + 63) / 64)

/* The last-N items by the values of one field. */
struct by_value {
    struct feat_index at; /* value key -> 1 + its number */
    uint32_t *bears;      /* [values] entries with the value */
    uint32_t *last;       /* [values] the last of them */
    uint64_t *sets;       /* [values x words] of them; NULL: nobody asks */
};

/* One request's last-N items. */
struct work {
    int n;                     /* entries */
    int words;                 /* of a bit set of entries */
    double *x;                 /* [n] the entry's value less `own`, or 0/1; NaN: none */
    double own;                /* the user's own mean of it, NaN: none */
    double days;               /* since the oldest entry, at least 1 */
    int64_t *times_us;         /* [n] when */
    struct by_value *fields;   /* [n_fields] */
    struct feat_index by_item; /* of field id: item -> 1 + its newest entry */
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

static void add_entry(struct by_value *v, const struct work *w, uint32_t entry,
                      const uint64_t *keys, int n, uint32_t *n_values) {
    for (int k = 0; k < n; k++) {
        uint32_t *slot = feat_index_at(&v->at, keys[k]);
        if (*slot == 0)
            *slot = ++*n_values;
        const uint32_t value = *slot - 1;
        if (v->bears[value] > 0 && v->last[value] == entry)
            continue; /* said twice */
        v->bears[value]++;
        v->last[value] = entry;
        if (v->sets != NULL)
            v->sets[(size_t)value * (size_t)w->words + entry / 64] |= 1ull << (entry % 64);
    }
}

static void index_field(const struct params *m, int field, struct feat_read *r,
                        const struct feat_record *const *records, const struct work *w,
                        struct by_value *out) {
    const int slot = m->sources[field].slot;
    size_t most = FEAT_IDS_MAX, total = 0;
    uint32_t n_values = 0;
    for (int i = 0; i < w->n; i++)
        most += (size_t)feat_record_ids_most(records[i], slot);
    uint64_t *keys = arena_alloc(r->arena, most * sizeof *keys);
    int *n = arena_alloc(r->arena, (size_t)w->n * sizeof *n);
    for (int i = 0; i < w->n; i++)
        total += (size_t)(n[i] = feat_record_ids(records[i], slot, keys + total));
    feat_index_init(&out->at, r->arena, total);
    out->bears = ARENA_ARRAY(r->arena, uint32_t, total);
    out->last = arena_alloc(r->arena, total * sizeof *out->last);
    if (m->sets)
        out->sets = ARENA_ARRAY(r->arena, uint64_t, total * (size_t)w->words);
    for (int i = 0; i < w->n; keys += n[i++])
        add_entry(out, w, (uint32_t)i, keys, n[i], &n_values);
}

static void index_fields(const struct params *m, struct feat_read *r, const uint64_t *item_keys,
                         struct work *w) {
    const struct feat_record **records =
        arena_alloc(r->arena, (size_t)w->n * sizeof(const struct feat_record *));
    feat_state_item_fields(r->state, r->arena, item_keys, w->n, records);
    w->words = (w->n + 63) / 64;
    w->fields = ARENA_ARRAY(r->arena, struct by_value, m->n_fields);
    for (int i = 0; i < m->n_fields; i++)
        index_field(m, i, r, records, w, &w->fields[i]);
}

static void index_items(struct feat_read *r, const uint64_t *item_keys, struct work *w) {
    feat_index_init(&w->by_item, r->arena, (size_t)w->n);
    for (int i = 0; i < w->n; i++) {
        uint32_t *slot = feat_index_at(&w->by_item, item_keys[i]);
        if (*slot == 0) /* newest first */
            *slot = (uint32_t)i + 1;
    }
}

static double seconds_since(const struct feat_read *r, int64_t time_us) {
    double seconds = ((double)r->now_us - (double)time_us) / 1e6;
    return seconds > 0 ? seconds : 0;
}

static void begin(const struct feat *f, struct feat_read *r) {
    const struct params *m = f->params;
    struct work *w = ARENA_NEW(r->arena, struct work);
    r->scratch[f->number] = w;
    struct feat_last_reader reader;
    struct feat_last_entry e;
    int n = feat_last_open(m->of, feat_last_cell(m->of, r), &reader);
    uint64_t *keys = arena_alloc(r->arena, (size_t)n * sizeof *keys);
    w->times_us = arena_alloc(r->arena, (size_t)n * sizeof *w->times_us);
    w->x = arena_alloc(r->arena, (size_t)n * sizeof *w->x);
    while (feat_last_next(&reader, &e)) {
        if (m->within_us > 0 && e.time_us <= r->now_us - m->within_us)
            break; /* newest first */
        keys[w->n] = e.item;
        w->times_us[w->n] = e.time_us;
        w->x[w->n++] = e.value;
    }
    w->days = w->n == 0 ? 1 : fmax(seconds_since(r, w->times_us[w->n - 1]) / 86400, 1);
    if (m->by_id) {
        index_items(r, keys, w);
        return;
    }
    center(m, w);
    index_fields(m, r, keys, w);
}

static void extract_id(const struct work *w, const struct feat_read *r, int row, float *dense) {
    uint32_t at = feat_index_get(&w->by_item, r->item_keys[row]);
    dense[0] = at > 0;
    if (at > 0)
        dense[1] = feat_scaled(FEAT_SCALE_LOG, seconds_since(r, w->times_us[at - 1]));
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

/* Without an instruction of its own, which not every x86-64 has: bits summed in pairs, in fours, in
 * bytes (Warren, Hacker's Delight, 5-1). */
static int count_word(uint64_t v) {
    v -= v >> 1 & 0x5555555555555555ull;
    v = (v & 0x3333333333333333ull) + (v >> 2 & 0x3333333333333333ull);
    return (int)(((v + (v >> 4)) & 0x0F0F0F0F0F0F0F0Full) * 0x0101010101010101ull >> 56);
}

static int count_bits(const uint64_t *set, int words) {
    int n = 0;
    for (int i = 0; i < words; i++)
        n += count_word(set[i]);
    return n;
}

/* The newest entry of a set: bits stand newest first. */
static float age_of(const struct work *w, const struct feat_read *r, const uint64_t *set) {
    for (int i = 0; i < w->words; i++)
        if (set[i] != 0)
            return feat_scaled(FEAT_SCALE_LOG,
                               seconds_since(r, w->times_us[i * 64 + __builtin_ctzll(set[i])]));
    return NAN;
}

static void extract_field(const struct params *m, const struct work *w, int field,
                          struct feat_read *r, int row, float *dense) {
    const struct by_value *v = &w->fields[field];
    uint64_t keys[FEAT_IDS_MAX], any[WORDS_MAX];
    int n = feat_source_ids(&m->sources[field], r, row, keys), hits = 0, most = 0;
    if (n == 0)
        return;
    memset(any, 0, (size_t)w->words * sizeof *any);
    for (int i = 0; w->n > 0 && i < n; i++) {
        uint32_t at = feat_index_get(&v->at, keys[i]);
        if (at == 0)
            continue;
        int bears = (int)v->bears[at - 1];
        hits += bears;
        most = bears > most ? bears : most;
        for (int k = 0; m->sets && k < w->words; k++)
            any[k] |= v->sets[(size_t)(at - 1) * (size_t)w->words + (size_t)k];
    }
    float count = m->sets ? (float)count_bits(any, w->words) : 0;
    float entries = w->n > 0 ? (float)w->n : 1;
    const float by[WORDS] = {
        [SHARE] = count / entries, [WEIGHT] = (float)hits / ((float)n * entries),
        [HITS] = (float)hits,      [COUNT] = count,
        [MOST] = (float)most,      [DAILY] = (float)((double)count / w->days)};
    for (int i = 0; i < m->n_columns; i++) {
        int what = m->columns[i];
        if (w->n == 0 && what != HITS && what != COUNT && what != DAILY && what != MOST)
            continue; /* parts of nothing */
        dense[i] = what == VALUE ? mean_value(m, w, any)
                   : what == AGE ? age_of(w, r, any)
                                 : by[what];
    }
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
    for (int i = 0; i < m->n_fields; i++)
        extract_field(m, w, i, r, row, dense + i * m->n_columns);
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
