/* conf_parts.h: what reading and writing of settings share; for base/conf*.c only. */
#pragma once
#include "base/conf.h"

struct conf_unit {
    const char *word;
    double size;
};
/* Largest first; the last is 1. */
extern const struct conf_unit conf_time_units[];
extern const struct conf_unit conf_byte_units[];

/* A whole number in [INT64_MIN, INT64_MAX] without losing digits: 12, -3, 1_000. */
bool conf_parse_int(struct slice s, int64_t *out);
/* "1.5h" -> microseconds and so on; a bare number is allowed if `bare`, and 0 always. */
bool conf_parse_unit(struct slice s, const struct conf_unit *units, bool bare, int64_t *out);
/* The index of `word` in "a|b|c", or -1. */
int conf_choice_index(const char *choices, struct slice word);
struct slice conf_choice_word(const char *choices, int index);
