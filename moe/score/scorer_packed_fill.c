/* scorer_packed_fill.c: packs a model's weights into one block: the same walk twice, first to
 * count, then to fill.
 *
 * int8. An activation is u8 = round(x / unit) + zero, unit by column, zero 128 for what may be
 * negative and 0 for what cannot. Units are folded into the weights that read the column; the
 * zeros' share, a constant per output, is taken off the start vector; and a layer whose output is
 * stored as u8 is scaled by the next layer's units, so that an epilogue is one multiply-add. */
#include <string.h>
#include <sys/mman.h>
#include "base/heap.h"
#include "moe/score/scorer_packed.h"

#define ZERO_SIGNED 128

struct filler {
    struct moe_packed *p;
    char *base; /* NULL: counting */
    size_t used;
    const float *units; /* what is left of them; NULL unless int8 */
    const float *query_units;
};

static void *room(struct filler *f, size_t bytes) {
    void *at = f->base ? f->base + f->used : NULL;
    f->used += (bytes + 63) & ~(size_t)63;
    return at;
}

static const float *next_units(struct filler *f, int n) {
    const float *u = f->units;
    if (u)
        f->units += n;
    return u;
}

/* What turns a column into steps, to whole vectors. */
static const float *per_unit(struct filler *f, const float *unit, int n) {
    if (!unit)
        return NULL;
    float *per = room(f, ((size_t)n + 2 * MOE_LANES) * sizeof *per);
    for (int i = 0; per && i < n; i++)
        per[i] = 1 / unit[i];
    return per;
}

static void place_panels(struct filler *f, struct moe_pack *w, enum moe_precision precision, int k,
                         int n, int nr) {
    void *block = room(f, moe_pack_bytes(precision, k, n, nr));
    moe_pack_place(w, precision, k, n, nr, block);
}

static void place(struct filler *f, struct moe_pack *w, enum moe_precision precision, int k,
                  int n) {
    place_panels(f, w, precision, k, n, f->p->k->nr);
}

static void place_gates(struct filler *f, struct moe_pack *w, enum moe_precision precision, int k,
                        int n) {
    place_panels(f, w, precision, k, n, moe_pack_gate_nr(f->p->k, precision, n));
}

static float *columns_room(struct filler *f, int n) {
    int nr = f->p->k->nr;
    return room(f, (size_t)((n + nr - 1) / nr * nr) * sizeof(float));
}

/* A run of columns of a layer: W [(dq + in) x n] and its bias. */
struct part {
    const float *w, *b; /* b NULL: none */
    int n, at;          /* columns; the first one in the layer */
    int dq;
    const float *in_unit, *out_unit; /* int8; out NULL: plain numbers */
};

static void scale_column(struct moe_pack *w, int c, float by) {
    w->scale[c] *= by;
    w->zero[c] *= by;
}

/* Packs a part, its query rows too, and sets its start. */
static void fill_part(struct filler *f, struct packed_layer *l, struct packed_query *q,
                      const struct part *x) {
    const size_t n = (size_t)x->n;
    const int from = q ? (int)l->start_at + x->at : x->at;
    float *start = (float *)(q ? q->start : l->start) + from;
    bool int8 = l->w.precision == MOE_INT8;
    moe_pack_fill(&l->w, x->at, x->n, x->w + (size_t)x->dq * n, n, int8 ? x->in_unit : NULL);
    if (q)
        moe_pack_fill(&q->w, from, x->n, x->w, n, int8 ? f->query_units : NULL);
    for (int c = 0; c < x->n; c++) {
        float b = x->b ? x->b[c] : 0, by = x->out_unit ? 1 / x->out_unit[c] : 1;
        if (int8) {
            scale_column(&l->w, x->at + c, by);
            b = b * by - (float)l->zero * l->w.zero[x->at + c];
            if (q) {
                scale_column(&q->w, from + c, by);
                b -= (float)q->zero * q->w.zero[from + c];
            }
        }
        start[c] = b;
    }
}

/* The query product that a layer over this source starts from. */
static struct packed_query *query_of(struct moe_packed *p, const struct packed_source *s,
                                     struct packed_query *q) {
    return s->n == 0 && p->m->part[MOE_QUERY] > 0 ? q : NULL;
}

/* The logits of a source's gates that choose, or that do not, side by side. */
static void fill_gates(struct filler *f, int level, int at, bool choose, struct packed_layer *l,
                       struct packed_query *q) {
    struct moe_packed *p = f->p;
    const struct packed_level *to = &p->levels[level];
    for (int g = 0; g < to->n_gates; g++) {
        const struct moe_gate_use *u = to->gates[g].use;
        const struct moe_layout *y = &u->gate.params;
        const enum packed_gate_kind kind = to->gates[g].kind;
        const bool chooses = kind == PACKED_TOP || kind == PACKED_CHOICE;
        if (u->source != at || (!chooses && kind != PACKED_SOFTMAX) || chooses != choose)
            continue;
        const float *w = moe_params_at(&p->m->params, p->m->params.v, u->tensor, 0);
        struct part x = {.w = w + y->f[0].at,
                         .b = y->n > 1 ? w + y->f[1].at : NULL,
                         .n = u->gate.n_experts,
                         .at = to->gates[g].logits_at,
                         .dq = q ? p->m->part[MOE_QUERY] : 0};
        fill_part(f, l, q, &x);
    }
}

static void fill_wide(struct filler *f, struct packed_layer *l, struct packed_query *q) {
    struct moe_packed *p = f->p;
    const struct moe_tensor *t = &p->m->params.t[p->m->wide_tensor];
    const float *w = moe_params_at(&p->m->params, p->m->params.v, p->m->wide_tensor, 0);
    struct part x = {.w = w + t->layout.f[0].at,
                     .b = w + t->layout.f[1].at,
                     .n = p->m->n_tasks,
                     .at = p->wide_at,
                     .dq = q ? p->m->part[MOE_QUERY] : 0};
    fill_part(f, l, q, &x);
}

static void fill_side(struct filler *f, int level, int at) {
    struct moe_packed *p = f->p;
    struct packed_source *s = &p->levels[level].sources[at];
    struct packed_query *q = query_of(p, s, &p->query_side);
    struct packed_query *qc = query_of(p, s, &p->query_choice);
    if (s->choice.out) {
        place_gates(f, &s->choice.w, MOE_FP32, s->columns, s->choice.out);
        s->choice.start = qc ? NULL : columns_room(f, s->choice.out);
        if (f->base)
            fill_gates(f, level, at, true, &s->choice, qc);
    }
    if (!s->has_side)
        return;
    place_gates(f, &s->side.w, p->side, s->columns, s->side.out);
    s->side.start = q ? NULL : columns_room(f, s->side.out);
    if (!f->base)
        return;
    fill_gates(f, level, at, false, &s->side, q);
    if (level == 0 && p->wide_at >= 0 && at == p->wide_source)
        fill_wide(f, &s->side, q);
}

/* Whether a layer's u8 output can be written by the tile itself. */
static bool stores_u8(const struct packed_layer *l) { return l->act == MOE_ACT_RELU; }

/* The expert's numbers, with batch normalisation folded into them; *own: to be freed, or NULL. */
static const float *numbers_of(const struct moe_model *m, const struct moe_expert_group *g,
                               int index, float **own) {
    const float *run = moe_params_at(&m->params, m->params.v, g->tensor, index);
    *own = NULL;
    if (g->buffer < 0)
        return run;
    *own = HEAP_ARRAY(float, g->expert.layout.floats);
    moe_mlp_fold(g->expert.shape, run, moe_params_at(&m->params, m->params.v, g->buffer, index),
                 *own);
    return *own;
}

static void fill_expert(struct filler *f, int level, int at, const float *in_unit) {
    struct moe_packed *p = f->p;
    const struct moe_level *from = &p->m->levels[level];
    const struct moe_expert_group *g = moe_level_group(from, at);
    const struct moe_mlp *mlp = g->expert.shape;
    float *own = NULL;
    const float *run = f->base ? numbers_of(p->m, g, from->experts[at].index, &own) : NULL;
    struct packed_expert *e = &p->levels[level].experts[at];
    const struct packed_source *s = &p->levels[level].sources[e->source];
    for (int i = 0; i < e->n_layers; i++) {
        struct packed_layer *l = &e->layers[i];
        bool last = i + 1 == e->n_layers;
        struct packed_query *q = i ? NULL : query_of(p, s, &p->query_low);
        const float *out_unit = last ? NULL : next_units(f, l->out);
        place(f, &l->w, p->low, l->in, l->out);
        l->start = q ? NULL : columns_room(f, l->out);
        l->zero = i ? (stores_u8(l - 1) ? 0 : ZERO_SIGNED) : s->zero;
        l->per_unit = i ? per_unit(f, in_unit, l->in) : NULL;
        if (run) {
            struct part x = {run + mlp->w[i],
                             run + mlp->b[i],
                             l->out,
                             0,
                             q ? p->m->part[MOE_QUERY] : 0,
                             in_unit,
                             !last && stores_u8(l) ? out_unit : NULL};
            fill_part(f, l, q, &x);
        }
        in_unit = out_unit;
    }
    heap_free(own);
}

/* Mixtures of such a level are never negative. */
static bool nonnegative(const struct moe_level *l) {
    for (int g = 0; g < l->n_groups; g++) {
        const struct moe_mlp *mlp = l->groups[g].expert.shape;
        if (mlp->act != MOE_ACT_RELU || !mlp->act_last)
            return false;
    }
    return true;
}

static void fill_level(struct filler *f, int at) {
    struct moe_packed *p = f->p;
    struct packed_level *l = &p->levels[at];
    const float **in = ARENA_ARRAY(&p->arena, const float *, l->n_sources);
    for (int i = 0; i < l->n_sources; i++) {
        struct packed_source *s = &l->sources[i];
        in[i] = next_units(f, s->columns);
        s->per_unit = per_unit(f, in[i], s->columns);
        s->zero = s->n && nonnegative(&p->m->levels[at - 1]) ? 0 : ZERO_SIGNED;
        fill_side(f, at, i);
    }
    for (int e = 0; e < l->n_own; e++)
        fill_expert(f, at, e, in[l->experts[e].source]);
}

static void fill_tower(struct filler *f, int task) {
    struct moe_packed *p = f->p;
    const struct moe_tower *from = &p->m->towers[task];
    struct packed_tower *to = &p->towers[task];
    const float *run = moe_params_at(&p->m->params, p->m->params.v, from->tensor, 0);
    const int last = to->n_layers - 1, width = from->mlp.width[last];
    for (int i = 0; i < last; i++) {
        struct packed_layer *l = &to->layers[i];
        place(f, &l->w, p->side, l->in, l->out);
        l->start = columns_room(f, l->out);
        struct part x = {run + from->mlp.w[i], run + from->mlp.b[i], l->out, 0, 0, NULL, NULL};
        if (f->base)
            fill_part(f, l, NULL, &x);
    }
    to->dot = columns_room(f, width);
    to->dot_base = run[from->mlp.b[last]];
    if (f->base)
        memcpy((float *)to->dot, run + from->mlp.w[last], (size_t)width * sizeof(float));
}

static void fill_query(struct filler *f, struct packed_query *q, enum moe_precision precision) {
    int dq = f->p->m->part[MOE_QUERY];
    if (!q->columns)
        return;
    place(f, &q->w, precision, dq, q->columns);
    q->start = columns_room(f, q->columns);
    q->zero = ZERO_SIGNED;
    q->per_unit = precision == MOE_INT8 ? per_unit(f, f->query_units, dq) : NULL;
}

static void walk(struct filler *f) {
    struct moe_packed *p = f->p;
    f->query_units = next_units(f, p->m->part[MOE_QUERY]);
    fill_query(f, &p->query_low, p->low);
    fill_query(f, &p->query_side, p->side);
    fill_query(f, &p->query_choice, MOE_FP32);
    for (int l = 0; l < p->n_levels; l++)
        fill_level(f, l);
    for (int t = 0; t < p->m->n_tasks; t++)
        fill_tower(f, t);
}

void moe_packed_fill(struct moe_packed *p, const float *units) {
    if (p->low != MOE_INT8)
        units = NULL;
    struct filler count = {.p = p, .units = units};
    walk(&count);
    p->weights_bytes = count.used;
    p->weights = heap_alloc_aligned(count.used);
    const size_t huge = 2u << 20; /* fewer page walks; the whole pages inside, if any */
    size_t from = ((size_t)p->weights + huge - 1) & ~(huge - 1);
    size_t to = ((size_t)p->weights + count.used) & ~(huge - 1);
    if (to > from)
        madvise((void *)from, to - from, MADV_HUGEPAGE);
    struct filler f = {.p = p, .base = p->weights, .units = units};
    walk(&f);
    moe_packed_fill_halves(p, units);
}

size_t moe_packed_units(const struct moe_model *m) {
    size_t n = (size_t)m->part[MOE_QUERY];
    for (int i = 0; i < m->n_levels; i++) {
        const struct moe_level *l = &m->levels[i];
        for (int s = 0; s < l->n_sources; s++)
            n += (size_t)(l->sources[s].columns - l->sources[s].dq);
        for (int e = 0; e < l->n_experts; e++) {
            const struct moe_mlp *mlp = moe_level_group(l, e)->expert.shape;
            for (int k = 1; k < mlp->n_layers; k++)
                n += (size_t)mlp->width[k];
        }
    }
    for (int e = 0; e < m->levels[0].n_experts; e++) {
        const struct moe_mlp *mlp = moe_level_group(&m->levels[0], e)->expert.shape;
        n += (size_t)mlp->width[1];
    }
    return n;
}
