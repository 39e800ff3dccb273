/* ev_json.c: events as JSON lines.
 *
 * Two forms are read, and may be mixed: the flat one, as Metarank has it,
 *     {"event":"interaction","id":"k1","timestamp":1700000000000,"user":"u1","item":"i1",...}
 * and protobuf's JSON of moerank.v1.Event, with a nested body,
 *     {"id":"k1","eventTimeUs":"1700000000000000","interaction":{"user":"u1",...}}
 * One is written: the flat form with event_time_us. Keys nobody knows are skipped, as protobuf
 * skips fields; null is the same as leaving out; a key given twice is an error, in both forms.
 *
 * Plain lines of the flat form are read by ev_json_quick.c; this file reads all others, by a tree,
 * and finds what is wrong with the wrong ones. */
#include <math.h>
#include "base/iso.h"
#include "base/node.h"
#include "proto/wire.h"

/* ---- keys ---- */

enum key {
    KEY_NONE, /* not ours */
    KEY_EVENT,
    KEY_ID,
    KEY_TIMESTAMP,
    KEY_EVENT_TIME,
    KEY_ARRIVAL_TIME,
    KEY_TENANT,
    KEY_FIELDS,
    KEY_ITEM,
    KEY_USER,
    KEY_RANKING,
    KEY_INTERACTION,
    KEY_SESSION,
    KEY_TYPE,
    KEY_ITEMS,
};

static enum key key_of(struct slice s) {
#define NAMED(name, key)                                                                           \
    if (slice_is(s, (name)))                                                                       \
        return (key);
    NAMED("event", KEY_EVENT)
    NAMED("id", KEY_ID)
    NAMED("timestamp", KEY_TIMESTAMP)
    NAMED("event_time_us", KEY_EVENT_TIME)
    NAMED("eventTimeUs", KEY_EVENT_TIME)
    NAMED("arrival_time_us", KEY_ARRIVAL_TIME)
    NAMED("arrivalTimeUs", KEY_ARRIVAL_TIME)
    NAMED("tenant", KEY_TENANT)
    NAMED("fields", KEY_FIELDS)
    NAMED("item", KEY_ITEM)
    NAMED("user", KEY_USER)
    NAMED("ranking", KEY_RANKING)
    NAMED("interaction", KEY_INTERACTION)
    NAMED("session", KEY_SESSION)
    NAMED("type", KEY_TYPE)
    NAMED("items", KEY_ITEMS)
#undef NAMED
    return KEY_NONE;
}

/* ---- scalars ---- */

static enum status wrong_type(const char *what, const char *want, const struct node *n) {
    return fail(STATUS_INVALID_ARGUMENT, "%s must be a %s (got %s)", what, want,
                node_type_word(n->type));
}

static enum status string_of(const struct node *n, const char *what, struct slice *out) {
    if (n->type != NODE_STRING)
        return wrong_type(what, "string", n);
    *out = n->text;
    return STATUS_OK;
}

/* The digits as written, so that no int64 passes through a double. */
static bool whole_number(struct slice s, int64_t *out) {
    bool minus = s.n && s.p[0] == '-';
    int64_t v = 0;
    if (s.n == minus)
        return false;
    for (size_t i = minus; i < s.n; i++) {
        int digit = s.p[i] - '0';
        if (digit < 0 || digit > 9 || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, minus ? -digit : digit, &v))
            return false;
    }
    *out = v;
    return true;
}

/* A number or a string of digits; `unit_us` microseconds each. Only milliseconds may have
 * fractions, and 1.7e12 is whole; and in their place ISO 8601 may stand. */
static enum status time_of(const struct node *n, const char *what, int64_t unit_us, int64_t *out) {
    int64_t v;
    if (n->type != NODE_NUMBER && n->type != NODE_STRING)
        return wrong_type(what, "number", n);
    if (whole_number(n->text, &v)) {
        if (__builtin_mul_overflow(v, unit_us, out))
            return fail(STATUS_INVALID_ARGUMENT, "%s is out of range (got %.*s)", what,
                        SLICE_ARG(n->text));
        return STATUS_OK;
    }
    int ahead_s;
    if (n->type == NODE_STRING && unit_us == 1000 && iso_parse(n->text, out, &ahead_s))
        return STATUS_OK;
    double us = n->number * (double)unit_us;
    if (n->type == NODE_STRING || fabs(us) > 9e18 || (unit_us == 1 && us != floor(us)))
        return fail(STATUS_INVALID_ARGUMENT, "%s must be a whole number%s (got '%.*s')", what,
                    unit_us == 1000 ? " of milliseconds or ISO 8601" : "", SLICE_ARG(n->text));
    *out = llround(us);
    return STATUS_OK;
}

/* ---- the event ---- */

struct reader {
    struct arena *a;
    struct ev_event e;
    unsigned seen; /* bit per key, over both forms */
};

static enum status set_kind(struct reader *r, enum ev_kind k) {
    if (r->e.kind && r->e.kind != k)
        return fail(STATUS_INVALID_ARGUMENT, "two kinds: %s and %s", ev_kind_word(r->e.kind),
                    ev_kind_word(k));
    r->e.kind = k;
    return STATUS_OK;
}

static enum status kind_by_word(struct reader *r, const struct node *n) {
    struct slice word;
    TRY(string_of(n, "event", &word));
    for (enum ev_kind k = EV_ITEM; k <= EV_INTERACTION; k++)
        if (slice_is(word, ev_kind_word(k)))
            return set_kind(r, k);
    return fail(STATUS_INVALID_ARGUMENT,
                "event must be item, user, ranking or interaction (got '%.*s')", SLICE_ARG(word));
}

static enum status shown_one(struct arena *a, const struct node *n, struct ev_shown *out) {
    if (n->type != NODE_MAP)
        return wrong_type("item", "map", n);
    for (const struct node *c = n->first; c; c = c->next) {
        if (c->type == NODE_NULL)
            continue;
        if (slice_is(c->key, "id") || slice_is(c->key, "item")) {
            if (out->item.p)
                return fail(STATUS_INVALID_ARGUMENT, "both id and item are given");
            TRY(string_of(c, "item", &out->item));
        } else if (slice_is(c->key, "propensity")) {
            if (c->type != NODE_NUMBER)
                return wrong_type("propensity", "number", c);
            out->propensity = (float)c->number;
        } else if (slice_is(c->key, "fields")) {
            TRY(ev_json_fields(a, c, &out->fields, &out->n_fields));
        }
    }
    return STATUS_OK;
}

static enum status shown_of(struct reader *r, const struct node *list) {
    if (list->type != NODE_LIST)
        return wrong_type("items", "list", list);
    TRY(ev_check_count(EV_AT("items"), (size_t)list->n, EV_SHOWN_MAX));
    struct ev_shown *to = ARENA_ARRAY(r->a, struct ev_shown, list->n);
    int i = 0;
    for (const struct node *n = list->first; n; n = n->next, i++) {
        enum status s = shown_one(r->a, n, &to[i]);
        if (s != STATUS_OK)
            return fail_in(s, "items[%d]", i);
    }
    r->e.shown = to;
    r->e.n_shown = i;
    return STATUS_OK;
}

static enum status once(struct reader *r, enum key key, struct slice name) {
    unsigned bit = 1u << (key == KEY_TIMESTAMP ? KEY_EVENT_TIME : key);
    if (r->seen & bit)
        return fail(STATUS_INVALID_ARGUMENT, "%.*s is given twice%s", SLICE_ARG(name),
                    bit == 1u << KEY_EVENT_TIME ? " (timestamp and event_time_us are one)" : "");
    r->seen |= bit;
    return STATUS_OK;
}

static enum status read_key(struct reader *r, enum key key, const struct node *n) {
    struct ev_event *e = &r->e;
    switch (key) {
    case KEY_EVENT:
        return kind_by_word(r, n);
    case KEY_ID:
        return string_of(n, "id", &e->id);
    case KEY_TIMESTAMP:
        return time_of(n, "timestamp", 1000, &e->event_time_us);
    case KEY_EVENT_TIME:
        return time_of(n, "event_time_us", 1, &e->event_time_us);
    case KEY_ARRIVAL_TIME:
        return time_of(n, "arrival_time_us", 1, &e->arrival_time_us);
    case KEY_TENANT:
        return string_of(n, "tenant", &e->tenant);
    case KEY_FIELDS:
        return ev_json_fields(r->a, n, &e->fields, &e->n_fields);
    case KEY_ITEM:
        return string_of(n, "item", &e->item);
    case KEY_USER:
        return string_of(n, "user", &e->user);
    case KEY_RANKING:
        return string_of(n, "ranking", &e->ranking);
    case KEY_SESSION:
        return string_of(n, "session", &e->session);
    case KEY_TYPE:
        return string_of(n, "type", &e->type);
    case KEY_ITEMS:
        return shown_of(r, n);
    default:
        return wrong_type("interaction", "map", n);
    }
}

/* "user": "u1" is the flat form, "user": {"user": "u1"} a body. */
static enum ev_kind body_kind(enum key key) {
    return key == KEY_ITEM          ? EV_ITEM
           : key == KEY_USER        ? EV_USER
           : key == KEY_RANKING     ? EV_RANKING
           : key == KEY_INTERACTION ? EV_INTERACTION
                                    : 0;
}

static bool is_body_key(enum key key) {
    return key == KEY_USER || key == KEY_SESSION || key == KEY_ITEM || key == KEY_TYPE ||
           key == KEY_RANKING || key == KEY_ITEMS;
}

static enum status read_body(struct reader *r, enum ev_kind kind, const struct node *body) {
    TRY(set_kind(r, kind));
    for (const struct node *n = body->first; n; n = n->next) {
        enum key key = key_of(n->key);
        if (n->type == NODE_NULL || !is_body_key(key))
            continue;
        TRY(once(r, key, n->key));
        TRY(read_key(r, key, n));
    }
    return STATUS_OK;
}

static enum status read_event(struct reader *r, const struct node *map) {
    for (const struct node *n = map->first; n; n = n->next) {
        enum key key = key_of(n->key);
        if (n->type == NODE_NULL || key == KEY_NONE)
            continue;
        enum ev_kind kind = n->type == NODE_MAP ? body_kind(key) : 0;
        if (kind) {
            TRY(read_body(r, kind, n));
            continue;
        }
        TRY(once(r, key, n->key));
        TRY(read_key(r, key, n));
    }
    return STATUS_OK;
}

/* What the kind has no place for counts as unknown, so that both encodings give one struct. */
static void drop_strangers(struct ev_event *e) {
    const struct slice none = {0};
    if (e->kind == EV_ITEM)
        e->user = none;
    if (e->kind == EV_ITEM || e->kind == EV_USER)
        e->session = none;
    if (e->kind == EV_USER || e->kind == EV_RANKING)
        e->item = none;
    if (e->kind != EV_INTERACTION)
        e->type = e->ranking = none;
    if (e->kind != EV_RANKING) {
        e->shown = NULL;
        e->n_shown = 0;
    }
}

enum status ev_json_by_tree(struct arena *a, struct slice line, struct ev_event *out) {
    struct node *root;
    if (node_parse_json(a, line, "event", &root) != STATUS_OK)
        return fail(STATUS_DATA_LOSS, "%s", status_message());
    if (root->type != NODE_MAP)
        return wrong_type("event", "map", root);
    struct reader r = {.a = a};
    TRY(read_event(&r, root));
    *out = r.e;
    return STATUS_OK;
}

enum status ev_decode_json(struct arena *a, struct slice line, struct ev_event *out) {
    struct ev_event e;
    if (line.n > EV_BYTES_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "event is %zu bytes long (at most %d)", line.n,
                    EV_BYTES_MAX);
    if (!ev_json_quick(a, line, &e))
        TRY(ev_json_by_tree(a, line, &e));
    drop_strangers(&e);
    TRY(ev_check(&e));
    *out = e;
    return STATUS_OK;
}
