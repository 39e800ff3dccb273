/* rank.c: one ranking call: rows of the state as of a time -> probabilities -> one score -> order.
 *
 * The state is read between two micro-batches, and what had been applied comes back with the
 * answer: with it, replay makes the same rows again. The order is a stable radix sort of the
 * scores' bits, of few of them by insertion, so equal scores keep the request's order on every
 * machine.
 *
 * Deliberately no I/O, no randomness, no clock but for the metrics, and no filtering: which
 * candidates to rank, and what to do with the list, is the caller's business. */
#include "ranker/rank.h"
#include <assert.h>
#include <math.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/metric.h"
#include "ranker/crew.h"
#include "ranker/lap.h"

enum { EXPLAINED_MAX = 10, FEW = 32 };

void rk_worker_init(struct rk_worker *w) {
    *w = (struct rk_worker){.lap_weight = 1};
    arena_init(&w->arena, 256 * 1024);
}

void rk_worker_deinit(struct rk_worker *w) {
    arena_deinit(&w->arena);
    heap_free(w->scratch);
    w->scratch = NULL;
}

void *rk_worker_scratch(struct rk_worker *w, const struct moe_scorer *s) {
    size_t bytes = moe_scorer_scratch_bytes(s);
    if (bytes > w->scratch_bytes) {
        heap_free(w->scratch);
        w->scratch = heap_alloc_aligned(bytes);
        w->scratch_bytes = bytes;
    }
    return w->scratch;
}

static struct feat_request features_of(const struct rpc_rank_request *r, struct arena *a) {
    struct slice *names = ARENA_ARRAY(a, struct slice, r->n_columns);
    const float **values = ARENA_ARRAY(a, const float *, r->n_columns);
    for (int i = 0; i < r->n_columns; i++) {
        names[i] = r->columns[i].name;
        values[i] = r->columns[i].values;
    }
    return (struct feat_request){.tenant = r->tenant,
                                 .user = r->user,
                                 .session = r->session,
                                 .context = r->context,
                                 .n_context = r->n_context,
                                 .items = r->items,
                                 .n_items = r->n_items,
                                 .column_names = names,
                                 .column_values = values,
                                 .n_columns = r->n_columns};
}

enum status rk_rows(struct feat_state *state, struct arena *a,
                    const struct rpc_rank_request *request, struct rk_seen *seen) {
    struct feat_request f = features_of(request, a);
    struct feat_rows *rows = ARENA_ARRAY(a, struct feat_rows, 1);
    struct rk_seen saw = {.rows = rows};
    feat_state_read_begin(state);
    feat_state_extract(state, a, &f, request->now_us, rows);
    saw.n_applied = feat_state_applied(state, a, &saw.applied);
    if (feat_state_is_shared(state))
        saw.n_ahead = feat_state_ahead(state, a, &saw.ahead);
    saw.without_store = feat_state_read_failed(state);
    TRY(feat_state_read_end(state));
    saw.user_epoch = rows->user_epoch;
    *seen = saw;
    return STATUS_OK;
}

/* p [n_tasks x n] -> score [n] */
static void combine(const struct rk_bundle *b, const float *p, int n, float *score) {
    for (int i = 0; i < n; i++)
        score[i] = b->combine == RK_PRODUCT ? 1 : 0;
    for (int t = 0; t < b->n_tasks; t++) {
        const float *row = p + (size_t)t * (size_t)n;
        float w = b->task_weight[t];
        if (w == 0)
            continue;
        if (b->combine == RK_PRODUCT)
            for (int i = 0; i < n; i++)
                score[i] *= w == 1 ? row[i] : powf(row[i], w);
        else
            for (int i = 0; i < n; i++)
                score[i] += w * row[i];
    }
}

/* Bits that sort ascending as the scores sort descending. -0 counts as 0; NaN comes last. */
static uint32_t sort_bits(float score) {
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return UINT32_MAX;
    if (bits == 0x80000000u)
        bits = 0;
    return bits & 0x80000000u ? bits : ~bits & 0x7fffffffu;
}

/* Few are sorted fastest by insertion, many by four passes of a byte each. */
static void sort_few(const uint32_t *bits, int n, uint32_t *order) {
    for (int i = 1; i < n; i++) {
        const uint32_t at = order[i];
        int k = i;
        for (; k > 0 && bits[order[k - 1]] > bits[at]; k--)
            order[k] = order[k - 1];
        order[k] = at;
    }
}

/* order [n]: indices by falling score, stable. */
static void sort_order(const float *score, int n, uint32_t *order, struct arena *a) {
    uint32_t *bits = arena_alloc(a, (size_t)n * sizeof *bits);
    uint32_t *other = arena_alloc(a, (size_t)n * sizeof *other);
    uint32_t *from = order, *to = other;
    for (int i = 0; i < n; i++) {
        bits[i] = sort_bits(score[i]);
        order[i] = (uint32_t)i;
    }
    if (n <= FEW) {
        sort_few(bits, n, order);
        return;
    }
    for (int shift = 0; shift < 32; shift += 8) {
        uint32_t at[256] = {0}, sum = 0;
        for (int i = 0; i < n; i++)
            at[bits[i] >> shift & 255]++;
        for (int k = 0; k < 256; k++) {
            uint32_t count = at[k];
            at[k] = sum;
            sum += count;
        }
        for (int i = 0; i < n; i++)
            to[at[bits[from[i]] >> shift & 255]++] = from[i];
        uint32_t *swap = from;
        from = to;
        to = swap;
    }
    assert(from == order);
}

static struct moe_batch batch_of(const struct feat_rows *rows) {
    return (struct moe_batch){.n_groups = 1,
                              .n_rows = rows->n_rows,
                              .query = rows->query,
                              .query_ids = rows->query_ids,
                              .cand = rows->cand,
                              .cand_ids = rows->cand_ids};
}

/* Answers in the response's order, of its first n rows. */
static void write_answer(const struct rk_bundle *b, const float *p, const float *score, int n_rows,
                         struct arena *a, struct rpc_rank_response *out) {
    int n = out->n;
    float *scores = arena_alloc(a, (size_t)n * sizeof *scores);
    struct slice *tasks = ARENA_ARRAY(a, struct slice, b->n_tasks);
    const float **columns = ARENA_ARRAY(a, const float *, b->n_tasks);
    for (int i = 0; i < n; i++)
        scores[i] = score[out->order[i]];
    for (int t = 0; t < b->n_tasks; t++) {
        const float *row = p + (size_t)t * (size_t)n_rows;
        float *column = arena_alloc(a, (size_t)n * sizeof *column);
        for (int i = 0; i < n; i++)
            column[i] = row[out->order[i]];
        tasks[t] = slice_of(moe_model_task(b->model, t));
        columns[t] = column;
    }
    out->scores = scores;
    out->tasks = tasks;
    out->probabilities = columns;
    out->n_tasks = b->n_tasks;
}

/* ---- why: feature values and gate weights of the first rows -------------------------------- */

static void explain_features(const struct feat_plan *plan, const struct feat_rows *rows, int row,
                             struct arena *a, struct rpc_explanation *out) {
    int n = 0, columns = plan->query_columns + plan->cand_columns;
    struct rpc_feature_value *values = ARENA_ARRAY(a, struct rpc_feature_value, columns);
    const float *cand = rows->cand + (size_t)row * (size_t)plan->cand_columns;
    for (int i = 0; i < plan->query_columns; i++)
        values[n++] =
            (struct rpc_feature_value){slice_of(plan->query_names[i]), &rows->query[i], 1};
    for (int i = 0; i < plan->cand_columns; i++)
        values[n++] = (struct rpc_feature_value){slice_of(plan->cand_names[i]), &cand[i], 1};
    out->features = values;
    out->n_features = n;
}

static enum status explain_gates(const struct moe_model *m, const struct moe_batch *batch, int row,
                                 struct arena *a, struct rpc_explanation *out) {
    int n = moe_explain_gates(m);
    struct rpc_gate_weights *gates = ARENA_ARRAY(a, struct rpc_gate_weights, n);
    for (int g = 0; g < n; g++) {
        int n_experts = moe_explain_experts(m, g);
        struct slice *names = ARENA_ARRAY(a, struct slice, n_experts);
        float *weights = ARENA_ARRAY(a, float, n_experts);
        for (int e = 0; e < n_experts; e++)
            names[e] = slice_of(moe_explain_expert_name(m, g, e));
        TRY(moe_explain(m, batch, row, g, weights));
        gates[g] = (struct rpc_gate_weights){slice_of(moe_explain_gate_name(m, g)), names, weights,
                                             n_experts};
    }
    out->gates = gates;
    out->n_gates = n;
    return STATUS_OK;
}

static enum status explain(const struct rk_bundle *b, const struct rpc_rank_request *request,
                           const struct feat_rows *rows, struct arena *a,
                           struct rpc_rank_response *out) {
    int n = out->n < EXPLAINED_MAX ? out->n : EXPLAINED_MAX;
    struct rpc_explanation *list = ARENA_ARRAY(a, struct rpc_explanation, n);
    struct moe_batch batch = batch_of(rows);
    for (int i = 0; i < n; i++) {
        int row = (int)out->order[i];
        list[i].item = request->items[row];
        explain_features(b->plan, rows, row, a, &list[i]);
        TRY(explain_gates(b->model, &batch, row, a, &list[i]));
    }
    out->explanations = list;
    out->n_explanations = n;
    return STATUS_OK;
}

/* ---- the call ------------------------------------------------------------------------------ */

enum status rk_rank(const struct rk_bundle *b, struct feat_state *state, struct rk_worker *w,
                    const struct rpc_rank_request *request, struct rpc_rank_response *out,
                    struct rk_seen *seen) {
    int n = request->n_items;
    assert(request->now_us > 0);
    if (n < 1)
        return fail(STATUS_INVALID_ARGUMENT, "items: none given");
    if (n > b->rows_max)
        return fail(STATUS_INVALID_ARGUMENT, "items: %d given, at most %d (grpc.items_max)", n,
                    b->rows_max);
    struct arena *a = &w->arena;
    rk_lap_begin(w);
    int64_t start_us = clock_mono_us();
    rk_crew_expect(w->crew, b, n);
    TRY(rk_rows(state, a, request, seen));
    rk_lap(w, METRIC_CPU_ROWS);
    const struct feat_rows *rows = seen->rows;
    int64_t rows_us = clock_mono_us();
    float *p = arena_alloc_aligned(a, (size_t)b->n_tasks * (size_t)n * sizeof *p);
    float *score = arena_alloc(a, (size_t)n * sizeof *score);
    uint32_t *order = arena_alloc(a, (size_t)n * sizeof *order);
    struct moe_batch batch = batch_of(rows);
    rk_crew_score(w->crew, b, &batch, a, rk_worker_scratch(w, b->scorer), p);
    rk_lap(w, METRIC_CPU_SCORE);
    combine(b, p, n, score);
    sort_order(score, n, order, a);
    metric_observe_us(METRIC_EXTRACT_US, rows_us - start_us);
    metric_observe_us(METRIC_SCORE_US, clock_mono_us() - rows_us);
    metric_add(METRIC_CANDIDATES, (uint64_t)n);
    struct rpc_rank_response answer = {
        .request_id = request->request_id,
        .model_version = slice_of(b->version),
        .order = order,
        .n = request->top_n > 0 && request->top_n < n ? request->top_n : n,
        .user_epoch = seen->user_epoch};
    write_answer(b, p, score, n, a, &answer);
    rk_lap(w, METRIC_CPU_ORDER);
    if (request->explain)
        TRY(explain(b, request, rows, a, &answer));
    *out = answer;
    return STATUS_OK;
}
