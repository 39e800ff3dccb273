/* task_balance.c: how the factors move. Both rules are slow on purpose: a batch's loss is noise. */
#include "moe/train/task_balance.h"
#include <assert.h>
#include <math.h>

#define UNCERTAINTY_RATE 0.01
#define GRADNORM_RATE    0.02
#define FACTOR_MAX       100.0

void moe_task_balance_init(struct moe_task_balance *b, int kind, int n, double alpha) {
    assert(n <= MOE_BALANCE_TASKS_MAX);
    *b = (struct moe_task_balance){.kind = kind, .n = n, .alpha = alpha};
    for (int t = 0; t < n; t++) {
        b->factor[t] = 1;
        b->first[t] = NAN;
    }
}

static void normalise(struct moe_task_balance *b) {
    double sum = 0;
    for (int t = 0; t < b->n; t++) {
        b->factor[t] = fmin(fmax(b->factor[t], 1 / FACTOR_MAX), FACTOR_MAX);
        sum += b->factor[t];
    }
    for (int t = 0; t < b->n; t++)
        b->factor[t] *= b->n / sum;
}

/* d/ds of e^-s L + s / 2 */
static void uncertainty(struct moe_task_balance *b, const double *loss) {
    for (int t = 0; t < b->n; t++) {
        if (isfinite(loss[t]))
            b->s[t] -= UNCERTAINTY_RATE * (0.5 - exp(-b->s[t]) * loss[t]);
        b->factor[t] = exp(-b->s[t]);
    }
}

static void gradnorm(struct moe_task_balance *b, const double *loss, const double *norm) {
    double speed[MOE_BALANCE_TASKS_MAX], speeds = 0, norms = 0;
    int n = 0;
    for (int t = 0; t < b->n; t++) {
        speed[t] = NAN;
        if (!isfinite(loss[t]) || !(norm[t] > 0) || !isfinite(norm[t]))
            continue;
        if (isnan(b->first[t]))
            b->first[t] = fmax(loss[t], 1e-9);
        speed[t] = loss[t] / b->first[t];
        speeds += speed[t];
        norms += norm[t];
        n++;
    }
    for (int t = 0; t < b->n && n > 1 && speeds > 0; t++)
        if (!isnan(speed[t])) {
            double target = norms / n * pow(speed[t] * n / speeds, b->alpha);
            b->factor[t] *= pow(target / norm[t], GRADNORM_RATE);
        }
}

void moe_task_balance_step(struct moe_task_balance *b, const double *loss, const double *norm) {
    switch ((enum moe_balance)b->kind) {
    case MOE_BALANCE_FIXED:
        return;
    case MOE_BALANCE_UNCERTAINTY:
        uncertainty(b, loss);
        break;
    case MOE_BALANCE_GRADNORM:
        gradnorm(b, loss, norm);
        break;
    }
    normalise(b);
}
