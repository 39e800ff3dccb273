/* moe_encode.c: encoders of plain numbers, pooling of ids and its sparse gradient. */
#include <math.h>
#include <string.h>
#include "base/rng.h"
#include "moe/embed.h"
#include "moe/encode.h"
#include "tests/support/suite.h"

static void test_value_and_missing(void) {
    float x[] = {1, 10, 5, 3, NAN, 5, 5, 30, 5}; /* columns: 1 3 5 | 10 NAN 30 | 5 5 5 */
    float out[16], odd[] = {1e9f, INFINITY, 4};
    struct moe_encode e;
    moe_encode_fit(&e, MOE_ENC_VALUE, 8, 16, x, 3, 3);
    CU_ASSERT_EQUAL(e.width, 4); /* three values, one missing bit */
    moe_encode_rows(&e, x, 1, out, 4);
    CU_ASSERT_DOUBLE_EQUAL(out[0], -2 / sqrt(8.0 / 3), 1e-6);
    CU_ASSERT_DOUBLE_EQUAL(out[1], -1, 1e-6);
    CU_ASSERT_EQUAL(out[2], 0); /* constant column */
    CU_ASSERT_EQUAL(out[3], 0);
    moe_encode_rows(&e, x + 3, 1, out, 4);
    CU_ASSERT_EQUAL(out[1], 0);
    CU_ASSERT_EQUAL(out[3], 1);
    moe_encode_rows(&e, odd, 1, out, 4);
    CU_ASSERT_EQUAL(out[0], 8); /* clipped */
    CU_ASSERT_EQUAL(out[1], 0); /* infinite is missing */
    CU_ASSERT_EQUAL(out[3], 1);
    moe_encode_deinit(&e);
}

static void test_bins(void) {
    float x[100], out[64];
    struct moe_encode e;
    for (int i = 0; i < 100; i++)
        x[i] = (float)i;
    moe_encode_fit(&e, MOE_ENC_QUANTILE | MOE_ENC_PLE, 8, 4, x, 100, 1);
    CU_ASSERT_EQUAL(e.column[0].n_edges, 3); /* at 25, 50, 75 */
    CU_ASSERT_EQUAL(e.width, 8);
    float at[] = {60};
    moe_encode_rows(&e, at, 1, out, 8);
    float want[] = {1, 1, 0.4f, 0, 0, 0, 1, 0}; /* ple, then the one-hot */
    for (int i = 0; i < 8; i++)
        CU_ASSERT_DOUBLE_EQUAL(out[i], want[i], 1e-6);
    float low[] = {-5}, high[] = {500}, none[] = {NAN};
    moe_encode_rows(&e, low, 1, out, 8);
    CU_ASSERT(out[4] == 1 && out[0] == 0 && out[1] == 0);
    moe_encode_rows(&e, high, 1, out, 8);
    CU_ASSERT(out[7] == 1 && out[0] == 1 && out[3] == 1);
    int bin = 9;
    moe_encode_bins(&e, at, &bin);
    CU_ASSERT_EQUAL(bin, 2);
    moe_encode_bins(&e, (float[]){NAN}, &bin);
    CU_ASSERT_EQUAL(bin, -1);
    moe_encode_rows(&e, none, 1, out, 8);
    for (int i = 0; i < 8; i++)
        CU_ASSERT_EQUAL(out[i], 0);
    moe_encode_deinit(&e);
}

/* Rows are encoded all outputs of a row at once; the short form says one column after another. */
static void test_rows_are_as_their_short_form(void) {
    enum { ROWS = 400, COLUMNS = 9, WIDTH_MAX = 512 };
    static const float odd[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 0, -0.0f, 1, 7};
    float x[ROWS * COLUMNS], out[WIDTH_MAX], want[WIDTH_MAX];
    struct rng r;
    struct moe_encode e;
    int bad = 0, between = 0;
    rng_init(&r, 3);
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        const int c = i % COLUMNS;
        x[i] = c == 0   ? 5
               : c == 1 ? (float)rng_below(&r, 2)
               : c < 4  ? (float)rng_below(&r, 30)
                        : (float)rng_normal(&r);
        if (c > 5 && rng_below(&r, 20) == 0)
            x[i] = NAN;
    }
    moe_encode_fit(&e, MOE_ENC_VALUE | MOE_ENC_PLE, 8, 12, x, ROWS, COLUMNS);
    for (int i = 0; i < ROWS * COLUMNS; i += 5)
        x[i] = odd[rng_below(&r, 9)];
    CU_ASSERT_FATAL(e.width < WIDTH_MAX);
    for (int row = 0; row < ROWS; row++) {
        const float *in = x + row * COLUMNS;
        memset(want, 0, sizeof want);
        for (int c = 0; c < COLUMNS; c++) {
            struct moe_encode_short s;
            if (!moe_encode_ple(&e, in, c, &s))
                continue;
            for (int i = 0; i < s.below; i++)
                want[e.at_ple[c] + i] = 1;
            want[s.output] = s.share;
            between += s.share > 0 && s.share < 1;
        }
        moe_encode_rows(&e, in, 1, out, e.width);
        const int from = moe_encode_ple_from(&e);
        for (int i = from; i < e.width; i++)
            bad += out[i] != want[i] || isnan(out[i]);
    }
    CU_ASSERT_EQUAL(bad, 0);
    CU_ASSERT(between > ROWS);
    moe_encode_deinit(&e);
}

/* A column that is mostly zero still gets bins where it is not. */
static void test_lumpy_column(void) {
    float x[1000] = {0};
    struct moe_encode e;
    for (int i = 0; i < 50; i++)
        x[i * 20] = (float)(1 + i);
    moe_encode_fit(&e, MOE_ENC_PLE, 8, 16, x, 1000, 1);
    CU_ASSERT(e.column[0].n_edges >= 7);
    CU_ASSERT(e.column[0].edges[0] > 0);
    for (int i = 1; i < (int)e.column[0].n_edges; i++)
        CU_ASSERT(e.column[0].edges[i] > e.column[0].edges[i - 1]);
    moe_encode_deinit(&e);
}

static void test_no_rows_and_no_columns(void) {
    float nothing[3] = {NAN, NAN, NAN}, out[40] = {1};
    struct moe_encode e;
    moe_encode_fit(&e, 15, 8, 16, nothing, 0, 1);
    moe_encode_rows(&e, nothing, 1, out, 40);
    CU_ASSERT(e.width == 2 && out[0] == 0);
    moe_encode_deinit(&e);
    moe_encode_fit(&e, 15, 8, 16, nothing, 3, 1); /* all missing */
    moe_encode_rows(&e, nothing, 1, out, 40);
    CU_ASSERT(e.width == 3 && out[2] == 1);
    moe_encode_deinit(&e);
    moe_encode_fit(&e, 15, 8, 16, nothing, 3, 0);
    CU_ASSERT_EQUAL(e.width, 0);
    moe_encode_deinit(&e);
}

static void test_pooling_and_gradient(void) {
    struct moe_params p = {0};
    struct moe_layout l = {0};
    moe_layout_add(&l, "v", 5, 2, MOE_INIT_NORMAL, 1);
    int tensor = moe_params_add(&p, MOE_TABLE, 1, &l, "t");
    moe_params_place(&p);
    for (int i = 0; i < 10; i++)
        moe_params_at(&p, p.v, tensor, 0)[i] = (float)i;
    struct moe_embed_input input = {1, 3, 0, 2, 1}; /* slots 1..3, columns 1..2 */
    struct moe_embed_side side = {4, 1, &input};
    uint32_t ids[] = {9, 2, 0, 4, /* mean of rows 2 and 4 */ 9,
                      0, 0, 0, /* none */
                      9, 3, 3, 3, 9,
                      6, 0, 0 /* beyond the table: row 1 + 6 % 4 */};
    float x[4 * 3], dx[4 * 3] = {0, 1, 2, 0, 7, 7, 0, 3, 3, 0, 5, 5};
    memset(x, 0, sizeof x);
    moe_embed_forward(&side, &p, p.v, &tensor, ids, 4, x, 3);
    float want[] = {0, 6, 7, 0, 0, 0, 0, 6, 7, 0, 6, 7};
    for (int i = 0; i < 12; i++)
        CU_ASSERT_DOUBLE_EQUAL(x[i], want[i], 1e-5);
    struct moe_embed_grad g, h;
    moe_embed_grad_init(&g, 5, 2);
    moe_embed_grad_init(&h, 5, 2);
    moe_embed_backward(&side, ids, 4, dx, 3, &g);
    CU_ASSERT_EQUAL(g.n, 3);
    CU_ASSERT(g.place[0] < 0 && g.place[1] < 0);
    CU_ASSERT_DOUBLE_EQUAL(g.g[g.place[2] * 2], 0.5, 1e-6);
    CU_ASSERT_DOUBLE_EQUAL(g.g[g.place[3] * 2 + 1], 3 + 5, 1e-5);
    moe_embed_backward(&side, ids, 1, dx, 3, &h);
    moe_embed_grad_merge(&h, &g);
    CU_ASSERT_DOUBLE_EQUAL(h.g[h.place[4] * 2 + 1], 2, 1e-6);
    moe_embed_grad_clear(&g);
    CU_ASSERT(g.n == 0 && g.place[2] < 0);
    moe_embed_grad_deinit(&g);
    moe_embed_grad_deinit(&h);
    moe_params_deinit(&p);
}

SUITE("moe_encode", TEST(test_value_and_missing), TEST(test_bins),
      TEST(test_rows_are_as_their_short_form), TEST(test_lumpy_column),
      TEST(test_no_rows_and_no_columns), TEST(test_pooling_and_gradient))
