/* route.h: applies the experts of a level to rows, as the gates' routes say. Knows no gate. The
 * only switch on the kind of a route stands in route.c.
 *
 *   WEIGHTS  out[r] += w[r, e] y_e[r]. An expert runs once for all gates that use it; on all rows
 *            when every gate is dense, else on the rows with a weight (counting sort).
 *   SLOTS    slot input = sum_r dispatch[r, s] x[r] over a group's rows; out[r] += combine[r, s]
 * y_s MERGE    one blended expert per group: W = w[g] [E x P]; runs on the group's rows. The
 * backward pass computes the forward one again instead of keeping every group's state. */
#pragma once
#include "moe/level.h"

struct moe_route_state *moe_route_bind(const struct moe_level *l, const struct moe_plan *plan,
                                       struct moe_work *work);
/* x [n_sources], route [n_gates]; adds to out [n_modules]. */
void moe_route_forward(const struct moe_level *l, const struct moe_numbers *n,
                       const struct moe_rows *x, const struct moe_route *route,
                       struct moe_route_state *s, struct moe_pass *pass, float *const *out);
/* dout [n_modules]; sets droute [n_gates]; adds to n->g and dx [n_sources]. */
void moe_route_backward(const struct moe_level *l, const struct moe_numbers *n,
                        const struct moe_rows *x, const struct moe_route *route,
                        struct moe_route_state *s, struct moe_pass *pass, float *const *dout,
                        struct moe_route *droute, struct moe_rows_grad *dx);
