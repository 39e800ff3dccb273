/* claim.h: small things every kind's check() needs: sides, scopes, names of columns. */
#pragma once
#include "features/kind.h"

/* The choices of a `scope:` setting, in the order of enum feat_scope. */
#define FEAT_SCOPE_CHOICES "global|user|session|item"
/* The choices of a `scale:` setting. */
#define FEAT_SCALE_CHOICES "raw|log"
enum { FEAT_SCALE_RAW, FEAT_SCALE_LOG };

enum feat_side feat_scope_side(enum feat_scope scope);
enum feat_side feat_source_side(const struct feat_source *s);
float feat_scaled(int scale, double v); /* v or log(1 + v) */

/* Parses the text of setting `key`; errors start with the key. */
enum status feat_claim_match(struct feat_plan *p, const char *key, const char *text,
                             struct feat_match *out);
enum status feat_claim_source(struct feat_plan *p, const char *key, const char *text,
                              bool as_number, struct feat_source *out);
/* An earlier feature of the given kind, named by setting `key`. */
enum status feat_claim_feature(const struct feat_plan *p, const char *key, const char *name,
                               const char *kind, const struct feat **out);
/* A time as settings write it ("24h"), in the plan's arena. */
const char *feat_time_word(struct feat_plan *p, int64_t time_us);

/* The record of `scope` that a request (row -1) or a row reads; NULL when unknown. */
const struct feat_record *feat_read_record(const struct feat_read *r, enum feat_scope scope,
                                           int row);
/* Does the request name an entity of that scope at all? Unknown ones have counts of 0, unnamed
 * ones have none. */
bool feat_read_names(const struct feat_read *r, enum feat_scope scope, int row);
