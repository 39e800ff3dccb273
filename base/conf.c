/* conf.c: reading settings by table.
 *
 * Every value, whether from a file, a default or the command line, goes through the same setters;
 * bounds hold for all of them, so a default out of bounds cannot hide (an assert finds it).
 * min == max means no bounds. Deliberately no nesting: a section is a table of its own. */
#include "base/conf.h"
#include <assert.h>
#include <stdio.h>
#include "base/conf_parts.h"
#include "base/node_build.h"

/* One value being set: what the message needs, and where the result goes. */
struct target {
    const struct conf_item *item;
    struct conf_place place;
    int line; /* 0: not from a file */
    void *field;
    struct arena *a;
};

static enum status fail_at(struct conf_place place, int line, struct slice key, const char *why) {
    char at[24] = "";
    if (line > 0)
        snprintf(at, sizeof at, ":%d", line);
    bool section = place.section && *place.section;
    return fail(STATUS_INVALID_ARGUMENT, "%s%s: %s%s%.*s: %s", place.file ? place.file : "settings",
                at, section ? place.section : "", section ? "." : "", SLICE_ARG(key), why);
}

static enum status fail_item(const struct target *t, const char *why) {
    return fail_at(t->place, t->line, slice_of(t->item->key), why);
}

static const char *form_of(enum conf_type type) {
    switch (type) {
    case CONF_TYPE_BOOL:
        return "true or false";
    case CONF_TYPE_INT:
        return "a whole number";
    case CONF_TYPE_FLOAT:
    case CONF_TYPE_NUMBERS:
        return "a number";
    case CONF_TYPE_TIME:
    case CONF_TYPE_TIMES:
        return "a time with its unit (us, ms, s, m, h, d), as in 250ms";
    case CONF_TYPE_BYTES:
        return "a size in bytes (B, KiB, MiB, GiB, TiB), as in 64MiB";
    default:
        return "a string";
    }
}

static enum status fail_form(const struct target *t, struct slice got) {
    return fail_item(
        t, arena_printf(t->a, "'%.*s' is not %s", SLICE_ARG(got), form_of(t->item->type)));
}

/* Bounds as the value itself is written. */
static const char *bound_text(const struct target *t, double bound) {
    bool is_time = t->item->type == CONF_TYPE_TIME || t->item->type == CONF_TYPE_TIMES;
    if (!is_time && t->item->type != CONF_TYPE_BYTES)
        return arena_printf(t->a, "%.15g", bound);
    const struct conf_unit *u = is_time ? conf_time_units : conf_byte_units;
    while (u[1].word && (bound < u->size || (int64_t)bound % (int64_t)u->size != 0))
        u++;
    return arena_printf(t->a, "%.15g%s", bound / u->size, u->word);
}

static enum status check_bounds(const struct target *t, double v, struct slice got) {
    const struct conf_item *item = t->item;
    if (item->min >= item->max || (v >= item->min && v <= item->max))
        return STATUS_OK;
    const char *lo = bound_text(t, item->min), *hi = bound_text(t, item->max);
    return fail_item(t,
                     arena_printf(t->a, "%.*s is not between %s and %s", SLICE_ARG(got), lo, hi));
}

static enum status parse_number(const struct target *t, struct slice text, double *out) {
    double v;
    if (!node_number(text, &v))
        return fail_form(t, text);
    TRY(check_bounds(t, v, text));
    *out = v;
    return STATUS_OK;
}

static enum status parse_whole(const struct target *t, struct slice text, int64_t *out) {
    enum conf_type type = t->item->type;
    int64_t v;
    bool ok = type == CONF_TYPE_INT     ? conf_parse_int(text, &v)
              : type == CONF_TYPE_BYTES ? conf_parse_unit(text, conf_byte_units, true, &v)
                                        : conf_parse_unit(text, conf_time_units, false, &v);
    if (!ok)
        return fail_form(t, text);
    TRY(check_bounds(t, (double)v, text));
    *out = v;
    return STATUS_OK;
}

static enum status set_bool(const struct target *t, struct slice text) {
    bool yes = slice_is(text, "true") || slice_is(text, "True") || slice_is(text, "TRUE");
    bool no = slice_is(text, "false") || slice_is(text, "False") || slice_is(text, "FALSE");
    if (!yes && !no)
        return fail_form(t, text);
    *(bool *)t->field = yes;
    return STATUS_OK;
}

static enum status set_enum(const struct target *t, struct slice text) {
    int index = conf_choice_index(t->item->choices, text);
    if (index < 0)
        return fail_item(
            t, arena_printf(t->a, "'%.*s' is not one of %s", SLICE_ARG(text), t->item->choices));
    *(int *)t->field = index;
    return STATUS_OK;
}

static enum status set_scalar(const struct target *t, struct slice text) {
    switch (t->item->type) {
    case CONF_TYPE_BOOL:
        return set_bool(t, text);
    case CONF_TYPE_ENUM:
        return set_enum(t, text);
    case CONF_TYPE_FLOAT:
        return parse_number(t, text, t->field);
    case CONF_TYPE_STRING:
        *(const char **)t->field = arena_strdup(t->a, text);
        return STATUS_OK;
    default:
        return parse_whole(t, text, t->field);
    }
}

/* `n` texts into a list field; all element types are eight bytes wide, or a pointer. */
static enum status set_list(const struct target *t, const struct slice *texts, int n) {
    double *numbers = NULL;
    int64_t *times = NULL;
    const char **strings = NULL;
    switch (t->item->type) {
    case CONF_TYPE_NUMBERS:
        numbers = ARENA_ARRAY(t->a, double, n);
        for (int i = 0; i < n; i++)
            TRY(parse_number(t, texts[i], &numbers[i]));
        *(struct conf_numbers *)t->field = (struct conf_numbers){numbers, n};
        return STATUS_OK;
    case CONF_TYPE_TIMES:
        times = ARENA_ARRAY(t->a, int64_t, n);
        for (int i = 0; i < n; i++)
            TRY(parse_whole(t, texts[i], &times[i]));
        *(struct conf_times *)t->field = (struct conf_times){times, n};
        return STATUS_OK;
    default:
        strings = ARENA_ARRAY(t->a, const char *, n);
        for (int i = 0; i < n; i++)
            strings[i] = arena_strdup(t->a, texts[i]);
        *(struct conf_strings *)t->field = (struct conf_strings){strings, n};
        return STATUS_OK;
    }
}

static bool is_list(const struct conf_item *item) {
    return item->type == CONF_TYPE_STRINGS || item->type == CONF_TYPE_NUMBERS ||
           item->type == CONF_TYPE_TIMES;
}

static struct slice trim(struct slice s) {
    while (s.n && strchr(" \t\r\n", s.p[0]) && s.p[0])
        s.p++, s.n--;
    while (s.n && strchr(" \t\r\n", s.p[s.n - 1]) && s.p[s.n - 1])
        s.n--;
    return s;
}

/* "a, b" or "[a, b]" */
static enum status set_list_text(const struct target *t, struct slice text) {
    text = trim(text);
    if (text.n >= 2 && text.p[0] == '[' && text.p[text.n - 1] == ']')
        text = trim((struct slice){text.p + 1, text.n - 2});
    int n = text.n > 0;
    for (size_t i = 0; i < text.n; i++)
        n += text.p[i] == ',';
    struct slice *texts = ARENA_ARRAY(t->a, struct slice, n);
    for (int i = 0; i < n; i++) {
        const char *comma = memchr(text.p, ',', text.n);
        size_t length = comma ? (size_t)(comma - text.p) : text.n;
        texts[i] = trim((struct slice){text.p, length});
        text.p += length + (comma != NULL);
        text.n -= length + (comma != NULL);
    }
    return set_list(t, texts, n);
}

static enum status set_text(const struct target *t, struct slice text) {
    return is_list(t->item) ? set_list_text(t, text) : set_scalar(t, trim(text));
}

static enum status set_list_node(const struct target *t, const struct node *n) {
    if (n->type == NODE_MAP || n->type == NODE_NULL)
        return fail_item(t, "must be a list, as in [a, b]");
    if (n->type != NODE_LIST) /* a value alone is a list of one */
        return set_list(t, &n->text, 1);
    struct slice *texts = ARENA_ARRAY(t->a, struct slice, n->n);
    int i = 0;
    for (const struct node *c = n->first; c; c = c->next) {
        if (c->type == NODE_LIST || c->type == NODE_MAP || c->type == NODE_NULL)
            return fail_item(
                t, arena_printf(t->a, "element %d is a %s", i + 1, node_type_word(c->type)));
        texts[i++] = c->text;
    }
    return set_list(t, texts, i);
}

static enum status set_node(const struct target *t, const struct node *n) {
    if (is_list(t->item))
        return set_list_node(t, n);
    if (n->type == NODE_LIST || n->type == NODE_MAP || n->type == NODE_NULL)
        return fail_item(t, arena_printf(t->a, "must be %s, not %s", form_of(t->item->type),
                                         n->type == NODE_NULL   ? "nothing"
                                         : n->type == NODE_LIST ? "a list"
                                                                : "a map"));
    if (t->item->type == CONF_TYPE_BOOL && n->type == NODE_STRING)
        return fail_form(t, n->text); /* "true" in quotes is a string */
    return set_scalar(t, n->text);
}

static struct target target_of(const struct conf_item *item, struct conf_place place, int line,
                               void *out, struct arena *a) {
    return (struct target){item, place, line, (char *)out + item->offset, a};
}

static const struct conf_item *find_item(const struct conf_item *items, struct slice key) {
    for (; items->key; items++)
        if (slice_is(key, items->key))
            return items;
    return NULL;
}

static enum status fail_unknown(const struct conf_item *items, const char *const *also,
                                struct slice key, struct conf_place place, int line,
                                struct arena *a) {
    size_t n = 0;
    for (const struct conf_item *i = items; i->key; i++)
        n++;
    for (const char *const *w = also; w && *w; w++)
        n++;
    const char **words = ARENA_ARRAY(a, const char *, n + 1);
    n = 0;
    for (const struct conf_item *i = items; i->key; i++)
        words[n++] = i->key;
    for (const char *const *w = also; w && *w; w++)
        words[n++] = *w;
    const char *near = conf_nearest(key, words);
    return fail_at(place, line, key,
                   near ? arena_printf(a, "unknown key; did you mean '%s'?", near) : "unknown key");
}

void conf_defaults(const struct conf_item *items, void *out, struct arena *a) {
    for (const struct conf_item *item = items; item->key; item++) {
        if (!item->value_default)
            continue;
        struct target t = target_of(item, (struct conf_place){"default", NULL}, 0, out, a);
        enum status s = set_text(&t, slice_of(item->value_default));
        if (s != STATUS_OK)
            fprintf(stderr, "moerank: settings table: %s\n", status_message());
        assert(s == STATUS_OK && "a default must be a legal value");
    }
}

static enum status check_missing(const struct conf_item *items, const struct node *map,
                                 struct conf_place place) {
    for (const struct conf_item *item = items; item->key; item++)
        if (!item->value_default && !node_get(map, item->key))
            return fail_at(place, map ? map->line : 0, slice_of(item->key),
                           "must be given; it has no default");
    return STATUS_OK;
}

static bool is_word_of(struct slice s, const char *const *words) {
    for (; words && *words; words++)
        if (slice_is(s, *words))
            return true;
    return false;
}

enum status conf_read(const struct conf_item *items, const struct node *map,
                      struct conf_place place, const char *const *also, void *out,
                      struct arena *a) {
    conf_defaults(items, out, a);
    if (map && map->type == NODE_NULL)
        map = NULL;
    if (map && map->type != NODE_MAP)
        return fail_at(place, map->line, slice_of("*"), "must be a map of settings");
    for (const struct node *c = map ? map->first : NULL; c; c = c->next) {
        const struct conf_item *item = find_item(items, c->key);
        if (!item && is_word_of(c->key, also))
            continue;
        if (!item)
            return fail_unknown(items, also, c->key, place, c->key_line, a);
        struct target t = target_of(item, place, c->line ? c->line : c->key_line, out, a);
        TRY(set_node(&t, c));
    }
    return check_missing(items, map, place);
}

enum status conf_set(const struct conf_item *items, struct slice key, struct slice value,
                     struct conf_place place, void *out, struct arena *a) {
    const struct conf_item *item = find_item(items, key);
    if (!item)
        return fail_unknown(items, NULL, key, place, 0, a);
    struct target t = target_of(item, place, 0, out, a);
    return set_text(&t, value);
}
