/* trending.c: is it happening more than it used to? The log of how much faster events come now than
 * they did: two decayed counts with a short and a long half-life estimate the rate of events each
 * (a steady stream of rate x has a decayed count of x half_life / ln 2), smoothed by some events at
 * the slow rate so that the first event is no trend. 0 is steady, 0.69 twice as fast. Reads the two
 * features' cells; no state of its own. */
#include "features/claim.h"
#include "features/kinds/decayed.h"
#include <math.h>

struct params {
    const char *fast_text, *slow_text;
    double prior_weight;
    const struct feat *fast, *slow;
};

static const struct conf_item items[] = {
    CONF_STRING(struct params, fast_text, "fast", NULL,
                "An earlier decayed_count with a short half-life."),
    CONF_STRING(struct params, slow_text, "slow", NULL,
                "An earlier one of the same scope with a longer half-life."),
    CONF_FLOAT(struct params, prior_weight, "prior_weight", "1", 1e-6, 1e9, "events",
               "Added to both counts, as events of the slow rate."),
    CONF_END};

static enum status check(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    TRY(feat_claim_feature(p, "fast", m->fast_text, "decayed_count", &m->fast));
    TRY(feat_claim_feature(p, "slow", m->slow_text, "decayed_count", &m->slow));
    if (m->fast->cells[0].scope != m->slow->cells[0].scope || m->fast->place != m->slow->place)
        return fail(STATUS_INVALID_ARGUMENT, "slow: '%s' and '%s' are not of one scope",
                    m->slow_text, m->fast_text);
    if (feat_decayed_half_life_us(m->fast) >= feat_decayed_half_life_us(m->slow))
        return fail(STATUS_INVALID_ARGUMENT, "fast: the half-life of '%s' is not the shorter one",
                    m->fast_text);
    f->side = m->fast->side;
    f->n_columns = 1;
    return STATUS_OK;
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    (void)ids;
    const struct params *m = f->params;
    double fast = feat_decayed_value(m->fast, r, row), slow = feat_decayed_value(m->slow, r, row);
    double longer =
        (double)feat_decayed_half_life_us(m->slow) / (double)feat_decayed_half_life_us(m->fast);
    dense[0] = (float)log((fast * longer + m->prior_weight) / (slow + m->prior_weight));
}

const struct feat_kind feat_kind_trending = {
    .name = "trending",
    .doc = "How much faster events come now than they used to, as a logarithm.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .check = check,
    .extract = extract,
};
