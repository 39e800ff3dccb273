/* places.c: the writer's side of crossed scopes. An event that carries the values itself edits the
 * records of those values as it edits a user's. A sum over items (scope item.FIELD) holds, for each
 * value, the sum of the cells of the items that bear it now: an event of such an item is added to
 * its values' records, and when an item event changes the field, the item's cells are taken from
 * the old values and added to the new. So the sums follow from the items' own cells and fields, and
 * are a function of the set of events as those are. That reads an item while another record is
 * written: a store with several writers does it for the records of one bucket at once, and so keeps
 * a share of each sum in every bucket, beside the items it is over (shares.h). */
#include "features/places.h"
#include "base/heap.h"
#include "features/forms.h"
#include "features/shares.h"
#include "features/state_parts.h"
#include <stdlib.h>

/* An event goes to a record: of a ranking, the impression number `shown`. */
struct pair {
    uint64_t key;
    int shown;
};

/* What an item adds to the sums of one place. */
struct given {
    struct feat_choices values;
    struct buf cells; /* per feature of the place, in order: n u32 | bytes */
    bool any;         /* some cell is not empty */
};

struct feat_places_work {
    struct pair *pairs; /* [n of cap] */
    int n, cap;
    int *which; /* [cap] */
    struct given before[FEAT_PLACES_MAX], after[FEAT_PLACES_MAX];
    struct buf record, cell, other;
};

static struct feat_places_work *work_of(struct feat_state *s) {
    if (s->places == NULL)
        s->places = HEAP_NEW(struct feat_places_work);
    return s->places;
}

void feat_places_deinit(struct feat_state *s) {
    struct feat_places_work *w = s->places;
    if (w == NULL)
        return;
    for (int i = 0; i < FEAT_PLACES_MAX; i++) {
        buf_deinit(&w->before[i].cells);
        buf_deinit(&w->after[i].cells);
    }
    buf_deinit(&w->record);
    buf_deinit(&w->cell);
    buf_deinit(&w->other);
    heap_free(w->pairs);
    heap_free(w->which);
    heap_free(w);
    s->places = NULL;
}

/* ---- interactions and rankings ---- */

static void add_pair(struct feat_places_work *w, uint64_t key, int shown) {
    if (w->n == w->cap) {
        w->cap = w->cap == 0 ? 256 : 2 * w->cap;
        w->pairs = heap_grow(w->pairs, (size_t)w->cap * sizeof *w->pairs);
        w->which = heap_grow(w->which, (size_t)w->cap * sizeof *w->which);
    }
    w->pairs[w->n++] = (struct pair){key, shown};
}

static void choose_field(const struct feat_part *part, const struct ev_event *e,
                         const struct ev_shown *shown, struct feat_choices *out) {
    const struct ev_value *v = NULL;
    uint64_t keys[FEAT_IDS_MAX];
    if (shown != NULL)
        v = ev_field_get(shown->fields, shown->n_fields, part->field.p);
    if (v == NULL)
        v = ev_field_get(e->fields, e->n_fields, part->field.p);
    for (int i = 0, n = v == NULL ? 0 : feat_value_keys(v, keys); i < n; i++)
        feat_choices_add(out, keys[i], FEAT_SPOTS_MAX);
}

/* Records that happening `i` of the event goes to. */
static void add_happening(struct feat_places_work *w, const struct feat_place *pl,
                          const struct feat_update *u, uint64_t tenant_hash, int i) {
    struct feat_choices choices[FEAT_PARTS_MAX];
    uint64_t keys[FEAT_SPOTS_MAX];
    for (int k = 0; k < pl->n_parts; k++) {
        struct feat_choices *c = &choices[k];
        c->n = 0;
        if (pl->parts[k].kind == FEAT_PART_USER)
            feat_choices_add(c, u->user_key, 1);
        else if (pl->parts[k].kind == FEAT_PART_SESSION)
            feat_choices_add(c, feat_entity_key(tenant_hash, u->event->session), 1);
        else if (pl->parts[k].kind == FEAT_PART_ITEM)
            feat_choices_add(c, feat_update_item(u, i), 1);
        else
            choose_field(&pl->parts[k], u->event, feat_update_shown(u, i), c);
    }
    int n = feat_place_keys(pl, tenant_hash, choices, keys);
    for (int k = 0; k < n; k++)
        add_pair(w, keys[k], i);
}

/* The values of a place that sums, of an item's record; none when it is unknown. */
static void read_values(const struct feat_plan *p, const struct feat_place *pl, struct slice item,
                        struct feat_choices *out) {
    const struct feat_source *source = &pl->parts[0].source;
    struct slice cell = feat_record_fields_cell(item);
    struct cursor c;
    out->n = 0;
    if (item.n == 0 || !feat_fields_find(p, FEAT_SCOPE_ITEM, cell, source->slot, source->form, &c))
        return;
    if (source->form == FEAT_AS_IDS) {
        uint64_t keys[FEAT_IDS_MAX];
        for (int i = 0, n = feat_form_get_ids(&c, keys); i < n; i++)
            feat_choices_add(out, keys[i], FEAT_SPOTS_MAX);
        return;
    }
    uint32_t hashes[FEAT_TERMS_MAX];
    for (int i = 0, n = feat_form_get_hashes(&c, hashes); i < n; i++)
        feat_choices_add(out, 1 + (uint64_t)hashes[i], FEAT_TERMS_MAX);
}

/* Where what an item gives to a value is written; value 0: the total. */
static uint64_t sum_key(const struct feat_state *s, const struct feat_place *pl,
                        uint64_t tenant_hash, uint64_t item_key, uint64_t value) {
    uint64_t whole = feat_place_value_key(pl, tenant_hash, value);
    if (s->n_shares == 0)
        return whole;
    return feat_share_key(whole, feat_bucket_of(FEAT_SCOPE_ITEM, item_key, s->n_shares),
                          s->n_shares);
}

static void add_item(struct feat_state *s, struct feat_places_work *w, const struct feat_place *pl,
                     const struct feat_update *u, uint64_t tenant_hash, int i) {
    uint64_t key = feat_update_item(u, i);
    struct feat_choices values;
    struct slice bytes = {NULL, 0};
    if (key != 0)
        s->ops->fetch(s->store, FEAT_SCOPE_ITEM, &key, 1, &bytes);
    if (bytes.n == 0)
        return;
    read_values(s->plan, pl, bytes, &values);
    for (int k = 0; k < values.n; k++)
        add_pair(w, sum_key(s, pl, tenant_hash, key, values.v[k]), i);
    if (pl->has_total && values.n > 0)
        add_pair(w, sum_key(s, pl, tenant_hash, key, 0), i);
}

static int by_key(const void *a, const void *b) {
    const struct pair *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return x->shown < y->shown ? -1 : x->shown > y->shown;
}

/* A ranking's pairs are few, and few are sorted fastest by insertion. */
static void sort_pairs(struct pair *pairs, int n) {
    if (n > 64) {
        qsort(pairs, (size_t)n, sizeof *pairs, by_key);
        return;
    }
    for (int i = 1; i < n; i++) {
        struct pair p = pairs[i];
        int k = i;
        for (; k > 0 && by_key(&pairs[k - 1], &p) > 0; k--)
            pairs[k] = pairs[k - 1];
        pairs[k] = p;
    }
}

/* Every record once, with all its happenings. */
static void edit_pairs(struct feat_state *s, struct feat_places_work *w, struct feat_update u,
                       int place) {
    const int *shown = u.shown;
    u.scope = FEAT_SCOPE_VALUE;
    if (w->n > 1)
        sort_pairs(w->pairs, w->n);
    for (int i = 0, end; i < w->n; i = end) {
        for (end = i; end < w->n && w->pairs[end].key == w->pairs[i].key; end++)
            w->which[end - i] = shown == NULL ? 0 : shown[w->pairs[end].shown];
        u.shown = shown == NULL ? NULL : w->which;
        u.n = end - i;
        feat_state_edit(s, &u, place, w->pairs[i].key, (struct slice){NULL, 0});
    }
}

/* Does any feature of the place take events? Those of BM25's only take what items are. */
static bool takes_events(const struct feat_state *s, int place) {
    const struct feat_plan *p = s->plan;
    for (int i = 0; i < p->n_features; i++)
        if (p->features[i]->place == place && p->features[i]->kind->apply != NULL)
            return true;
    return false;
}

void feat_places_event(struct feat_state *s, const struct feat_update *u) {
    const struct feat_plan *p = s->plan;
    if (p->n_places == 0)
        return;
    struct feat_places_work *w = work_of(s);
    uint64_t tenant = feat_tenant_hash(u->event->tenant);
    for (int place = 0; place < p->n_places; place++) {
        const struct feat_place *pl = &p->places[place];
        if (!takes_events(s, place))
            continue;
        w->n = 0;
        for (int i = 0; i < u->n; i++) {
            if (pl->sums)
                add_item(s, w, pl, u, tenant, i);
            else
                add_happening(w, pl, u, tenant, i);
        }
        edit_pairs(s, w, *u, place);
    }
}

/* ---- item events ---- */

/* The cells that an item with this record adds to its values', by feature. */
static void read_given(struct feat_state *s, int place, const struct feat_record *item,
                       struct given *g) {
    const struct feat_plan *p = s->plan;
    struct feat_places_work *w = s->places;
    buf_clear(&g->cells);
    g->any = false;
    g->values.n = 0;
    if (item == NULL)
        return;
    read_values(p, &p->places[place], (struct slice){(const char *)item->p, item->n}, &g->values);
    for (int i = 1; i < p->n_cells[FEAT_SCOPE_VALUE]; i++) {
        const struct feat *f = s->cells[FEAT_SCOPE_VALUE][i];
        if (f->place != place)
            continue;
        struct slice cell = {NULL, 0};
        if (f->kind->contribute != NULL) {
            buf_clear(&w->cell);
            f->kind->contribute(f, item, &w->cell);
            cell = buf_slice(&w->cell);
        } else {
            cell = feat_record_cell(item, f->cells[1].index); /* feat_claim_cell: right behind */
        }
        buf_add_u32(&g->cells, (uint32_t)cell.n);
        buf_add(&g->cells, cell.p, cell.n);
        g->any |= cell.n > 0;
    }
}

static void read_all_given(struct feat_state *s, uint64_t item_key, struct given *out) {
    struct slice bytes;
    s->ops->fetch(s->store, FEAT_SCOPE_ITEM, &item_key, 1, &bytes);
    const struct feat_record *item =
        bytes.n == 0 ? NULL
                     : feat_record_view(s->plan, FEAT_SCOPE_ITEM, bytes, s->views[FEAT_SCOPE_ITEM]);
    for (int place = 0; place < s->plan->n_places; place++)
        if (s->plan->places[place].sums)
            read_given(s, place, item, &out[place]);
}

/* The next of the cells in g->cells; empty at their end. */
static struct slice next_given(struct cursor *c) {
    return cursor_bytes(c, c->p < c->end ? cursor_u32(c) : 0);
}

/* One cell with what was given before taken off and what is given now added; w->cell or `cell`. */
static struct slice merged(struct feat_places_work *w, const struct feat *f, struct slice cell,
                           struct slice before, struct slice after) {
    struct slice now = cell;
    if (before.n > 0) {
        buf_clear(&w->cell);
        f->kind->merge(f, now, before, -1, &w->cell);
        now = buf_slice(&w->cell);
    }
    if (after.n > 0) {
        buf_clear(&w->other);
        f->kind->merge(f, now, after, 1, &w->other);
        struct buf swap = w->cell;
        w->cell = w->other;
        w->other = swap;
        now = buf_slice(&w->cell);
    }
    return now;
}

/* An item event that moves what the item gives. */
struct mover {
    const struct feat_update *u;
    uint64_t tenant_hash, item_key;
    int place;
};

static void merge_record(struct feat_state *s, const struct mover *m, uint64_t value,
                         const struct given *before, const struct given *after) {
    const struct feat_plan *p = s->plan;
    struct feat_places_work *w = s->places;
    int place = m->place;
    uint64_t key = sum_key(s, &p->places[place], m->tenant_hash, m->item_key, value);
    struct slice bytes;
    if (s->ops->admit != NULL &&
        !s->ops->admit(s->store, FEAT_SCOPE_VALUE, key, m->u->event->source))
        return;
    s->ops->fetch(s->store, FEAT_SCOPE_VALUE, &key, 1, &bytes);
    const struct feat_record *old =
        bytes.n == 0 ? NULL
                     : feat_record_cells(p, FEAT_SCOPE_VALUE, bytes, s->views[FEAT_SCOPE_VALUE]);
    struct cursor was = cursor_of(NULL, 0), is = was;
    if (before != NULL)
        was = cursor_of(before->cells.p, before->cells.n);
    if (after != NULL)
        is = cursor_of(after->cells.p, after->cells.n);
    int empty = 0;
    buf_clear(&w->record);
    feat_record_put_head(&w->record, FEAT_SCOPE_VALUE, key, 0, (struct slice){NULL, 0},
                         (struct slice){NULL, 0});
    for (int i = 0; i < p->n_cells[FEAT_SCOPE_VALUE]; i++) {
        const struct feat *f = i == 0 ? NULL : s->cells[FEAT_SCOPE_VALUE][i];
        struct slice cell = feat_record_cell(old, i);
        if (f != NULL && f->place == place) {
            struct slice off = next_given(&was), on = next_given(&is);
            cell = merged(w, f, cell, off, on);
        }
        feat_record_put_cell(&w->record, cell, &empty);
    }
    s->ops->put(s->store, FEAT_SCOPE_VALUE, key, buf_slice(&w->record));
}

static bool bears(const struct given *g, uint64_t value) {
    for (int i = 0; i < g->values.n; i++)
        if (g->values.v[i] == value)
            return true;
    return false;
}

static void move(struct feat_state *s, const struct mover *m, const struct given *before,
                 const struct given *after) {
    const struct feat_place *pl = &s->plan->places[m->place];
    bool same = slice_equal(buf_slice(&before->cells), buf_slice(&after->cells));
    if (!before->any && !after->any)
        return;
    for (int i = 0; i < before->values.n; i++) {
        uint64_t value = before->values.v[i];
        bool stays = bears(after, value);
        if (!stays || !same)
            merge_record(s, m, value, before, stays ? after : NULL);
    }
    for (int i = 0; i < after->values.n; i++)
        if (!bears(before, after->values.v[i]))
            merge_record(s, m, after->values.v[i], NULL, after);
    bool was = before->values.n > 0, is = after->values.n > 0;
    if (pl->has_total && (was != is || (was && !same)))
        merge_record(s, m, 0, was ? before : NULL, is ? after : NULL);
}

void feat_places_before(struct feat_state *s, uint64_t item_key) {
    if (s->plan->sums_items)
        read_all_given(s, item_key, work_of(s)->before);
}

void feat_places_after(struct feat_state *s, const struct feat_update *u, uint64_t item_key) {
    if (!s->plan->sums_items)
        return;
    struct feat_places_work *w = work_of(s);
    read_all_given(s, item_key, w->after);
    struct mover m = {
        .u = u, .tenant_hash = feat_tenant_hash(u->event->tenant), .item_key = item_key};
    for (m.place = 0; m.place < s->plan->n_places; m.place++)
        if (s->plan->places[m.place].sums)
            move(s, &m, &w->before[m.place], &w->after[m.place]);
}
