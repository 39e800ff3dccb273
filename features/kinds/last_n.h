/* last_n.h: reading the last-N cell, for the kinds that build on it (match, time_since) and for
 * lists of a user's items. */
#pragma once
#include "features/codec.h"
#include "features/kind.h"

struct feat_last_entry {
    uint64_t item; /* entity key */
    int64_t time_us;
    double value; /* finite, or NaN: none */
};

/* An earlier last_n of a user or session, named by setting `key`. */
enum status feat_claim_last(const struct feat_plan *p, const char *key, const char *name,
                            const struct feat **out);
/* Newest first. */
struct feat_last_reader {
    struct cursor c;
    uint64_t left;
    bool has_value;
    uint64_t unit_us;          /* of all times of this list */
    uint64_t plain;            /* at.item's plain form (keys.h) */
    struct feat_last_entry at; /* what the next one is written relative to */
};
/* `f` is of kind last_n. Returns the number of entries. */
int feat_last_open(const struct feat *f, struct slice cell, struct feat_last_reader *r);
bool feat_last_next(struct feat_last_reader *r, struct feat_last_entry *out);

/* log(1 + seconds since the entry) */
float feat_last_age(const struct feat_read *r, const struct feat_last_entry *e);

enum feat_scope feat_last_scope(const struct feat *f);
int64_t feat_last_n(const struct feat *f); /* how many it keeps */
bool feat_last_has_value(const struct feat *f);
/* The request's cell; empty when unknown. Not of scope item. */
struct slice feat_last_cell(const struct feat *f, const struct feat_read *r);
/* Does the request name the user or session whose list this is? */
bool feat_last_named(const struct feat *f, const struct feat_read *r);

#define FEAT_LAST_MAX 1000
