/* Boosted trees: the first leaf by hand, what a sum of thresholds cannot say, sets of categories,
 * nothing out of noise, the same bits again, and damaged text. */
#include "moe/data/boost.h"
#include <math.h>
#include <string.h>
#include "base/buf.h"
#include "base/heap.h"
#include "base/rng.h"
#include "tests/support/suite.h"

enum { ROWS = 4000, COLUMNS = 3 };
static uint8_t bins[ROWS * COLUMNS];
static float label[ROWS], weight[ROWS];
static int use[ROWS];
static const bool category[COLUMNS] = {false, false, true};
static const int n_bins[COLUMNS] = {16, 16, 12};
static const struct moe_boost_rows rows = {COLUMNS, category, n_bins, bins, label, weight, 1};
static const struct moe_boost_conf conf = {
    .count = 40, .leaves = 8, .rows_min = 20, .rate = 0.3, .columns = 1, .ridge = 1};

/* label: (number 0 above 8) xor (an odd category), or a coin */
static void draw(bool noise) {
    struct rng rng;
    rng_init(&rng, 5);
    for (int r = 0; r < ROWS; r++) {
        uint8_t *b = bins + r * COLUMNS;
        for (int c = 0; c < COLUMNS; c++)
            b[c] = (uint8_t)rng_below(&rng, (uint32_t)n_bins[c]);
        label[r] = noise ? (float)rng_below(&rng, 2) : (float)((b[0] > 8) != (b[2] % 2 == 1));
        weight[r] = 1;
        use[r] = r;
    }
}

/* Share of rows [from, ROWS) whose score has the label's sign. */
static double right(const struct moe_boost *b, int from) {
    int n = 0;
    for (int r = from; r < ROWS; r++)
        n += (moe_boost_score(b, bins + r * COLUMNS) > 0) == (label[r] > 0.5f);
    return (double)n / (ROWS - from);
}

static void test_by_hand(void) {
    static const uint8_t x[] = {1, 1, 1, 2, 2, 2, 2, 2};
    static const float y[] = {1, 1, 0, 0, 0, 0, 0, 1}, w[] = {1, 1, 1, 1, 1, 2, 1, 1};
    static const bool number = false;
    static const int three = 3;
    struct moe_boost_rows few = {1, &number, &three, x, y, w, 1};
    struct moe_boost_conf one = {.count = 1, .leaves = 2, .rows_min = 1, .rate = 0.5, .columns = 1};
    struct moe_boost b;
    one.ridge = 0.25;
    for (int i = 0; i < 8; i++)
        use[i] = i;
    moe_boost_fit(&one, &few, use, 8, NULL, 0, 1, &b);
    const double p = 3.5 / 10, base = log(3.5 / 6.5); /* 3 of 9, and half a row of each class */
    const double left = -0.5 * (3 * p - 2) / (3 * p * (1 - p) + 0.25);
    const double other = -0.5 * (6 * p - 1) / (6 * p * (1 - p) + 0.25);
    static const uint8_t probe[] = {1, 2};
    CU_ASSERT_DOUBLE_EQUAL(moe_boost_score(&b, &probe[0]), base + left, 1e-5);
    CU_ASSERT_DOUBLE_EQUAL(moe_boost_score(&b, &probe[1]), base + other, 1e-5);
    moe_boost_deinit(&b);
    one.rows_min = 4; /* three rows are no leaf now */
    moe_boost_fit(&one, &few, use, 8, NULL, 0, 1, &b);
    CU_ASSERT_EQUAL(b.n_nodes, 1);
    moe_boost_deinit(&b);
}

static void test_learns(void) {
    struct moe_boost b;
    draw(false);
    moe_boost_fit(&conf, &rows, use, ROWS / 2, NULL, 0, 1, &b);
    CU_ASSERT(right(&b, ROWS / 2) > 0.99);
    moe_boost_deinit(&b);
    draw(true);
    moe_boost_fit(&conf, &rows, use, ROWS / 2, NULL, 0, 1, &b);
    CU_ASSERT_DOUBLE_EQUAL(right(&b, ROWS / 2), 0.5, 0.05);
    moe_boost_deinit(&b);
}

/* Held rows end it: soon when there is nothing to learn, and never for the worse. */
static void test_stops(void) {
    static int held[ROWS / 2];
    struct moe_boost_conf c = conf;
    struct moe_boost b;
    c.patience = 5;
    c.count = 200;
    draw(true);
    for (int r = 0; r < ROWS / 2; r++)
        held[r] = ROWS / 2 + r;
    moe_boost_fit(&c, &rows, use, ROWS / 2, held, ROWS / 2, 1, &b);
    CU_ASSERT(b.n_trees >= 1 && b.n_trees < 30);
    CU_ASSERT_EQUAL(b.nodes[b.n_nodes - 1].column, -1);
    moe_boost_deinit(&b);
    draw(false);
    moe_boost_fit(&c, &rows, use, ROWS / 2, held, ROWS / 2, 1, &b);
    CU_ASSERT(b.n_trees > 30 && right(&b, ROWS / 2) > 0.99);
    moe_boost_deinit(&b);
}

/* Rows of weight zero say nothing. */
static void test_weight(void) {
    struct moe_boost b;
    draw(false);
    for (int r = 0; r < ROWS; r += 2) {
        label[r] = 1 - label[r];
        weight[r] = 0;
    }
    moe_boost_fit(&conf, &rows, use, ROWS, NULL, 0, 1, &b);
    CU_ASSERT_DOUBLE_EQUAL(right(&b, 0), 0.5, 0.02); /* all of the odd rows, none of the even */
    moe_boost_deinit(&b);
}

static void test_text(void) {
    struct moe_boost b, again, read;
    struct buf one = {0}, two = {0};
    draw(false);
    moe_boost_fit(&conf, &rows, use, ROWS, NULL, 0, 3, &b);
    for (int r = 0; r < ROWS; r++)
        use[r] = r;
    moe_boost_fit(&conf, &rows, use, ROWS, NULL, 0, 3, &again);
    moe_boost_save(&b, &one);
    moe_boost_save(&again, &two);
    CU_ASSERT(slice_equal(buf_slice(&one), buf_slice(&two)));
    CHECK_OK(moe_boost_load(buf_slice(&one), COLUMNS, &read));
    for (int r = 0; r < ROWS; r++) {
        const float x = moe_boost_score(&b, bins + r * COLUMNS);
        const float y = moe_boost_score(&read, bins + r * COLUMNS);
        CU_ASSERT(memcmp(&x, &y, sizeof x) == 0);
    }
    moe_boost_deinit(&read);
    CHECK_FAILS(moe_boost_load(buf_slice(&one), 2, &read), STATUS_DATA_LOSS, "damaged");
    for (size_t n = 0; n < 200 && n < one.n; n++) { /* cut short: whole trees, or an error */
        if (moe_boost_load((struct slice){one.p, n}, COLUMNS, &read) == STATUS_OK)
            moe_boost_deinit(&read);
        else
            CU_ASSERT(strstr(status_message(), "damaged") != NULL);
    }
    static const char *const bad[] = {"",
                                      "0000000",
                                      "00000000X00000000",
                                      "7f800000L00000000",
                                      "00000000L7fc00000",
                                      "00000000S000010000ffL00000000",
                                      "00000000S0000900000001L00000000L00000000"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_FAILS(moe_boost_load(slice_of(bad[i]), COLUMNS, &read), STATUS_DATA_LOSS, "damaged");
    struct buf deep = {0}; /* a chain without end */
    buf_printf(&deep, "00000000");
    for (int i = 0; i < 100000; i++)
        buf_printf(&deep, "S0000100000001");
    CHECK_FAILS(moe_boost_load(buf_slice(&deep), COLUMNS, &read), STATUS_DATA_LOSS, "damaged");
    moe_boost_deinit(&b);
    moe_boost_deinit(&again);
    buf_deinit(&one);
    buf_deinit(&two);
    buf_deinit(&deep);
}

SUITE("moe_boost", TEST(test_by_hand), TEST(test_learns), TEST(test_stops), TEST(test_weight),
      TEST(test_text))
