/* Calibration: fits find the map that was there, keep the order, lower the error, survive a file.
 */
#include <math.h>
#include <unistd.h>
#include "moe/report/eval.h"
#include "moe/train/recalibrate.h"
#include "tests/support/moe_fixture.h"
#include "tests/support/suite.h"

enum { N = 20000 };
static float z[N], y[N];

/* Rows whose log-odds are f(z). */
static void draw(double (*f)(double)) {
    struct rng r;
    rng_init(&r, 3);
    for (int i = 0; i < N; i++) {
        z[i] = (float)(2 * rng_normal(&r));
        y[i] = rng_double(&r) < 1 / (1 + exp(-f((double)z[i])));
    }
}
static double line(double x) { return 0.6 * x - 1; }
static double scaled(double x) { return 1.7 * x; }
static double bent(double x) { return x < 0 ? 0.2 * x - 1 : 2 * x - 1; }

static void test_lines(void) {
    double a, b;
    draw(line);
    CU_ASSERT(moe_fit_platt(N, z, y, NULL, true, &a, &b));
    CU_ASSERT_DOUBLE_EQUAL(a, 0.6, 0.03);
    CU_ASSERT_DOUBLE_EQUAL(b, -1, 0.05);
    draw(scaled);
    CU_ASSERT(moe_fit_platt(N, z, y, NULL, false, &a, &b));
    CU_ASSERT_DOUBLE_EQUAL(a, 1.7, 0.05);
    CU_ASSERT_EQUAL(b, 0);
}

static void test_weights_and_gaps(void) {
    double a, b, a2, b2;
    static float weight[N], gaps[N];
    draw(line);
    for (int i = 0; i < N; i++) {
        weight[i] = i % 3 ? 1 : 0;
        gaps[i] = i % 3 ? y[i] : NAN;
    }
    moe_fit_platt(N, z, y, weight, true, &a, &b);
    moe_fit_platt(N, z, gaps, NULL, true, &a2, &b2);
    CU_ASSERT_DOUBLE_EQUAL(a, a2, 1e-6);
    CU_ASSERT_DOUBLE_EQUAL(b, b2, 1e-6);
}

static void test_nothing_to_fit(void) {
    double a, b;
    float x[MOE_KNOTS], l[MOE_KNOTS];
    for (int i = 0; i < N; i++)
        y[i] = 1;
    CU_ASSERT(!moe_fit_platt(N, z, y, NULL, true, &a, &b));
    CU_ASSERT(a == 1 && b == 0);
    CU_ASSERT_EQUAL(moe_fit_isotonic(N, z, y, NULL, x, l), 0);
    draw(line);
    for (int i = 0; i < N; i++)
        y[i] = 1 - y[i]; /* upside down: there is no order to keep */
    CU_ASSERT(!moe_fit_platt(N, z, y, NULL, true, &a, &b));
}

static void test_isotonic(void) {
    float x[MOE_KNOTS], l[MOE_KNOTS];
    draw(bent);
    int n = moe_fit_isotonic(N, z, y, NULL, x, l);
    CU_ASSERT(n > 5 && n <= MOE_KNOTS);
    for (int i = 1; i < n; i++)
        CU_ASSERT(x[i] > x[i - 1] && l[i] > l[i - 1]);
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) < 2)
            CU_ASSERT_DOUBLE_EQUAL((double)l[i], bent((double)x[i]), 0.45);
}

/* A model with random weights, labels drawn from a bend of its logits: calibrated outputs are
 * better, in the same order, and the same after save and load. */
static void check_model(const char *kind, double worse) {
    struct fixture f = {0};
    char spec[256], path[64];
    snprintf(spec, sizeof spec, "{\"calibrate\":\"%s\",\"wide\":true}", kind);
    fix_batch(&f, 6, 60, 2, 5);
    if (!CHECK_OK(fix_open(&f, spec, 2, 6)))
        return;
    float *logits = HEAP_ARRAY(float, N * 2), *labels = HEAP_ARRAY(float, N * 2);
    struct moe_pass pass = {.batch = &f.batch};
    struct rng r;
    rng_init(&r, 8);
    moe_forward(f.m, f.m->params.v, &f.batch, f.run, &pass, false);
    for (int i = 0; i < N * 2; i++) {
        logits[i] = f.run->logits[i % 120];
        labels[i] = rng_double(&r) < 1 / (1 + exp(-bent(2 * (double)logits[i])));
    }
    float before[120], raw[120], after[120], again[120];
    memcpy(raw, f.run->logits, sizeof raw);
    moe_outputs(f.m, 60, raw, before);
    moe_recalibrate(f.m, N, N, logits, labels, NULL);
    moe_model_stamp(f.m);
    CU_ASSERT(moe_outputs_good(f.m));
    moe_forward(f.m, f.m->params.v, &f.batch, f.run, &pass, false);
    moe_outputs(f.m, 60, f.run->logits, after);
    double loss[2] = {0, 0};
    for (int i = 0; i < N * 2; i++) {
        loss[0] -= log((double)(labels[i] > 0 ? before[i % 120] : 1 - before[i % 120]));
        loss[1] -= log((double)(labels[i] > 0 ? after[i % 120] : 1 - after[i % 120]));
    }
    CU_ASSERT(loss[1] < worse * loss[0]);
    for (int i = 0; i < 120; i++)
        for (int k = i % 2; k < 120; k += 2)
            CU_ASSERT(!(raw[i] > raw[k]) || after[i] >= after[k]);
    struct moe_model *loaded;
    snprintf(path, sizeof path, "/tmp/moe_recalibrate.%d", (int)getpid());
    CHECK_OK(moe_model_save(f.m, path));
    if (CHECK_OK(moe_model_load(path, &loaded))) {
        moe_outputs(loaded, 60, f.run->logits, again);
        CU_ASSERT(memcmp(after, again, sizeof after) == 0);
        moe_model_free(loaded);
    }
    if (f.m->calibrate_tensor >= 0) { /* a map that is none is refused */
        moe_params_at(&f.m->params, f.m->params.v, f.m->calibrate_tensor, 1)[0] = 1000;
        moe_model_stamp(f.m);
        CHECK_OK(moe_model_save(f.m, path));
        CHECK_FAILS(moe_model_load(path, &loaded), STATUS_DATA_LOSS, "isotonic");
    }
    unlink(path);
    heap_free(logits);
    heap_free(labels);
    fix_close(&f);
}
static void test_models(void) {
    check_model("temperature", 1.0);
    check_model("platt", 0.99);
    check_model("isotonic", 0.98);
    check_model("platt_all", 0.99);
}

/* The level is that of all rows: ten times as many, drawn higher, move it nearly all the way. */
static void test_level(void) {
    double a, b, level, mean = 0, rate = 0;
    draw(line);
    CU_ASSERT(moe_fit_platt(N, z, y, NULL, true, &a, &b));
    CU_ASSERT(moe_fit_level(N, z, y, NULL, a, &level));
    CU_ASSERT_DOUBLE_EQUAL(level, b, 1e-5); /* the same rows: nothing to add */
    for (int i = N / 11; i < N; i++)
        y[i] = y[i] > 0 || i % 3 == 0;
    CU_ASSERT(moe_fit_level(N, z, y, NULL, a, &level));
    for (int i = 0; i < N; i++) {
        mean += 1 / (1 + exp(-(a * (double)z[i] + level)));
        rate += (double)y[i];
    }
    CU_ASSERT(level > b + 0.1);
    CU_ASSERT_DOUBLE_EQUAL(mean, rate, 1e-5 * rate);
    for (int i = 0; i < N; i++)
        y[i] = 1;
    CU_ASSERT(!moe_fit_level(N, z, y, NULL, a, &level) && level == 0);
}

SUITE("moe_recalibrate", TEST(test_lines), TEST(test_weights_and_gaps), TEST(test_nothing_to_fit),
      TEST(test_isotonic), TEST(test_models), TEST(test_level))
