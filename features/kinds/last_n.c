/* last_n.c: the last N items a user or session had to do with, or the last N users of an item: the
 * N greatest by (event time, item key, value), so that no order of arrival shows. What is equal in
 * all three is the same bytes twice, whichever came first; so neither partition nor offset is kept.
 * Impressions of one ranking share their time, and so are in the order of keys, not of the page.
 * Distinct: each item once, by its greatest; an item that was pushed out has N greater ones before
 * it for ever, so what is kept is still a function of the set of events.
 *
 * Cell: n varint, then newest first: item key | time | value, the first two relative to the entry
 * before. The first time says in which unit all are, the coarsest in which all are whole; later
 * ones are steps (codec.h). That is 3 to 6 bytes an entry without value where names are packed
 * (keys.h), 10 to 12 where they are hashed. As ids of the items it is the classic "watched before"
 * input of YouTube's ranking network (Covington et al. 2016); match.c crosses it with a candidate.
 */
#include "features/kinds/last_n.h"
#include "features/claim.h"
#include "features/keys.h"
#include "features/kinds/ids.h"
#include <math.h>

enum { SCOPE_USER, SCOPE_SESSION, SCOPE_ITEM };

struct params {
    const char *on_text, *value_field, *table;
    int scope;
    int64_t n, slots;
    bool embed, distinct, times;
    struct feat_match on;
    const struct feat_ids *ids; /* of the table; NULL: no output of its own */
};

static const struct conf_item items[] = {
    CONF_ENUM(struct params, scope, "scope", "user", "user|session|item",
              "Whose items; of an item its users, for kind cooccur."),
    CONF_STRING(struct params, on_text, "on", NULL,
                "Which events: TYPE [where FIELD OP VALUE]; TYPE may be impression or any."),
    CONF_INT(struct params, n, "n", "50", 1, FEAT_LAST_MAX, "items", "How many are kept."),
    CONF_BOOL(struct params, distinct, "distinct", "false", "Each item once, by its newest event."),
    CONF_BOOL(struct params, times, "times", "false",
              "Output log(1 + seconds since) of the newest slots, a column each."),
    CONF_STRING(struct params, value_field, "value_field", "",
                "A number of the event kept with each item, as a rating."),
    CONF_BOOL(struct params, embed, "embed", "false",
              "Output the items' ids into table; otherwise the list only serves match and "
              "time_since."),
    CONF_STRING(struct params, table, "table", "",
                "Embedding table of a category feature of item.id."),
    CONF_INT(struct params, slots, "slots", "0", 0, FEAT_LAST_MAX, "ids",
             "How many ids or times are output, the newest; 0: n."),
    CONF_END};

static enum status check_table(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    int slots = (int)(m->slots > 0 && m->slots < m->n ? m->slots : m->n), dim = 0;
    if (m->scope == SCOPE_ITEM && (m->embed || m->times || m->value_field[0] != '\0'))
        return fail(STATUS_INVALID_ARGUMENT,
                    "scope: an item's users only serve cooccur: no embed, times or value_field");
    if (m->times) {
        const char **names = ARENA_ARRAY(&p->arena, const char *, slots);
        for (int i = 0; i < slots; i++)
            names[i] = arena_printf(&p->arena, "%d", i + 1);
        f->n_columns = slots;
        f->column_names = names;
    }
    if (!m->embed) {
        if (m->table[0] != '\0' || (m->slots > 0 && !m->times))
            return fail(STATUS_INVALID_ARGUMENT, "%s: has a meaning only with embed: true",
                        m->table[0] != '\0' ? "table" : "slots");
        return STATUS_OK;
    }
    m->ids = feat_category_item_ids(p, m->table, &dim);
    if (m->ids == NULL)
        return fail(STATUS_INVALID_ARGUMENT,
                    "table: no category feature with source item.id embeds into '%s'", m->table);
    f->n_slots = slots;
    return feat_plan_table(p, m->table, m->ids->rows, dim, &f->table);
}

static enum status check(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    TRY(feat_claim_match(p, "on", m->on_text, &m->on));
    TRY(check_table(p, f));
    feat_plan_cell(p, f, feat_last_scope(f));
    f->side = feat_scope_side(feat_last_scope(f));
    return STATUS_OK;
}

/* ---- reading ---- */

enum feat_scope feat_last_scope(const struct feat *f) {
    static const enum feat_scope scopes[] = {FEAT_SCOPE_USER, FEAT_SCOPE_SESSION, FEAT_SCOPE_ITEM};
    return scopes[((const struct params *)f->params)->scope];
}

int64_t feat_last_n(const struct feat *f) { return ((const struct params *)f->params)->n; }

bool feat_last_has_value(const struct feat *f) {
    return ((const struct params *)f->params)->value_field[0] != '\0';
}

struct slice feat_last_cell(const struct feat *f, const struct feat_read *r) {
    return feat_record_cell(r->records[feat_last_scope(f)], f->cells[0].index);
}

bool feat_last_named(const struct feat *f, const struct feat_read *r) {
    return feat_read_names(r, feat_last_scope(f), -1);
}

enum status feat_claim_last(const struct feat_plan *p, const char *key, const char *name,
                            const struct feat **out) {
    const struct feat *f;
    TRY(feat_claim_feature(p, key, name, "last_n", &f));
    if (feat_last_scope(f) == FEAT_SCOPE_ITEM)
        return fail(STATUS_INVALID_ARGUMENT,
                    "%s: '%s' is of scope item; a user's or session's "
                    "list is needed",
                    key, name);
    *out = f;
    return STATUS_OK;
}

int feat_last_open(const struct feat *f, struct slice cell, struct feat_last_reader *r) {
    *r = (struct feat_last_reader){.c = cursor_of(cell.p, cell.n),
                                   .has_value = feat_last_has_value(f)};
    if (cell.n > 0)
        r->left = feat_get_varint(&r->c);
    if (r->left > FEAT_LAST_MAX)
        r->left = 0; /* damaged */
    return (int)r->left;
}

float feat_last_age(const struct feat_read *r, const struct feat_last_entry *e) {
    double seconds = ((double)r->now_us - (double)e->time_us) / 1e6;
    return feat_scaled(FEAT_SCALE_LOG, seconds > 0 ? seconds : 0);
}

bool feat_last_next(struct feat_last_reader *r, struct feat_last_entry *out) {
    if (r->left == 0)
        return false;
    r->left--;
    r->plain ^= feat_get_key_step(&r->c); /* at first relative to 0, whose plain form is 0 */
    r->at.item = feat_key_spread(r->plain);
    if (r->unit_us == 0)
        r->at.time_us = feat_get_time_in(&r->c, &r->unit_us);
    else /* wraps around, if bytes are damaged */
        r->at.time_us = (int64_t)((uint64_t)r->at.time_us - feat_get_step(&r->c) * r->unit_us);
    r->at.value = r->has_value ? feat_get_number(&r->c) : (double)NAN;
    *out = r->at;
    return !r->c.bad;
}

/* ---- writing ---- */

/* Which is later: <0, 0, >0. Without a value is before any. */
static int compare(const struct feat_last_entry *a, const struct feat_last_entry *b) {
    if (a->time_us != b->time_us)
        return a->time_us < b->time_us ? -1 : 1;
    if (a->item != b->item)
        return a->item < b->item ? -1 : 1;
    if (isnan(a->value) || isnan(b->value))
        return isnan(b->value) - isnan(a->value);
    return (a->value > b->value) - (a->value < b->value);
}

/* Appends `e` relative to `last`; NULL: it is the first. */
static void put(const struct params *m, uint64_t unit_us, const struct feat_last_entry *last,
                const struct feat_last_entry *e, struct buf *out) {
    feat_put_key(out, last == NULL ? 0 : last->item, e->item);
    if (last == NULL)
        feat_put_time_in(out, e->time_us, unit_us);
    else
        feat_put_step(out, ((uint64_t)last->time_us - (uint64_t)e->time_us) / unit_us);
    if (m->value_field[0] != '\0')
        feat_put_number(out, e->value);
}

/* The entries of a cell but number `but`, at most `n`, with `e` among them unless it is NULL, all
 * written anew in the coarsest unit that says all. */
static void rewrite(const struct feat *f, struct slice old, int but, int n,
                    const struct feat_last_entry *e, struct buf *out) {
    struct feat_last_entry all[FEAT_LAST_MAX + 1], at;
    struct feat_last_reader r;
    uint64_t unit_us = FEAT_TIME_S;
    int k = 0;
    feat_last_open(f, old, &r);
    for (int i = 0; feat_last_next(&r, &at); i++) {
        if (e != NULL && compare(&at, e) <= 0) {
            all[k++] = *e;
            e = NULL;
        }
        if (i != but)
            all[k++] = at;
    }
    if (e != NULL)
        all[k++] = *e;
    k = k < n ? k : n;
    for (int i = 0; i < k; i++)
        unit_us = feat_time_unit(all[i].time_us, unit_us);
    buf_add_varint(out, (uint64_t)k);
    for (int i = 0; i < k; i++)
        put(f->params, unit_us, i == 0 ? NULL : &all[i - 1], &all[i], out);
}

/* The usual case: all times are of the list's unit. Copies the old cell up to the place of `e`,
 * writes `e`, writes the next one anew (it is relative to `e` now), and copies the rest up to the
 * N-th. False when `e` is older than all N. */
static bool insert(const struct feat *f, const struct feat_last_entry *e, struct slice old,
                   struct buf *out) {
    const struct params *m = f->params;
    struct feat_last_reader r;
    struct feat_last_entry last, at;
    int n = feat_last_open(f, old, &r), i = 0;
    const uint8_t *head = r.c.p, *split = r.c.p;
    bool more = feat_last_next(&r, &at);
    for (; more && compare(&at, e) > 0; i++) {
        last = at;
        split = r.c.p;
        more = feat_last_next(&r, &at);
    }
    if (i >= m->n)
        return false;
    if (n == 0 || feat_time_unit(e->time_us, FEAT_TIME_S) != r.unit_us) {
        rewrite(f, old, -1, (int)m->n, e, out);
        return true;
    }
    buf_add_varint(out, (uint64_t)(n < m->n ? n + 1 : m->n));
    buf_add(out, head, (size_t)(split - head));
    put(m, r.unit_us, i == 0 ? NULL : &last, e, out);
    if (!more || i + 1 >= m->n)
        return true;
    put(m, r.unit_us, e, &at, out);
    const uint8_t *tail = r.c.p;
    for (i += 2; i < m->n && feat_last_next(&r, &at); i++)
        ;
    buf_add(out, tail, (size_t)(r.c.p - tail));
    return true;
}

static bool insert_distinct(const struct feat *f, const struct feat_last_entry *e, struct slice old,
                            struct buf *out) {
    struct feat_last_reader r;
    struct feat_last_entry at;
    struct buf others = {0};
    feat_last_open(f, old, &r);
    for (int i = 0; feat_last_next(&r, &at); i++) {
        if (at.item != e->item)
            continue;
        if (compare(&at, e) >= 0)
            return false;
        rewrite(f, old, i, (int)((const struct params *)f->params)->n, NULL, &others);
        old = buf_slice(&others);
        break;
    }
    bool changed = insert(f, e, old, out);
    buf_deinit(&others);
    return changed;
}

static struct feat_last_entry entry_of(const struct params *m, const struct feat_update *u, int i) {
    const struct ev_event *e = u->event;
    const struct ev_shown *shown = feat_update_shown(u, i);
    struct feat_last_entry entry = {m->scope == SCOPE_ITEM ? u->user_key : feat_update_item(u, i),
                                    e->event_time_us, (double)NAN};
    if (m->value_field[0] != '\0') {
        const struct ev_value *v =
            shown != NULL ? ev_field_get(shown->fields, shown->n_fields, m->value_field)
                          : ev_field_get(e->fields, e->n_fields, m->value_field);
        if (v != NULL)
            ev_value_number(v, &entry.value);
        if (!isfinite(entry.value))
            entry.value = (double)NAN; /* as it is written */
    }
    return entry;
}

/* Happening by happening; with several, each step's result is the next one's old cell. */
static bool apply(const struct feat *f, const struct feat_update *u, struct slice old,
                  struct buf *out) {
    const struct params *m = f->params;
    struct buf step = {0}, spare = {0};
    bool changed = false;
    if (u->shown == NULL) {
        struct feat_last_entry entry = entry_of(m, u, 0);
        return entry.item != 0 && feat_match_event(&m->on, u->event, NULL) &&
               (m->distinct ? insert_distinct : insert)(f, &entry, old, out);
    }
    for (int i = 0; m->on.is_impression && i < u->n; i++) {
        struct feat_last_entry entry = entry_of(m, u, i);
        if (entry.item == 0 || !feat_match_event(&m->on, u->event, feat_update_shown(u, i)))
            continue;
        buf_clear(&spare);
        if (!(m->distinct ? insert_distinct : insert)(f, &entry, old, &spare))
            continue;
        struct buf swap = step;
        step = spare;
        spare = swap;
        old = buf_slice(&step);
        changed = true;
    }
    if (changed)
        buf_add(out, step.p, step.n);
    buf_deinit(&step);
    buf_deinit(&spare);
    return changed;
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)row;
    const struct params *m = f->params;
    struct feat_last_reader reader;
    struct feat_last_entry e;
    feat_last_open(f, feat_last_cell(f, r), &reader);
    for (int i = 0; feat_last_next(&reader, &e); i++) {
        if (i < f->n_slots)
            ids[i] = feat_ids_of(m->ids, r->tenant_hash, e.item);
        if (i < f->n_columns)
            dense[i] = feat_last_age(r, &e);
    }
}

const struct feat_kind feat_kind_last_n = {
    .name = "last_n",
    .doc = "The last items of a user or session, as ids, and for match and time_since.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .check = check,
    .apply = apply,
    .extract = extract,
};
