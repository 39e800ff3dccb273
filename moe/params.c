/* params.c: places and draws the numbers of a model. Regions first, tensors in the order of their
 * declaration within a region. */
#include "moe/params.h"
#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "base/hash.h"
#include "base/heap.h"
#include "base/rng.h"

int moe_layout_add(struct moe_layout *l, const char *name, int rows, int cols, enum moe_init init,
                   float scale) {
    assert(l->n < MOE_FIELDS_MAX && rows > 0 && cols > 0);
    struct moe_field *f = &l->f[l->n];
    snprintf(f->name, sizeof f->name, "%s", name);
    f->rows = rows;
    f->cols = cols;
    f->at = l->floats;
    f->init = init;
    f->scale = scale == 0 ? 1 : scale;
    l->floats += (size_t)rows * (size_t)cols;
    return l->n++;
}

int moe_params_add(struct moe_params *p, enum moe_region region, int copies,
                   const struct moe_layout *layout, const char *name_format, ...) {
    assert(!p->v && copies > 0);
    if (p->n == p->cap) {
        p->cap = p->cap ? 2 * p->cap : 16;
        p->t = heap_grow(p->t, (size_t)p->cap * sizeof *p->t);
    }
    struct moe_tensor *t = &p->t[p->n];
    memset(t, 0, sizeof *t);
    va_list args;
    va_start(args, name_format);
    vsnprintf(t->name, sizeof t->name, name_format, args);
    va_end(args);
    t->region = region;
    t->copies = copies;
    t->layout = *layout;
    t->stride = layout->floats;
    return p->n++;
}

void moe_params_place(struct moe_params *p) {
    size_t at = 0;
    for (int region = 0; region < MOE_REGIONS; region++) {
        p->region_at[region] = at;
        for (int i = 0; i < p->n; i++) {
            struct moe_tensor *t = &p->t[i];
            if (t->region != (enum moe_region)region)
                continue;
            t->at = at;
            at += ((size_t)t->copies * t->stride + 15) & ~(size_t)15;
        }
    }
    p->region_at[MOE_REGIONS] = at;
    p->v = heap_alloc_aligned((at ? at : 1) * sizeof *p->v);
}

static void draw(const struct moe_field *f, float *v, struct rng *rng) {
    size_t n = (size_t)f->rows * (size_t)f->cols;
    double sd = f->init == MOE_INIT_NORMAL ? (double)f->scale
                                           : sqrt((double)f->scale * 2 / (double)f->rows);
    double bound = sqrt((double)f->scale * 6 / (double)(f->rows + f->cols));
    for (size_t i = 0; i < n; i++) {
        switch (f->init) {
        case MOE_INIT_ZERO:
            v[i] = 0;
            break;
        case MOE_INIT_ONE:
            v[i] = 1;
            break;
        case MOE_INIT_CONST:
            v[i] = f->scale;
            break;
        case MOE_INIT_HE:
        case MOE_INIT_NORMAL:
            v[i] = (float)(sd * rng_normal(rng));
            break;
        case MOE_INIT_GLOROT:
            v[i] = (float)(bound * (2 * rng_double(rng) - 1));
            break;
        }
    }
}

void moe_params_init(struct moe_params *p, uint64_t seed) {
    for (int i = 0; i < p->n; i++) {
        const struct moe_tensor *t = &p->t[i];
        struct rng rng;
        rng_init(&rng, hash_bytes(slice_of(t->name), seed));
        for (int copy = 0; copy < t->copies; copy++)
            for (int f = 0; f < t->layout.n; f++)
                draw(&t->layout.f[f], moe_params_at(p, p->v, i, copy) + t->layout.f[f].at, &rng);
    }
}

void moe_params_deinit(struct moe_params *p) {
    heap_free(p->t);
    heap_free(p->v);
    memset(p, 0, sizeof *p);
}
