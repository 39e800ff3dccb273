/* ev_json_write.c: an event as one JSON line: the flat form, keys in one order, empty ones left
 * out.
 *
 * Reading it back gives an equal event. Hence an empty list of numbers is written with its type,
 * since a plain [] is a list of strings. */
#include "base/node.h"
#include "proto/ev.h"

static void put_text(struct json *j, const char *key, struct slice s) {
    if (s.n == 0)
        return;
    json_key(j, key);
    json_str(j, s);
}

static void put_value(struct json *j, const struct ev_value *v) {
    if (v->type == EV_NUMBERS && v->numbers.n == 0)
        json_key(j, "numbers");
    else
        json_key(j, "value");
    switch (v->type) {
    case EV_BOOL:
        json_bool(j, v->boolean);
        return;
    case EV_NUMBER:
        json_num(j, v->number);
        return;
    case EV_STRING:
        json_str(j, v->string);
        return;
    case EV_NUMBERS:
        json_array(j);
        for (int i = 0; i < v->numbers.n; i++)
            json_num(j, v->numbers.v[i]);
        json_array_end(j);
        return;
    case EV_STRINGS:
        json_array(j);
        for (int i = 0; i < v->strings.n; i++)
            json_str(j, v->strings.v[i]);
        json_array_end(j);
        return;
    }
    json_null(j);
}

static void put_fields(struct json *j, const struct ev_field *fields, int n) {
    if (n == 0)
        return;
    json_key(j, "fields");
    json_array(j);
    for (int i = 0; i < n; i++) {
        json_object(j);
        json_key(j, "name");
        json_str(j, fields[i].name);
        put_value(j, &fields[i].value);
        json_object_end(j);
    }
    json_array_end(j);
}

static void put_shown(struct json *j, const struct ev_shown *shown, int n) {
    json_key(j, "items");
    json_array(j);
    for (int i = 0; i < n; i++) {
        json_object(j);
        put_text(j, "id", shown[i].item);
        if (shown[i].propensity != 0) {
            json_key(j, "propensity");
            json_num(j, (double)shown[i].propensity);
        }
        put_fields(j, shown[i].fields, shown[i].n_fields);
        json_object_end(j);
    }
    json_array_end(j);
}

void ev_encode_json(const struct ev_event *e, struct buf *out) {
    struct json j;
    json_begin(&j, out);
    json_object(&j);
    put_text(&j, "event", slice_of(ev_kind_word(e->kind)));
    put_text(&j, "id", e->id);
    json_key(&j, "event_time_us");
    json_int(&j, e->event_time_us);
    if (e->arrival_time_us) {
        json_key(&j, "arrival_time_us");
        json_int(&j, e->arrival_time_us);
    }
    put_text(&j, "tenant", e->tenant);
    if (e->kind != EV_ITEM)
        put_text(&j, "user", e->user);
    if (e->kind == EV_RANKING || e->kind == EV_INTERACTION)
        put_text(&j, "session", e->session);
    if (e->kind == EV_ITEM || e->kind == EV_INTERACTION)
        put_text(&j, "item", e->item);
    if (e->kind == EV_INTERACTION) {
        put_text(&j, "type", e->type);
        put_text(&j, "ranking", e->ranking);
    }
    put_fields(&j, e->fields, e->n_fields);
    if (e->kind == EV_RANKING)
        put_shown(&j, e->shown, e->n_shown);
    json_object_end(&j);
}
