/* The ReLU gate's controller on a task: experts are fixed linear functions, the router learns to
 * mix them towards a teacher that uses a few per row. The share of zeros must settle at its target
 * without a dead layer, from any reasonable start; the controller's arithmetic is checked alone. */
#include "tests/support/moe_gate_lab.h"

#define N 16
static const struct lab_size size = {3, 5, N, 32, 256};

/* --- the task -----------------------------------------------------------------------------------
 */

struct task {
    float expert[N][8], teacher[N][8]; /* what experts say; when the teacher listens to them */
};
static void task_open(struct task *t, uint64_t seed) {
    struct rng r;
    rng_init(&r, seed);
    for (int e = 0; e < N; e++)
        for (int i = 0; i < 8; i++) {
            t->expert[e][i] = (float)rng_normal(&r);
            t->teacher[e][i] = (float)rng_normal(&r) / 3;
        }
}
static float dot8(const struct lab *l, int row, const float *w) {
    float sum = 0;
    for (int i = 0; i < 3; i++)
        sum += w[i] * l->q[l->group[row] * 3 + i];
    for (int i = 0; i < 5; i++)
        sum += w[3 + i] * l->c[row * 5 + i];
    return sum;
}
/* Loss of the route as it stands; sets the pull: d loss / d w. */
static double task_loss(struct lab *l, const struct task *t) {
    double loss = 0;
    for (int r = 0; r < l->size.n_rows; r++) {
        float say[N], error = 0, most = -INFINITY;
        for (int e = 0; e < N; e++)
            most = fmaxf(most, dot8(l, r, t->teacher[e]));
        for (int e = 0; e < N; e++) {
            say[e] = dot8(l, r, t->expert[e]);
            error += say[e] * l->route.w[r * N + e];
            error -= say[e] * fmaxf(0, dot8(l, r, t->teacher[e]) - most + 0.7f);
        }
        loss += (double)error * (double)error / 2 / l->size.n_rows;
        for (int e = 0; e < N; e++)
            l->pull[0][r * N + e] = error * say[e] / (float)l->size.n_rows;
    }
    return loss;
}

/* --- training -----------------------------------------------------------------------------------
 */

struct trace {
    double loss[2], sparsity,
        worst; /* loss at the start and end; mean and worst of the last steps */
    float lambda[5], lambda_low, lambda_high, zero_rows, dead_experts;
};
static struct trace train(struct lab *l, const struct task *t, int steps, float rate) {
    struct trace out = {.lambda_low = INFINITY};
    float *buffers = lab_buffers(l), used[N] = {0}, count[N];
    float target = 1 - 4.0f / N;
    l->share = 1;
    for (int step = 0; step < steps; step++) {
        lab_redraw(l, 1000 + (uint64_t)step);
        lab_loss(l, true);
        double loss = task_loss(l, t);
        out.loss[0] += step < 20 ? loss / 20 : 0;
        lab_step(l, rate);
        if (step % (steps / 5) == steps / 5 - 1)
            out.lambda[step / (steps / 5)] = buffers[0];
        if (step < steps - 200)
            continue;
        lab_loads(l, count);
        for (int e = 0; e < N; e++)
            used[e] += count[e];
        out.loss[1] += loss / 200;
        out.sparsity += (double)buffers[1] / 200;
        out.worst = fmax(out.worst, fabs((double)(buffers[1] - target)));
        out.zero_rows = fmaxf(out.zero_rows, buffers[2]);
        out.lambda_low = fminf(out.lambda_low, buffers[0]);
        out.lambda_high = fmaxf(out.lambda_high, buffers[0]);
        CU_ASSERT(buffers[3] == 0); /* no alarm */
    }
    for (int e = 0; e < N; e++)
        out.dead_experts += used[e] == 0;
    CU_ASSERT(out.dead_experts < N && lab_field(l, "sparsity")[0] < 1); /* no dead layer */
    return out;
}
static void print_trace(const char *what, const struct trace *t) {
    printf("\n    %s: loss %.3f -> %.3f, zeros %.4f (target 0.75, worst step off by %.4f), rows "
           "without %.3f, dead experts %g, lambda",
           what, t->loss[0], t->loss[1], t->sparsity, t->worst, (double)t->zero_rows,
           (double)t->dead_experts);
    for (int i = 0; i < 5; i++)
        printf(" %.2e", (double)t->lambda[i]);
}

static void settles(const char *settings, uint64_t seed) {
    struct lab l;
    struct task t;
    task_open(&t, 3);
    if (CHECK_OK(lab_open(&l, "relu", settings, size, seed))) {
        struct trace trace = train(&l, &t, 3000, 0.05f);
        print_trace(settings, &trace);
        CU_ASSERT(fabs(trace.sparsity - 0.75) < 0.01);
        CU_ASSERT(trace.loss[1] < 0.5 * trace.loss[0]);
        CU_ASSERT(trace.zero_rows < 0.1f);
        CU_ASSERT(trace.worst < 0.06);
        CU_ASSERT(trace.lambda_high < 1);   /* far from its limit */
        CU_ASSERT(trace.dead_experts <= 2); /* an expert may die, the layer may not */
    }
    lab_close(&l);
}
static void test_sparsity_settles_at_its_target(void) {
    settles("{\"k\":4}", 5);
    settles("{\"k\":4}", 6);
    settles("{\"k\":4,\"band\":0,\"look_ahead\":0}", 5);
    settles("{\"k\":4,\"balance\":false}", 5);
    settles("{\"k\":4,\"lambda\":1e-16}", 5);
    settles("{\"k\":4,\"lambda\":0.01}", 5);
    printf("\n    ");
}

/* Standardised inputs and no bias: half of all logits are positive whatever the router does, so
 * the target is out of reach; lambda stops at its limit and the alarm is raised. */
static void test_without_bias_the_alarm_is_raised(void) {
    struct lab l;
    if (CHECK_OK(lab_open(&l, "relu", "{\"k\":4,\"bias\":false,\"lambda\":0.1}", size, 5))) {
        l.pull_scale = 0;
        for (int step = 0; step < 100; step++) {
            lab_redraw(&l, 1000 + (uint64_t)step);
            lab_step(&l, 0);
        }
        CU_ASSERT(fabsf(lab_field(&l, "sparsity")[0] - 0.5f) < 0.05f);
        CU_ASSERT(lab_field(&l, "lambda")[0] == 10 && lab_field(&l, "alarm")[0] == 1);
    }
    lab_close(&l);
}

/* --- the controller alone -----------------------------------------------------------------------
 */

static void step_with(struct lab *l, float active, float rows, float without) {
    float stats[3] = {active, rows, without};
    l->g.ops->after_step(&l->g, stats, lab_buffers(l));
}
/* The paper's rule. */
static void test_controller_arithmetic(void) {
    struct lab l;
    if (CHECK_OK(lab_open(&l, "relu",
                          "{\"k\":4,\"lambda\":1e-4,\"alpha\":1.25,\"band\":0,\"look_ahead\":0}",
                          size, 5))) {
        float *b = lab_buffers(&l);
        CU_ASSERT_DOUBLE_EQUAL((double)b[0], 1e-4, 1e-10);
        step_with(&l, 8 * 100, 100, 0); /* half zero: too few */
        CU_ASSERT_DOUBLE_EQUAL((double)b[0], 1.25e-4, 1e-10);
        CU_ASSERT_DOUBLE_EQUAL((double)b[1], 0.5, 1e-6);
        step_with(&l, 4 * 100, 100, 0); /* equal counts as above */
        CU_ASSERT_DOUBLE_EQUAL((double)b[0], 1e-4, 1e-10);
        step_with(&l, 2 * 100, 100, 0);
        CU_ASSERT_DOUBLE_EQUAL((double)b[0], 0.8e-4, 1e-10);
        CU_ASSERT(b[3] == 0);
        step_with(&l, 2 * 100, 100, 60); /* most rows without an expert */
        CU_ASSERT(b[2] == 0.6f && b[3] == 1);
        step_with(&l, 4 * 100, 100, 0);
        CU_ASSERT(b[2] == 0 && b[3] == 0);
        step_with(&l, 0, 100, 100); /* a dead layer */
        CU_ASSERT(b[1] == 1 && b[3] == 1);
        for (int i = 0; i < 3000; i++)
            step_with(&l, 0, 100, 100);
        CU_ASSERT(b[0] > 0); /* not stuck at zero */
        for (int i = 0; i < 3000; i++)
            step_with(&l, N * 100, 100, 0);
        CU_ASSERT(isfinite(b[0]));
    }
    lab_close(&l);
}

/* Looking ahead, it brakes before the target; within the band it moves by less. */
static void test_controller_looks_ahead(void) {
    struct lab l;
    if (CHECK_OK(lab_open(&l, "relu",
                          "{\"k\":4,\"lambda\":1,\"alpha\":1.25,\"band\":0.1,\"look_ahead\":50}",
                          size, 5))) {
        float *b = lab_buffers(&l), before;
        step_with(&l, 8 * 100, 100, 0);
        CU_ASSERT_DOUBLE_EQUAL((double)b[0], 1.25, 1e-6);
        step_with(&l, 8 * 100, 100, 0); /* standing still, far off */
        CU_ASSERT_DOUBLE_EQUAL((double)b[0], 1.25 * 1.25, 1e-6);
        for (int i = 1; i <= 20; i++) /* half a point a step: in 50 steps far beyond */
            step_with(&l, (8 - 0.08f * (float)i) * 100, 100, 0);
        before = b[0];
        step_with(&l, (8 - 0.08f * 21) * 100, 100, 0);
        CU_ASSERT(b[1] < 0.65f && b[0] < before);
        CU_ASSERT_DOUBLE_EQUAL((double)lab_field(&l, "speed")[0], 0.005, 0.003);
        for (int i = 0; i < 300; i++)
            step_with(&l, 4 * 100, 100, 0); /* at the target, at rest: nothing moves */
        before = b[0];
        step_with(&l, 4 * 100, 100, 0);
        CU_ASSERT_DOUBLE_EQUAL((double)b[0], (double)before, 1e-5 * (double)before);
    }
    lab_close(&l);
}

/* A gate that gives no row anything comes back, and without the pull it never does. */
static float share_of_lost_rows(const char *settings) {
    struct lab l;
    float lost = NAN;
    if (CHECK_OK(lab_open(&l, "relu", settings, size, 5))) {
        float *b = lab_field(&l, "b");
        for (int e = 0; e < N; e++)
            b[e] = -6;
        l.share = 1;
        l.pull_scale = 0;
        for (int step = 0; step < 400; step++) {
            lab_redraw(&l, 1000 + (uint64_t)step);
            lab_step(&l, 1);
            if (step == 0)
                CU_ASSERT(lab_field(&l, "zero_rows")[0] == 1 && lab_field(&l, "alarm")[0] == 1);
        }
        lost = lab_field(&l, "zero_rows")[0];
        CU_ASSERT(lab_field(&l, "alarm")[0] == (lost > 0.5f));
    }
    lab_close(&l);
    return lost;
}
static void test_a_dead_layer_comes_back(void) {
    CU_ASSERT(share_of_lost_rows("{\"k\":4,\"revive\":0.2}") < 0.2f);
    CU_ASSERT(share_of_lost_rows("{\"k\":4,\"revive\":0}") == 1);
}

/* The trace: all steps while they fit, then every other, every fourth, ...; the last point is near
 * the end, and each says what the buffers said at its step. */
static void test_trace_of_lambda(void) {
    struct lab l;
    if (CHECK_OK(lab_open(&l, "relu", "{\"k\":4,\"lambda\":1e-4,\"band\":0,\"look_ahead\":0}", size,
                          5))) {
        const float *trace = lab_field(&l, "trace"), *traced = lab_field(&l, "traced");
        float lambda[1001], sparsity[1001];
        for (int step = 1; step <= 1000; step++) {
            step_with(&l, (float)(100 * (2 + step % 5)), 100, (float)(step % 7));
            lambda[step] = lab_field(&l, "lambda")[0];
            sparsity[step] = lab_field(&l, "sparsity")[0];
            CU_ASSERT(traced[0] <= 64);
            if (step <= 64)
                CU_ASSERT(traced[0] == (float)step);
            float stride = lab_field(&l, "stride")[0];
            for (int i = 0; i < (int)traced[0]; i++) {
                int at = (int)trace[4 * i];
                CU_ASSERT(trace[4 * i] == (float)i * stride + 1);
                CU_ASSERT(trace[4 * i + 1] == lambda[at] && trace[4 * i + 2] == sparsity[at]);
                CU_ASSERT(trace[4 * i + 3] == (float)(at % 7) / 100);
            }
            CU_ASSERT((float)step - trace[4 * ((int)traced[0] - 1)] < stride);
        }
        CU_ASSERT(traced[0] > 32 && lab_field(&l, "stride")[0] == 16);
    }
    lab_close(&l);
}

static void test_statistics_and_penalty(void) {
    struct lab l;
    if (CHECK_OK(lab_open(&l, "relu", "{\"k\":4,\"lambda\":0.5}", size, 5))) {
        float active = 0, without = 0, load[N];
        double penalty = 0;
        lab_w(&l)[0] = 3;
        lab_loss(&l, false);
        CU_ASSERT(l.aux == 0);
        lab_backward(&l, true);
        lab_loads(&l, load);
        for (int r = 0; r < size.n_rows; r++) {
            int any = 0;
            for (int e = 0; e < N; e++) {
                float w = l.route.w[r * N + e];
                any |= w > 0;
                active += w > 0;
                penalty += 0.5 * (double)(w * load[e]) * N / (4.0 * size.n_rows) / size.n_rows;
            }
            without += !any;
        }
        CU_ASSERT(l.stats[0] == active && l.stats[1] == (float)size.n_rows &&
                  l.stats[2] == without);
        CU_ASSERT_DOUBLE_EQUAL(l.aux, 0.5 * penalty, 1e-5 * penalty); /* share 0.5 */
    }
    lab_close(&l);
}

SUITE("moe_gate_relu", TEST(test_sparsity_settles_at_its_target),
      TEST(test_without_bias_the_alarm_is_raised), TEST(test_controller_arithmetic),
      TEST(test_controller_looks_ahead), TEST(test_a_dead_layer_comes_back),
      TEST(test_trace_of_lambda), TEST(test_statistics_and_penalty))
