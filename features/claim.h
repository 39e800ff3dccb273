/* claim.h: small things every kind's check() needs: sides, scopes, names of columns. */
#pragma once
#include "features/kind.h"

/* A `scope:` setting: global, user, session, item, item.FIELD, or a list as [user, event.FIELD]. */
#define FEAT_CONF_SCOPE(st, field, dflt, doc) CONF_STRINGS(st, field, "scope", dflt, doc)
/* The choices of a `scale:` setting. */
#define FEAT_SCALE_CHOICES "raw|log"
enum { FEAT_SCALE_RAW, FEAT_SCALE_LOG };

enum feat_side feat_scope_side(enum feat_scope scope);
enum feat_side feat_source_side(const struct feat_source *s);
enum feat_side feat_side_join(enum feat_side a, enum feat_side b); /* of what needs both */
float feat_scaled(int scale, double v);                            /* v or log(1 + v) */

/* Parses the text of setting `key`; errors start with the key. */
enum status feat_claim_match(struct feat_plan *p, const char *key, const char *text,
                             struct feat_match *out);
enum status feat_claim_source(struct feat_plan *p, const char *key, const char *text,
                              enum feat_form form, struct feat_source *out);
/* The text of setting `key` as a finite number. */
enum status feat_claim_number(const char *key, const char *text, double *out);
/* What a scope setting says; sets f->side and f->place. FEAT_SCOPE_VALUE needs feat_kind.apply, and
 * feat_kind.merge where it sums over items. */
enum status feat_claim_scope(struct feat_plan *p, struct feat *f, const struct conf_strings *text,
                             enum feat_scope *out);
/* A cell in that scope; of a sum over items also the items' own cells. Returns its number. */
int feat_claim_cell(struct feat_plan *p, struct feat *f, enum feat_scope scope);
/* The place that sums over items by the values of source->field in source->form. */
enum status feat_claim_sum(struct feat_plan *p, struct feat *f, const struct feat_source *source,
                           bool with_total);
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
/* The cells of f's cell number `cell` that the row reads: one, or several of a place, to be added
 * up. Empty ones are entities without events. Returns how many; 0: the request names none. */
int feat_read_cells(const struct feat_read *r, const struct feat *f, int cell, int row,
                    struct slice *out /* [FEAT_SPOTS_MAX] */);
