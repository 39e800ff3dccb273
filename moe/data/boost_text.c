/* boost_text.c: trees as text for a model's metadata, and back. Hex digits throughout: the base's
 * bits, then node after node in preorder: L and the bits of a leaf's value, or S, the column (4),
 * how many words of the set follow (1), and these. What is read is checked, since it may come from
 * anywhere: a tree must end, name columns that exist and hold finite values. */
#include <math.h>
#include <string.h>
#include "base/heap.h"
#include "moe/data/boost.h"

#define DEPTH_MAX 512

static void put_float(struct buf *out, float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    buf_printf(out, "%08x", bits);
}

void moe_boost_save(const struct moe_boost *b, struct buf *out) {
    put_float(out, b->base);
    for (int i = 0; i < b->n_nodes; i++) {
        const struct moe_boost_node *n = &b->nodes[i];
        if (n->column < 0) {
            buf_printf(out, "L");
            put_float(out, n->value);
            continue;
        }
        int words = 8;
        while (words > 1 && n->set[words - 1] == 0)
            words--;
        buf_printf(out, "S%04x%d", (unsigned)n->column, words);
        for (int k = 0; k < words; k++)
            buf_printf(out, "%08x", n->set[k]);
    }
}

struct text {
    const char *p, *end;
    bool bad;
    int columns;
    struct moe_boost *out;
};

static uint32_t take_hex(struct text *t, int digits) {
    uint32_t v = 0;
    if (t->end - t->p < digits)
        t->bad = true;
    for (int i = 0; !t->bad && i < digits; i++) {
        const char c = *t->p++;
        const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        t->bad = digit < 0;
        v = v << 4 | (uint32_t)(digit & 15);
    }
    return v;
}

static float take_float(struct text *t) {
    const uint32_t bits = take_hex(t, 8);
    float v;
    memcpy(&v, &bits, sizeof v);
    t->bad |= !isfinite(v);
    return v;
}

static void take_tree(struct text *t, int depth) {
    struct moe_boost *b = t->out;
    struct moe_boost_node n = {.column = -1};
    const int here = b->n_nodes;
    const char kind = t->p < t->end ? *t->p++ : '\0';
    if (kind == 'L') {
        n.value = take_float(t);
    } else {
        n.column = (int)take_hex(t, 4);
        const uint32_t words = take_hex(t, 1);
        t->bad |=
            kind != 'S' || depth == DEPTH_MAX || n.column >= t->columns || words < 1 || words > 8;
        for (uint32_t k = 0; !t->bad && k < words; k++)
            n.set[k] = take_hex(t, 8);
    }
    if (t->bad)
        return;
    if (b->n_nodes == b->nodes_cap) {
        b->nodes_cap = b->nodes_cap ? 2 * b->nodes_cap : 256;
        b->nodes = heap_grow(b->nodes, (size_t)b->nodes_cap * sizeof *b->nodes);
    }
    b->nodes[b->n_nodes++] = n;
    if (kind == 'L')
        return;
    take_tree(t, depth + 1);
    b->nodes[here].right = b->n_nodes;
    if (!t->bad)
        take_tree(t, depth + 1);
}

enum status moe_boost_load(struct slice text, int columns, struct moe_boost *out) {
    struct moe_boost b = {0};
    struct text t = {text.p, text.p + text.n, false, columns, &b};
    b.base = take_float(&t);
    while (!t.bad && t.p < t.end) {
        if (b.n_trees == b.trees_cap) {
            b.trees_cap = b.trees_cap ? 2 * b.trees_cap : 32;
            b.root = heap_grow(b.root, (size_t)b.trees_cap * sizeof *b.root);
        }
        b.root[b.n_trees++] = b.n_nodes;
        take_tree(&t, 0);
    }
    if (t.bad) {
        moe_boost_deinit(&b);
        return fail(STATUS_DATA_LOSS, "a tree is damaged");
    }
    *out = b;
    return STATUS_OK;
}
