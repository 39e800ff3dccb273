/* inputs.c: from a batch to rows. A part of the columns is folded when its tables are short against
 * the batch; then nothing is written out for it unless something reads rows itself. Never in exact
 * passes: folding changes the order of sums. */
#include "moe/inputs.h"
#include <stdatomic.h>
#include <string.h>

/* --- which columns may be folded
 * ------------------------------------------------------------------ */

static void fields_of(const struct moe_model *m, int side, struct moe_fold_part *p) {
    const struct moe_encode *e = &m->encode[side];
    const struct moe_embed_side *s = &m->embed[side];
    int at = 0, n = 0;
    for (int c = 0; c < e->columns; c++) {
        int bins = (int)e->column[c].n_edges + 1;
        if (e->at_quantile[c] < 0)
            continue;
        p->field[n++] = (struct moe_fold_field){.col = e->at_quantile[c], .rows = bins, .at = at};
        at += bins;
    }
    for (int c = 0; c < e->columns && p->n_shares; c++) {
        int bins = (int)e->column[c].n_edges + 1;
        if (e->at_ple[c] < 0)
            continue;
        p->field[n++] = (struct moe_fold_field){
            .col = e->at_ple[c], .dim = MOE_FOLD_SUMS, .rows = bins, .at = at};
        at += bins;
    }
    for (int i = s->n - m->fold_inputs[side]; i < s->n; i++) {
        int rows = (int)m->inputs.tables[s->input[i].table].rows;
        p->field[n++] = (struct moe_fold_field){
            .col = s->input[i].at, .dim = s->input[i].dim, .rows = rows, .at = at};
        at += rows;
    }
    p->p_rows = at + 1;
}

static int ple_fields(const struct moe_encode *e) {
    int n = 0;
    for (int c = 0; c < e->columns; c++)
        n += e->at_ple[c] >= 0;
    return n;
}

static struct moe_fold_part part_of(const struct moe_model *m, int side) {
    const struct moe_embed_side *s = &m->embed[side];
    const struct moe_encode *e = &m->encode[side];
    int k = m->fold_inputs[side], shares = moe_encode_ple_columns(e);
    return (struct moe_fold_part){.n = e->n_hot + ple_fields(e) + k,
                                  .n_shares = shares,
                                  .hot_from = shares ? moe_encode_ple_from(e) : e->hot_from,
                                  .hot_to = m->encode[side].width,
                                  .from = k ? s->input[s->n - k].at : m->part[side],
                                  .p_rows = 1};
}

/* Floats of the fields' tables, which are those of their gradients. */
static size_t table_floats(const struct moe_model *m, int side) {
    const struct moe_embed_side *s = &m->embed[side];
    size_t n = 0;
    for (int i = s->n - m->fold_inputs[side]; i < s->n; i++)
        n += (size_t)m->inputs.tables[s->input[i].table].rows * (size_t)s->input[i].dim;
    return n;
}
static int p_rows(const struct moe_model *m, int side) {
    const struct moe_embed_side *s = &m->embed[side];
    int n = 1 + m->encode[side].width;
    for (int i = s->n - m->fold_inputs[side]; i < s->n; i++)
        n += (int)m->inputs.tables[s->input[i].table].rows;
    return n;
}

void moe_inputs_bind(const struct moe_model *m, struct moe_plan *plan, struct moe_run *r,
                     struct moe_work *work) {
    int most = 0;
    for (int side = 0; side < MOE_SIDES && plan->fold >= 0; side++) {
        struct moe_fold_part p = part_of(m, side);
        size_t rows = (size_t)(side == MOE_QUERY ? plan->groups_max : plan->rows_max);
        p.field = moe_work_take_bytes(work, (size_t)p.n * sizeof *p.field);
        r->fold_index[side] = moe_work_take_int(work, rows * (size_t)moe_fold_stride(&p));
        r->dtable_floats += table_floats(m, side);
        most = p_rows(m, side) > most ? p_rows(m, side) : most;
        if (p.field)
            fields_of(m, side, &p);
        r->fold.part[side] = p;
    }
    plan->fold_fields = moe_fold_stride(&r->fold.part[MOE_CAND]);
    r->fold.p = moe_work_take(work, (size_t)most * MOE_FOLD_BLOCK);
    r->dtables = plan->training ? moe_work_take(work, r->dtable_floats) : NULL;
    float *d = r->dtables;
    for (int side = 0; side < MOE_SIDES && d; side++)
        for (int f = 0; f < r->fold.part[side].n; f++) {
            struct moe_fold_field *x = &r->fold.part[side].field[f];
            if (x->dim <= 0)
                continue;
            x->dtable = d;
            d += (size_t)x->rows * (size_t)x->dim;
        }
}

/* --- forward
 * --------------------------------------------------------------------------------------- */

/* Products of the whole tables and additions against plain products, in multiply-adds per column.
 */
static bool worth(const struct moe_fold_part *p, int rows) {
    double plain = 0, folded = 2.0 * (p->n + 2 * p->n_shares) * rows;
    for (int f = 0; f < p->n; f++) {
        const struct moe_fold_field *x = &p->field[f];
        plain += (double)(x->dim > 0 ? x->dim : x->rows) * rows;
        folded += (double)x->rows * (x->dim > 0 ? x->dim : 2);
    }
    return folded < 0.7 * plain;
}

/* One row's piecewise numbers: entries of the running sums, fields [hot, ..) of the part, then the
 * columns that have a share, then the shares. */
static void index_ple(const struct moe_encode *e, const float *row, const struct moe_fold_part *p,
                      int hot, int *at) {
    int field = hot, k = p->n;
    for (int c = 0; c < e->columns; c++) {
        struct moe_encode_short x;
        if (!moe_encode_ple(e, row, c, &x))
            continue;
        if (e->at_ple[c] >= 0) {
            at[field] = x.below < 0 ? p->p_rows - 1 : p->field[field].at + x.below;
            field++;
        }
        at[k] = x.output;
        memcpy(&at[k + p->n_shares], &x.share, sizeof x.share);
        k++;
    }
}

static void index_rows(const struct moe_model *m, int side, const float *v, const float *numbers,
                       const uint32_t *ids, int n, struct moe_fold_part *p, int *index) {
    const struct moe_encode *e = &m->encode[side];
    const struct moe_embed_side *s = &m->embed[side];
    int hot = e->n_hot, k = m->fold_inputs[side], absent = p->p_rows - 1, tables = p->n - k;
    for (int i = 0; i < k; i++)
        p->field[tables + i].table =
            v + m->params.t[m->table_tensor[s->input[s->n - k + i].table]].at;
    for (int r = 0; r < n; r++) {
        int *at = index + (size_t)r * (size_t)moe_fold_stride(p);
        if (p->n_shares)
            index_ple(e, numbers + (size_t)r * (size_t)e->columns, p, hot, at);
        if (hot)
            moe_encode_bins(e, numbers + (size_t)r * (size_t)e->columns, at);
        for (int i = 0; i < hot; i++)
            at[i] = at[i] < 0 ? absent : p->field[i].at + at[i];
        for (int i = 0; i < k; i++) {
            const struct moe_fold_field *f = &p->field[tables + i];
            uint32_t id = ids[(size_t)r * (size_t)s->slots + (size_t)s->input[s->n - k + i].slot];
            at[tables + i] = id ? f->at + (int)moe_embed_row(id, (uint32_t)f->rows) : absent;
        }
    }
}

/* One side's rows; returns whether it is folded. */
static bool fill(const struct moe_model *m, int side, const float *v, const float *numbers,
                 const uint32_t *ids, int n, struct moe_run *r, bool fold, float *x) {
    struct moe_embed_side s = m->embed[side];
    const struct moe_fold_part *part = &r->fold.part[side];
    fold =
        fold && (part->n || part->n_shares) && (r->plan.fold > 0 || worth(&r->fold.part[side], n));
    if (fold)
        index_rows(m, side, v, numbers, ids, n, &r->fold.part[side], r->fold_index[side]);
    if (fold && !m->write_out) {
        s.n -= m->fold_inputs[side];
        if (part->n_shares)
            moe_encode_rows_plain(&m->encode[side], numbers, n, x, m->part[side]);
        else
            moe_encode_rows_cold(&m->encode[side], numbers, n, x, m->part[side]);
    } else {
        moe_encode_rows(&m->encode[side], numbers, n, x, m->part[side]);
    }
    moe_embed_forward(&s, &m->params, v, m->table_tensor, ids, n, x, m->part[side]);
    return fold;
}

static void number_groups(const struct moe_batch *b, struct moe_run *r) {
    int g = 0;
    r->start[0] = 0;
    for (int i = 0; i < b->n_rows; i++) {
        int group = b->group ? b->group[i] - b->first_group : 0;
        r->group[i] = group;
        while (g < group)
            r->start[++g] = i;
    }
    while (g < b->n_groups)
        r->start[++g] = b->n_rows;
}

/* A number for each batch that is filled in, of all threads. */
static atomic_uint_fast64_t filled;

void moe_inputs_forward(const struct moe_model *m, const float *v, const struct moe_batch *b,
                        struct moe_run *r, bool exact, bool q_ready) {
    int dq = m->part[MOE_QUERY], dc = m->part[MOE_CAND];
    bool fold = !exact && !q_ready && r->plan.fold >= 0, folded[MOE_SIDES] = {false, false};
    number_groups(b, r);
    if (!q_ready && dq)
        folded[0] = fill(m, MOE_QUERY, v, b->query, b->query_ids, b->n_groups, r, fold, r->q);
    folded[1] = fill(m, MOE_CAND, v, b->cand, b->cand_ids, b->n_rows, r, fold, r->c);
    r->x = (struct moe_rows){.n_rows = b->n_rows,
                             .n_groups = b->n_groups,
                             .dq = dq,
                             .dc = dc,
                             .q = r->q,
                             .c = r->c,
                             .group = r->group,
                             .start = r->start,
                             .q_from = m->numbers[MOE_QUERY],
                             .c_from = m->numbers[MOE_CAND],
                             .fold = folded[0] || folded[1] ? &r->fold : NULL,
                             .fold_q = folded[0] ? r->fold_index[0] : NULL,
                             .fold_c = folded[1] ? r->fold_index[1] : NULL,
                             .key = atomic_fetch_add(&filled, 1) + 1,
                             .q_ready = q_ready};
}

/* --- backward
 * -------------------------------------------------------------------------------------- */

/* Columns that only fields have: nobody adds to their gradient. */
static bool all_folded(const struct moe_model *m, const struct moe_run *r, int side,
                       const int *index) {
    return index && !m->write_out && r->fold.part[side].from == m->numbers[side];
}

void moe_inputs_clear(const struct moe_model *m, struct moe_run *r) {
    if (r->dx.q && !all_folded(m, r, MOE_QUERY, r->x.fold_q))
        memset(r->dx.q, 0, (size_t)r->x.n_groups * (size_t)r->x.dq * sizeof(float));
    if (r->dx.c && !all_folded(m, r, MOE_CAND, r->x.fold_c))
        memset(r->dx.c, 0, (size_t)r->x.n_rows * (size_t)r->x.dc * sizeof(float));
    if (r->x.fold)
        memset(r->dtables, 0, r->dtable_floats * sizeof(float));
}

static void side_backward(const struct moe_model *m, int side, const uint32_t *ids, int n,
                          const struct moe_run *r, const float *dx, struct moe_embed_grad *embed) {
    struct moe_embed_side s = m->embed[side];
    bool folded = side == MOE_QUERY ? r->x.fold_q != NULL : r->x.fold_c != NULL;
    int k = m->fold_inputs[side], tables = r->fold.part[side].n - k;
    if (folded && !m->write_out)
        s.n -= k;
    moe_embed_backward(&s, ids, n, dx, m->part[side], embed);
    for (int i = 0; folded && i < k; i++) {
        const struct moe_embed_input *in = &m->embed[side].input[m->embed[side].n - k + i];
        moe_embed_backward_table(in, ids, s.slots, n, r->fold.part[side].field[tables + i].dtable,
                                 &embed[in->table]);
    }
}

void moe_inputs_backward(const struct moe_model *m, const struct moe_batch *b, struct moe_run *r,
                         struct moe_embed_grad *embed) {
    if (r->dx.q)
        side_backward(m, MOE_QUERY, b->query_ids, b->n_groups, r, r->dx.q, embed);
    if (r->dx.c)
        side_backward(m, MOE_CAND, b->cand_ids, b->n_rows, r, r->dx.c, embed);
}
