/* calibrate.h: makes a trained model fit for int8, and measures what a precision costs.
 *
 * Calibration runs sample requests in fp32, looks at every activation that int8 stores, and chooses
 * each column's unit so that rounding and clipping together lose least. The units stand in the
 * model's metadata ("int8.units"); the model's version does not change. */
#pragma once
#include "base/arena.h"
#include "moe/data/examples.h"
#include "moe/model.h"
#include "moe/score/scorer.h"

/* A way to serve a model. */
struct moe_loss_form {
    enum moe_precision precision;
    size_t cache_bytes; /* of an item cache; 0: none */
};
/* What it loses against the reference path (the model's own forward pass in fp32) on the same
 * requests. */
struct moe_loss_report {
    int requests, rows;
    double score_max, score_mean; /* |difference| of probabilities */
    double top_overlap;           /* of the best `top`, mean over requests and tasks; 0..1 */
    double *auc_fp32, *auc;       /* [n_tasks] over the labelled rows; NaN without labels */
};
/* One layer's input: root mean square of its error over that of its values. */
struct moe_layer_error {
    const char *name; /* "level0.expert3.hidden1" */
    double relative;
};

struct moe_calibrate_conf {
    int requests;       /* made of the examples: one group's query, rows of all groups */
    int rows;           /* candidates in each */
    int top;            /* the k of top_overlap */
    double overlap_min; /* refused below */
    double auc_loss_max;
    double score_max;                  /* refused beyond; 0: any */
    const struct moe_examples *judged; /* losses are measured on these; NULL: on the same */
};
struct moe_calibration {
    struct moe_loss_report loss;
    struct moe_layer_error *layers; /* [n_layers] */
    int n_layers;
};

extern const struct moe_calibrate_conf moe_calibrate_defaults;

/* Sets the units. FAILED_PRECONDITION: the limits are missed (*out is filled, the model has no
 * units); UNIMPLEMENTED: the model's shape or this CPU has no int8. Memory of *out: the arena. */
enum status moe_calibrate(struct moe_model *m, const struct moe_examples *x,
                          const struct moe_calibrate_conf *conf, struct arena *a,
                          struct moe_calibration *out);
/* Losses of one form, not held against limits. UNIMPLEMENTED: this CPU or the model's shape has no
 * such form; FAILED_PRECONDITION: int8, and not calibrated. */
enum status moe_measure_loss(const struct moe_model *m, const struct moe_loss_form *form,
                             const struct moe_examples *x, const struct moe_calibrate_conf *conf,
                             struct arena *a, struct moe_loss_report *out);
/* FAILED_PRECONDITION, with the figure and the limit, when a limit of `conf` is missed. */
enum status moe_check_loss(const struct moe_model *m, const char *form,
                           const struct moe_calibrate_conf *conf, const struct moe_loss_report *l);
/* The model's units, in the arena. FAILED_PRECONDITION: not calibrated; DATA_LOSS: damaged. */
enum status moe_calibrate_units(const struct moe_model *m, struct arena *a, const float **out);
