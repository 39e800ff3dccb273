/* skew.h: logged rows beside rows made again: which feature differs, how often, in how many bits.
 */
#pragma once
#include "features/state.h"
#include "proto/rpc.h"
#include "tools/report.h"

struct skew_count {
    int64_t values, different, bits; /* numbers and ids compared; of these not equal; in bits */
};
struct skew {
    const struct feat_plan *plan;
    struct skew_count *counts; /* [n_features] */
    int64_t rows;              /* candidates compared */
    int64_t bits;              /* that differ, of all features */
    char first[256];           /* the first difference in words */
};

void skew_init(struct skew *s, const struct feat_plan *plan);
void skew_deinit(struct skew *s);
/* Were these rows made by a plan of this shape? */
bool skew_fits(const struct feat_plan *p, const struct rpc_request_log *q);
/* Compares all of one request, which must fit; false: something differs. */
bool skew_compare(struct skew *s, int64_t number, const struct rpc_request_log *q,
                  const struct feat_rows *now);
/* A table, a line a feature. */
void skew_report(const struct skew *s, struct report *r);
