/* hash.c: Hash layers (Roller et al., NeurIPS 2021): an id's hash is its expert, nothing is
 * learned. A good baseline of every learned gate. Ids are as unequal as the data: with `buckets`,
 * loads are counted over the first `settle` steps, then each bucket goes, greatest first, to the
 * expert with the least load so far, and stays there. Rows without the id mix all experts evenly.
 */
#include <assert.h>
#include <math.h>
#include <string.h>
#include "base/hash.h"
#include "moe/gate_input.h"

#define EXPERTS_MAX 4096

struct conf {
    const char *input;
    int64_t seed, buckets, settle;
};
static const struct conf_item items[] = {
    CONF_STRING(struct conf, input, "input", "",
                "id or column whose value is hashed; empty: the first id"),
    CONF_INT(struct conf, seed, "seed", "0", 0, 1000000000, NULL, "another seed, other experts"),
    CONF_INT(struct conf, buckets, "buckets", "0", 0, 65536, "buckets",
             "0: experts by hash alone; else buckets spread over the experts by load"),
    CONF_INT(struct conf, settle, "settle", "200", 1, 1000000, "steps",
             "steps that loads are counted over before buckets are spread"),
    CONF_END};

enum { STEPS, TABLE }; /* places in the buffers: steps, table [buckets], seen [buckets] */

static enum status shape(struct moe_gate *g, struct conf_place place, struct arena *a) {
    const struct conf *c = g->conf;
    struct moe_gate_input *in = ARENA_NEW(a, struct moe_gate_input);
    assert(g->n_experts <= EXPERTS_MAX);
    TRY(moe_gate_input_find(g, c->input, place, in));
    g->shape = in;
    if (c->buckets == 0)
        return STATUS_OK;
    moe_layout_add(&g->buffers, "steps", 1, 1, MOE_INIT_ZERO, 0);
    moe_layout_add(&g->buffers, "table", 1, (int)c->buckets, MOE_INIT_ZERO, 0); /* expert + 1 */
    moe_layout_add(&g->buffers, "seen", 1, (int)c->buckets, MOE_INIT_ZERO, 0);
    g->n_stats = (int)c->buckets;
    return STATUS_OK;
}

/* The row's hash; false: it has no value. */
static bool hash_row(const struct moe_gate *g, const struct moe_rows *x,
                     const struct moe_pass *pass, int row, uint64_t *out) {
    double value;
    uint64_t bits;
    if (!moe_gate_input_read(g->shape, x, pass->batch, row, &value))
        return false;
    memcpy(&bits, &value, sizeof bits);
    if (value == 0) /* -0 too */
        bits = 0;
    *out = hash_mix(bits, (uint64_t)((const struct conf *)g->conf)->seed);
    return true;
}

static int expert_of(const struct moe_gate *g, const float *buffers, uint64_t hash) {
    uint64_t buckets = (uint64_t)((const struct conf *)g->conf)->buckets;
    if (buckets == 0)
        return (int)(hash % (uint64_t)g->n_experts);
    uint64_t bucket = hash % buckets;
    float given = buffers[TABLE + bucket];
    return given > 0 ? (int)given - 1 : (int)(bucket % (uint64_t)g->n_experts);
}

static void forward(const struct moe_gate *g, const struct moe_gate_io *io,
                    const struct moe_rows *x, struct moe_pass *pass, struct moe_route *route) {
    size_t n = (size_t)g->n_experts;
    uint64_t hash;
    for (int r = 0; r < x->n_rows; r++) {
        float *w = route->w + (size_t)r * n;
        bool known = hash_row(g, x, pass, r, &hash);
        for (size_t e = 0; e < n; e++)
            w[e] = known ? 0 : 1 / (float)n;
        if (known)
            w[expert_of(g, io->buffers, hash)] = 1;
    }
}

static void backward(const struct moe_gate *g, const struct moe_gate_io *io,
                     const struct moe_rows *x, struct moe_pass *pass, const struct moe_route *route,
                     struct moe_route *d, float *dw, float *stats, const struct moe_rows_grad *dx) {
    uint64_t buckets = (uint64_t)((const struct conf *)g->conf)->buckets, hash;
    (void)io;
    (void)route;
    (void)d;
    (void)dw;
    (void)dx;
    for (int r = 0; r < x->n_rows && buckets && pass->training; r++)
        if (hash_row(g, x, pass, r, &hash))
            stats[hash % buckets] += 1;
}

static int greatest(int n, const float *v) {
    int best = 0;
    for (int i = 1; i < n; i++)
        best = v[i] > v[best] ? i : best;
    return best;
}

/* Longest processing time first (Graham 1969). */
static void spread(int n, int buckets, float *seen, float *table) {
    float room[EXPERTS_MAX]; /* minus the load */
    memset(room, 0, sizeof room);
    for (int i = 0; i < buckets; i++) {
        int bucket = greatest(buckets, seen), e = greatest(n, room);
        room[e] -= seen[bucket];
        table[bucket] = (float)(e + 1);
        seen[bucket] = -1;
    }
}

static void after_step(const struct moe_gate *g, const float *stats, float *buffers) {
    const struct conf *c = g->conf;
    int buckets = (int)c->buckets;
    if (buckets == 0 || buffers[STEPS] >= (float)c->settle)
        return;
    float *table = buffers + TABLE, *seen = table + buckets;
    for (int i = 0; i < buckets; i++)
        seen[i] += stats[i];
    buffers[STEPS] += 1;
    if (buffers[STEPS] >= (float)c->settle)
        spread(g->n_experts, buckets, seen, table);
}

const struct moe_gate_ops moe_gate_hash = {
    .name = "hash",
    .doc = "an id's hash is its expert; nothing is learned (Hash Layers, NeurIPS 2021)",
    .kind = MOE_ROUTE_WEIGHTS,
    .flags = MOE_GATE_SPARSE | MOE_GATE_LINEAR,
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .shape = shape,
    .forward = forward,
    .backward = backward,
    .after_step = after_step,
};
