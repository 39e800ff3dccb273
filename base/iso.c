/* iso.c: ISO 8601 moments. The calendar arithmetic counts years from March, so that the leap day
 * comes last (Howard Hinnant, "chrono-compatible low-level date algorithms"). No leap seconds, no
 * week dates, no zones by name. */
#include "base/iso.h"

int64_t iso_days(int year, int month, int day) {
    int y = month <= 2 ? year - 1 : year;
    int era = (y >= 0 ? y : y - 399) / 400;
    int of_era = y - era * 400;
    int of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    int day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    return (int64_t)era * 146097 + day_of_era - 719468;
}

void iso_date(int64_t days, int *year, int *month, int *day) {
    int64_t z = days + 719468;
    int64_t era = (z >= 0 ? z : z - 146096) / 146097;
    int of_era = (int)(z - era * 146097);
    int y = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int of_year = of_era - (365 * y + y / 4 - y / 100);
    int m = (5 * of_year + 2) / 153;
    *day = of_year - (153 * m + 2) / 5 + 1;
    *month = m < 10 ? m + 3 : m - 9;
    *year = (int)(y + era * 400) + (*month <= 2);
}

struct reader {
    const char *p, *end;
};

static bool take(struct reader *r, char c) {
    if (r->p == r->end || *r->p != c)
        return false;
    r->p++;
    return true;
}

/* Exactly `digits` digits, a number up to `most`. */
static bool number(struct reader *r, int digits, int most, int *out) {
    int v = 0;
    for (int i = 0; i < digits; i++, r->p++) {
        if (r->p == r->end || *r->p < '0' || *r->p > '9')
            return false;
        v = v * 10 + (*r->p - '0');
    }
    *out = v;
    return v <= most;
}

/* Microseconds of ".123456789"; digits beyond the sixth are dropped. */
static bool fraction(struct reader *r, int64_t *us) {
    int64_t unit = 100000;
    const char *from = r->p;
    *us = 0;
    for (; r->p < r->end && *r->p >= '0' && *r->p <= '9'; r->p++, unit /= 10)
        *us += unit * (*r->p - '0');
    return r->p > from;
}

static bool time_of_day(struct reader *r, int64_t *us) {
    int hour, minute, second = 0;
    int64_t part = 0;
    if (!number(r, 2, 23, &hour) || !take(r, ':') || !number(r, 2, 59, &minute))
        return false;
    if (take(r, ':') && !number(r, 2, 60, &second))
        return false;
    if ((take(r, '.') || take(r, ',')) && !fraction(r, &part))
        return false;
    *us = ((int64_t)hour * 3600 + minute * 60 + second) * 1000000 + part;
    return true;
}

static bool zone(struct reader *r, int *ahead_s) {
    int hour = 0, minute = 0, sign = 0;
    if (!take(r, 'Z') && !take(r, 'z')) {
        sign = take(r, '+') ? 1 : take(r, '-') ? -1 : 0;
        if (sign != 0 && !number(r, 2, 18, &hour))
            return false;
        bool colon = sign != 0 && take(r, ':');
        if (sign != 0 && (colon || (r->p < r->end && *r->p != '[')) && !number(r, 2, 59, &minute))
            return false;
    }
    *ahead_s = sign * (hour * 3600 + minute * 60);
    if (take(r, '[')) /* [Europe/Paris] */
        while (r->p < r->end && !take(r, ']'))
            r->p++;
    return r->p == r->end;
}

bool iso_parse(struct slice s, int64_t *utc_us, int *ahead_s) {
    static const int lengths[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    struct reader r = {s.p, s.p + s.n};
    int year, month, day, ahead = 0, back_month, back_day;
    int64_t us = 0;
    if (!number(&r, 4, 9999, &year) || !take(&r, '-') || !number(&r, 2, 12, &month) ||
        !take(&r, '-') || !number(&r, 2, 31, &day) || year < 1 || month < 1 || day < 1 ||
        day > lengths[month - 1])
        return false;
    int64_t days = iso_days(year, month, day);
    iso_date(days, &year, &back_month, &back_day);
    if (back_day != day) /* the 29th of a February that has none */
        return false;
    if (r.p < r.end) {
        if (!take(&r, 'T') && !take(&r, 't') && !take(&r, ' '))
            return false;
        if (!time_of_day(&r, &us) || !zone(&r, &ahead))
            return false;
    }
    *utc_us = days * 86400000000 + us - (int64_t)ahead * 1000000;
    *ahead_s = ahead;
    return true;
}
