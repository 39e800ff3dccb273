/* route_weights.c: routes of kind WEIGHTS. Each expert runs once, on the union of the rows its
 * gates send it: all rows when a gate is dense or most rows come anyway, else a gathered, compact
 * copy (a counting sort of rows by expert; rows stay in order). No capacity limits: a gate that
 * wants them zeroes weights. */
#include <string.h>
#include "moe/fold.h"
#include "moe/route_parts.h"
#include "moe/math/vec.h"

/* A gathered pass over more than this share of the rows costs more than the rows it saves. */
#define DENSE_FROM 0.8

/* The column of `expert` in gate u's route, -1: not used by it. */
static int column_of(const struct moe_gate_use *u, int expert) {
    for (int j = 0; u->gate.ops->kind == MOE_ROUTE_WEIGHTS && j < u->gate.n_experts; j++)
        if (u->experts[j] == expert)
            return j;
    return -1;
}

/* Experts go backwards one at a time: what they need then and only then is the same for all, or a
 * batch's gradients would push its activations out of the cache. */
static void lend(const struct moe_level *l, const struct moe_plan *plan, struct moe_work *work) {
    size_t most = 0;
    for (int i = 0; i < l->n_groups; i++) {
        struct moe_work count = {.lends = true};
        l->groups[i].expert.ops->bind(&l->groups[i].expert, plan, &count);
        most = count.lent_used > most ? count.lent_used : most;
    }
    work->lent = moe_work_take(work, most);
    work->lends = true;
}

void moe_route_weights_bind(const struct moe_level *l, const struct moe_plan *plan,
                            struct moe_route_state *s, struct moe_work *work) {
    size_t rows = (size_t)plan->rows_max;
    int widest = 0, any_sparse = 0;
    float *dy = plan->training ? moe_work_take(work, rows * (size_t)l->out) : NULL;
    lend(l, plan, work);
    s->expert = moe_work_take_bytes(work, (size_t)l->n_experts * sizeof *s->expert);
    for (int e = 0; e < l->n_experts; e++) {
        const struct moe_expert_group *g = moe_level_group(l, e);
        struct moe_route_expert x = {.sparse_ok = true};
        for (int i = 0; i < l->n_gates; i++) {
            if (column_of(&l->gates[i], e) < 0)
                continue;
            x.used = true;
            x.sparse_ok &= (l->gates[i].gate.flags & MOE_GATE_SPARSE) != 0;
        }
        if (x.used) {
            work->lent_used = 0;
            x.saved = g->expert.ops->bind(&g->expert, plan, work);
            x.y = moe_work_take(work, rows * (size_t)l->out);
            x.dy = dy;
            if (x.sparse_ok) {
                x.row = moe_work_take_int(work, rows);
                any_sparse = 1;
                widest = g->expert.in > widest ? g->expert.in : widest;
            }
        }
        if (s->expert)
            s->expert[e] = x;
    }
    work->lends = false;
    s->xc = any_sparse ? moe_work_take(work, rows * (size_t)widest) : NULL;
    s->dxc = any_sparse && plan->training ? moe_work_take(work, rows * (size_t)widest) : NULL;
    s->group = any_sparse ? moe_work_take_int(work, rows) : NULL;
    s->fold = any_sparse ? moe_work_take_int(work, rows * (size_t)plan->fold_fields) : NULL;
}

/* Lists the rows of expert e, or calls it dense. */
static void choose_rows(const struct moe_route_pass *p, int e) {
    struct moe_route_expert *x = &p->s->expert[e];
    int rows = p->x[0].n_rows;
    x->dense = !x->sparse_ok;
    x->n = rows;
    if (x->dense)
        return;
    memset(x->row, 0, (size_t)rows * sizeof *x->row);
    for (int i = 0; i < p->l->n_gates; i++) {
        int j = column_of(&p->l->gates[i], e), n = p->l->gates[i].gate.n_experts;
        if (j < 0)
            continue;
        const float *w = p->route[i].w + j;
        for (int r = 0; r < rows; r++)
            x->row[r] |= w[(size_t)r * (size_t)n] != 0;
    }
    int n = 0;
    for (int r = 0; r < rows; r++) {
        int wanted = x->row[r];
        x->row[n] = r;
        n += wanted;
    }
    x->n = n;
    /* statistics of a batch are those of the rows that are the expert's */
    const bool own = p->pass->training && moe_level_group(p->l, e)->buffer >= 0;
    x->dense = n > DENSE_FROM * rows && !p->pass->exact && !own;
    if (x->dense)
        x->n = rows;
}

/* The rows expert e runs on: all of its source, or its own gathered into the shared buffers. */
static struct moe_rows rows_of(const struct moe_route_pass *p, int e) {
    const struct moe_route_expert *x = &p->s->expert[e];
    const struct moe_rows *all = &p->x[moe_level_group(p->l, e)->source];
    struct moe_rows some = *all;
    size_t dc = (size_t)all->dc;
    some.q_ready = x->q_done;
    if (x->dense)
        return some;
    some.n_rows = x->n;
    some.c = p->s->xc;
    some.group = p->s->group;
    some.start = NULL;
    some.key = 0; /* the buffers are those of all experts */
    for (int i = 0; i < x->n; i++) {
        memcpy(p->s->xc + (size_t)i * dc, all->c + (size_t)x->row[i] * dc, dc * sizeof(float));
        p->s->group[i] = all->group[x->row[i]];
    }
    if (all->fold_c) {
        size_t n = (size_t)moe_fold_stride(&all->fold->part[1]);
        some.fold_c = p->s->fold;
        for (int i = 0; i < x->n; i++)
            memcpy(p->s->fold + (size_t)i * n, all->fold_c + (size_t)x->row[i] * n,
                   n * sizeof(int));
    }
    return some;
}

static void run_expert(const struct moe_route_pass *p, int e) {
    struct moe_route_expert *x = &p->s->expert[e];
    const struct moe_expert *ex = &moe_level_group(p->l, e)->expert;
    struct moe_rows rows = rows_of(p, e);
    moe_route_open_expert(p, e);
    ex->ops->forward(ex, moe_route_value(p, e), &rows, x->saved, p->pass, x->y);
    x->q_done = true;
}

/* Up to so many gates are mixed in one pass over an expert's output. */
#define TOGETHER 8

/* The next gates, from *gate on, that use expert e. */
struct users {
    int n, ldw[TOGETHER];
    const float *w[TOGETHER];
    float *dw[TOGETHER], *out[TOGETHER];
    const float *dout[TOGETHER];
};
static struct users next_users(const struct moe_route_pass *p, int e, int *gate) {
    struct users u = {0};
    for (; *gate < p->l->n_gates && u.n < TOGETHER; ++*gate) {
        const struct moe_gate_use *g = &p->l->gates[*gate];
        int j = column_of(g, e);
        if (j < 0)
            continue;
        u.ldw[u.n] = g->gate.n_experts;
        u.w[u.n] = p->route[*gate].w + j;
        if (p->out)
            u.out[u.n] = p->out[g->module];
        if (p->dout) {
            u.dout[u.n] = p->dout[g->module];
            u.dw[u.n] = p->droute[*gate].w + j;
        }
        u.n++;
    }
    return u;
}

static void mix_dense(const struct moe_route_pass *p, int e) {
    const struct moe_route_expert *x = &p->s->expert[e];
    for (int gate = 0; gate < p->l->n_gates;) {
        struct users u = next_users(p, e, &gate);
        moe_vec_mix_all(x->n, p->l->out, u.n, u.w, u.ldw, x->y, u.out);
    }
}

static void mix(const struct moe_route_pass *p, int e, int gate, int j) {
    const struct moe_route_expert *x = &p->s->expert[e];
    const struct moe_gate_use *u = &p->l->gates[gate];
    const float *w = p->route[gate].w + j;
    float *out = p->out[u->module];
    size_t n = (size_t)u->gate.n_experts, d = (size_t)p->l->out;
    for (int i = 0; i < x->n; i++) {
        float a = w[(size_t)x->row[i] * n];
        if (a != 0)
            moe_vec_axpy(d, a, x->y + (size_t)i * d, out + (size_t)x->row[i] * d);
    }
}

void moe_route_weights_forward(const struct moe_route_pass *p) {
    for (int e = 0; e < p->l->n_experts; e++) {
        struct moe_route_expert *x = &p->s->expert[e];
        if (!x->used)
            continue;
        choose_rows(p, e);
        x->q_done &= p->x[moe_level_group(p->l, e)->source].q_ready;
        if (x->n == 0)
            continue;
        run_expert(p, e);
        if (x->dense)
            mix_dense(p, e);
        for (int i = 0; i < p->l->n_gates && !x->dense; i++) {
            int j = column_of(&p->l->gates[i], e);
            if (j >= 0)
                mix(p, e, i, j);
        }
    }
}

/* If no user is a sparse gate, and there are few enough to set dy and not add to it. */
static bool unmix_dense(const struct moe_route_pass *p, int e) {
    const struct moe_route_expert *x = &p->s->expert[e];
    int gate = 0, n = 0;
    for (int i = 0; i < p->l->n_gates; i++) {
        const struct moe_gate_use *u = &p->l->gates[i];
        bool uses = column_of(u, e) >= 0;
        if (uses && (u->gate.flags & MOE_GATE_SPARSE))
            return false;
        n += uses;
    }
    if (n > TOGETHER)
        return false;
    struct users u = next_users(p, e, &gate);
    moe_vec_unmix_all(x->n, p->l->out, u.n, u.w, u.ldw, u.dout, x->y, u.dw, x->dy);
    return true;
}

/* dy += w dout; d->w = <dout, y>, and zero where a sparse gate's w is, even if the expert runs on
 * all rows for another gate. */
static void unmix(const struct moe_route_pass *p, int e, int gate, int j) {
    const struct moe_route_expert *x = &p->s->expert[e];
    const struct moe_gate_use *u = &p->l->gates[gate];
    const float *w = p->route[gate].w + j, *dout = p->dout[u->module];
    float *dw = p->droute[gate].w + j;
    size_t n = (size_t)u->gate.n_experts, d = (size_t)p->l->out;
    if (!(u->gate.flags & MOE_GATE_SPARSE)) { /* then the expert runs on all rows */
        moe_vec_mix(x->n, (int)d, w, (int)n, dout, x->dy);
        moe_vec_dots(x->n, (int)d, dout, x->y, dw, (int)n);
        return;
    }
    for (int i = 0; i < x->n; i++) {
        size_t r = x->dense ? (size_t)i : (size_t)x->row[i];
        float a = w[r * n];
        if (a == 0)
            continue;
        moe_vec_axpy(d, a, dout + r * d, x->dy + (size_t)i * d);
        dw[r * n] = moe_vec_dot(d, dout + r * d, x->y + (size_t)i * d);
    }
}

static void expert_backward(const struct moe_route_pass *p, int e) {
    struct moe_route_expert *x = &p->s->expert[e];
    const struct moe_expert_group *g = moe_level_group(p->l, e);
    struct moe_rows rows = rows_of(p, e);
    struct moe_rows_grad *dx = &p->dx[g->source], some = *dx;
    size_t dc = (size_t)rows.dc, from = (size_t)rows.c_from;
    bool scatter = !x->dense && dx->c;
    rows.q_ready = false; /* the forward pass's; backwards nothing stands ready */
    if (scatter) {
        some.c = p->s->dxc;
        memset(some.c, 0, (size_t)x->n * dc * sizeof(float));
    }
    moe_route_open_expert(p, e);
    g->expert.ops->backward(&g->expert, moe_route_value(p, e), &rows, x->saved, p->pass, x->y,
                            x->dy, moe_route_grad(p, e), &some);
    for (int i = 0; scatter && i < x->n; i++)
        moe_vec_add(dc - from, some.c + (size_t)i * dc + from,
                    dx->c + (size_t)x->row[i] * dc + from);
}

void moe_route_weights_backward(const struct moe_route_pass *p) {
    for (int i = 0; i < p->l->n_gates; i++) {
        const struct moe_gate *g = &p->l->gates[i].gate;
        if (g->ops->kind == MOE_ROUTE_WEIGHTS && (g->flags & MOE_GATE_SPARSE))
            memset(p->droute[i].w, 0,
                   (size_t)p->x[0].n_rows * (size_t)g->n_experts * sizeof(float));
    }
    for (int e = p->l->n_experts - 1; e >= 0; e--) {
        struct moe_route_expert *x = &p->s->expert[e];
        if (!x->used || x->n == 0)
            continue;
        const bool done = unmix_dense(p, e);
        if (!done)
            memset(x->dy, 0, (size_t)x->n * (size_t)p->l->out * sizeof(float));
        for (int i = 0; i < p->l->n_gates && !done; i++) {
            int j = column_of(&p->l->gates[i], e);
            if (j >= 0)
                unmix(p, e, i, j);
        }
        expert_backward(p, e);
    }
}
