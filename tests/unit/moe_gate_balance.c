/* What keeps experts in use: the losses by value, gates that balance by loss, by bias and by
 * capacity, and the traps known from other frameworks' bug lists. */
#include "moe/balance.h"
#include "tests/support/moe_gate_lab.h"

#define N 8
static const struct lab_size size = {2, 4, N, 8, 256};

/* Moves the bias of the logits so that all rows prefer few experts. */
static void skew(struct lab *l, float by) {
    for (int e = 0; e < l->g.n_experts; e++)
        lab_field(l, "b")[e] = by * (float)(l->g.n_experts - e) / (float)l->g.n_experts;
}
static float maxvio(struct lab *l) {
    float count[64];
    lab_loads(l, count);
    return moe_load_maxvio(l->g.n_experts, count);
}

/* --- losses -------------------------------------------------------------------------------------
 */

static void test_load_loss_by_value(void) {
    float even[4] = {5, 5, 5, 5}, one[4] = {20, 0, 0, 0}, none[4] = {0}, f[4], p[8], dp[8] = {0};
    for (int i = 0; i < 8; i++)
        p[i] = 0.25f;
    moe_load_shares(4, even, f);
    CU_ASSERT_DOUBLE_EQUAL(moe_load_loss(2, 4, f, p), 1, 1e-6);
    moe_load_shares(4, one, f);
    CU_ASSERT_DOUBLE_EQUAL(moe_load_loss(2, 4, f, p), 1, 1e-6); /* P is even */
    p[0] = p[4] = 0.97f;
    for (int i = 1; i < 4; i++)
        p[i] = p[4 + i] = 0.01f;
    CU_ASSERT_DOUBLE_EQUAL(moe_load_loss(2, 4, f, p), 3.88, 1e-5);
    moe_load_loss_grad(2, 4, f, 1, dp);
    CU_ASSERT_DOUBLE_EQUAL((double)dp[0], 2, 1e-6);
    CU_ASSERT_DOUBLE_EQUAL((double)dp[1], 0, 1e-6);
    moe_load_shares(4, none, f);
    CU_ASSERT(f[0] == 0 && moe_load_maxvio(4, none) == 0);
    CU_ASSERT_DOUBLE_EQUAL((double)moe_load_maxvio(4, one), 3, 1e-6);
    CU_ASSERT_DOUBLE_EQUAL((double)moe_load_maxvio(4, even), 0, 1e-6);
}

static void test_cv2_and_z_loss_by_value(void) {
    double x[4] = {1, 1, 1, 1}, y[4] = {4, 0, 0, 0}, z[4] = {0}, d[4];
    float h[4] = {0, 0, 0, 0}, big[2] = {1000, 1000}, dh[4] = {0};
    CU_ASSERT_DOUBLE_EQUAL(moe_cv2(4, x), 0, 1e-12);
    CU_ASSERT_DOUBLE_EQUAL(moe_cv2(4, y), 3, 1e-12);
    CU_ASSERT(moe_cv2(4, z) == 0);
    moe_cv2_grad(4, z, 1, d);
    CU_ASSERT(d[0] == 0);
    CU_ASSERT_DOUBLE_EQUAL(moe_z_loss(1, 4, h), log(4) * log(4), 1e-9);
    moe_z_loss_grad(1, 4, h, 1, dh);
    CU_ASSERT_DOUBLE_EQUAL((double)dh[2], 2 * log(4) / 4, 1e-6);
    CU_ASSERT_DOUBLE_EQUAL(moe_z_loss(1, 2, big), (1000 + log(2)) * (1000 + log(2)), 1e-3);
    h[3] = MOE_WITHHELD;
    CU_ASSERT_DOUBLE_EQUAL(moe_z_loss(1, 4, h), log(3) * log(3), 1e-9);
}

/* A known bug elsewhere: broadcasting made the balance loss constant. */
static void test_imbalance_costs_more_than_balance(void) {
    static const char *const kinds[] = {"topk", "switch", "gshard", "noisy_topk", "cosine"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct lab l;
        if (CHECK_OK(lab_open(&l, kinds[i], "{}", size, 5))) {
            lab_loss(&l, true);
            double even = l.aux;
            if (i == 4) /* no bias to move: all rows alike do it */
                for (int r = 0; r < size.n_rows * size.dc; r++)
                    l.c[r] = 1 + 0.01f * l.c[r];
            else
                skew(&l, 20);
            if (i == 4)
                memset(l.q, 0, sizeof(float) * (size_t)(size.n_groups * size.dq));
            lab_loss(&l, true);
            if (!(l.aux > 1.2 * even))
                printf("\n    %s: %g balanced, %g not\n", kinds[i], even, l.aux);
            CU_ASSERT(l.aux > 1.2 * even);
            CU_ASSERT(even > 0);
        }
        lab_close(&l);
    }
}

/* The aux losses alone, by plain descent, even out a collapsed router. */
static void test_losses_balance(void) {
    static const char *const kinds[] = {"topk", "switch", "noisy_topk"};
    static const char *const settings[] = {"{\"aux_loss\":1}", "{\"aux_loss\":1}",
                                           "{\"importance_loss\":1,\"load_loss\":1}"};
    for (int i = 0; i < 3; i++) {
        struct lab l;
        if (CHECK_OK(lab_open(&l, kinds[i], settings[i], size, 5))) {
            skew(&l, 3);
            l.pull_scale = 0;
            l.share = 1;
            lab_loss(&l, false);
            float before = maxvio(&l), after = 0;
            for (int step = 0; step < 400; step++)
                lab_step(&l, 0.3f);
            lab_loss(&l, false);
            after = maxvio(&l);
            if (!(before > 1 && after < 0.6f))
                printf("\n    %s: MaxVio %g, then %g\n", kinds[i], (double)before, (double)after);
            CU_ASSERT(before > 1 && after < 0.6f);
        }
        lab_close(&l);
    }
}

/* `step`: f are the loads of the whole step before, not of this pass. */
static void test_aux_over_the_whole_step(void) {
    struct lab l;
    if (CHECK_OK(lab_open(&l, "topk", "{\"aux_over\":\"step\"}", size, 5))) {
        float stats[N] = {30, 10, 0, 0, 0, 0, 0, 0}, zero[N] = {0};
        lab_loss(&l, true);
        double own = l.aux;
        l.g.ops->after_step(&l.g, stats, lab_buffers(&l));
        CU_ASSERT_DOUBLE_EQUAL((double)lab_field(&l, "load")[0], 0.75, 1e-6);
        lab_loss(&l, true);
        double other = l.aux;
        CU_ASSERT(other != own);
        l.g.ops->after_step(&l.g, zero, lab_buffers(&l)); /* a step without rows */
        CU_ASSERT_DOUBLE_EQUAL((double)lab_field(&l, "load")[0], 0.75, 1e-6);
        memset(l.stats, 0, N * sizeof *l.stats);
        lab_backward(&l, true);
        float sum = 0;
        for (int e = 0; e < N; e++)
            sum += l.stats[e];
        CU_ASSERT(sum == 2 * 256);
    }
    lab_close(&l);
}

/* GShard's f counts first choices, topk's all. */
static void test_counted_choices(void) {
    for (int first = 0; first < 2; first++) {
        struct lab l;
        const char *kind = first ? "gshard" : "topk";
        if (CHECK_OK(lab_open(&l, kind, "{\"aux_loss\":1}", size, 5))) {
            static const float logits[N] = {2, 1};
            float sum = 0, p[2];
            memset(lab_w(&l), 0, l.g.params.floats * sizeof(float));
            memcpy(lab_field(&l, "b"), logits, sizeof logits);
            for (int e = 0; e < N; e++)
                sum += expf(logits[e]);
            p[0] = expf(2) / sum;
            p[1] = expf(1) / sum;
            double want = (double)(first ? N * p[0] : N * (p[0] + p[1]) / 2);
            lab_loss(&l, true);
            CU_ASSERT_DOUBLE_EQUAL(l.aux, 0.5 * want, 1e-5); /* share 0.5 */
        }
        lab_close(&l);
    }
}

/* --- the router learns --------------------------------------------------------------------------
 */

static double router_gradient(struct lab *l) {
    double sum = 0;
    lab_backward(l, true);
    for (size_t i = 0; i < l->g.params.floats; i++)
        sum += fabs((double)l->grad[i]);
    return sum;
}
/* Softmax after a top-1 is the constant 1: such settings are refused. */
static void test_top1_routers_learn(void) {
    struct lab l;
    if (CHECK_OK(lab_open(&l, "switch", "{\"aux_loss\":0}", size, 5)))
        CU_ASSERT(router_gradient(&l) > 1);
    lab_close(&l);
    CHECK_FAILS(lab_open(&l, "topk", "{\"k\":1}", size, 5), STATUS_INVALID_ARGUMENT, "always 1");
    lab_close(&l);
    CHECK_FAILS(
        lab_open(&l, "topk", "{\"k\":1,\"order\":\"topk_softmax\",\"renormalise\":false}", size, 5),
        STATUS_INVALID_ARGUMENT, "always 1");
    lab_close(&l);
    CHECK_FAILS(lab_open(&l, "deepseek", "{\"k\":1}", size, 5), STATUS_INVALID_ARGUMENT,
                "normalise: false");
    lab_close(&l);
    if (CHECK_OK(lab_open(&l, "topk", "{\"k\":1,\"renormalise\":false,\"aux_loss\":0}", size, 5)))
        CU_ASSERT(router_gradient(&l) > 1);
    lab_close(&l);
    if (CHECK_OK(lab_open(&l, "deepseek", "{\"k\":1,\"normalise\":false}", size, 5)))
        CU_ASSERT(router_gradient(&l) > 1);
    lab_close(&l);
}

/* --- deepseek -----------------------------------------------------------------------------------
 */

static void test_deepseek_weighs_by_unbiased_scores(void) {
    struct lab l;
    if (CHECK_OK(lab_open(&l, "deepseek", "{\"scale\":2}", size, 5))) {
        float *bias = lab_field(&l, "bias"), s[2];
        memset(lab_w(&l), 0, l.g.params.floats * sizeof(float));
        lab_field(&l, "b")[0] = 2; /* the best two by score: 0 and 1 */
        lab_field(&l, "b")[1] = 1;
        bias[6] = bias[7] = 5; /* but these are chosen */
        lab_field(&l, "b")[6] = -1;
        lab_field(&l, "b")[7] = 0.5f;
        lab_loss(&l, false);
        s[0] = 1 / (1 + expf(1));
        s[1] = 1 / (1 + expf(-0.5f));
        CU_ASSERT(l.route.w[0] == 0 && l.route.w[1] == 0);
        CU_ASSERT_DOUBLE_EQUAL((double)l.route.w[6], (double)(2 * s[0] / (s[0] + s[1])), 1e-6);
        CU_ASSERT_DOUBLE_EQUAL((double)l.route.w[7], (double)(2 * s[1] / (s[0] + s[1])), 1e-6);
    }
    lab_close(&l);
}

/* A skewed router that does not learn; fresh rows each step; the bias alone evens the loads. */
static void test_deepseek_bias_balances(void) {
    static const char *const rules[] = {"{\"rate\":0.002}",
                                        "{\"rate\":0.01,\"rule\":\"proportional\"}"};
    for (int i = 0; i < 2; i++) {
        struct lab l;
        if (CHECK_OK(lab_open(&l, "deepseek", rules[i], size, 5))) {
            float total[N] = {0}, count[N], *bias = lab_field(&l, "bias");
            skew(&l, 2);
            lab_loss(&l, false);
            float before = maxvio(&l);
            for (int step = 0; step < 1000; step++) {
                lab_redraw(&l, 1000 + (uint64_t)step);
                lab_step(&l, 0);
                lab_loads(&l, count);
                for (int e = 0; e < N && step >= 900; e++)
                    total[e] += count[e];
            }
            float after = moe_load_maxvio(N, total);
            if (!(before > 1 && after < 0.1f))
                printf("\n    %s: MaxVio %g, then %g\n", rules[i], (double)before, (double)after);
            CU_ASSERT(before > 1 && after < 0.1f);
            CU_ASSERT(l.aux == 0); /* without any loss */
            float kept[N];
            memcpy(kept, bias, sizeof kept);
            memset(l.stats, 0, N * sizeof *l.stats);
            lab_backward(&l, false);
            l.g.ops->after_step(&l.g, l.stats, lab_buffers(&l));
            CU_ASSERT(memcmp(kept, bias, sizeof kept) == 0); /* inference moves nothing */
        }
        lab_close(&l);
    }
}

/* --- capacity -----------------------------------------------------------------------------------
 */

static void test_capacity_limits(void) {
    struct lab l;
    float count[N];
    if (CHECK_OK(lab_open(&l, "topk", "{\"k\":3,\"capacity\":1.25,\"capacity_in\":\"training\"}",
                          size, 5))) {
        skew(&l, 4);
        lab_loss(&l, true);
        lab_loads(&l, count);
        for (int e = 0; e < N; e++)
            CU_ASSERT(count[e] <= 120); /* 1.25 * 3 * 256 / 8 */
        CU_ASSERT(count[0] == 120);
        lab_loss(&l, false); /* not in serving */
        lab_loads(&l, count);
        CU_ASSERT(count[0] > 200);
        CU_ASSERT(!(l.g.flags & MOE_GATE_MIXES_ROWS));
    }
    lab_close(&l);
    if (CHECK_OK(lab_open(&l, "switch", "{\"capacity\":1,\"capacity_in\":\"always\"}", size, 5))) {
        CU_ASSERT(l.g.flags & MOE_GATE_MIXES_ROWS);
        skew(&l, 50);
        lab_loss(&l, false);
        for (int g = 0; g < size.n_groups; g++) { /* by request */
            int rows = l.start[g + 1] - l.start[g], taken = 0;
            for (int r = l.start[g]; r < l.start[g + 1]; r++)
                taken += l.route.w[r * N] != 0;
            CU_ASSERT(taken == (rows + N - 1) / N);
        }
    }
    lab_close(&l);
}

/* First choices come first; with `weight`, the surest rows do. */
static void test_capacity_priorities(void) {
    struct lab l;
    struct lab_size few = {0, 2, 2, 1, 4};
    for (int by_weight = 0; by_weight < 2; by_weight++) {
        const char *settings = by_weight ? "{\"k\":2,\"capacity\":0.5,\"priority\":\"weight\"}"
                                         : "{\"k\":2,\"capacity\":0.5}";
        if (CHECK_OK(lab_open(&l, "topk", settings, few, 5))) {
            static const float rows[8] = {0, 1, 1, 0, 2, 0, 3, 0}; /* preferences, row by row */
            memcpy(l.c, rows, sizeof rows);
            memset(lab_w(&l), 0, l.g.params.floats * sizeof(float));
            lab_w(&l)[0] = lab_w(&l)[3] = 1;
            lab_loss(&l, true); /* two places each */
            float *w = l.route.w;
            CU_ASSERT(w[1] > 0 && w[0] == 0); /* row 0: the second expert; no place for it else */
            CU_ASSERT((w[2] > 0) == !by_weight);
            CU_ASSERT(w[4] > 0);
            CU_ASSERT((w[6] > 0) == by_weight);
            CU_ASSERT((w[3] > 0) ==
                      !by_weight); /* of second choices, too, the first or the surest */
        }
        lab_close(&l);
    }
}

/* GShard: of rows with a second weight v, a share of 2 v is taken. */
static void test_gshard_second_at_random(void) {
    struct lab l;
    if (CHECK_OK(lab_open(&l, "gshard", "{}", size, 5))) {
        double want = 0, got = 0;
        lab_shake(&l, 0.5, 2);
        for (int seed = 0; seed < 20; seed++) {
            lab_loss(&l, false);
            for (int i = 0; i < size.n_rows * N; i++) /* weights below 1/2 are the seconds */
                want += l.route.w[i] > 0 && l.route.w[i] < 0.5f ? 2 * (double)l.route.w[i] : 0;
            l.noise = 100 + (uint64_t)seed;
            lab_loss(&l, true);
            for (int i = 0; i < size.n_rows * N; i++)
                got += l.route.w[i] > 0 && l.route.w[i] < 0.5f;
        }
        CU_ASSERT(want > 1000 && fabs(got - want) < 4 * sqrt(want));
    }
    lab_close(&l);
}

SUITE("moe_gate_balance", TEST(test_load_loss_by_value), TEST(test_cv2_and_z_loss_by_value),
      TEST(test_imbalance_costs_more_than_balance), TEST(test_losses_balance),
      TEST(test_aux_over_the_whole_step), TEST(test_counted_choices), TEST(test_top1_routers_learn),
      TEST(test_deepseek_weighs_by_unbiased_scores), TEST(test_deepseek_bias_balances),
      TEST(test_capacity_limits), TEST(test_capacity_priorities),
      TEST(test_gshard_second_at_random))
