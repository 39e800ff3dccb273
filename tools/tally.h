/* tally.h: how often each of some words came, and where first. Bounded: words beyond TALLY_MAX are
 * counted together, as "(others)". */
#pragma once
#include <stdint.h>
#include "base/slice.h"

enum { TALLY_MAX = 256, TALLY_PLACES = 3 };

struct tally_entry {
    char *word; /* owned */
    uint64_t hash;
    int64_t count;
    int64_t places[TALLY_PLACES]; /* of the first ones, 1-based; 0: none */
};
struct tally { /* a zeroed struct is an empty tally */
    struct tally_entry entries[TALLY_MAX + 1];
    int n;
};

void tally_add(struct tally *t, struct slice word, int64_t place);
void tally_sort(struct tally *t); /* most frequent first, then by word */
const struct tally_entry *tally_find(const struct tally *t, struct slice word); /* NULL: none */
void tally_deinit(struct tally *t);
