/* scorer_reference.c: scoring by the model's own forward pass: fallback of the packed paths and
 * their oracle, fp32 only. Products are exact (gemm_exact.c): a row's never depend on how many
 * others came. Rows go in blocks that stay in the cache; the query part's products are made with
 * the first block and kept. A model that mixes rows gets its request as one block. */
#include <assert.h>
#include <string.h>
#include "base/heap.h"
#include "moe/model_impl.h"
#include "moe/score/scorer_path.h"
#include "moe/math/vec.h"

#define BLOCK 96

struct reference {
    const struct moe_model *m;
    struct moe_plan plan;
    int rows_max;
    size_t run_floats, p_floats; /* pieces of the scratch */
};

static size_t padded(size_t floats) { return (floats + 15) & ~(size_t)15; }

static enum status ref_open(const struct moe_model *m, const struct moe_scorer_conf *conf,
                            void **out) {
    if (conf->precision != MOE_FP32)
        return fail(STATUS_UNIMPLEMENTED, "scorer: the reference path is fp32 only");
    struct reference *s = HEAP_NEW(struct reference);
    s->m = m;
    s->rows_max = conf->rows_max;
    int rows = m->mixes_rows || conf->rows_max < BLOCK ? conf->rows_max : BLOCK;
    s->plan = (struct moe_plan){.rows_max = rows, .groups_max = 1, .fold = -1};
    s->run_floats = padded(moe_run_floats(m, &s->plan));
    s->p_floats = padded((size_t)s->plan.rows_max * (size_t)m->n_tasks);
    *out = s;
    return STATUS_OK;
}
static void ref_close(void *state) { heap_free(state); }
static const char *ref_label(const void *state) {
    (void)state;
    return "reference-fp32";
}
static size_t ref_scratch_bytes(const void *state) {
    const struct reference *s = state;
    return (s->run_floats + s->p_floats) * sizeof(float);
}

/* Rows [from, from + n) of the request. */
static struct moe_batch block_of(const struct reference *s, const struct moe_batch *b, int from,
                                 int n) {
    struct moe_batch out = *b;
    out.group = NULL;
    out.n_rows = n;
    if (b->cand)
        out.cand = b->cand + (size_t)from * (size_t)s->m->inputs.cand_columns;
    if (b->cand_ids)
        out.cand_ids = b->cand_ids + (size_t)from * (size_t)s->m->inputs.cand_slots;
    return out;
}

static void ref_score(const void *state, const struct moe_batch *b, void *scratch,
                      float *probabilities) {
    const struct reference *s = state;
    float *memory = scratch, *p = memory + s->run_floats;
    size_t T = (size_t)s->m->n_tasks, rows = (size_t)b->n_rows;
    assert(b->n_groups == 1 && b->n_rows <= s->rows_max);
    struct moe_run *run = moe_run_bind(s->m, &s->plan, memory);
    for (int from = 0; from < b->n_rows; from += s->plan.rows_max) {
        int n = b->n_rows - from < s->plan.rows_max ? b->n_rows - from : s->plan.rows_max;
        struct moe_batch block = block_of(s, b, from, n);
        struct moe_pass pass = {.exact = !s->m->mixes_rows, .batch = &block};
        moe_forward(s->m, s->m->params.v, &block, run, &pass, from > 0);
        moe_outputs(s->m, block.n_rows, run->logits, p);
        for (size_t t = 0; t < T; t++)
            for (size_t i = 0; i < (size_t)n; i++)
                probabilities[t * rows + (size_t)from + i] = p[i * T + t];
    }
}

const struct moe_scorer_path_ops moe_scorer_path_reference = {
    .name = "reference",
    .any_output = 1,
    .open = ref_open,
    .close = ref_close,
    .label = ref_label,
    .scratch_bytes = ref_scratch_bytes,
    .score = ref_score,
};
