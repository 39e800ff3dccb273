/* table_ids.c: values of categories to ids: dictionaries that admit what is frequent enough,
 * quantile bins of numbers, crosses of categories. Ids are numbered in the order in which the
 * values appeared, so equal files give equal ids. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/hash.h"
#include "base/heap.h"
#include "moe/data/table_impl.h"

uint32_t moe_dict_learn(struct moe_dict *d, uint64_t key) {
    uint64_t id;
    if (!map_get(&d->ids, key, &id)) {
        if (d->n == d->cap) {
            d->cap = d->cap ? 2 * d->cap : 64;
            d->count = heap_grow(d->count, (size_t)d->cap * sizeof *d->count);
        }
        d->count[d->n] = 0;
        id = MOE_TABLE_FIRST_ID + d->n++;
        map_put(&d->ids, key, id);
    }
    d->count[id - MOE_TABLE_FIRST_ID]++;
    return (uint32_t)id;
}

uint32_t moe_dict_find(const struct moe_dict *d, uint64_t key) {
    uint64_t id;
    return map_get(&d->ids, key, &id) ? (uint32_t)id : MOE_TABLE_RARE;
}

void moe_dict_admit(struct moe_dict *d, int64_t min_count, uint32_t *new_id) {
    struct map kept = {0};
    uint64_t key, id;
    uint32_t n = 0;
    new_id[MOE_TABLE_MISSING] = MOE_TABLE_MISSING;
    new_id[MOE_TABLE_RARE] = MOE_TABLE_RARE;
    for (uint32_t i = 0; i < d->n; i++)
        new_id[MOE_TABLE_FIRST_ID + i] =
            d->count[i] >= min_count ? MOE_TABLE_FIRST_ID + n++ : (uint32_t)MOE_TABLE_RARE;
    for (size_t i = 0; map_next(&d->ids, &i, &key, &id);)
        if (new_id[id] != MOE_TABLE_RARE)
            map_put(&kept, key, new_id[id]);
    map_deinit(&d->ids);
    heap_free(d->count);
    *d = (struct moe_dict){.ids = kept, .n = n};
}

void moe_dict_deinit(struct moe_dict *d) {
    map_deinit(&d->ids);
    heap_free(d->count);
    *d = (struct moe_dict){0};
}

/* --- bins
 * ------------------------------------------------------------------------------------------ */

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void fit_bins(struct moe_table_column *c, int rows) {
    float *v = HEAP_ARRAY(float, rows + 1);
    int n = 0;
    for (int r = 0; r < rows; r++)
        if (!isnan(c->raw[r]))
            v[n++] = c->raw[r];
    qsort(v, (size_t)n, sizeof *v, ascending);
    for (int64_t i = 1; i < c->bins && n; i++) {
        float edge = v[(size_t)((double)n * (double)i / (double)c->bins)];
        if (edge > v[0] && (c->n_edges == 0 || edge > c->edges[c->n_edges - 1]))
            c->edges[c->n_edges++] = edge;
    }
    heap_free(v);
}

static void assign_bins(struct moe_table_column *c, struct moe_examples *x) {
    size_t slots = (size_t)x->inputs.cand_slots;
    for (int r = 0; r < x->n_rows; r++) {
        uint32_t bin = 0;
        while ((int)bin < c->n_edges && c->raw[r] >= c->edges[bin])
            bin++;
        x->cand_ids[(size_t)r * slots + (size_t)c->input] =
            isnan(c->raw[r]) ? (uint32_t)MOE_TABLE_MISSING : MOE_TABLE_FIRST_ID + bin;
    }
}

/* --- crosses
 * --------------------------------------------------------------------------------------- */

/* A cross of which a part is missing or rare is so itself. */
static uint64_t cross_key(const struct moe_table *t, const struct moe_table_column *c,
                          const uint32_t *ids, uint32_t *short_cut) {
    uint64_t key = 1;
    *short_cut = MOE_TABLE_FIRST_ID;
    for (int i = 0; i < c->n_parts; i++) {
        uint32_t id = ids[t->columns[c->part[i]].input];
        *short_cut = id < *short_cut ? id : *short_cut;
        key = hash_mix(key, id);
    }
    return key;
}

static void make_cross(const struct moe_table *t, struct moe_table_column *c,
                       struct moe_examples *x) {
    size_t slots = (size_t)x->inputs.cand_slots;
    for (int r = 0; r < x->n_rows; r++) {
        uint32_t *ids = x->cand_ids + (size_t)r * slots, short_cut;
        uint64_t key = cross_key(t, c, ids, &short_cut);
        if (short_cut < MOE_TABLE_FIRST_ID)
            ids[c->input] = short_cut;
        else if (c->hash)
            ids[c->input] = MOE_TABLE_FIRST_ID + (uint32_t)(key % (uint64_t)c->hash);
        else
            ids[c->input] =
                t->learnt ? moe_dict_find(&c->dict, key) : moe_dict_learn(&c->dict, key);
    }
}

/* --- all
 * ------------------------------------------------------------------------------------------- */

static void admit(struct moe_table_column *c, struct moe_examples *x) {
    size_t slots = (size_t)x->inputs.cand_slots;
    uint32_t *new_id = HEAP_ARRAY(uint32_t, c->dict.n + MOE_TABLE_FIRST_ID);
    moe_dict_admit(&c->dict, c->min_count, new_id);
    for (int r = 0; r < x->n_rows; r++) {
        uint32_t *id = &x->cand_ids[(size_t)r * slots + (size_t)c->input];
        *id = new_id[*id];
    }
    heap_free(new_id);
}

static uint32_t table_rows(const struct moe_table_column *c) {
    uint32_t values = c->bins ? (uint32_t)c->n_edges + 1 : c->hash ? (uint32_t)c->hash : c->dict.n;
    return MOE_TABLE_FIRST_ID + (values ? values : 1);
}

void moe_table_size_ids(struct moe_table *t) {
    for (int i = 0; i < t->n_columns; i++)
        if (t->columns[i].kind == MOE_COLUMN_CATEGORY)
            t->tables[t->columns[i].input].rows = table_rows(&t->columns[i]);
}

void moe_table_finish_ids(struct moe_table *t, struct moe_examples *x) {
    for (int i = 0; i < t->n_columns; i++) {
        struct moe_table_column *c = &t->columns[i];
        if (c->kind != MOE_COLUMN_CATEGORY)
            continue;
        if (c->n_parts)
            make_cross(t, c, x);
        if (c->bins && !t->learnt)
            fit_bins(c, x->n_rows);
        if (c->bins)
            assign_bins(c, x);
        else if (!c->hash && !t->learnt)
            admit(c, x);
    }
    if (!t->learnt)
        moe_table_size_ids(t);
}
