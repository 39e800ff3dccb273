/* forward.c: the model forward and backward, side by side: inputs, cross, levels, towers, wide. The
 * same code trains, predicts and is the reference of the packed scorers. */
#include <assert.h>
#include <string.h>
#include "moe/math/blas.h"
#include "moe/inputs.h"
#include "moe/linear.h"
#include "moe/model_impl.h"
#include "moe/math/vec.h"

static struct moe_run bind(const struct moe_model *m, const struct moe_plan *asked,
                           struct moe_work *work) {
    struct moe_run r = {.plan = *asked};
    const struct moe_plan *plan = &r.plan;
    size_t rows = (size_t)plan->rows_max, groups = (size_t)plan->groups_max, T = (size_t)m->n_tasks;
    size_t dq = (size_t)m->part[MOE_QUERY], dc = (size_t)m->part[MOE_CAND];
    bool train = plan->training;
    r.q = moe_work_take(work, groups * dq);
    r.c = moe_work_take(work, rows * dc);
    r.group = moe_work_take_int(work, rows);
    r.start = moe_work_take_int(work, groups + 1);
    moe_inputs_bind(m, &r.plan, &r, work);
    if (train && m->embed[MOE_QUERY].n)
        r.dx.q = moe_work_take(work, groups * dq);
    if (train && m->embed[MOE_CAND].n)
        r.dx.c = moe_work_take(work, rows * dc);
    r.cross = m->cross.n ? moe_cross_bind(&m->cross, plan, work) : NULL;
    r.levels = moe_work_take_bytes(work, (size_t)m->n_levels * sizeof *r.levels);
    for (int i = 0; i < m->n_levels; i++) {
        struct moe_level_state *s = moe_level_bind(&m->levels[i], plan, work);
        if (r.levels)
            r.levels[i] = s;
    }
    r.towers = moe_work_take_bytes(work, T * sizeof *r.towers);
    for (size_t t = 0; t < T; t++) {
        struct moe_mlp_saved *s = moe_mlp_bind(&m->towers[t].mlp, 0, plan, work);
        if (r.towers)
            r.towers[t] = s;
    }
    r.tower_out = moe_work_take(work, T * rows);
    r.logits = moe_work_take(work, rows * T);
    if (m->wide_tensor >= 0) {
        r.wide_qy = moe_work_take(work, moe_linear_scratch((int)groups, (int)dq, (int)T));
        r.wide_qdy = moe_work_take(work, moe_linear_scratch((int)groups, (int)dq, (int)T));
        r.wide = moe_work_take(work, rows * T);
    }
    if (train) {
        r.tower_dout = moe_work_take(work, T * rows);
        r.tower_din = moe_work_take(work, rows * (size_t)m->levels[m->n_levels - 1].out);
        r.dlogits = moe_work_take(work, rows * T);
    }
    if (m->attend.n)
        r.attend = moe_attend_bind(m, plan, work);
    if (train && m->position.n)
        r.position = moe_position_bind(m, plan, work);
    return r;
}

size_t moe_run_floats(const struct moe_model *m, const struct moe_plan *plan) {
    struct moe_work work = {0};
    moe_work_take_bytes(&work, sizeof(struct moe_run));
    bind(m, plan, &work);
    return work.used;
}

struct moe_run *moe_run_bind(const struct moe_model *m, const struct moe_plan *plan,
                             float *memory) {
    struct moe_work work = {.base = memory};
    struct moe_run *r = moe_work_take_bytes(&work, sizeof *r);
    *r = bind(m, plan, &work);
    return r;
}

/* --- towers and the wide part ---------------------------------------------------------------- */

static struct moe_rows tower_input(const struct moe_model *m, const struct moe_run *r, int t) {
    const struct moe_level *last = &m->levels[m->n_levels - 1];
    return (struct moe_rows){.n_rows = r->x.n_rows,
                             .n_groups = r->x.n_groups,
                             .dc = last->out,
                             .c = r->levels[m->n_levels - 1]->out[m->towers[t].module],
                             .group = r->group,
                             .start = r->start};
}

static void towers_forward(const struct moe_model *m, const struct moe_numbers *n,
                           struct moe_run *r, struct moe_pass *pass) {
    size_t T = (size_t)m->n_tasks, rows = (size_t)r->x.n_rows;
    for (size_t t = 0; t < T; t++) {
        const struct moe_tower *w = &m->towers[t];
        struct moe_rows in = tower_input(m, r, (int)t);
        float *y = r->tower_out + t * rows;
        moe_mlp_forward(&w->mlp, moe_numbers_value(n, w->tensor, 0), &in, r->towers[t], pass, y);
        for (size_t i = 0; i < rows; i++)
            r->logits[i * T + t] = y[i];
    }
    if (m->wide_tensor < 0)
        return;
    const float *w = moe_numbers_value(n, m->wide_tensor, 0);
    size_t b = m->params.t[m->wide_tensor].layout.f[1].at;
    moe_linear_forward(&r->x, w, w + b, (int)T, r->wide_qy, r->wide);
    moe_vec_add(rows * T, r->wide, r->logits);
}

static void towers_backward(const struct moe_model *m, const struct moe_numbers *n,
                            struct moe_run *r, struct moe_pass *pass) {
    size_t T = (size_t)m->n_tasks, rows = (size_t)r->x.n_rows;
    if (m->wide_tensor >= 0) {
        float *dw = moe_numbers_grad(n, m->wide_tensor, 0);
        size_t b = m->params.t[m->wide_tensor].layout.f[1].at;
        moe_linear_backward(&r->x, moe_numbers_value(n, m->wide_tensor, 0), (int)T, r->dlogits,
                            r->wide_qdy, dw, dw + b, &r->dx);
    }
    for (size_t t = T; t-- > 0;) {
        const struct moe_tower *w = &m->towers[t];
        struct moe_rows in = tower_input(m, r, (int)t);
        float *dout = r->levels[m->n_levels - 1]->dout[w->module], *dy = r->tower_dout + t * rows;
        size_t n_din = rows * (size_t)m->levels[m->n_levels - 1].out;
        struct moe_rows_grad din = {.c = pass->task_squares ? r->tower_din : dout};
        if (pass->task_squares)
            memset(r->tower_din, 0, n_din * sizeof(float));
        for (size_t i = 0; i < rows; i++)
            dy[i] = r->dlogits[i * T + t];
        moe_mlp_backward(&w->mlp, moe_numbers_value(n, w->tensor, 0), &in, r->towers[t], pass,
                         r->tower_out + t * rows, dy, moe_numbers_grad(n, w->tensor, 0), &din);
        if (pass->task_squares) {
            pass->task_squares[t] += moe_vec_sum_squares(n_din, r->tower_din);
            moe_vec_add(n_din, r->tower_din, dout);
        }
    }
}

/* --- the whole ------------------------------------------------------------------------------- */

void moe_forward(const struct moe_model *m, const float *v, const struct moe_batch *b,
                 struct moe_run *r, struct moe_pass *pass, bool q_ready) {
    struct moe_numbers n = {.p = &m->params, .v = v};
    int was = moe_gemm_set_exact(pass->exact);
    assert(b->n_rows <= r->plan.rows_max && b->n_groups <= r->plan.groups_max);
    moe_inputs_forward(m, v, b, r, pass->exact, q_ready);
    const struct moe_rows *x = &r->x;
    if (r->attend)
        moe_attend_forward(m, &n, b, r->group, r->attend, r->c);
    if (m->cross.n) {
        moe_cross_forward(&m->cross, moe_numbers_value(&n, m->cross_tensor, 0), x, r->cross,
                          &r->crossed);
        x = &r->crossed;
    }
    for (int i = 0; i < m->n_levels; i++)
        moe_level_forward(&m->levels[i], &n, x, i ? r->levels[i - 1] : NULL, r->levels[i], pass);
    towers_forward(m, &n, r, pass);
    if (r->position)
        moe_position_forward(m, &n, b, r->position, pass, r->logits);
    moe_gemm_set_exact(was);
}

static void clear_grads(const struct moe_model *m, struct moe_run *r) {
    size_t rows = (size_t)r->x.n_rows;
    moe_inputs_clear(m, r);
    for (int i = 0; i < m->n_levels; i++)
        for (int k = 0; k < m->levels[i].n_modules; k++)
            memset(r->levels[i]->dout[k], 0, rows * (size_t)m->levels[i].out * sizeof(float));
}

void moe_backward(const struct moe_model *m, const struct moe_numbers *n, const struct moe_batch *b,
                  struct moe_run *r, struct moe_pass *pass, struct moe_embed_grad *embed) {
    const struct moe_rows *x = m->cross.n ? &r->crossed : &r->x;
    struct moe_rows_grad dx = r->dx;
    clear_grads(m, r);
    if (m->cross.n)
        dx = moe_cross_grad(&m->cross, r->cross, r->x.n_rows);
    if (r->position)
        moe_position_backward(m, n, b->n_rows, r->position, pass, r->dlogits);
    towers_backward(m, n, r, pass);
    for (int i = m->n_levels - 1; i >= 0; i--)
        moe_level_backward(&m->levels[i], n, x, i ? r->levels[i - 1] : NULL, r->levels[i], pass,
                           &dx);
    if (m->cross.n)
        moe_cross_backward(&m->cross, moe_numbers_value(n, m->cross_tensor, 0), &r->x, r->cross,
                           moe_numbers_grad(n, m->cross_tensor, 0), &r->dx);
    if (r->attend)
        moe_attend_backward(m, n, b, r->group, r->attend, r->dx.c, embed);
    moe_inputs_backward(m, b, r, embed);
}
