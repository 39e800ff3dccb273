/* examples.c: labelled rows in growing columns. Plain arrays; training copies the rows of a batch
 * together, so order in memory matters little. */
#include "moe/data/examples.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "base/heap.h"

struct moe_examples *moe_examples_new(const struct moe_inputs *inputs, int n_tasks) {
    struct moe_examples *x = HEAP_NEW(struct moe_examples);
    x->inputs = *inputs;
    x->n_tasks = n_tasks;
    return x;
}

void moe_examples_free(struct moe_examples *x) {
    if (!x)
        return;
    moe_compact_free(x->compact);
    void *all[] = {x->query,    x->query_ids, x->group_key, x->time_us, x->cand, x->place,
                   x->cand_ids, x->group,     x->labels,    x->weight,  x};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        heap_free(all[i]);
}

void moe_examples_hold_compact(struct moe_examples *x) {
    assert(x->n_rows == 0 && !x->compact);
    x->compact = moe_compact_new(x->inputs.cand_columns);
}

static void grow(void *array, int cap, int width, size_t item) {
    void **p = array;
    *p = heap_grow(*p, (size_t)cap * (size_t)(width ? width : 1) * item);
}

static void make_room(struct moe_examples *x, int rows) {
    if (x->n_groups == x->groups_cap) {
        x->groups_cap = x->groups_cap ? 2 * x->groups_cap : 256;
        grow(&x->query, x->groups_cap, x->inputs.query_columns, sizeof *x->query);
        grow(&x->query_ids, x->groups_cap, x->inputs.query_slots, sizeof *x->query_ids);
        grow(&x->group_key, x->groups_cap, 1, sizeof *x->group_key);
        grow(&x->time_us, x->groups_cap, 1, sizeof *x->time_us);
    }
    if (x->n_rows + rows > x->rows_cap) {
        while (x->n_rows + rows > x->rows_cap)
            x->rows_cap = x->rows_cap ? 2 * x->rows_cap : 1024;
        if (!x->compact)
            grow(&x->cand, x->rows_cap, x->inputs.cand_columns, sizeof *x->cand);
        grow(&x->cand_ids, x->rows_cap, x->inputs.cand_slots, sizeof *x->cand_ids);
        grow(&x->group, x->rows_cap, 1, sizeof *x->group);
        grow(&x->labels, x->rows_cap, x->n_tasks, sizeof *x->labels);
        grow(&x->weight, x->rows_cap, 1, sizeof *x->weight);
    }
}

static void put(void *to, size_t at, size_t n, const void *from, size_t width, size_t item) {
    if (n && width)
        memcpy((char *)to + at * width * item, from, n * width * item);
}

void moe_examples_add(struct moe_examples *x, const struct moe_batch *b, const float *labels,
                      const float *weight, int64_t time_us, uint64_t group_key) {
    const struct moe_inputs *in = &x->inputs;
    size_t g = (size_t)x->n_groups, r = (size_t)x->n_rows, n = (size_t)b->n_rows;
    assert(b->n_groups == 1 && !x->place);
    make_room(x, b->n_rows);
    put(x->query, g, 1, b->query, (size_t)in->query_columns, sizeof(float));
    put(x->query_ids, g, 1, b->query_ids, (size_t)in->query_slots, sizeof(uint32_t));
    if (x->compact)
        moe_compact_add(x->compact, b->cand, b->n_rows);
    else
        put(x->cand, r, n, b->cand, (size_t)in->cand_columns, sizeof(float));
    put(x->cand_ids, r, n, b->cand_ids, (size_t)in->cand_slots, sizeof(uint32_t));
    put(x->labels, r, n, labels, (size_t)x->n_tasks, sizeof(float));
    for (size_t i = 0; i < n; i++) {
        x->group[r + i] = x->n_groups;
        x->weight[r + i] = weight ? weight[i] : 1;
    }
    x->time_us[g] = time_us;
    x->group_key[g] = group_key;
    x->n_groups++;
    x->n_rows += b->n_rows;
}

struct order {
    int64_t time_us;
    int group, first, rows;
};
static int by_time(const void *a, const void *b) {
    const struct order *x = a, *y = b;
    return x->time_us != y->time_us ? (x->time_us > y->time_us) - (x->time_us < y->time_us)
                                    : (x->group > y->group) - (x->group < y->group);
}

/* Element i becomes what was element from[i], each `bytes` long: cycle by cycle, in place, since a
 * second array of all rows would double what training holds. done [n] is scratch. */
static void permute(void *array, const int *from, int n, size_t bytes, uint8_t *done) {
    char *p = array, *kept = heap_alloc(bytes + 1);
    memset(done, 0, (size_t)n);
    for (int i = 0; i < n && bytes > 0; i++) {
        if (done[i] || from[i] == i)
            continue;
        memcpy(kept, p + (size_t)i * bytes, bytes);
        int at = i;
        for (; from[at] != i; at = from[at]) {
            memcpy(p + (size_t)at * bytes, p + (size_t)from[at] * bytes, bytes);
            done[at] = 1;
        }
        memcpy(p + (size_t)at * bytes, kept, bytes);
        done[at] = 1;
    }
    heap_free(kept);
}

static void permute_groups(struct moe_examples *x, const struct order *o, int *from,
                           uint8_t *done) {
    const struct moe_inputs *in = &x->inputs;
    const int n = x->n_groups;
    for (int g = 0; g < n; g++)
        from[g] = o[g].group;
    permute(x->query, from, n, (size_t)in->query_columns * sizeof *x->query, done);
    permute(x->query_ids, from, n, (size_t)in->query_slots * sizeof *x->query_ids, done);
    permute(x->group_key, from, n, sizeof *x->group_key, done);
    permute(x->time_us, from, n, sizeof *x->time_us, done);
}

/* What is held compact stays where it is; where that is moves. */
static void permute_places(struct moe_examples *x, const int *from, uint8_t *done) {
    int r = 0;
    while (r < x->n_rows && from[r] == r)
        r++;
    if (r == x->n_rows)
        return;
    if (!x->place) {
        x->place = HEAP_ARRAY(int, x->n_rows);
        for (int i = 0; i < x->n_rows; i++)
            x->place[i] = i;
    }
    permute(x->place, from, x->n_rows, sizeof *x->place, done);
}

static void permute_rows(struct moe_examples *x, const struct order *o, int *from, uint8_t *done) {
    const struct moe_inputs *in = &x->inputs;
    const int n = x->n_rows;
    for (int g = 0, r = 0; g < x->n_groups; g++)
        for (int k = 0; k < o[g].rows; k++, r++) {
            from[r] = o[g].first + k;
            x->group[r] = g;
        }
    if (x->compact)
        permute_places(x, from, done);
    else
        permute(x->cand, from, n, (size_t)in->cand_columns * sizeof *x->cand, done);
    permute(x->cand_ids, from, n, (size_t)in->cand_slots * sizeof *x->cand_ids, done);
    permute(x->labels, from, n, (size_t)x->n_tasks * sizeof *x->labels, done);
    permute(x->weight, from, n, sizeof *x->weight, done);
}

void moe_examples_sort(struct moe_examples *x) {
    const int most = x->n_groups > x->n_rows ? x->n_groups : x->n_rows;
    struct order *o = HEAP_ARRAY(struct order, x->n_groups + 1);
    int *from = HEAP_ARRAY(int, most + 1);
    uint8_t *done = HEAP_ARRAY(uint8_t, most + 1);
    for (int g = 0, r = 0; g < x->n_groups; g++) {
        o[g] = (struct order){x->time_us[g], g, r, 0};
        while (r < x->n_rows && x->group[r] == g)
            r++;
        o[g].rows = r - o[g].first;
    }
    qsort(o, (size_t)x->n_groups, sizeof *o, by_time);
    permute_groups(x, o, from, done);
    permute_rows(x, o, from, done);
    heap_free(done);
    heap_free(from);
    heap_free(o);
}

/* The first row of `group` or after: rows are ascending in group. */
static int first_row(const struct moe_examples *x, int group) {
    int lo = 0, hi = x->n_rows;
    while (lo < hi) {
        int mid = lo + (hi - lo) / 2;
        if (x->group[mid] < group)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

void moe_examples_numbers(const struct moe_examples *x, int row, int n, int column, int width,
                          float *out) {
    const size_t columns = (size_t)x->inputs.cand_columns;
    if (x->compact && !x->place) {
        moe_compact_read(x->compact, row, n, column, width, out);
        return;
    }
    for (int r = 0, to; r < n && x->compact; r = to) { /* runs that stand together there, too */
        for (to = r + 1; to < n && x->place[row + to] == x->place[row + r] + to - r;)
            to++;
        moe_compact_read(x->compact, x->place[row + r], to - r, column, width,
                         out + (size_t)r * (size_t)width);
    }
    for (int r = 0; r < n && !x->compact && width > 0; r++)
        memcpy(out + (size_t)r * (size_t)width,
               x->cand + (size_t)(row + r) * columns + (size_t)column, (size_t)width * sizeof *out);
}

int moe_examples_view(const struct moe_examples *x, int first_group, int n_groups,
                      struct moe_batch *out) {
    const struct moe_inputs *in = &x->inputs;
    int from = first_row(x, first_group), to = first_row(x, first_group + n_groups);
    *out = (struct moe_batch){
        .n_groups = n_groups,
        .n_rows = to - from,
        .query = x->query + (size_t)first_group * (size_t)in->query_columns,
        .query_ids = x->query_ids + (size_t)first_group * (size_t)in->query_slots,
        .cand = x->compact ? NULL : x->cand + (size_t)from * (size_t)in->cand_columns,
        .cand_ids = x->cand_ids + (size_t)from * (size_t)in->cand_slots,
        .group = x->group + from,
        .first_group = first_group,
    };
    return from;
}
