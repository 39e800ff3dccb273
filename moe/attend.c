/* attend.c: attention of a candidate over a list of its request. Rows of a request stand together,
 * so the list's side is made once for them: h and W h forward, their gradients backward. */
#include "moe/attend.h"
#include <math.h>
#include <string.h>
#include "moe/model_impl.h"
#include "moe/math/vec.h"

struct conf {
    struct conf_strings lists;
    const char *item;
};
const struct conf_item moe_attend_items[] = {
    CONF_STRINGS(struct conf, lists, "lists", "",
                 "lists of ids in the query part, e.g. what the user did last"),
    CONF_STRING(struct conf, item, "item", "item", "the candidate's id, of equal embedding width"),
    CONF_END};

/* --- while a model is built ------------------------------------------------------------------ */

static const struct moe_id_input *find(const struct moe_inputs *in, const char *name) {
    for (int i = 0; i < in->n_ids; i++)
        if (strcmp(in->ids[i].name, name) == 0)
            return &in->ids[i];
    return NULL;
}

static enum status take_list(struct moe_model *m, const struct conf *c, int i, const char *file) {
    const struct moe_inputs *in = &m->inputs;
    const struct moe_id_input *list = find(in, c->lists.v[i]), *item = find(in, c->item);
    if (!list || !list->in_query)
        return fail(STATUS_INVALID_ARGUMENT,
                    "%s: model.attention.lists: '%s' is no list of ids of the query part", file,
                    c->lists.v[i]);
    if (!item || item->in_query || item->n_slots != 1)
        return fail(STATUS_INVALID_ARGUMENT,
                    "%s: model.attention.item: '%s' is no single id of the candidate part", file,
                    c->item);
    int dim = in->tables[list->table].dim;
    if (dim != in->tables[item->table].dim)
        return fail(
            STATUS_INVALID_ARGUMENT,
            "%s: model.attention: embeddings of '%s' and '%s' are %d and %d wide, not equal", file,
            c->lists.v[i], c->item, dim, in->tables[item->table].dim);
    m->attend.one[i] = (struct moe_attend_one){.slot = list->slot,
                                               .n_slots = list->n_slots,
                                               .list_table = list->table,
                                               .item_slot = item->slot,
                                               .item_table = item->table,
                                               .dim = dim};
    m->attend.n = i + 1;
    return STATUS_OK;
}

enum status moe_attend_take(struct moe_model *m, const struct node *spec, const char *file) {
    struct conf c;
    struct conf_place place = {file, "model.attention"};
    const struct node *map = spec && spec->type == NODE_MAP ? node_get(spec, "attention") : NULL;
    if (!map)
        return STATUS_OK;
    TRY(conf_read(moe_attend_items, map, place, NULL, &c, &m->arena));
    m->attend.one = ARENA_ARRAY(&m->arena, struct moe_attend_one, c.lists.n + 1);
    for (int i = 0; i < c.lists.n; i++)
        TRY(take_list(m, &c, i, file));
    return STATUS_OK;
}

int moe_attend_place(struct moe_model *m, int at) {
    for (int i = 0; i < m->attend.n; i++) {
        m->attend.one[i].at = at;
        at += m->attend.one[i].dim;
    }
    return at;
}

enum status moe_attend_declare(struct moe_model *m, struct moe_build *b, const struct node *spec) {
    struct conf c;
    struct conf_place place = {b->place.file, "model.attention"};
    const struct node *map = spec ? node_get(spec, "attention") : NULL;
    if (!map)
        return STATUS_OK;
    TRY(conf_read(moe_attend_items, map, place, NULL, &c, b->a));
    json_key(b->json, "attention");
    json_object(b->json);
    conf_write_json(moe_attend_items, &c, b->json);
    json_object_end(b->json);
    for (int i = 0; i < m->attend.n; i++) {
        struct moe_layout l = {0};
        moe_layout_add(&l, "w", m->attend.one[i].dim, m->attend.one[i].dim, MOE_INIT_ZERO, 0);
        m->attend.one[i].tensor = moe_params_add(b->params, MOE_DENSE, 1, &l, "attention%d", i);
    }
    return STATUS_OK;
}

/* --- one pass ----------------------------------------------------------------------------------
 */

struct one_state {
    float *h, *wh, *dh, *dwh; /* [n_slots x dim] of the request at hand */
    uint32_t *row;            /* [n_slots] table rows of its list; 0: no id */
    float *a;                 /* [rows x n_slots] weights */
    float *da;                /* [n_slots] */
};
struct moe_attend_state {
    struct one_state *one; /* [n] */
};

struct moe_attend_state *moe_attend_bind(const struct moe_model *m, const struct moe_plan *plan,
                                         struct moe_work *work) {
    struct moe_attend_state s = {0}, *out = moe_work_take_bytes(work, sizeof s);
    s.one = moe_work_take_bytes(work, (size_t)m->attend.n * sizeof *s.one);
    for (int i = 0; i < m->attend.n; i++) {
        const struct moe_attend_one *x = &m->attend.one[i];
        size_t slots = (size_t)x->n_slots, floats = slots * (size_t)x->dim;
        struct one_state o = {.h = moe_work_take(work, floats),
                              .wh = moe_work_take(work, floats),
                              .row = moe_work_take_bytes(work, slots * sizeof(uint32_t)),
                              .a = moe_work_take(work, (size_t)plan->rows_max * slots)};
        if (plan->training) {
            o.dh = moe_work_take(work, floats);
            o.dwh = moe_work_take(work, floats);
            o.da = moe_work_take(work, slots);
        }
        if (s.one)
            s.one[i] = o;
    }
    if (out)
        *out = s;
    return out;
}

static const float *table(const struct moe_model *m, const float *v, int t, uint32_t *rows) {
    const struct moe_tensor *x = &m->params.t[m->table_tensor[t]];
    *rows = (uint32_t)x->layout.f[0].rows;
    return v + x->at;
}

/* h and W h of a request's list. */
static void open_list(const struct moe_model *m, const struct moe_numbers *n,
                      const struct moe_attend_one *x, const uint32_t *ids, struct one_state *o) {
    uint32_t rows;
    size_t d = (size_t)x->dim;
    const float *v = table(m, n->v, x->list_table, &rows);
    const float *w = moe_numbers_value(n, x->tensor, 0);
    for (int s = 0; s < x->n_slots; s++) {
        float *h = o->h + (size_t)s * d, *wh = o->wh + (size_t)s * d;
        o->row[s] = ids[x->slot + s] ? moe_embed_row(ids[x->slot + s], rows) : 0;
        memcpy(h, v + (size_t)o->row[s] * d, d * sizeof *h);
        for (size_t i = 0; i < d; i++)
            wh[i] = moe_vec_dot(d, w + i * d, h);
    }
}

/* The candidate's embedding; NULL: it has no id. */
static const float *candidate(const struct moe_model *m, const float *v,
                              const struct moe_attend_one *x, const struct moe_batch *b, int r,
                              uint32_t *row) {
    uint32_t rows,
        id = b->cand_ids[(size_t)r * (size_t)m->inputs.cand_slots + (size_t)x->item_slot];
    const float *t = table(m, v, x->item_table, &rows);
    *row = id ? moe_embed_row(id, rows) : 0;
    return id ? t + (size_t)*row * (size_t)x->dim : NULL;
}

/* a [n_slots] of a row; without an id the weights are even. All zero for an empty list. */
static void weigh(const struct moe_attend_one *x, const struct one_state *o, const float *c,
                  float *a) {
    size_t d = (size_t)x->dim;
    float most = -INFINITY, sum = 0;
    for (int s = 0; s < x->n_slots; s++) {
        a[s] = c ? moe_vec_dot(d, c, o->wh + (size_t)s * d) / sqrtf((float)d) : 0;
        most = o->row[s] && a[s] > most ? a[s] : most;
    }
    for (int s = 0; s < x->n_slots; s++) {
        a[s] = o->row[s] ? expf(a[s] - most) : 0;
        sum += a[s];
    }
    for (int s = 0; s < x->n_slots && sum > 0; s++)
        a[s] /= sum;
}

static void forward_one(const struct moe_model *m, const struct moe_numbers *n,
                        const struct moe_batch *b, const int *group, const struct moe_attend_one *x,
                        struct one_state *o, float *out) {
    size_t d = (size_t)x->dim, part = (size_t)m->part[MOE_CAND];
    for (int r = 0, at = -1; r < b->n_rows; r++) {
        float *a = o->a + (size_t)r * (size_t)x->n_slots, *u = out + (size_t)r * part + x->at;
        uint32_t row;
        if (group[r] != at) {
            at = group[r];
            open_list(m, n, x, b->query_ids + (size_t)at * (size_t)m->inputs.query_slots, o);
        }
        weigh(x, o, candidate(m, n->v, x, b, r, &row), a);
        memset(u, 0, d * sizeof *u);
        for (int s = 0; s < x->n_slots; s++)
            if (a[s] != 0)
                moe_vec_axpy(d, a[s], o->h + (size_t)s * d, u);
    }
}

void moe_attend_forward(const struct moe_model *m, const struct moe_numbers *n,
                        const struct moe_batch *b, const int *group, struct moe_attend_state *s,
                        float *x) {
    for (int i = 0; i < m->attend.n; i++)
        forward_one(m, n, b, group, &m->attend.one[i], &s->one[i], x);
}

/* Gradients of the request's list, gathered over its rows, to W and the table. */
static void close_list(const struct moe_attend_one *x, const struct moe_numbers *n,
                       struct one_state *o, struct moe_embed_grad *list) {
    size_t d = (size_t)x->dim;
    const float *w = moe_numbers_value(n, x->tensor, 0);
    float *dw = moe_numbers_grad(n, x->tensor, 0);
    for (int s = 0; s < x->n_slots; s++) {
        const float *h = o->h + (size_t)s * d, *dwh = o->dwh + (size_t)s * d;
        float *dh = o->dh + (size_t)s * d;
        if (!o->row[s])
            continue;
        for (size_t i = 0; i < d; i++) {
            moe_vec_axpy(d, dwh[i], w + i * d, dh);
            moe_vec_axpy(d, dwh[i], h, dw + i * d);
        }
        moe_vec_add(d, dh, moe_embed_grad_row(list, o->row[s]));
    }
}

static void backward_row(const struct moe_attend_one *x, struct one_state *o, const float *a,
                         const float *du, const float *c, float *dc) {
    size_t d = (size_t)x->dim;
    float mean = 0, scale = 1 / sqrtf((float)d);
    for (int s = 0; s < x->n_slots; s++) {
        o->da[s] = a[s] != 0 ? moe_vec_dot(d, du, o->h + (size_t)s * d) : 0;
        mean += a[s] * o->da[s];
    }
    for (int s = 0; s < x->n_slots; s++) {
        if (a[s] == 0)
            continue;
        moe_vec_axpy(d, a[s], du, o->dh + (size_t)s * d);
        float ds = scale * a[s] * (o->da[s] - mean);
        if (!c)
            continue;
        moe_vec_axpy(d, ds, c, o->dwh + (size_t)s * d);
        moe_vec_axpy(d, ds, o->wh + (size_t)s * d, dc);
    }
}

static void backward_one(const struct moe_model *m, const struct moe_numbers *n,
                         const struct moe_batch *b, const int *group,
                         const struct moe_attend_one *x, struct one_state *o, const float *dx,
                         struct moe_embed_grad *grads) {
    size_t part = (size_t)m->part[MOE_CAND], floats = (size_t)x->n_slots * (size_t)x->dim;
    for (int r = 0; r < b->n_rows; r++) {
        uint32_t row;
        if (r == 0 || group[r] != group[r - 1]) {
            open_list(m, n, x, b->query_ids + (size_t)group[r] * (size_t)m->inputs.query_slots, o);
            memset(o->dh, 0, floats * sizeof *o->dh);
            memset(o->dwh, 0, floats * sizeof *o->dwh);
        }
        const float *c = candidate(m, n->v, x, b, r, &row);
        backward_row(x, o, o->a + (size_t)r * (size_t)x->n_slots, dx + (size_t)r * part + x->at, c,
                     c ? moe_embed_grad_row(&grads[x->item_table], row) : NULL);
        if (r + 1 == b->n_rows || group[r + 1] != group[r])
            close_list(x, n, o, &grads[x->list_table]);
    }
}

void moe_attend_backward(const struct moe_model *m, const struct moe_numbers *n,
                         const struct moe_batch *b, const int *group, struct moe_attend_state *s,
                         const float *dx, struct moe_embed_grad *grads) {
    for (int i = 0; i < m->attend.n; i++)
        backward_one(m, n, b, group, &m->attend.one[i], &s->one[i], dx, grads);
}
