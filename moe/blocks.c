/* blocks.c: examples cut into blocks of whole groups, each run forward. */
#include "moe/blocks.h"
#include "base/heap.h"

enum { BLOCK_ROWS = 1024 };

void moe_blocks_open(struct moe_blocks *b, const struct moe_model *m,
                     const struct moe_examples *x) {
    int most = BLOCK_ROWS;
    for (int r = 0, from = 0; r <= x->n_rows; r++)
        if (r == x->n_rows || x->group[r] != x->group[from]) {
            most = r - from > most ? r - from : most;
            from = r;
        }
    *b = (struct moe_blocks){.m = m, .x = x, .plan = {most, BLOCK_ROWS, false}};
}

void moe_blocks_close(struct moe_blocks *b) {
    heap_free(b->memory);
    heap_free(b->cand);
    b->memory = b->cand = NULL;
}

/* Groups from next_group on that fit; sets batch. */
static void cut(struct moe_blocks *b) {
    const struct moe_examples *x = b->x;
    int g = b->next_group, to = g, end = b->next_row;
    for (; to < x->n_groups && to - g < BLOCK_ROWS; to++) {
        int next = end;
        while (next < x->n_rows && x->group[next] == to)
            next++;
        if (to > g && next - b->next_row > b->plan.rows_max)
            break;
        end = next;
    }
    moe_examples_view(x, g, to - g, &b->batch);
    if (x->compact) {
        moe_examples_numbers(x, b->next_row, end - b->next_row, 0, x->inputs.cand_columns, b->cand);
        b->batch.cand = b->cand;
    }
    b->row = b->next_row;
    b->next_row = end;
    b->next_group = to;
}

bool moe_blocks_next(struct moe_blocks *b) {
    if (!b->memory) {
        b->memory = heap_alloc_aligned(moe_run_floats(b->m, &b->plan) * sizeof *b->memory);
        b->run = moe_run_bind(b->m, &b->plan, b->memory);
        if (b->x->compact)
            b->cand =
                HEAP_ARRAY(float, (size_t)b->plan.rows_max *(size_t)b->x->inputs.cand_columns + 1);
    }
    do {
        if (b->next_group == b->x->n_groups)
            return false;
        cut(b);
    } while (!b->batch.n_rows);
    b->pass.batch = &b->batch;
    moe_forward(b->m, b->m->params.v, &b->batch, b->run, &b->pass, false);
    return true;
}
