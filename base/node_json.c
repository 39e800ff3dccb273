/* node_json.c: JSON text to a tree of nodes, by cJSON.
 *
 * cJSON decides what is JSON. Its allocations come from the caller's arena (its hooks are global,
 * so they are set once and find the arena in a thread-local), hence strings are used where cJSON
 * put them and a parse makes no malloc. cJSON keeps neither a number's digits nor lines; a second,
 * trusting walk over the same text beside the tree takes both, so that an int64 keeps all digits.
 * Stricter than cJSON: no repeated keys, no NUL in strings (cJSON would cut them short), no
 * numbers beyond double, at most 64 deep. */
#include <cjson/cJSON.h>
#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include "base/node_build.h"

static _Thread_local struct arena *hook_arena;
static pthread_once_t hooks_once = PTHREAD_ONCE_INIT;

static void *hook_alloc(size_t bytes) {
    return hook_arena ? arena_alloc(hook_arena, bytes) : malloc(bytes);
}

static void hook_free(void *p) {
    if (!hook_arena)
        free(p);
}

static void hooks_install(void) {
    cJSON_Hooks hooks = {hook_alloc, hook_free};
    cJSON_InitHooks(&hooks);
}

struct walk {
    struct arena *a;
    const char *name, *begin, *p, *end;
    const char *line_start;
    int line;
};

static enum status fail_at(const struct walk *w, const char *what) {
    return fail(STATUS_INVALID_ARGUMENT, "%s:%d: byte %zu: %s", w->name, w->line,
                (size_t)(w->p - w->begin), what);
}

/* cJSON's notion; the walk must keep step with it. */
static bool is_space(char c) { return (unsigned char)c <= ' '; }

/* To the next token; commas and colons are where cJSON wants them, so they count as space. */
static void skip(struct walk *w) {
    for (; w->p < w->end && (is_space(*w->p) || *w->p == ',' || *w->p == ':'); w->p++) {
        if (*w->p != '\n')
            continue;
        w->line++;
        w->line_start = w->p + 1;
    }
}

/* At an opening quote: moves past the closing one. */
static enum status skip_string(struct walk *w) {
    for (w->p++; *w->p != '"'; w->p++) {
        if (*w->p != '\\')
            continue;
        if (w->end - w->p > 5 && memcmp(w->p, "\\u0000", 6) == 0)
            return fail_at(w, "\\u0000 in a string is not supported");
        w->p++;
    }
    w->p++;
    return STATUS_OK;
}

static enum status convert_number(struct walk *w, struct node *n) {
    const char *from = w->p;
    while (w->p < w->end && strchr("+-.0123456789eE", *w->p))
        w->p++;
    if (n->number - n->number != 0) {
        w->p = from;
        return fail_at(w, "number too large");
    }
    n->type = NODE_NUMBER;
    n->text = arena_dup(w->a, (struct slice){from, (size_t)(w->p - from)});
    return STATUS_OK;
}

static enum status convert(struct walk *w, const cJSON *item, int depth, struct node *n);

static enum status convert_children(struct walk *w, const cJSON *item, int depth, struct node *n) {
    bool is_map = cJSON_IsObject(item);
    struct node *last = NULL;
    n->type = is_map ? NODE_MAP : NODE_LIST;
    w->p++; /* the bracket */
    for (const cJSON *c = item->child; c; c = c->next) {
        struct node *child = ARENA_NEW(w->a, struct node);
        skip(w);
        if (is_map) {
            child->key = slice_of(c->string);
            child->key_line = w->line;
            TRY(skip_string(w));
        }
        TRY(convert(w, c, depth + 1, child));
        node_append(n, last, child);
        last = child;
    }
    skip(w);
    w->p++;
    const struct node *again = is_map ? node_repeated_key(w->a, n) : NULL;
    if (again)
        return fail(STATUS_INVALID_ARGUMENT, "%s:%d: key '%s' is given twice", w->name,
                    again->key_line, again->key.p);
    return STATUS_OK;
}

static enum status convert(struct walk *w, const cJSON *item, int depth, struct node *n) {
    skip(w);
    n->line = w->line;
    n->column = (int)(w->p - w->line_start) + 1;
    if (depth > NODE_DEPTH_MAX)
        return fail_at(w, "nested more than 64 deep");
    switch (item->type & 0xFF) {
    case cJSON_Array:
    case cJSON_Object:
        return convert_children(w, item, depth, n);
    case cJSON_String:
        n->type = NODE_STRING;
        n->text = slice_of(item->valuestring);
        return skip_string(w);
    case cJSON_Number:
        n->number = item->valuedouble;
        return convert_number(w, n);
    case cJSON_True:
    case cJSON_False:
        n->type = NODE_BOOL;
        n->boolean = cJSON_IsTrue(item);
        n->text = n->boolean ? SLICE_LIT("true") : SLICE_LIT("false");
        break;
    default:
        n->text = SLICE_LIT("null");
    }
    w->p += n->text.n;
    return STATUS_OK;
}

static enum status parse(struct walk *w, struct node *n) {
    size_t bytes = (size_t)(w->end - w->begin);
    const char *nul = bytes ? memchr(w->begin, '\0', bytes) : NULL;
    const char *stop = NULL;
    cJSON *tree = nul ? NULL : cJSON_ParseWithLengthOpts(w->begin, bytes, &stop, 0);
    if (tree)
        for (; stop < w->end && is_space(*stop); stop++)
            ;
    if (!tree || stop != w->end) {
        w->p = nul ? nul : stop ? stop : w->begin;
        return fail_at(w, tree ? "more text after the value" : "not JSON");
    }
    if (bytes >= 3 && memcmp(w->begin, "\xEF\xBB\xBF", 3) == 0)
        w->p += 3; /* cJSON skips the byte order mark */
    return convert(w, tree, 1, n);
}

enum status node_parse_json(struct arena *a, struct slice text, const char *name,
                            struct node **out) {
    pthread_once(&hooks_once, hooks_install);
    const char *p = text.n ? text.p : "";
    struct walk w = {a, name, p, p, p + text.n, p, 1};
    struct node *n = ARENA_NEW(a, struct node);
    hook_arena = a;
    enum status s = parse(&w, n);
    hook_arena = NULL;
    if (s == STATUS_OK)
        *out = n;
    return s;
}
