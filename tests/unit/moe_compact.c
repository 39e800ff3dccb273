/* moe_compact: every bit comes back, whatever a column is like (constant, few values, many, all
 * different, NaNs of several kinds, both zeros), wherever a reader begins and ends; small data take
 * few bytes. Examples held so are read as those held plainly, sorted or not. */
#include "moe/data/compact.h"
#include <math.h>
#include <string.h>
#include "base/heap.h"
#include "base/rng.h"
#include "moe/data/examples.h"
#include "tests/support/suite.h"

enum { COLUMNS = 9, CHUNK = 16384 };

static float from_bits(uint32_t bits) {
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static float value(struct rng *r, int row, int column) {
    switch (column) {
    case 0:
        return 3.5f;
    case 1:
        return (float)rng_below(r, 2);
    case 2: /* five values, equal to `==` but not in their bits, or to nothing */
        return from_bits(
            (const uint32_t[]){0x7fc00000, 0x7fc00001, 0xffc00000, 0, 0x80000000}[rng_below(r, 5)]);
    case 3:
        return (float)rng_below(r, 3000) * 0.01f;
    case 4:
        return (float)(row / 100); /* slowly moving */
    case 5:
        return (float)rng_below(r, 6000); /* more than pays */
    case 6:
        return (float)row;
    case 7:
        return from_bits((uint32_t)rng_below(r, 1u << 31));
    default:
        return row < CHUNK ? 1.0f : (float)row; /* another width in each chunk */
    }
}

static float *make(int n, uint64_t seed) {
    float *rows = HEAP_ARRAY(float, n *COLUMNS + 1);
    struct rng r;
    rng_init(&r, seed);
    for (int i = 0; i < n; i++)
        for (int c = 0; c < COLUMNS; c++)
            rows[i * COLUMNS + c] = value(&r, i, c);
    return rows;
}

static struct moe_compact *fill(const float *rows, int n, struct rng *r) {
    struct moe_compact *c = moe_compact_new(COLUMNS);
    for (int i = 0, take; i < n; i += take) {
        take = (int)rng_below(r, 700);
        take = take < n - i ? take : n - i;
        moe_compact_add(c, rows + i * COLUMNS, take);
    }
    return c;
}

/* How many of the values read are not what was added. */
static int differ(const struct moe_compact *c, const float *rows, int row, int n, int column,
                  int width) {
    float *got = HEAP_ARRAY(float, n *width + 1);
    int wrong = 0;
    moe_compact_read(c, row, n, column, width, got);
    for (int i = 0; i < n; i++)
        wrong += memcmp(got + i * width, rows + (row + i) * COLUMNS + column,
                        (size_t)width * sizeof *got) != 0;
    heap_free(got);
    return wrong;
}

static void test_every_bit_comes_back(void) {
    const int sizes[] = {0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 4711};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        const int n = sizes[k];
        struct rng r;
        rng_init(&r, k);
        float *rows = make(n, k + 1);
        struct moe_compact *c = fill(rows, n, &r);
        CU_ASSERT_EQUAL(differ(c, rows, 0, n, 0, COLUMNS), 0);
        for (int i = 0; i < 500 && n > 0; i++) {
            const int row = (int)rng_below(&r, (uint32_t)n), most = n - row < 90 ? n - row : 90;
            const int column = (int)rng_below(&r, COLUMNS);
            CU_ASSERT_EQUAL(differ(c, rows, row, (int)rng_below(&r, (uint32_t)most + 1), column,
                                   (int)rng_below(&r, (uint32_t)(COLUMNS - column) + 1)),
                            0);
        }
        if (n > 0) { /* the check can fail */
            rows[(n - 1) * COLUMNS + 6] += 1;
            CU_ASSERT_EQUAL(differ(c, rows, 0, n, 0, COLUMNS), 1);
        }
        moe_compact_free(c);
        heap_free(rows);
    }
}

static void test_small_values_take_few_bytes(void) {
    struct moe_compact *c = moe_compact_new(2), *all = moe_compact_new(2);
    float *rows = HEAP_ARRAY(float, 4 * CHUNK * 2);
    for (int i = 0; i < 4 * CHUNK; i++)
        rows[2 * i] = (float)(i % 2), rows[2 * i + 1] = (float)(i % 16);
    moe_compact_add(c, rows, 4 * CHUNK);
    CU_ASSERT(moe_compact_bytes(c) <= 4 * CHUNK * 5 / 8 + 4 * 256); /* one and four bits a row */
    for (int i = 0; i < 8 * CHUNK; i++)
        rows[i] = (float)i;
    moe_compact_add(all, rows, 4 * CHUNK); /* nothing repeats: no more than the values */
    CU_ASSERT(moe_compact_bytes(all) <= 8 * CHUNK * sizeof(float) + 4 * 256);
    moe_compact_free(c);
    moe_compact_free(all);
    heap_free(rows);
}

static void add_group(struct moe_examples *x, const float *rows, int n, int64_t time_us) {
    float label[64] = {0};
    const struct moe_batch b = {.n_groups = 1, .n_rows = n, .cand = rows};
    moe_examples_add(x, &b, label, NULL, time_us, 0);
}

static int examples_differ(const struct moe_examples *x, const struct moe_examples *y) {
    int wrong = x->n_rows != y->n_rows;
    for (int column = 0; column < COLUMNS; column++) {
        float *v = HEAP_ARRAY(float, x->n_rows + 1), *w = HEAP_ARRAY(float, x->n_rows + 1);
        moe_examples_numbers(x, 0, x->n_rows, column, 1, v);
        moe_examples_numbers(y, 0, x->n_rows, column, 1, w);
        wrong += memcmp(v, w, (size_t)x->n_rows * sizeof *v) != 0;
        heap_free(v);
        heap_free(w);
    }
    return wrong;
}

static void test_examples_held_compact(void) {
    const struct moe_inputs in = {.cand_columns = COLUMNS};
    struct moe_examples *x = moe_examples_new(&in, 1), *y = moe_examples_new(&in, 1);
    const int n = 2 * CHUNK + 100;
    float *rows = make(n, 5);
    struct moe_batch view;
    struct rng r;
    rng_init(&r, 9);
    moe_examples_hold_compact(x);
    for (int i = 0, take; i < n; i += take) {
        take = (int)rng_below(&r, 64);
        take = take < n - i ? take : n - i;
        const int64_t time_us = i + (int64_t)rng_below(&r, 2000);
        add_group(x, rows + i * COLUMNS, take, time_us);
        add_group(y, rows + i * COLUMNS, take, time_us);
    }
    CU_ASSERT_EQUAL(examples_differ(x, y), 0);
    moe_examples_sort(y);
    CU_ASSERT_NOT_EQUAL(examples_differ(x, y), 0); /* the check can fail */
    moe_examples_sort(x);
    CU_ASSERT_EQUAL(examples_differ(x, y), 0);
    moe_examples_sort(x);
    CU_ASSERT_EQUAL(examples_differ(x, y), 0);
    moe_examples_view(x, 3, 4, &view);
    CU_ASSERT(view.cand == NULL && view.n_groups == 4);
    moe_examples_free(x);
    moe_examples_free(y);
    heap_free(rows);
}

SUITE("moe_compact", TEST(test_every_bit_comes_back), TEST(test_small_values_take_few_bytes),
      TEST(test_examples_held_compact))
