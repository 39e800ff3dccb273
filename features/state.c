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
#include <errno.h>
#include <time.h>

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

struct feat_state *feat_state_new(const struct feat_plan *plan) {
    struct feat_state *s = HEAP_NEW(struct feat_state);
    s->plan = plan;
    s->ops = &feat_store_memory;
    s->store = s->ops->open();
    for (int scope = 0; scope < FEAT_SCOPES; scope++) {
        s->cells[scope] = HEAP_ARRAY(const struct feat *, plan->n_cells[scope]);
        s->views[scope] = heap_alloc(feat_record_view_bytes(plan, (enum feat_scope)scope));
    }
    for (int i = 0; i < plan->n_features; i++) {
        const struct feat *f = plan->features[i];
        for (int k = 0; k < f->n_cells; k++)
            s->cells[f->cells[k].scope][f->cells[k].index] = f;
    }
    s->shown_keys = HEAP_ARRAY(uint64_t, EV_SHOWN_MAX);
    init_locks(s);
    return s;
}

void feat_state_free(struct feat_state *s) {
    if (s == NULL)
        return;
    s->ops->close(s->store);
    for (int scope = 0; scope < FEAT_SCOPES; scope++) {
        heap_free(s->cells[scope]);
        heap_free(s->views[scope]);
    }
    heap_free(s->applied);
    heap_free(s->published);
    heap_free(s->shown_keys);
    buf_deinit(&s->record);
    buf_deinit(&s->cell);
    buf_deinit(&s->other);
    pthread_rwlock_destroy(&s->lock);
    pthread_mutex_destroy(&s->wait_lock);
    pthread_cond_destroy(&s->wait_changed);
    heap_free(s);
}

/* ---- one entity, one event ---- */

/* One cell after the event: of a ranking, after each of the `n` impressions from `shown` on. The
 * result lies in s->cell, or is `old` itself. */
static struct slice next_cell(struct feat_state *s, const struct feat *f, struct feat_update u,
                              const struct ev_shown *shown, int n, struct slice old) {
    struct slice now = old;
    for (int i = 0; i < n; i++) {
        if (shown != NULL) {
            u.shown = &shown[i];
            u.item_key = s->shown_keys[&shown[i] - u.event->shown];
        }
        buf_clear(&s->other);
        if (!f->kind->apply(f, &u, now, &s->other))
            continue;
        struct buf swap = s->cell;
        s->cell = s->other;
        s->other = swap;
        now = buf_slice(&s->cell);
    }
    return now;
}

static void add_cell(struct buf *b, struct slice cell, int *empty) {
    if (cell.n == 0) {
        ++*empty; /* written only when something follows */
        return;
    }
    for (; *empty > 0; --*empty)
        buf_add_varint(b, 0);
    buf_add_varint(b, cell.n);
    buf_add(b, cell.p, cell.n);
}

/* `shown`: the impressions this entity takes part in, or NULL with n_shown 1 for other events. */
static void edit(struct feat_state *s, const struct feat_update *u, uint64_t key, struct slice id,
                 const struct ev_shown *shown, int n_shown) {
    const struct feat_plan *p = s->plan;
    enum feat_scope scope = u->scope;
    const struct ev_event *e = u->event;
    struct slice bytes;
    s->ops->fetch(s->store, scope, &key, 1, &bytes);
    const struct feat_record *old =
        bytes.n == 0 ? NULL : feat_record_view(p, scope, bytes, s->views[scope]);
    assert((bytes.n == 0) == (old == NULL));
    buf_clear(&s->record);
    feat_record_put_head(&s->record, scope, key, (old == NULL ? 0 : old->epoch) + 1, e->tenant, id);
    bool is_fact = e->kind == EV_ITEM || e->kind == EV_USER;
    int empty = 0;
    for (int i = 0; i < p->n_cells[scope]; i++) {
        struct slice cell = feat_record_cell(old, i);
        if (i == 0 && is_fact) {
            buf_clear(&s->cell);
            if (feat_fields_apply(p, scope, e, cell, &s->cell))
                cell = buf_slice(&s->cell);
        } else if (i > 0 && !is_fact) {
            cell = next_cell(s, s->cells[scope][i], *u, shown, n_shown, cell);
        }
        add_cell(&s->record, cell, &empty);
    }
    s->ops->put(s->store, scope, key, buf_slice(&s->record));
}

/* Does a plan keep anything in this scope that an interaction could change? Users and items are
 * kept in any case: for their epoch, and for the list of known items. */
static bool keeps(const struct feat_state *s, enum feat_scope scope) {
    return scope == FEAT_SCOPE_USER || scope == FEAT_SCOPE_ITEM || s->plan->n_cells[scope] > 1;
}

static void edit_scope(struct feat_state *s, struct feat_update u, enum feat_scope scope,
                       uint64_t key) {
    const struct ev_event *e = u.event;
    if (key == 0 || !keeps(s, scope))
        return;
    u.scope = scope;
    if (e->kind == EV_RANKING)
        edit(s, &u, key, e->item, e->shown, e->n_shown);
    else
        edit(s, &u, key, e->item, NULL, 1);
}

static void apply_event(struct feat_state *s, const struct ev_event *e) {
    uint64_t tenant = feat_tenant_hash(e->tenant);
    struct feat_update u = {.event = e,
                            .user_key = feat_entity_key(tenant, e->user),
                            .item_key = feat_entity_key(tenant, e->item)};
    for (int i = 0; i < e->n_shown; i++)
        s->shown_keys[i] = feat_entity_key(tenant, e->shown[i].item);
    switch (e->kind) {
    case EV_ITEM:
        edit_scope(s, u, FEAT_SCOPE_ITEM, u.item_key);
        return;
    case EV_USER:
        edit_scope(s, u, FEAT_SCOPE_USER, u.user_key);
        return;
    case EV_INTERACTION:
        edit_scope(s, u, FEAT_SCOPE_ITEM, u.item_key);
        break;
    case EV_RANKING:
        u.scope = FEAT_SCOPE_ITEM;
        for (int i = 0; i < e->n_shown; i++)
            if (s->shown_keys[i] != 0)
                edit(s, &u, s->shown_keys[i], e->shown[i].item, &e->shown[i], 1);
        break;
    }
    edit_scope(s, u, FEAT_SCOPE_USER, u.user_key);
    edit_scope(s, u, FEAT_SCOPE_SESSION, feat_entity_key(tenant, e->session));
    edit_scope(s, u, FEAT_SCOPE_GLOBAL, feat_global_key(tenant));
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

static enum feat_verdict apply_once(struct feat_state *s, const struct ev_event *e) {
    struct feat_applied *from = feat_applied_entry(s, e->source.partition);
    if (e->source.offset <= from->offset)
        return FEAT_REPEATED;
    from->offset = e->source.offset;
    if (e->event_time_us < from->clock_us - s->plan->lateness_us)
        return FEAT_LATE;
    if (e->event_time_us > from->clock_us)
        from->clock_us = e->event_time_us;
    apply_event(s, e);
    return FEAT_APPLIED;
}

void feat_state_apply(struct feat_state *s, const struct ev_event *events, int n,
                      enum feat_verdict *verdicts) {
    pthread_rwlock_wrlock(&s->lock);
    for (int i = 0; i < n; i++) {
        assert(events[i].event_time_us > 0 && events[i].n_shown <= EV_SHOWN_MAX);
        enum feat_verdict verdict = apply_once(s, &events[i]);
        if (verdicts != NULL)
            verdicts[i] = verdict;
    }
    pthread_rwlock_unlock(&s->lock);
    feat_state_publish(s);
}

void feat_state_skip(struct feat_state *s, struct ev_source source) {
    pthread_rwlock_wrlock(&s->lock);
    struct feat_applied *from = feat_applied_entry(s, source.partition);
    if (source.offset > from->offset)
        from->offset = source.offset;
    pthread_rwlock_unlock(&s->lock);
    feat_state_publish(s);
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

enum status feat_state_wait(struct feat_state *s, struct ev_source source, int timeout_ms) {
    int64_t until_us = clock_mono_us() + (int64_t)timeout_ms * 1000;
    struct timespec until = {until_us / 1000000, until_us % 1000000 * 1000};
    bool done = false, expired = false;
    pthread_mutex_lock(&s->wait_lock);
    for (;;) {
        const struct feat_applied *a =
            feat_applied_find(s->published, s->n_published, source.partition);
        done = a != NULL && a->offset >= source.offset;
        if (done || expired)
            break;
        expired = pthread_cond_timedwait(&s->wait_changed, &s->wait_lock, &until) == ETIMEDOUT;
    }
    pthread_mutex_unlock(&s->wait_lock);
    return done ? STATUS_OK
                : fail(STATUS_DEADLINE_EXCEEDED,
                       "partition %d has not reached offset %lld within %d ms", source.partition,
                       (long long)source.offset, timeout_ms);
}

struct feat_state_size feat_state_size(struct feat_state *s) {
    struct feat_state_size size = {{0}, 0};
    pthread_rwlock_rdlock(&s->lock);
    for (int scope = 0; scope < FEAT_SCOPES; scope++)
        size.entities[scope] = s->ops->count(s->store, (enum feat_scope)scope);
    size.bytes = s->ops->bytes(s->store);
    pthread_rwlock_unlock(&s->lock);
    return size;
}
