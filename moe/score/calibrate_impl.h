/* calibrate_impl.h: what calibration and the measurement of losses share: requests made of
 * examples, and packed models with a scratch. */
#pragma once
#include "moe/score/calibrate.h"
#include "moe/score/scorer_packed.h"

struct calibrate_slates {
    const struct moe_examples *x;
    const struct moe_calibrate_conf *conf;
    float *cand;        /* [rows x cand_columns] */
    uint32_t *cand_ids; /* [rows x cand_slots] */
    int rows;
};
void moe_calibrate_slates_init(struct calibrate_slates *s, const struct moe_examples *x,
                               const struct moe_calibrate_conf *conf);
void moe_calibrate_slates_deinit(struct calibrate_slates *s);
/* Request `i` of conf->requests: the query of a group, and candidates from anywhere. Valid until
 * the next call. */
struct moe_batch moe_calibrate_slate(struct calibrate_slates *s, int i, int rows);

struct calibrate_side {
    struct moe_packed *p;
    void *scratch;
};
enum status moe_calibrate_side_init(struct calibrate_side *s, const struct moe_model *m,
                                    enum moe_precision precision, int rows_max, const float *units);
void moe_calibrate_side_deinit(struct calibrate_side *s);
