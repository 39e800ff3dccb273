/* scorer_packed_run.h: what the files that run a packed model share: one request's state, and a
 * layer over some rows. */
#pragma once
#include "base/clock.h"
#include "moe/score/scorer_packed.h"

struct packed_run {
    const struct moe_packed *p;
    char *scratch;
    int n;                         /* rows of this block, or of them those that an expert gets */
    const int *rows;               /* [n] which these are; NULL: all */
    const struct moe_batch *batch; /* the block's */
    const struct packed_watch *watch;
    /* the item cache; NULL: off */
    const char *const *kept;      /* [n] rows of halves of this block */
    const char *const *kept_next; /* [n_next] of the next */
    int n_next;
};

static inline float *packed_floats(const struct packed_run *r, size_t at) {
    return (float *)(void *)(r->scratch + at);
}

/* Ends a stage that began at *from, and begins the next. */
static inline void packed_lap(const struct packed_run *r, enum packed_stage stage, int64_t *from) {
    if (!r->watch || !r->watch->stage_ns)
        return;
    int64_t now = clock_mono_ns();
    if (*from)
        r->watch->stage_ns[stage] += now - *from;
    *from = now;
}

static inline void packed_show(const struct packed_run *r, size_t unit, const void *rows,
                               size_t stride, int columns) {
    if (r->watch && r->watch->see)
        r->watch->see(r->watch->to, unit, rows, stride, r->n, columns, r->rows);
}

/* Rows [n x columns] of floats as the tiles want them; padding columns are read and written. rows:
 * where they go, NULL: 0, 1, .. */
void moe_packed_convert(const struct moe_kernels *k, enum moe_precision to, const float *per_unit,
                        int zero, const float *x, size_t x_stride, int n, int columns, char *out,
                        size_t out_stride, const int *rows);

/* Where a layer's output goes: rows of `type`, u8 with these units. */
struct packed_target {
    enum moe_precision type;
    char *rows;
    size_t stride; /* bytes */
    const float *per_unit;
    int zero;
    const int *at; /* [n] which rows; NULL: 0, 1, .. */
};
/* The part of a tile's description that follows from the layer. query_at: bytes of scratch, of the
 * product its start vector is in. */
struct moe_tile moe_packed_tile(const struct packed_run *r, const struct packed_layer *l,
                                const void *a, size_t a_stride, size_t query_at);
void moe_packed_layer(const struct packed_run *r, const struct packed_layer *l,
                      const struct moe_tile *t);
void moe_packed_store(const struct packed_run *r, const struct packed_layer *l, const void *a,
                      size_t a_stride, size_t query_at, const struct packed_target *to);

/* Item halves (scorer_packed_halves.c). begin: keys of all rows and the first block's look-ups;
 * block: this block's misses are made and kept, the next block is looked up; end: pins go. */
void moe_packed_halves_begin(struct packed_run *r, const struct moe_batch *b);
void moe_packed_halves_block(struct packed_run *r, const struct moe_batch *b, int from);
void moe_packed_halves_end(struct packed_run *r, int from);
void moe_packed_halves_logits(const struct packed_run *r);
void moe_packed_halves_first(const struct packed_run *r, int expert, struct packed_target *to);
/* Shows the watch every half, in fp32. */
void moe_packed_halves_show(const struct packed_run *r);

/* Blends experts for this request (scorer_packed_merge.c), and sets the layers of a blend. */
void moe_packed_merge(const struct packed_run *r);
void moe_packed_merged(const struct packed_run *r, const struct packed_level *l,
                       const struct packed_expert *e, struct packed_layer *layers /* [n_layers] */);

/* All experts of a level, then the modules' sums. */
void moe_packed_experts(const struct packed_run *r, const struct packed_level *level);
/* Copies of a source's rows in the types that read them. */
void moe_packed_open(const struct packed_run *r, const struct packed_level *below,
                     const struct packed_source *s);
