/* Rows of two stores beside each other. */
#pragma once
#include "tests/contract/features_query.h"

/* Bit for bit. */
static bool same_rows(const struct feat_plan *p, const struct feat_rows *x,
                      const struct feat_rows *y) {
    size_t n = (size_t)x->n_rows;
    return x->n_rows == y->n_rows && x->user_epoch == y->user_epoch &&
           x->n_unknown == y->n_unknown &&
           memcmp(x->query, y->query, (size_t)p->query_columns * sizeof(float)) == 0 &&
           memcmp(x->query_ids, y->query_ids, (size_t)p->query_slots * sizeof(uint32_t)) == 0 &&
           memcmp(x->cand, y->cand, n * (size_t)p->cand_columns * sizeof(float)) == 0 &&
           memcmp(x->cand_ids, y->cand_ids, n * (size_t)p->cand_slots * sizeof(uint32_t)) == 0;
}

/* Which columns ever had a value: where none has, equal rows say nothing of them. */
struct filled {
    bool query[512], cand[512];
};

static void note_filled(const struct feat_plan *p, const struct feat_rows *rows, struct filled *f) {
    for (int i = 0; i < p->query_columns; i++)
        f->query[i] |= !isnan(rows->query[i]);
    for (int r = 0; r < rows->n_rows; r++)
        for (int i = 0; i < p->cand_columns; i++)
            f->cand[i] |= !isnan(rows->cand[r * p->cand_columns + i]);
}

/* Names them. */
static int n_never_filled(const struct feat_plan *p, const struct filled *f) {
    int n = 0;
    for (int i = 0; i < p->query_columns + p->cand_columns; i++) {
        bool query = i < p->query_columns;
        int k = query ? i : i - p->query_columns;
        if (query ? f->query[k] : f->cand[k])
            continue;
        printf("%s never had a value\n", query ? p->query_names[k] : p->cand_names[k]);
        n++;
    }
    return n;
}

/* To how many of n random questions s and t give other rows. filled: of s, or NULL. */
static int other_rows(struct world *w, const struct feat_plan *p, struct feat_state *s,
                      struct feat_state *t, uint64_t seed, int n, struct filled *filled) {
    struct rng rng;
    struct arena a;
    int wrong = 0;
    rng_init(&rng, seed);
    arena_init(&a, 0);
    for (int i = 0; i < n; i++) {
        struct query q;
        struct feat_rows x, y;
        arena_reset(&a);
        random_query(w, &rng, &q);
        ask(s, &a, &q, false, &x);
        ask(t, &a, &q, false, &y);
        wrong += !same_rows(p, &x, &y);
        if (filled != NULL)
            note_filled(p, &x, filled);
    }
    arena_deinit(&a);
    return wrong;
}
