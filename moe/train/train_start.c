/* train_start.c: a model with trees among its inputs (moe/data/table_trees.c) starts as these
 * trees: the wide part gives the log-odds of a task's trees weight one and the network, which
 * starts small, learns what they leave over, as a boosted round does (Friedman 2001) and as "init
 * scores" are used. From small weights a few hundred steps would not get there. Only where the wide
 * part sees the plain value (encoding `value`); nothing else is touched, and training moves these
 * weights as any other. */
#include <stdio.h>
#include <string.h>
#include "moe/data/table.h"
#include "moe/train/training.h"

static int column_of(const struct moe_model *m, const char *task) {
    char name[256];
    const int n = snprintf(name, sizeof name, MOE_TREES_OF "%s", task);
    for (int c = 0; n < (int)sizeof name && c < m->inputs.cand_columns; c++)
        if (strcmp(m->inputs.cand_names[c], name) == 0)
            return c;
    return -1;
}

void moe_training_start(struct moe_training *t) {
    struct moe_model *m = t->m;
    const struct moe_encode *e = &m->encode[MOE_CAND];
    const size_t tasks = (size_t)m->n_tasks, from = (size_t)m->part[MOE_QUERY];
    if (m->wide_tensor < 0 || !(e->kinds & MOE_ENC_VALUE))
        return;
    float *w = moe_params_at(&m->params, m->params.v, m->wide_tensor, 0);
    float *b = w + m->params.t[m->wide_tensor].layout.f[1].at;
    for (size_t k = 0; k < tasks; k++) {
        const int c = column_of(m, m->tasks[k]);
        if (c < 0 || !(e->column[c].scale > 0))
            continue;
        const struct moe_tower *tower = &m->towers[k];
        float *prior = moe_params_at(&m->params, m->params.v, tower->tensor, 0) +
                       tower->mlp.b[tower->mlp.n_layers - 1];
        w[(from + (size_t)c) * tasks + k] = 1 / e->column[c].scale;
        b[k] = e->column[c].mean;
        *prior = 0; /* the trees know how rare the task is */
    }
}
