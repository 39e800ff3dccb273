/* metarank.h: a Metarank configuration read and said again as moerank's settings. What has no
 * equivalent is left out and named, with its line and what to do instead. For cmd_import_metarank.c
 * and the files it is made of: metarank.c (the file's sections) and metarank_features.c (its
 * feature extractors, one function each). */
#pragma once
#include "base/buf.h"
#include "base/map.h"
#include "base/node.h"
#include "base/status.h"
#include "tools/tally.h"

enum metarank_fate {
    METARANK_LEFT_OUT,  /* it has no equivalent */
    METARANK_DIFFERENT, /* it has one that is not quite the same */
    METARANK_NO_NEED    /* nothing is lost by leaving it out */
};
struct metarank_note {
    int line;
    enum metarank_fate fate;
    const char *what, *instead;
};

/* What a sample of events said about fields; empty without one. Words are "shown.relevancy". */
struct metarank_sample {
    struct tally fields; /* that came at all */
    struct tally texts;  /* that held text */
    bool is_there;
};

struct metarank {
    struct arena *a;
    const struct node *root;
    const char *file;
    const struct metarank_sample *sample;
    const struct node *model;    /* the one that is taken */
    struct metarank_note *notes; /* [n_notes] */
    int n_notes, cap_notes;
    struct buf features; /* lines of the list */
    struct buf out;      /* the settings */
    int n_features;
    int64_t ttl_days; /* the longest any feature asks for; 0: none does */
    bool shared;      /* the state is to be kept in Redis */
    bool joins;       /* the features have METARANK_JOIN */
};

/* `model`: which of the file's models; "": the first that ranks by learning. Fills m->out and
 * m->notes. INVALID_ARGUMENT: the file has no such model, or no features. */
enum status metarank_read(struct metarank *m, const struct node *root, const char *file,
                          const char *model, const struct metarank_sample *sample);
void metarank_deinit(struct metarank *m);

/* ---- for the files it is made of ---- */

/* One of the file's features onto m->features. */
void metarank_feature(struct metarank *m, const struct node *feature);
void metarank_note(struct metarank *m, int line, enum metarank_fate fate, const char *instead,
                   const char *what, ...) __attribute__((format(printf, 5, 6)));
/* Names the map's keys that are in none of the lists; `known` is NULL-ended. */
void metarank_other_keys(struct metarank *m, const struct node *map, const char *of,
                         const char *const *known);
/* A scalar's text as it is written; "" when absent. */
struct slice metarank_text(const struct node *map, const char *key);
bool metarank_is(const struct node *map, const char *key, const char *word);
/* A text in quotes, as YAML and JSON read it. */
void metarank_quote(struct buf *out, struct slice text);
/* A name as settings take it: other characters become '_'. */
const char *metarank_name(struct metarank *m, struct slice name);
/* How long a ranking waits for its clicks, as text. */
struct slice metarank_join_window(const struct metarank *m);
