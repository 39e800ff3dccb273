/* moe_usage.c: every figure of `inspect` on a case small enough to work out by hand. */
#include <math.h>
#include "base/rng.h"
#include "moe/report/eval.h"
#include "moe/report/usage.h"
#include "tests/support/suite.h"

#define NEAR(a, b) CU_ASSERT_DOUBLE_EQUAL(a, b, 1e-6)

static void test_load(void) {
    double even[] = {5, 5, 5, 5}, one[] = {8, 0, 0, 0}, some[] = {1, 2, 3, 2}, none[] = {0, 0};
    struct moe_load l = moe_load_describe(4, even);
    NEAR(l.cv, 0);
    NEAR(l.maxvio, 0);
    NEAR(l.minvio, 0);
    NEAR(l.effective, 4);
    NEAR(l.jain, 1);
    NEAR(l.gini, 0);
    l = moe_load_describe(4, one);
    NEAR(l.cv, sqrt(3)); /* mean 2, deviations 6, -2, -2, -2: sd sqrt(12) */
    NEAR(l.maxvio, 3);
    NEAR(l.minvio, 1);
    NEAR(l.effective, 1);
    NEAR(l.jain, 0.25);
    NEAR(l.gini, 0.75); /* 6 ordered pairs of 8 apart: 48 / (2 * 4 * 8) */
    CU_ASSERT_EQUAL(l.dead, 3);
    l = moe_load_describe(4, some); /* mean 2 */
    NEAR(l.cv, sqrt(0.5) / 2);
    NEAR(l.maxvio, 0.5);
    NEAR(l.minvio, 0.5);
    NEAR(l.jain, 1 / (1 + l.cv * l.cv));
    NEAR(l.entropy, log(8) - (2 * 2 * log(2) + 3 * log(3)) / 8);
    NEAR(l.gini, 12 / 64.0); /* pairs apart 1, 2, 1, 1, 0, 1, each twice; 2 * 4 * 8 */
    NEAR(l.p25, 0.875);
    NEAR(l.median, 1);
    NEAR(l.p75, 1.125);
    l = moe_load_describe(2, none);
    CU_ASSERT(isnan(l.cv) && isnan(l.effective) && l.dead == 2);
}

static const float sparse_w[] = {0.75f, 0.25f, 0, 0, 1, 0, 0.5f, 0, 0.5f, 0, 0, 0}; /* 4 x 3 */

static void test_shares_of_a_sparse_gate(void) {
    uint8_t active[12];
    double mass[3], chosen[3], first[3];
    moe_usage_active(4, 3, sparse_w, true, active);
    CU_ASSERT(active[0] && active[1] && !active[2] && !active[9] && !active[11]);
    moe_usage_shares(4, 3, sparse_w, active, mass, chosen, first);
    NEAR(mass[0], 1.25 / 3);
    NEAR(mass[1], 1.25 / 3);
    NEAR(mass[2], 0.5 / 3);
    NEAR(chosen[0], 0.5);
    NEAR(chosen[2], 0.25);
    NEAR(first[0], 0.5); /* a tie goes to the lower number, a row of zeros to nobody */
    NEAR(first[1], 0.25);
    NEAR(first[2], 0);
}

static void test_a_dense_gate_counts_more_than_fair(void) {
    const float w[] = {0.5f, 0.3f, 0.2f, 1 / 3.0f, 1 / 3.0f, 1 / 3.0f};
    uint8_t active[6];
    moe_usage_active(2, 3, w, false, active);
    CU_ASSERT(active[0] && !active[1] && !active[2]);
    CU_ASSERT(!active[3] && !active[4] && !active[5]);
    const float only[] = {1, 1};
    moe_usage_active(2, 1, only, false, active);
    CU_ASSERT(active[0] && active[1]);
}

static void test_decision(void) {
    uint8_t active[12];
    moe_usage_active(4, 3, sparse_w, true, active);
    struct moe_decision d = moe_usage_decision(4, 3, sparse_w, active);
    double h0 = -(0.75 * log(0.75) + 0.25 * log(0.25)), h2 = log(2);
    NEAR(d.entropy, (h0 + 0 + h2) / 3);
    NEAR(d.effective, exp((h0 + h2) / 3));
    NEAR(d.top, (0.75 + 1 + 0.5) / 3);
    NEAR(d.margin, (0.5 + 1 + 0) / 3);
    NEAR(d.active, 5 / 4.0);
    NEAR(d.zero_rows, 0.25);
    CU_ASSERT(d.active_p50 == 1 && d.active_p95 == 2 && d.active_p99 == 2);
}

static void test_coactivation(void) {
    uint8_t active[12];
    double c[9];
    moe_usage_active(4, 3, sparse_w, true, active);
    moe_usage_coactive(4, 3, active, c);
    NEAR(c[0], 1);
    NEAR(c[1], 0.5); /* of expert 0's rows 0 and 2, row 0 is expert 1's too */
    NEAR(c[2], 0.5); /* and row 2 expert 2's */
    NEAR(c[5], 0);   /* 1 with 2: never */
    NEAR(c[6], 1);   /* 2 has one row, and 0 is on it */
    uint8_t never[] = {1, 0};
    moe_usage_coactive(1, 2, never, c);
    CU_ASSERT(isnan(c[2]) && isnan(c[3]));
}

static void test_moves(void) {
    /* rows: {0,1} then {0,1}: same; {0,1} then {0,2}: half; {2} then none: no last choice */
    const float a[] = {0.6f, 0.4f, 0, 0.6f, 0.4f, 0, 0, 0, 1};
    const float b[] = {0.4f, 0.6f, 0, 0.6f, 0, 0.4f, 0, 0, 0};
    uint8_t xa[9], xb[9];
    moe_usage_active(3, 3, a, true, xa);
    moe_usage_active(3, 3, b, true, xb);
    struct moe_moves m = moe_usage_moves(3, 3, a, xa, b, xb);
    NEAR(m.saturation, 0.75);
    NEAR(m.flip_rate, 3 / 9.0);
    NEAR(m.flips_a_row, 1);
    NEAR(m.first_change, 2 / 3.0);
    m = moe_usage_moves(3, 3, b, xb, b, xb);
    NEAR(m.saturation, 1);
    NEAR(m.flip_rate, 0);
}

static void test_information(void) {
    const float w[] = {1, 0, 1, 0, 0, 1, 0, 1};
    const int told[] = {0, 0, 1, 1}, mixed[] = {0, 1, 0, 1}, none[] = {-1, -1, 0, 0};
    double joint[4] = {0}, share;
    moe_usage_joint(4, 2, w, told, 2, joint);
    NEAR(moe_usage_information(2, 2, joint, &share), 1);
    NEAR(share, 1);
    double even[4] = {0};
    moe_usage_joint(4, 2, w, mixed, 2, even);
    NEAR(moe_usage_information(2, 2, even, &share), 0);
    NEAR(share, 0);
    double part[4] = {0};
    moe_usage_joint(4, 2, w, none, 2, part); /* rows without a segment take no part */
    NEAR(part[0], 0);
    NEAR(part[1], 2);
    /* p(s, e) = 3/8 1/8 1/8 3/8: 1 - H(1/4) bits */
    double skew[] = {3, 1, 1, 3};
    NEAR(moe_usage_information(2, 2, skew, &share), 1 + 0.25 * log2(0.25) + 0.75 * log2(0.75));
}

static void test_similarity(void) {
    const float x[] = {1, 0, 0, 1, -1, 0, 0, -1}, turned[] = {0, 3, -3, 0, 0, -3, 3, 0};
    NEAR(moe_cka(4, 2, x, turned), 1); /* a rotation and a scale are no difference */
    NEAR(moe_cka(4, 2, x, x), 1);
    const float flat[] = {2, 2, 2, 2, 2, 2, 2, 2};
    CU_ASSERT(isnan(moe_cka(4, 2, x, flat)));
    /* orthogonal over the rows: y'x = 0 */
    const float a[] = {1, -1, 1, -1}, b[] = {1, 1, -1, -1};
    NEAR(moe_cka(4, 1, a, b), 0);
    /* one column: CKA is the squared correlation; here cov 1, variances 2 and 2/3 of 3 rows */
    const float c[] = {1, 2, 3}, d[] = {0, 1, 0.5f};
    NEAR(moe_cka(3, 1, c, d), 0.25);
    const float e[] = {1, 0, 2, 2, 0, 0}, f[] = {0, 1, 1, 1, 5, 5};
    NEAR(moe_mean_cosine(3, 2, e, f), 0.5); /* 0 and 1; the row of zeros takes no part */
    NEAR(moe_cosine(2, e, e), 1);
}

static void test_auc_change(void) {
    const float y[] = {0, 0, 1, 1, NAN}, a[] = {0.1f, 0.4f, 0.35f, 0.8f, 9};
    const float b[] = {0.1f, 0.2f, 0.3f, 0.8f, -9};
    struct moe_auc_change c = moe_auc_compare(a, b, y, 5);
    NEAR(c.auc, 0.75);
    NEAR(c.change, 0.25);
    /* placements move by 1/2 for one positive of two, and for one negative of two: variances 1/8
     * each, over two rows each */
    NEAR(c.error, sqrt(0.125 / 2 + 0.125 / 2));
    c = moe_auc_compare(a, a, y, 5);
    NEAR(c.change, 0);
    NEAR(c.error, 0);
    const float same[] = {1, 1, 1, 1, 1};
    NEAR(moe_auc_compare(same, a, y, 5).auc, 0.5);
    const float ones[] = {1, 1, 1, 1, 1};
    CU_ASSERT(isnan(moe_auc_compare(a, b, ones, 5).change));
}

static void test_auc_change_is_that_of_eval(void) {
    enum { N = 500 };
    float a[N], b[N], y[N];
    struct rng r;
    rng_init(&r, 3);
    for (int i = 0; i < N; i++) {
        y[i] = rng_float(&r) < 0.3f;
        a[i] = roundf(8 * (rng_float(&r) + 0.3f * y[i])); /* many ties */
        b[i] = rng_float(&r) + 0.2f * y[i];
    }
    struct moe_auc_change c = moe_auc_compare(a, b, y, N);
    NEAR(c.auc, moe_auc(a, y, N));
    NEAR(c.auc + c.change, moe_auc(b, y, N));
    CU_ASSERT(c.error > 0.005 && c.error < 0.05);
}

static void test_failures_of_home(void) {
    const float y[] = {0, 0, 0, 1, -0.0f};
    NEAR(moe_zero_share(5, y), 0.8);
    double mass[] = {0.1, 0.6, 0.3}, none[] = {0, 0};
    int which;
    NEAR(moe_largest_share(3, mass, &which), 0.6);
    CU_ASSERT_EQUAL(which, 1);
    CU_ASSERT(isnan(moe_largest_share(2, none, &which)));
}

SUITE("moe_usage", TEST(test_load), TEST(test_shares_of_a_sparse_gate),
      TEST(test_a_dense_gate_counts_more_than_fair), TEST(test_decision), TEST(test_coactivation),
      TEST(test_moves), TEST(test_information), TEST(test_similarity), TEST(test_auc_change),
      TEST(test_auc_change_is_that_of_eval), TEST(test_failures_of_home))
