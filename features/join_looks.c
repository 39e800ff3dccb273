/* join_looks.c: forgetting what waits in joins. A heap for each partition tells which record to
 * look at once the partition's clock has passed it; one in which nothing is alive is dropped.
 *
 * What a row gets never depends on whether that has happened: what is not alive counts for nothing
 * (kinds/join.c). In memory it is dropped when it is found. In a shared store a batch may be half
 * written, and its events are worked out again from the records they waited in. So a batch drops by
 * the clocks of its *beginning*: no event of it, nor any later one, can have to do with those. What
 * a writer has noted is lost with it; whoever has its partitions next finds those records again, in
 * time (feat_store_ops.sweep). */
#include "features/joins.h"
#include <stdatomic.h>
#include "base/heap.h"
#include "base/map.h"
#include "features/state_parts.h"

/* After one micro-batch, so that none waits for all; it has some 500 events. */
enum { LOOKS_MAX = 16384, SHARED_LOOKS_MAX = 4096 };

struct look {
    int64_t at_us; /* once no event is older */
    uint64_t key;
};
struct line { /* of a partition */
    int32_t partition;
    struct look *heap; /* [n of cap] the soonest first */
    int n, cap;
};
struct chosen { /* of a shared store's micro-batch */
    int32_t partition;
    int64_t floor_us;
    struct look look;
    bool gone;         /* as this attempt leaves it */
    uint64_t unjoined; /* that went with it */
};

struct feat_join_looks {
    struct line *lines; /* [n_lines] */
    int n_lines;
    struct chosen *chosen; /* [n_chosen of cap_chosen] */
    int n_chosen, cap_chosen;
    struct map noted; /* in a shared store: keys that are in some heap */
    _Atomic uint64_t waiting, unjoined;
};

struct feat_join_looks *feat_join_looks_new(void) {
    return HEAP_NEW(struct feat_join_looks);
}

void feat_join_looks_free(struct feat_join_looks *l) {
    for (int i = 0; i < l->n_lines; i++)
        heap_free(l->lines[i].heap);
    heap_free(l->lines);
    heap_free(l->chosen);
    map_deinit(&l->noted);
    heap_free(l);
}

void feat_joins_size(const struct feat_joins *w, struct feat_state_size *out) {
    if (w == NULL)
        return;
    out->waiting = w->looks->waiting;
    out->unjoined = w->looks->unjoined;
}

/* ---- heaps ---- */

static struct line *line_of(struct feat_join_looks *l, int32_t partition) {
    for (int i = 0; i < l->n_lines; i++)
        if (l->lines[i].partition == partition)
            return &l->lines[i];
    l->lines = heap_grow(l->lines, (size_t)(l->n_lines + 1) * sizeof *l->lines);
    l->lines[l->n_lines] = (struct line){.partition = partition};
    return &l->lines[l->n_lines++];
}

static void swap(struct look *a, struct look *b) {
    struct look c = *a;
    *a = *b;
    *b = c;
}

static void push(struct line *l, struct look look) {
    if (l->n == l->cap) {
        l->cap = l->cap == 0 ? 256 : 2 * l->cap;
        l->heap = heap_grow(l->heap, (size_t)l->cap * sizeof *l->heap);
    }
    int i = l->n++;
    l->heap[i] = look;
    for (; i > 0 && l->heap[(i - 1) / 2].at_us > l->heap[i].at_us; i = (i - 1) / 2)
        swap(&l->heap[i], &l->heap[(i - 1) / 2]);
}

static struct look pop(struct line *l) {
    struct look first = l->heap[0];
    l->heap[0] = l->heap[--l->n];
    for (int i = 0;;) {
        int least = i;
        for (int k = 2 * i + 1; k <= 2 * i + 2 && k < l->n; k++)
            if (l->heap[k].at_us < l->heap[least].at_us)
                least = k;
        if (least == i)
            return first;
        swap(&l->heap[i], &l->heap[least]);
        i = least;
    }
}

void feat_joins_note(struct feat_state *s, int32_t partition, uint64_t key, int64_t at_us) {
    struct feat_join_looks *l = s->joins->looks;
    uint64_t seen;
    if (s->ops->drop == NULL || (feat_state_is_shared(s) && map_get(&l->noted, key, &seen)))
        return;
    if (feat_state_is_shared(s))
        map_put(&l->noted, key, 1);
    push(line_of(l, partition), (struct look){at_us, key});
    l->waiting++;
}

/* ---- records ---- */

struct left {         /* of a record */
    int64_t until_us; /* the last moment at which something may concern it */
    uint64_t rankings, answers;
};

static struct left left_of(struct feat_state *s, struct slice bytes) {
    const struct feat_record *r =
        feat_record_cells(s->plan, FEAT_SCOPE_RANKING, bytes, s->views[FEAT_SCOPE_RANKING]);
    struct left left = {INT64_MIN, 0, 0};
    for (int i = 1; i < s->plan->n_cells[FEAT_SCOPE_RANKING]; i++) {
        const struct feat_join *m = s->cells[FEAT_SCOPE_RANKING][i]->params;
        struct feat_join_reader reader;
        struct feat_join_entry e;
        uint64_t answers = 0;
        feat_join_open(feat_record_cell(r, i), INT64_MAX, &reader);
        while (feat_join_next(&reader, &e)) {
            int64_t until_us = e.stamp.time_us + (e.is_ranking ? m->window_us : 0);
            left.until_us = until_us > left.until_us ? until_us : left.until_us;
            left.rankings += e.is_ranking;
            answers += !e.is_ranking;
        }
        left.answers = answers > left.answers ? answers : left.answers;
    }
    return left;
}

static struct slice fetch(struct feat_state *s, uint64_t key) {
    struct slice bytes;
    s->ops->fetch(s->store, FEAT_SCOPE_RANKING, &key, 1, &bytes);
    return bytes;
}

/* Looks, and drops the record unless something of it is alive; then look->at_us is set anew. */
static bool drop_one(struct feat_state *s, struct look *look, int64_t floor_us,
                     uint64_t *unjoined) {
    struct slice bytes = fetch(s, look->key);
    *unjoined = 0;
    if (bytes.n == 0) /* forgotten for the byte budget, or dropped by another writer */
        return true;
    struct left left = left_of(s, bytes);
    look->at_us = left.until_us;
    if (left.until_us >= floor_us)
        return false;
    *unjoined = left.rankings == 0 ? left.answers : 0;
    s->ops->drop(s->store, FEAT_SCOPE_RANKING, look->key);
    return true;
}

/* ---- in memory ---- */

static int64_t floor_of(const struct feat_state *s, int32_t partition) {
    const struct feat_applied *at = feat_applied_find(s->applied, s->n_applied, partition);
    return at == NULL ? INT64_MIN : at->clock_us - s->plan->lateness_us;
}

uint64_t feat_joins_forget(struct feat_state *s) {
    struct feat_join_looks *l = s->joins->looks;
    uint64_t bytes = 0, unjoined;
    for (int i = 0, looks = 0; i < l->n_lines; i++) {
        struct line *line = &l->lines[i];
        int64_t floor_us = floor_of(s, line->partition);
        for (; line->n > 0 && line->heap[0].at_us < floor_us && looks < LOOKS_MAX; looks++) {
            struct look look = pop(line);
            if (!drop_one(s, &look, floor_us, &unjoined)) {
                push(line, look);
                continue;
            }
            l->unjoined += unjoined;
            l->waiting--;
        }
        bytes += (uint64_t)line->cap * sizeof *line->heap;
    }
    return bytes;
}

static int32_t partition_of(struct feat_state *s, struct slice bytes) {
    const struct feat_record *r =
        feat_record_cells(s->plan, FEAT_SCOPE_RANKING, bytes, s->views[FEAT_SCOPE_RANKING]);
    struct feat_join_reader reader;
    struct feat_join_entry e = {.stamp = {0, 0, 0}};
    bool found = false;
    for (int i = 1; i < s->plan->n_cells[FEAT_SCOPE_RANKING] && !found; i++) {
        feat_join_open(feat_record_cell(r, i), INT64_MAX, &reader);
        found = feat_join_next(&reader, &e);
    }
    return e.stamp.partition;
}

void feat_joins_found(struct feat_state *s) {
    struct slice bytes;
    for (uint64_t at = 0; s->ops->next(s->store, FEAT_SCOPE_RANKING, &at, &bytes);)
        feat_joins_note(s, partition_of(s, bytes), feat_record_key(bytes),
                        left_of(s, bytes).until_us);
}

int64_t feat_joins_clock(const struct feat_state *s, struct slice cell) {
    struct feat_join_reader r;
    struct feat_join_entry e;
    feat_join_open(cell, INT64_MAX, &r);
    if (!feat_join_next(&r, &e))
        return 0;
    const struct feat_applied *at = feat_applied_find(s->applied, s->n_applied, e.stamp.partition);
    return at == NULL ? 0 : at->clock_us;
}

/* ---- in a shared store ---- */

static void choose(struct feat_join_looks *l, struct chosen c) {
    if (l->n_chosen == l->cap_chosen) {
        l->cap_chosen = l->cap_chosen == 0 ? 256 : 2 * l->cap_chosen;
        l->chosen = heap_grow(l->chosen, (size_t)l->cap_chosen * sizeof *l->chosen);
    }
    l->chosen[l->n_chosen++] = c;
}

void feat_joins_begin(struct feat_state *s) {
    struct feat_join_looks *l = s->joins->looks;
    l->n_chosen = 0;
    for (int i = 0; i < s->n_to; i++) {
        struct line *line = line_of(l, s->to[i].partition);
        int64_t floor_us = floor_of(s, line->partition);
        while (line->n > 0 && line->heap[0].at_us < floor_us && l->n_chosen < SHARED_LOOKS_MAX)
            choose(l, (struct chosen){line->partition, floor_us, pop(line), false, 0});
    }
}

void feat_joins_look(struct feat_state *s) {
    struct feat_join_looks *l = s->joins->looks;
    for (int i = 0; i < l->n_chosen; i++) {
        struct chosen *c = &l->chosen[i];
        c->gone = s->ops->want(s->store, FEAT_SCOPE_RANKING, c->look.key) &&
                  drop_one(s, &c->look, c->floor_us, &c->unjoined);
    }
}

void feat_joins_sweep(struct feat_state *s) {
    const struct feat_left *found = NULL;
    int n = s->ops->sweep(s->store, &found);
    for (int i = 0; i < n; i++)
        feat_joins_note(s, found[i].partition, found[i].key, INT64_MIN);
}

void feat_joins_end(struct feat_state *s, bool done) {
    struct feat_join_looks *l = s->joins->looks;
    for (int i = 0; i < l->n_chosen; i++) {
        const struct chosen *c = &l->chosen[i];
        if (!done || !c->gone) {
            push(line_of(l, c->partition), c->look);
            continue;
        }
        map_remove(&l->noted, c->look.key);
        l->unjoined += c->unjoined;
        l->waiting--;
    }
    l->n_chosen = 0;
}
