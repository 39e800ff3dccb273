/* replay.c: requests in the order in which the state grew, the state brought up to exactly what
 * each had seen, the same rank() as the server's, and a comparison of bits.
 *
 * State is a function of the set of events applied, so it does not matter how the server's
 * partitions had interleaved: of each, the events up to the logged offset are applied. Reads fall
 * between two micro-batches of one ingester, so the vectors of all requests can be put in one
 * order, by the sum of their offsets. */
#include "tools/replay.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/heap.h"
#include "base/log.h"
#include "base/progress.h"
#include "ranker/request_log.h"
#include "tools/tape.h"

struct entry {
    struct rpc_request_log q;
    int64_t sum; /* of offsets + 1 seen */
    int64_t number;
};
struct replay {
    const struct rk_bundle *bundle;
    struct feat_state *state;
    struct rk_worker worker;
    struct tape tape;
    struct rk_request_log_reader *log;
    struct arena arena;    /* of the log */
    struct entry *entries; /* [n] */
    int64_t n;
    struct replay_result result;
};

/* ---- the log ----------------------------------------------------------------------------------
 */

static int64_t sum_of(const struct rpc_request_log *q) {
    int64_t sum = 0;
    for (int i = 0; i < q->n_applied; i++)
        sum += q->applied[i].offset + 1;
    return sum;
}

static int by_sum(const void *pa, const void *pb) {
    const struct entry *a = pa, *b = pb;
    if (a->sum != b->sum)
        return a->sum < b->sum ? -1 : 1;
    return a->number < b->number ? -1 : 1;
}

/* A server that died leaves its last message cut short: what is before it counts. */
static enum status read_log(struct replay *r, const char *path) {
    int64_t cap = 0;
    TRY(rk_request_log_read_open(path, &r->log));
    for (;;) {
        struct rpc_request_log q;
        enum status status = rk_request_log_next(r->log, &r->arena, &q);
        if (status == STATUS_OUT_OF_RANGE)
            break;
        if (status == STATUS_DATA_LOSS && r->n) {
            log_warn("replay", "%s; the %lld requests before it are replayed", status_message(),
                     (long long)r->n);
            break;
        }
        TRY(status);
        if (r->n == cap) {
            cap = cap ? 2 * cap : 1024;
            r->entries = heap_grow(r->entries, (size_t)cap * sizeof *r->entries);
        }
        r->entries[r->n] = (struct entry){q, sum_of(&q), r->n + 1};
        r->n++;
    }
    if (r->n)
        qsort(r->entries, (size_t)r->n, sizeof *r->entries, by_sum);
    return STATUS_OK;
}

/* ---- the state as it was ----------------------------------------------------------------------
 */

static enum status on_event(void *context, const struct ev_event *e, const struct rk_message *m) {
    struct replay *r = context;
    (void)m;
    feat_state_apply(r->state, e, 1, NULL);
    return STATUS_OK;
}

static enum status on_bad(void *context, const char *reason, const struct rk_message *m) {
    struct replay *r = context;
    (void)reason;
    feat_state_skip(r->state, m->source);
    return STATUS_OK;
}

/* Applies one partition up to `offset`. What the state had from a snapshot is applied again, which
 * changes nothing. */
static enum status catch_up(struct replay *r, int32_t partition, int64_t offset) {
    struct stream_handler handler = {r, on_event, on_bad};
    struct tape_track *k = partition < r->tape.n_tracks ? &r->tape.tracks[partition] : NULL;
    int64_t last = k && k->n ? k->messages[k->n - 1].source.offset : -1;
    if (last < offset)
        return fail(STATUS_FAILED_PRECONDITION,
                    "a request had seen partition %d up to offset %lld; the events end at %lld",
                    (int)partition, (long long)offset, (long long)last);
    while (k->next < k->n && k->messages[k->next].source.offset <= offset)
        TRY(tape_step(&r->tape, k, &handler));
    return STATUS_OK;
}

/* ---- the comparison ---------------------------------------------------------------------------
 */

static bool same_floats(const float *a, const float *b, int n) {
    return n == 0 || memcmp(a, b, (size_t)n * sizeof *a) == 0;
}

/* The score an item had in the other answer, or NaN. */
static double score_of(const struct rpc_rank_response *a, uint32_t item) {
    for (int i = 0; i < a->n; i++)
        if (a->order[i] == item)
            return (double)a->scores[i];
    return NAN;
}

static void note_difference(struct replay *r, int64_t number, const struct rpc_rank_response *was,
                            const struct rpc_rank_response *is) {
    struct replay_result *out = &r->result;
    for (int i = 0; i < was->n; i++) {
        double difference = fabs((double)was->scores[i] - score_of(is, was->order[i]));
        if (difference > out->greatest_difference)
            out->greatest_difference = difference;
    }
    if (*out->first_difference)
        return;
    int i = 0;
    while (i < was->n && i < is->n && was->order[i] == is->order[i] &&
           same_floats(&was->scores[i], &is->scores[i], 1))
        i++;
    if (was->n != is->n || i == was->n)
        snprintf(out->first_difference, sizeof out->first_difference,
                 "request %lld: %d items then, %d now, or other probabilities", (long long)number,
                 was->n, is->n);
    else
        snprintf(out->first_difference, sizeof out->first_difference,
                 "request %lld, place %d: item %u with %.9g then, item %u with %.9g now",
                 (long long)number, i + 1, was->order[i], (double)was->scores[i], is->order[i],
                 (double)is->scores[i]);
}

static bool same_answer(const struct rpc_rank_response *a, const struct rpc_rank_response *b) {
    if (a->n != b->n || a->n_tasks != b->n_tasks || !same_floats(a->scores, b->scores, a->n) ||
        (a->n && memcmp(a->order, b->order, (size_t)a->n * sizeof *a->order) != 0))
        return false;
    for (int t = 0; t < a->n_tasks; t++)
        if (!same_floats(a->probabilities[t], b->probabilities[t], a->n))
            return false;
    return true;
}

static enum status replay_one(struct replay *r, const struct entry *e) {
    const struct rpc_request_log *q = &e->q;
    struct rpc_rank_response again;
    struct rk_seen seen;
    r->result.requests++;
    if (q->response.cached) {
        r->result.cached++;
        return STATUS_OK;
    }
    if (!slice_is(q->response.model_version, moe_model_version(r->bundle->model))) {
        r->result.other_model++;
        return STATUS_OK;
    }
    for (int i = 0; i < q->n_applied; i++)
        TRY(catch_up(r, q->applied[i].partition, q->applied[i].offset));
    arena_reset(&r->worker.arena);
    TRY(rk_rank(r->bundle, r->state, &r->worker, &q->request, &again, &seen));
    r->result.compared++;
    if (same_answer(&q->response, &again))
        r->result.equal++;
    else
        note_difference(r, e->number, &q->response, &again);
    return STATUS_OK;
}

/* ---- the run ----------------------------------------------------------------------------------
 */

static enum status replay_all(struct replay *r, int quiet) {
    struct progress p;
    progress_start(&p, "replay", "requests", r->n, quiet);
    for (int64_t i = 0; i < r->n; i++) {
        TRY(replay_one(r, &r->entries[i]));
        progress_at(&p, i + 1);
    }
    progress_end(&p);
    return STATUS_OK;
}

enum status replay_requests(const struct rk_bundle *b, const struct feat_plan *plan,
                            const char *log, const struct stream_source *source, const char *state,
                            int quiet, struct replay_result *out) {
    struct replay r = {.bundle = b};
    arena_init(&r.arena, 0);
    rk_worker_init(&r.worker);
    enum status status = read_log(&r, log);
    if (status == STATUS_OK && state)
        status = feat_state_load(plan, state, &r.state);
    if (status == STATUS_OK && !state)
        r.state = feat_state_new(plan);
    if (status == STATUS_OK)
        status = tape_read(source, quiet, &r.tape);
    if (status == STATUS_OK)
        status = replay_all(&r, quiet);
    if (status == STATUS_OK)
        *out = r.result;
    tape_deinit(&r.tape);
    feat_state_free(r.state);
    rk_worker_deinit(&r.worker);
    arena_deinit(&r.arena);
    heap_free(r.entries);
    rk_request_log_read_close(r.log);
    return status;
}
