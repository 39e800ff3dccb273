/* text.h: a text as words in lower case, and as runs of letters, hashed to 32 bits. Letters are
 * ASCII letters and digits and everything beyond ASCII; Latin, Greek and Cyrillic capitals become
 * small. Language-blind: no stemming, no stop words, and a text without spaces is one word (runs of
 * letters serve such languages better). */
#pragma once
#include <stdint.h>
#include "base/slice.h"

/* Words of a text, in order; at most `max`. Returns how many. */
int feat_text_terms(struct slice text, uint32_t *out, int max);
/* Runs of `length` letters within words, distinct and sorted; a shorter word is one run. */
int feat_text_grams(struct slice text, int length, uint32_t *out, int max);
int feat_text_words(struct slice text); /* how many words */
/* Sorts and drops repeats; returns how many are left. */
int feat_text_distinct(uint32_t *v, int n);
/* |a and b| of two sorted, distinct lists. */
int feat_text_shared(const uint32_t *a, int n_a, const uint32_t *b, int n_b);
