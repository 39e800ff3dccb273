/* state_shared.c: the state's calls on a store that other processes write, too.
 *
 * apply() of a kind never reads another entity, so a micro-batch is a set of independent changes,
 * one per entity it names. All those entities are read in one round trip, changed here, and written
 * back in one, each only if nobody else was faster; those are read and changed again. Where a plan
 * sums over items a bucket's changes are one (shares.h), and which sums they are in is known only
 * when the items have been read: that takes a second round trip. So does what follows from rankings
 * and interactions together (joins.h): which records it changes is known from what waits under the
 * ranking's id. It is the same in each attempt, and in those of whoever comes after, since what a
 * batch needs of what waits is there from before it began. What is late
 * is judged here, from the partition's clock, which is stored with its offset: whoever reads a
 * partition on from there judges the same. */
#include "features/state_parts.h"
#include <assert.h>
#include "base/clock.h"
#include "base/heap.h"
#include "base/log.h"
#include "base/map.h"
#include "features/keys.h"
#include "features/shares.h"

enum {
    AT_ONCE_MAX = 4096, /* events; more become several micro-batches */
    ROUNDS_MAX = 1000,
    CALM_ROUNDS = 3, /* after so many lost races, wait a little */
    PAUSE_MS = 20,
    PAUSE_MS_MAX = 500,
    VERIFY_EVERY_US = 250 * 1000
};

/* ---- positions ---- */

enum status feat_shared_resume(struct feat_state *s) {
    const struct feat_applied *list;
    int n;
    arena_reset(&s->positions);
    TRY(s->ops->positions(s->store, &s->positions, &list, &n));
    s->n_applied = 0;
    for (int i = 0; i < n; i++)
        *feat_applied_entry(s, list[i].partition) = list[i];
    feat_state_publish(s);
    return STATUS_OK;
}

/* A copy of `applied` to judge by: the store may yet refuse. */
static void start_next(struct feat_state *s) {
    s->n_to = 0;
    if (s->cap_next < s->cap_applied + 1) {
        s->cap_next = s->cap_applied + 1;
        s->next = heap_grow(s->next, (size_t)s->cap_next * sizeof *s->next);
        s->to = heap_grow(s->to, (size_t)s->cap_next * sizeof *s->to);
    }
    s->n_next = s->n_applied;
    if (s->n_applied > 0)
        memcpy(s->next, s->applied, (size_t)s->n_applied * sizeof *s->next);
}

/* The partitions that moved. */
static void collect_moved(struct feat_state *s) {
    for (int i = 0; i < s->n_next; i++)
        if (s->next[i].offset > s->applied[i].offset)
            s->to[s->n_to++] = s->next[i];
}

/* ---- one micro-batch ---- */

static void apply_all(struct feat_state *s, const struct ev_event *events, int n) {
    for (int i = 0; i < n; i++) {
        if (s->judged[i] != FEAT_APPLIED)
            continue;
        int32_t partition = events[i].source.partition;
        const struct feat_applied *start = feat_applied_find(s->applied, s->n_applied, partition);
        s->floor_us = s->clocks_us[i] - s->plan->lateness_us;
        s->forget_us = start->clock_us - s->plan->lateness_us;
        feat_state_apply_event(s, &events[i]);
    }
    if (s->joins != NULL)
        feat_joins_look(s);
}

/* Somebody else writes the same entities again and again: up to a millisecond more each time. */
static void let_others(int round) {
    if (round < CALM_ROUNDS)
        return;
    int most = round < 20 ? round : 20;
    clock_sleep_ms((int)((uint64_t)clock_mono_us() % (uint64_t)most));
}

static enum status write_once(struct feat_state *s, const struct ev_event *events, int n) {
    bool done = false;
    s->ops->begin(s->store, s->to, s->n_to);
    s->collecting = true;
    apply_all(s, events, n);
    s->collecting = false;
    for (int round = 0; !done && round < ROUNDS_MAX; round++) {
        let_others(round);
        do {
            TRY(s->ops->load(s->store));
            apply_all(s, events, n);
        } while (s->ops->more(s->store));
        TRY(s->ops->commit(s->store, &done));
    }
    return done ? STATUS_OK : fail(STATUS_UNAVAILABLE, "state: others are always faster");
}

/* The store has lost writes: takes the positions from it, and tells the caller to go there. */
static enum status go_back(struct feat_state *s) {
    log_warn("state", "%s", status_message());
    while (feat_shared_resume(s) != STATUS_OK) {
        if (atomic_load(&s->interrupted))
            return fail(STATUS_CANCELLED, "state: interrupted while the store was away");
        clock_sleep_ms(PAUSE_MS);
    }
    return fail(STATUS_ABORTED, "the store lost writes; the log is to be read again");
}

/* Waits out a store that is away. */
static enum status write_surely(struct feat_state *s, const struct ev_event *events, int n) {
    int pause_ms = 1;
    for (;;) {
        enum status status = write_once(s, events, n);
        if (status == STATUS_ABORTED)
            return go_back(s);
        if (status != STATUS_UNAVAILABLE)
            return status;
        if (atomic_load(&s->interrupted))
            return fail(STATUS_CANCELLED, "state: interrupted while the store was away");
        log_debug("state", "%s", status_message());
        clock_sleep_ms(pause_ms);
        pause_ms = pause_ms * 2 < PAUSE_MS_MAX ? pause_ms * 2 : PAUSE_MS_MAX;
    }
}

static enum status write_moved(struct feat_state *s, const struct ev_event *events, int n) {
    collect_moved(s);
    if (s->n_to == 0)
        return STATUS_OK;
    if (s->joins != NULL)
        feat_joins_begin(s);
    enum status status = write_surely(s, events, n);
    if (s->joins != NULL)
        feat_joins_end(s, status == STATUS_OK);
    TRY(status);
    memcpy(s->applied, s->next, (size_t)s->n_next * sizeof *s->next);
    s->verified_us = clock_mono_us();
    feat_state_publish(s);
    return STATUS_OK;
}

/* Nothing to write: a writer whose partitions are quiet must notice lost writes, too. */
static enum status look_after(struct feat_state *s) {
    if (clock_mono_us() < s->verified_us + VERIFY_EVERY_US)
        return STATUS_OK;
    enum status status = s->ops->verify(s->store);
    if (status == STATUS_ABORTED)
        return go_back(s);
    if (status == STATUS_OK)
        s->verified_us = clock_mono_us();
    else
        log_debug("state", "%s", status_message()); /* it is away: later */
    return STATUS_OK;
}

static enum status apply_some(struct feat_state *s, const struct ev_event *events, int n,
                              enum feat_verdict *verdicts) {
    if (n > s->cap_judged) {
        s->cap_judged = n;
        s->judged = heap_grow(s->judged, (size_t)n * sizeof *s->judged);
        s->clocks_us = heap_grow(s->clocks_us, (size_t)n * sizeof *s->clocks_us);
    }
    for (int i = 0; i < n; i++) {
        assert(events[i].source.partition >= 0 && events[i].source.offset >= 0);
        feat_applied_entry(s, events[i].source.partition);
    }
    start_next(s);
    for (int i = 0; i < n; i++) {
        struct feat_applied *next =
            feat_applied_find(s->next, s->n_next, events[i].source.partition);
        s->judged[i] = feat_state_judge(s->plan, next, &events[i]);
        s->clocks_us[i] = next->clock_us;
    }
    TRY(write_moved(s, events, n));
    if (verdicts != NULL)
        memcpy(verdicts, s->judged, (size_t)n * sizeof *verdicts);
    return STATUS_OK;
}

void feat_state_foresee(struct feat_state *s, const struct ev_event *events, int n,
                        enum feat_verdict *verdicts) {
    for (int i = 0; i < n; i++)
        feat_applied_entry(s, events[i].source.partition);
    start_next(s);
    for (int i = 0; i < n; i++)
        verdicts[i] = feat_state_judge(
            s->plan, feat_applied_find(s->next, s->n_next, events[i].source.partition), &events[i]);
}

enum status feat_shared_apply(struct feat_state *s, const struct ev_event *events, int n,
                              enum feat_verdict *verdicts) {
    if (s->joins != NULL)
        feat_joins_sweep(s);
    if (n == 0)
        return look_after(s);
    for (int at = 0; at < n; at += AT_ONCE_MAX) {
        int some = n - at < AT_ONCE_MAX ? n - at : AT_ONCE_MAX;
        TRY(apply_some(s, events + at, some, verdicts == NULL ? NULL : verdicts + at));
    }
    return STATUS_OK;
}

enum status feat_shared_skip(struct feat_state *s, struct ev_source source) {
    feat_applied_entry(s, source.partition);
    start_next(s);
    struct feat_applied *at = feat_applied_find(s->next, s->n_next, source.partition);
    if (source.offset > at->offset)
        at->offset = source.offset;
    return write_moved(s, NULL, 0);
}

void feat_state_interrupt(struct feat_state *s) { atomic_store(&s->interrupted, true); }

/* ---- reading ---- */

bool feat_shared_reached(struct feat_state *s, struct ev_source source) {
    struct arena a;
    const struct feat_applied *list;
    int n = 0;
    arena_init(&a, 4096);
    s->ops->read_begin(s->store);
    enum status status = s->ops->applied(s->store, &a, &list, &n);
    bool reached = false;
    for (int i = 0; status == STATUS_OK && i < n; i++)
        reached |= list[i].partition == source.partition && list[i].offset >= source.offset;
    s->ops->read_end(s->store);
    arena_deinit(&a);
    return reached;
}

void feat_shared_prefetch(struct feat_state *s, struct feat_read *r) {
    int n = 0;
    struct feat_entity *e = ARENA_ARRAY(r->arena, struct feat_entity, r->n_rows + 3);
    struct feat_found *found = ARENA_ARRAY(r->arena, struct feat_found, r->n_rows + 3);
    e[n++] = (struct feat_entity){FEAT_SCOPE_GLOBAL, feat_global_key(r->tenant_hash)};
    if (r->user_key != 0)
        e[n++] = (struct feat_entity){FEAT_SCOPE_USER, r->user_key};
    if (r->session_key != 0)
        e[n++] = (struct feat_entity){FEAT_SCOPE_SESSION, r->session_key};
    for (int i = 0; i < r->n_rows; i++)
        e[n++] = (struct feat_entity){FEAT_SCOPE_ITEM, r->item_keys[i]};
    s->ops->read(s->store, e, n, found); /* kept by the section */
}

/* ---- a copy ---- */

struct copy {
    struct feat_state *into;
    enum feat_scope scope;
    int n_shares;
    struct map shares; /* those that came already: a scan may name one twice */
};

/* A share is added to its sum; other records are as they are. */
static void take_record(struct copy *c, const struct feat_record *r, struct slice bytes) {
    struct feat_state *s = c->into;
    uint64_t seen, whole;
    if (c->n_shares == 0 || c->scope != FEAT_SCOPE_VALUE || !feat_record_is_sum(s, r)) {
        s->ops->put(s->store, c->scope, r->key, bytes);
        return;
    }
    if (map_get(&c->shares, r->key, &seen))
        return;
    map_put(&c->shares, r->key, 1);
    struct arena a;
    struct slice sum;
    struct buf made = {0};
    arena_init(&a, 4096);
    whole = feat_share_whole(r->key, c->n_shares);
    s->ops->fetch(s->store, FEAT_SCOPE_VALUE, &whole, 1, &sum);
    feat_sum_add(s, &a, whole, sum, bytes, 1, &made);
    s->ops->put(s->store, FEAT_SCOPE_VALUE, whole, buf_slice(&made));
    buf_deinit(&made);
    arena_deinit(&a);
}

static enum status take_records(void *context, const struct slice *records, int n) {
    struct copy *c = context;
    struct feat_state *s = c->into;
    for (int i = 0; i < n; i++) {
        struct feat_record *r = feat_record_view(s->plan, c->scope, records[i], s->views[c->scope]);
        if (r == NULL)
            return fail(STATUS_DATA_LOSS, "state: a record is damaged");
        take_record(c, r, records[i]);
    }
    return STATUS_OK;
}

enum status feat_state_copy(struct feat_state *s, struct feat_state **out) {
    assert(feat_state_is_shared(s));
    struct feat_state *into = feat_state_new(s->plan);
    const struct feat_applied *list = NULL;
    struct arena a;
    int n = 0;
    arena_init(&a, 0);
    s->ops->read_begin(s->store);
    enum status status = s->ops->applied(s->store, &a, &list, &n);
    for (int scope = 0; scope < FEAT_SCOPES && status == STATUS_OK; scope++) {
        struct copy copy = {into, (enum feat_scope)scope, s->n_shares, {0}};
        status = s->ops->scan(s->store, copy.scope, &copy, take_records);
        map_deinit(&copy.shares);
    }
    for (int i = 0; status == STATUS_OK && i < n; i++)
        *feat_applied_entry(into, list[i].partition) = list[i];
    s->ops->read_end(s->store);
    arena_deinit(&a);
    if (status != STATUS_OK) {
        feat_state_free(into);
        return status;
    }
    if (s->log != NULL)
        into->log = heap_strdup(s->log);
    feat_state_publish(into);
    *out = into;
    return STATUS_OK;
}
