/* node_yaml.c: YAML text to a tree of nodes, by libyaml's event parser.
 *
 * Plain scalars are null (~, null, nothing), true/false, decimal numbers, else strings; quoted ones
 * are strings. Deliberately left out, with an error that says so: anchors and aliases (a file of
 * 1 kB can stand for 1 GB), tags, several documents, yes/no/on/off as booleans (a country is
 * called NO). */
#include <assert.h>
#include <yaml.h>
#include "base/io.h"
#include "base/node_build.h"

enum { YAML_FILE_BYTES_MAX = 64 << 20 };

struct reader {
    yaml_parser_t parser;
    yaml_event_t event; /* the current one; freed by advance() */
    bool has_event;
    struct arena *a;
    const char *name;
};

static enum status fail_at(const struct reader *r, yaml_mark_t at, const char *what) {
    return fail(STATUS_INVALID_ARGUMENT, "%s:%zu:%zu: %s", r->name, at.line + 1, at.column + 1,
                what);
}

static enum status advance(struct reader *r) {
    if (r->has_event)
        yaml_event_delete(&r->event);
    r->has_event = yaml_parser_parse(&r->parser, &r->event) != 0;
    if (r->has_event)
        return STATUS_OK;
    const yaml_parser_t *p = &r->parser;
    if (p->error == YAML_READER_ERROR)
        return fail(STATUS_INVALID_ARGUMENT, "%s: byte %zu: %s", r->name, p->problem_offset,
                    p->problem);
    fail_at(r, p->problem_mark, p->problem ? p->problem : "not YAML");
    if (p->context)
        return fail(STATUS_INVALID_ARGUMENT, "%s (%s)", status_message(), p->context);
    return STATUS_INVALID_ARGUMENT;
}

static enum status refuse_extras(const struct reader *r, const void *anchor, const void *tag) {
    if (anchor)
        return fail_at(r, r->event.start_mark, "anchors are not supported; write the value out");
    if (tag)
        return fail_at(r, r->event.start_mark, "tags are not supported; leave the !tag away");
    return STATUS_OK;
}

static bool is_one_of(struct slice s, const char *const *words) {
    for (; *words; words++)
        if (slice_is(s, *words))
            return true;
    return false;
}

static void type_plain(struct node *n) {
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const trues[] = {"true", "True", "TRUE", NULL};
    static const char *const falses[] = {"false", "False", "FALSE", NULL};
    if (is_one_of(n->text, nulls))
        n->type = NODE_NULL;
    else if (is_one_of(n->text, trues) || is_one_of(n->text, falses)) {
        n->type = NODE_BOOL;
        n->boolean = is_one_of(n->text, trues);
    } else if (node_number(n->text, &n->number))
        n->type = NODE_NUMBER;
}

static enum status read_scalar(struct reader *r, struct node *n) {
    yaml_event_t *e = &r->event;
    TRY(refuse_extras(r, e->data.scalar.anchor, e->data.scalar.tag));
    n->type = NODE_STRING;
    n->text = arena_dup(r->a, (struct slice){(char *)e->data.scalar.value, e->data.scalar.length});
    if (e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
        type_plain(n);
    return STATUS_OK;
}

static enum status read_node(struct reader *r, int depth, struct node *n);

static enum status read_list(struct reader *r, int depth, struct node *n) {
    TRY(refuse_extras(r, r->event.data.sequence_start.anchor, r->event.data.sequence_start.tag));
    n->type = NODE_LIST;
    struct node *last = NULL;
    for (;;) {
        TRY(advance(r));
        if (r->event.type == YAML_SEQUENCE_END_EVENT)
            return STATUS_OK;
        struct node *child = ARENA_NEW(r->a, struct node);
        TRY(read_node(r, depth + 1, child));
        node_append(n, last, child);
        last = child;
    }
}

static enum status read_key(struct reader *r, struct node *child) {
    yaml_event_t *e = &r->event;
    if (e->type != YAML_SCALAR_EVENT)
        return fail_at(r, e->start_mark, "a key must be a plain word");
    TRY(refuse_extras(r, e->data.scalar.anchor, e->data.scalar.tag));
    child->key =
        arena_dup(r->a, (struct slice){(char *)e->data.scalar.value, e->data.scalar.length});
    child->key_line = (int)e->start_mark.line + 1;
    return STATUS_OK;
}

static enum status read_map(struct reader *r, int depth, struct node *n) {
    TRY(refuse_extras(r, r->event.data.mapping_start.anchor, r->event.data.mapping_start.tag));
    n->type = NODE_MAP;
    struct node *last = NULL;
    for (;;) {
        TRY(advance(r));
        if (r->event.type == YAML_MAPPING_END_EVENT)
            break;
        struct node *child = ARENA_NEW(r->a, struct node);
        TRY(read_key(r, child));
        TRY(advance(r));
        TRY(read_node(r, depth + 1, child));
        node_append(n, last, child);
        last = child;
    }
    const struct node *again = node_repeated_key(r->a, n);
    if (again)
        return fail(STATUS_INVALID_ARGUMENT, "%s:%d: key '%s' is given twice", r->name,
                    again->key_line, again->key.p);
    return STATUS_OK;
}

/* Reads the node that the current event begins; leaves the event that ends it current. */
static enum status read_node(struct reader *r, int depth, struct node *n) {
    n->line = (int)r->event.start_mark.line + 1;
    n->column = (int)r->event.start_mark.column + 1;
    if (depth > NODE_DEPTH_MAX)
        return fail_at(r, r->event.start_mark, "nested more than 64 deep");
    switch (r->event.type) {
    case YAML_SCALAR_EVENT:
        return read_scalar(r, n);
    case YAML_SEQUENCE_START_EVENT:
        return read_list(r, depth, n);
    case YAML_MAPPING_START_EVENT:
        return read_map(r, depth, n);
    default:
        return fail_at(r, r->event.start_mark, "aliases are not supported; write the value out");
    }
}

static enum status read_stream(struct reader *r, struct node *n) {
    TRY(advance(r)); /* stream start */
    TRY(advance(r));
    if (r->event.type == YAML_STREAM_END_EVENT)
        return STATUS_OK;
    TRY(advance(r)); /* document start is behind us */
    TRY(read_node(r, 1, n));
    TRY(advance(r)); /* document end */
    TRY(advance(r));
    if (r->event.type != YAML_STREAM_END_EVENT)
        return fail_at(r, r->event.start_mark, "a second document; one file holds one");
    return STATUS_OK;
}

enum status node_parse_yaml(struct arena *a, struct slice text, const char *name,
                            struct node **out) {
    struct reader r = {.a = a, .name = name};
    if (!yaml_parser_initialize(&r.parser))
        return fail(STATUS_RESOURCE_EXHAUSTED, "%s: libyaml has no memory", name);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)(text.n ? text.p : ""), text.n);
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    struct node *n = ARENA_NEW(a, struct node);
    enum status s = read_stream(&r, n);
    if (r.has_event)
        yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    if (s == STATUS_OK)
        *out = n;
    return s;
}

enum status node_load_yaml(struct arena *a, const char *path, struct node **out) {
    struct buf text = {0};
    TRY(io_read_file(path, YAML_FILE_BYTES_MAX, &text));
    enum status s = node_parse_yaml(a, buf_slice(&text), path, out);
    buf_deinit(&text);
    return s;
}
