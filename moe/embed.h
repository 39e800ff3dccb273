/* embed.h: ids to vectors: shared tables, mean over the non-zero ids of an input's slots. Row 0 of
 * a table is never read (0 is "missing"; an input without ids is the zero vector). Gradients are
 * kept by touched row, and the optimizer moves touched rows only. */
#pragma once
#include "moe/batch.h"
#include "moe/params.h"

struct moe_embed_input {
    int slot, n_slots; /* columns of the ids */
    int table, dim;
    int at; /* first column in its part of the input */
};
struct moe_embed_side { /* query or candidate */
    int slots;          /* ids in a row */
    int n;
    struct moe_embed_input *input; /* [n] */
};

/* x[r * ld + at ..] for all inputs of a side; ids [n x slots]; tensor [n_tables] */
void moe_embed_forward(const struct moe_embed_side *s, const struct moe_params *p, const float *v,
                       const int *tensor, const uint32_t *ids, int n, float *x, int ld);

/* One worker's gradient of one table. */
struct moe_embed_grad {
    uint32_t rows;
    int dim;
    int n, cap;
    uint32_t *row; /* [cap] touched rows, in order of first touch */
    int *place;    /* [rows] index into row, -1: untouched */
    float *g;      /* [cap x dim] */
};
void moe_embed_grad_init(struct moe_embed_grad *g, uint32_t rows, int dim);
void moe_embed_grad_deinit(struct moe_embed_grad *g);
void moe_embed_grad_clear(struct moe_embed_grad *g);
/* The row's gradient [dim], to be added to; zero at first touch. Valid until the next call. */
float *moe_embed_grad_row(struct moe_embed_grad *g, uint32_t row);
/* to += from */
void moe_embed_grad_merge(struct moe_embed_grad *to, const struct moe_embed_grad *from);
/* Row of the table an id stands for; 0: missing. */
static inline uint32_t moe_embed_row(uint32_t id, uint32_t rows) {
    return id < rows ? id : 1 + id % (rows - 1);
}
/* One input's gradient that came by table row (fold.h): the rows its ids touch. dtable [rows x dim]
 */
void moe_embed_backward_table(const struct moe_embed_input *in, const uint32_t *ids, int slots,
                              int n, const float *dtable, struct moe_embed_grad *g);
/* grads [n_tables]; dx as x of the forward pass */
void moe_embed_backward(const struct moe_embed_side *s, const uint32_t *ids, int n, const float *dx,
                        int ld, struct moe_embed_grad *grads);
