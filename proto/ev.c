/* ev.c: events at hand: telling the two encodings apart, and reading fields. */
#include "proto/ev.h"
#include <math.h>
#include <stdlib.h>

struct slice ev_key(const struct ev_event *e) {
    if (e->kind == EV_ITEM)
        return e->item;
    if (e->user.n > 0)
        return e->user;
    if (e->session.n > 0)
        return e->session;
    if (e->kind == EV_RANKING)
        return e->id;
    return e->ranking.n > 0 ? e->ranking : e->item;
}

const char *ev_kind_word(enum ev_kind k) {
    switch (k) {
    case EV_ITEM:
        return "item";
    case EV_USER:
        return "user";
    case EV_RANKING:
        return "ranking";
    case EV_INTERACTION:
        return "interaction";
    }
    return "no kind";
}

const struct ev_value *ev_field_get(const struct ev_field *fields, int n, const char *name) {
    struct slice want = slice_of(name);
    for (int i = n - 1; i >= 0; i--)
        if (slice_equal(fields[i].name, want))
            return &fields[i].value;
    return NULL;
}

/* Decimal only: strtod would also take "inf", "nan" and hexadecimal. */
static bool number_of(struct slice s, double *out) {
    char digits[64], *end;
    if (s.n == 0 || s.n >= sizeof digits)
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (!memchr("+-.0123456789eE", s.p[i], 15))
            return false;
    memcpy(digits, s.p, s.n);
    digits[s.n] = '\0';
    double v = strtod(digits, &end);
    if (*end || !isfinite(v))
        return false;
    *out = v;
    return true;
}

bool ev_value_number(const struct ev_value *v, double *out) {
    switch (v->type) {
    case EV_BOOL:
        *out = v->boolean;
        return true;
    case EV_NUMBER:
        *out = v->number;
        return true;
    case EV_STRING:
        return number_of(v->string, out);
    default:
        return false;
    }
}

/* '{' would be field 15 with a wire type protobuf no longer has. Of JSON's white space, tab, return
 * and space are tags no Event has, but a newline is the tag of `id`: "\n{" also begins an event
 * with an id of 123 bytes, so behind a newline whatever decodes is right. A byte order mark is
 * JSON's: its first byte would be field 29 with such a wire type, too. */
enum status ev_decode(struct arena *a, struct slice bytes, struct ev_event *out) {
    size_t i = 0;
    if (bytes.n > 3 && memcmp(bytes.p, "\xEF\xBB\xBF", 3) == 0)
        return ev_decode_json(a, bytes, out);
    while (i < bytes.n && memchr(" \t\r\n", bytes.p[i], 4))
        i++;
    if (i == bytes.n || bytes.p[i] != '{')
        return ev_decode_proto(a, bytes, out);
    if (!memchr(bytes.p, '\n', i))
        return ev_decode_json(a, bytes, out);
    if (ev_decode_proto(a, bytes, out) == STATUS_OK)
        return STATUS_OK;
    enum status s = ev_decode_json(a, bytes, out);
    return s == STATUS_DATA_LOSS ? ev_decode_proto(a, bytes, out) : s;
}
