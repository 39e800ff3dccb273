/* pack.c: packing at load, and the loop over panels and tiles. Packing is plain C: it runs once.
 *
 * int8 is symmetric per column: w = scale * q, q in -127..127 (not -128: the range is symmetric and
 * no sum of four products leaves 17 bits). Rounding is to nearest. It does not search for a
 * clipping threshold: the columns of a layer are short, and their maxima are wanted. */
#include "moe/score/pack.h"
#include <assert.h>
#include <math.h>
#include <string.h>

uint16_t moe_bf16_of(float x) {
    union {
        float value;
        uint32_t bits;
    } u = {x};
    if (isnan(x))
        return (uint16_t)(u.bits >> 16 | 0x40);
    return (uint16_t)((u.bits + 0x7fff + ((u.bits >> 16) & 1)) >> 16);
}

static int per_step(enum moe_precision precision) {
    return precision == MOE_FP32 ? 1 : precision == MOE_BF16 ? 2 : 4;
}

static size_t weight_bytes(enum moe_precision precision, int k, int n, int nr) {
    size_t steps = (size_t)((k + per_step(precision) - 1) / per_step(precision));
    size_t bytes = (size_t)((n + nr - 1) / nr) * (size_t)nr * steps * 4;
    return (bytes + 63) & ~(size_t)63;
}

static size_t vector_bytes(int n, int nr) {
    return ((size_t)((n + nr - 1) / nr) * (size_t)nr * sizeof(float) + 63) & ~(size_t)63;
}

size_t moe_pack_bytes(enum moe_precision precision, int k, int n, int nr) {
    return weight_bytes(precision, k, n, nr) +
           (precision == MOE_INT8 ? 2 * vector_bytes(n, nr) : 0);
}

void moe_pack_place(struct moe_pack *p, enum moe_precision precision, int k, int n, int nr,
                    void *block) {
    assert(k >= 0 && n > 0 && nr > 0);
    int each = per_step(precision);
    *p = (struct moe_pack){.precision = precision, .k = k, .nr = nr};
    p->steps = (k + each - 1) / each;
    p->panels = (n + nr - 1) / nr;
    p->w = block;
    if (precision == MOE_INT8) {
        p->scale = (float *)(void *)((char *)block + weight_bytes(precision, k, n, nr));
        p->zero = (float *)(void *)((char *)p->scale + vector_bytes(n, nr));
    }
}

/* The element of step-and-column order: byte offset of (k, column). */
static char *place_of(const struct moe_pack *p, int k, int column) {
    int each = per_step(p->precision);
    size_t panel = (size_t)(column / p->nr), lane = (size_t)(column % p->nr);
    size_t step = panel * (size_t)p->steps + (size_t)(k / each);
    return (char *)p->w + (step * (size_t)p->nr + lane) * 4 +
           (size_t)(k % each) * (4u / (unsigned)each);
}

static void fill_int8_column(struct moe_pack *p, int column, const float *w, size_t stride,
                             const float *unit) {
    float most = 0;
    for (int k = 0; k < p->k; k++)
        most = fmaxf(most, fabsf(w[(size_t)k * stride] * (unit ? unit[k] : 1)));
    float scale = most / 127;
    int sum = 0;
    for (int k = 0; k < p->k; k++) {
        float x = w[(size_t)k * stride] * (unit ? unit[k] : 1);
        int q = scale > 0 ? (int)lrintf(x / scale) : 0;
        q = q > 127 ? 127 : q < -127 ? -127 : q;
        *(int8_t *)place_of(p, k, column) = (int8_t)q;
        sum += q;
    }
    p->scale[column] = scale;
    p->zero[column] = scale * (float)sum;
}

void moe_pack_fill(struct moe_pack *p, int at, int n, const float *w, size_t stride,
                   const float *unit) {
    assert(at >= 0 && at + n <= moe_pack_columns(p));
    for (int c = 0; c < n; c++) {
        if (p->precision == MOE_INT8) {
            fill_int8_column(p, at + c, w + c, stride, unit);
            continue;
        }
        for (int k = 0; k < p->k; k++) {
            float x = w[(size_t)k * stride + (size_t)c];
            uint16_t half = moe_bf16_of(x);
            if (p->precision == MOE_FP32)
                memcpy(place_of(p, k, at + c), &x, sizeof x);
            else
                memcpy(place_of(p, k, at + c), &half, sizeof half);
        }
    }
}

static size_t out_bytes(enum moe_end end) {
    return end == MOE_END_F32 ? 4 : end == MOE_END_BF16 ? 2 : 1;
}

/* The description of one panel out of that of the whole matrix. */
static struct moe_tile panel_of(const struct moe_pack *p, const struct moe_tile *t, int panel) {
    struct moe_tile u = *t;
    size_t column = (size_t)panel * (size_t)p->nr;
    u.w = (const char *)p->w + column * (size_t)p->steps * 4;
    u.steps = p->steps;
    u.start += column;
    if (p->precision == MOE_INT8)
        u.scale = (t->scale ? t->scale : p->scale) + column;
    if (u.out)
        u.out = (char *)u.out + column * out_bytes(t->end);
    if (u.dot)
        u.dot += column;
    u.dot_first = t->dot_first && panel == 0;
    return u;
}

/* Steps `u` down by the `m` rows just done. */
static void next_rows(struct moe_tile *u, int m) {
    size_t rows = (size_t)m;
    u->a = (const char *)u->a + rows * u->a_stride;
    if (u->rows)
        u->rows += rows;
    else if (u->out)
        u->out = (char *)u->out + rows * u->out_stride;
    if (u->dot_out)
        u->dot_out += rows;
}

void moe_pack_run(const struct moe_kernels *k, const struct moe_pack *p, const struct moe_tile *t,
                  int n_rows, int from, int to) {
    assert(p->nr == k->nr || p->nr == k->nr_narrow);
    assert(p->nr == k->nr || t->end == MOE_END_F32);
    const int mr = k->mr[p->precision];
    moe_tile_fn *const *tile = (p->nr == k->nr ? k->tile : k->narrow)[p->precision];
    assert(mr > 0);
    if (n_rows == 0)
        return;
    const int tiles = (n_rows + mr - 1) / mr;
    for (int panel = from; panel < to; panel++) {
        struct moe_tile u = panel_of(p, t, panel);
        for (int i = 0; i < tiles; i++) {
            int m = n_rows / tiles + (i < n_rows % tiles);
            tile[m - 1](&u);
            next_rows(&u, m);
        }
    }
}
