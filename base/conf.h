/* conf.h: settings tables. One table describes one struct: what can be set, its type, default,
 * bounds and meaning. Parsing, validating, dumping and docs/config.md are all derived from it;
 * process settings, feature kinds, gates, experts and verbs' options use the same tables.
 *
 *     static const struct conf_item items[] = {
 *         CONF_INT(struct rk_cache_conf, ttl_ms, "ttl_ms", "60000", 1, 86400000, "ms", "..."),
 *         CONF_END};
 *
 * An unknown key names file, line, key and the nearest known key. Strings live in the arena. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "base/arena.h"
#include "base/buf.h"
#include "base/node.h"
#include "base/status.h"

enum conf_type {
    CONF_TYPE_BOOL,    /* bool */
    CONF_TYPE_INT,     /* int64_t; "10k", "2m" are not accepted, plain digits and 1_000 are */
    CONF_TYPE_FLOAT,   /* double */
    CONF_TYPE_STRING,  /* const char * */
    CONF_TYPE_ENUM,    /* int, index into `choices` ("a|b|c") */
    CONF_TYPE_TIME,    /* int64_t microseconds; written "250ms", "30s", "5m", "24h", "7d" */
    CONF_TYPE_BYTES,   /* int64_t; written "64KiB", "512MiB", "2GiB" or plain */
    CONF_TYPE_STRINGS, /* struct conf_strings */
    CONF_TYPE_NUMBERS, /* struct conf_numbers */
    CONF_TYPE_TIMES,   /* struct conf_times */
};

struct conf_strings {
    const char **v;
    int n;
};
struct conf_numbers {
    double *v;
    int n;
};
struct conf_times {
    int64_t *v;
    int n;
};

struct conf_item {
    const char *key; /* NULL ends a table */
    enum conf_type type;
    size_t offset;
    const char *value_default; /* as it would be written; NULL: must be given */
    double min, max; /* of numbers, times (us), bytes, lists' elements; min >= max: no bounds */
    const char *choices;
    const char *unit;
    const char *doc;
};
#define CONF_BOOL(st, field, key, dflt, doc)                                                       \
    { key, CONF_TYPE_BOOL, offsetof(st, field), dflt, 0, 0, NULL, NULL, doc }
#define CONF_INT(st, field, key, dflt, lo, hi, unit, doc)                                          \
    { key, CONF_TYPE_INT, offsetof(st, field), dflt, lo, hi, NULL, unit, doc }
#define CONF_FLOAT(st, field, key, dflt, lo, hi, unit, doc)                                        \
    { key, CONF_TYPE_FLOAT, offsetof(st, field), dflt, lo, hi, NULL, unit, doc }
#define CONF_STRING(st, field, key, dflt, doc)                                                     \
    { key, CONF_TYPE_STRING, offsetof(st, field), dflt, 0, 0, NULL, NULL, doc }
#define CONF_ENUM(st, field, key, dflt, choices, doc)                                              \
    { key, CONF_TYPE_ENUM, offsetof(st, field), dflt, 0, 0, choices, NULL, doc }
#define CONF_TIME(st, field, key, dflt, lo_us, hi_us, doc)                                         \
    { key, CONF_TYPE_TIME, offsetof(st, field), dflt, lo_us, hi_us, NULL, NULL, doc }
#define CONF_BYTES(st, field, key, dflt, lo, hi, doc)                                              \
    { key, CONF_TYPE_BYTES, offsetof(st, field), dflt, lo, hi, NULL, "bytes", doc }
#define CONF_STRINGS(st, field, key, dflt, doc)                                                    \
    { key, CONF_TYPE_STRINGS, offsetof(st, field), dflt, 0, 0, NULL, NULL, doc }
#define CONF_NUMBERS(st, field, key, dflt, lo, hi, doc)                                            \
    { key, CONF_TYPE_NUMBERS, offsetof(st, field), dflt, lo, hi, NULL, NULL, doc }
#define CONF_TIMES(st, field, key, dflt, lo_us, hi_us, doc)                                        \
    { key, CONF_TYPE_TIMES, offsetof(st, field), dflt, lo_us, hi_us, NULL, NULL, doc }
#define CONF_END                                                                                   \
    { NULL, CONF_TYPE_BOOL, 0, NULL, 0, 0, NULL, NULL, NULL }

/* A place for messages: which file (or "--set"), and the section ("ingest", "features[3]"). */
struct conf_place {
    const char *file;
    const char *section;
};

/* Fills `out` with the defaults; items without default stay zero and are remembered as missing by
 * conf_read only. */
void conf_defaults(const struct conf_item *items, void *out, struct arena *a);

/* Defaults, then every key of `map` (NULL or NODE_NULL: none). Unknown keys, wrong types, values
 * out of bounds and missing required keys: INVALID_ARGUMENT "file:line: section.key: reason; did
 * you mean 'x'?". Keys named in `also` (NULL-ended, may be NULL) are the caller's and skipped. */
enum status conf_read(const struct conf_item *items, const struct node *map,
                      struct conf_place place, const char *const *also, void *out, struct arena *a);

/* Sets one item from text, as "--set section.key=value" and environment do. */
enum status conf_set(const struct conf_item *items, struct slice key, struct slice value,
                     struct conf_place place, void *out, struct arena *a);

/* Writes the effective values as JSON object members (canonical: table order). */
void conf_write_json(const struct conf_item *items, const void *values, struct json *j);
/* One Markdown table: key, type, default, bounds, meaning. */
void conf_write_markdown(const struct conf_item *items, struct buf *out);

/* The nearest of the NULL-ended `words` by edit distance, or NULL when none is near. */
const char *conf_nearest(struct slice word, const char *const *words);
