/* node_build.h: what the YAML and JSON readers share; for base/node*.c only. */
#pragma once
#include "base/node.h"

enum { NODE_DEPTH_MAX = 64 };

/* A decimal number as settings write them: 12, -1.5e-3, 1_000. Too large for a double: false. */
bool node_number(struct slice s, double *out);

/* The second of two children with one key, or NULL. */
const struct node *node_repeated_key(struct arena *a, const struct node *map);

static inline void node_append(struct node *parent, struct node *last, struct node *child) {
    if (last)
        last->next = child;
    else
        parent->first = child;
    parent->n++;
}
