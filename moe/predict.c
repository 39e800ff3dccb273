/* predict.c: probabilities of many rows on the training path's forward, in blocks of whole groups.
 */
#include <string.h>
#include "base/heap.h"
#include "moe/model_impl.h"
#include "moe/train.h"
#include "moe/vec.h"

#define BLOCK_ROWS 1024

void moe_predict(const struct moe_model *m, const struct moe_examples *x, float *out) {
    int most = BLOCK_ROWS;
    size_t T = (size_t)m->n_tasks;
    for (int r = 0, from = 0; r <= x->n_rows; r++)
        if (r == x->n_rows || x->group[r] != x->group[from]) {
            most = r - from > most ? r - from : most;
            from = r;
        }
    struct moe_plan plan = {most, BLOCK_ROWS, false};
    float *memory = heap_alloc_aligned(moe_run_floats(m, &plan) * sizeof *memory);
    struct moe_run *run = moe_run_bind(m, &plan, memory);
    for (int g = 0, to, row = 0; g < x->n_groups; g = to) {
        int end = row;
        for (to = g; to < x->n_groups && to - g < BLOCK_ROWS; to++) {
            int next = end;
            while (next < x->n_rows && x->group[next] == to)
                next++;
            if (to > g && next - row > most)
                break;
            end = next;
        }
        struct moe_batch b;
        struct moe_pass pass = {.batch = &b};
        moe_examples_view(x, g, to - g, &b);
        if (b.n_rows) {
            moe_forward(m, m->params.v, &b, run, &pass, false);
            moe_outputs(m, b.n_rows, run->logits, out + (size_t)row * T);
        }
        row = end;
    }
    heap_free(memory);
}
