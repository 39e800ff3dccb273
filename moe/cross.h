/* cross.h: low-rank cross layers before the experts (DCN-v2, Wang et al., WWW 2021):
 *
 *     x_{l+1} = x_0 * (x_l V_l U_l + b_l) + x_l       V [d x rank], U [rank x d]
 *
 * Crossing mixes query and candidate columns, so the result is one part (dq = 0). */
#pragma once
#include "moe/params.h"
#include "moe/pass.h"
#include "moe/rows.h"

struct moe_cross {
    int n, rank, d; /* n 0: none */
    struct {
        size_t v, u, b;
    } at[8];
};
void moe_cross_declare(struct moe_cross *c, struct moe_layout *l, int n, int rank, int d);
struct moe_cross_state;
struct moe_cross_state *moe_cross_bind(const struct moe_cross *c, const struct moe_plan *plan,
                                       struct moe_work *work);
void moe_cross_forward(const struct moe_cross *c, const float *w, const struct moe_rows *x,
                       struct moe_cross_state *s, struct moe_rows *out);
/* Where the levels put the gradient of the crossed rows; zeroed. */
struct moe_rows_grad moe_cross_grad(const struct moe_cross *c, struct moe_cross_state *s,
                                    int n_rows);
void moe_cross_backward(const struct moe_cross *c, const float *w, const struct moe_rows *x,
                        struct moe_cross_state *s, float *dw, const struct moe_rows_grad *dx);
