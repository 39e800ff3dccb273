/* loss.c: losses in forms that cannot overflow; cross-entropy is max(z, 0) - y z + log(1 + e^-|z|).
 * Sums are in double; the caller's scale holds task weights and normalisers. */
#include "moe/train/loss.h"
#include <math.h>
#include <stddef.h>

/* One row of one task: the loss, and its slope by z. */
struct point {
    double loss;
    float slope;
};

static float sigmoid(float z) {
    float e = expf(-fabsf(z));
    return z >= 0 ? 1 / (1 + e) : e / (1 + e);
}

static struct point bce(float z, float y) {
    double soft = (double)fmaxf(z, 0) + (double)log1pf(expf(-fabsf(z)));
    return (struct point){isnan(z) ? (double)NAN : soft - (double)y * (double)z, sigmoid(z) - y};
}

/* y (1-p)^g (-log p) + (1-y) p^g (-log(1-p)) */
static struct point focal(float z, float y, double gamma) {
    double p = (double)sigmoid(z), q = (double)sigmoid(-z);
    double log_p = -(double)log1pf(expf(-fabsf(z))) + (z < 0 ? (double)z : 0);
    double log_q = log_p - (double)z, pg = pow(p, gamma), qg = pow(q, gamma);
    double loss = -(double)y * qg * log_p - (1 - (double)y) * pg * log_q;
    double up = qg * (gamma * p * log_p - q), down = pg * (p - gamma * q * log_q);
    return (struct point){loss, (float)((double)y * up + (1 - (double)y) * down)};
}

static struct point huber(float z, float y, float delta) {
    float d = z - y;
    if (fabsf(d) <= delta)
        return (struct point){0.5 * (double)d * (double)d, d};
    return (struct point){(double)delta * ((double)fabsf(d) - 0.5 * (double)delta),
                          d > 0 ? delta : -delta};
}

static struct point point_of(const struct moe_loss_conf *c, float z, float y) {
    float smooth = (float)c->smooth;
    switch ((enum moe_loss_kind)c->kind) {
    case MOE_LOSS_FOCAL:
        return focal(z, y + smooth * (0.5f - y), c->gamma);
    case MOE_LOSS_MSE:
        return huber(z, y, INFINITY);
    case MOE_LOSS_HUBER:
        return huber(z, y, c->delta > 0 ? (float)c->delta : INFINITY);
    case MOE_LOSS_BCE:
    case MOE_LOSS_LISTWISE:
        break;
    }
    return bce(z, y + smooth * (0.5f - y));
}

void moe_loss_labels(const struct moe_loss_conf *c, double *low, double *high) {
    *low = moe_loss_is_probability(c) ? 0 : -INFINITY;
    *high = c->kind == MOE_LOSS_BCE || c->kind == MOE_LOSS_FOCAL ? 1 : INFINITY;
}

/* --- a slate
 * --------------------------------------------------------------------------------------- */

/* Rows from..to of one task, stride `tasks`: n (logsumexp z - sum share_i z_i). */
static double slate(int from, int to, size_t tasks, const float *z, const float *y,
                    const float *weight, float *dz, float scale) {
    double sum = 0, gain = 0, mean = 0;
    float most = -INFINITY;
    int n = 0;
    for (int r = from; r < to; r++) {
        size_t i = (size_t)r * tasks;
        if (isnan(y[i]))
            continue;
        most = isnan(z[i]) ? NAN : fmaxf(most, z[i]);
        gain += (double)y[i];
        n++;
    }
    if (gain <= 0)
        return 0;
    double w = (double)n * (double)(weight ? weight[from] : 1);
    for (int r = from; r < to; r++) {
        size_t i = (size_t)r * tasks;
        if (isnan(y[i]))
            continue;
        sum += exp((double)z[i] - (double)most);
        mean += (double)y[i] / gain * (double)z[i];
    }
    for (int r = from; dz && r < to; r++) {
        size_t i = (size_t)r * tasks;
        if (!isnan(y[i]))
            dz[i] =
                scale * (float)(w * (exp((double)z[i] - (double)most) / sum - (double)y[i] / gain));
    }
    return w * ((double)most + log(sum) - mean);
}

static double slates(int rows, size_t tasks, const float *z, const float *y, const float *weight,
                     const int *group, float *dz, float scale) {
    double sum = 0;
    for (int r = 0; dz && r < rows; r++)
        dz[(size_t)r * tasks] = 0;
    for (int from = 0, to; from < rows; from = to) {
        for (to = from + 1; to < rows && group && group[to] == group[from]; to++)
            ;
        sum += slate(from, to, tasks, z, y, weight, dz, scale);
    }
    return sum;
}

/* --- one after another
 * ------------------------------------------------------------------------------------------- */

float moe_loss_joint(float first, float then) { return first == 0 ? 0 : first * then; }

static double log_sigmoid(double z) { return z < 0 ? z - log1p(exp(z)) : -log1p(exp(-z)); }

/* log((1 - p) / p) of p = sigmoid(a) sigmoid(b): the log of e^-a + e^-b + e^-(a + b) */
static double log_odds_against(double a, double b) {
    double most = fmax(fmax(-a, -b), -a - b);
    return most + log(exp(-a - most) + exp(-b - most) + exp(-a - b - most));
}

/* Cross-entropy of the product; the slopes by both logits are sigmoid(-z) ((1-y) p / (1-p) - y). */
static double product(double a, double b, double y, double slope[2]) {
    double log_p = log_sigmoid(a) + log_sigmoid(b), against = log_odds_against(a, b);
    slope[0] = (1 - y) * exp(log_sigmoid(-a) - against) - y * exp(log_sigmoid(-a));
    slope[1] = (1 - y) * exp(log_sigmoid(-b) - against) - y * exp(log_sigmoid(-b));
    return -log_p - (1 - y) * against;
}

/* Task t after task u: adds to dz of both. */
static double products(int rows, size_t tasks, size_t u, size_t t, const float *z, const float *y,
                       const float *weight, float *dz, float scale) {
    double sum = 0, slope[2];
    for (size_t r = 0; r < (size_t)rows; r++) {
        const size_t at = r * tasks;
        const float joint = moe_loss_joint(y[at + u], y[at + t]);
        if (isnan(joint))
            continue;
        const double w = weight ? (double)weight[r] : 1;
        sum += w * product((double)z[at + u], (double)z[at + t], (double)joint, slope);
        if (!dz)
            continue;
        dz[at + u] += (float)((double)scale * w * slope[0]);
        dz[at + t] += (float)((double)scale * w * slope[1]);
    }
    return sum;
}

/* --- all
 * ------------------------------------------------------------------------------------------- */

static double points(int rows, size_t tasks, const struct moe_loss_conf *c, const float *z,
                     const float *y, const float *weight, float *dz, float scale) {
    double sum = 0;
    for (size_t r = 0; r < (size_t)rows; r++) {
        size_t i = r * tasks;
        if (isnan(y[i])) {
            if (dz)
                dz[i] = 0;
            continue;
        }
        float w = weight ? weight[r] : 1;
        struct point p = point_of(c, z[i], y[i]);
        sum += (double)w * p.loss;
        if (dz)
            dz[i] = scale * w * p.slope;
    }
    return sum;
}

double moe_loss_tasks(int rows, int tasks, const struct moe_loss_conf *loss, const float *logits,
                      const float *labels, const float *weight, const int *group,
                      const float *scale, float *dlogits, double *each) {
    static const struct moe_loss_conf plain = {.kind = MOE_LOSS_BCE};
    double sum = 0;
    size_t T = (size_t)tasks;
    for (size_t t = 0; t < T; t++) {
        const struct moe_loss_conf *c = loss ? &loss[t] : &plain;
        float *dz = dlogits ? dlogits + t : NULL;
        if (c->after) { /* when all others are there to be added to */
            for (size_t r = 0; dz && r < (size_t)rows; r++)
                dz[r * T] = 0;
            continue;
        }
        double one = c->kind == MOE_LOSS_LISTWISE
                         ? slates(rows, T, logits + t, labels + t, weight, group, dz, scale[t])
                         : points(rows, T, c, logits + t, labels + t, weight, dz, scale[t]);
        sum += (double)scale[t] * one;
        if (each)
            each[t] = one;
    }
    for (size_t t = 0; loss && t < T; t++) {
        if (!loss[t].after)
            continue;
        double one = products(rows, T, (size_t)loss[t].after - 1, t, logits, labels, weight,
                              dlogits, scale[t]);
        sum += (double)scale[t] * one;
        if (each)
            each[t] = one;
    }
    return sum;
}

double moe_loss_bce(int rows, int tasks, const float *logits, const float *labels,
                    const float *weight, const float *scale, float *dlogits) {
    return moe_loss_tasks(rows, tasks, NULL, logits, labels, weight, NULL, scale, dlogits, NULL);
}
