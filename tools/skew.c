/* skew.c: comparison of bits, not of numbers: a NaN equals itself, and 0 is not -0. */
#include "tools/skew.h"
#include <stdio.h>
#include "base/heap.h"
#include "features/kind.h"

void skew_init(struct skew *s, const struct feat_plan *plan) {
    *s = (struct skew){.plan = plan};
    s->counts = HEAP_ARRAY(struct skew_count, plan->n_features + 1);
}

void skew_deinit(struct skew *s) {
    heap_free(s->counts);
    *s = (struct skew){0};
}

bool skew_fits(const struct feat_plan *p, const struct rpc_request_log *q) {
    int n = q->request.n_items;
    char plan[17];
    snprintf(plan, sizeof plan, "%016llx", (unsigned long long)p->fingerprint);
    return q->config_version.n > 16 && memcmp(q->config_version.p, plan, 16) == 0 &&
           q->rows.n_query == p->query_columns && q->rows.n_query_ids == p->query_slots &&
           q->rows.n_cand == n * p->cand_columns && q->rows.n_cand_ids == n * p->cand_slots;
}

/* One part of one feature: `n` words of four bytes each. Returns the place of the first that
 * differs, or -1. */
static int compare_words(struct skew_count *c, const void *was, const void *is, int n) {
    int first = -1;
    for (int i = 0; i < n; i++) {
        uint32_t a, b;
        memcpy(&a, (const char *)was + 4 * (size_t)i, 4);
        memcpy(&b, (const char *)is + 4 * (size_t)i, 4);
        c->values++;
        c->different += a != b;
        c->bits += __builtin_popcount(a ^ b);
        if (a != b && first < 0)
            first = i;
    }
    return first;
}

struct where {
    int64_t number; /* of the request */
    const struct rpc_request_log *q;
    int row; /* -1: the query part */
};

static void note(struct skew *s, const struct where *w, const struct feat *f, int i,
                 const float *was, const float *is) {
    if (*s->first)
        return;
    struct slice item = w->row >= 0 ? w->q->request.items[w->row] : SLICE_LIT("-");
    if (was != NULL)
        snprintf(s->first, sizeof s->first,
                 "request %lld, item '%.*s', feature '%s' column %d: %.9g was served, %.9g is made",
                 (long long)w->number, SLICE_ARG(item), f->name, i, (double)was[i], (double)is[i]);
    else
        snprintf(s->first, sizeof s->first, "request %lld, item '%.*s', feature '%s': other ids",
                 (long long)w->number, SLICE_ARG(item), f->name);
}

/* The feature's columns and slots in one row of its part. */
static void compare_row(struct skew *s, const struct where *w, const struct feat *f,
                        const float *was, const float *is, const uint32_t *was_ids,
                        const uint32_t *is_ids) {
    struct skew_count *c = &s->counts[f->number];
    int at = compare_words(c, was + f->column, is + f->column, f->n_columns);
    if (at >= 0)
        note(s, w, f, at, was + f->column, is + f->column);
    at = compare_words(c, was_ids + f->slot, is_ids + f->slot, f->n_slots);
    if (at >= 0)
        note(s, w, f, at, NULL, NULL);
}

static void compare_feature(struct skew *s, struct where w, const struct feat *f,
                            const struct feat_rows *now) {
    const struct rpc_rows *was = &w.q->rows;
    const struct feat_plan *p = s->plan;
    if (f->side == FEAT_USER || f->side == FEAT_CONTEXT) {
        w.row = -1;
        compare_row(s, &w, f, was->query, now->query, was->query_ids, now->query_ids);
        return;
    }
    for (w.row = 0; w.row < now->n_rows; w.row++) {
        size_t column = (size_t)w.row * (size_t)p->cand_columns;
        size_t slot = (size_t)w.row * (size_t)p->cand_slots;
        compare_row(s, &w, f, was->cand + column, now->cand + column, was->cand_ids + slot,
                    now->cand_ids + slot);
    }
}

bool skew_compare(struct skew *s, int64_t number, const struct rpc_request_log *q,
                  const struct feat_rows *now) {
    int64_t before = s->bits;
    s->bits = 0;
    for (int i = 0; i < s->plan->n_features; i++) {
        const struct feat *f = s->plan->features[i];
        if (f->n_columns + f->n_slots > 0)
            compare_feature(s, (struct where){number, q, -1}, f, now);
        s->bits += s->counts[f->number].bits;
    }
    s->rows += now->n_rows;
    return s->bits == before;
}

void skew_report(const struct skew *s, struct report *r) {
    report_table(r, "features",
                 (const char *const[]){"feature", "kind", "values", "different", "bits", NULL});
    for (int i = 0; i < s->plan->n_features; i++) {
        const struct feat *f = s->plan->features[i];
        if (f->n_columns + f->n_slots == 0)
            continue;
        report_cstr(r, NULL, f->name);
        report_cstr(r, NULL, f->kind->name);
        report_int(r, NULL, s->counts[i].values);
        report_int(r, NULL, s->counts[i].different);
        report_int(r, NULL, s->counts[i].bits);
    }
    report_table_end(r);
}
