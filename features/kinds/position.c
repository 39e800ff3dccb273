/* position.c: where a candidate stood when it was shown: the true position in training, one
 * constant when serving, so that the model can lay on the position what is the position's (PAL, Guo
 * et al. 2019). Which rows are which is the request's to say (feat_request.n_placed). Stateless. */
#include "features/claim.h"

struct params {
    int64_t serving;
};

static const struct conf_item items[] = {
    CONF_INT(struct params, serving, "serving", "0", 0, 100000, "position",
             "The position, from 0, that every candidate is given when it is not known."),
    CONF_END};

static enum status check(struct feat_plan *p, struct feat *f) {
    (void)p;
    f->side = FEAT_CROSS;
    f->n_columns = 1;
    return STATUS_OK;
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    const struct params *m = f->params;
    dense[0] = row < r->request->n_placed ? (float)row : (float)m->serving;
}

const struct feat_kind feat_kind_position = {
    .name = "position",
    .doc = "Where a candidate was shown: known in training, a constant when serving.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .check = check,
    .extract = extract,
};
