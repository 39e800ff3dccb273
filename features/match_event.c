/* match_event.c: which events a feature counts: "TYPE [where FIELD OP VALUE]". One condition only;
 * what needs two conditions is better said by the producer as an event type of its own. */
#include "features/kind.h"
#include <ctype.h>
#include <math.h>
#include <stdlib.h>

static struct slice trim(struct slice s) {
    while (s.n > 0 && isspace((unsigned char)s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && isspace((unsigned char)s.p[s.n - 1]))
        s.n--;
    return s;
}

/* Takes bytes off the front of `s` while they are (not) in `set`. */
static struct slice take_until(struct slice *s, const char *set) {
    struct slice word = {s->p, 0};
    while (word.n < s->n && strchr(set, s->p[word.n]) == NULL)
        word.n++;
    s->p += word.n;
    s->n -= word.n;
    return word;
}

static bool take_op(struct slice *s, struct feat_match *m) {
    static const struct {
        const char *text;
        int op;
    } ops[] = {{"==", FEAT_MATCH_EQ}, {"!=", FEAT_MATCH_NE}, {">=", FEAT_MATCH_GE},
               {"<=", FEAT_MATCH_LE}, {">", FEAT_MATCH_GT},  {"<", FEAT_MATCH_LT}};
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        size_t n = strlen(ops[i].text);
        if (s->n >= n && memcmp(s->p, ops[i].text, n) == 0) {
            m->op = ops[i].op;
            s->p += n;
            s->n -= n;
            return true;
        }
    }
    return false;
}

static bool is_quoted(struct slice s) {
    return s.n >= 2 && (s.p[0] == '"' || s.p[0] == '\'') && s.p[s.n - 1] == s.p[0];
}

/* Does all of `text` read as one finite number? It is NUL-terminated. */
static bool read_number(struct slice text, double *out) {
    char *end;
    double v = strtod(text.p, &end);
    if (text.n == 0 || end != text.p + text.n || !isfinite(v))
        return false;
    *out = v;
    return true;
}

static enum status parse_condition(struct arena *a, struct slice rest, struct feat_match *m) {
    static const char *const form = "write \"TYPE where FIELD OP VALUE\" with OP one of == != >= "
                                    "<= > <";
    struct slice where = take_until(&rest, " \t");
    if (!slice_is(where, "where"))
        return fail(STATUS_INVALID_ARGUMENT, "'%.*s' stands where 'where' should; %s",
                    SLICE_ARG(where), form);
    rest = trim(rest);
    m->field = arena_dup(a, take_until(&rest, " \t=!<>"));
    rest = trim(rest);
    if (m->field.n == 0 || !take_op(&rest, m))
        return fail(STATUS_INVALID_ARGUMENT, "no field and operator after 'where'; %s", form);
    struct slice value = trim(rest);
    if (value.n == 0)
        return fail(STATUS_INVALID_ARGUMENT, "no value after the operator; %s", form);
    bool quoted = is_quoted(value);
    m->text = arena_dup(a, quoted ? (struct slice){value.p + 1, value.n - 2} : value);
    m->is_number = !quoted && read_number(m->text, &m->number);
    if (!m->is_number && m->op != FEAT_MATCH_EQ && m->op != FEAT_MATCH_NE)
        return fail(STATUS_INVALID_ARGUMENT,
                    "'%s' is no number; text is compared by == and !=", m->text.p);
    return STATUS_OK;
}

enum status feat_match_parse(struct arena *a, struct slice text, struct feat_match *out) {
    struct feat_match m = {.op = FEAT_MATCH_ALL};
    struct slice rest = trim(text);
    struct slice type = take_until(&rest, " \t");
    if (type.n == 0)
        return fail(STATUS_INVALID_ARGUMENT,
                    "no event type; write \"TYPE\" or \"TYPE where FIELD OP VALUE\"");
    m.type = arena_dup(a, type);
    m.is_any = slice_is(type, "any");
    m.is_impression = slice_is(type, "impression");
    rest = trim(rest);
    if (rest.n > 0)
        TRY(parse_condition(a, rest, &m));
    *out = m;
    return STATUS_OK;
}

static bool compare(int op, double a, double b) {
    switch (op) {
    case FEAT_MATCH_EQ:
        return a == b;
    case FEAT_MATCH_NE:
        return a != b;
    case FEAT_MATCH_GE:
        return a >= b;
    case FEAT_MATCH_LE:
        return a <= b;
    case FEAT_MATCH_GT:
        return a > b;
    case FEAT_MATCH_LT:
        return a < b;
    default:
        return true;
    }
}

/* Text equality; of a list: does it contain the text? */
static bool has_text(const struct ev_value *v, struct slice text) {
    if (v->type == EV_STRING)
        return slice_equal(v->string, text);
    if (v->type == EV_BOOL)
        return slice_is(text, v->boolean ? "true" : "false");
    for (int i = 0; v->type == EV_STRINGS && i < v->strings.n; i++)
        if (slice_equal(v->strings.v[i], text))
            return true;
    return false;
}

static bool holds(const struct feat_match *m, const struct ev_value *v) {
    double number;
    if (m->is_number && ev_value_number(v, &number))
        return compare(m->op, number, m->number);
    if (m->op == FEAT_MATCH_EQ)
        return has_text(v, m->text);
    if (m->op == FEAT_MATCH_NE)
        return !has_text(v, m->text);
    return false;
}

bool feat_match_event(const struct feat_match *m, const struct ev_event *e,
                      const struct ev_shown *shown) {
    const struct ev_field *fields = e->fields;
    int n_fields = e->n_fields;
    if (e->kind == EV_RANKING) {
        if (shown == NULL || !m->is_impression)
            return false;
        fields = shown->fields;
        n_fields = shown->n_fields;
    } else if (e->kind != EV_INTERACTION || (!m->is_any && !slice_equal(m->type, e->type))) {
        return false;
    }
    if (m->op == FEAT_MATCH_ALL)
        return true;
    const struct ev_value *v = ev_field_get(fields, n_fields, m->field.p);
    if (v == NULL && e->kind == EV_RANKING) /* what the whole ranking says */
        v = ev_field_get(e->fields, e->n_fields, m->field.p);
    return v != NULL && holds(m, v);
}

uint64_t feat_match_count(const struct feat_match *m, const struct feat_update *u) {
    if (u->shown == NULL)
        return feat_match_event(m, u->event, NULL);
    if (!m->is_impression)
        return 0;
    if (m->op == FEAT_MATCH_ALL)
        return (uint64_t)u->n;
    uint64_t n = 0;
    for (int i = 0; i < u->n; i++)
        n += feat_match_event(m, u->event, feat_update_shown(u, i));
    return n;
}
