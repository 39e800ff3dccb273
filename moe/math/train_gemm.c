/* train_gemm.c: the loops around the tiles, after BLIS (Van Zee & van de Geijn 2015) with what
 * training allows to leave out: operands in fp32 are read where they stand. Rows of a plain A do,
 * since 14 of them lie in the nearest cache while all of B's panels stream past; so do whole panels
 * of a plain B and columns of a transposed A, a line or two a step. Packed are a transposed B, a
 * transposed A that many products share, and what becomes bf16.
 *
 * A batch's gradient x^T dy is summed over the batch in blocks, in order. No threads here: workers
 * share the batch. */
#include "moe/math/train_gemm.h"
#include <pthread.h>
#include "base/heap.h"
#include "moe/math/cpu.h"

enum {
    BLOCK_FLOATS = 131072, /* of B's packed block: half of a common second-level cache */
    STEPS = 512,           /* of k in a block */
    TOGETHER = 4, /* tiles of a transposed A packed at once, since their rows lie side by side */
    RUN = 32,     /* so many steps of one, then of the next */
    A_FLOATS = TOGETHER * 16 * STEPS, /* more than MR * (STEPS + 32) */
    PANEL = 32,
    SOON = 24, /* steps of a transposed A that are asked for ahead */
};

/* A transposed operand as it was packed: [blocks of k][tiles][steps][16]. */
struct kept {
    struct moe_train_gemm of;
    float *p;
    size_t floats;
    uint64_t used; /* larger: later */
};
enum { KEPT = 4 };

/* A thread's own. */
struct buffers {
    float *b, *a; /* [BLOCK_FLOATS], [A_FLOATS] */
    struct kept kept[KEPT];
    uint64_t uses;
};

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static const struct moe_train_kernels *kernels;
static bool bf16;

static void buffers_free(void *p) {
    struct buffers *own = p;
    heap_free(own->b);
    for (int i = 0; i < KEPT; i++)
        heap_free(own->kept[i].p);
    heap_free(own);
}

static void set_up(void) {
    pthread_key_create(&key, buffers_free);
#if defined(__x86_64__)
    if (moe_cpu()->isa == MOE_ISA_AVX512) {
        kernels = &moe_train_kernels_avx512;
        bf16 = moe_cpu()->bf16;
    }
#endif
}

bool moe_train_gemm_possible(bool with_bf16) {
    pthread_once(&once, set_up);
    return kernels && (bf16 || !with_bf16);
}

static struct buffers *buffers(void) {
    struct buffers *own = pthread_getspecific(key);
    if (!own) {
        own = HEAP_NEW(struct buffers);
        own->b = heap_alloc_aligned((BLOCK_FLOATS + A_FLOATS) * sizeof(float));
        own->a = own->b + BLOCK_FLOATS;
        pthread_setspecific(key, own);
    }
    return own;
}

static int steps_of(const struct moe_train_gemm *g, int k) { return g->bf16 ? (k + 1) / 2 : k; }

/* Rows [k0, k0 + k) and columns [j0, j0 + n) of op(B), as panels. */
static void pack_b(const struct moe_train_gemm *g, int k0, int k, int j0, int n, float *out) {
    const size_t steps = (size_t)steps_of(g, k), ld = (size_t)g->ldb;
    for (int j = 0; j < n; j += PANEL) {
        const size_t width = n - j > 16 ? PANEL : 16;
        for (int half = 0; half < (int)width; half += 16) {
            int cols = n - j - half < 16 ? n - j - half : 16;
            size_t col = (size_t)(j0 + j + half);
            if (g->tb)
                kernels->pack_across(g->bf16, g->b + col * ld + (size_t)k0, ld, k, cols, out + half,
                                     width);
            else
                kernels->pack(g->bf16, g->b + (size_t)k0 * ld + col, ld, k, cols, out + half,
                              width);
        }
        out += steps * width;
    }
}

/* The rows of C that tile `tile` has: spread evenly, so that none is thin. */
struct cut {
    int tiles, low, high; /* low rows each, the first `high` one more */
};
static struct cut cut_rows(int m) {
    const int tiles = (m + MOE_TRAIN_MR - 1) / MOE_TRAIN_MR;
    return (struct cut){tiles, m / tiles, m % tiles};
}
static int first_row(const struct cut *c, int tile) {
    return tile * c->low + (tile < c->high ? tile : c->high);
}

/* Packing is for what cannot be read where it stands: bf16, a transposed B, columns that do not
 * fill panels, and rows 2 KB (or a multiple) apart, which would meet in a few sets of the nearest
 * cache. */
static bool spread(int ld) { return ld % 512 != 0; }
static bool b_in_place(const struct moe_train_gemm *g) {
    return !g->tb && !g->bf16 && g->n % PANEL == 0 && spread(g->ldb);
}
static bool a_in_place(const struct moe_train_gemm *g, const float *kept) {
    return g->ta && !kept && !g->bf16 && spread(g->lda);
}

/* Tiles [tile, tile + TOGETHER) of a transposed A, each [steps][16]. */
static void pack_a(const struct moe_train_gemm *g, const struct cut *c, int tile, int k0, int k,
                   float *out) {
    const size_t ld = (size_t)g->lda, steps = (size_t)steps_of(g, k);
    const int run = g->bf16 ? 2 * RUN : RUN;
    for (int at = 0; at < k; at += run)
        for (int t = tile; t < tile + TOGETHER && t < c->tiles; t++) {
            const int i = first_row(c, t), n = k - at < run ? k - at : run;
            kernels->pack(g->bf16, g->a + (size_t)(k0 + at) * ld + (size_t)i, ld, n,
                          first_row(c, t + 1) - i,
                          out + ((size_t)(t - tile) * steps + (size_t)steps_of(g, at)) * 16, 16);
        }
}

static int block_steps(const struct moe_train_gemm *g) {
    return steps_of(g, g->k) < STEPS ? steps_of(g, g->k) : STEPS;
}

/* A as a whole, packed now or before; NULL: it is not kept. */
static const float *keep_a(const struct moe_train_gemm *g, struct buffers *own) {
    struct kept *k = &own->kept[0];
    const struct cut c = cut_rows(g->m);
    if (!g->ta || !g->key)
        return NULL;
    for (int i = 0; i < KEPT; i++) {
        struct kept *x = &own->kept[i];
        if (x->of.key == g->key && x->of.a == g->a && x->of.lda == g->lda && x->of.m == g->m &&
            x->of.k == g->k && x->of.bf16 == g->bf16) {
            x->used = ++own->uses;
            return x->p;
        }
        k = x->used < k->used ? x : k;
    }
    const size_t row = (size_t)c.tiles * 16, floats = (size_t)steps_of(g, g->k) * row;
    if (k->floats < floats) {
        heap_free(k->p);
        k->p = heap_alloc_aligned(floats * sizeof *k->p);
        k->floats = floats;
    }
    const int most = block_steps(g) * (g->bf16 ? 2 : 1);
    for (int k0 = 0; k0 < g->k; k0 += most) {
        const int n = g->k - k0 < most ? g->k - k0 : most;
        float *block = k->p + (size_t)steps_of(g, k0) * row;
        for (int tile = 0; tile < c.tiles; tile += TOGETHER)
            pack_a(g, &c, tile, k0, n, block + (size_t)tile * (size_t)steps_of(g, n) * 16);
    }
    k->of = *g;
    k->used = ++own->uses;
    return k->p;
}

/* The tile's rows of op(A): where they stand, or as they were packed as a whole (`kept`), or as
 * `pack` has them. */
static void open_a(const struct moe_train_gemm *g, const struct cut *c, int tile, int k0, int k,
                   const float *kept, float *pack, struct moe_train_tile *t) {
    const size_t ld = (size_t)g->lda, steps = (size_t)steps_of(g, k);
    const int i = first_row(c, tile), mr = first_row(c, tile + 1) - i;
    if (a_in_place(g, kept)) {
        t->a = (const char *)(g->a + (size_t)k0 * ld + (size_t)i);
        t->a_row = sizeof(float);
        t->a_step = ld * sizeof(float);
        return;
    }
    if (g->ta) {
        const size_t before = (size_t)steps_of(g, k0) * (size_t)c->tiles;
        if (!kept && tile % TOGETHER == 0)
            pack_a(g, c, tile, k0, k, pack);
        t->a = kept ? (const char *)(kept + (before + (size_t)tile * steps) * 16)
                    : (const char *)(pack + (size_t)(tile % TOGETHER) * steps * 16);
        t->a_row = sizeof(float);
        t->a_step = 16 * sizeof(float);
        return;
    }
    const float *a = g->a + (size_t)i * ld + (size_t)k0;
    t->a = (const char *)a;
    t->a_row = ld * sizeof(float);
    t->a_step = sizeof(float);
    if (!g->bf16)
        return;
    /* not a power of two: rows shall not meet in one set of the cache */
    const size_t row = ((steps + 15) & ~(size_t)15) + 16;
    t->a = (const char *)pack;
    t->a_row = row * sizeof(float);
    for (int r = 0; r < mr; r++)
        kernels->round(a + (size_t)r * ld, k, pack + (size_t)r * row);
}

/* While panel `panel` of tile `tile` is multiplied, a share of what the next tiles will read of A
 * is asked for, a line or less a step: it comes from far, its rows lie pages apart, and a burst of
 * requests would hold the multiplications up. */
static void ask_next(const struct moe_train_gemm *g, const struct cut *c, int tile, int panel,
                     int panels, int k0, const float *kept, struct moe_train_tile *t) {
    const size_t ld = (size_t)g->lda, steps = (size_t)t->steps;
    const int group = tile / TOGETHER, ahead = g->ta && !kept ? (group + 1) * TOGETHER : tile + 1;
    t->soon = t->a;
    t->soon_step = 0;
    if (a_in_place(g, kept)) { /* a line a step: its own, some steps ahead */
        t->soon = t->a + SOON * t->a_step + (MOE_TRAIN_MR - 1) * sizeof(float);
        t->soon_step = t->a_step;
        return;
    }
    if (ahead >= c->tiles)
        return;
    const float *next = g->a + (g->ta ? (size_t)k0 * ld : (size_t)k0);
    if (g->ta && !kept) { /* a line of every row, then the next line of every row */
        const int per = g->bf16 ? 2 : 1, turn = (tile % TOGETHER) * panels + panel;
        t->soon = (const char *)(next + (size_t)(turn % per) * ld + first_row(c, ahead)) +
                  64 * (turn / per);
        t->soon_step = turn / per < 5 ? (size_t)per * ld * sizeof(float) : 0;
        return;
    }
    const size_t rows = (size_t)(first_row(c, ahead + 1) - first_row(c, ahead));
    const bool one_run = g->lda == g->k && steps_of(g, g->k) == t->steps;
    if (!kept && !one_run)
        return;
    const size_t bytes = kept ? 64 * steps : rows * ld * sizeof(float);
    t->soon_step = bytes / (steps * (size_t)panels) + 1;
    t->soon = kept ? t->a + bytes : (const char *)(next + (size_t)first_row(c, ahead) * ld);
    t->soon += (size_t)panel * steps * t->soon_step;
}

/* All rows of C over one packed block of B. */
static void run_block(const struct moe_train_gemm *g, int k0, int k, int j0, int n,
                      const float *kept, const struct buffers *own) {
    const struct cut c = cut_rows(g->m);
    const int panels = (n + PANEL - 1) / PANEL;
    struct moe_train_tile t = {.steps = steps_of(g, k), .ldc = (size_t)g->ldc};
    t.add = g->add || k0 > 0;
    const bool direct = b_in_place(g);
    for (int tile = 0; tile < c.tiles; tile++) {
        const int i = first_row(&c, tile), mr = first_row(&c, tile + 1) - i;
        const float *w = direct ? g->b + (size_t)k0 * (size_t)g->ldb + (size_t)j0 : own->b;
        open_a(g, &c, tile, k0, k, kept, own->a, &t);
        for (int j = 0; j < n; j += PANEL) {
            t.cols = n - j < PANEL ? n - j : PANEL;
            t.w = w;
            t.w_step = direct ? (size_t)g->ldb : t.cols > 16 ? PANEL : 16;
            t.c = g->c + (size_t)i * t.ldc + (size_t)(j0 + j);
            ask_next(g, &c, tile, j / PANEL, panels, k0, kept, &t);
            t.bias = g->bias && k0 == 0 ? g->bias + j0 + j : NULL;
            kernels->tile[(g->bf16 ? MOE_TRAIN_MR : 0) + mr - 1][t.cols > 16](&t);
            w += direct ? PANEL : (size_t)t.steps * t.w_step;
        }
        if (g->done && k0 + k == g->k)
            g->done(g->ctx, i, mr, j0, n);
    }
}

void moe_train_gemm(const struct moe_train_gemm *g) {
    const int steps = block_steps(g), most = steps * (g->bf16 ? 2 : 1);
    const int columns = BLOCK_FLOATS / steps / PANEL * PANEL;
    struct buffers *own = buffers();
    const float *kept = keep_a(g, own), *also = g->also ? keep_a(g->also, own) : NULL;
    for (int j = 0; j < g->n; j += columns) {
        const int n = g->n - j < columns ? g->n - j : columns;
        for (int k0 = 0; k0 < g->k; k0 += most) {
            const int k = g->k - k0 < most ? g->k - k0 : most;
            if (!b_in_place(g))
                pack_b(g, k0, k, j, n, own->b);
            run_block(g, k0, k, j, n, kept, own);
            if (g->also)
                run_block(g->also, k0, k, j, n, also, own);
        }
    }
}
