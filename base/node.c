/* node.c: what YAML and JSON trees have in common: look-up, scalars' types, duplicate keys. */
#include "base/node.h"
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include "base/hash.h"
#include "base/node_build.h"

const struct node *node_get(const struct node *map, const char *key) {
    if (!map || map->type != NODE_MAP)
        return NULL;
    struct slice wanted = slice_of(key);
    for (const struct node *c = map->first; c; c = c->next)
        if (slice_equal(c->key, wanted))
            return c;
    return NULL;
}

const char *node_type_word(enum node_type t) {
    static const char *const words[] = {"null", "bool", "number", "string", "list", "map"};
    return words[t];
}

/* [+-] digits [. digits] [e [+-] digits], with _ between digits; at least one digit. */
static bool looks_numeric(struct slice s) {
    size_t i = s.n && (s.p[0] == '-' || s.p[0] == '+'), digits = 0;
    bool dot = false;
    for (; i < s.n; i++) {
        char c = s.p[i];
        if (c >= '0' && c <= '9')
            digits++;
        else if (c == '.' && !dot)
            dot = true;
        else if (!(c == '_' && digits && !dot))
            break;
    }
    if (digits == 0 || i == s.n)
        return digits > 0;
    if ((s.p[i] != 'e' && s.p[i] != 'E') || ++i == s.n)
        return false;
    i += s.p[i] == '-' || s.p[i] == '+';
    if (i == s.n)
        return false;
    for (; i < s.n; i++)
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
    return true;
}

bool node_number(struct slice s, double *out) {
    char text[64];
    size_t n = 0;
    if (s.n == 0 || s.n >= sizeof text || !looks_numeric(s))
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] != '_')
            text[n++] = s.p[i];
    text[n] = '\0';
    double v = strtod(text, NULL);
    if (v - v != 0) /* 1e999 */
        return false;
    *out = v;
    return true;
}

static const struct node *repeated_of_few(const struct node *map) {
    for (const struct node *a = map->first; a; a = a->next)
        for (const struct node *b = map->first; b != a; b = b->next)
            if (slice_equal(a->key, b->key))
                return a;
    return NULL;
}

const struct node *node_repeated_key(struct arena *a, const struct node *map) {
    if (map->n <= 16)
        return repeated_of_few(map);
    size_t cap = 32;
    while (cap < (size_t)map->n * 2)
        cap *= 2;
    const struct node **seen = ARENA_ARRAY(a, const struct node *, cap);
    for (const struct node *c = map->first; c; c = c->next) {
        size_t i = hash_bytes(c->key, 0) & (cap - 1);
        for (; seen[i]; i = (i + 1) & (cap - 1))
            if (slice_equal(seen[i]->key, c->key))
                return c;
        seen[i] = c;
    }
    return NULL;
}
