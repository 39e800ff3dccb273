/* mix.h: gates that take a softmax over logits and keep k of the experts: topk, switch, gshard and
 * cosine are this with different settings or logits.
 *
 *     softmax_topk                w = scale p_e             p = softmax over all, e among the k
 * best softmax_topk, renormalise   w = scale p_e / sum of the kept p topk_softmax                w
 * = scale softmax over the kept logits (the same as the line above)
 *
 * plus the load loss N sum f P of p. */
#pragma once
#include "moe/balance.h"
#include "moe/choice.h"
#include "moe/router.h"

enum moe_mix_order { MOE_SOFTMAX_TOPK, MOE_TOPK_SOFTMAX };
struct moe_mix_conf {
    int64_t k;
    int order; /* enum moe_mix_order */
    bool renormalise;
    double scale;
    struct moe_groups_conf groups;
    struct moe_capacity_conf capacity;
    struct moe_load_conf load;
    int counted;        /* choices of a row that the load loss counts; 0: all k */
    bool random_second; /* GShard: the second is taken with probability min(1, 2 w) in training */
};
struct moe_mix {
    struct moe_choice choice;
    float *p; /* [rows x n] softmax of h */
    float *v; /* [rows x k] weights before capacity */
    float *f; /* [n] loads of the loss */
};
/* Checks; sets flags, statistics and buffers. */
enum status moe_mix_shape(struct moe_gate *g, const struct moe_mix_conf *c,
                          struct conf_place place);
void moe_mix_bind(const struct moe_mix_conf *c, int n, const struct moe_plan *plan,
                  struct moe_work *work, struct moe_mix *s);
/* From logits h [rows x n] to route->w; adds the load loss. buffers: the gate's, of the mix only.
 */
void moe_mix_forward(const struct moe_mix_conf *c, int n, const float *h, const float *buffers,
                     const struct moe_rows *x, struct moe_pass *pass, struct moe_mix *s,
                     struct moe_route *route);
/* Sets dh [rows x n]; dh may be d->w. */
void moe_mix_backward(const struct moe_mix_conf *c, int n, const struct moe_rows *x,
                      const struct moe_pass *pass, const struct moe_mix *s,
                      const struct moe_route *route, const struct moe_route *d, float *stats,
                      float *dh);
void moe_mix_after_step(const struct moe_mix_conf *c, int n, const float *stats, float *buffers);

/* --- a router and a mix: the whole gate, for kinds that only differ in settings ----------------
 */

struct moe_mix_gate { /* g->shape */
    struct moe_router_conf router;
    struct moe_mix_conf mix;
};
/* Copies `shape` to g->shape. */
enum status moe_mix_gate_shape(struct moe_gate *g, const struct moe_mix_gate *shape,
                               struct conf_place place, struct arena *a);
void *moe_mix_gate_bind(const struct moe_gate *g, const struct moe_plan *plan,
                        struct moe_work *work);
void moe_mix_gate_forward(const struct moe_gate *g, const struct moe_gate_io *io,
                          const struct moe_rows *x, struct moe_pass *pass, struct moe_route *route);
void moe_mix_gate_backward(const struct moe_gate *g, const struct moe_gate_io *io,
                           const struct moe_rows *x, struct moe_pass *pass,
                           const struct moe_route *route, struct moe_route *d, float *dw,
                           float *stats, const struct moe_rows_grad *dx);
void moe_mix_gate_after_step(const struct moe_gate *g, const float *stats, float *buffers);
