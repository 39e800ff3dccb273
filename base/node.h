/* node.h: one read-only tree for YAML and JSON, with the line of every value, so that each error
 * can say where. Settings, plans, model specs, JSON events and snapshots' headers are read through
 * it. All memory comes from the arena; strings are NUL-terminated. */
#pragma once
#include <stdbool.h>
#include "base/arena.h"
#include "base/buf.h"
#include "base/status.h"

enum node_type { NODE_NULL, NODE_BOOL, NODE_NUMBER, NODE_STRING, NODE_LIST, NODE_MAP };

struct node {
    enum node_type type;
    int line, column; /* 1-based */
    bool boolean;
    double number;     /* NODE_NUMBER */
    struct slice text; /* the scalar as written; of a string, its value */
    struct slice key;  /* in a map: this child's key */
    int key_line;
    struct node *first, *next; /* children of a list or map, in order */
    int n;                     /* number of children */
};

/* YAML 1.1 by libyaml; anchors and tags are refused. `name` stands in messages. An empty document
 * is NODE_NULL. Depth is limited to 64. Errors: INVALID_ARGUMENT "name:line:column: ...". */
enum status node_parse_yaml(struct arena *a, struct slice text, const char *name,
                            struct node **out);
enum status node_load_yaml(struct arena *a, const char *path,
                           struct node **out); /* NOT_FOUND too */
/* JSON by cJSON; a parse allocates from the arena only. Repeated keys, NUL in strings and numbers
 * beyond double are refused. Errors: INVALID_ARGUMENT "name:line: byte position: ...". */
enum status node_parse_json(struct arena *a, struct slice text, const char *name,
                            struct node **out);

const struct node *node_get(const struct node *map, const char *key); /* NULL when absent */
const char *node_type_word(enum node_type t);

/* Writing JSON into a buf: commas and escapes are the writer's business. */
struct json {
    struct buf *out;
    int depth;
    bool first[64];
    bool after_key;
};
void json_begin(struct json *j, struct buf *out);
void json_object(struct json *j);
void json_object_end(struct json *j);
void json_array(struct json *j);
void json_array_end(struct json *j);
void json_key(struct json *j, const char *key);
void json_str(struct json *j, struct slice s); /* invalid UTF-8 becomes U+FFFD */
void json_cstr(struct json *j, const char *s);
void json_num(struct json *j,
              double v); /* shortest form that reads back equal; NaN and inf: null */
void json_int(struct json *j, int64_t v);
void json_bool(struct json *j, bool v);
void json_null(struct json *j);
void json_tree(struct json *j, const struct node *n);
