/* ev_check.c: what makes an event valid. Every message names the field and the rule it broke.
 *
 * Deliberately not checked: what only state can tell (does the item exist, is the ranking known),
 * and repeated field names (the last one counts, as in protobuf and in Metarank). */
#include <math.h>
#include <stdio.h>
#include "proto/wire.h"

/* ---- text ---- */

/* The length of the UTF-8 character at p: 1..4, or 0 when it is none. RFC 3629, table in section
 * 4: no overlong forms, no surrogates, nothing beyond U+10FFFF. */
static int utf8_length(const unsigned char *p, size_t n) {
    unsigned char c = p[0];
    if (c < 0x80)
        return 1;
    int length = c >= 0xC2 && c <= 0xDF   ? 2
                 : (c & 0xF0) == 0xE0     ? 3
                 : c >= 0xF0 && c <= 0xF4 ? 4
                                          : 0;
    if (length == 0 || n < (size_t)length)
        return 0;
    unsigned char low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80;
    unsigned char high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
    if (p[1] < low || p[1] > high)
        return 0;
    for (int i = 2; i < length; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    return length;
}

/* Position of the first byte that is not UTF-8 or is NUL; s.n when all is well. */
static size_t text_bad_at(struct slice s) {
    const unsigned char *p = (const unsigned char *)s.p;
    size_t i = 0;
    while (i < s.n) {
        uint64_t eight;
        while (s.n - i >= 8) { /* ASCII without NUL, eight at a time */
            memcpy(&eight, p + i, 8);
            if (((eight - 0x0101010101010101u) | eight) & 0x8080808080808080u)
                break;
            i += 8;
        }
        if (i == s.n)
            break;
        int length = p[i] ? utf8_length(p + i, s.n - i) : 0;
        if (length == 0)
            return i;
        i += (size_t)length;
    }
    return s.n;
}

/* ---- places and messages ---- */

enum { PLACE_BYTES = 96 };

static const char *place(char out[PLACE_BYTES], struct ev_at at) {
    if (!at.list)
        return at.leaf;
    if (at.leaf)
        snprintf(out, PLACE_BYTES, "%s[%d].%s", at.list, at.index, at.leaf);
    else
        snprintf(out, PLACE_BYTES, "%s[%d]", at.list, at.index);
    return out;
}

enum status ev_check_text(struct ev_at at, struct slice s) {
    size_t bad = text_bad_at(s);
    if (bad == s.n)
        return STATUS_OK;
    char p[PLACE_BYTES];
    return fail(STATUS_INVALID_ARGUMENT, "%s %s (byte %zu)", place(p, at),
                s.p[bad] ? "is not valid UTF-8" : "holds a NUL", bad);
}

enum status ev_check_id(struct ev_at at, struct slice s, bool required) {
    char p[PLACE_BYTES];
    if (s.n == 0)
        return required ? fail(STATUS_INVALID_ARGUMENT, "%s is empty", place(p, at)) : STATUS_OK;
    if (s.n > EV_ID_BYTES_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "%s is %zu bytes long (at most %d)", place(p, at), s.n,
                    EV_ID_BYTES_MAX);
    return ev_check_text(at, s);
}

enum status ev_check_time(const char *name, int64_t us, bool required) {
    if (us > 0 || (us == 0 && !required))
        return STATUS_OK;
    return fail(STATUS_INVALID_ARGUMENT, "%s must be %s 0 (got %lld)", name,
                required ? ">" : ">=", (long long)us);
}

enum status ev_check_count(struct ev_at at, size_t n, size_t most) {
    if (n <= most)
        return STATUS_OK;
    char p[PLACE_BYTES];
    return fail(STATUS_INVALID_ARGUMENT, "%s: %zu entries (at most %zu)", place(p, at), n, most);
}

/* ---- fields ---- */

static enum status check_number(double v) {
    if (isfinite(v))
        return STATUS_OK;
    return fail(STATUS_INVALID_ARGUMENT, "%s is not a number",
                isnan(v) ? "NaN"
                : v > 0  ? "inf"
                         : "-inf");
}

static enum status check_value(const struct ev_value *v) {
    switch (v->type) {
    case EV_BOOL:
        return STATUS_OK;
    case EV_NUMBER:
        return check_number(v->number);
    case EV_STRING:
        return ev_check_text(EV_AT("value"), v->string);
    case EV_NUMBERS:
        TRY(ev_check_count(EV_AT("value"), (size_t)v->numbers.n, EV_LIST_MAX));
        for (int i = 0; i < v->numbers.n; i++)
            TRY(fail_in(check_number(v->numbers.v[i]), "value[%d]", i));
        return STATUS_OK;
    case EV_STRINGS:
        TRY(ev_check_count(EV_AT("value"), (size_t)v->strings.n, EV_LIST_MAX));
        for (int i = 0; i < v->strings.n; i++)
            TRY(ev_check_text(EV_AT_IN("value", i, NULL), v->strings.v[i]));
        return STATUS_OK;
    }
    return fail(STATUS_INVALID_ARGUMENT, "has no value");
}

enum status ev_check_fields(struct ev_at at, const struct ev_field *fields, int n) {
    TRY(ev_check_count(at, (size_t)n, EV_FIELDS_MAX));
    char p[PLACE_BYTES];
    for (int i = 0; i < n; i++) {
        enum status s = ev_check_id(EV_AT("name"), fields[i].name, true);
        if (s != STATUS_OK)
            return fail_in(s, "%s[%d]", place(p, at), i);
        s = check_value(&fields[i].value);
        if (s != STATUS_OK)
            return fail_in(s, "%s[%d] '%.*s'", place(p, at), i, SLICE_ARG(fields[i].name));
    }
    return STATUS_OK;
}

/* ---- events ---- */

static enum status check_shown(const struct ev_shown *shown, int n) {
    TRY(ev_check_count(EV_AT("items"), (size_t)n, EV_SHOWN_MAX));
    if (n == 0)
        return fail(STATUS_INVALID_ARGUMENT, "items is empty: a ranking shows at least one item");
    for (int i = 0; i < n; i++) {
        float p = shown[i].propensity;
        TRY(ev_check_id(EV_AT_IN("items", i, "item"), shown[i].item, true));
        if (!(p >= 0 && p <= 1))
            return fail(STATUS_INVALID_ARGUMENT, "items[%d].propensity must be in 0..1 (got %g)", i,
                        (double)p);
        TRY(ev_check_fields(EV_AT_IN("items", i, "fields"), shown[i].fields, shown[i].n_fields));
    }
    return STATUS_OK;
}

enum status ev_check(const struct ev_event *e) {
    bool is_item = e->kind == EV_ITEM, is_user = e->kind == EV_USER;
    bool is_interaction = e->kind == EV_INTERACTION;
    if (!is_item && !is_user && !is_interaction && e->kind != EV_RANKING)
        return fail(STATUS_INVALID_ARGUMENT,
                    "no kind: an event is one of item, user, ranking, interaction");
    TRY(ev_check_id(EV_AT("id"), e->id, true));
    TRY(ev_check_time("event_time_us", e->event_time_us, true));
    TRY(ev_check_time("arrival_time_us", e->arrival_time_us, false));
    TRY(ev_check_id(EV_AT("tenant"), e->tenant, false));
    TRY(ev_check_id(EV_AT("user"), e->user, is_user));
    TRY(ev_check_id(EV_AT("session"), e->session, false));
    TRY(ev_check_id(EV_AT("item"), e->item, is_item || is_interaction));
    TRY(ev_check_id(EV_AT("type"), e->type, is_interaction));
    TRY(ev_check_id(EV_AT("ranking"), e->ranking, false));
    TRY(ev_check_fields(EV_AT("fields"), e->fields, e->n_fields));
    return e->kind == EV_RANKING ? check_shown(e->shown, e->n_shown) : STATUS_OK;
}
