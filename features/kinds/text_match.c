/* text_match.c: how well a text of the request (a query) fits a text of the item (a title): by
 * words, by runs of letters, or BM25 (Robertson, Zaragoza 2009), which weighs a word by how few
 * items have it. How many items have a word, how many there are and how long their texts are is
 * kept from the stream, as sums over the items as they are now (features/places.c): no dictionary
 * made beforehand. Words are not stemmed; runs of letters forgive endings (features/text.h). */
#include "features/claim.h"
#include "features/codec.h"
#include "features/places.h"
#include "features/shares.h"
#include "features/state_parts.h"
#include "features/text.h"
#include <math.h>

enum { METHOD_TERM, METHOD_NGRAM, METHOD_BM25 };
static const double k1 = 1.2, b = 0.75;

struct params {
    const char *query_text, *source_text;
    int method;
    int64_t n;
    struct feat_source query, source;
};

static const struct conf_item items[] = {
    CONF_STRING(struct params, query_text, "query", NULL, "The text sought: context.FIELD."),
    CONF_STRING(struct params, source_text, "source", NULL, "The text searched: item.FIELD."),
    CONF_ENUM(
        struct params, method, "method", "term", "term|ngram|bm25",
        "term, ngram: what both have, as part of what either has, and of the query; bm25: one "
        "column, the score."),
    CONF_INT(struct params, n, "n", "3", 2, 4, "letters", "Of ngram: length of a run."), CONF_END};

static enum status check(struct feat_plan *p, struct feat *f) {
    static const char *const names[] = {"union", "query"};
    struct params *m = f->params;
    enum feat_form form =
        m->method == METHOD_NGRAM ? (enum feat_form)(FEAT_AS_GRAMS2 + (m->n - 2)) : FEAT_AS_TERMS;
    TRY(feat_claim_source(p, "query", m->query_text, form, &m->query));
    TRY(feat_claim_source(p, "source", m->source_text, form, &m->source));
    enum feat_side side = feat_source_side(&m->query);
    if (side != FEAT_CONTEXT && side != FEAT_USER)
        return fail(STATUS_INVALID_ARGUMENT, "query: '%s' is not of the request", m->query_text);
    if (m->source.from != FEAT_FROM_ITEM || m->source.slot < 0 || m->source.or_else != NULL)
        return fail(STATUS_INVALID_ARGUMENT, "source: '%s' is not item.FIELD", m->source_text);
    f->side = FEAT_CROSS;
    f->n_columns = m->method == METHOD_BM25 ? 1 : 2;
    f->column_names = m->method == METHOD_BM25 ? NULL : names;
    return m->method == METHOD_BM25 ? feat_claim_sum(p, f, &m->source, true) : STATUS_OK;
}

/* ---- BM25's counts: of a word and of all, how many items and how long they are ---- */

static void contribute(const struct feat *f, const struct feat_record *item, struct buf *out) {
    const struct params *m = f->params;
    uint32_t terms[FEAT_TERMS_MAX];
    int n = feat_record_hashes(item, m->source.slot, FEAT_AS_TERMS, terms);
    if (n == 0)
        return;
    buf_add_varint(out, 1);
    buf_add_varint(out, (uint64_t)n);
}

static void merge(const struct feat *f, struct slice cell, struct slice other, int sign,
                  struct buf *out) {
    (void)f;
    feat_merge_varints(cell, other, sign, 2, out);
}

struct weights {
    uint32_t terms[FEAT_TERMS_MAX]; /* [n] of the query, distinct and sorted */
    int n;
    double idf[FEAT_TERMS_MAX]; /* [n] of bm25 */
    double mean_length;
};

static void read_counts(const struct feat *f, const struct feat_record *rec, double *items_with,
                        double *length) {
    struct slice cell = feat_record_cell(rec, f->cells[0].index);
    struct cursor c = cursor_of(cell.p, cell.n);
    *items_with = cell.n == 0 ? 0 : (double)feat_get_varint(&c);
    *length = cell.n == 0 ? 0 : (double)feat_get_varint(&c);
}

static void weigh(const struct feat *f, struct feat_read *r, struct weights *w) {
    const struct feat_place *pl = &r->plan->places[f->place];
    uint64_t keys[FEAT_TERMS_MAX + 1];
    const struct feat_record *records[FEAT_TERMS_MAX + 1];
    for (int i = 0; i < w->n; i++)
        keys[i] = feat_place_value_key(pl, r->tenant_hash, 1 + (uint64_t)w->terms[i]);
    keys[w->n] = feat_place_value_key(pl, r->tenant_hash, 0);
    feat_state_sums(r->state, r->arena, keys, w->n + 1, records);
    double all, length, with, unused;
    read_counts(f, records[w->n], &all, &length);
    w->mean_length = all > 0 ? length / all : 0;
    for (int i = 0; i < w->n; i++) {
        read_counts(f, records[i], &with, &unused);
        w->idf[i] = log1p((all - with + 0.5) / (with + 0.5));
    }
}

static void begin(const struct feat *f, struct feat_read *r) {
    const struct params *m = f->params;
    struct weights *w = ARENA_NEW(r->arena, struct weights);
    r->scratch[f->number] = w;
    w->n = feat_text_distinct(w->terms, feat_source_hashes(&m->query, r, -1, w->terms));
    if (m->method == METHOD_BM25 && w->n > 0)
        weigh(f, r, w);
}

/* ---- rows ---- */

static double bm25(const struct weights *w, const uint32_t *terms, int n) {
    double score = 0, damped = k1 * (1 - b + b * n / w->mean_length);
    for (int i = 0; i < w->n; i++) {
        int times = 0;
        for (int k = 0; k < n; k++)
            times += terms[k] == w->terms[i];
        score += w->idf[i] * times * (k1 + 1) / (times + damped);
    }
    return score;
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    const struct params *m = f->params;
    const struct weights *w = r->scratch[f->number];
    uint32_t terms[FEAT_TERMS_MAX];
    int n = w->n == 0 ? 0 : feat_source_hashes(&m->source, r, row, terms);
    if (n == 0)
        return;
    if (m->method == METHOD_BM25) {
        dense[0] = (float)bm25(w, terms, n);
        return;
    }
    n = feat_text_distinct(terms, n);
    int shared = feat_text_shared(w->terms, w->n, terms, n);
    dense[0] = (float)shared / (float)(w->n + n - shared);
    dense[1] = (float)shared / (float)w->n;
}

const struct feat_kind feat_kind_text_match = {
    .name = "text_match",
    .doc = "How well a text of the request fits a text of the item.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .check = check,
    .merge = merge,
    .contribute = contribute,
    .begin = begin,
    .extract = extract,
};
