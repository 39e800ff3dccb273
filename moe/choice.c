/* choice.c: picking k of n, and limits on who may be picked and by how many. Choices have no
 * gradient; what is made of them belongs to the gates. */
#include "moe/choice.h"
#include <math.h>
#include <string.h>
#include "moe/balance.h"

/* --- picking ------------------------------------------------------------------------------------
 */

void moe_top(int k, int n, const float *score, int *pick) {
    int have = 0;
    for (int e = 0; e < n; e++) {
        int at = have < k ? have++ : k;
        for (; at > 0 && score[e] > score[pick[at - 1]]; at--)
            if (at < k)
                pick[at] = pick[at - 1];
        if (at < k)
            pick[at] = e;
    }
}

enum status moe_groups_check(const struct moe_groups_conf *c, int k, int n,
                             struct conf_place place) {
    if (c->n == 0 || n == 1)
        return STATUS_OK;
    if (n % c->n)
        return fail(STATUS_INVALID_ARGUMENT,
                    "%s: %s.groups: %d experts do not fall into %d equal groups", place.file,
                    place.section, n, (int)c->n);
    if (c->kept > c->n || k > c->kept * (n / c->n))
        return fail(STATUS_INVALID_ARGUMENT,
                    "%s: %s.groups_kept: %d of %d groups of %d experts hold no %d choices",
                    place.file, place.section, (int)c->kept, (int)c->n, n / (int)c->n, k);
    return STATUS_OK;
}

void moe_choice_bind(int k, int n, const struct moe_plan *plan, struct moe_work *work,
                     struct moe_choice *s) {
    s->pick = moe_work_take_int(work, (size_t)plan->rows_max * (size_t)k);
    s->score = moe_work_take(work, (size_t)n);
    s->group_pick = moe_work_take_int(work, (size_t)n);
    s->count = moe_work_take(work, (size_t)n);
    s->order = moe_work_take_bytes(work, (size_t)plan->rows_max * sizeof *s->order);
}

/* Scores of the groups that do not take part become -inf. */
static void mask_groups(const struct moe_groups_conf *c, int k, int n, struct moe_choice *s) {
    int groups = (int)c->n, kept = (int)c->kept, each = n / groups;
    int best = k / kept > 1 ? k / kept : 1;
    for (int g = 0; g < groups; g++) {
        moe_top(best, each, s->score + g * each, s->group_pick);
        float sum = 0;
        for (int j = 0; j < best; j++)
            sum += s->score[g * each + s->group_pick[j]];
        s->count[g] = sum;
    }
    moe_top(kept, groups, s->count, s->group_pick);
    for (int j = 0; j < kept; j++)
        s->count[s->group_pick[j]] = INFINITY;
    for (int e = 0; e < n; e++)
        if (s->count[e / each] != INFINITY)
            s->score[e] = -INFINITY;
}

void moe_choice_pick(const struct moe_groups_conf *groups, int rows, int k, int n,
                     const float *score, struct moe_choice *s) {
    for (int r = 0; r < rows; r++) {
        const float *row = score + (size_t)r * (size_t)n;
        if (groups && groups->n > 0 && n > 1) {
            memcpy(s->score, row, (size_t)n * sizeof *row);
            mask_groups(groups, k, n, s);
            row = s->score;
        }
        moe_top(k, n, row, s->pick + (size_t)r * (size_t)k);
    }
}

void moe_choice_softmax(int k, const float *h, const int *pick, float *v) {
    float sum = 0;
    for (int j = 0; j < k; j++) {
        float x = h[pick[j]];
        v[j] = moe_withheld(x) ? 0 : expf(x - h[pick[0]]);
        sum += v[j];
    }
    for (int j = 0; j < k; j++)
        v[j] /= sum;
}

/* --- capacity -----------------------------------------------------------------------------------
 */

void moe_capacity_shape(struct moe_gate *g, const struct moe_capacity_conf *c) {
    if (c->factor > 0 && c->in == MOE_CAPACITY_ALWAYS)
        g->flags |= MOE_GATE_MIXES_ROWS;
}

static void sift(uint64_t *v, int at, int n) {
    for (int child; (child = 2 * at + 1) < n; at = child) {
        child += child + 1 < n && v[child + 1] > v[child];
        if (v[at] >= v[child])
            return;
        uint64_t t = v[at];
        v[at] = v[child];
        v[child] = t;
    }
}
void moe_sort_keys(uint64_t *v, int n) {
    for (int i = n / 2 - 1; i >= 0; i--)
        sift(v, i, n);
    for (int i = n - 1; i > 0; i--) {
        uint64_t t = v[0];
        v[0] = v[i];
        v[i] = t;
        sift(v, 0, i);
    }
}

/* order [rows]: row indices as the low halves of keys, in the order they are served. */
static void serve_order(bool by_weight, int from, int rows, int picked, int n, const int *pick,
                        const float *w, uint64_t *order) {
    for (int i = 0; i < rows; i++) {
        size_t r = (size_t)(from + i);
        uint32_t bits = 0;
        if (by_weight) /* weights are not negative, so their bits are ordered as they are */
            memcpy(&bits, &w[r * (size_t)n + (size_t)pick[r * (size_t)picked]], sizeof bits);
        order[i] = (uint64_t)~bits << 32 | (uint32_t)r;
    }
    if (by_weight)
        moe_sort_keys(order, rows);
}

static void limit_scope(const struct moe_capacity_conf *c, int from, int rows, int k, int picked,
                        int n, struct moe_choice *s, float *w) {
    float most = ceilf((float)(c->factor * k * rows / n));
    serve_order(c->priority == MOE_PRIORITY_WEIGHT, from, rows, picked, n, s->pick, w, s->order);
    memset(s->count, 0, (size_t)n * sizeof *s->count);
    for (int j = 0; j < k; j++)
        for (int i = 0; i < rows; i++) {
            size_t r = (uint32_t)s->order[i];
            int e = s->pick[r * (size_t)picked + (size_t)j];
            float *weight = &w[r * (size_t)n + (size_t)e];
            if (*weight == 0)
                continue;
            if (s->count[e] >= most)
                *weight = 0;
            else
                s->count[e] += 1;
        }
}

void moe_choice_limit(const struct moe_capacity_conf *c, const struct moe_rows *x, bool training,
                      int k, int picked, int n, struct moe_choice *s, float *w) {
    if (c->factor <= 0 || (c->in == MOE_CAPACITY_TRAINING && !training))
        return;
    if (c->in == MOE_CAPACITY_TRAINING) {
        limit_scope(c, 0, x->n_rows, k, picked, n, s, w);
        return;
    }
    for (int from = 0, to; from < x->n_rows; from = to) {
        to = moe_rows_group_end(x, from);
        limit_scope(c, from, to - from, k, picked, n, s, w);
    }
}
