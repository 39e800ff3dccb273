/* boost.c: gradient boosting of the logistic loss with second derivatives (Friedman 2001; Chen and
 * Guestrin, KDD 2016), over histograms of bins. A tree grows where the gain is greatest until it
 * has its leaves, and a category is split after sorting its values by gradient (Ke et al., NIPS
 * 2017). The histogram of the greater of two children is that of their parent less the other's. No
 * early stopping, no pruning, no sampling of rows, one thread. */
#include "moe/data/boost.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/heap.h"
#include "base/rng.h"

#define CATEGORY_RIDGE 10 /* more of it for sets of values, which fit anything */
#define AHEAD          12 /* rows: so early their bins are fetched */
#define CATEGORY_ROWS  20 /* rarer values of a leaf go right without being asked */

/* gradient, curvature, rows, nothing: floats, so that a row costs one addition of a vector */
typedef float four __attribute__((vector_size(16)));
struct sums {
    double g, h;
    int n;
};
struct split {
    double gain; /* 0: none */
    int column;
    uint32_t set[8];
};
struct leaf {
    int from, to, node; /* of `use` */
    struct sums all;
    four *bins; /* [total bins] */
    struct split best;
};
struct grower {
    const struct moe_boost_conf *c;
    const struct moe_boost_rows *x;
    int *use, *spare; /* [n] rows, leaf after leaf */
    float *g, *h;     /* [rows named] by row of x */
    double *logit;    /* by row of x */
    int *at;          /* [columns] first bin of a column in a histogram */
    int *seen;        /* [n_seen] columns this tree looks at */
    int *seen_at;     /* [n_seen] their first bins */
    int n_seen, n_bins, n_leaves;
    struct leaf *leaves; /* [c->leaves] */
    const int *held;     /* [n_held] rows that say when to stop */
    int n_held, best_n;  /* trees at the least loss of these */
    double *held_logit, best_loss;
    struct moe_boost *out;
};

/* --- histograms ------------------------------------------------------------------------------ */

static void count_rows(const struct grower *t, struct leaf *l) {
    const size_t columns = (size_t)t->x->columns;
    const int *seen = t->seen, *at = t->seen_at, n_seen = t->n_seen;
    four *to = l->bins;
    memset(to, 0, (size_t)t->n_bins * sizeof *to);
    for (int i = l->from; i < l->to; i++) {
        const size_t r = (size_t)t->use[i];
        const uint8_t *bins = t->x->bins + r * columns;
        if (i + AHEAD < l->to)
            __builtin_prefetch(t->x->bins + (size_t)t->use[i + AHEAD] * columns);
        const four add = {t->g[r], t->h[r], 1, 0};
        for (int k = 0; k < n_seen; k++)
            to[at[k] + bins[seen[k]]] += add;
    }
}

static struct sums sum_rows(const struct grower *t, const struct leaf *l) {
    struct sums s = {0, 0, l->to - l->from};
    for (int i = l->from; i < l->to; i++) {
        s.g += (double)t->g[t->use[i]];
        s.h += (double)t->h[t->use[i]];
    }
    return s;
}

/* rest = rest - part */
static void subtract(int n, const four *part, four *rest) {
    for (int i = 0; i < n; i++)
        rest[i] -= part[i];
}

/* --- the best split of a leaf ---------------------------------------------------------------- */

static double score_of(struct sums s, double ridge) { return s.g * s.g / (s.h + ridge); }

static double gain_of(const struct grower *t, struct sums all, struct sums left, double more) {
    const struct sums right = {all.g - left.g, all.h - left.h, all.n - left.n};
    const double ridge = t->c->ridge;
    if (left.n < t->c->rows_min || right.n < t->c->rows_min)
        return 0;
    return score_of(left, ridge + more) + score_of(right, ridge + more) - score_of(all, ridge);
}

struct value {
    double slope;
    int bin;
};
static int by_slope(const void *a, const void *b) {
    const struct value *x = a, *y = b;
    return x->slope != y->slope ? (x->slope > y->slope) - (x->slope < y->slope)
                                : (x->bin > y->bin) - (x->bin < y->bin);
}

/* The column's bins in the order in which they may go left. */
static int ordered(const struct grower *t, const struct leaf *l, int column, struct value *out) {
    const four *s = l->bins + t->at[column];
    int n = 0;
    for (int b = 0; b < t->x->n_bins[column]; b++)
        if (!t->x->category[column])
            out[n++] = (struct value){0, b};
        else if (s[b][2] >= CATEGORY_ROWS)
            out[n++] = (struct value){(double)(s[b][0] / (s[b][1] + CATEGORY_RIDGE)), b};
    if (t->x->category[column])
        qsort(out, (size_t)n, sizeof *out, by_slope);
    return n;
}

static void try_column(const struct grower *t, struct leaf *l, int column) {
    struct value order[MOE_BOOST_BINS];
    const int n = ordered(t, l, column, order);
    const double more = t->x->category[column] ? CATEGORY_RIDGE : 0;
    struct sums left = {0};
    double best = l->best.gain;
    int best_n = 0;
    for (int i = 0; i < n; i++) {
        const four s = l->bins[t->at[column] + order[i].bin];
        left.g += (double)s[0];
        left.h += (double)s[1];
        left.n += (int)s[2];
        const double gain = gain_of(t, l->all, left, more);
        if (gain > best * (1 + 1e-9)) {
            best = gain;
            best_n = i + 1;
        }
    }
    if (!best_n)
        return;
    l->best = (struct split){.gain = best, .column = column};
    for (int i = 0; i < best_n; i++)
        l->best.set[order[i].bin / 32] |= 1u << order[i].bin % 32;
}

static void find_best(const struct grower *t, struct leaf *l) {
    l->best = (struct split){0};
    for (int k = 0; k < t->n_seen; k++)
        try_column(t, l, t->seen[k]);
}

/* --- a tree ---------------------------------------------------------------------------------- */

static bool goes_left(const uint32_t *set, uint8_t bin) { return set[bin / 32] >> bin % 32 & 1; }

/* Rows of the set first, each part in its order; returns where the others begin. */
static int part_rows(struct grower *t, const struct leaf *l) {
    const size_t columns = (size_t)t->x->columns;
    const uint8_t *bins = t->x->bins + l->best.column;
    int left = l->from, right = 0;
    for (int i = l->from; i < l->to; i++) {
        const uint8_t bin = bins[(size_t)t->use[i] * columns];
        if (i + AHEAD < l->to)
            __builtin_prefetch(bins + (size_t)t->use[i + AHEAD] * columns);
        if (goes_left(l->best.set, bin))
            t->use[left++] = t->use[i];
        else
            t->spare[right++] = t->use[i];
    }
    memcpy(t->use + left, t->spare, (size_t)right * sizeof *t->use);
    return left;
}

static void split_leaf(struct grower *t, struct moe_boost_node *nodes, int *n_nodes, int which) {
    struct leaf *l = &t->leaves[which], *r = &t->leaves[t->n_leaves++];
    struct moe_boost_node *node = &nodes[l->node];
    const int middle = part_rows(t, l);
    node->column = l->best.column;
    node->right = *n_nodes + 1; /* the left one before it */
    memcpy(node->set, l->best.set, sizeof node->set);
    four *spare = r->bins;
    *r = (struct leaf){.from = middle, .to = l->to, .node = *n_nodes + 1, .bins = spare};
    l->to = middle;
    l->node = *n_nodes;
    *n_nodes += 2;
    struct leaf *less = l->to - l->from < r->to - r->from ? l : r, *more = less == l ? r : l;
    four *parent = l->bins;
    less->bins = spare;
    more->bins = parent;
    count_rows(t, less);
    subtract(t->n_bins, less->bins, more->bins);
    struct leaf *both[] = {l, r};
    for (int k = 0; k < 2; k++) {
        both[k]->all = sum_rows(t, both[k]);
        find_best(t, both[k]);
    }
}

static struct moe_boost_node *add_node(struct moe_boost *b) {
    if (b->n_nodes == b->nodes_cap) {
        b->nodes_cap = b->nodes_cap ? 2 * b->nodes_cap : 256;
        b->nodes = heap_grow(b->nodes, (size_t)b->nodes_cap * sizeof *b->nodes);
    }
    return &b->nodes[b->n_nodes++];
}
static void add_tree(struct moe_boost *b) {
    if (b->n_trees == b->trees_cap) {
        b->trees_cap = b->trees_cap ? 2 * b->trees_cap : 32;
        b->root = heap_grow(b->root, (size_t)b->trees_cap * sizeof *b->root);
    }
    b->root[b->n_trees++] = b->n_nodes;
}

/* Copies a tree (a node's left child stands before its right one) in preorder. */
static void keep_tree(struct moe_boost *b, const struct moe_boost_node *tree, int at) {
    const int here = b->n_nodes;
    *add_node(b) = tree[at];
    if (tree[at].column < 0)
        return;
    keep_tree(b, tree, tree[at].right - 1);
    b->nodes[here].right = b->n_nodes;
    keep_tree(b, tree, tree[at].right);
}

static void grow(struct grower *t, int n) {
    struct moe_boost_node nodes[2 * MOE_BOOST_LEAVES];
    int n_nodes = 1;
    memset(nodes, 0, sizeof nodes);
    for (int i = 0; i < 2 * MOE_BOOST_LEAVES; i++)
        nodes[i].column = -1;
    t->n_leaves = 1;
    struct leaf *root = &t->leaves[0];
    root->from = root->node = 0;
    root->to = n;
    root->all = sum_rows(t, root);
    count_rows(t, root);
    find_best(t, root);
    while (t->n_leaves < t->c->leaves) {
        int best = 0;
        for (int i = 1; i < t->n_leaves; i++)
            if (t->leaves[i].best.gain > t->leaves[best].best.gain)
                best = i;
        if (!(t->leaves[best].best.gain > 0))
            break;
        split_leaf(t, nodes, &n_nodes, best);
    }
    for (int i = 0; i < t->n_leaves; i++) {
        const struct leaf *l = &t->leaves[i];
        const double v = -t->c->rate * l->all.g / (l->all.h + t->c->ridge);
        nodes[l->node].value = (float)v;
        for (int k = l->from; k < l->to; k++)
            t->logit[t->use[k]] += (double)nodes[l->node].value;
    }
    add_tree(t->out);
    keep_tree(t->out, nodes, 0);
}

/* --- all trees ------------------------------------------------------------------------------- */

/* First and second derivative of the loss by each row's logit. */
static void differentiate(struct grower *t, int n) {
    for (int i = 0; i < n; i++) {
        const size_t r = (size_t)t->use[i];
        const double p = 1 / (1 + exp(-t->logit[r])), w = (double)t->x->weight[r];
        t->g[r] = (float)(w * (p - (double)t->x->label[r * (size_t)t->x->label_stride]));
        t->h[r] = (float)(w * p * (1 - p));
    }
}

static void choose_columns(struct grower *t, struct rng *rng) {
    const int columns = t->x->columns;
    uint32_t *order = HEAP_ARRAY(uint32_t, columns);
    for (int c = 0; c < columns; c++)
        order[c] = (uint32_t)c;
    rng_shuffle_u32(rng, order, (uint32_t)columns);
    t->n_seen = (int)ceil(t->c->columns * columns);
    t->n_seen = t->n_seen < 1 ? 1 : t->n_seen > columns ? columns : t->n_seen;
    for (int k = 0; k < t->n_seen; k++)
        t->seen_at[k] = t->at[t->seen[k] = (int)order[k]];
    heap_free(order);
}

static float prior_of(const struct moe_boost_rows *x, const int *use, int n) {
    double sum = 0.5, all = 1; /* half a row of each class, so that it is finite */
    for (int i = 0; i < n; i++) {
        const size_t r = (size_t)use[i];
        sum += (double)x->weight[r] * (double)x->label[r * (size_t)x->label_stride];
        all += (double)x->weight[r];
    }
    return (float)log(sum / (all - sum));
}

static float tree_value(const struct moe_boost *b, int tree, const uint8_t *bins) {
    int at = b->root[tree];
    while (b->nodes[at].column >= 0)
        at = goes_left(b->nodes[at].set, bins[b->nodes[at].column]) ? at + 1 : b->nodes[at].right;
    return b->nodes[at].value;
}

/* After a tree: whether another one may help, by the held rows' loss. */
static bool goes_on(struct grower *t) {
    const struct moe_boost *b = t->out;
    double loss = 0;
    if (t->n_held == 0 || t->c->patience == 0) {
        t->best_n = b->n_trees;
        return true;
    }
    for (int i = 0; i < t->n_held; i++) {
        const size_t r = (size_t)t->held[i];
        t->held_logit[i] +=
            (double)tree_value(b, b->n_trees - 1, t->x->bins + r * (size_t)t->x->columns);
        const double z = t->held_logit[i];
        const double y = (double)t->x->label[r * (size_t)t->x->label_stride];
        loss += (double)t->x->weight[r] * (log1p(exp(-fabs(z))) + fmax(z, 0) - z * y);
    }
    if (b->n_trees == 1 || loss < t->best_loss) {
        t->best_loss = loss;
        t->best_n = b->n_trees;
    }
    return b->n_trees - t->best_n < t->c->patience;
}

static void keep_trees(struct moe_boost *b, int n) {
    if (n == b->n_trees)
        return;
    b->n_nodes = b->root[n];
    b->n_trees = n;
}

void moe_boost_fit(const struct moe_boost_conf *c, const struct moe_boost_rows *x, int *use, int n,
                   const int *held, int n_held, uint64_t seed, struct moe_boost *out) {
    struct grower t = {.c = c, .x = x, .use = use, .out = out, .held = held, .n_held = n_held};
    struct rng rng;
    int rows = 0;
    *out = (struct moe_boost){.base = prior_of(x, use, n)};
    for (int i = 0; i < n; i++)
        rows = use[i] >= rows ? use[i] + 1 : rows;
    t.spare = HEAP_ARRAY(int, n);
    t.g = HEAP_ARRAY(float, rows);
    t.h = HEAP_ARRAY(float, rows);
    t.logit = HEAP_ARRAY(double, rows);
    t.at = HEAP_ARRAY(int, x->columns);
    t.seen = HEAP_ARRAY(int, x->columns);
    t.seen_at = HEAP_ARRAY(int, x->columns);
    t.leaves = HEAP_ARRAY(struct leaf, c->leaves);
    for (int k = 0; k < x->columns; k++) {
        t.at[k] = t.n_bins;
        t.n_bins += x->n_bins[k];
    }
    for (int64_t i = 0; i < c->leaves; i++)
        t.leaves[i].bins = heap_alloc_aligned((size_t)t.n_bins * sizeof(four));
    t.held_logit = HEAP_ARRAY(double, n_held + 1);
    for (int i = 0; i < n; i++)
        t.logit[use[i]] = (double)out->base;
    for (int i = 0; i < n_held; i++)
        t.held_logit[i] = (double)out->base;
    rng_init(&rng, seed);
    for (int64_t k = 0; k < c->count; k++) {
        differentiate(&t, n);
        choose_columns(&t, &rng);
        grow(&t, n);
        if (!goes_on(&t))
            break;
    }
    keep_trees(out, t.best_n);
    for (int64_t i = 0; i < c->leaves; i++)
        heap_free(t.leaves[i].bins);
    void *all[] = {t.spare, t.g, t.h, t.logit, t.at, t.seen, t.seen_at, t.leaves, t.held_logit};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        heap_free(all[i]);
}

void moe_boost_deinit(struct moe_boost *b) {
    heap_free(b->nodes);
    heap_free(b->root);
    *b = (struct moe_boost){0};
}

float moe_boost_score(const struct moe_boost *b, const uint8_t *bins) {
    double sum = (double)b->base;
    for (int k = 0; k < b->n_trees; k++)
        sum += (double)tree_value(b, k, bins);
    return (float)sum;
}
