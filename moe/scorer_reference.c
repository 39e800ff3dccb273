/* scorer_reference.c: scoring by the model's own forward pass through OpenBLAS: fallback of the
 * packed paths and their oracle, fp32 only. Rows go in blocks of a fixed number, the last one padded
 * with empty rows: the products of a row then never depend on how many others came, and the
 * contract of scorer.h (equal bits) holds by construction and by test. The query part's products
 * are made with the first block and kept. A model that mixes rows gets its request as one block. */
#include <assert.h>
#include <string.h>
#include "base/heap.h"
#include "moe/model_impl.h"
#include "moe/scorer_path.h"
#include "moe/vec.h"

#define BLOCK 64

struct reference {
    const struct moe_model *m;
    struct moe_plan plan;
    int rows_max;
    size_t run_floats, cand_floats, ids_floats, p_floats; /* pieces of the scratch, in this order */
};

static size_t padded(size_t floats) { return (floats + 15) & ~(size_t)15; }

static enum status ref_open(const struct moe_model *m, const struct moe_scorer_conf *conf, void **out) {
    if (conf->precision != MOE_FP32)
        return fail(STATUS_UNIMPLEMENTED, "scorer: the reference path is fp32 only");
    struct reference *s = HEAP_NEW(struct reference);
    s->m = m;
    s->rows_max = conf->rows_max;
    s->plan = (struct moe_plan){m->mixes_rows ? conf->rows_max : BLOCK, 1, false};
    s->run_floats = padded(moe_run_floats(m, &s->plan));
    s->cand_floats = padded((size_t)BLOCK * (size_t)m->inputs.cand_columns);
    s->ids_floats = padded((size_t)BLOCK * (size_t)m->inputs.cand_slots);
    s->p_floats = padded((size_t)s->plan.rows_max * (size_t)m->n_tasks);
    *out = s;
    return STATUS_OK;
}
static void ref_close(void *state) { heap_free(state); }
static const char *ref_label(const void *state) {
    (void)state;
    return "openblas-fp32";
}
static size_t ref_scratch_bytes(const void *state) {
    const struct reference *s = state;
    return (s->run_floats + s->cand_floats + s->ids_floats + s->p_floats) * sizeof(float);
}

/* Rows [from, from + n) of the request; fewer than a block are copied and padded. */
static struct moe_batch block_of(const struct reference *s, const struct moe_batch *b, int from, int n,
                                 float *cand, uint32_t *ids) {
    size_t cc = (size_t)s->m->inputs.cand_columns, cs = (size_t)s->m->inputs.cand_slots;
    struct moe_batch out = *b;
    out.group = NULL;
    out.n_rows = n;
    out.cand = cc ? b->cand + (size_t)from * cc : NULL;
    out.cand_ids = cs ? b->cand_ids + (size_t)from * cs : NULL;
    if (s->m->mixes_rows || n == BLOCK)
        return out;
    memset(cand, 0, (size_t)BLOCK * cc * sizeof *cand);
    memset(ids, 0, (size_t)BLOCK * cs * sizeof *ids);
    if (cc)
        memcpy(cand, out.cand, (size_t)n * cc * sizeof *cand);
    if (cs)
        memcpy(ids, out.cand_ids, (size_t)n * cs * sizeof *ids);
    out.n_rows = BLOCK;
    out.cand = cand;
    out.cand_ids = ids;
    return out;
}

static void ref_score(const void *state, const struct moe_batch *b, void *scratch, float *probabilities) {
    const struct reference *s = state;
    float *memory = scratch, *cand = memory + s->run_floats, *p = cand + s->cand_floats + s->ids_floats;
    uint32_t *ids = (uint32_t *)(void *)(cand + s->cand_floats);
    size_t T = (size_t)s->m->n_tasks, rows = (size_t)b->n_rows;
    assert(b->n_groups == 1 && b->n_rows <= s->rows_max);
    struct moe_run *run = moe_run_bind(s->m, &s->plan, memory);
    for (int from = 0; from < b->n_rows; from += s->plan.rows_max) {
        int n = b->n_rows - from < s->plan.rows_max ? b->n_rows - from : s->plan.rows_max;
        struct moe_batch block = block_of(s, b, from, n, cand, ids);
        struct moe_pass pass = {.exact = !s->m->mixes_rows, .batch = &block};
        moe_forward(s->m, s->m->params.v, &block, run, &pass, from > 0);
        moe_vec_sigmoid((size_t)block.n_rows * T, run->logits, p);
        for (size_t t = 0; t < T; t++)
            for (size_t i = 0; i < (size_t)n; i++)
                probabilities[t * rows + (size_t)from + i] = p[i * T + t];
    }
}

const struct moe_scorer_path_ops moe_scorer_path_reference = {
    .name = "reference",
    .open = ref_open,
    .close = ref_close,
    .label = ref_label,
    .scratch_bytes = ref_scratch_bytes,
    .score = ref_score,
};
