/* inspect_segments.c: rows sorted into segments by everything there is: a task's label, an id's
 * value, a number's quarter. Which of them a gate follows, its mutual information tells. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/heap.h"
#include "base/map.h"
#include "tools/inspect.h"

static void count(struct inspect_variable *v, int rows) {
    for (int r = 0; r < rows; r++)
        if (v->segment[r] >= 0)
            v->rows[v->segment[r]]++;
}

/* ---- labels -----------------------------------------------------------------------------------
 */

static void by_label(const struct moe_examples *x, int task, struct arena *a,
                     struct inspect_variable *v) {
    v->n = 2;
    v->labels[0] = arena_strdup(a, slice_of("0"));
    v->labels[1] = arena_strdup(a, slice_of("1"));
    for (int r = 0; r < x->n_rows; r++) {
        float y = x->labels[(size_t)r * (size_t)x->n_tasks + (size_t)task];
        v->segment[r] = isnan(y) ? -1 : y > 0.5f;
    }
}

/* ---- ids --------------------------------------------------------------------------------------
 */

struct frequent {
    uint64_t id, rows;
};
static int more_first(const void *a, const void *b) {
    const struct frequent *x = a, *y = b;
    return x->rows != y->rows ? (x->rows < y->rows) - (x->rows > y->rows)
                              : (x->id > y->id) - (x->id < y->id);
}

static uint32_t id_of(const struct moe_examples *x, const struct moe_id_input *in, int row) {
    return in->in_query
               ? x->query_ids[(size_t)x->group[row] * (size_t)x->inputs.query_slots +
                              (size_t)in->slot]
               : x->cand_ids[(size_t)row * (size_t)x->inputs.cand_slots + (size_t)in->slot];
}

static const char *text_of(const struct inspect_data *d, const struct moe_id_input *in, uint64_t id,
                           struct arena *a) {
    uint64_t text;
    if (id == 0)
        return "none";
    if (!in->in_query && map_get(&d->texts, (uint64_t)in->slot << 32 | id, &text))
        return (const char *)(uintptr_t)text;
    return arena_printf(a, "#%llu", (unsigned long long)id);
}

/* The most frequent ids; the rest are one segment. Of a list, its first. */
static void by_id(const struct inspect_data *d, const struct moe_id_input *in, struct arena *a,
                  struct inspect_variable *v) {
    const struct moe_examples *x = d->x;
    struct map seen = {0};
    uint64_t id, rows;
    int n = 0;
    for (int r = 0; r < x->n_rows; r++) {
        rows = 0;
        map_get(&seen, id_of(x, in, r), &rows);
        map_put(&seen, id_of(x, in, r), rows + 1);
    }
    struct frequent *all = HEAP_ARRAY(struct frequent, x->n_rows + 1);
    for (size_t i = 0; map_next(&seen, &i, &id, &rows);)
        all[n++] = (struct frequent){id, rows};
    map_deinit(&seen);
    qsort(all, (size_t)n, sizeof *all, more_first);
    v->n = n < INSPECT_VALUES_MAX ? n : INSPECT_VALUES_MAX;
    for (int i = 0; i < v->n; i++)
        v->labels[i] = i == INSPECT_VALUES_MAX - 1 && n > INSPECT_VALUES_MAX
                           ? "others"
                           : text_of(d, in, all[i].id, a);
    for (int r = 0; r < x->n_rows; r++) {
        int i = 0;
        while (i < v->n - 1 && all[i].id != id_of(x, in, r))
            i++;
        v->segment[r] = i;
    }
    heap_free(all);
}

/* ---- numbers ----------------------------------------------------------------------------------
 */

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}
static float number_of(const struct moe_examples *x, bool query, int column, int row) {
    return query
               ? x->query[(size_t)x->group[row] * (size_t)x->inputs.query_columns + (size_t)column]
               : x->cand[(size_t)row * (size_t)x->inputs.cand_columns + (size_t)column];
}

static void name_quarters(const float *edges, int n_edges, struct arena *a,
                          struct inspect_variable *v) {
    for (int i = 0; i <= n_edges; i++)
        v->labels[i] = n_edges == 0   ? "all"
                       : i == 0       ? arena_printf(a, "< %.4g", (double)edges[0])
                       : i == n_edges ? arena_printf(a, "from %.4g", (double)edges[i - 1])
                                      : arena_printf(a, "%.4g to %.4g", (double)edges[i - 1],
                                                     (double)edges[i]);
    v->labels[n_edges + 1] = "none";
    v->n = n_edges + 2;
}

/* Quarters of the values; where one value has more than a quarter, of what is above it. */
static void by_number(const struct moe_examples *x, bool query, int column, struct arena *a,
                      struct inspect_variable *v) {
    float *all = HEAP_ARRAY(float, x->n_rows + 1), edges[6];
    int n = 0, n_edges = 0;
    for (int r = 0; r < x->n_rows; r++)
        if (!isnan(number_of(x, query, column, r)))
            all[n++] = number_of(x, query, column, r);
    qsort(all, (size_t)n, sizeof *all, ascending);
    for (int from = 0, pass = 0; pass < 2 && n_edges < 2; pass++) {
        n_edges = 0;
        for (int k = pass ? 0 : 1; k < 4 && from < n; k++) {
            float edge = all[from + (int)((int64_t)(n - from) * k / 4)];
            if (edge > all[0] && (n_edges == 0 || edge > edges[n_edges - 1]))
                edges[n_edges++] = edge;
        }
        while (from < n && all[from] == all[0])
            from++;
    }
    name_quarters(edges, n_edges, a, v);
    for (int r = 0; r < x->n_rows; r++) {
        float value = number_of(x, query, column, r);
        int i = 0;
        while (i < n_edges && value >= edges[i])
            i++;
        v->segment[r] = isnan(value) ? n_edges + 1 : i;
    }
    heap_free(all);
}

/* ---- all --------------------------------------------------------------------------------------
 */

int inspect_variables(const struct moe_model *m, const struct inspect_data *d, struct arena *a,
                      struct inspect_variable **out) {
    const struct moe_examples *x = d->x;
    const struct moe_inputs *in = moe_model_inputs(m);
    int n = 0, most = moe_model_tasks(m) + in->n_ids + in->query_columns + in->cand_columns;
    struct inspect_variable *v = ARENA_ARRAY(a, struct inspect_variable, most + 1);
    for (int i = 0; i < most; i++)
        v[i].segment = ARENA_ARRAY(a, int, x->n_rows + 1);
    for (int t = 0; t < moe_model_tasks(m); t++) {
        v[n].name = arena_printf(a, "label of %s", moe_model_task(m, t));
        by_label(x, t, a, &v[n++]);
    }
    for (int i = 0; i < in->n_ids; i++) {
        v[n].name = in->ids[i].name;
        by_id(d, &in->ids[i], a, &v[n++]);
    }
    for (int side = 0; side < 2; side++)
        for (int c = 0; c < (side ? in->cand_columns : in->query_columns); c++) {
            v[n].name = side ? in->cand_names[c] : in->query_names[c];
            by_number(x, side == 0, c, a, &v[n++]);
        }
    for (int i = 0; i < n; i++)
        count(&v[i], x->n_rows);
    *out = v;
    return n;
}
