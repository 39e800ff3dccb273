/* plan.h: the feature plan: which columns a row has, what state they need, and which side they are.
 *
 *     lateness: 1h
 *     features:
 *       - {name: item_id,   kind: category, source: item.id, hash: 4096, embed: 16, table: item}
 *       - {name: year,      kind: number,   source: item.year}
 *       - {name: like_rate, kind: rate, scope: item, top: rating where value >= 4, bottom: rating,
 *          prior_weight: 10, prior: global}
 *       - {name: seen,      kind: last_n, on: rating, n: 50, embed: true, table: item}
 *       - {name: genre_fit, kind: match, of: seen, field: genres}
 *
 * One feature = one entry = one kind (features/kinds/NAME.c + a line in kinds.def). A feature's
 * side follows from its scope and source: user and context make the *query* part of a row
 * (computed once per request), item and cross make the *candidate* part (once per candidate).
 * Columns are laid out user | context | item | cross, so the model can split its first layer
 * without being told.
 *
 * A plan is immutable after load and may be shared by threads. */
#pragma once
#include "base/arena.h"
#include "base/conf.h"
#include "base/node.h"
#include "base/status.h"
#include "proto/ev.h"

enum feat_side { FEAT_USER, FEAT_CONTEXT, FEAT_ITEM, FEAT_CROSS, FEAT_SIDES };

/* Whose state a feature keeps. An entity is a (scope, id). VALUE: a value of a field, or a pair as
 * (user, value); which one is a place of the plan (struct feat_place). RANKING: what waits under a
 * ranking's id, for joins (joins.h); no row reads it. */
enum feat_scope {
    FEAT_SCOPE_GLOBAL,
    FEAT_SCOPE_USER,
    FEAT_SCOPE_SESSION,
    FEAT_SCOPE_ITEM,
    FEAT_SCOPE_VALUE,
    FEAT_SCOPE_RANKING,
    FEAT_SCOPES
};
extern const char *const feat_scope_words[FEAT_SCOPES]; /* in settings, dumps and reports */

/* Which events a feature counts: "TYPE [where FIELD OP VALUE]". TYPE is an interaction type,
 * "impression" (each item of a shown ranking) or "any" (any interaction). OP: == != >= <= > <. */
struct feat_match {
    struct slice type;
    bool is_any, is_impression; /* what `type` says, so that no event compares text for it */
    enum {
        FEAT_MATCH_ALL,
        FEAT_MATCH_EQ,
        FEAT_MATCH_NE,
        FEAT_MATCH_GE,
        FEAT_MATCH_LE,
        FEAT_MATCH_GT,
        FEAT_MATCH_LT
    } op;
    struct slice field;
    struct slice text; /* == and != compare text when the value is not a number */
    double number;
    bool is_number;
};
enum status feat_match_parse(struct arena *a, struct slice text, struct feat_match *out);
/* `shown`: the impression being looked at, or NULL for an interaction event. */
bool feat_match_event(const struct feat_match *m, const struct ev_event *e,
                      const struct ev_shown *shown);

/* What a reader wants of a field's value (features/forms.h): a number, words, the length of a list.
 * Remembered fields are kept in the forms that some feature reads, and in no other. */
enum feat_form {
    FEAT_AS_IDS,    /* keys of its strings or numbers, at most FEAT_IDS_MAX, in order */
    FEAT_AS_NUMBER, /* bool 0 or 1, number, numeric string */
    FEAT_AS_FLAG,   /* the same, and the words true, false, yes, no, on, off */
    FEAT_AS_SIZE,   /* elements of a list; 1 of anything else */
    FEAT_AS_WORDS,  /* words in the text, or in all texts of a list */
    FEAT_AS_TIME,   /* a moment: a number as it is, ISO 8601 as seconds since 1970 */
    FEAT_AS_LOCAL,  /* the same as the clock there showed it: its offset added */
    FEAT_AS_AGENT,  /* a browser's User-Agent, features/agent.h */
    FEAT_AS_MEDIUM, /* a referring address, features/agent.h */
    FEAT_AS_VECTOR, /* numbers, at most FEAT_VECTOR_MAX, in order */
    FEAT_AS_TERMS,  /* words in lower case, hashed, at most FEAT_TERMS_MAX, in order */
    FEAT_AS_GRAMS2, /* distinct runs of 2, 3, 4 letters, hashed, at most FEAT_TERMS_MAX, sorted */
    FEAT_AS_GRAMS3,
    FEAT_AS_GRAMS4,
    FEAT_FORMS
};

/* Where a value comes from: item.F and user.F are remembered from item and user events (F "id" is
 * the entity's own id); context.F is a field of the request (or of the ranking event);
 * candidate.F is a column of the request, one number per candidate. "A or B" is the first that has
 * a value. */
enum feat_from { FEAT_FROM_ITEM, FEAT_FROM_USER, FEAT_FROM_CONTEXT, FEAT_FROM_CANDIDATE };
struct feat_source {
    enum feat_from from;
    enum feat_form form;
    struct slice field;
    int slot; /* of a remembered field: index into plan->fields[scope]; -1 otherwise */
    const struct feat_source *or_else; /* NULL: none */
};

/* A remembered field of an item or user: kept once, whoever reads it. */
struct feat_field {
    struct slice name;
    uint32_t forms; /* bits of enum feat_form: kept one after another, in that order */
};
static inline bool feat_field_has(const struct feat_field *f, enum feat_form form) {
    return f->forms >> form & 1;
}
#define FEAT_IDS_MAX    32
#define FEAT_VECTOR_MAX 128
#define FEAT_TERMS_MAX  128

/* What a crossed scope is made of, as in `scope: [user, event.category]`. Ids are the event's own,
 * and event.F and context.F are fields the event itself carries: no other entity is asked. item.F
 * stands alone, and means the sum over all items that bear the value now: an item's history moves
 * with it when its field changes, so the sum is a function of the set of events, too. */
enum feat_part_kind {
    FEAT_PART_USER,
    FEAT_PART_SESSION,
    FEAT_PART_ITEM,
    FEAT_PART_EVENT,   /* a reader finds the value at the candidate: item.F */
    FEAT_PART_CONTEXT, /* a reader finds the value in the request: context.F */
    FEAT_PART_SUM      /* item.F */
};
struct feat_part {
    enum feat_part_kind kind;
    struct slice field;
    struct feat_source source; /* a reader's */
};
#define FEAT_PARTS_MAX  3
#define FEAT_PLACES_MAX 32
#define FEAT_SPOTS_MAX  8 /* values of one row or event that count; of BM25 the item's terms */
struct feat_place {
    const char *text; /* canonical: "user, event.category" */
    struct feat_part parts[FEAT_PARTS_MAX];
    int n_parts;
    uint64_t seed;  /* of its keys */
    bool sums;      /* one part, FEAT_PART_SUM */
    bool has_total; /* of a sum: one more record for all items that bear any value */
    bool by_row;    /* a reader's keys differ by candidate */
    bool is_read;   /* rows read it; or only a kind's begin() does */
};
#define FEAT_FIELDS_MAX   64
#define FEAT_FEATURES_MAX 512
#define FEAT_CELLS_MAX    3 /* cells one feature may own */

/* A cell is the state one feature keeps in one scope: a short run of bytes in the entity's record,
 * written and read by the kind alone. Cell 0 of a scope holds the remembered fields. */
struct feat_cell_ref {
    enum feat_scope scope;
    int index; /* within the scope's record */
};

/* FIELDS: while a feature is checked: its conditions ask for them. */
enum { FEAT_WANTS_IMPRESSIONS = 1, FEAT_WANTS_INTERACTIONS = 2, FEAT_WANTS_FIELDS = 4 };

struct feat_kind;
struct feat_plan;

struct feat {
    const char *name;
    const struct feat_kind *kind;
    int number; /* index in the plan */
    int line;
    void *params; /* the kind's own struct, filled by its settings table */
    enum feat_side side;
    struct feat_cell_ref cells[FEAT_CELLS_MAX];
    int n_cells;
    int place; /* of its cells in FEAT_SCOPE_VALUE; -1: it has none */
    int wants; /* FEAT_WANTS_*: the events that can change its cells */
    /* Impressions or interactions count as these joins find (joins.h); NULL: each by itself. */
    const struct feat *cascade, *attribution;

    /* dense output: n_columns floats at column `column` of its part (query or candidate);
     * NaN = missing */
    int n_columns, column;
    const char *const *column_names; /* [n_columns] suffixes, NULL: just the name */

    /* id output: up to n_slots ids at `slot` of its part; 0 = none */
    int n_slots, slot;
    int table; /* index into plan->tables, -1: no id output */
};

/* An embedding table that id features share by name. */
struct feat_table {
    const char *name;
    uint32_t rows; /* ids are in [0, rows); 0 is "none" and 1 "unknown" */
    int dim;
};

struct feat_plan {
    struct feat **features; /* [n_features] in plan order */
    int n_features;
    struct feat_field fields[FEAT_SCOPES][FEAT_FIELDS_MAX];
    int n_fields[FEAT_SCOPES];
    int n_cells[FEAT_SCOPES]; /* cells in a record of that scope, the fields' cell included */
    struct feat_table *tables;
    int n_tables;
    struct feat_place places[FEAT_PLACES_MAX];
    int n_places;
    bool joins;      /* some feature is of kind join */
    bool sums_items; /* some place sums over items: a shared store keeps shares (shares.h) */
    bool mixes_rows; /* some value depends on the other candidates: nothing of a row may be cached
                        without them */

    /* widths of the two parts of a row */
    int side_columns[FEAT_SIDES];           /* dense columns per side */
    int query_columns;                      /* user + context */
    int cand_columns;                       /* item + cross */
    int query_slots, cand_slots;            /* ids */
    const char **query_names, **cand_names; /* column names, [query_columns], [cand_columns] */

    int64_t lateness_us;
    int64_t ahead_us;     /* how far an event's time may lie beyond its arrival */
    int wanted;           /* while a feature is checked: what its conditions ask for */
    uint64_t fingerprint; /* of everything above: snapshots and models carry it */
    const char *json;     /* canonical text of the plan, what the fingerprint hashes */
    struct arena arena;
};

/* From a YAML file, or from a parsed tree (`file` stands in messages). INVALID_ARGUMENT messages
 * name file, line, feature, key and the nearest right key. */
enum status feat_plan_load(const char *path, struct feat_plan **out);
enum status feat_plan_parse(const struct node *map, const char *file, struct feat_plan **out);
void feat_plan_free(struct feat_plan *p);

/* For kinds' check(): claims state and inputs. */
enum status feat_plan_source(struct feat_plan *p, struct slice text, enum feat_form form,
                             struct feat_source *out);
void feat_plan_cell(struct feat_plan *p, struct feat *f, enum feat_scope scope);
enum status feat_plan_table(struct feat_plan *p, const char *name, uint32_t rows, int dim,
                            int *out);
/* Is the event's time so far beyond its arrival that it must be wrong? It is then judged late. An
 * event without an arrival time (of a file) never is. */
bool feat_state_is_ahead(const struct feat_plan *p, const struct ev_event *e);
const struct feat *feat_plan_find(const struct feat_plan *p, const char *name); /* NULL: none */
