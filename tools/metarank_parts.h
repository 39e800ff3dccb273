/* metarank_parts.h: what the extractors' functions share; for metarank_features.c and
 * metarank_history.c. */
#pragma once
#include "tools/metarank.h"

struct metarank_field {
    struct slice of, name; /* "item", "price" */
};
/* "item.price"; false when it is nothing of the kind. */
bool metarank_split(struct slice text, struct metarank_field *out);
/* The source in moerank's words, or NULL, and then there is a note. `number`: candidates' own
 * numbers may be read, too. */
const char *metarank_source(struct metarank *m, const struct node *f, struct slice text,
                            bool number);

/* The feature that tells which impressions were seen. */
#define METARANK_JOIN "metarank_clickthrough"

/* A feature's line: begin, any number of keys, end. */
void metarank_begin(struct metarank *m, const char *name, const char *kind);
void metarank_put(struct metarank *m, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void metarank_put_text(struct metarank *m, const char *key, const char *text);
void metarank_end(struct metarank *m);
/* The note that a feature, or a part of it, has no equivalent. */
void metarank_left_out(struct metarank *m, const struct node *f, const char *what,
                       const char *instead);

struct metarank_call {
    struct metarank *m;
    const struct node *f;
    const char *name; /* as settings take it */
};
void metarank_interaction_count(struct metarank_call c);
void metarank_window_count(struct metarank_call c);
void metarank_rate(struct metarank_call c);
void metarank_interacted_with(struct metarank_call c);
void metarank_field_match(struct metarank_call c);
