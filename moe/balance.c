/* balance.c: loads and the losses over them. Plain loops: n is small, and rows are read once. */
#include "moe/balance.h"
#include <math.h>

void moe_load_count(int n, const int *pick, float *c) {
    for (int i = 0; i < n; i++)
        if (pick[i] >= 0)
            c[pick[i]] += 1;
}

void moe_load_shares(int n, const float *count, float *f) {
    double sum = 0;
    for (int e = 0; e < n; e++)
        sum += (double)count[e];
    for (int e = 0; e < n; e++)
        f[e] = sum > 0 ? (float)((double)count[e] / sum) : 0;
}

float moe_load_maxvio(int n, const float *count) {
    double sum = 0, most = 0;
    for (int e = 0; e < n; e++) {
        sum += (double)count[e];
        most = (double)count[e] > most ? (double)count[e] : most;
    }
    return sum > 0 ? (float)(most * n / sum - 1) : 0;
}

double moe_load_loss(int rows, int n, const float *f, const float *p) {
    double sum = 0;
    for (int r = 0; r < rows; r++)
        for (int e = 0; e < n; e++)
            sum += (double)f[e] * (double)p[(size_t)r * (size_t)n + (size_t)e];
    return rows ? sum * n / rows : 0;
}
void moe_load_loss_grad(int rows, int n, const float *f, double a, float *dp) {
    float scale = rows ? (float)(a * n / rows) : 0;
    for (int r = 0; r < rows; r++)
        for (int e = 0; e < n; e++)
            dp[(size_t)r * (size_t)n + (size_t)e] += scale * f[e];
}

static void sums(int n, const double *x, double *sum, double *squares) {
    *sum = *squares = 0;
    for (int e = 0; e < n; e++) {
        *sum += x[e];
        *squares += x[e] * x[e];
    }
}
double moe_cv2(int n, const double *x) {
    double sum, squares;
    sums(n, x, &sum, &squares);
    return sum > 0 ? n * squares / (sum * sum) - 1 : 0;
}
void moe_cv2_grad(int n, const double *x, double a, double *dx) {
    double sum, squares;
    sums(n, x, &sum, &squares);
    for (int e = 0; e < n; e++)
        dx[e] = sum > 0 ? a * 2 * n * (x[e] / (sum * sum) - squares / (sum * sum * sum)) : 0;
}

static double logsumexp(int n, const float *h) {
    float most = h[0];
    double sum = 0;
    for (int e = 1; e < n; e++)
        most = h[e] > most ? h[e] : most;
    for (int e = 0; e < n; e++)
        sum += (double)expf(h[e] - most);
    return (double)most + log(sum);
}
double moe_z_loss(int rows, int n, const float *h) {
    double sum = 0;
    for (int r = 0; r < rows; r++) {
        double z = logsumexp(n, h + (size_t)r * (size_t)n);
        sum += z * z;
    }
    return rows ? sum / rows : 0;
}
void moe_z_loss_grad(int rows, int n, const float *h, double a, float *dh) {
    for (int r = 0; r < rows; r++) {
        size_t at = (size_t)r * (size_t)n;
        double z = logsumexp(n, h + at);
        for (int e = 0; e < n; e++)
            dh[at + (size_t)e] += (float)(2 * a / rows * z * exp((double)h[at + (size_t)e] - z));
    }
}

size_t moe_load_shape(struct moe_gate *g, const struct moe_load_conf *c) {
    if (c->aux == 0 || c->over != MOE_LOAD_STEP)
        return 0;
    g->n_stats = g->n_experts;
    int field = moe_layout_add(&g->buffers, "load", 1, g->n_experts, MOE_INIT_ZERO, 0);
    return g->buffers.f[field].at;
}
void moe_load_choose(const struct moe_load_conf *c, int n, const float *count, const float *load,
                     float *f) {
    moe_load_shares(n, count, f);
    if (c->over != MOE_LOAD_STEP)
        return;
    float seen = 0;
    for (int e = 0; e < n; e++)
        seen += load[e];
    for (int e = 0; e < n && seen > 0; e++) /* before the first step: this pass's */
        f[e] = load[e];
}
void moe_load_after_step(int n, const float *stats, float *load) {
    float seen = 0;
    for (int e = 0; e < n; e++)
        seen += stats[e];
    if (seen > 0)
        moe_load_shares(n, stats, load);
}
