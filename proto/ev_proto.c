/* ev_proto.c: moerank.v1.Event, protobuf <-> plain struct.
 *
 * Deliberately not kept: unknown fields (a newer writer's). They are skipped here and survive
 * only where the bytes themselves are passed on. Nor is a body that comes in two pieces put
 * together, as protobuf allows and no writer does: protobuf-c keeps the last piece. */
#include "moerank.pb-c.h"
#include "proto/wire.h"

/* ---- reading ---- */

static struct ev_value value_of(struct arena *a, const Moerank__V1__Field *f) {
    struct ev_value v = {0}; /* no type: ev_check_fields says so */
    switch (f->value_case) {
    case MOERANK__V1__FIELD__VALUE_BOOLEAN:
        v.type = EV_BOOL;
        v.boolean = f->boolean;
        break;
    case MOERANK__V1__FIELD__VALUE_NUMBER:
        v.type = EV_NUMBER;
        v.number = f->number;
        break;
    case MOERANK__V1__FIELD__VALUE_TEXT:
        v.type = EV_STRING;
        v.string = EV_WIRE_SLICE(f->text);
        break;
    case MOERANK__V1__FIELD__VALUE_NUMBERS:
        v.type = EV_NUMBERS;
        v.numbers.v = f->numbers->values;
        v.numbers.n = (int)f->numbers->n_values;
        break;
    case MOERANK__V1__FIELD__VALUE_TEXTS:
        v.type = EV_STRINGS;
        v.strings.v = ev_wire_slices(a, f->texts->n_values, f->texts->values);
        v.strings.n = (int)f->texts->n_values;
        break;
    default:
        break;
    }
    return v;
}

const struct ev_field *ev_wire_fields(struct arena *a, size_t n,
                                      Moerank__V1__Field *const *fields) {
    if (n == 0)
        return NULL;
    struct ev_field *to = arena_alloc(a, n * sizeof *to);
    for (size_t i = 0; i < n; i++) {
        to[i].name = EV_WIRE_SLICE(fields[i]->name);
        to[i].value = value_of(a, fields[i]);
    }
    return to;
}

static const struct ev_shown *shown_of(struct arena *a, const Moerank__V1__RankingEvent *m) {
    if (m->n_items == 0)
        return NULL;
    struct ev_shown *to = arena_alloc(a, m->n_items * sizeof *to);
    for (size_t i = 0; i < m->n_items; i++) {
        const Moerank__V1__ShownItem *from = m->items[i];
        to[i] = (struct ev_shown){
            .item = EV_WIRE_SLICE(from->item),
            .propensity = from->propensity,
            .fields = ev_wire_fields(a, from->n_fields, from->fields),
            .n_fields = (int)from->n_fields,
        };
    }
    return to;
}

static void body_of(struct arena *a, const Moerank__V1__Event *m, struct ev_event *e) {
    switch (m->body_case) {
    case MOERANK__V1__EVENT__BODY_ITEM:
        e->kind = EV_ITEM;
        e->item = EV_WIRE_SLICE(m->item->item);
        break;
    case MOERANK__V1__EVENT__BODY_USER:
        e->kind = EV_USER;
        e->user = EV_WIRE_SLICE(m->user->user);
        break;
    case MOERANK__V1__EVENT__BODY_RANKING:
        e->kind = EV_RANKING;
        e->user = EV_WIRE_SLICE(m->ranking->user);
        e->session = EV_WIRE_SLICE(m->ranking->session);
        e->shown = shown_of(a, m->ranking);
        e->n_shown = (int)m->ranking->n_items;
        break;
    case MOERANK__V1__EVENT__BODY_INTERACTION:
        e->kind = EV_INTERACTION;
        e->user = EV_WIRE_SLICE(m->interaction->user);
        e->session = EV_WIRE_SLICE(m->interaction->session);
        e->item = EV_WIRE_SLICE(m->interaction->item);
        e->type = EV_WIRE_SLICE(m->interaction->type);
        e->ranking = EV_WIRE_SLICE(m->interaction->ranking);
        break;
    default:
        break; /* no kind: ev_check says so */
    }
}

enum status ev_decode_proto(struct arena *a, struct slice bytes, struct ev_event *out) {
    if (bytes.n > EV_BYTES_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "event is %zu bytes long (at most %d)", bytes.n,
                    EV_BYTES_MAX);
    void *unpacked;
    TRY(ev_wire_unpack(a, &moerank__v1__event__descriptor, bytes, &unpacked));
    const Moerank__V1__Event *m = unpacked;
    struct ev_event e = {
        .id = EV_WIRE_SLICE(m->id),
        .event_time_us = m->event_time_us,
        .arrival_time_us = m->arrival_time_us,
        .tenant = EV_WIRE_SLICE(m->tenant),
        .fields = ev_wire_fields(a, m->n_fields, m->fields),
        .n_fields = (int)m->n_fields,
    };
    body_of(a, m, &e);
    TRY(ev_check(&e));
    *out = e;
    return STATUS_OK;
}

/* ---- writing ---- */

/* All members of a oneof are written, also when zero: being there is what they say. */
static void put_value(struct buf *out, const struct ev_value *v) {
    size_t at;
    switch (v->type) {
    case EV_BOOL:
        ev_put_tag(out, 2, EV_WIRE_VARINT);
        buf_add_byte(out, v->boolean);
        break;
    case EV_NUMBER:
        ev_put_tag(out, 3, EV_WIRE_64);
        buf_add(out, &v->number, sizeof v->number);
        break;
    case EV_STRING:
        ev_put_element(out, 4, v->string);
        break;
    case EV_NUMBERS:
        at = ev_put_begin(out, 5);
        ev_put_text(out, 1,
                    (struct slice){(const char *)v->numbers.v,
                                   (size_t)v->numbers.n * sizeof *v->numbers.v});
        ev_put_end(out, at);
        break;
    case EV_STRINGS:
        at = ev_put_begin(out, 6);
        for (int i = 0; i < v->strings.n; i++)
            ev_put_element(out, 1, v->strings.v[i]);
        ev_put_end(out, at);
        break;
    }
}

void ev_put_fields(struct buf *out, int field, const struct ev_field *fields, int n) {
    for (int i = 0; i < n; i++) {
        size_t at = ev_put_begin(out, field);
        ev_put_text(out, 1, fields[i].name);
        put_value(out, &fields[i].value);
        ev_put_end(out, at);
    }
}

static void put_ranking(struct buf *out, const struct ev_event *e) {
    ev_put_text(out, 1, e->user);
    ev_put_text(out, 2, e->session);
    for (int i = 0; i < e->n_shown; i++) {
        size_t at = ev_put_begin(out, 3);
        ev_put_text(out, 1, e->shown[i].item);
        ev_put_float(out, 2, e->shown[i].propensity);
        ev_put_fields(out, 3, e->shown[i].fields, e->shown[i].n_fields);
        ev_put_end(out, at);
    }
}

static void put_interaction(struct buf *out, const struct ev_event *e) {
    ev_put_text(out, 1, e->user);
    ev_put_text(out, 2, e->session);
    ev_put_text(out, 3, e->item);
    ev_put_text(out, 4, e->type);
    ev_put_text(out, 5, e->ranking);
}

void ev_encode_proto(const struct ev_event *e, struct buf *out) {
    ev_put_text(out, 1, e->id);
    ev_put_int(out, 2, e->event_time_us);
    ev_put_int(out, 3, e->arrival_time_us);
    ev_put_text(out, 4, e->tenant);
    ev_put_fields(out, 5, e->fields, e->n_fields);
    size_t at = ev_put_begin(out, 9 + (int)e->kind);
    switch (e->kind) {
    case EV_ITEM:
        ev_put_text(out, 1, e->item);
        break;
    case EV_USER:
        ev_put_text(out, 1, e->user);
        break;
    case EV_RANKING:
        put_ranking(out, e);
        break;
    case EV_INTERACTION:
        put_interaction(out, e);
        break;
    }
    ev_put_end(out, at);
}
