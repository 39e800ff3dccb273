/* conf_parse.c: how single values of settings are written: whole numbers, times, sizes, choices;
 * and the nearest word, for messages. Pure functions: they say no, and conf.c says where. */
#include <math.h>
#include "base/conf_parts.h"
#include "base/node_build.h"

const struct conf_unit conf_time_units[] = {{"d", 86400e6}, {"h", 3600e6}, {"m", 60e6}, {"s", 1e6},
                                            {"ms", 1e3},    {"us", 1},     {NULL, 0}};
const struct conf_unit conf_byte_units[] = {{"TiB", 1099511627776.0},
                                            {"GiB", 1073741824.0},
                                            {"MiB", 1048576.0},
                                            {"KiB", 1024.0},
                                            {"B", 1},
                                            {NULL, 0}};

bool conf_parse_int(struct slice s, int64_t *out) {
    bool negative = s.n && s.p[0] == '-';
    size_t i = s.n && (s.p[0] == '-' || s.p[0] == '+'), digits = 0;
    uint64_t v = 0, most = (uint64_t)INT64_MAX + negative;
    for (; i < s.n; i++) {
        if (s.p[i] == '_' && digits)
            continue;
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        uint64_t digit = (uint64_t)(s.p[i] - '0');
        if (v > (most - digit) / 10)
            return false;
        v = v * 10 + digit;
        digits++;
    }
    if (digits == 0)
        return false;
    *out = negative ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

bool conf_parse_unit(struct slice s, const struct conf_unit *units, bool bare, int64_t *out) {
    size_t n = 0;
    while (n < s.n && ((s.p[n] >= '0' && s.p[n] <= '9') || (s.p[n] && strchr("._+-", s.p[n]))))
        n++;
    double v;
    if (!node_number((struct slice){s.p, n}, &v))
        return false;
    if (n == s.n && (bare || v == 0)) {
        if (bare && conf_parse_int(s, out))
            return true;
    } else {
        struct slice word = {s.p + n, s.n - n};
        while (units->word && !slice_is(word, units->word))
            units++;
        if (!units->word)
            return false;
        v *= units->size;
    }
    if (!(fabs(v) < 9e18) || fabs(v - rint(v)) > 1e-6 * fabs(v)) /* 1.1s is not quite whole */
        return false;
    *out = (int64_t)rint(v);
    return true;
}

struct slice conf_choice_word(const char *choices, int index) {
    for (; index > 0 && *choices; index--) {
        choices += strcspn(choices, "|");
        choices += *choices == '|';
    }
    return (struct slice){choices, strcspn(choices, "|")};
}

int conf_choice_index(const char *choices, struct slice word) {
    for (int i = 0; *choices; i++) {
        size_t n = strcspn(choices, "|");
        if (slice_equal((struct slice){choices, n}, word))
            return i;
        choices += n + (choices[n] == '|');
    }
    return -1;
}

/* Edit distance with neighbours swapped counting as one (optimal string alignment). */
enum { WORD_MAX = 48 };
static int distance(struct slice a, struct slice b) {
    int row[3][WORD_MAX + 1];
    for (size_t j = 0; j <= b.n; j++)
        row[0][j] = (int)j;
    for (size_t i = 1; i <= a.n; i++) {
        int *now = row[i % 3], *above = row[(i + 2) % 3], *above2 = row[(i + 1) % 3];
        now[0] = (int)i;
        for (size_t j = 1; j <= b.n; j++) {
            int best = above[j - 1] + (a.p[i - 1] != b.p[j - 1]);
            best = above[j] + 1 < best ? above[j] + 1 : best;
            best = now[j - 1] + 1 < best ? now[j - 1] + 1 : best;
            bool swapped = i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1];
            if (swapped && above2[j - 2] + 1 < best)
                best = above2[j - 2] + 1;
            now[j] = best;
        }
    }
    return row[a.n % 3][b.n];
}

/* Near: a third of the letters wrong at most, or one begins with the other. */
const char *conf_nearest(struct slice word, const char *const *words) {
    const char *best = NULL;
    int least = word.n < 6 ? 3 : (int)word.n / 3 + 1;
    if (word.n < 2 || word.n > WORD_MAX)
        return NULL;
    for (; *words; words++) {
        struct slice w = slice_of(*words);
        if (w.n == 0 || w.n > WORD_MAX)
            continue;
        int d = distance(word, w);
        size_t shorter = w.n < word.n ? w.n : word.n;
        if (d >= least && shorter >= 3 && memcmp(w.p, word.p, shorter) == 0)
            d = least - 1;
        if (d < least && (size_t)d < word.n) {
            least = d;
            best = *words;
        }
    }
    return best;
}
