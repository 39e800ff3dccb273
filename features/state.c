/* state.c: events into records. One writer rewrites the few records an event names, in scratch
 * buffers, each once per event; a micro-batch is one write-locked section. Repeats are told by the
 * partition's offset, late events by the partition's own clock, so the result is a function of the
 * set of events, whatever the interleaving of partitions. Reading is in extract.c. */
#define _GNU_SOURCE /* pthread_rwlockattr_setkind_np */
#include "features/state_parts.h"
#include "base/clock.h"
#include "base/heap.h"
#include "features/keys.h"
#include <assert.h>
#include <time.h>

enum { SHARED_LOOK_US = 5000 };

static void init_locks(struct feat_state *s) {
    pthread_rwlockattr_t rw;
    pthread_rwlockattr_init(&rw);
    pthread_rwlockattr_setkind_np(&rw, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&s->lock, &rw);
    pthread_rwlockattr_destroy(&rw);
    pthread_mutex_init(&s->wait_lock, NULL);
    pthread_condattr_t cond;
    pthread_condattr_init(&cond);
    pthread_condattr_setclock(&cond, CLOCK_MONOTONIC);
    pthread_cond_init(&s->wait_changed, &cond);
    pthread_condattr_destroy(&cond);
}

static struct feat_state *state_of(const struct feat_plan *plan, const struct feat_store_conf *c,
                                   const struct feat_store_ops *ops, struct feat_store *store) {
    struct feat_state *s = HEAP_NEW(struct feat_state);
    s->plan = plan;
    s->conf = *c;
    s->ops = ops;
    s->store = store;
    arena_init(&s->positions, 0);
    for (int scope = 0; scope < FEAT_SCOPES; scope++) {
        s->cells[scope] = HEAP_ARRAY(const struct feat *, plan->n_cells[scope]);
        s->views[scope] = heap_alloc(feat_record_view_bytes(plan, (enum feat_scope)scope));
    }
    for (int i = 0; i < plan->n_features; i++) {
        const struct feat *f = plan->features[i];
        for (int k = 0; k < f->n_cells; k++)
            s->cells[f->cells[k].scope][f->cells[k].index] = f;
    }
    feat_movers_init(s);
    s->joins = feat_joins_new(plan);
    s->shown_keys = HEAP_ARRAY(uint64_t, EV_SHOWN_MAX);
    s->shown_all = HEAP_ARRAY(int, EV_SHOWN_MAX);
    for (int i = 0; i < EV_SHOWN_MAX; i++)
        s->shown_all[i] = i;
    init_locks(s);
    return s;
}

enum status feat_state_open(const struct feat_plan *plan, const struct feat_store_conf *c,
                            struct feat_state **out) {
    const struct feat_store_ops *ops =
        c->kind == FEAT_STORE_REDIS ? &feat_store_redis : &feat_store_memory;
    struct feat_store *store;
    TRY(ops->open(plan, c, &store));
    struct feat_state *s = state_of(plan, c, ops, store);
    if (feat_state_is_shared(s) && plan->sums_items)
        s->n_shares = (int)c->buckets;
    enum status status = feat_state_is_shared(s) ? feat_shared_resume(s) : STATUS_OK;
    if (status != STATUS_OK) {
        feat_state_free(s);
        return status;
    }
    *out = s;
    return STATUS_OK;
}

struct feat_state *feat_state_new(const struct feat_plan *plan) {
    static const struct feat_store_conf no_limits = {.kind = FEAT_STORE_MEMORY};
    struct feat_store *store = NULL;
    feat_store_memory.open(plan, &no_limits, &store); /* cannot fail */
    return state_of(plan, &no_limits, &feat_store_memory, store);
}

bool feat_state_is_shared(const struct feat_state *s) { return s->ops->commit != NULL; }

void feat_state_free(struct feat_state *s) {
    if (s == NULL)
        return;
    s->ops->close(s->store);
    for (int scope = 0; scope < FEAT_SCOPES; scope++) {
        heap_free(s->cells[scope]);
        heap_free(s->views[scope]);
    }
    feat_movers_deinit(s);
    heap_free(s->applied);
    heap_free(s->log);
    heap_free(s->published);
    heap_free(s->shown_keys);
    heap_free(s->next);
    heap_free(s->to);
    heap_free(s->judged);
    heap_free(s->clocks_us);
    arena_deinit(&s->positions);
    heap_free(s->shown_all);
    feat_places_deinit(s);
    feat_joins_free(s->joins);
    buf_deinit(&s->record);
    buf_deinit(&s->cell);
    pthread_rwlock_destroy(&s->lock);
    pthread_mutex_destroy(&s->wait_lock);
    pthread_cond_destroy(&s->wait_changed);
    heap_free(s);
}

/* ---- one event: the records it names (edit.c changes each) ---- */

/* Does a plan keep anything in this scope that an interaction could change? Users and items are
 * kept in any case: for their epoch, and for the list of known items. */
static bool keeps(const struct feat_state *s, enum feat_scope scope) {
    return scope == FEAT_SCOPE_USER || scope == FEAT_SCOPE_ITEM || s->plan->n_cells[scope] > 1;
}

static void edit_scope(struct feat_state *s, struct feat_update u, enum feat_scope scope,
                       uint64_t key) {
    if (key == 0 || !keeps(s, scope))
        return;
    u.scope = scope;
    feat_state_edit(s, &u, -1, key, u.event->item);
}

/* The impressions of an update follow each other. */
static void edit_shown(struct feat_state *s, struct feat_update u) {
    int n = u.n, first = n > 0 ? u.shown[0] : 0;
    u.scope = FEAT_SCOPE_ITEM;
    u.n = 1;
    if (s->ops->bring != NULL)
        s->ops->bring(s->store, FEAT_SCOPE_ITEM, s->shown_keys + first, n);
    for (int i = first; i < first + n; i++) {
        u.shown = &s->shown_all[i];
        if (s->shown_keys[i] != 0)
            feat_state_edit(s, &u, -1, s->shown_keys[i], u.event->shown[i].item);
    }
}

void feat_state_spread(struct feat_state *s, struct feat_update u, uint64_t tenant) {
    if (u.event->kind == EV_RANKING)
        edit_shown(s, u);
    else
        edit_scope(s, u, FEAT_SCOPE_ITEM, u.item_keys[0]);
    edit_scope(s, u, FEAT_SCOPE_USER, u.user_key);
    edit_scope(s, u, FEAT_SCOPE_SESSION, feat_entity_key(tenant, u.event->session));
    edit_scope(s, u, FEAT_SCOPE_GLOBAL, feat_global_key(tenant));
    feat_places_event(s, &u);
}

void feat_state_apply_event(struct feat_state *s, const struct ev_event *e) {
    uint64_t tenant = feat_tenant_hash(e->tenant), item_key = feat_entity_key(tenant, e->item);
    s->source = e->source;
    struct feat_update u = {
        .event = e, .n = 1, .user_key = feat_entity_key(tenant, e->user), .item_keys = &item_key};
    if (e->kind == EV_ITEM) {
        feat_places_before(s, item_key);
        edit_scope(s, u, FEAT_SCOPE_ITEM, item_key);
        feat_places_after(s, &u, item_key);
        return;
    }
    if (e->kind == EV_USER) {
        edit_scope(s, u, FEAT_SCOPE_USER, u.user_key);
        return;
    }
    if (e->kind == EV_RANKING) {
        for (int i = 0; i < e->n_shown; i++)
            s->shown_keys[i] = feat_entity_key(tenant, e->shown[i].item);
        u.shown = s->shown_all;
        u.n = e->n_shown;
        u.item_keys = s->shown_keys;
    }
    feat_state_spread(s, u, tenant);
    if (s->joins != NULL)
        feat_joins_event(s, e, tenant);
}

/* ---- offsets ---- */

/* Where the partition stands or belongs. */
static int applied_at(const struct feat_applied *applied, int n, int32_t partition) {
    int lo = 0, hi = n;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (applied[mid].partition < partition)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct feat_applied *feat_applied_find(struct feat_applied *applied, int n, int32_t partition) {
    int at = applied_at(applied, n, partition);
    return at < n && applied[at].partition == partition ? &applied[at] : NULL;
}

struct feat_applied *feat_applied_entry(struct feat_state *s, int32_t partition) {
    struct feat_applied *found = feat_applied_find(s->applied, s->n_applied, partition);
    if (found != NULL)
        return found;
    int at = applied_at(s->applied, s->n_applied, partition);
    if (s->n_applied == s->cap_applied) {
        s->cap_applied = s->cap_applied == 0 ? 16 : s->cap_applied * 2;
        s->applied = heap_grow(s->applied, (size_t)s->cap_applied * sizeof *s->applied);
    }
    memmove(&s->applied[at + 1], &s->applied[at], (size_t)(s->n_applied - at) * sizeof *s->applied);
    s->n_applied++;
    s->applied[at] = (struct feat_applied){partition, -1, 0};
    return &s->applied[at];
}

bool feat_state_is_ahead(const struct feat_plan *p, const struct ev_event *e) {
    return e->arrival_time_us > 0 && e->event_time_us - e->arrival_time_us > p->ahead_us;
}

enum feat_verdict feat_state_judge(const struct feat_plan *p, struct feat_applied *from,
                                   const struct ev_event *e) {
    assert(e->event_time_us > 0 && e->n_shown <= EV_SHOWN_MAX);
    if (e->source.offset <= from->offset)
        return FEAT_REPEATED;
    from->offset = e->source.offset;
    if (e->event_time_us < from->clock_us - p->lateness_us || feat_state_is_ahead(p, e))
        return FEAT_LATE;
    if (e->event_time_us > from->clock_us)
        from->clock_us = e->event_time_us;
    return FEAT_APPLIED;
}

/* The store's limits count from the greatest event time seen. */
static void advance(struct feat_state *s) {
    int64_t now_us = 0;
    for (int i = 0; i < s->n_applied; i++)
        if (s->applied[i].clock_us > now_us)
            now_us = s->applied[i].clock_us;
    if (s->joins != NULL)
        feat_store_memory_also(s->store, feat_joins_forget(s));
    feat_store_memory_advance(s->store, now_us);
}

enum status feat_state_apply(struct feat_state *s, const struct ev_event *events, int n,
                             enum feat_verdict *verdicts) {
    if (feat_state_is_shared(s))
        return feat_shared_apply(s, events, n, verdicts);
    pthread_rwlock_wrlock(&s->lock);
    for (int i = 0; i < n; i++) {
        const struct ev_event *e = &events[i];
        struct feat_applied *from = feat_applied_entry(s, e->source.partition);
        enum feat_verdict verdict = feat_state_judge(s->plan, from, e);
        s->floor_us = s->forget_us = from->clock_us - s->plan->lateness_us;
        if (verdict == FEAT_APPLIED)
            feat_state_apply_event(s, e);
        if (verdicts != NULL)
            verdicts[i] = verdict;
    }
    advance(s);
    pthread_rwlock_unlock(&s->lock);
    feat_state_publish(s);
    return STATUS_OK;
}

enum status feat_state_skip(struct feat_state *s, struct ev_source source) {
    if (feat_state_is_shared(s))
        return feat_shared_skip(s, source);
    pthread_rwlock_wrlock(&s->lock);
    struct feat_applied *from = feat_applied_entry(s, source.partition);
    if (source.offset > from->offset)
        from->offset = source.offset;
    pthread_rwlock_unlock(&s->lock);
    feat_state_publish(s);
    return STATUS_OK;
}

enum status feat_state_resume(struct feat_state *s, const struct feat_applied **out, int *n) {
    if (feat_state_is_shared(s))
        TRY(feat_shared_resume(s));
    *out = s->applied;
    *n = s->n_applied;
    return STATUS_OK;
}

static const char *log_title(const char *log) { return *log ? log : "a file"; }

enum status feat_state_claim_log(struct feat_state *s, const char *log) {
    if (feat_state_is_shared(s)) {
        struct slice is;
        arena_reset(&s->positions);
        TRY(s->ops->claim(s->store, &s->positions, slice_of(log), &is));
        heap_free(s->log);
        s->log = heap_strdup(arena_strdup(&s->positions, is));
    } else if (s->log == NULL || s->n_applied == 0) {
        heap_free(s->log);
        s->log = heap_strdup(log);
    }
    if (strcmp(s->log, log) == 0)
        return STATUS_OK;
    return fail(STATUS_FAILED_PRECONDITION,
                "the state holds offsets of %s, by which the first events of %s would be taken for "
                "repeats; start with another state (state.snapshot, state.redis_prefix) and read "
                "%s from its beginning; `moerank send` puts a file's events into a topic",
                log_title(s->log), log_title(log), *log ? "the topic" : "the file");
}

void feat_state_limit(struct feat_state *s, int64_t budget_bytes, int64_t ttl_us) {
    if (feat_state_is_shared(s))
        return;
    pthread_rwlock_wrlock(&s->lock);
    feat_store_memory_limit(s->store, budget_bytes, ttl_us);
    advance(s);
    pthread_rwlock_unlock(&s->lock);
}

/* ---- waiting ---- */

/* Only the writer changes `applied`, and this runs on the writer: no lock is needed to read it. */
void feat_state_publish(struct feat_state *s) {
    pthread_mutex_lock(&s->wait_lock);
    if (s->cap_published < s->cap_applied) {
        s->cap_published = s->cap_applied;
        s->published = heap_grow(s->published, (size_t)s->cap_published * sizeof *s->published);
    }
    if (s->n_applied > 0)
        memcpy(s->published, s->applied, (size_t)s->n_applied * sizeof *s->published);
    s->n_published = s->n_applied;
    pthread_cond_broadcast(&s->wait_changed);
    pthread_mutex_unlock(&s->wait_lock);
}

static struct timespec time_of(int64_t us) {
    return (struct timespec){us / 1000000, us % 1000000 * 1000};
}

/* When a shared store is looked at again. */
static struct timespec soon(int64_t until_us) {
    int64_t next_us = clock_mono_us() + SHARED_LOOK_US;
    return time_of(next_us < until_us ? next_us : until_us);
}

enum status feat_state_wait(struct feat_state *s, struct ev_source source, int timeout_ms) {
    int64_t until_us = clock_mono_us() + (int64_t)timeout_ms * 1000;
    struct timespec until = time_of(until_us);
    bool done = false;
    pthread_mutex_lock(&s->wait_lock);
    for (;;) {
        const struct feat_applied *a =
            feat_applied_find(s->published, s->n_published, source.partition);
        done = a != NULL && a->offset >= source.offset;
        if (!done && feat_state_is_shared(s)) { /* another process may be the one that applies it */
            pthread_mutex_unlock(&s->wait_lock);
            done = feat_shared_reached(s, source);
            pthread_mutex_lock(&s->wait_lock);
            until = soon(until_us);
        }
        if (done || clock_mono_us() >= until_us)
            break;
        pthread_cond_timedwait(&s->wait_changed, &s->wait_lock, &until);
    }
    pthread_mutex_unlock(&s->wait_lock);
    if (done && feat_state_is_shared(s))
        feat_shared_reached(s, source); /* readers then go by no less, whatever they keep */
    return done ? STATUS_OK
                : fail(STATUS_DEADLINE_EXCEEDED,
                       "partition %d has not reached offset %lld within %d ms", source.partition,
                       (long long)source.offset, timeout_ms);
}

struct feat_state_size feat_state_size(struct feat_state *s) {
    struct feat_state_size size = {.bytes = 0};
    if (feat_state_is_shared(s)) {
        if (s->ops->size(s->store, &size) != STATUS_OK)
            size = (struct feat_state_size){.bytes = 0};
        feat_joins_size(s->joins, &size);
        return size;
    }
    pthread_rwlock_rdlock(&s->lock);
    for (int scope = 0; scope < FEAT_SCOPES; scope++)
        size.entities[scope] = s->ops->count(s->store, (enum feat_scope)scope);
    size.bytes = s->ops->bytes(s->store);
    size.evicted = feat_store_memory_evicted(s->store);
    feat_joins_size(s->joins, &size);
    pthread_rwlock_unlock(&s->lock);
    return size;
}
