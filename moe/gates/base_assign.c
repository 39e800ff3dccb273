/* base_assign.c: BASE layers (Lewis et al., ICML 2021): in training every expert gets the same
 * number of rows, by the assignment that maximises the sum of h; in serving a row takes its best
 * expert. The weight is a = sigmoid(h_e) in both. (The paper blends a f(x) + (1 - a) x, which needs
 * outputs as wide as inputs; a wide term or shared experts take the place of x.) Balanced training
 * and greedy serving differ: watch the loads in serving.
 *
 * Assignment by auction (Bertsekas 1981): a row without a place bids for the expert of greatest
 * h - price, by as much as its second best is worse, plus a little; a full expert drops its lowest
 * bid, and what then is its lowest is its price. The sum is within rows * step of the best. */
#include <math.h>
#include <string.h>
#include "moe/balance.h"
#include "moe/choice.h"
#include "moe/router.h"

struct conf {
    struct moe_router_conf router;
    double step;
};
static const struct conf_item items[] = {
    CONF_FLOAT(struct conf, step, "step", "0.02", 0.0001, 1, NULL,
               "least raise of a bid, as a share of the range of the logits"),
    MOE_ROUTER_ITEMS(struct conf, router), CONF_END};

struct saved {
    struct moe_router router;
    int *expert;  /* [rows] */
    float *bid;   /* [n x places]: a heap each, the lowest first */
    int *who;     /* the same: the bids' rows */
    int *held;    /* [n] bids in the heap */
    int *waiting; /* [rows] rows without a place, a stack */
};

/* Bids that end an auction early: rows still waiting then take what is free. */
#define BIDS_PER_ROW 64

static enum status shape(struct moe_gate *g, struct conf_place place, struct arena *a) {
    const struct conf *c = g->conf;
    (void)place;
    (void)a;
    moe_router_shape(g, &c->router, g->n_experts);
    return STATUS_OK;
}

static void *bind(const struct moe_gate *g, const struct moe_plan *plan, struct moe_work *work) {
    const struct conf *c = g->conf;
    struct saved s = {0}, *out = moe_work_take_bytes(work, sizeof s);
    size_t rows = (size_t)plan->rows_max, n = (size_t)g->n_experts;
    moe_router_bind(&c->router, g->dq, g->in, g->n_experts, plan, work, &s.router);
    s.expert = moe_work_take_int(work, rows);
    if (plan->training) {
        s.bid = moe_work_take(work, rows + n);
        s.who = moe_work_take_int(work, rows + n);
        s.held = moe_work_take_int(work, n);
        s.waiting = moe_work_take_int(work, rows);
    }
    if (out)
        *out = s;
    return out;
}

static void swap(float *bid, int *who, int a, int b) {
    float t = bid[a];
    int r = who[a];
    bid[a] = bid[b];
    who[a] = who[b];
    bid[b] = t;
    who[b] = r;
}
static void push(float *bid, int *who, int n, float value, int row) {
    bid[n] = value;
    who[n] = row;
    for (int up; n > 0 && bid[n] < bid[up = (n - 1) / 2]; n = up)
        swap(bid, who, n, up);
}
/* Takes the lowest out; the heap had n. */
static int pop(float *bid, int *who, int n) {
    swap(bid, who, 0, --n);
    for (int at = 0, child; (child = 2 * at + 1) < n; at = child) {
        child += child + 1 < n && bid[child + 1] < bid[child];
        if (bid[at] <= bid[child])
            break;
        swap(bid, who, at, child);
    }
    return who[n];
}

/* The best expert for a row at the prices now, and what it would pay. */
static int best_offer(const struct saved *s, int n, int places, const float *h, float step,
                      float *pay) {
    float first = -INFINITY, second = -INFINITY;
    int best = 0;
    for (int e = 0; e < n; e++) {
        float price = s->held[e] < places ? 0 : s->bid[(size_t)e * (size_t)places];
        float value = h[e] - price;
        if (value > first) {
            second = first;
            first = value;
            best = e;
        } else if (value > second) {
            second = value;
        }
    }
    float price = s->held[best] < places ? 0 : s->bid[(size_t)best * (size_t)places];
    *pay = price + (n > 1 ? first - second : 0) + step;
    return best;
}

static float range_of(size_t n, const float *h) {
    float low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        low = h[i] < low && !moe_withheld(h[i]) ? h[i] : low;
        high = h[i] > high ? h[i] : high;
    }
    return high - low;
}

/* s->expert of all rows, no expert with more than ceil(rows / n). */
static void assign(const struct conf *c, int rows, int n, const float *h, struct saved *s) {
    int places = (rows + n - 1) / n, n_waiting = rows;
    int64_t bids = (int64_t)rows * BIDS_PER_ROW;
    float step = fmaxf((float)c->step * range_of((size_t)rows * (size_t)n, h), 1e-6f), pay;
    memset(s->held, 0, (size_t)n * sizeof *s->held);
    for (int i = 0; i < rows; i++)
        s->waiting[i] = rows - 1 - i;
    for (; n_waiting && bids; bids--) {
        int row = s->waiting[--n_waiting];
        int e = best_offer(s, n, places, h + (size_t)row * (size_t)n, step, &pay);
        float *bid = s->bid + (size_t)e * (size_t)places;
        int *who = s->who + (size_t)e * (size_t)places;
        if (s->held[e] == places)
            s->waiting[n_waiting++] = pop(bid, who, s->held[e]--);
        push(bid, who, s->held[e]++, pay, row);
        s->expert[row] = e;
    }
    while (n_waiting) {
        int row = s->waiting[--n_waiting], best = -1;
        const float *hr = h + (size_t)row * (size_t)n;
        for (int e = 0; e < n; e++)
            if (s->held[e] < places && (best < 0 || hr[e] > hr[best]))
                best = e;
        s->held[best]++;
        s->expert[row] = best;
    }
}

static void forward(const struct moe_gate *g, const struct moe_gate_io *io,
                    const struct moe_rows *x, struct moe_pass *pass, struct moe_route *route) {
    const struct conf *c = g->conf;
    struct saved *s = io->saved;
    int n = g->n_experts, rows = x->n_rows;
    moe_router_forward(&c->router, n, io->w, x, pass, &s->router);
    if (pass->training && rows)
        assign(c, rows, n, s->router.h, s);
    else
        for (int r = 0; r < rows; r++)
            moe_top(1, n, s->router.h + (size_t)r * (size_t)n, &s->expert[r]);
    moe_router_sigmoid(rows, n, s->router.h, route->w);
    for (int r = 0; r < rows; r++)
        for (int e = 0; e < n; e++)
            if (e != s->expert[r])
                route->w[(size_t)r * (size_t)n + (size_t)e] = 0;
}

static void backward(const struct moe_gate *g, const struct moe_gate_io *io,
                     const struct moe_rows *x, struct moe_pass *pass, const struct moe_route *route,
                     struct moe_route *d, float *dw, float *stats, const struct moe_rows_grad *dx) {
    const struct conf *c = g->conf;
    struct saved *s = io->saved;
    (void)stats;
    for (size_t i = 0; i < (size_t)x->n_rows * (size_t)g->n_experts; i++)
        d->w[i] = route->w[i] != 0 ? d->w[i] * route->w[i] * (1 - route->w[i]) : 0;
    moe_router_backward(&c->router, g->n_experts, io->w, x, pass, &s->router, d->w, dw, dx);
}

const struct moe_gate_ops moe_gate_base_assign = {
    .name = "base_assign",
    .doc = "equal loads by assignment in training, the best expert in serving (BASE, ICML 2021)",
    .kind = MOE_ROUTE_WEIGHTS,
    .flags = MOE_GATE_SPARSE | MOE_GATE_LINEAR,
    .items = items,
    .conf_bytes = sizeof(struct conf),
    .shape = shape,
    .bind = bind,
    .forward = forward,
    .backward = backward,
};
