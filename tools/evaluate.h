/* evaluate.h: how good a model is on recorded events: every example is scored by what was known
 * just before it happened (progressive validation), and so are the baselines. */
#pragma once
#include "ranker/rank.h"
#include "tools/report.h"

struct evaluate_options {
    const char *events; /* a file; NULL: the settings' topic */
    int64_t since_us;   /* examples after this time only; -1: after the model's last event */
    int64_t seed;       /* of negatives and of the random order */
    int quiet;
};
/* Adds its figures to `r`. */
enum status evaluate(const struct rk_bundle *b, const struct rk_config *c,
                     const struct evaluate_options *o, struct arena *a, struct report *r);
