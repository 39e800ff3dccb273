/* What is particular to single kinds of gate: orders of softmax and choice, groups, temperature,
 * hashes and segments, assignment, optimal transport, selectors that settle, slots, blends. */
#include "moe/balance.h"
#include "tests/support/moe_gate_lab.h"

#define N 8
static const struct lab_size size = {2, 4, N, 8, 256};

static float maxvio(struct lab *l) {
    float count[64];
    lab_loads(l, count);
    return moe_load_maxvio(l->g.n_experts, count);
}
static float row_sum(const struct lab *l, int row) {
    float sum = 0;
    for (int e = 0; e < l->g.n_experts; e++)
        sum += l->route.w[row * l->g.n_experts + e];
    return sum;
}
/* Logits of every row by the bias alone. */
static void set_logits(struct lab *l, const float *h) {
    memset(lab_w(l), 0, l->g.params.floats * sizeof(float));
    memcpy(lab_field(l, "b"), h, (size_t)l->g.n_experts * sizeof *h);
}

/* --- topk ---------------------------------------------------------------------------------------
 */

static void expect_row(const char *kind, const char *settings, const float *logits,
                       const float *want, int n) {
    struct lab_size few = {0, 2, n, 1, 2};
    struct lab l;
    if (CHECK_OK(lab_open(&l, kind, settings, few, 5))) {
        set_logits(&l, logits);
        lab_loss(&l, false);
        for (int e = 0; e < 2 * n; e++) {
            if (fabsf(l.route.w[e] - want[e % n]) > 1e-6f)
                printf("\n    %s %s: expert %d gets %g, not %g\n", kind, settings, e % n,
                       (double)l.route.w[e], (double)want[e % n]);
            CU_ASSERT(fabsf(l.route.w[e] - want[e % n]) <= 1e-6f);
        }
    }
    lab_close(&l);
}
static void test_orders_of_softmax_and_choice(void) {
    const float h[4] = {logf(4), logf(3), logf(2), logf(1)};
    expect_row("topk", "{\"renormalise\":false}", h, (float[]){0.4f, 0.3f, 0, 0}, 4);
    expect_row("topk", "{}", h, (float[]){4 / 7.0f, 3 / 7.0f, 0, 0}, 4);
    expect_row("topk", "{\"order\":\"topk_softmax\",\"renormalise\":false,\"scale\":2}", h,
               (float[]){8 / 7.0f, 6 / 7.0f, 0, 0}, 4);
    expect_row("topk", "{\"k\":9,\"temperature\":0.5,\"renormalise\":false}", h,
               (float[]){16 / 30.0f, 9 / 30.0f, 4 / 30.0f, 1 / 30.0f}, 4);
    expect_row("switch", "{}", h, (float[]){0.4f, 0, 0, 0}, 4);
    expect_row("gshard", "{}", h, (float[]){4 / 7.0f, 3 / 7.0f, 0, 0}, 4);
    expect_row("noisy_topk", "{}", h, (float[]){4 / 7.0f, 3 / 7.0f, 0, 0}, 4);
    expect_row("sinkhorn", "{\"k\":2}", h, (float[]){0.4f, 0.3f, 0, 0}, 4);
    expect_row("sinkhorn", "{}", h, (float[]){0.8f, 0, 0, 0}, 4);
    expect_row("base_assign", "{}", h, (float[]){0.8f, 0, 0, 0}, 4);
    expect_row("sigmoid", "{}", h, (float[]){0.8f, 0.75f, 2 / 3.0f, 0.5f}, 4);
    expect_row("relu", "{}", h, (float[]){logf(4), logf(3), logf(2), 0}, 4);
    expect_row("topk", "{\"renormalise\":false}", (float[]){0, 0, 0, 0}, /* ties: the lower index */
               (float[]){0.25f, 0.25f, 0, 0}, 4);
}

/* The best expert stands in a group that is weaker as a whole. */
static void test_group_limits(void) {
    const float h[6] = {logf(10), logf(1), logf(7), logf(6), logf(2), logf(4)};
    expect_row("topk", "{\"renormalise\":false}", h, (float[]){10 / 30.0f, 0, 7 / 30.0f, 0, 0, 0},
               6);
    expect_row("topk", "{\"renormalise\":false,\"groups\":3}", h,
               (float[]){0, 0, 7 / 30.0f, 6 / 30.0f, 0, 0}, 6);
    expect_row("topk", "{\"renormalise\":false,\"groups\":3,\"groups_kept\":2}", h,
               (float[]){10 / 30.0f, 0, 7 / 30.0f, 0, 0, 0}, 6); /* best 2 / 2 of each group */
    expect_row("deepseek", "{\"groups\":2,\"normalise\":false}", (float[]){0, 0, 0, 1, 1, 1},
               (float[]){0, 0, 0, 0.7310586f, 0.7310586f, 0}, 6);
    struct lab l;
    CHECK_FAILS(lab_open(&l, "topk", "{\"groups\":3}", size, 5), STATUS_INVALID_ARGUMENT,
                "8 experts do not fall into 3 equal groups");
    lab_close(&l);
    CHECK_FAILS(lab_open(&l, "deepseek", "{\"groups\":4,\"k\":3}", size, 5),
                STATUS_INVALID_ARGUMENT, "groups_kept");
    lab_close(&l);
    CHECK_FAILS(lab_open(&l, "topk", "{\"kk\":3}", size, 5), STATUS_INVALID_ARGUMENT, "'k'");
    lab_close(&l);
}

/* Withheld experts get nothing, the others share what they had. */
static void test_expert_dropout(void) {
    static const char *const kinds[] = {"softmax", "topk", "sinkhorn", "smear"};
    for (int i = 0; i < 4; i++) {
        struct lab l;
        const char *settings = i == 2 ? "{\"k\":2,\"dropout\":0.3}" : "{\"dropout\":0.3}";
        if (CHECK_OK(lab_open(&l, kinds[i], settings, size, 5))) {
            int rows = i == 3 ? size.n_groups : size.n_rows, zeros = 0;
            lab_loss(&l, true);
            for (int r = 0; r < rows; r++) {
                CU_ASSERT(i == 2 || fabsf(row_sum(&l, r) - 1) < 1e-5f);
                for (int e = 0; e < N; e++)
                    zeros += l.route.w[r * N + e] == 0;
            }
            if (i == 0 || i == 3)
                CU_ASSERT(fabs(zeros / (double)(rows * N) - 0.3) < (i ? 0.2 : 0.05));
        }
        lab_close(&l);
    }
}

/* Beyond 64 experts each still has a draw of its own: those 64 apart do not go together, and a
 * row's weights still sum to one. */
static void test_dropout_of_many_experts(void) {
    enum { MANY = 150 };
    struct lab_size many = {3, 4, MANY, 8, 256};
    struct lab l;
    if (CHECK_OK(lab_open(&l, "softmax", "{\"dropout\":0.5}", many, 5))) {
        int same = 0, pairs = 0, zeros = 0;
        lab_loss(&l, true);
        for (int r = 0; r < many.n_rows; r++) {
            const float *w = l.route.w + r * MANY;
            double sum = 0;
            for (int e = 0; e < MANY; e++) {
                sum += (double)w[e];
                zeros += w[e] == 0;
                if (e + 64 < MANY) {
                    same += (w[e] == 0) == (w[e + 64] == 0);
                    pairs++;
                }
            }
            CU_ASSERT_DOUBLE_EQUAL(sum, 1, 1e-5);
        }
        CU_ASSERT(fabs((double)same / pairs - 0.5) < 0.03);
        CU_ASSERT(fabs((double)zeros / (many.n_rows * MANY) - 0.5) < 0.02);
    }
    lab_close(&l);
}

/* Jitter multiplies, by U(1 - j, 1 + j), once an element. */
static void test_jitter_multiplies_inputs(void) {
    struct lab_size one = {0, 1, 2, 4, 256};
    struct lab l;
    if (CHECK_OK(lab_open(&l, "sigmoid", "{\"jitter\":0.2,\"bias\":false}", one, 5))) {
        float low = INFINITY, high = -INFINITY, ratio[2];
        lab_w(&l)[0] = 0.5f;
        lab_w(&l)[1] = -0.7f;
        for (int r = 0; r < one.n_rows; r++) /* away from 0, where the ratio has no digits */
            l.c[r] = l.c[r] < 0 ? l.c[r] - 0.5f : l.c[r] + 0.5f;
        lab_loss(&l, true);
        for (int r = 0; r < one.n_rows; r++) {
            for (int e = 0; e < 2; e++) {
                float w = l.route.w[2 * r + e];
                ratio[e] = logf(w / (1 - w)) / (l.c[r] * lab_w(&l)[e]);
            }
            CU_ASSERT(fabsf(ratio[0] - ratio[1]) < 1e-3f); /* of the input, not of the logits */
            low = fminf(low, ratio[0]);
            high = fmaxf(high, ratio[0]);
        }
        CU_ASSERT(low > 0.799f && low < 0.82f && high > 1.18f && high < 1.201f);
    }
    lab_close(&l);
}

/* --- cosine -------------------------------------------------------------------------------------
 */

static void test_cosine_sees_angles_only(void) {
    struct lab l;
    if (CHECK_OK(lab_open(&l, "cosine", "{\"k\":3}", size, 5))) {
        float *w = l.d.w;
        lab_loss(&l, false);
        memcpy(w, l.route.w, lab_route_floats(&l) * sizeof *w);
        for (int i = 0; i < size.n_rows * size.dc; i++)
            l.c[i] *= 7;
        for (int i = 0; i < size.n_groups * size.dq; i++)
            l.q[i] *= 7;
        lab_loss(&l, false);
        for (size_t i = 0; i < lab_route_floats(&l); i++)
            CU_ASSERT(fabsf(w[i] - l.route.w[i]) < 1e-5f);
        lab_field(&l, "log_factor")[0] =
            50;                 /* stays finite: the factor has a limit, and there it */
        lab_backward(&l, true); /* has no gradient */
        CU_ASSERT(isfinite(l.route.w[0]) && l.grad[l.g.params.floats - 1] == 0);
    }
    lab_close(&l);
}

/* --- hash, segment ------------------------------------------------------------------------------
 */

static void set_items(struct lab *l, uint64_t seed, bool zipf) {
    struct rng r;
    rng_init(&r, seed);
    for (int i = 0; i < l->size.n_rows; i++)
        l->cand_ids[2 * i + 1] =
            zipf ? 1 + (uint32_t)(3000 * pow(rng_double(&r), 3)) : 1 + rng_below(&r, 100000);
}
static void test_hash_is_balanced(void) {
    struct lab_size many = {2, 2, N, 4, 20000};
    struct lab l;
    if (CHECK_OK(lab_open(&l, "hash", "{\"input\":\"item\"}", many, 5))) {
        set_items(&l, 1, false);
        lab_loss(&l, false);
        CU_ASSERT(maxvio(&l) < 0.1f);
        for (int r = 0; r < many.n_rows; r++)
            CU_ASSERT(row_sum(&l, r) == 1);
        l.cand_ids[3] = l.cand_ids[1]; /* equal ids, equal experts, also in another request */
        l.cand_ids[2 * 19999 + 1] = l.cand_ids[1];
        l.cand_ids[5] = 0; /* no id: all experts */
        lab_loss(&l, false);
        CU_ASSERT(memcmp(l.route.w, l.route.w + N, N * sizeof(float)) == 0);
        CU_ASSERT(memcmp(l.route.w, l.route.w + 19999 * N, N * sizeof(float)) == 0);
        for (int e = 0; e < N; e++)
            CU_ASSERT(l.route.w[2 * N + e] == 1 / (float)N);
    }
    lab_close(&l);
}

/* Unequal ids: buckets are spread over the experts by load, once, and then stay. */
static void test_hash_buckets_even_out_unequal_ids(void) {
    struct lab_size many = {2, 2, N, 4, 4000};
    struct lab l;
    if (CHECK_OK(
            lab_open(&l, "hash", "{\"input\":\"item\",\"buckets\":512,\"settle\":10}", many, 5))) {
        float before = 0, after, kept;
        for (int step = 0; step < 10; step++) {
            set_items(&l, 100 + (uint64_t)step, true);
            lab_step(&l, 0);
            before = maxvio(&l);
        }
        set_items(&l, 999, true);
        lab_loss(&l, false);
        after = maxvio(&l);
        kept = lab_field(&l, "table")[17];
        CU_ASSERT(kept >= 1 && kept <= N);
        if (!(after < 0.25f && after < 0.6f * before))
            printf("\n    MaxVio %g before, %g after\n", (double)before, (double)after);
        CU_ASSERT(after < 0.25f && after < 0.6f * before);
        set_items(&l, 7, false);
        for (int step = 0; step < 20; step++)
            lab_step(&l, 0);
        CU_ASSERT(lab_field(&l, "table")[17] == kept && lab_field(&l, "steps")[0] == 10);
    }
    lab_close(&l);
}

static void test_segments(void) {
    struct lab l;
    if (CHECK_OK(
            lab_open(&l, "segment", "{\"input\":\"segment\",\"values\":[10,20,40]}", size, 5))) {
        static const float segment[8] = {10, 20, 40, 30, NAN, 10, 20, 40};
        static const int expert[8] = {0, 1, 2, -1, -1, 0, 1, 2};
        for (int g = 0; g < 8; g++)
            l.query[2 * g + 1] = segment[g];
        lab_loss(&l, false);
        for (int r = 0; r < size.n_rows; r++)
            for (int e = 0; e < N; e++) {
                int want = expert[l.group[r]];
                CU_ASSERT(l.route.w[r * N + e] == (want < 0 ? 1 / (float)N : (float)(e == want)));
            }
    }
    lab_close(&l);
    if (CHECK_OK(lab_open(&l, "segment", "{\"input\":\"age\"}", size, 5))) {
        l.query[0] = -3; /* mod N, not below 0 */
        l.query[2] = 10.7f;
        lab_loss(&l, false);
        CU_ASSERT(l.route.w[5] == 1 && l.route.w[l.start[1] * N + 2] == 1);
    }
    lab_close(&l);
    CHECK_FAILS(lab_open(&l, "segment", "{\"input\":\"itm\"}", size, 5), STATUS_INVALID_ARGUMENT,
                "did you mean 'item'?");
    lab_close(&l);
    CHECK_FAILS(lab_open(&l, "hash", "{\"input\":\"colour\"}", size, 5), STATUS_INVALID_ARGUMENT,
                "no input 'colour'");
    lab_close(&l);
}

/* --- balance by assignment ----------------------------------------------------------------------
 */

/* The best sum of logits with at most `places` rows an expert, by trying all. */
static double best_sum(const float *h, int rows, int n, int places, int row, int *held) {
    double best = -1e9;
    if (row == rows)
        return 0;
    for (int e = 0; e < n; e++) {
        if (held[e] == places)
            continue;
        held[e]++;
        best = fmax(best, (double)h[row * n + e] + best_sum(h, rows, n, places, row + 1, held));
        held[e]--;
    }
    return best;
}
static void test_base_assignment(void) {
    struct lab_size few = {0, 3, 3, 1, 8};
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct lab l;
        if (CHECK_OK(lab_open(&l, "base_assign", "{\"step\":0.01,\"bias\":false}", few, seed))) {
            float h[24], low = INFINITY, high = -INFINITY;
            double sum = 0;
            int held[3] = {0}, none[3] = {0};
            lab_shake(&l, 1, seed);
            lab_loss(&l, true);
            for (int r = 0; r < 8; r++)
                for (int e = 0; e < 3; e++) {
                    h[r * 3 + e] = 0;
                    for (int i = 0; i < 3; i++)
                        h[r * 3 + e] += l.c[r * 3 + i] * lab_w(&l)[i * 3 + e];
                    low = fminf(low, h[r * 3 + e]);
                    high = fmaxf(high, h[r * 3 + e]);
                    if (l.route.w[r * 3 + e] == 0)
                        continue;
                    held[e]++;
                    sum += (double)h[r * 3 + e];
                    CU_ASSERT(fabsf(l.route.w[r * 3 + e] - 1 / (1 + expf(-h[r * 3 + e]))) < 1e-5f);
                }
            double best = best_sum(h, 8, 3, 3, 0, none);
            CU_ASSERT(held[0] <= 3 && held[1] <= 3 && held[2] <= 3);
            CU_ASSERT(sum <= best + 1e-4 && sum >= best - 8 * 0.01 * (double)(high - low) - 1e-4);
        }
        lab_close(&l);
    }
}

/* Balanced in training, the best expert in serving; finite at any size of the logits. */
static void test_balanced_in_training_only(void) {
    static const char *const kinds[] = {"base_assign", "sinkhorn"};
    static const float scales[] = {1, 100, 1e4f};
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 3; k++) {
            struct lab l;
            if (CHECK_OK(lab_open(&l, kinds[i], i ? "{\"iterations\":200}" : "{}", size, 5))) {
                for (int e = 0; e < N; e++)
                    lab_field(&l, "b")[e] = (float)(N - e) / 2;
                for (size_t p = 0; p < l.g.params.floats; p++)
                    lab_w(&l)[p] *= scales[k];
                lab_backward(&l, true);
                float training = maxvio(&l);
                for (size_t p = 0; p < l.g.params.floats; p++)
                    CU_ASSERT(isfinite(l.grad[p]));
                for (size_t p = 0; p < lab_route_floats(&l); p++)
                    CU_ASSERT(isfinite(l.route.w[p]));
                lab_loss(&l, false);
                /* at 1e4 the shifts would have far to go: finite is what counts */
                float most = i == 0 ? 1e-6f : k < 2 ? 0.5f : INFINITY;
                if (!(training < most && maxvio(&l) > 1))
                    printf("\n    %s, logits x %g: MaxVio %g in training, %g in serving\n",
                           kinds[i], (double)scales[k], (double)training, (double)maxvio(&l));
                CU_ASSERT(training < most);
                CU_ASSERT(maxvio(&l) > 1);
            }
            lab_close(&l);
        }
}

static void test_expert_choice_fills_experts(void) {
    struct lab l;
    if (CHECK_OK(lab_open(&l, "expert_choice", "{\"capacity\":1.5}", size, 5))) {
        for (int e = 0; e < N; e++)
            lab_field(&l, "b")[e] = 3 * (float)e;
        lab_loss(&l, false);
        for (int g = 0; g < size.n_groups; g++)
            for (int e = 0; e < N; e++) {
                int rows = l.start[g + 1] - l.start[g], taken = 0;
                float least = 2, most_left = -1;
                for (int r = l.start[g]; r < l.start[g + 1]; r++) {
                    float w = l.route.w[r * N + e];
                    taken += w != 0;
                    least = w != 0 ? fminf(least, w) : least;
                }
                CU_ASSERT(taken == (int)fmin(rows, ceil(1.5 * rows / N)));
                CU_ASSERT(least > most_left);
            }
    }
    lab_close(&l);
}

/* --- dselectk -----------------------------------------------------------------------------------
 */

#define TOY 64
/* Outputs of n experts are fixed; the target is a mixture of two of them. Returns how many experts
 * are left, and the weights. */
static int settle(const char *settings, int n, const float *target, uint64_t seed, float *weights) {
    struct lab_size small = {0, 3, n, 1, TOY};
    struct lab l;
    struct rng r;
    float y[TOY][8], t[TOY] = {0};
    int left = 0;
    rng_init(&r, 11);
    if (!CHECK_OK(lab_open(&l, "dselectk", settings, small, seed)))
        return 0;
    l.share = 1;
    for (int i = 0; i < TOY; i++)
        for (int e = 0; e < n; e++) {
            y[i][e] = (float)rng_normal(&r);
            t[i] += target[e] * y[i][e];
        }
    for (int step = 0; step < 6000; step++) {
        lab_loss(&l, true);
        for (int i = 0; i < TOY; i++) {
            float error = -t[i];
            for (int e = 0; e < n; e++)
                error += l.route.w[i * n + e] * y[i][e];
            for (int e = 0; e < n; e++)
                l.pull[0][i * n + e] = error * y[i][e] / TOY;
        }
        lab_step(&l, 0.1f);
    }
    lab_loss(&l, false);
    for (int e = 0; e < n; e++)
        left += (weights[e] = l.route.w[e]) != 0;
    lab_close(&l);
    return left;
}
static void test_dselectk_settles_on_k(void) {
    static const float eight[8] = {0, 0, 0, 0.7f, 0, 0.3f, 0, 0}, five[5] = {0, 0.6f, 0, 0, 0.4f};
    static const char *const fixed = "{\"per_example\":false,\"entropy_loss\":0.005}";
    float w[8];
    for (uint64_t seed = 1; seed <= 3; seed++) {
        CU_ASSERT(settle(fixed, 8, eight, seed, w) == 2);
        CU_ASSERT(fabsf(w[3] - 0.7f) < 0.05f && fabsf(w[5] - 0.3f) < 0.05f);
        /* three of eight numbers have no expert, and must not be chosen */
        CU_ASSERT(settle(fixed, 5, five, seed, w) == 2);
        CU_ASSERT(fabsf(w[1] - 0.6f) < 0.05f && fabsf(w[4] - 0.4f) < 0.05f);
    }
    /* by row, a strong entropy makes every row choose */
    CU_ASSERT(settle("{\"entropy_loss\":0.1}", 8, eight, 1, w) <= 2);
}

/* --- soft, smear --------------------------------------------------------------------------------
 */

static void test_slots_are_mixtures(void) {
    struct lab l;
    if (CHECK_OK(lab_open(&l, "soft", "{\"slots\":3,\"scale\":4}", size, 5))) {
        int slots = 3 * N;
        CU_ASSERT(l.g.n_slots == slots);
        lab_loss(&l, false);
        for (int r = 0; r < size.n_rows; r++) {
            float sum = 0;
            for (int j = 0; j < slots; j++)
                sum += l.route.combine[r * slots + j];
            CU_ASSERT(fabsf(sum - 1) < 1e-5f);
        }
        for (int g = 0; g < size.n_groups; g++)
            for (int j = 0; j < slots && l.start[g] < l.start[g + 1]; j++) {
                float sum = 0;
                for (int r = l.start[g]; r < l.start[g + 1]; r++)
                    sum += l.route.dispatch[r * slots + j];
                CU_ASSERT(fabsf(sum - 1) < 1e-5f);
            }
    }
    lab_close(&l);
}

static void test_blends_see_the_query_only(void) {
    struct lab l;
    if (CHECK_OK(lab_open(&l, "smear", "{}", size, 5))) {
        float *w = l.d.w;
        CU_ASSERT(l.g.params.floats == (size_t)((size.dq + 1) * N));
        lab_loss(&l, false);
        memcpy(w, l.route.w, lab_route_floats(&l) * sizeof *w);
        for (int g = 0; g < size.n_groups; g++)
            CU_ASSERT(fabsf(row_sum(&l, g) - 1) < 1e-5f);
        memset(l.c, 0, sizeof(float) * (size_t)(size.n_rows * size.dc));
        lab_loss(&l, false);
        CU_ASSERT(memcmp(w, l.route.w, lab_route_floats(&l) * sizeof *w) == 0);
        l.q[0] += 1;
        lab_loss(&l, false);
        CU_ASSERT(memcmp(w, l.route.w, N * sizeof *w) != 0);
        CU_ASSERT(memcmp(w + N, l.route.w + N, N * sizeof *w) == 0);
    }
    lab_close(&l);
    struct lab_size deep = {0, 4, N, 8, 256};
    if (CHECK_OK(lab_open(&l, "smear", "{}", deep, 5))) {
        CU_ASSERT(l.g.params.floats == N); /* a constant of the gate */
        lab_loss(&l, false);
        CU_ASSERT(l.route.w[0] == 0.125f);
    }
    lab_close(&l);
    CHECK_FAILS(lab_open(&l, "smear", "{\"bias\":false}", deep, 5), STATUS_INVALID_ARGUMENT,
                "bias");
    lab_close(&l);
}

SUITE("moe_gate_kinds", TEST(test_orders_of_softmax_and_choice), TEST(test_group_limits),
      TEST(test_expert_dropout), TEST(test_dropout_of_many_experts),
      TEST(test_jitter_multiplies_inputs), TEST(test_cosine_sees_angles_only),
      TEST(test_hash_is_balanced), TEST(test_hash_buckets_even_out_unequal_ids),
      TEST(test_segments), TEST(test_base_assignment), TEST(test_balanced_in_training_only),
      TEST(test_expert_choice_fills_experts), TEST(test_dselectk_settles_on_k),
      TEST(test_slots_are_mixtures), TEST(test_blends_see_the_query_only))
