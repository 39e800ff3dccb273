/* fields.c: cell 0: what item and user events said, per field the newest by (event time,
 * partition, offset). Events may be partial: a field they do not name stays. */
#include "features/keys.h"
#include "features/record.h"
#include <math.h>

/* Leaves the cursor behind one field's value. */
static void skip_value(const struct feat_field *f, struct cursor *c) {
    if (f->as_number)
        feat_get_number(c);
    if (f->as_ids) {
        uint64_t n = feat_get_varint(c);
        if (n > FEAT_IDS_MAX)
            c->bad = 1;
        cursor_bytes(c, (size_t)n * 8);
    }
}

bool feat_fields_read(const struct feat_plan *p, enum feat_scope scope, struct slice cell,
                      struct feat_field_state *out) {
    struct cursor c = cursor_of(cell.p, cell.n);
    memset(out, 0, FEAT_FIELDS_MAX * sizeof *out);
    while (c.p < c.end && !c.bad) {
        uint64_t n = feat_get_varint(&c);
        struct feat_stamp stamp = feat_get_stamp(&c);
        for (; n > 0 && !c.bad; n--) {
            uint64_t slot = feat_get_varint(&c);
            if (slot >= (uint64_t)p->n_fields[scope])
                return false;
            const uint8_t *at = c.p;
            skip_value(&p->fields[scope][slot], &c);
            out[slot] = (struct feat_field_state){stamp, {(const char *)at, (size_t)(c.p - at)}};
        }
    }
    return !c.bad;
}

static void put_value(const struct feat_field *f, const struct ev_value *v, struct buf *out) {
    if (f->as_number) {
        double number = NAN;
        ev_value_number(v, &number);
        feat_put_number(out, number);
    }
    if (f->as_ids) {
        uint64_t keys[FEAT_IDS_MAX];
        int n = feat_value_keys(v, keys);
        buf_add_varint(out, (uint64_t)n);
        for (int i = 0; i < n; i++)
            buf_add_u64(out, keys[i]);
    }
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

/* The longest encoded value: a number and a full list of keys. */
enum { VALUE_BYTES_MAX = 16 + 2 + FEAT_IDS_MAX * 8 };

bool feat_fields_apply(const struct feat_plan *p, enum feat_scope scope, const struct ev_event *e,
                       struct slice old, struct buf *out) {
    struct feat_field_state states[FEAT_FIELDS_MAX];
    int n_fields = p->n_fields[scope], order[FEAT_FIELDS_MAX];
    if (!feat_fields_read(p, scope, old, states))
        memset(states, 0, sizeof states);
    struct feat_stamp stamp = {e->event_time_us, e->source.partition, e->source.offset};
    struct buf values = {0};
    buf_reserve(&values, (size_t)n_fields * VALUE_BYTES_MAX); /* so that it never moves */
    bool changed = false;
    for (int slot = 0; slot < n_fields; slot++) {
        const struct feat_field *f = &p->fields[scope][slot];
        const struct ev_value *v = ev_field_get(e->fields, e->n_fields, f->name.p);
        if (v == NULL ||
            (states[slot].value.n > 0 && feat_stamp_compare(states[slot].stamp, stamp) >= 0))
            continue;
        size_t at = values.n;
        put_value(f, v, &values);
        states[slot] = (struct feat_field_state){stamp, {values.p + at, values.n - at}};
        changed = true;
    }
    if (changed)
        put_runs(states, order, sort_slots(states, n_fields, order), out);
    buf_deinit(&values);
    return changed;
}
