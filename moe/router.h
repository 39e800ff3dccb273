/* router.h: the first half of most gates: logits h = (x W + b) / temperature, with what may happen
 * to them in training: jitter on the input, experts withheld, a z-loss. A gate keeps a
 * `struct moe_router` in its saved struct and makes weights from s->h.
 *
 *   jitter    x is multiplied by U(1 - j, 1 + j) per element, once a group in the query part
 *   dropout   each expert is withheld from a row with this probability (its logit becomes
 *             MOE_WITHHELD), the rest share its weight (against polarised gates: Zhao et al.,
 *             RecSys 2019); a row that would lose all keeps all
 *   z_loss    weight of mean (logsumexp h)^2: keeps logits small (ST-MoE) */
#pragma once
#include "base/conf.h"
#include "moe/gate.h"

/* Settings that several gates have are said once: here, in choice.h and in balance.h. */
struct moe_router_conf {
    bool bias;
    double temperature, jitter, dropout, z_loss;
};
#define MOE_BIAS_ITEM(st, f) CONF_BOOL(st, f, "bias", "true", "the logits have a bias")
#define MOE_ROUTER_ITEMS(st, f)                                                                    \
    MOE_BIAS_ITEM(st, f.bias),                                                                     \
        CONF_FLOAT(st, f.temperature, "temperature", "1", 0.001, 1000, NULL,                       \
                   "the logits are divided by it"),                                                \
        CONF_FLOAT(st, f.jitter, "jitter", "0", 0, 0.9, NULL,                                      \
                   "in training, inputs are multiplied by U(1 - j, 1 + j)"),                       \
        CONF_FLOAT(st, f.dropout, "dropout", "0", 0, 0.9, NULL,                                    \
                   "in training, the chance that an expert is withheld from a row"),               \
        CONF_FLOAT(st, f.z_loss, "z_loss", "0", 0, 100, NULL,                                      \
                   "weight of the mean of (logsumexp of the logits)^2")

struct moe_router {
    float *h;                   /* [rows x n] logits */
    float *qy, *qdy;            /* [groups x n] */
    float *factor_q, *factor_c; /* jitter: [groups x dq], [rows x dc] */
    float *q, *c, *dq, *dc;     /* jitter: the inputs as multiplied, their gradients */
};

/* Declares fields "w" [in x n] and "b" [1 x n] at the start of g->params; sets
 * STOCHASTIC, clears LINEAR under jitter. */
void moe_router_shape(struct moe_gate *g, const struct moe_router_conf *c, int n);
/* dq, in: columns of the query part and of the whole input. */
void moe_router_bind(const struct moe_router_conf *c, int dq, int in, int n,
                     const struct moe_plan *plan, struct moe_work *work, struct moe_router *s);
/* w: the gate's run. Fills s->h; adds the z-loss. */
void moe_router_forward(const struct moe_router_conf *c, int n, const float *w,
                        const struct moe_rows *x, struct moe_pass *pass, struct moe_router *s);
/* dh [rows x n], overwritten; adds to dw (as the gate's run) and dx. */
void moe_router_backward(const struct moe_router_conf *c, int n, const float *w,
                         const struct moe_rows *x, const struct moe_pass *pass,
                         struct moe_router *s, float *dh, float *dw,
                         const struct moe_rows_grad *dx);

/* p = softmax of h by row, exactly zero for the withheld; both [rows x n] */
void moe_router_softmax(int rows, int n, const float *h, float *p);
/* the same with a sigmoid of each */
void moe_router_sigmoid(int rows, int n, const float *h, float *s);
