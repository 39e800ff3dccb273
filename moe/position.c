/* position.c: the position tower. One row of zeros behind the batch's stands for "no position":
 * what the tower says of it is taken off every row, and its gradient is minus the sum of theirs. */
#include "moe/position.h"
#include <math.h>
#include <string.h>
#include "moe/model_impl.h"

enum { EACH = 3 }; /* inputs of the tower for a column */

struct conf {
    struct conf_strings inputs;
    struct conf_numbers hidden;
    int act;
    double dropout;
};
const struct conf_item moe_position_items[] = {
    CONF_STRINGS(struct conf, inputs, "inputs", "",
                 "columns that say how an item was shown; they go to this tower only, and serving "
                 "does not look at them"),
    CONF_NUMBERS(struct conf, hidden, "hidden", "[8]", 1, 65536,
                 "widths of the tower's hidden layers"),
    CONF_ENUM(struct conf, act, "act", "silu", MOE_ACT_CHOICES, "activation"),
    CONF_FLOAT(struct conf, dropout, "dropout", "0.1", 0, 0.9, NULL,
               "share of the training rows that the tower is not told about"),
    CONF_END};

static int find(const char *const *names, int n, const char *name) {
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

/* An input of the network that is always zero. */
static void silence(struct moe_encode *e, int column) {
    e->column[column] = (struct moe_encode_column){0};
    moe_encode_place(e);
}

static enum status take_inputs(struct moe_model *m, const struct conf *c, const char *file) {
    const struct moe_inputs *in = &m->inputs;
    struct moe_position *p = &m->position;
    p->in_query = ARENA_ARRAY(&m->arena, bool, c->inputs.n + 1);
    p->column = ARENA_ARRAY(&m->arena, int, c->inputs.n + 1);
    for (int i = 0; i < c->inputs.n; i++) {
        int cand = find(in->cand_names, in->cand_columns, c->inputs.v[i]);
        int query = find(in->query_names, in->query_columns, c->inputs.v[i]);
        if (cand < 0 && query < 0)
            return fail(STATUS_INVALID_ARGUMENT,
                        "%s: model.position.inputs: the data has no column '%s'", file,
                        c->inputs.v[i]);
        p->in_query[i] = cand < 0;
        p->column[i] = cand < 0 ? query : cand;
        silence(&m->encode[cand < 0 ? MOE_QUERY : MOE_CAND], p->column[i]);
    }
    p->n = c->inputs.n;
    p->dropout = c->dropout;
    return STATUS_OK;
}

static enum status read_conf(const struct node *map, const char *file, struct arena *a,
                             struct conf *c) {
    struct conf_place place = {file, "model.position"};
    TRY(conf_read(moe_position_items, map, place, NULL, c, a));
    if (c->hidden.n >= MOE_MLP_LAYERS_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "%s: model.position.hidden: at most %d layers", file,
                    MOE_MLP_LAYERS_MAX - 1);
    return STATUS_OK;
}

enum status moe_position_take(struct moe_model *m, const struct node *spec, const char *file) {
    struct conf c;
    const struct node *map = spec && spec->type == NODE_MAP ? node_get(spec, "position") : NULL;
    if (!map)
        return STATUS_OK;
    TRY(read_conf(map, file, &m->arena, &c));
    return take_inputs(m, &c, file);
}

enum status moe_position_declare(struct moe_model *m, struct moe_build *b,
                                 const struct node *spec) {
    struct conf c;
    struct moe_layout l = {0};
    int hidden[MOE_MLP_LAYERS_MAX];
    const struct node *map = spec ? node_get(spec, "position") : NULL;
    if (!map)
        return STATUS_OK;
    TRY(read_conf(map, b->place.file, b->a, &c));
    json_key(b->json, "position");
    json_object(b->json);
    conf_write_json(moe_position_items, &c, b->json);
    json_object_end(b->json);
    if (c.inputs.n == 0)
        return STATUS_OK;
    for (int i = 0; i < c.hidden.n; i++)
        hidden[i] = (int)c.hidden.v[i];
    moe_mlp_declare(&m->position.mlp, &l, EACH * c.inputs.n, hidden, c.hidden.n, m->n_tasks,
                    (enum moe_act)c.act, false);
    m->position.tensor = moe_params_add(b->params, MOE_DENSE, 1, &l, "position");
    return STATUS_OK;
}

/* --- one pass ------------------------------------------------------------------------------------
 */

struct moe_position_state {
    float *e;      /* [(rows + 1) x 3 n] */
    float *y, *dy; /* [(rows + 1) x n_tasks] */
    int *group;    /* [rows + 1] zeros */
    struct moe_mlp_saved *mlp;
};

struct moe_position_state *moe_position_bind(const struct moe_model *m, const struct moe_plan *plan,
                                             struct moe_work *work) {
    struct moe_position_state s = {0}, *out = moe_work_take_bytes(work, sizeof s);
    struct moe_plan more = {plan->rows_max + 1, 1, true};
    size_t rows = (size_t)plan->rows_max + 1;
    s.e = moe_work_take(work, rows * EACH * (size_t)m->position.n);
    s.y = moe_work_take(work, rows * (size_t)m->n_tasks);
    s.dy = moe_work_take(work, rows * (size_t)m->n_tasks);
    s.group = moe_work_take_int(work, rows);
    s.mlp = moe_mlp_bind(&m->position.mlp, 0, &more, work);
    if (out) {
        *out = s;
        memset(s.group, 0, rows * sizeof *s.group);
    }
    return out;
}

static struct moe_rows rows_of(const struct moe_model *m, const struct moe_position_state *s,
                               int rows) {
    return (struct moe_rows){.n_rows = rows + 1,
                             .n_groups = 1,
                             .dc = EACH * m->position.n,
                             .c = s->e,
                             .group = s->group};
}

static void fill(const struct moe_model *m, const struct moe_batch *b, struct moe_pass *pass,
                 float *e) {
    const struct moe_position *p = &m->position;
    memset(e, 0, (size_t)(b->n_rows + 1) * EACH * (size_t)p->n * sizeof *e);
    for (int r = 0; r < b->n_rows; r++) {
        int group = b->group ? b->group[r] - b->first_group : 0;
        if (p->dropout > 0 && rng_double(pass->rng) < p->dropout)
            continue;
        for (int i = 0; i < p->n; i++) {
            float *to = e + ((size_t)r * (size_t)p->n + (size_t)i) * EACH;
            float x =
                p->in_query[i]
                    ? b->query[group * m->inputs.query_columns + p->column[i]]
                    : b->cand[(size_t)r * (size_t)m->inputs.cand_columns + (size_t)p->column[i]];
            if (!isfinite(x))
                continue;
            to[0] = log1pf(fabsf(x));
            to[1] = 1 / (1 + fabsf(x));
            to[2] = 1;
        }
    }
}

/* The tower has no dropout of its own. */
static struct moe_pass plain(const struct moe_pass *pass) {
    struct moe_pass out = *pass;
    out.dropout = 0;
    return out;
}

void moe_position_forward(const struct moe_model *m, const struct moe_numbers *n,
                          const struct moe_batch *b, struct moe_position_state *s,
                          struct moe_pass *pass, float *logits) {
    size_t T = (size_t)m->n_tasks, rows = (size_t)b->n_rows;
    struct moe_rows x = rows_of(m, s, b->n_rows);
    struct moe_pass own = plain(pass);
    if (!pass->training)
        return;
    fill(m, b, pass, s->e);
    moe_mlp_forward(&m->position.mlp, moe_numbers_value(n, m->position.tensor, 0), &x, s->mlp, &own,
                    s->y);
    for (size_t i = 0; i < rows * T; i++)
        logits[i] += s->y[i] - s->y[rows * T + i % T];
}

void moe_position_backward(const struct moe_model *m, const struct moe_numbers *n, int rows,
                           struct moe_position_state *s, const struct moe_pass *pass,
                           const float *dlogits) {
    size_t T = (size_t)m->n_tasks, all = (size_t)rows * T;
    struct moe_rows x = rows_of(m, s, rows);
    struct moe_pass own = plain(pass);
    memcpy(s->dy, dlogits, all * sizeof *s->dy);
    memset(s->dy + all, 0, T * sizeof *s->dy);
    for (size_t i = 0; i < all; i++)
        s->dy[all + i % T] -= dlogits[i];
    moe_mlp_backward(&m->position.mlp, moe_numbers_value(n, m->position.tensor, 0), &x, s->mlp,
                     &own, s->y, s->dy, moe_numbers_grad(n, m->position.tensor, 0), NULL);
}
