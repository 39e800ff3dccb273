/* iso.h: moments written as ISO 8601: "2021-12-03T10:15:30+01:00", with a space for the T, with
 * fractions of a second, with Z or without a zone (then UTC), or a day alone. A zone's name in
 * brackets behind it, as Java writes it, is skipped. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "base/slice.h"

/* Microseconds since 1970 in UTC, and how far the clock there was ahead of UTC. Years 1 to 9999. */
bool iso_parse(struct slice s, int64_t *utc_us, int *ahead_s);
/* Days since 1970 of a date of the Gregorian calendar, and back. */
int64_t iso_days(int year, int month, int day);
void iso_date(int64_t days, int *year, int *month, int *day);
