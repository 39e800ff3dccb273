/* replay.c: requests in the order in which the state grew, the state brought up to exactly what
 * each had seen, the same rank() as the server's, and a comparison of bits.
 *
 * State is a function of the set of events applied, so it does not matter how the server's
 * partitions had interleaved: of each, the events up to the logged offset are applied. What one
 * store had applied only grows, so the vectors of its requests stand in one order, by the sum of
 * their offsets. Those of several servers, each with a state of its own, do not: a request that the
 * state has gone past is left for another pass, which begins anew. Records of a shared store that
 * were ahead of the vector are made in a past (features/past.h). */
#include "tools/replay.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/heap.h"
#include "base/log.h"
#include "base/progress.h"
#include "features/past.h"
#include "ranker/request_log.h"
#include "tools/tape.h"

struct entry {
    struct rpc_request_log q;
    int64_t sum; /* of offsets + 1 seen */
    int64_t number;
    bool done;
};
struct replay {
    const struct replay_options *o;
    struct feat_state *state;
    struct feat_past *past;
    struct skew *skew;
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
static enum status read_log(struct replay *r) {
    const char *path = r->o->log ? r->o->log : r->o->topic;
    int64_t cap = 0;
    TRY(r->o->log ? rk_request_log_read_open(path, &r->log)
                  : rk_request_log_read_topic(r->o->source->kafka, path, &r->log));
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
        r->entries[r->n] = (struct entry){q, sum_of(&q), r->n + 1, false};
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

/* The rows that were served, and their scores, where they can be made. */
static enum status compare(struct replay *r, const struct entry *e, struct feat_state *state) {
    const struct rpc_request_log *q = &e->q;
    const struct rk_bundle *b = r->o->bundle;
    struct rk_seen seen;
    arena_reset(&r->worker.arena);
    if (skew_fits(r->o->plan, q)) {
        TRY(rk_rows(state, &r->worker.arena, &q->request, &seen));
        r->result.rows_requests++;
        r->result.rows_equal += skew_compare(r->skew, e->number, q, seen.rows);
    } else {
        r->result.other_plan++;
    }
    if (!b)
        return STATUS_OK;
    if (!slice_is(q->response.model_version, b->version)) {
        r->result.other_model++;
        return STATUS_OK;
    }
    struct rpc_rank_response again;
    TRY(rk_rank(b, state, &r->worker, &q->request, &again, &seen));
    r->result.compared++;
    if (same_answer(&q->response, &again))
        r->result.equal++;
    else
        note_difference(r, e->number, &q->response, &again);
    return STATUS_OK;
}

/* ---- records that were ahead ------------------------------------------------------------------
 */

static enum status on_past_event(void *context, const struct ev_event *e,
                                 const struct rk_message *m) {
    struct replay *r = context;
    (void)m;
    feat_past_event(r->past, e);
    return STATUS_OK;
}

static enum status on_past_bad(void *context, const char *reason, const struct rk_message *m) {
    (void)context, (void)reason, (void)m;
    return STATUS_OK;
}

static enum status look_ahead(struct replay *r, int32_t partition, int64_t offset) {
    struct stream_handler handler = {r, on_past_event, on_past_bad};
    struct tape_track *k = partition < r->tape.n_tracks ? &r->tape.tracks[partition] : NULL;
    if (!k || k->n == 0 || k->messages[k->n - 1].source.offset < offset)
        return fail(STATUS_FAILED_PRECONDITION,
                    "a request had seen events of partition %d up to offset %lld; they end before",
                    (int)partition, (long long)offset);
    for (int64_t i = k->next; i < k->n && k->messages[i].source.offset <= offset; i++)
        TRY(stream_hand_over(&handler, &r->tape.event, &k->messages[i], r->tape.json));
    return STATUS_OK;
}

static enum status make_past(struct replay *r, const struct rpc_request_log *q) {
    struct feat_ahead *ahead = ARENA_ARRAY(&r->arena, struct feat_ahead, q->n_ahead);
    const struct feat_applied *wanted;
    for (int i = 0; i < q->n_ahead; i++)
        ahead[i] = (struct feat_ahead){(enum feat_scope)q->ahead[i].scope, q->ahead[i].key,
                                       q->ahead[i].partition, q->ahead[i].offset};
    feat_past_begin(r->past, ahead, q->n_ahead);
    int n = feat_past_wanted(r->past, &r->arena, &wanted);
    for (int i = 0; i < n; i++)
        TRY(look_ahead(r, wanted[i].partition, wanted[i].offset));
    return STATUS_OK;
}

/* ---- the run ----------------------------------------------------------------------------------
 */

static enum status begin_pass(struct replay *r) {
    feat_past_free(r->past);
    feat_state_free(r->state);
    r->past = NULL;
    r->state = NULL;
    if (r->o->state)
        TRY(feat_state_load(r->o->plan, r->o->state, &r->state));
    else
        r->state = feat_state_new(r->o->plan);
    r->past = feat_past_new(r->o->plan, r->state, r->o->buckets);
    for (int i = 0; i < r->tape.n_tracks; i++)
        r->tape.tracks[i].next = 0;
    r->result.passes++;
    return STATUS_OK;
}

/* Has the state nothing that the request had not? */
static bool is_before(struct replay *r, const struct rpc_request_log *q) {
    const struct feat_applied *is;
    bool before = true;
    arena_reset(&r->worker.arena);
    feat_state_read_begin(r->state);
    int n = feat_state_applied(r->state, &r->worker.arena, &is);
    feat_state_read_end(r->state);
    for (int i = 0; i < n && before; i++) {
        int k = 0;
        while (k < q->n_applied && q->applied[k].partition != is[i].partition)
            k++;
        before = is[i].offset < 0 || (k < q->n_applied && q->applied[k].offset >= is[i].offset);
    }
    return before;
}

static enum status replay_one(struct replay *r, struct entry *e) {
    const struct rpc_request_log *q = &e->q;
    e->done = true;
    for (int i = 0; i < q->n_applied; i++)
        TRY(catch_up(r, q->applied[i].partition, q->applied[i].offset));
    if (q->n_ahead == 0)
        return compare(r, e, r->state);
    r->result.ahead++;
    TRY(make_past(r, q));
    return compare(r, e, feat_past_state(r->past));
}

/* Answers nothing can be made again of. */
static bool leave_out(struct replay *r, const struct rpc_request_log *q) {
    r->result.cached += q->response.cached;
    r->result.without_store += q->without_store && !q->response.cached;
    return q->response.cached || q->without_store;
}

static enum status replay_all(struct replay *r, int quiet) {
    struct progress p;
    int64_t left = 0, done = 0;
    progress_start(&p, "replay", "requests", r->n, quiet);
    r->result.requests = r->n;
    for (int64_t i = 0; i < r->n; i++) {
        r->entries[i].done = leave_out(r, &r->entries[i].q);
        left += !r->entries[i].done;
    }
    while (left > 0) {
        int64_t before = left;
        TRY(begin_pass(r));
        for (int64_t i = 0; i < r->n; i++) {
            struct entry *e = &r->entries[i];
            if (e->done || !is_before(r, &e->q))
                continue;
            TRY(replay_one(r, e));
            left--;
            progress_at(&p, ++done);
        }
        if (left == before)
            return fail(STATUS_FAILED_PRECONDITION,
                        "%lld requests were served before the snapshot %s; begin from an older "
                        "one, or without",
                        (long long)left, r->o->state ? r->o->state : "");
    }
    progress_end(&p);
    return STATUS_OK;
}

enum status replay_requests(const struct replay_options *o, struct skew *skew,
                            struct replay_result *out) {
    struct replay r = {.o = o, .skew = skew};
    arena_init(&r.arena, 0);
    rk_worker_init(&r.worker);
    enum status status = read_log(&r);
    if (status == STATUS_OK)
        status = tape_read(o->source, o->quiet, &r.tape);
    if (status == STATUS_OK)
        status = replay_all(&r, o->quiet);
    if (status == STATUS_OK)
        *out = r.result;
    tape_deinit(&r.tape);
    feat_past_free(r.past);
    feat_state_free(r.state);
    rk_worker_deinit(&r.worker);
    arena_deinit(&r.arena);
    heap_free(r.entries);
    rk_request_log_read_close(r.log);
    return status;
}
