/* recalibrate.c: the fits, and where their results go. Newton's method on two parameters with a
 * step that must lower the loss; pool adjacent violators on rows sorted by logit. */
#include "moe/train/recalibrate.h"
#include <math.h>
#include <stdlib.h>
#include "base/heap.h"

#define NEWTON_STEPS   50
#define BLOCK_ROWS_MIN 30.0 /* rows that a point of the polyline stands for, at least */

/* --- temperature and Platt -----------------------------------------------------------------------
 */

struct slopes {
    double loss, a, b, aa, ab, bb;
};

static struct slopes slopes_at(int n, const float *z, const float *y, const float *weight, double a,
                               double b) {
    struct slopes s = {0};
    for (int i = 0; i < n; i++) {
        if (isnan(y[i]))
            continue;
        double x = (double)z[i], w = weight ? (double)weight[i] : 1, t = a * x + b;
        double e = exp(-fabs(t)), p = t >= 0 ? 1 / (1 + e) : e / (1 + e), d = p - (double)y[i];
        double h = w * p * (1 - p);
        s.loss += w * (fmax(t, 0) - (double)y[i] * t + log1p(e));
        s.a += w * d * x;
        s.b += w * d;
        s.aa += h * x * x;
        s.ab += h * x;
        s.bb += h;
    }
    return s;
}

/* Newton's direction, kept well-defined by a small ridge. */
static void direction(const struct slopes *s, bool with_bias, double *da, double *db) {
    double aa = s->aa + 1e-9, bb = s->bb + 1e-9, det = aa * bb - s->ab * s->ab;
    if (!with_bias || det <= 1e-12 * aa * bb) {
        *da = -s->a / aa;
        *db = 0;
        return;
    }
    *da = -(bb * s->a - s->ab * s->b) / det;
    *db = -(aa * s->b - s->ab * s->a) / det;
}

static bool both_classes(int n, const float *y) {
    float low = INFINITY, high = -INFINITY;
    for (int i = 0; i < n; i++) {
        low = y[i] < low ? y[i] : low;
        high = y[i] > high ? y[i] : high;
    }
    return high > low;
}

bool moe_fit_platt(int n, const float *z, const float *y, const float *weight, bool with_bias,
                   double *a, double *b) {
    double best_a = 1, best_b = 0;
    *a = 1;
    *b = 0;
    if (!both_classes(n, y))
        return false;
    struct slopes s = slopes_at(n, z, y, weight, best_a, best_b);
    for (int i = 0; i < NEWTON_STEPS; i++) {
        double da, db, step = 1;
        direction(&s, with_bias, &da, &db);
        struct slopes next = slopes_at(n, z, y, weight, best_a + da, best_b + db);
        while (!(next.loss <= s.loss) && step > 1e-4) {
            step /= 2;
            next = slopes_at(n, z, y, weight, best_a + step * da, best_b + step * db);
        }
        if (!(next.loss <= s.loss))
            break;
        best_a += step * da;
        best_b += step * db;
        bool still = s.loss - next.loss <= 1e-12 * (1 + s.loss);
        s = next;
        if (still)
            break;
    }
    if (!(best_a > 0.01 && best_a < 100) || !isfinite(best_b)) /* no order to keep */
        return false;
    *a = best_a;
    *b = best_b;
    return true;
}

bool moe_fit_level(int n, const float *z, const float *y, const float *weight, double a,
                   double *b) {
    double low = -100, high = 100;
    *b = 0;
    if (!both_classes(n, y))
        return false;
    while (high - low > 1e-9) { /* the mean grows with b */
        double mid = (low + high) / 2;
        struct slopes s = slopes_at(n, z, y, weight, a, mid);
        if (s.b > 0)
            high = mid;
        else
            low = mid;
    }
    *b = (low + high) / 2;
    return true;
}

/* --- isotonic ------------------------------------------------------------------------------------
 */

struct point {
    float z, y, w;
};
static int by_logit(const void *a, const void *b) {
    const struct point *x = a, *y = b;
    return (x->z > y->z) - (x->z < y->z);
}

struct block {
    double z, y, w, rows; /* sums, weighted; rows: how many */
};
static double rate(const struct block *b) { return b->y / b->w; }
static void join(struct block *to, const struct block *from) {
    to->z += from->z;
    to->y += from->y;
    to->w += from->w;
    to->rows += from->rows;
}

/* Blocks of rows with rates that rise strictly; returns how many. */
static int pool(const struct point *p, int n, double rows_min, struct block *out) {
    int k = 0;
    for (int i = 0; i < n; i++) {
        struct block one = {(double)p[i].z * (double)p[i].w, (double)p[i].y * (double)p[i].w,
                            (double)p[i].w, 1};
        bool open = k && out[k - 1].rows < rows_min;
        if (open || (i && p[i].z == p[i - 1].z))
            join(&out[k - 1], &one);
        else
            out[k++] = one;
        bool full = out[k - 1].rows >= rows_min && (i + 1 == n || p[i + 1].z != p[i].z);
        while (full && k > 1 && rate(&out[k - 1]) <= rate(&out[k - 2])) {
            join(&out[k - 2], &out[k - 1]);
            k--;
        }
    }
    while (k > 1 && (out[k - 1].rows < rows_min || rate(&out[k - 1]) <= rate(&out[k - 2]))) {
        join(&out[k - 2], &out[k - 1]);
        k--;
    }
    return k;
}

int moe_fit_isotonic(int n, const float *z, const float *y, const float *weight, float *x,
                     float *logit) {
    struct point *p = HEAP_ARRAY(struct point, n + 1);
    struct block *blocks = HEAP_ARRAY(struct block, n + 1);
    int m = 0, k = 0;
    for (int i = 0; i < n; i++)
        if (!isnan(y[i]) && (!weight || weight[i] > 0))
            p[m++] = (struct point){z[i], y[i], weight ? weight[i] : 1};
    qsort(p, (size_t)m, sizeof *p, by_logit);
    double rows_min = fmax(BLOCK_ROWS_MIN, (double)m / MOE_KNOTS);
    if (both_classes(n, y))
        k = pool(p, m, rows_min, blocks);
    for (int i = 0; i < k; i++) {
        double r = (rate(&blocks[i]) * blocks[i].rows + 0.5) / (blocks[i].rows + 1);
        x[i] = (float)(blocks[i].z / blocks[i].w);
        logit[i] = (float)log(r / (1 - r));
        if (i && !(x[i] > x[i - 1] && logit[i] > logit[i - 1])) { /* rounding, smoothing */
            logit[i] = nextafterf(logit[i - 1], INFINITY);
            x[i] = x[i] > x[i - 1] ? x[i] : nextafterf(x[i - 1], INFINITY);
        }
    }
    heap_free(p);
    heap_free(blocks);
    return k;
}

/* --- a model -------------------------------------------------------------------------------------
 */

/* logit = a logit + b, in the numbers of the tower's last layer and the wide part. */
static void fold(struct moe_model *m, int task, double a, double b) {
    const struct moe_tower *t = &m->towers[task];
    float *w = moe_params_at(&m->params, m->params.v, t->tensor, 0);
    int last = t->mlp.n_layers - 1;
    for (int i = 0; i < t->mlp.width[last]; i++)
        w[t->mlp.w[last] + (size_t)i] *= (float)a;
    w[t->mlp.b[last]] = (float)((double)w[t->mlp.b[last]] * a + b);
    if (m->wide_tensor < 0)
        return;
    const struct moe_layout *l = &m->params.t[m->wide_tensor].layout;
    float *wide = moe_params_at(&m->params, m->params.v, m->wide_tensor, 0);
    for (int f = 0; f < l->n; f++)
        for (int r = 0; r < l->f[f].rows; r++)
            wide[l->f[f].at + (size_t)r * (size_t)m->n_tasks + (size_t)task] *= (float)a;
}

/* One task's z and y [n_all]. */
static void recalibrate_task(struct moe_model *m, int t, int n, int n_all, const float *z,
                             const float *y, const float *weight) {
    double a, b;
    if (m->calibrate == MOE_CALIBRATE_ISOTONIC) {
        float *v = moe_params_at(&m->params, m->params.v, m->calibrate_tensor, t);
        v[0] = (float)moe_fit_isotonic(n, z, y, weight, v + 1, v + 1 + MOE_KNOTS);
        return;
    }
    if (!moe_fit_platt(n, z, y, weight, m->calibrate != MOE_CALIBRATE_TEMPERATURE, &a, &b))
        return;
    if (m->calibrate == MOE_CALIBRATE_PLATT_ALL)
        moe_fit_level(n_all, z, y, weight, a, &b);
    fold(m, t, a, b);
}

void moe_recalibrate(struct moe_model *m, int n, int n_all, const float *logits,
                     const float *labels, const float *weight) {
    float *z = HEAP_ARRAY(float, n_all + 1), *y = HEAP_ARRAY(float, n_all + 1);
    for (int t = 0; t < m->n_tasks; t++) {
        if (!moe_loss_is_probability(&m->task_loss[t]))
            continue;
        for (int i = 0; i < n_all; i++) {
            z[i] = logits[(size_t)i * (size_t)m->n_tasks + (size_t)t];
            y[i] = labels[(size_t)i * (size_t)m->n_tasks + (size_t)t];
            y[i] = y[i] > 1 ? 1 : y[i]; /* graded relevance: any is one */
        }
        recalibrate_task(m, t, n, n_all, z, y, weight);
    }
    heap_free(z);
    heap_free(y);
}
