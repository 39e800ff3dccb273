/* balance.h: what keeps experts in use: losses over loads and logits, each with its gradient. Used
 * by the gates; values are summed in double, so a batch's order of rows hardly shows.
 *
 *   load loss   N sum_e f_e P_e        f: shares of the choices (no gradient), P: mean probability
 *                                      (GShard, Switch); 1 when balanced, up to N when not
 *   CV^2        N sum x^2 / (sum x)^2 - 1          (Shazeer et al. 2017)
 *   z-loss      mean_t (log sum_e exp h_te)^2      (ST-MoE)
 *
 * A loss of a pass weighs pass->share, so that the workers' losses sum to the batch's mean. */
#pragma once
#include "base/conf.h"
#include "moe/gate.h"

/* A logit at or below this is an expert withheld from the row in this pass: its weight is zero. */
#define MOE_WITHHELD (-1e30f)
static inline bool moe_withheld(float h) { return h <= 0.5f * MOE_WITHHELD; }

/* c[e] += how often e stands in pick [n]; entries below 0 are nobody's. */
void moe_load_count(int n, const int *pick, float *c);
/* counts [n] to shares that sum to 1; all zero stays so */
void moe_load_shares(int n, const float *count, float *f);
/* max c / mean c - 1 (arXiv 2408.15664); 0 when nothing was counted */
float moe_load_maxvio(int n, const float *count);
/* N sum_e f_e mean_t p_te; p [rows x n] */
double moe_load_loss(int rows, int n, const float *f, const float *p);
/* dp += a * d loss / d p */
void moe_load_loss_grad(int rows, int n, const float *f, double a, float *dp);

double moe_cv2(int n, const double *x);
/* dx [n] = a * d CV^2 / d x */
void moe_cv2_grad(int n, const double *x, double a, double *dx);

/* h [rows x n]; withheld entries take no part */
double moe_z_loss(int rows, int n, const float *h);
/* dh += a * d loss / d h */
void moe_z_loss_grad(int rows, int n, const float *h, double a, float *dh);

/* --- the load loss as gates carry it ------------------------------------------------------- */

/* Whose choices f counts: this pass's rows, or the whole step before, of all workers: an aux loss
 * over the global batch, which does not force each small pass to use all experts. */
enum moe_load_over { MOE_LOAD_PASS, MOE_LOAD_STEP };
struct moe_load_conf {
    double aux;
    int over;
};
#define MOE_LOAD_ITEMS(st, f, aux_default)                                                         \
    CONF_FLOAT(st, f.aux, "aux_loss", aux_default, 0, 100, NULL,                                   \
               "weight of the load loss N sum f P"),                                               \
        CONF_ENUM(st, f.over, "aux_over", "pass", "pass|step",                                     \
                  "choices counted in f: of the rows at hand, or of the whole step before")

/* STEP: declares the counts as statistics [n] at 0 and the field "load" [1 x n] of the buffers;
 * returns that field's place, or 0 (unused). */
size_t moe_load_shape(struct moe_gate *g, const struct moe_load_conf *c);
/* f [n] that the loss uses; count: of this pass; load: the buffer, read for STEP only. */
void moe_load_choose(const struct moe_load_conf *c, int n, const float *count, const float *load,
                     float *f);
void moe_load_after_step(int n, const float *stats, float *load);
