/* propose.h: a look at events that ends in settings: a first plan, tasks and a model that train as
 * they stand. For cmd_autofeature.c. */
#pragma once
#include "base/buf.h"
#include "base/map.h"
#include "proto/ev.h"

enum { PROPOSE_FIELDS = 128, PROPOSE_WORDS = 16, PROPOSE_TYPES = 8, PROPOSE_DISTINCT = 5000 };

/* One field of one sort of event ("item", "price"). */
struct propose_field {
    char *of, *name;
    int64_t n, numbers, flags, texts, lists, vectors, moments; /* events, by what they held */
    int64_t words, n_values;                                   /* in texts; of lists */
    struct map distinct;                                       /* up to PROPOSE_DISTINCT */
    char *word[PROPOSE_WORDS];                                 /* the first distinct ones */
    int n_distinct;
    double least, most;
};
struct propose_type {
    char *name;
    int64_t n, joined;            /* interactions; of a ranking */
    int64_t after[PROPOSE_TYPES]; /* of those whose item had had such a one before */
    bool has_value;               /* they carry a number called value */
    double value_sum;
    int64_t n_values;
};
struct propose { /* zeroed is empty */
    struct arena a;
    struct propose_field fields[PROPOSE_FIELDS];
    struct propose_type types[PROPOSE_TYPES]; /* in order of appearance */
    int n_fields, n_types;
    struct map items, users, seen; /* seen: of type, user, item and ranking */
    int64_t events, rankings, shown;
    int64_t first_us, last_us;
};
void propose_deinit(struct propose *p);
void propose_event(struct propose *p, const struct ev_event *e);
/* Appends the settings. FAILED_PRECONDITION: there is nothing to learn from. */
enum status propose_write(struct propose *p, struct buf *out);
