/* metarank_features.c: Metarank's feature extractors as kinds of features/kinds.def, one function
 * each; those that count events or compare texts are in metarank_history.c. Written after its
 * documentation (doc/configuration/features). Where "field" stands for "source", both are read, as
 * Metarank does.
 *
 * Deliberately literal: a feature becomes the nearest kind with the same columns, not a better one.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "tools/metarank_parts.h"

/* ---- sources ----------------------------------------------------------------------------------
 */

static struct slice source_text(const struct node *f) {
    struct slice s = metarank_text(f, "source");
    return s.n > 0 ? s : metarank_text(f, "field");
}

bool metarank_split(struct slice text, struct metarank_field *out) {
    const char *dot = text.n > 0 ? memchr(text.p, '.', text.n) : NULL;
    if (dot == NULL || dot == text.p || dot + 1 == text.p + text.n)
        return false;
    out->of = (struct slice){text.p, (size_t)(dot - text.p)};
    out->name = (struct slice){dot + 1, (size_t)(text.p + text.n - dot - 1)};
    return true;
}

/* Rankings bear the field per item: told by the sample, without one by its usual name. */
static bool is_shown(const struct metarank *m, struct slice field) {
    static const char *const usual[] = {"relevancy", "relevance", "score", "bm25", "cos", NULL};
    char *word = arena_printf(m->a, "shown.%.*s", SLICE_ARG(field));
    if (m->sample->is_there)
        return tally_find(&m->sample->fields, slice_of(word)) != NULL;
    for (int i = 0; usual[i] != NULL; i++)
        if (slice_is(field, usual[i]))
            return true;
    return false;
}

static bool is_of_items(const struct metarank *m, struct slice field) {
    char *word = arena_printf(m->a, "item.%.*s", SLICE_ARG(field));
    return tally_find(&m->sample->fields, slice_of(word)) != NULL;
}

/* The feature's source in moerank's words, or NULL, and then there is a note. `number`: candidates'
 * own numbers may be read, too. */
const char *metarank_source(struct metarank *m, const struct node *f, struct slice text,
                            bool number) {
    struct metarank_field s;
    const char *name = node_get(f, "name") ? node_get(f, "name")->text.p : "";
    if (!metarank_split(text, &s)) {
        metarank_note(m, f->line, METARANK_LEFT_OUT, "write source: item.FIELD or the like",
                      "%s: source '%.*s' names no field", name, SLICE_ARG(text));
        return NULL;
    }
    bool item = slice_is(s.of, "item") || slice_is(s.of, "metadata");
    bool ranking = slice_is(s.of, "ranking"), by_item = metarank_is(f, "scope", "item");
    if (slice_is(s.name, "timestamp") && !ranking) {
        metarank_note(m, f->line, METARANK_LEFT_OUT, "let events carry the moment as a field",
                      "%s: source %.*s: when an event happened is not remembered", name,
                      SLICE_ARG(text));
        return NULL;
    }
    if ((item || (ranking && by_item)) && number && is_shown(m, s.name))
        return item && (!m->sample->is_there || is_of_items(m, s.name))
                   ? arena_printf(m->a, "candidate.%.*s or item.%.*s", SLICE_ARG(s.name),
                                  SLICE_ARG(s.name))
                   : arena_printf(m->a, "candidate.%.*s", SLICE_ARG(s.name));
    if (item)
        return arena_printf(m->a, "item.%.*s", SLICE_ARG(s.name));
    if (ranking)
        return arena_printf(m->a, "context.%.*s", SLICE_ARG(s.name));
    if (slice_is(s.of, "user"))
        return arena_printf(m->a, "user.%.*s", SLICE_ARG(s.name));
    metarank_note(m, f->line, METARANK_LEFT_OUT,
                  "send it as a field of item, user or ranking events",
                  "%s: source %.*s: a request has no interaction yet", name, SLICE_ARG(text));
    return NULL;
}

/* ---- writing ----------------------------------------------------------------------------------
 */

void metarank_begin(struct metarank *m, const char *name, const char *kind) {
    buf_printf(&m->features, "  - {name: %s, kind: %s", name, kind);
}
void metarank_put(struct metarank *m, const char *format, ...) {
    va_list args;
    char text[400];
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    buf_add_str(&m->features, ", ");
    buf_add_str(&m->features, text);
}
void metarank_put_text(struct metarank *m, const char *key, const char *source) {
    buf_printf(&m->features, ", %s: ", key);
    metarank_quote(&m->features, slice_of(source));
}
static void put_list(struct metarank *m, const char *key, const struct node *list) {
    buf_printf(&m->features, ", %s: [", key);
    for (const struct node *n = list->first; n != NULL; n = n->next) {
        metarank_quote(&m->features, n->text);
        buf_add_str(&m->features, n->next != NULL ? ", " : "");
    }
    buf_add_str(&m->features, "]");
}
void metarank_end(struct metarank *m) {
    buf_add_str(&m->features, "}\n");
    m->n_features++;
}

void metarank_left_out(struct metarank *m, const struct node *f, const char *what,
                       const char *instead) {
    metarank_note(m, f->line, METARANK_LEFT_OUT, instead, "%.*s: %s",
                  SLICE_ARG(metarank_text(f, "name")), what);
}

/* ---- what things are --------------------------------------------------------------------------
 */

static void plain(struct metarank_call c, const char *kind, bool number) {
    const char *source = metarank_source(c.m, c.f, source_text(c.f), number);
    if (source == NULL)
        return;
    metarank_begin(c.m, c.name, kind);
    metarank_put_text(c.m, "source", source);
    metarank_end(c.m);
}

static void number(struct metarank_call c) { plain(c, "number", true); }
static void boolean(struct metarank_call c) { plain(c, "boolean", true); }
static void word_count(struct metarank_call c) { plain(c, "word_count", false); }

/* Documented as `source: item, field: filters`, too. */
static void list_size(struct metarank_call c) {
    struct slice source = metarank_text(c.f, "source"), field = metarank_text(c.f, "field");
    if (source.n == 0 || field.n == 0 || memchr(source.p, '.', source.n) != NULL) {
        plain(c, "list_size", false);
        return;
    }
    char *text = arena_printf(c.m->a, "%.*s.%.*s", SLICE_ARG(source), SLICE_ARG(field));
    const char *from = metarank_source(c.m, c.f, slice_of(text), false);
    if (from == NULL)
        return;
    metarank_begin(c.m, c.name, "list_size");
    metarank_put_text(c.m, "source", from);
    metarank_end(c.m);
}

static void relevancy(struct metarank_call c) {
    metarank_begin(c.m, c.name, "number");
    metarank_put_text(c.m, "source", "candidate.relevancy");
    metarank_end(c.m);
}

static void string(struct metarank_call c) {
    const char *source = metarank_source(c.m, c.f, source_text(c.f), false);
    const struct node *values = node_get(c.f, "values");
    if (source == NULL)
        return;
    if (values == NULL || values->type != NODE_LIST || values->n == 0) {
        metarank_left_out(c.m, c.f, "string without values",
                          "list them, or use kind category with hash");
        return;
    }
    metarank_begin(c.m, c.name, "category");
    metarank_put_text(c.m, "source", source);
    metarank_put(c.m, "encode: %s", metarank_is(c.f, "encode", "onehot") ? "onehot" : "index");
    put_list(c.m, "values", values);
    metarank_end(c.m);
}

/* Reducers that kind vector has; "vectorN" is its `take`. */
static void vector(struct metarank_call c) {
    static const char *const same[] = {"first", "last", "min", "max", "avg", "sum", "size", NULL};
    const char *source = metarank_source(c.m, c.f, source_text(c.f), false);
    const struct node *list = node_get(c.f, "reduce");
    struct buf reduce = {0};
    long take = 0;
    if (source == NULL)
        return;
    const struct node *one = list == NULL || list->type == NODE_LIST ? NULL : list;
    for (const struct node *n = one != NULL    ? one
                                : list != NULL ? list->first
                                               : NULL;
         n != NULL; n = one != NULL ? NULL : n->next) {
        int k = 0;
        while (same[k] != NULL && !slice_is(n->text, same[k]))
            k++;
        if (same[k] != NULL)
            buf_printf(&reduce, "%s%s", reduce.n > 0 ? ", " : "", same[k]);
        else if (slice_is(n->text, "euclidean_distance"))
            buf_printf(&reduce, "%snorm", reduce.n > 0 ? ", " : "");
        else if (n->text.n > 6 && memcmp(n->text.p, "vector", 6) == 0)
            take = strtol(n->text.p + 6, NULL, 10);
        else
            metarank_note(c.m, n->line, METARANK_LEFT_OUT, "take first, avg or another reducer",
                          "%s: reducer %s", c.name, n->text.p);
    }
    metarank_begin(c.m, c.name, "vector");
    metarank_put_text(c.m, "source", source);
    if (reduce.n > 0 || take > 0)
        metarank_put(c.m, "reduce: [%.*s]", (int)reduce.n, reduce.n > 0 ? reduce.p : "");
    if (take > 0)
        metarank_put(c.m, "take: %ld", take);
    metarank_end(c.m);
    buf_deinit(&reduce);
}

/* Both are seconds between the field and now. */
static void age(struct metarank_call c) {
    const char *source = metarank_source(c.m, c.f, source_text(c.f), false);
    if (source == NULL)
        return;
    metarank_begin(c.m, c.name, "time_since");
    metarank_put_text(c.m, "source", source);
    metarank_put(c.m, "scale: raw");
    metarank_end(c.m);
}

static void local_time(struct metarank_call c) {
    static const char *const parts[][2] = {{"time_of_day", "hour"}, {"day_of_week", "weekday"},
                                           {"day_of_month", "day"}, {"month_of_year", "month"},
                                           {"year", "year"},        {NULL, NULL}};
    struct slice parse = metarank_text(c.f, "parse"), text = source_text(c.f);
    int k = 0;
    while (parts[k][0] != NULL && !slice_is(parse, parts[k][0]))
        k++;
    if (parts[k][0] == NULL) {
        metarank_left_out(
            c.m, c.f,
            slice_is(parse, "second") ? "parse: second, the time itself" : "parse: unknown",
            "a model that learns from the time itself does not know tomorrow; leave it out");
        return;
    }
    bool own = text.n == 0 || slice_is(text, "ranking.timestamp");
    const char *source = own ? NULL : metarank_source(c.m, c.f, text, false);
    if (!own && source == NULL)
        return;
    metarank_begin(c.m, c.name, "local_time");
    if (!own)
        metarank_put_text(c.m, "source", source);
    metarank_put(c.m, "parts: [%s]", parts[k][1]);
    metarank_end(c.m);
}

static void user_agent(struct metarank_call c) {
    struct slice part = metarank_text(c.f, "field");
    const char *source = metarank_source(c.m, c.f, metarank_text(c.f, "source"), false);
    if (source == NULL)
        return;
    metarank_begin(c.m, c.name, "user_agent");
    metarank_put_text(c.m, "source", source);
    if (part.n > 0)
        metarank_put(c.m, "parts: [%.*s]", SLICE_ARG(part));
    metarank_end(c.m);
}

static void referer(struct metarank_call c) {
    bool of_user = source_text(c.f).n > 5 && memcmp(source_text(c.f).p, "user.", 5) == 0;
    const char *source = metarank_source(c.m, c.f, source_text(c.f), false);
    if (source == NULL)
        return;
    metarank_begin(c.m, c.name, "referer");
    metarank_put_text(c.m, "source", source);
    if (!of_user)
        metarank_put(c.m, "remember: %s",
                     metarank_is(c.f, "scope", "session") ? "session" : "user");
    metarank_end(c.m);
}

/* ---- the slate --------------------------------------------------------------------------------
 */

static void position(struct metarank_call c) {
    struct slice at = metarank_text(c.f, "position");
    metarank_begin(c.m, c.name, "position");
    metarank_put(c.m, "serving: %.*s", at.n > 0 ? (int)at.n : 1, at.n > 0 ? at.p : "0");
    metarank_end(c.m);
}

/* Is the field text, by the sample, or by another feature that reads it as such? */
static bool is_text(struct metarank *m, struct slice source) {
    if (m->sample->is_there)
        return tally_find(&m->sample->texts, source) != NULL;
    const struct node *list = node_get(m->root, "features");
    for (const struct node *f = list->first; f != NULL; f = f->next)
        if (f->type == NODE_MAP && slice_equal(source_text(f), source) &&
            metarank_is(f, "type", "string"))
            return true;
    return false;
}

static void diversity(struct metarank_call c) {
    const char *source = metarank_source(c.m, c.f, source_text(c.f), true);
    struct slice top = metarank_text(c.f, "top");
    if (source == NULL)
        return;
    metarank_begin(c.m, c.name, "diversity");
    metarank_put_text(c.m, "source", source);
    if (is_text(c.m, source_text(c.f)))
        metarank_put(c.m, "as: words");
    metarank_put(c.m, "top: %.*s", top.n > 0 ? (int)top.n : 2, top.n > 0 ? top.p : "20");
    metarank_end(c.m);
}

static void random_number(struct metarank_call c) {
    metarank_left_out(c.m, c.f, "random",
                      "explore by the logging policy, and log its propensities");
}

/* ---- all of them ------------------------------------------------------------------------------
 */

static const struct extractor {
    const char *type;
    void (*make)(struct metarank_call c);
    const char *keys[10]; /* besides those of all */
} extractors[] = {
    {"number", number, {"field", "source", NULL}},
    {"boolean", boolean, {"field", "source", NULL}},
    {"string", string, {"field", "source", "values", "encode", NULL}},
    {"vector", vector, {"field", "source", "reduce", NULL}},
    {"word_count", word_count, {"field", "source", NULL}},
    {"list_size", list_size, {"field", "source", NULL}},
    {"time_diff", age, {"field", "source", NULL}},
    {"item_age", age, {"field", "source", NULL}},
    {"local_time", local_time, {"field", "source", "parse", NULL}},
    {"ua", user_agent, {"field", "source", NULL}},
    {"referer", referer, {"field", "source", NULL}},
    {"relevancy", relevancy, {NULL}},
    {"position", position, {"position", NULL}},
    {"diversity", diversity, {"field", "source", "top", NULL}},
    {"interaction_count", metarank_interaction_count, {"interaction", NULL}},
    {"window_count",
     metarank_window_count,
     {"interaction", "bucket", "bucket_size", "periods", "windows", NULL}},
    {"window_event_count",
     metarank_window_count,
     {"interaction", "bucket", "bucket_size", "periods", "windows", NULL}},
    {"rate", metarank_rate, {"top", "bottom", "bucket", "periods", "normalize", NULL}},
    {"interacted_with",
     metarank_interacted_with,
     {"interaction", "field", "count", "duration", NULL}},
    {"field_match",
     metarank_field_match,
     {"itemField", "rankingField", "method", "distance", NULL}},
    {"random", random_number, {NULL}},
};

static void common_keys(struct metarank *m, const struct node *f, const char *name) {
    const struct node *refresh = node_get(f, "refresh"), *ttl = node_get(f, "ttl");
    if (refresh != NULL && !slice_is(refresh->text, "0s"))
        metarank_note(m, refresh->line, METARANK_NO_NEED, "values are exact at every request",
                      "%s: refresh", name);
    if (ttl == NULL)
        return;
    char *unit;
    double days = strtod(ttl->text.p, &unit);
    while (*unit == ' ')
        unit++;
    days = *unit == 'd' ? days : *unit == 'h' ? days / 24 : *unit == 'm' ? days / 1440 : 1;
    int64_t whole = days < 1 ? 1 : (int64_t)(days + 0.999);
    m->ttl_days = whole > m->ttl_days ? whole : m->ttl_days;
    metarank_note(m, ttl->line, METARANK_DIFFERENT,
                  "whole users and items are forgotten, by state.ttl: the longest of the file",
                  "%s: ttl of one feature", name);
}

void metarank_feature(struct metarank *m, const struct node *f) {
    struct slice type = metarank_text(f, "type"), name = metarank_text(f, "name");
    struct metarank_call c = {m, f, metarank_name(m, name)};
    for (size_t i = 0; i < sizeof extractors / sizeof *extractors; i++) {
        if (!slice_is(type, extractors[i].type))
            continue;
        static const char *const common[] = {"name", "type", "scope", "refresh", "ttl"};
        const char *known[16];
        int n = 0;
        for (int k = 0; k < 5; k++)
            known[n++] = common[k];
        for (int k = 0; extractors[i].keys[k] != NULL; k++)
            known[n++] = extractors[i].keys[k];
        known[n] = NULL;
        int before = m->n_features;
        extractors[i].make(c);
        metarank_other_keys(m, f, c.name, known);
        if (m->n_features > before)
            common_keys(m, f, c.name);
        return;
    }
    metarank_left_out(m, f, arena_printf(m->a, "type %.*s", SLICE_ARG(type)),
                      "docs/features.md lists the kinds there are");
}
