/* edit.c: one record after one event: the writer's innermost loop. The old bytes are walked once;
 * only the cells of features that such an event can change are asked, and what lies between them is
 * copied as it is. Bytes that do not parse (they came from elsewhere) are said, and the entity
 * begins anew. */
#include <assert.h>
#include "base/heap.h"
#include "base/log.h"
#include "features/state_parts.h"

/* ---- which cells an event can change ---- */

static bool moved_by(const struct feat *f, int by) {
    static const int wanted[FEAT_MOVED] = {
        [FEAT_MOVED_BY_RANKING] = FEAT_WANTS_IMPRESSIONS,
        [FEAT_MOVED_BY_INTERACTION] = FEAT_WANTS_INTERACTIONS,
        [FEAT_MOVED_BY_SEEN] = FEAT_WANTS_IMPRESSIONS,
        [FEAT_MOVED_BY_ANSWER] = FEAT_WANTS_INTERACTIONS,
    };
    bool joined = by == FEAT_MOVED_BY_SEEN || by == FEAT_MOVED_BY_ANSWER;
    const struct feat *join = wanted[by] == FEAT_WANTS_IMPRESSIONS ? f->cascade : f->attribution;
    return f->kind->apply != NULL && (f->wants & wanted[by]) != 0 && joined == (join != NULL);
}

void feat_movers_init(struct feat_state *s) {
    for (int scope = 0; scope < FEAT_SCOPES; scope++)
        for (int by = 0; by < FEAT_MOVED; by++) {
            struct feat_movers *m = &s->movers[scope][by];
            m->cells = HEAP_ARRAY(int, s->plan->n_cells[scope] + 1);
            for (int i = 0; i < s->plan->n_cells[scope]; i++) {
                bool fact = by == FEAT_MOVED_BY_FACT;
                if (i == 0 ? fact : !fact && moved_by(s->cells[scope][i], by))
                    m->cells[m->n++] = i;
            }
        }
}

void feat_movers_deinit(struct feat_state *s) {
    for (int scope = 0; scope < FEAT_SCOPES; scope++)
        for (int by = 0; by < FEAT_MOVED; by++)
            heap_free(s->movers[scope][by].cells);
}

static const struct feat_movers *movers_of(const struct feat_state *s,
                                           const struct feat_update *u) {
    enum ev_kind kind = u->event->kind;
    if (u->join != NULL)
        return &s->movers[u->scope][kind == EV_RANKING ? FEAT_MOVED_BY_SEEN : FEAT_MOVED_BY_ANSWER];
    return &s->movers[u->scope][kind == EV_RANKING       ? FEAT_MOVED_BY_RANKING
                                : kind == EV_INTERACTION ? FEAT_MOVED_BY_INTERACTION
                                                         : FEAT_MOVED_BY_FACT];
}

/* ---- walking ---- */

struct walk {
    struct cursor c;     /* at a cell's length */
    const uint8_t *from; /* what from here on is not copied yet */
    int cell;            /* number of the cell at c */
};

static void skip_cell(struct walk *w) {
    uint64_t n = feat_get_varint(&w->c);
    if (n > (uint64_t)(w->c.end - w->c.p))
        w->c.bad = 1;
    else
        w->c.p += n;
    w->cell++;
}

/* To cell `i`; its bytes, empty when the record ends before it. */
static struct slice go_to(struct walk *w, int i) {
    while (w->cell < i && w->c.p < w->c.end && !w->c.bad)
        skip_cell(w);
    struct cursor c = w->c;
    return c.p < c.end && !c.bad ? cursor_bytes(&c, (size_t)feat_get_varint(&c))
                                 : (struct slice){NULL, 0};
}

/* Copies up to the cell at hand, which becomes `cell`. */
static void replace_cell(struct walk *w, int i, struct slice cell, struct buf *out) {
    assert(cell.n > 0); /* else cells before it might be the last ones */
    buf_add(out, w->from, (size_t)(w->c.p - w->from));
    for (; w->cell < i; w->cell++)
        feat_put_varint(out, 0); /* the record ended before */
    feat_put_varint(out, cell.n);
    buf_add(out, cell.p, cell.n);
    if (w->c.p < w->c.end)
        skip_cell(w);
    else
        w->cell++;
    w->from = w->c.p;
}

/* By how much the epoch moves: what a join finds is no event. */
static uint64_t step_of(const struct feat_update *u) {
    return u->scope < FEAT_SCOPE_VALUE && u->join == NULL;
}

/* The head with the epoch moved on; the walk stands at cell 0. */
static void copy_head(enum feat_scope scope, uint64_t step, struct slice bytes, struct walk *w,
                      struct buf *out) {
    w->c = cursor_of(bytes.p, bytes.n);
    w->c.bad = bytes.n < 10 || w->c.p[0] != (uint8_t)scope;
    if (w->c.bad)
        return;
    w->c.p += 9;
    uint64_t epoch = feat_get_varint(&w->c);
    buf_add(out, bytes.p, 9);
    feat_put_varint(out, epoch + step);
    w->from = w->c.p;
    for (int k = 0; scope == FEAT_SCOPE_ITEM && k < 2; k++) /* tenant, id */
        skip_cell(w);
    w->cell = 0;
}

/* ---- the edit ---- */

/* The cell as the event leaves it, in s->cell; false: unchanged. */
static bool next_cell(struct feat_state *s, const struct feat_update *u, int place, int i,
                      struct slice old) {
    const struct feat *f = s->cells[u->scope][i];
    buf_clear(&s->cell);
    if (i == 0)
        return feat_fields_apply(s->plan, u->scope, u->event, old, &s->cell);
    if (u->join != NULL && (u->event->kind == EV_RANKING ? f->cascade : f->attribution) != u->join)
        return false;
    return (place < 0 || f->place == place) && f->kind->apply(f, u, old, &s->cell);
}

/* Writes s->record. False: `bytes` are damaged. */
static bool rewrite(struct feat_state *s, const struct feat_update *u, int place,
                    struct slice bytes, uint64_t key, struct slice id, bool *changed) {
    const struct feat_movers *movers = movers_of(s, u);
    struct walk w = {{NULL, NULL, 0}, NULL, 0};
    *changed = false;
    buf_clear(&s->record);
    buf_reserve(&s->record, bytes.n + 64);
    if (bytes.n > 0)
        copy_head(u->scope, step_of(u), bytes, &w, &s->record);
    else
        feat_record_put_head(&s->record, u->scope, key, step_of(u), u->event->tenant, id);
    for (int k = 0; k < movers->n && !w.c.bad; k++) {
        int i = movers->cells[k];
        struct slice old = go_to(&w, i);
        if (w.c.bad || !next_cell(s, u, place, i, old))
            continue;
        *changed = true;
        replace_cell(&w, i, buf_slice(&s->cell), &s->record);
    }
    while (w.c.p < w.c.end && !w.c.bad)
        skip_cell(&w);
    if (w.c.bad || w.cell > s->plan->n_cells[u->scope])
        return false;
    if (bytes.n > 0)
        buf_add(&s->record, w.from, (size_t)(w.c.end - w.from));
    return true;
}

void feat_state_edit(struct feat_state *s, const struct feat_update *u, int place, uint64_t key,
                     struct slice id) {
    enum feat_scope scope = u->scope;
    struct slice bytes;
    bool changed;
    if (u->join != NULL && movers_of(s, u)->n == 0)
        return;
    if (s->ops->admit != NULL && !s->ops->admit(s->store, scope, key, s->source))
        return;
    if (s->ops->edit != NULL)
        bytes = s->ops->edit(s->store, scope, key);
    else
        s->ops->fetch(s->store, scope, &key, 1, &bytes);
    if (!rewrite(s, u, place, bytes, key, id, &changed)) {
        log_error("state", "the record of an entity is damaged; it begins anew");
        rewrite(s, u, place, (struct slice){NULL, 0}, key, id, &changed);
    }
    if (changed || step_of(u) > 0)
        s->ops->put(s->store, scope, key, buf_slice(&s->record));
}
