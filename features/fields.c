/* fields.c: cell 0: what item and user events said, per field the newest by (event time,
 * partition, offset). Events may be partial: a field they do not name stays. */
#include "features/forms.h"
#include "features/record.h"

bool feat_fields_read(const struct feat_plan *p, enum feat_scope scope, struct slice cell,
                      struct feat_field_state *out) {
    struct cursor c = cursor_of(cell.p, cell.n);
    memset(out, 0, (size_t)p->n_fields[scope] * sizeof *out);
    while (c.p < c.end && !c.bad) {
        uint64_t n = feat_get_varint(&c);
        struct feat_stamp stamp = feat_get_stamp(&c);
        for (; n > 0 && !c.bad; n--) {
            uint64_t slot = feat_get_varint(&c);
            if (slot >= (uint64_t)p->n_fields[scope])
                return false;
            const uint8_t *at = c.p;
            feat_forms_skip(p->fields[scope][slot].forms, &c);
            out[slot] = (struct feat_field_state){stamp, {(const char *)at, (size_t)(c.p - at)}};
        }
    }
    return !c.bad;
}

bool feat_fields_places(const struct feat_plan *p, enum feat_scope scope, struct slice cell,
                        const uint8_t *from, uint32_t *at) {
    struct cursor c = cursor_of(cell.p, cell.n);
    while (c.p < c.end && !c.bad) {
        uint64_t n = feat_get_varint(&c);
        feat_skip_stamp(&c);
        for (; n > 0 && !c.bad; n--) {
            uint64_t slot = feat_get_varint(&c);
            if (slot >= (uint64_t)p->n_fields[scope])
                return false;
            at[slot] = (uint32_t)(c.p - from);
            feat_forms_skip(p->fields[scope][slot].forms, &c);
        }
    }
    return !c.bad;
}

bool feat_fields_find(const struct feat_plan *p, enum feat_scope scope, struct slice cell, int slot,
                      enum feat_form form, struct cursor *out) {
    struct cursor c = cursor_of(cell.p, cell.n);
    while (c.p < c.end && !c.bad) {
        uint64_t n = feat_get_varint(&c);
        feat_skip_stamp(&c);
        for (; n > 0 && !c.bad; n--) {
            uint64_t at = feat_get_varint(&c);
            if (at >= (uint64_t)p->n_fields[scope])
                return false;
            if (at != (uint64_t)slot) {
                feat_forms_skip(p->fields[scope][at].forms, &c);
                continue;
            }
            const struct feat_field *f = &p->fields[scope][slot];
            feat_forms_skip(f->forms & ((1u << form) - 1), &c);
            *out = c;
            return !c.bad && feat_field_has(f, form);
        }
    }
    return false;
}

static void put_value(const struct feat_field *f, const struct ev_value *v, struct buf *out) {
    for (int form = 0; form < FEAT_FORMS; form++)
        if (feat_field_has(f, (enum feat_form)form))
            feat_form_put((enum feat_form)form, v, out);
}

/* Slots that are present, newest stamp first, then by slot. */
static int sort_slots(const struct feat_field_state *s, int n_fields, int *order) {
    int n = 0;
    for (int slot = 0; slot < n_fields; slot++) {
        if (s[slot].value.n == 0)
            continue;
        int i = n++;
        for (; i > 0 && feat_stamp_compare(s[order[i - 1]].stamp, s[slot].stamp) < 0; i--)
            order[i] = order[i - 1];
        order[i] = slot;
    }
    return n;
}

static void put_runs(const struct feat_field_state *s, const int *order, int n, struct buf *out) {
    for (int i = 0, end; i < n; i = end) {
        struct feat_stamp stamp = s[order[i]].stamp;
        for (end = i + 1; end < n && feat_stamp_compare(s[order[end]].stamp, stamp) == 0; end++)
            ;
        buf_add_varint(out, (uint64_t)(end - i));
        feat_put_stamp(out, stamp);
        for (int k = i; k < end; k++) {
            buf_add_varint(out, (uint64_t)order[k]);
            buf_add(out, s[order[k]].value.p, s[order[k]].value.n);
        }
    }
}

/* Writes the event's fields to `values`, those that are newer than what is known. Returns whether
 * there is any; at[slot] and end[slot] say where. */
static bool take_fields(const struct feat_plan *p, enum feat_scope scope, const struct ev_event *e,
                        const struct feat_field_state *states, struct buf *values, size_t *at,
                        size_t *end) {
    struct feat_stamp stamp = {e->event_time_us, e->source.partition, e->source.offset};
    bool any = false;
    for (int slot = 0; slot < p->n_fields[scope]; slot++) {
        const struct feat_field *f = &p->fields[scope][slot];
        const struct ev_value *v = ev_field_get(e->fields, e->n_fields, f->name.p);
        at[slot] = end[slot] = values->n;
        if (v == NULL ||
            (states[slot].value.n > 0 && feat_stamp_compare(states[slot].stamp, stamp) >= 0))
            continue;
        put_value(f, v, values);
        end[slot] = values->n;
        any = true;
    }
    return any;
}

bool feat_fields_apply(const struct feat_plan *p, enum feat_scope scope, const struct ev_event *e,
                       struct slice old, struct buf *out) {
    struct feat_field_state states[FEAT_FIELDS_MAX];
    size_t at[FEAT_FIELDS_MAX], end[FEAT_FIELDS_MAX];
    int n_fields = p->n_fields[scope], order[FEAT_FIELDS_MAX];
    if (!feat_fields_read(p, scope, old, states))
        memset(states, 0, sizeof states);
    struct feat_stamp stamp = {e->event_time_us, e->source.partition, e->source.offset};
    struct buf values = {0};
    bool changed = take_fields(p, scope, e, states, &values, at, end);
    for (int slot = 0; slot < n_fields; slot++)
        if (end[slot] > at[slot])
            states[slot] =
                (struct feat_field_state){stamp, {values.p + at[slot], end[slot] - at[slot]}};
    if (changed)
        put_runs(states, order, sort_slots(states, n_fields, order), out);
    buf_deinit(&values);
    return changed;
}
