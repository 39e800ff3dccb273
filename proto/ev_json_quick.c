/* ev_json_quick.c: the flat JSON form in one pass over its bytes, without a tree: what nearly every
 * line is. Strings borrow from the line.
 *
 * It never says what is wrong. A line with anything out of the ordinary (an escape, a null where a
 * value should be, a nested body, a second unknown key, a number of many digits) is declined, and
 * ev_json.c reads it by the tree and finds the words for what it finds. So this file may be narrow,
 * but where it does not decline it must agree with the tree to the last bit; a test holds the two
 * against each other over good, odd and damaged lines.
 *
 * Numbers: up to 19 digits in an integer, then one exact multiplication or division by a power of
 * ten where both are exact in a double (Clinger, "How to Read Floating Point Numbers Accurately",
 * 1990, the fast case); strtod for the others. */
#include <math.h>
#include <stdlib.h>
#include "base/iso.h"
#include "proto/wire.h"

struct scan {
    const char *p, *end;
    struct arena *a;
};

/* ---- tokens ---- */

static inline void space(struct scan *s) {
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r'))
        s->p++;
}

static inline bool take(struct scan *s, char c) {
    space(s);
    if (s->p == s->end || *s->p != c)
        return false;
    s->p++;
    return true;
}

static inline bool next_is(struct scan *s, char c) {
    space(s);
    return s->p < s->end && *s->p == c;
}

static bool take_word(struct scan *s, const char *word, size_t n) {
    if ((size_t)(s->end - s->p) < n || memcmp(s->p, word, n) != 0)
        return false;
    s->p += n;
    return true;
}

/* A quoted text without escapes. */
static bool text(struct scan *s, struct slice *out) {
    unsigned char high = 0;
    if (!take(s, '"'))
        return false;
    const char *from = s->p, *p = from, *end = s->end;
    for (; p < end && *p != '"'; p++) {
        unsigned char c = (unsigned char)*p;
        if (c < 0x20 || c == '\\')
            return false;
        high |= c;
    }
    if (p == end)
        return false;
    s->p = p + 1;
    *out = (struct slice){from, (size_t)(p - from)};
    return high < 0x80 || ev_check_text(EV_AT(""), *out) == STATUS_OK;
}

static bool by_strtod(struct slice s, double *out) {
    char digits[48];
    if (s.n >= sizeof digits)
        return false;
    memcpy(digits, s.p, s.n);
    digits[s.n] = '\0';
    *out = strtod(digits, NULL);
    return isfinite(*out);
}

/* Digits into `mantissa`, as long as it holds them; how many there were. */
static inline int digits(struct scan *s, uint64_t *mantissa) {
    const char *from = s->p;
    for (; s->p < s->end && (unsigned char)(*s->p - '0') < 10; s->p++)
        *mantissa = *mantissa * 10 + (uint64_t)(*s->p - '0');
    return s->p - from < 20 ? (int)(s->p - from) : 20;
}

static bool exponent(struct scan *s, int *out) {
    uint64_t v = 0;
    s->p++;
    bool minus = s->p < s->end && *s->p == '-';
    if (minus || (s->p < s->end && *s->p == '+'))
        s->p++;
    int n = digits(s, &v);
    *out += minus ? -(int)v : (int)v;
    return n > 0 && n < 5;
}

/* JSON's grammar, and no more than it. */
static bool number(struct scan *s, double *out) {
    static const double tens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                  1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                  1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    const char *from = s->p;
    uint64_t mantissa = 0;
    int power = 0;
    bool minus = s->p < s->end && *s->p == '-';
    s->p += minus;
    bool zero = s->p < s->end && *s->p == '0';
    int n = digits(s, &mantissa), n_part = 0;
    if (n == 0 || (zero && n > 1))
        return false;
    if (s->p < s->end && *s->p == '.') {
        s->p++;
        n_part = digits(s, &mantissa);
        if (n_part == 0)
            return false;
        power = -n_part;
    }
    if (s->p < s->end && (*s->p | 32) == 'e' && !exponent(s, &power))
        return false;
    if (n + n_part > 19 || mantissa > 1ull << 53 || power < -22 || power > 22)
        return by_strtod((struct slice){from, (size_t)(s->p - from)}, out);
    double v = (double)mantissa;
    v = power < 0 ? v / tens[-power] : v * tens[power];
    *out = minus ? -v : v;
    return true;
}

/* ---- fields ---- */

static bool list(struct scan *s, struct ev_value *out) {
    struct slice texts[EV_LIST_MAX];
    double numbers[EV_LIST_MAX];
    int n = 0;
    space(s);
    bool is_text = s->p < s->end && (*s->p == '"' || *s->p == ']');
    if (!take(s, ']')) {
        do {
            space(s);
            if (n == EV_LIST_MAX || !(is_text ? text(s, &texts[n]) : number(s, &numbers[n])))
                return false;
            n++;
        } while (take(s, ','));
        if (!take(s, ']'))
            return false;
    }
    size_t bytes = (size_t)n * (is_text ? sizeof *texts : sizeof *numbers);
    void *v = arena_alloc(s->a, bytes);
    memcpy(v, is_text ? (void *)texts : (void *)numbers, bytes);
    if (is_text)
        *out = (struct ev_value){.type = EV_STRINGS, .strings = {v, n}};
    else
        *out = (struct ev_value){.type = EV_NUMBERS, .numbers = {v, n}};
    return true;
}

static bool value(struct scan *s, struct ev_value *out) {
    space(s);
    switch (s->p < s->end ? *s->p : '\0') {
    case '"':
        out->type = EV_STRING;
        return text(s, &out->string);
    case 't':
    case 'f':
        out->type = EV_BOOL;
        out->boolean = *s->p == 't';
        return out->boolean ? take_word(s, "true", 4) : take_word(s, "false", 5);
    case '[':
        s->p++;
        return list(s, out);
    default:
        out->type = EV_NUMBER;
        return number(s, &out->number);
    }
}

/* {"name": ..., "value": ...}, in either order. */
static bool field(struct scan *s, struct ev_field *out) {
    bool named = false, valued = false;
    struct slice key;
    if (!take(s, '{'))
        return false;
    do {
        if (!text(s, &key) || !take(s, ':'))
            return false;
        if (!named && slice_equal(key, SLICE_LIT("name")))
            named = text(s, &out->name);
        else if (!valued && slice_equal(key, SLICE_LIT("value")))
            valued = value(s, &out->value);
        else
            return false;
    } while (take(s, ','));
    return named && valued && take(s, '}');
}

static bool fields(struct scan *s, const struct ev_field **out, int *n_out) {
    struct ev_field found[EV_FIELDS_MAX];
    int n = 0;
    if (!take(s, '['))
        return false;
    if (!take(s, ']')) {
        do {
            if (n == EV_FIELDS_MAX || !field(s, &found[n]))
                return false;
            n++;
        } while (take(s, ','));
        if (!take(s, ']'))
            return false;
    }
    if (n > 0)
        *out =
            memcpy(arena_alloc(s->a, (size_t)n * sizeof *found), found, (size_t)n * sizeof *found);
    *n_out = n;
    return true;
}

/* ---- shown items ---- */

/* A value of a key that is not ours: of a plain one the rest of the object can be read. */
static bool pass_over(struct scan *s) {
    struct ev_value v;
    space(s);
    return s->p < s->end && *s->p != '[' && (*s->p == 'n' ? take_word(s, "null", 4) : value(s, &v));
}

static bool shown_one(struct scan *s, struct ev_shown *out) {
    unsigned seen = 0;
    *out = (struct ev_shown){0};
    if (!take(s, '{'))
        return false;
    do {
        struct slice key;
        double propensity;
        unsigned bit = 8;
        if (!text(s, &key) || !take(s, ':'))
            return false;
        if (slice_equal(key, SLICE_LIT("id")) || slice_equal(key, SLICE_LIT("item"))) {
            bit = 1;
            if (!text(s, &out->item))
                return false;
        } else if (slice_equal(key, SLICE_LIT("fields"))) {
            bit = 2;
            if (!fields(s, &out->fields, &out->n_fields))
                return false;
        } else if (slice_equal(key, SLICE_LIT("propensity"))) {
            bit = 4;
            space(s);
            if (!number(s, &propensity))
                return false;
            out->propensity = (float)propensity;
        } else if (!pass_over(s)) {
            return false;
        }
        if (seen & bit)
            return false;
        seen |= bit;
    } while (take(s, ','));
    return take(s, '}');
}

static bool shown(struct scan *s, struct ev_event *e) {
    struct ev_shown *to = NULL;
    int n = 0, cap = 0;
    if (!take(s, '['))
        return false;
    do {
        if (n == EV_SHOWN_MAX)
            return false;
        if (n == cap) {
            struct ev_shown *old = to;
            cap = cap == 0 ? 32 : 2 * cap;
            to = arena_alloc(s->a, (size_t)cap * sizeof *to);
            if (n > 0)
                memcpy(to, old, (size_t)n * sizeof *to);
        }
        if (!shown_one(s, &to[n]))
            return false;
        n++;
    } while (take(s, ','));
    e->shown = to;
    e->n_shown = n;
    return take(s, ']');
}

/* ---- the event ---- */

static bool kind(struct scan *s, struct ev_event *e) {
    struct slice word;
    if (!text(s, &word))
        return false;
    for (enum ev_kind k = EV_ITEM; k <= EV_INTERACTION; k++)
        if (slice_is(word, ev_kind_word(k)))
            e->kind = k;
    return e->kind != 0;
}

/* Digits, quoted or not, or (of milliseconds) a quoted ISO 8601 moment. */
static bool moment(struct scan *s, int64_t unit_us, int64_t *out) {
    uint64_t v = 0;
    struct scan inside = {NULL, NULL, NULL};
    struct slice word;
    int ahead_s;
    if (!next_is(s, '"')) {
        bool zero = s->p < s->end && *s->p == '0';
        int n = digits(s, &v);
        char after = s->p < s->end ? *s->p : '\0';
        if (n == 0 || n > 18 || zero || after == '.' || (after | 32) == 'e')
            return false;
    } else {
        if (!text(s, &word))
            return false;
        inside = (struct scan){word.p, word.p + word.n, NULL};
        int n = digits(&inside, &v);
        if (n == 0 || n > 18 || inside.p != inside.end)
            return unit_us == 1000 && iso_parse(word, out, &ahead_s);
    }
    return !__builtin_mul_overflow((int64_t)v, unit_us, out);
}

enum {
    SEEN_EVENT = 1,
    SEEN_ID = 2,
    SEEN_TIME = 4,
    SEEN_ARRIVAL = 8,
    SEEN_TENANT = 16,
    SEEN_FIELDS = 32,
    SEEN_ITEM = 64,
    SEEN_USER = 128,
    SEEN_RANKING = 256,
    SEEN_SESSION = 512,
    SEEN_TYPE = 1024,
    SEEN_ITEMS = 2048,
    SEEN_OTHER = 4096
};

/* What the key is, and of a text where it goes. */
static unsigned key_of(struct slice key, struct ev_event *e, struct slice **text_to) {
#define NAMED(word, bit, to)                                                                       \
    if (memcmp(key.p, (word), sizeof(word) - 1) == 0) {                                            \
        *text_to = (to);                                                                           \
        return (bit);                                                                              \
    }
    *text_to = NULL;
    switch (key.n) {
    case 2:
        NAMED("id", SEEN_ID, &e->id)
        break;
    case 4:
        NAMED("user", SEEN_USER, &e->user)
        NAMED("item", SEEN_ITEM, &e->item)
        NAMED("type", SEEN_TYPE, &e->type)
        break;
    case 5:
        NAMED("event", SEEN_EVENT, NULL)
        NAMED("items", SEEN_ITEMS, NULL)
        break;
    case 6:
        NAMED("fields", SEEN_FIELDS, NULL)
        NAMED("tenant", SEEN_TENANT, &e->tenant)
        break;
    case 7:
        NAMED("session", SEEN_SESSION, &e->session)
        NAMED("ranking", SEEN_RANKING, &e->ranking)
        break;
    case 9:
        NAMED("timestamp", SEEN_TIME, NULL)
        break;
    case 13:
        NAMED("event_time_us", SEEN_TIME, NULL)
        break;
    case 15:
        NAMED("arrival_time_us", SEEN_ARRIVAL, NULL)
        break;
    default:
        break;
    }
#undef NAMED
    return SEEN_OTHER;
}

static bool read_key(struct scan *s, struct slice name, struct ev_event *e, unsigned *seen) {
    struct slice *to;
    unsigned bit = key_of(name, e, &to);
    if (*seen & bit)
        return false;
    *seen |= bit;
    if (to != NULL)
        return next_is(s, 'n') ? take_word(s, "null", 4) : text(s, to);
    switch (bit) {
    case SEEN_EVENT:
        return kind(s, e);
    case SEEN_TIME:
        return moment(s, name.n == 9 ? 1000 : 1, &e->event_time_us);
    case SEEN_ARRIVAL:
        return moment(s, 1, &e->arrival_time_us);
    case SEEN_FIELDS:
        return fields(s, &e->fields, &e->n_fields);
    case SEEN_ITEMS:
        return shown(s, e);
    default: /* another spelling of ours, or a body, is for the tree */
        return !slice_is(name, "eventTimeUs") && !slice_is(name, "arrivalTimeUs") &&
               !slice_is(name, "interaction") && pass_over(s);
    }
}

bool ev_json_quick(struct arena *a, struct slice line, struct ev_event *out) {
    struct scan s = {line.p, line.p + line.n, a};
    struct ev_event e = {0};
    unsigned seen = 0;
    if (!take(&s, '{'))
        return false;
    do {
        struct slice key;
        if (!text(&s, &key) || !take(&s, ':') || !read_key(&s, key, &e, &seen))
            return false;
    } while (take(&s, ','));
    if (!take(&s, '}'))
        return false;
    space(&s);
    *out = e;
    return s.p == s.end;
}
