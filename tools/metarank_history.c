/* metarank_history.c: those of Metarank's extractors that keep what happened, and those that
 * compare texts, as moerank's kinds. Its windows are numbers of buckets, here they are times. */
#include <stdlib.h>
#include "tools/metarank_parts.h"

/* ---- what happened ----------------------------------------------------------------------------
 */

/* A condition's type; NULL, and noted, when it is none. */
static const char *event_type(struct metarank_call c, const char *key) {
    struct slice type = metarank_text(c.f, key);
    bool fits = type.n > 0;
    for (size_t i = 0; i < type.n; i++)
        fits &= memchr(" \t", type.p[i], 2) == NULL;
    if (!fits)
        metarank_left_out(
            c.m, c.f,
            arena_printf(c.m->a, "%s: '%.*s' is no type of interaction", key, SLICE_ARG(type)),
            "types are words without spaces");
    return fits ? arena_strdup(c.m->a, type) : NULL;
}

/* global, user, session, item; others are noted. */
static const char *plain_scope(struct metarank_call c, const char *otherwise) {
    struct slice scope = metarank_text(c.f, "scope");
    static const char *const words[] = {"global", "user", "session", "item", NULL};
    for (int i = 0; words[i] != NULL; i++)
        if (slice_is(scope, words[i]))
            return words[i];
    if (scope.n > 0)
        metarank_left_out(c.m, c.f, arena_printf(c.m->a, "scope %.*s", SLICE_ARG(scope)),
                          "scopes are global, user, session, item; crossed ones: docs/features.md");
    return scope.n > 0 ? NULL : otherwise;
}

void metarank_interaction_count(struct metarank_call c) {
    const char *on = event_type(c, "interaction");
    const char *scope = on != NULL ? plain_scope(c, "item") : NULL;
    if (scope == NULL)
        return;
    metarank_begin(c.m, c.name, "count");
    metarank_put(c.m, "scope: %s", scope);
    metarank_put_text(c.m, "on", on);
    metarank_end(c.m);
}

/* "bucket: 24h, periods: [7, 30]" as windows: 7 and 30 buckets. */
static bool put_windows(struct metarank_call c) {
    struct slice bucket = metarank_text(c.f, "bucket");
    const struct node *periods = node_get(c.f, "periods");
    if (bucket.n == 0)
        bucket = metarank_text(c.f, "bucket_size");
    if (periods == NULL)
        periods = node_get(c.f, "windows");
    char *unit;
    long n = bucket.n > 0 ? strtol(bucket.p, &unit, 10) : 0;
    if (n <= 0 || periods == NULL || periods->type != NODE_LIST || periods->n == 0)
        return false;
    while (*unit == ' ')
        unit++;
    unit = arena_printf(c.m->a, "%s",
                        strncmp(unit, "ms", 2) == 0 ? "ms"
                        : *unit == 's'              ? "s"
                        : *unit == 'm'              ? "m"
                        : *unit == 'h'              ? "h"
                                                    : "d");
    metarank_put(c.m, "bucket: %ld%s", n, unit);
    buf_add_str(&c.m->features, ", windows: [");
    for (const struct node *p = periods->first; p != NULL; p = p->next)
        buf_printf(&c.m->features, "%ld%s%s", n * (long)p->number, unit,
                   p->next != NULL ? ", " : "");
    buf_add_str(&c.m->features, "]");
    return true;
}

/* Takes back what was begun. */
static void without_windows(struct metarank_call c, size_t from) {
    c.m->features.n = from;
    metarank_left_out(c.m, c.f, "no bucket or no periods", "as bucket: 24h, periods: [7, 30]");
}

void metarank_window_count(struct metarank_call c) {
    const char *on = event_type(c, "interaction");
    const char *scope = on != NULL ? plain_scope(c, "item") : NULL;
    size_t from = c.m->features.n;
    if (scope == NULL)
        return;
    metarank_begin(c.m, c.name, "window_count");
    metarank_put(c.m, "scope: %s", scope);
    metarank_put_text(c.m, "on", on);
    if (put_windows(c))
        metarank_end(c.m);
    else
        without_windows(c, from);
}

/* A rate's scope in moerank's words, or NULL. */
static const char *rate_scope(struct metarank_call c) {
    struct metarank_field s;
    struct slice scope = metarank_text(c.f, "scope");
    if (!metarank_split(scope, &s))
        return plain_scope(c, "item");
    if (slice_is(s.of, "ranking"))
        return arena_printf(c.m->a, "[item, context.%.*s]", SLICE_ARG(s.name));
    if (!slice_is(s.of, "item"))
        return plain_scope(c, "item");
    return arena_printf(c.m->a, "item.%.*s", SLICE_ARG(s.name));
}

/* Metarank's impressions are those of items at or above the last click. */
static const char *cascade_of(struct metarank_call c) {
    if (!c.m->joins) {
        metarank_begin(c.m, METARANK_JOIN, "join");
        metarank_put(c.m, "window: %.*s", SLICE_ARG(metarank_join_window(c.m)));
        metarank_end(c.m);
    }
    c.m->joins = true;
    return METARANK_JOIN;
}

void metarank_rate(struct metarank_call c) {
    const char *top = event_type(c, "top"), *bottom = event_type(c, "bottom");
    const char *scope = top != NULL && bottom != NULL ? rate_scope(c) : NULL;
    const struct node *normalize = node_get(c.f, "normalize");
    struct slice weight = metarank_text(normalize, "weight");
    if (scope == NULL)
        return;
    bool shown = strcmp(top, "impression") == 0 || strcmp(bottom, "impression") == 0;
    const char *cascade = shown ? cascade_of(c) : NULL;
    size_t from = c.m->features.n;
    metarank_begin(c.m, c.name, "rate");
    metarank_put(c.m, "scope: %s", scope);
    metarank_put_text(c.m, "top", top);
    metarank_put_text(c.m, "bottom", bottom);
    if (!put_windows(c)) {
        without_windows(c, from);
        return;
    }
    if (normalize != NULL)
        metarank_put(c.m, "prior_weight: %.*s, prior_counts: top", weight.n > 0 ? (int)weight.n : 2,
                     weight.n > 0 ? weight.p : "10");
    else
        metarank_put(c.m, "prior_weight: 0, prior: 0");
    if (cascade != NULL)
        metarank_put(c.m, "cascade: %s", cascade);
    metarank_end(c.m);
}

static void add_quoted(struct buf *list, struct slice text) {
    if (list->n > 0)
        buf_add_str(list, ", ");
    metarank_quote(list, text);
}

/* The list of what was interacted with, and the match that reads it. */
void metarank_interacted_with(struct metarank_call c) {
    const char *on = event_type(c, "interaction");
    bool session = metarank_is(c.f, "scope", "session");
    struct slice count = metarank_text(c.f, "count"), within = metarank_text(c.f, "duration");
    const struct node *field = node_get(c.f, "field");
    struct buf fields = {0};
    if (on == NULL || field == NULL)
        return;
    for (const struct node *n = field->type == NODE_LIST ? field->first : field; n != NULL;
         n = field->type == NODE_LIST ? n->next : NULL) {
        struct metarank_field s;
        if (metarank_split(n->text, &s) && (slice_is(s.of, "item") || slice_is(s.of, "metadata")))
            add_quoted(&fields, s.name);
        else
            metarank_note(c.m, n->line, METARANK_LEFT_OUT, "only fields of items can be compared",
                          "%s: field %s", c.name, n->text.p);
    }
    if (fields.n > 0) {
        metarank_begin(c.m, arena_printf(c.m->a, "%s_items", c.name), "last_n");
        metarank_put(c.m, "scope: %s", session ? "session" : "user");
        metarank_put_text(c.m, "on", on);
        metarank_put(c.m, "n: %.*s", count.n > 0 ? (int)count.n : 3, count.n > 0 ? count.p : "100");
        metarank_end(c.m);
        metarank_begin(c.m, c.name, "match");
        metarank_put(c.m, "of: %s_items", c.name);
        buf_printf(&c.m->features, ", fields: [%.*s]", (int)fields.n, fields.p);
        metarank_put(c.m, "columns: [hits], within: %.*s", within.n > 0 ? (int)within.n : 3,
                     within.n > 0 ? within.p : "24h");
        metarank_end(c.m);
    }
    buf_deinit(&fields);
}

/* ---- text -------------------------------------------------------------------------------------
 */

void metarank_field_match(struct metarank_call c) {
    const struct node *method = node_get(c.f, "method");
    struct slice type = metarank_text(method, "type"), n = metarank_text(method, "n");
    struct slice language = metarank_text(method, "language");
    struct metarank_field item, query;
    if (!slice_is(type, "term") && !slice_is(type, "ngram") && !slice_is(type, "bm25")) {
        metarank_left_out(
            c.m, c.f, arena_printf(c.m->a, "method %.*s", SLICE_ARG(type)),
            "score where the encoder runs and send the score per item: kind number with "
            "source candidate.SCORE");
        return;
    }
    if (!metarank_split(metarank_text(c.f, "itemField"), &item) ||
        !metarank_split(metarank_text(c.f, "rankingField"), &query)) {
        metarank_left_out(c.m, c.f, "no itemField or rankingField",
                          "as item.title and ranking.query");
        return;
    }
    metarank_begin(c.m, c.name, "text_match");
    metarank_put(c.m, "query: context.%.*s, source: item.%.*s, method: %.*s", SLICE_ARG(query.name),
                 SLICE_ARG(item.name), SLICE_ARG(type));
    if (slice_is(type, "ngram"))
        metarank_put(c.m, "n: %.*s", n.n > 0 ? (int)n.n : 1, n.n > 0 ? n.p : "3");
    metarank_end(c.m);
    if (language.n > 0 && !slice_is(language, "generic"))
        metarank_note(c.m, method->line, METARANK_DIFFERENT,
                      "words are lower-cased, not stemmed, and stop words count",
                      "%s: language %.*s", c.name, SLICE_ARG(language));
    if (node_get(method, "termFreq") != NULL)
        metarank_note(c.m, node_get(method, "termFreq")->line, METARANK_NO_NEED,
                      "document frequencies are kept from the item events", "%s: termFreq", c.name);
}
