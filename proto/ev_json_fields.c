/* ev_json_fields.c: an event's fields out of JSON, in Metarank's form and in protobuf's:
 *     {"name":"price","value":12.5}      the type is the value's own
 *     {"name":"price","number":12.5}     the key says the type: boolean, number, text,
 *     {"name":"tags","texts":{"values":["a","b"]}}                numbers, texts
 * An empty list under "value" is one of strings. What else stands in a field is skipped. */
#include "base/node.h"
#include "proto/wire.h"

static enum status numbers_of(struct arena *a, const struct node *list, struct ev_value *out) {
    double *v = arena_alloc(a, (size_t)list->n * sizeof *v);
    int i = 0;
    for (const struct node *n = list->first; n; n = n->next) {
        if (n->type != NODE_NUMBER)
            return fail(STATUS_INVALID_ARGUMENT, "value[%d] is a %s in a list of numbers", i,
                        node_type_word(n->type));
        v[i++] = n->number;
    }
    *out = (struct ev_value){.type = EV_NUMBERS, .numbers = {v, i}};
    return STATUS_OK;
}

static enum status strings_of(struct arena *a, const struct node *list, struct ev_value *out) {
    struct slice *v = arena_alloc(a, (size_t)list->n * sizeof *v);
    int i = 0;
    for (const struct node *n = list->first; n; n = n->next) {
        if (n->type != NODE_STRING)
            return fail(STATUS_INVALID_ARGUMENT, "value[%d] is a %s in a list of strings", i,
                        node_type_word(n->type));
        v[i++] = n->text;
    }
    *out = (struct ev_value){.type = EV_STRINGS, .strings = {v, i}};
    return STATUS_OK;
}

static enum status value_of(struct arena *a, const struct node *n, struct ev_value *out) {
    switch (n->type) {
    case NODE_BOOL:
        *out = (struct ev_value){.type = EV_BOOL, .boolean = n->boolean};
        return STATUS_OK;
    case NODE_NUMBER:
        *out = (struct ev_value){.type = EV_NUMBER, .number = n->number};
        return STATUS_OK;
    case NODE_STRING:
        *out = (struct ev_value){.type = EV_STRING, .string = n->text};
        return STATUS_OK;
    case NODE_LIST:
        return n->first && n->first->type == NODE_NUMBER ? numbers_of(a, n, out)
                                                         : strings_of(a, n, out);
    default:
        return fail(STATUS_INVALID_ARGUMENT, "value must be bool, number, string or list (got %s)",
                    node_type_word(n->type));
    }
}

/* protobuf's form: a list stands in a message of its own, and may be empty. */
static enum status typed_value_of(struct arena *a, enum ev_type type, const struct node *n,
                                  struct ev_value *out) {
    static const struct node empty = {.type = NODE_LIST};
    struct ev_value v = {0};
    bool is_list = type == EV_NUMBERS || type == EV_STRINGS;
    if (is_list && n->type == NODE_MAP) {
        n = node_get(n, "values");
        n = n ? n : &empty;
    }
    if (is_list && n->type == NODE_LIST && n->n == 0)
        v.type = type;
    else
        TRY(value_of(a, n, &v));
    if (v.type != type)
        return fail(STATUS_INVALID_ARGUMENT, "value is not of the type its key says");
    *out = v;
    return STATUS_OK;
}

static enum ev_type type_of_key(struct slice key) {
    return slice_is(key, "boolean")   ? EV_BOOL
           : slice_is(key, "number")  ? EV_NUMBER
           : slice_is(key, "text")    ? EV_STRING
           : slice_is(key, "numbers") ? EV_NUMBERS
           : slice_is(key, "texts")   ? EV_STRINGS
                                      : 0;
}

static enum status field_of(struct arena *a, const struct node *n, struct ev_field *f) {
    if (n->type != NODE_MAP)
        return fail(STATUS_INVALID_ARGUMENT, "must be a map (got %s)", node_type_word(n->type));
    for (const struct node *c = n->first; c; c = c->next) {
        bool is_value = slice_is(c->key, "value");
        enum ev_type type = is_value ? 0 : type_of_key(c->key);
        if (slice_is(c->key, "name")) {
            if (c->type != NODE_STRING)
                return fail(STATUS_INVALID_ARGUMENT, "name must be a string (got %s)",
                            node_type_word(c->type));
            f->name = c->text;
        } else if ((is_value || type) && c->type != NODE_NULL) {
            if (f->value.type)
                return fail(STATUS_INVALID_ARGUMENT, "more than one value");
            TRY(is_value ? value_of(a, c, &f->value) : typed_value_of(a, type, c, &f->value));
        }
    }
    return STATUS_OK;
}

/* The name, if it can be told, makes the better message. */
static enum status fail_in_field(enum status code, const struct node *n, int i) {
    const struct node *name = n->type == NODE_MAP ? node_get(n, "name") : NULL;
    if (!name || name->type != NODE_STRING)
        return fail_in(code, "fields[%d]", i);
    return fail_in(code, "fields[%d] '%.*s'", i, SLICE_ARG(name->text));
}

enum status ev_json_fields(struct arena *a, const struct node *list, const struct ev_field **out,
                           int *n_out) {
    if (list->type != NODE_LIST)
        return fail(STATUS_INVALID_ARGUMENT, "fields must be a list (got %s)",
                    node_type_word(list->type));
    TRY(ev_check_count(EV_AT("fields"), (size_t)list->n, EV_FIELDS_MAX));
    struct ev_field *to = list->n ? ARENA_ARRAY(a, struct ev_field, list->n) : NULL;
    int i = 0;
    for (const struct node *n = list->first; n; n = n->next, i++) {
        enum status s = field_of(a, n, &to[i]);
        if (s != STATUS_OK)
            return fail_in_field(s, n, i);
    }
    *out = to;
    *n_out = i;
    return STATUS_OK;
}
