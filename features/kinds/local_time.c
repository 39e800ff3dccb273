/* local_time.c: the hour, the day, the weekend: of the request's time in a zone that stands in the
 * settings, or of a moment in a field as the clock there showed it (ISO 8601 with its offset).
 * Zones have fixed offsets: summer time would need a database that changes twice a year. Cyclic:
 * hour, weekday and month as a point on a circle, so that 23:59 is near 0:00. */
#include "features/claim.h"
#include <math.h>
#include "base/iso.h"

static const char *const words[] = {"hour", "weekday", "weekend", "day", "month", "year", NULL};
enum { HOUR, WEEKDAY, WEEKEND, DAY, MONTH, YEAR, PARTS };
#define PARTS_MAX 16

struct params {
    const char *source_text;
    struct conf_strings parts_text;
    int64_t ahead_us;
    bool cyclic, has_source;
    struct feat_source source;
    int parts[PARTS_MAX]; /* [parts_text.n] */
};

static const struct conf_item items[] = {
    CONF_STRING(
        struct params, source_text, "source", "",
        "A moment in a field: ISO 8601, read as the clock there showed it, or seconds since "
        "1970. Without it the request's time."),
    CONF_STRINGS(
        struct params, parts_text, "parts", "hour, weekday, weekend",
        "hour (0 to 23.99), weekday (1 Monday to 7), weekend (0 or 1), day (of the month), "
        "month (1 to 12), year."),
    CONF_TIME(
        struct params, ahead_us, "utc_offset", "0s", -86400e6, 86400e6,
        "How far the local clock is ahead of UTC, as 1h or -5h; for times without an offset."),
    CONF_BOOL(struct params, cyclic, "cyclic", "false",
              "hour, weekday and month as sine and cosine, two columns each."),
    CONF_END};

static bool is_round(int part) { return part == HOUR || part == WEEKDAY || part == MONTH; }

static enum status find_part(const char *word, int *out) {
    for (int i = 0; i < PARTS; i++)
        if (strcmp(word, words[i]) == 0) {
            *out = i;
            return STATUS_OK;
        }
    const char *near = conf_nearest(slice_of(word), words);
    return fail(STATUS_INVALID_ARGUMENT,
                "parts: '%s' is none of hour weekday weekend day month year%s%s%s", word,
                near != NULL ? "; did you mean '" : "", near != NULL ? near : "",
                near != NULL ? "'?" : "");
}

static enum status check(struct feat_plan *p, struct feat *f) {
    struct params *m = f->params;
    int n = 0;
    if (m->parts_text.n < 1 || m->parts_text.n > PARTS_MAX)
        return fail(STATUS_INVALID_ARGUMENT, "parts: %d parts; 1 to %d are allowed",
                    m->parts_text.n, PARTS_MAX);
    const char **names = ARENA_ARRAY(&p->arena, const char *, 2 * m->parts_text.n);
    for (int i = 0; i < m->parts_text.n; i++) {
        const char *word = m->parts_text.v[i];
        TRY(find_part(word, &m->parts[i]));
        bool round = m->cyclic && is_round(m->parts[i]);
        names[n++] = round ? arena_printf(&p->arena, "%s.sin", word) : word;
        if (round)
            names[n++] = arena_printf(&p->arena, "%s.cos", word);
    }
    f->side = FEAT_CONTEXT;
    m->has_source = m->source_text[0] != '\0';
    if (m->has_source) {
        TRY(feat_claim_source(p, "source", m->source_text, FEAT_AS_LOCAL, &m->source));
        f->side = feat_source_side(&m->source);
    }
    f->n_columns = n;
    f->column_names = names;
    return STATUS_OK;
}

/* The part's value, and in *turn how far round its circle. */
static double part_of(int part, int64_t local_us, double *turn) {
    int64_t day_us = 86400000000, days = local_us / day_us;
    int year, month, day;
    days -= local_us < days * day_us; /* towards the past, before 1970 too */
    double hour = (double)(local_us - days * day_us) / 3600e6;
    int weekday = (int)(((days + 3) % 7 + 7) % 7); /* 1970 began on a Thursday; 0 is Monday */
    iso_date(days, &year, &month, &day);
    const double values[PARTS] = {hour, weekday + 1, weekday >= 5, day, month, year};
    const double turns[PARTS] = {hour / 24, weekday / 7.0, 0, 0, (month - 1) / 12.0, 0};
    *turn = turns[part];
    return values[part];
}

static void extract(const struct feat *f, struct feat_read *r, int row, float *dense,
                    uint32_t *ids) {
    static const double pi = 3.14159265358979323846;
    (void)ids;
    const struct params *m = f->params;
    double seconds;
    int64_t local_us = r->now_us;
    if (m->has_source) {
        if (!feat_source_number(&m->source, r, row, &seconds) || fabs(seconds) > 1e11)
            return;
        local_us = llround(seconds * 1e6);
    }
    local_us += m->ahead_us;
    for (int i = 0, n = 0; i < m->parts_text.n; i++) {
        double turn, v = part_of(m->parts[i], local_us, &turn);
        if (!m->cyclic || !is_round(m->parts[i])) {
            dense[n++] = (float)v;
            continue;
        }
        dense[n++] = (float)sin(2 * pi * turn);
        dense[n++] = (float)cos(2 * pi * turn);
    }
}

const struct feat_kind feat_kind_local_time = {
    .name = "local_time",
    .doc = "Hour, weekday, weekend, day, month, year of the request or of a moment in a field.",
    .params = items,
    .params_bytes = sizeof(struct params),
    .check = check,
    .extract = extract,
};
